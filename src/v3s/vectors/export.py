"""Export of vectors to the formats of other tools: npy, CSV and Parquet.

They contain names as text (`v3s.files.text`); videos.jsonl contains the exact names.
"""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from v3s.files.parquet import import_pyarrow
from v3s.files.text import as_cell, as_text
from v3s.files.writing import write_atomically
from v3s.vectors.collection import Vectors

_ROW_COLUMNS = ("path", "label", "start_frame", "end_frame", "num_frames", "seconds", "start_seconds", "end_seconds")


def _export_npy(vectors: Vectors) -> None:
    """Write vectors.npy, shape (N, D), and rows.csv, which describes each row in the same order."""
    stored = vectors.description

    def write(path: Path) -> None:
        header = {
            "descr": np.dtype(stored.dtype).str,
            "fortran_order": False,
            "shape": (len(vectors), stored.dimension),
        }
        with path.open("wb") as file:  # not memory-mapped: on a full disk that ends the process
            np.lib.format.write_array_header_1_0(file, header)
            for shard in vectors.shards:
                file.write(np.ascontiguousarray(shard.vectors.numpy()).data)

    write_atomically(vectors.folder / "vectors.npy", write)
    write_atomically(vectors.folder / "rows.csv", lambda path: write_csv(path, _ROW_COLUMNS, _rows(vectors)))


def _export_csv(vectors: Vectors) -> None:
    """Write vectors.csv: the description of each row, then its numbers in the columns v0, v1, ..."""
    header = (*_ROW_COLUMNS, *(f"v{number}" for number in range(vectors.description.dimension)))
    numbers = (row for shard in vectors.shards for row in shard.vectors)
    rows = ((*row, *vector.tolist()) for row, vector in zip(_rows(vectors), numbers, strict=True))
    write_atomically(vectors.folder / "vectors.csv", lambda path: write_csv(path, header, rows))


def _export_parquet(vectors: Vectors) -> None:
    """Write vectors.parquet: the description of each row, and the column ``vector``, a list of D numbers."""
    arrow, parquet = import_pyarrow()
    types = [*2 * [arrow.string()], *3 * [arrow.int32()], *3 * [arrow.float64()]]
    number = arrow.float16() if vectors.description.dtype == "float16" else arrow.float32()
    columns = [*zip(_ROW_COLUMNS, types, strict=True), ("vector", arrow.list_(number, vectors.description.dimension))]
    schema = arrow.schema(columns)

    def write(path: Path) -> None:
        rows = _rows(vectors)
        with parquet.ParquetWriter(path, schema) as writer:
            for shard in vectors.shards:
                described = [
                    tuple(as_text(cell) if isinstance(cell, str) else cell for cell in row)
                    for row in islice(rows, len(shard.vectors))
                ]
                lists = arrow.FixedSizeListArray.from_arrays(
                    arrow.array(shard.vectors.numpy().reshape(-1)), vectors.description.dimension
                )
                writer.write_table(arrow.table([*map(list, zip(*described, strict=True)), lists], schema=schema))

    write_atomically(vectors.folder / "vectors.parquet", write)


EXPORTS = {"npy": _export_npy, "csv": _export_csv, "parquet": _export_parquet}


def _rows(vectors: Vectors) -> Iterator[tuple[str, str | None, int, int, int, float, float, float]]:
    """Yield the description of each row: the values of `_ROW_COLUMNS`.

    Frames are counted in the video or span that was embedded, ``num_frames`` and ``seconds`` are its length;
    ``start_seconds`` and ``end_seconds`` are when the row begins and ends in its file.
    """
    for shard in vectors.shards:
        for number, start, end in zip(shard.videos.tolist(), shard.starts.tolist(), shard.ends.tolist(), strict=True):
            video = vectors.video(number)
            times = video.time_of(start), video.time_of(end)
            yield video.path, video.label, start, end, video.num_frames, video.seconds, *times


def write_csv(path: Path, header: tuple[str, ...], rows: Any) -> None:
    """Write a CSV file; text as `v3s.files.text.as_cell`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([as_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
