"""A list file: one line a video, ``path`` or ``path label``."""

import csv
from collections.abc import Iterator
from pathlib import Path

from v3s.data.lists.listing import ListedVideo, Listing, class_order, numbered_lines

_HEADERS = ("path", "path,label")


def read_list(file: Path, root: Path) -> Listing:
    """Read a list of paths, with or without labels.

    The label is the last word of a line, or what follows its last comma, and may be a name or an integer. A line that
    is as a whole the path of an existing file has no label, whatever spaces or commas it holds. Blank lines are
    skipped; a first line ``path`` or ``path,label`` is a header. ``#`` begins no comment: names hold it.

    Args:
        file: The list.
        root: The folder that relative paths start from.

    Raises:
        ValueError: The list names no video.
    """
    lines = [line for number, line in numbered_lines(file) if not (number == 1 and line in _HEADERS)]
    if not lines:
        raise ValueError(f"{file} names no video; give one path a line, each with a label or without")
    entries = tuple(_entry(line, root) for line in lines)
    return Listing(f"list {file}", entries, class_order(entry.label for entry in entries))


def _entry(line: str, root: Path) -> ListedVideo:
    """Take the first reading of a line that leads to a file; the first of all where none does."""
    readings = list(_readings(line))
    path, label = next((reading for reading in reversed(readings) if (root / reading[0]).is_file()), readings[0])
    return ListedVideo((path,), label or None)


def _readings(line: str) -> Iterator[tuple[str, str]]:
    """Yield (path, label) as a line may mean them, the whole line as a path last."""
    if "," in line:
        *path, label = next(csv.reader([line], skipinitialspace=True))
        yield ",".join(path).strip(), label.strip()
    if len(words := line.rsplit(maxsplit=1)) == 2:
        yield words[0], words[1]
    yield line, ""
