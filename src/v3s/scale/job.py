"""The folder of a job for an engine: paths in by Parquet, rows out by Parquet, and what both belong to.

==================  ===================================================================================================
job.json            `Job`: which list, which vectors; a folder of another job is refused
files.parquet       one row a file: path, and position, label and bounds of its entries in the list; a row group has the
                    files of ten parts
part-00000.parquet  one row a file: path, reason (why it cannot be used), index, and for each vector the number of its
                    span, its start and end in seconds, and the vector as the network outputs it, float32
==================  ===================================================================================================

A part is written whole by whoever computes it, under a name that depends on its files only. So a part that is computed
twice is there once, and a job that was killed resumes with the parts that are missing.
"""

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v3s.data.index_cache import ReadResult
from v3s.data.lists.spans import SpanOptions
from v3s.data.lists.splits import VideoList
from v3s.data.scan import Scan
from v3s.files.lock import is_free
from v3s.files.parquet import import_pyarrow
from v3s.files.reading import parse_json, read_as, read_json
from v3s.files.writing import PART, CheckpointError, write_atomically, write_json
from v3s.scale.segments import FileVectors, span_numbers
from v3s.video.container import Failure
from v3s.video.decode import video_from_json
from v3s.video.span import Span

JOB, FILES = "job.json", "files.parquet"
ATTEMPTS = ".attempts-"
"""Beginning of the names of files, one a part, with a byte for each time that it was begun."""

_MOST_FILES, _FEWEST_PARTS = 100, 64
"""The most files of a part, and the fewest parts of a short list. A killed job loses the parts it works on."""

