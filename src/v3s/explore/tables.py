"""The files of an exploration: the page, spans.csv, duplicates.csv and to_label.csv."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from v3s.data.lists.listfile import write_spans
from v3s.explore.duplicates import Duplicate
from v3s.explore.exploration import Exploration
from v3s.files.writing import write_set
from v3s.vectors.export import write_csv

PAGE, TO_LABEL = "index.html", "to_label.csv"
_SPAN_COLUMNS = ("path", "start", "end", "x", "y", "cluster", "outlier")
_DUPLICATE_COLUMNS = (
    "first_path", "first_start", "first_end", "second_path", "second_start", "second_end", "similarity", "num_pairs",
)  # fmt: skip


def write_exploration(folder: Path, found: Exploration, page: str) -> None:
    """Write the page and the tables into a folder.

    Raises:
        SaveError: a file cannot be written.
    """
    table = found.table
    write_spans(
        folder / TO_LABEL,
        (
            (
                table.files[table.file_of[row]],
                (0.0, None) if table.are_whole else (float(table.starts[row]), float(table.ends[row])),
                None,
            )
            for row in found.to_label
        ),
    )
    duplicates = map(_duplicate_row, found.duplicates)
    write_set(
        {
            folder / "spans.csv": partial(write_csv, header=_SPAN_COLUMNS, rows=_span_rows(found)),
            folder / "duplicates.csv": partial(write_csv, header=_DUPLICATE_COLUMNS, rows=duplicates),
            folder / PAGE: lambda path: path.write_bytes(page.encode()),
        }
    )


def _span_rows(found: Exploration) -> Iterator[tuple[Any, ...]]:
    table = found.table
    times = zip(table.file_of.tolist(), table.starts.tolist(), table.ends.tolist(), strict=True)
    columns = zip(times, found.points.tolist(), found.clusters.tolist(), found.outliers.tolist(), strict=True)
    for (file, start, end), (x, y), cluster, outlier in columns:
        yield (
            table.files[file], f"{start:.3f}", f"{end:.3f}", f"{x:.5f}", f"{y:.5f}", cluster, f"{outlier:.5f}",
        )  # fmt: skip


def _duplicate_row(found: Duplicate) -> tuple[Any, ...]:
    sides = (
        (side.file, f"{side.start_seconds:.3f}", f"{side.end_seconds:.3f}") for side in (found.first, found.second)
    )
    first, second = sides
    return (*first, *second, f"{found.similarity:.5f}", found.num_pairs)
