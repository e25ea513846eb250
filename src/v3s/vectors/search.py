"""``v3s search``: find the moments or videos of a collection that are most similar to a query."""

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from v3s.backbones.device import DeviceOptions, choose_compute
from v3s.files.text import counted, print_table, say
from v3s.files.times import parse_time, time_text
from v3s.options import require_files, require_folders, require_positive
from v3s.pages.templates import write_page
from v3s.vectors.collection import Vectors, open_vectors
from v3s.vectors.cutouts import check_cutouts, cutouts_if_saved, write_cutouts
from v3s.vectors.hits import Hit, hit_of, hits_table, write_hits
from v3s.vectors.moments import find_moments
from v3s.vectors.nearest.approximate import open_index
from v3s.vectors.query import Query, as_in_collection, encode_query, open_query_encoder, place_opener
from v3s.vectors.search_page import search_page

__all__ = ["Hit", "SearchConfig", "search"]


@dataclass(frozen=True, kw_only=True)
class SearchConfig(DeviceOptions):
    """Find the moments, or the videos, that are most similar to a given one.

    Hits are spans, if the collection has spans (v3s embed --segment) or one vector per clip (--per-clip); otherwise
    they are whole videos. The score of a hit is its cosine similarity to the query; z says how many standard
    deviations that lies above the mean similarity of all vectors. Without --other-files, the first hits are often other
    moments of the query's own file.

    Attributes:
        query: The video to search with.
        start: Search with a part of the video only, from this time on: seconds, m:ss or h:mm:ss.
        end: End of this part. Default: the end of the video.
        vectors: Folder of the vectors that v3s embed wrote.
        k: Number of hits to find.
        other_files: Leave out hits in the query's own file.
        out: JSON file for the result; CSV if its name ends in .csv.
        page: HTML page with thumbnails that move and lead to the file, at the time of the hit.
        clips: Folder for the hits as small H.264 files.

    More options:
        backbone: The network that computed these vectors. Default: the one that v3s embed used.
        approximate: Use the index that v3s index built.
    """

    query: Annotated[str, "QUERY"]
    vectors: Annotated[str, "--in"]
    start: str | None = None
    end: str | None = None
    backbone: str | None = None
    k: int = 10
    other_files: bool = False
    approximate: bool = False
    out: str | None = None
    page: str | None = None
    clips: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "k")
        require_files(self, out=".json .csv", page=".html")
        require_folders(self, "clips")
        start, end = self.span
        if end is not None and end <= (start or 0):
            raise ValueError(f"end is {self.end}, which is not after start, {self.start or 0}")

    @property
    def span(self) -> tuple[float | None, float | None]:
        """Start and end in seconds; None is that of the video.

        Raises:
            ValueError: one of them is not a time.
        """
        start, end = self.start, self.end
        return (
            None if start is None else parse_time(start, "start"),
            None if end is None else parse_time(end, "end"),
        )


def search(config: SearchConfig, *, console: Console | None = None) -> list[Hit]:
    """Find the moments or videos that are most similar to a query video, or to a span of one.

    The query is cut into clips and encoded in the same way as the stored vectors. With one vector per clip, every clip
    of the query is compared with every stored clip, and a clip's score is that of its best pair; hits of a video that
    overlap are merged, see `v3s.vectors.moments`.

    Args:
        config: the query, the vectors, the number of hits.
        console: where to report; the terminal by default.

    Raises:
        ValueError: the query cannot be read, its span lies outside of it, its features are zero, the vectors are
            damaged or incomplete, they come from another network, or the folder for clips is not empty.
    """
    console = console or Console()
    if config.clips is not None:
        check_cutouts(Path(config.clips))
    vectors = open_vectors(config.vectors, verify=not config.approximate)
    index = open_index(vectors) if config.approximate else None
    encoder = open_query_encoder(vectors, config.backbone, choose_compute(config.device, config.precision))
    given = as_in_collection(Path(vectors.description.root), Path(config.query))
    query = encode_query(encoder, vectors, given, *config.span)
    file = str(given)
    asked = (file, *query.times) if query.is_span else None
    without = file if config.other_files else None
    moments = find_moments(vectors, query.vectors, config.k, index, query=asked, without=without)
    open_place = place_opener(vectors)
    files: dict[int, Path] = {}
    failed: dict[int, str] = {}
    with cutouts_if_saved(Path(config.clips)) if config.clips is not None else nullcontext():
        if config.clips is not None:
            files, failed = write_cutouts(Path(config.clips), moments, open_place)
        of_file = vectors.description.space.view.fps is None and not vectors.has_spans
        ranked = enumerate(moments, start=1)
        hits = [hit_of(rank, moment, files.get(rank), with_frames=of_file) for rank, moment in ranked]
        say(console, *_summary(config, vectors, query))
        print_table(console, hits_table(hits, with_times=vectors.description.per_clip or vectors.has_spans))
        if not config.other_files and _are_all_of(file, hits, vectors):
            say(console, "all hits are in the query's own file; --other-files shows those of other files")
        if config.clips is not None:
            reasons = (f"no clip: {why}" for why in failed.values())
            say(console, f"{counted(len(files), 'clip')} in {config.clips}", *reasons)
        if config.out is not None:
            write_hits(Path(config.out), _result(config, vectors, query), hits)
        if config.page is not None:
            kind = "approximate" if config.approximate else "exact"
            lead = f"Searched {_collection(vectors)} ({kind} search). Network: {vectors.description.network}."
            videos = [partial(open_place, moment.place) for moment in moments]
            shown = search_page(config.query, query, hits, videos, lead=lead, folder=Path(config.page).parent)
            write_page(config.page, shown)
    return hits


def _summary(config: SearchConfig, vectors: Vectors, query: Query) -> list[str]:
    """What was searched, and with what."""
    lines = [_collection(vectors)]
    if config.start is not None or config.end is not None:
        start, end = map(time_text, query.times)
        lines.append(f"query: {config.query} from {start} to {end}")
    if query.widened is not None:
        wide = " to ".join(map(time_text, query.widened))
        lines.append(f"the query is shorter than a clip: widened to {wide}")
    if query.num_zero:
        lines.append(f"{counted(query.num_zero, 'clip')} of the query skipped: their features are zero (black?)")
    return lines


def _are_all_of(file: str, hits: list[Hit], vectors: Vectors) -> bool:
    """Whether all hits are in one file although the collection has others."""
    is_own = bool(hits) and all(str(Path(hit.file).resolve()) == file for hit in hits)
    return is_own and any(entry.path != hits[0].path for entry in vectors.entries())


def _collection(vectors: Vectors) -> str:
    stored = vectors.description
    skipped = f"; {counted(len(stored.left_out), 'damaged video')} skipped" if stored.left_out else ""
    skipped += f"; {counted(stored.num_gone, 'video')} gone, not searched" if stored.num_gone else ""
    return f"{counted(len(vectors), 'vector')} of {vectors.counted} ({stored.source}){skipped}"


def _result(config: SearchConfig, vectors: Vectors, query: Query) -> dict[str, Any]:
    stored = vectors.description
    start, end = map(time_text, query.times)
    return {
        "query": config.query,
        "query_start": start,
        "query_end": end,
        "vectors": config.vectors,
        "backbone": stored.backbone,
        "network": stored.network,
        "fingerprint": stored.space.fingerprint,
        "view": asdict(stored.space.view),
        "per_clip": stored.per_clip,
        "approximate": config.approximate,
        "source": stored.source,
        "num_videos": stored.num_videos,
        "num_vectors": len(vectors),
    }
