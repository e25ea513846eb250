"""What a dataset's lists name, as data, and where those videos lie below a folder."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from v3s.data.lists.folder import video_files
from v3s.data.store_folder import is_store, open_store

Subset = Literal["train", "test", "all"]


@dataclass(frozen=True, slots=True)
class ListedVideo:
    """One video of a list.

    Attributes:
        names: The paths that the video may have below the data folder (posix), likeliest first.
        label: The name of its class; ``None`` without labels.
    """

    names: tuple[str, ...]
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What the lists name, before anyone looks for the files.

    Attributes:
        title: What was read, e.g. ``"UCF101 split 1 train"``.
        entries: The videos, in the order of the lists.
        classes: Every class, in the dataset's own order.
        key: What a listed name and the path of a copy have in common, for copies that changed the names.
            ``None``: every entry has one name, which holds as it stands and may lead out of the folder.
        stays_inside: Nobody named these files: links that lead out of the folder are not followed.
        skipped: What of the folder is not listed, in words; empty if all is.
        known: Every name of the dataset, in this subset or not: such a file stands for itself and for no other.
    """

    title: str
    entries: tuple[ListedVideo, ...]
    classes: tuple[str, ...]
    key: Callable[[str], str] | None = None
    known: frozenset[str] = frozenset()
    stays_inside: bool = False
    skipped: str = ""


def numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a list that are not blank, stripped, with their numbers from 1.

    Raises:
        ValueError: The file is no text.
    """
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if "\0" in line:
                raise ValueError(f"{file} is no text, and so no list of videos; give a list, or the folder of a video")
            if line.strip():
                yield number, line.strip()


def class_order(labels: Iterable[str | None]) -> tuple[str, ...]:
    """Return the distinct labels in alphabetical order; in numerical order if all of them are integers."""
    names = {label for label in labels if label is not None}
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def locate(listing: Listing, root: Path) -> tuple[str | None, ...]:
    """Find the file of every entry.

    Args:
        listing: What to look for.
        root: The data folder.

    Returns:
        For every entry the path of its file below `root`, or ``None`` where there is none. Of several files with one
        key the first in alphabetical order counts.

    Raises:
        ValueError: The folder holds no video at all, or one file stands for two different entries.
    """
    if listing.key is None:
        names = (entry.names[0] for entry in listing.entries)
        if is_store(root):
            stored = open_store(root).files
            return tuple(name if name in stored else None for name in names)
        return tuple(name if os.path.lexists(root / name) else None for name in names)
    files = video_files(root)
    by_name = {file: file for file in files}
    by_key = {listing.key(file): file for file in reversed(files) if file not in listing.known}
    found: list[str | None] = []
    owners: dict[str, str] = {}
    for entry in listing.entries:
        exact = (by_name.get(name) for name in entry.names)
        similar = (by_key.get(listing.key(name)) for name in entry.names)
        file = next((file for file in (*exact, *similar) if file), None)
        if file and owners.setdefault(file, entry.names[0]) != entry.names[0]:
            raise ValueError(
                f"{root / file} stands for two videos of {listing.title}: {owners[file]} and {entry.names[0]}; "
                "rename the file to the one that it is"
            )
        found.append(file)
    return tuple(found)
