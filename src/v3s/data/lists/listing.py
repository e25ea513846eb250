"""The contents of a dataset's lists, and the search for the listed videos in a folder."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unicodedata import normalize

from v3s.data.lists.folder import folder_label, video_files
from v3s.data.lists.spans import Bounds
from v3s.data.store_folder import is_store, open_store
from v3s.files.reading import BLANKS, MAX_LINE, read_lines
from v3s.options import require_regular

Subset = Literal["train", "test", "all"]
_RAW_BYTE = re.compile("[\udc80-\udcff]")  # of a name that is not UTF-8, see PEP 383


@dataclass(frozen=True, slots=True)
class ListedVideo:
    """One entry of a list.

    Attributes:
        names: Possible paths of the video relative to the data folder (posix), most likely first.
        label: The name of its class; ``None`` if the list has no labels.
        bounds: Start and end of a span of it; ``None`` for the whole video.
    """

    names: tuple[str, ...]
    label: str | None = None
    bounds: Bounds | None = None


class FolderEntries(Sequence[ListedVideo]):
    """The files of a folder as entries: each is made when it is asked for, because they may be millions.

    Args:
        files: Paths relative to the folder.
        has_subsets: Whether the first folder of a path is a subset, which gives no label.
    """

    def __init__(self, files: Sequence[str], *, has_subsets: bool = False) -> None:
        self._files, self._has_subsets = files, has_subsets

    def __getitem__(self, number: int) -> ListedVideo:  # type: ignore[override]
        file = self._files[number]
        return ListedVideo((file,), folder_label(file.partition("/")[2] if self._has_subsets else file))

    def __len__(self) -> int:
        return len(self._files)


@dataclass(frozen=True, slots=True)
class Listing:
    """The contents of the lists, before the files are looked for.

    Attributes:
        title: A description, e.g. ``"UCF101 split 1 train"``.
        entries: The videos, in the order of the lists.
        classes: Every class, in the dataset's own order.
        key: For copies of a dataset with changed file names: maps a listed name and the changed name to the same key.
            ``None``: every entry has exactly one name, which is used as it is and may lead out of the folder.
        stays_inside: Whether links out of the folder are refused, because no list names the files.
        skipped: What of the folder is not listed, in words; empty if everything is.
        known: All names of the dataset, in every subset. A file with such a name is never matched by key.
    """

    title: str
    entries: Sequence[ListedVideo]
    classes: tuple[str, ...]
    key: Callable[[str], str] | None = None
    known: frozenset[str] = frozenset()
    stays_inside: bool = False
    skipped: str = ""

    @property
    def has_spans(self) -> bool:
        """Whether entries are spans of videos; a span from the start to the end, whatever that is, is a whole video."""
        return any(entry.bounds not in (None, (0.0, None)) for entry in self.entries)


def numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a list that are not blank, stripped and numbered from 1; quotes may hold line breaks.

    Raises:
        ValueError: The file is not a regular file of text; see `read_lines`. Or a quote is not closed, which would make
            the rest of the list a part of one name.
    """
    require_regular(file)
    lines = enumerate(read_lines(file), start=1)
    for number, line in lines:
        if not line.strip(BLANKS):
            continue
        is_open = line.startswith('"') and line.count('"') % 2 == 1
        while is_open and len(line) < MAX_LINE and (more := next(lines, None)):
            line += more[1]  # a quoted name with a line break in it
            is_open = more[1].count('"') % 2 == 0
        if is_open:
            raise ValueError(f'{file}: the quote (") in line {number:,} is not closed; close it')
        yield number, line.strip(BLANKS)


def encoding_hint(name: str) -> str:
    """What to do about a name of a list that is not UTF-8 text; empty if it is."""
    return "; the list is not UTF-8 text: save it as such (Excel: 'CSV UTF-8')" if _RAW_BYTE.search(name) else ""


def missing_hint(name: str, root: Path) -> str:
    """What may be wrong with a name of a list under which there is no file; empty if nothing can be seen.

    Args:
        name: As listed.
        root: The folder that it is relative to.
    """
    if hint := encoding_hint(name):
        return hint
    if "\\" in name and os.sep == "/":
        return "; write / in the paths of the list, not \\"
    if ";" in name:
        return "; in a list a comma separates a label from its path, not a semicolon"
    for form in ("NFC", "NFD"):
        if os.path.lexists(root / (other := normalize(form, name))) and other != name:
            return f"; a file is there whose name has the same letters in another form, Unicode's {form}: rename it"
    return ""


def class_order(labels: Iterable[str | None]) -> tuple[str, ...]:
    """Return the distinct labels in alphabetical order, or in numerical order if all are integers."""
    names = {label for label in labels if label is not None}
    if all(name.isdecimal() and len(name) < 10 for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))  # 1 and 01 are two names
    return tuple(sorted(names))


def locate(listing: Listing, root: Path, files: Sequence[str] | None = None) -> tuple[str | None, ...]:
    """Find the file of every entry.

    Args:
        listing: What to look for.
        root: The data folder.
        files: The files in it, relative to it, in alphabetical order, if the disk is not asked.

    Returns:
        For every entry the path of its file relative to `root`, or ``None`` if there is no file. If several files have
        the same key, the first in alphabetical order is used.

    Raises:
        ValueError: The folder contains no videos, or one file matches two different entries.
    """
    if listing.key is None:
        names = (entry.names[0] for entry in listing.entries)
        if listing.stays_inside:  # the folder itself named them, and they may be millions
            return tuple(names)
        if files is not None or is_store(root):
            known = set(files) if files is not None else open_store(root).files
            return tuple(name if name in known else None for name in names)
        return tuple(name if os.path.lexists(os.path.join(root, name)) else None for name in names)
    files = video_files(root) if files is None else files
    by_name = {file: file for file in files}
    by_key = {listing.key(file): file for file in reversed(files) if file not in listing.known}
    located: list[str | None] = []
    owners: dict[str, str] = {}
    for entry in listing.entries:
        exact = (by_name.get(name) for name in entry.names)
        similar = (by_key.get(listing.key(name)) for name in entry.names)
        file = next((file for file in (*exact, *similar) if file), None)
        if file and owners.setdefault(file, entry.names[0]) != entry.names[0]:
            raise ValueError(
                f"{root / file} matches two videos of {listing.title}: {owners[file]} and {entry.names[0]}; "
                "rename the file to the correct one"
            )
        located.append(file)
    return tuple(located)
