"""The files of an exploration: the page, spans.csv, duplicates.csv and to_label.csv."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from v3s.data.lists.listfile import read_list, spans_writer
from v3s.data.lists.spans import Bounds
from v3s.data.store_folder import names_in_list
from v3s.explore.duplicates import Duplicate
from v3s.explore.exploration import Exploration
from v3s.files.writing import free_name, write_set
from v3s.vectors.export import write_csv

PAGE, SPANS, TO_LABEL = "index.html", "spans.csv", "to_label.csv"
_NOTHING_TO_LABEL = b"path,start,end,label\n"
_SPAN_COLUMNS = ("path", "start", "end", "x", "y", "cluster", "outlier")
_DUPLICATE_COLUMNS = (
    "first_path", "first_start", "first_end", "second_path", "second_start", "second_end", "similarity",
    "best_similarity", "num_pairs",
)  # fmt: skip


def write_exploration(folder: Path, found: Exploration, page: str, root: Path) -> Path | None:
    """Write the page and the tables into a folder, all or none of them.

    Tables name files as the collection lists them. The list of what to label names them so that commands find them.

    Args:
        folder: the folder.
        found: what is known of the collection.
        page: the page.
        root: the folder of the collection's videos.

    Returns:
        Where the list of an earlier exploration is now, if it has labels that a person wrote.

    Raises:
        SaveError: a file cannot be written; what was there before is unchanged.
    """
    to_label = folder / TO_LABEL
    kept = free_name(to_label) if has_labels(to_label) else None
    duplicates = map(_duplicate_row, found.duplicates)
    write_set(
        {
            to_label: spans_writer(_rows_to_label(found, root)),
            folder / SPANS: partial(write_csv, header=_SPAN_COLUMNS, rows=_span_rows(found)),
            folder / "duplicates.csv": partial(write_csv, header=_DUPLICATE_COLUMNS, rows=duplicates),
            folder / PAGE: lambda path: path.write_bytes(page.encode()),
        },
        before=lambda: to_label.replace(kept) if kept else None,
    )
    return kept


def has_labels(to_label: Path) -> bool:
    """Whether a person has written labels, or anything else, into a list of what to label."""
    if not to_label.exists():
        return False
    try:
        return any(entry.label for entry in read_list(to_label, to_label.parent).entries)
    except ValueError:  # it is no such list any more
        return to_label.stat().st_size > 0 and to_label.read_bytes() != _NOTHING_TO_LABEL


def _rows_to_label(found: Exploration, root: Path) -> Iterator[tuple[str, Bounds, None]]:
    table, name_in_list = found.table, names_in_list(root)
    for row in found.to_label.tolist():
        times = (0.0, None) if table.are_whole else (float(table.starts[row]), float(table.ends[row]))
        yield name_in_list(table.files[table.file_of[row]]), times, None


def _span_rows(found: Exploration) -> Iterator[tuple[Any, ...]]:
    """The clusters are numbered from 1, as on the page; a span in none has no number."""
    table = found.table
    times = zip(table.file_of.tolist(), table.starts.tolist(), table.ends.tolist(), strict=True)
    columns = zip(times, found.points.tolist(), found.clusters.tolist(), found.outliers.tolist(), strict=True)
    for (file, start, end), (x, y), cluster, outlier in columns:
        yield (
            table.files[file], f"{start:.3f}", f"{end:.3f}", f"{x:.5f}", f"{y:.5f}", "" if cluster < 0 else cluster + 1,
            f"{outlier:.5f}",
        )  # fmt: skip


def _duplicate_row(found: Duplicate) -> tuple[Any, ...]:
    sides = (
        (side.file, f"{side.start_seconds:.3f}", f"{side.end_seconds:.3f}") for side in (found.first, found.second)
    )
    first, second = sides
    return (*first, *second, f"{found.similarity:.5f}", f"{found.best:.5f}", found.num_pairs)