_PARTS_PER_GROUP = 10
"""Of a row group: pyarrow needs 10 KB for each, in the process that writes a list and in every actor that reads one."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The content of job.json.

    Attributes:
        root: the folder that paths are relative to.
        source: one line that describes the list.
        num_missing: listed videos that do not exist.
        stays_inside: whether links out of the root are refused.
        spans: how videos are cut and sampled.
        num_files: number of files.
        num_entries: number of entries of the list; spans of a file are several.
        files_per_part: files of every part but the last.
        list_sha256: SHA-256 of paths, labels and bounds.
        made: what is computed, such as the fingerprint of the network and the clips.
    """

    root: str
    source: str
    num_missing: int
    stays_inside: bool
    spans: SpanOptions
    num_files: int
    num_entries: int
    files_per_part: int
    list_sha256: str
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def num_parts(self) -> int:
        """Number of parts."""
        return -(-self.num_files // self.files_per_part)

    def files_in(self, part: int) -> int:
        """Number of files of a part."""
        return min(self.files_per_part, self.num_files - part * self.files_per_part)

    def part_of(self, file: int) -> int:
        """Number of the part of a file."""
        return file // self.files_per_part


def begin_job(folder: Path, videos: VideoList, made: Mapping[str, Any], *, overwrite: bool = False) -> Job:
    """Write what a job needs into its folder, or find it there.

    Args:
        folder: the folder, which every machine of the engine reaches under the same path.
        videos: the list.
        made: what is computed.
        overwrite: remove what another job wrote there.

    Raises:
        ValueError: the folder contains another job, or anything else, which is never removed.
    """
    num_files = len(dict.fromkeys(videos.paths)) if videos.bounds else len(videos)
    job = Job(
        root=str(videos.root.resolve()),
        source=videos.source,
        num_missing=videos.num_missing,
        stays_inside=videos.stays_inside,
        spans=SpanOptions(**asdict(videos.spans)),
        num_files=num_files,
        num_entries=len(videos),
        files_per_part=min(_MOST_FILES, max(1, num_files // _FEWEST_PARTS)),
        list_sha256=_list_sha256(videos),
        made=dict(made),
    )
    if (folder / JOB).exists() and not overwrite:
        before = read_job(folder)
        if before == job:
            for left in (*folder.glob(PART), *folder.glob(f"{ATTEMPTS}*")):  # by a killed process
                left.unlink(missing_ok=True)  # its actors live a little longer, and may complete or remove it
            return job
        differing = ", ".join(name for name, value in asdict(job).items() if asdict(before)[name] != value)
        raise ValueError(
            f"{folder} contains the rows of another job ({differing} differ); use --overwrite, or another --out"
        )
    if folder.exists() and not (is_job(folder) or (folder.is_dir() and is_free(folder, FILES))):
        raise ValueError(f"{folder} contains other things than rows of an engine; move it, or choose another --out")
    remove_job(folder)
    write_atomically(folder / FILES, lambda path: _write_files(path, videos, job))
    write_json(folder / JOB, asdict(job))  # last: it marks the folder as complete
    return job


def read_job(folder: Path) -> Job:
    """Read job.json.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    if not (folder / JOB).is_file():
        raise ValueError(f"{folder}: contains no rows of an engine ({JOB} is missing)")
    return read_as(Job, read_json(folder / JOB), folder / JOB)


def is_job(folder: str | Path) -> bool:
    """Whether a folder contains the rows of a job."""
    return (Path(folder) / JOB).is_file()


def remove_job(folder: Path) -> None:
    """Remove the folder of a job, if there is one; what a killed process leaves is a job, or its list."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name not in (JOB, FILES) and not path.is_dir():
                path.unlink(missing_ok=True)
        (folder / JOB).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def part_path(folder: Path, part: int) -> Path:
    """Return the path of a part's rows."""
    return folder / f"part-{part:05d}.parquet"


def missing_parts(folder: Path, job: Job) -> list[int]:
    """The parts that nobody has written yet."""
    there = {path.name for path in folder.glob("part-*.parquet")}
    return [part for part in range(job.num_parts) if part_path(folder, part).name not in there]


def part_videos(folder: Path, job: Job, part: int) -> VideoList:
    """Read the entries of a part's files."""
    _, parquet = import_pyarrow()
    with parquet.ParquetFile(folder / FILES) as file:
        group, place = divmod(part * job.files_per_part, file.metadata.row_group(0).num_rows)
        rows = file.read_row_group(group).slice(place, job.files_per_part)
    return _list_of(job, rows.to_pylist())


def all_videos(folder: Path, job: Job) -> VideoList:
    """Read the whole list, in its order."""
    return _list_of(job, _file_rows(folder))


def _file_rows(folder: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of all files; all columns by default."""
    _, parquet = import_pyarrow()
    with parquet.ParquetFile(folder / FILES) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, columns=columns).to_pylist()


def write_part(folder: Path, part: int, rows: Sequence[FileVectors]) -> None:
    """Write the rows of a part's files, whole or not at all."""
    arrow, parquet = import_pyarrow()
    dimension = next((vectors.shape[1] for row in rows for vectors in row.vectors), 0)
    schema = arrow.schema(
        [
            *((name, arrow.string()) for name in ("path", "reason", "index")),
            ("spans", arrow.list_(arrow.int32())),
            *((name, arrow.list_(arrow.float64())) for name in ("start_seconds", "end_seconds")),
            ("vectors", arrow.list_(arrow.list_(arrow.float32(), dimension or 1))),
        ]
    )
    columns: dict[str, list[Any]] = {
        "path": [row.path.encode("utf-8", "backslashreplace").decode() for row in rows],
        "reason": [row.outcome.reason if isinstance(row.outcome, Failure) else None for row in rows],
        "index": [_as_json(row.outcome) for row in rows],
        "spans": [_repeated(row, row.spans) for row in rows],
        "start_seconds": [_repeated(row, [start for start, _ in row.times]) for row in rows],
        "end_seconds": [_repeated(row, [end for _, end in row.times]) for row in rows],
    }
    flat = [vectors for row in rows for vectors in row.vectors]
    values = torch.cat(flat).numpy().reshape(-1) if flat else np.empty(0, np.float32)
    lists = arrow.FixedSizeListArray.from_arrays(arrow.array(values), dimension or 1)
    ends = np.cumsum([0, *(sum(map(len, row.vectors)) for row in rows)], dtype=np.int32)
    arrays = [arrow.array(column, schema.field(name).type) for name, column in columns.items()]
    table = arrow.table([*arrays, arrow.ListArray.from_arrays(arrow.array(ends), lists)], schema=schema)
    write_atomically(part_path(folder, part), lambda path: parquet.write_table(table, path))


def read_outcomes(folder: Path, job: Job) -> dict[str, ReadResult]:
    """Read what reading each file gave, by its path."""
    outcomes: dict[str, ReadResult] = {}
    files = _file_rows(folder, ["path"])
    for part in range(job.num_parts):
        lines = _read(folder, part, ["index"])["index"].to_pylist()
        for row, line in zip(islice(files, job.files_in(part)), lines, strict=True):
            outcomes[os.fsdecode(row["path"])] = _from_json(line)
    return outcomes


def read_vectors(
    folder: Path, job: Job, found: Scan, videos: Sequence[int]
) -> Generator[tuple[int, Tensor], None, None]:
    """Yield what the network gave for videos of a scan's usable table: (number, float32 of shape (clips or 1, D)).

    Parts are read in the order of the list, each once if the entries of a file follow one another.
    """
    numbers = span_numbers(found.videos.paths)
    files = {path: file for file, path in enumerate(dict.fromkeys(found.videos.paths))}
    entries = ((video, int(found.usable[video])) for video in videos)
    in_parts = groupby(entries, key=lambda entry: job.part_of(files[found.videos.paths[entry[1]]]))
    for part, group in in_parts:
        table = _read(folder, part, ["spans", "vectors"])
        spans, vectors = table["spans"].combine_chunks(), table["vectors"].combine_chunks()
        for video, entry in group:
            row = files[found.videos.paths[entry]] % job.files_per_part
            own = spans[row].values.to_numpy() == numbers[entry]
            rows = vectors[row].values
            flat = rows.flatten().to_numpy().reshape(len(rows), -1)
            yield video, torch.from_numpy(flat[own].copy())


def _read(folder: Path, part: int, columns: list[str]) -> Any:
    _, parquet = import_pyarrow()
    path = part_path(folder, part)
    try:
        return parquet.read_table(path, columns=columns)
    except (OSError, ValueError) as error:  # pyarrow's errors are of both kinds
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: damaged ({reason}); remove this file and run the command again") from error


def _as_json(outcome: ReadResult) -> str:
    if isinstance(outcome, Failure):
        return json.dumps(astuple(outcome))
    assert not isinstance(outcome, Span)
    return outcome.to_json()


def _from_json(line: str) -> ReadResult:
    return Failure(*parse_json(line)) if line.startswith("[") else video_from_json(line)


def _repeated(row: FileVectors, values: Sequence[Any]) -> list[Any]:
    """A value of each span for each of its vectors."""
    return [value for value, vectors in zip(values, row.vectors, strict=True) for _ in range(len(vectors))]


def _list_sha256(videos: VideoList) -> str:
    digest = hashlib.sha256()
    for entry in zip(videos.paths, videos.labels, videos.bounds or (None,) * len(videos), strict=True):
        digest.update(f"{entry}\n".encode())
    return digest.hexdigest()


def _write_files(path: Path, videos: VideoList, job: Job) -> None:
    """Write one row a file; names and labels as bytes, because a file name may contain any."""
    arrow, parquet = import_pyarrow()
    schema = arrow.schema(
        [
            ("path", arrow.binary()),
            ("positions", arrow.list_(arrow.int64())),
            ("labels", arrow.list_(arrow.binary())),
            *((name, arrow.list_(arrow.float64())) for name in ("start_seconds", "end_seconds")),
        ]
    )
    entries = _entries_by_file(videos)
    with parquet.ParquetWriter(path, schema) as writer:
        while rows := list(islice(entries, _PARTS_PER_GROUP * job.files_per_part)):
            ends = arrow.array(np.cumsum([0, *(len(positions) for _, positions in rows)], dtype=np.int32))
            every = [position for _, positions in rows for position in positions]
            of_entries = {
                "positions": every,
                "labels": [_label(videos, position) for position in every],
                "start_seconds": [_bound(videos, 0, position) for position in every],
                "end_seconds": [_bound(videos, 1, position) for position in every],
            }
            columns = [arrow.array([os.fsencode(path) for path, _ in rows], schema.field("path").type)]
            for name, values in of_entries.items():
                typed = arrow.array(values, schema.field(name).type.value_type)
                columns.append(arrow.ListArray.from_arrays(ends, typed))
            writer.write_table(arrow.table(columns, schema=schema))


def _label(videos: VideoList, position: int) -> bytes | None:
    label = videos.labels[position]
    return None if label is None else os.fsencode(label)


def _bound(videos: VideoList, side: int, position: int) -> float | None:
    return videos.bounds[position][side] if videos.bounds else None


def _entries_by_file(videos: VideoList) -> Iterator[tuple[str, list[int]]]:
    """Yield each file and the positions of its entries; a list of whole files names each once."""
    if not videos.bounds:
        yield from ((path, [position]) for position, path in enumerate(videos.paths))
        return
    positions = defaultdict[str, list[int]](list)
    for position, path in enumerate(videos.paths):
        positions[path].append(position)
    yield from positions.items()


def _list_of(job: Job, rows: Iterable[Mapping[str, Any]]) -> VideoList:
    """The entries of some files, in the order of the list."""
    entries = sorted(
        (position, os.fsdecode(row["path"]), None if label is None else os.fsdecode(label), start, end)
        for row in rows
        for position, label, start, end in zip(
            *(row[name] for name in ("positions", "labels", "start_seconds", "end_seconds")), strict=True
        )
    )
    _, paths, labels, starts, ends = zip(*entries, strict=True)
    bounds = tuple(zip(starts, ends, strict=True)) if starts[0] is not None else ()
    return VideoList(
        Path(job.root), paths, labels, (), job.source, job.num_missing, job.stays_inside, "", bounds, job.spans
    )
