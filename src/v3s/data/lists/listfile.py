"""A list file: one video per line, as ``path`` or ``path label``."""

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from v3s.data.lists.listing import ListedVideo, Listing, class_order, numbered_lines
from v3s.files.writing import write_atomically

_HEADERS = ("path", "path,label")
_SPECIAL = frozenset('", \r\n')


def read_list(file: Path, root: Path) -> Listing:
    """Read a list of paths, with or without labels.

    The label is the last word of a line, or the text after its last comma, and may be a name or an integer. Names in
    double quotes, as in CSV, may contain anything. If the whole line is the path of an existing file, it has no label,
    even if it contains spaces or commas. Blank lines are skipped; a first line ``path`` or ``path,label`` is a header.
    ``#`` does not start a comment, since file names contain it.

    Args:
        file: The list.
        root: The folder that paths are relative to.

    Raises:
        ValueError: The list contains no videos, or cannot be read as a list.
    """
    lines = [line for number, line in numbered_lines(file) if not (number == 1 and line in _HEADERS)]
    if not lines:
        raise ValueError(f"{file} contains no videos; write one path per line, with or without a label")
    entries = tuple(_entry(line, root) for line in lines)
    return Listing(f"list {file}", entries, class_order(entry.label for entry in entries))


def write_list(file: Path, videos: Iterable[tuple[str, str | None]]) -> None:
    """Write a list of (path, label) pairs that `read_list` reads as they are, whatever the names contain."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
            opened.writelines(f"{_line(*filter(None, video))}\n" for video in videos)

    write_atomically(file, write)


def _line(*names: str) -> str:
    if all(name == name.strip() and not _SPECIAL.intersection(name) for name in names):
        return ",".join(names)
    return ",".join('"' + name.replace('"', '""') + '"' for name in names)


def _entry(line: str, root: Path) -> ListedVideo:
    """Return the first interpretation of a line that names an existing file, or simply the first one."""
    readings = list(_readings(line))
    path, label = next((reading for reading in reversed(readings) if os.path.isfile(root / reading[0])), readings[0])
    return ListedVideo((path,), label or None)


def _readings(line: str) -> Iterator[tuple[str, str]]:
    """Yield the possible interpretations of a line as (path, label); the last one is the whole line as a path."""
    if line.startswith('"'):
        name, *labels = next(csv.reader([line]))
        yield name, labels[0] if len(labels) == 1 else ""
    if "," in line:
        *path, label = next(csv.reader([line], skipinitialspace=True))
        yield ",".join(path).strip(), label.strip()
    if len(words := line.rsplit(maxsplit=1)) == 2:
        yield words[0], words[1]
    yield line, ""
