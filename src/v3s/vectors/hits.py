"""What a search found, as values, as a table for the terminal and as files."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.table import Table

from v3s.files.text import text_table
from v3s.files.times import time_text
from v3s.files.writing import write_atomically, write_json
from v3s.vectors.export import write_csv
from v3s.vectors.moments import Moment


@dataclass(frozen=True, slots=True)
class Hit:
    """A search result.

    Attributes:
        rank: position in the results, from 1.
        score: cosine similarity, in [-1, 1] up to rounding; of the most similar clips if the query has several.
        z: standard score: how many standard deviations the cosine lies above the mean over all vectors.
        path: path of the video as listed; posix.
        file: full path of the video; of a store, its folder and the name in it, where no file is.
        label: class of the video, if it was listed with one.
        start_frame: first frame of the clip, or of the video; None in a collection of spans or with a frame rate, whose
            frames are not numbered as those of the file.
        end_frame: the frame after the last.
        start_seconds: start in seconds from the start of the file on.
        end_seconds: end in seconds.
        start: the same as h:mm:ss.s.
        end: the same as h:mm:ss.s.
        clip: file of the hit in the folder ``clips``, if there is one.
    """

    rank: int
    score: float
    z: float
    path: str
    file: str
    label: str | None
    start_frame: int | None
    end_frame: int | None
    start_seconds: float
    end_seconds: float
    start: str
    end: str
    clip: str | None = None


def hit_of(rank: int, moment: Moment, clip: Path | None, *, with_frames: bool = True) -> Hit:
    """Describe a moment by its rank, from 1, the file that it was written to, and its frames if they are the file's."""
    place = moment.place
    return Hit(
        rank,
        moment.score,
        moment.z,
        place.entry.path,
        place.file,
        place.entry.label,
        place.start_frame if with_frames else None,
        place.end_frame if with_frames else None,
        place.start_seconds,
        place.end_seconds,
        time_text(place.start_seconds),
        time_text(place.end_seconds),
        None if clip is None else str(clip),
    )


def hits_table(hits: list[Hit], *, with_times: bool) -> Table:
    """Return a table of the hits for the terminal."""
    header = ("video", "rank", "score", "z", *(("start", "end") if with_times else ()))
    rows = [
        (hit.path, str(hit.rank), f"{hit.score:.4f}", f"{hit.z:+.2f}", *((hit.start, hit.end) if with_times else ()))
        for hit in hits
    ]
    return text_table("", header, rows)


def write_hits(path: Path, result: dict[str, Any], hits: list[Hit]) -> None:
    """Write hits as JSON, with the values that describe the search; as a table alone if the name ends in .csv.

    Raises:
        SaveError: the file cannot be written.
    """
    values = [asdict(hit) for hit in hits]
    if path.suffix.lower() == ".csv":
        names = tuple(field.name for field in fields(Hit))
        rows = [tuple(value[name] for name in names) for value in values]
        write_atomically(path, lambda temporary: write_csv(temporary, names, rows))
    else:
        write_json(path, {**result, "hits": values})
