"""Lists in one file a subset: the official CSV files of Kinetics-400, or plain ``path label`` lists."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from v3s.data.lists.listfile import read_list
from v3s.data.lists.listing import ListedVideo, Listing, Subset, class_order

SUBSET_FILES = {
    "train": ("train.csv", "train.txt"),
    "test": ("test.csv", "test.txt", "val.csv", "val.txt"),
}
"""The files of a folder of lists, the first that exists and, for a test, holds labels."""

_SPLIT_NAMES = {"train": ("train",), "test": ("test", "val", "validate")}
"""The words that the column ``split`` of a single file uses for each subset."""


def read_kinetics(splits: Path, root: Path, subset: Subset) -> Listing:
    """Read the videos of one subset from a list file or from a folder of them.

    An official file has the header ``label,youtube_id,time_start,time_end,split`` and may have more columns; its
    videos are found by ``<youtube_id>_<start:06d>_<end:06d>`` or ``<youtube_id>``, with any suffix and in any folder.
    A file without that header holds one ``path label`` a line, relative to `root`.

    The subset ``"test"`` is ``test.csv`` if that has labels, else ``val.csv``: the official test list of Kinetics-400
    has circulated without. Of a single file with the column ``split`` the rows of the subset are read.

    Args:
        splits: A list, or a folder that holds ``train.csv`` and ``val.csv`` or ``test.csv``.
        root: The folder of videos.
        subset: Which videos.

    Raises:
        ValueError: There is no list for the subset, or a row cannot be read.
    """
    parts = ("train", "test") if subset == "all" else (subset,)
    if splits.is_file():
        listing = _read_file(splits, root, None if subset == "all" else _SPLIT_NAMES[subset])
        if subset == "test" and not _is_official(splits):
            raise ValueError(f"{splits} is one list, with no test subset; give a folder of lists with a test.csv")
    else:
        listing = _join([_read_part(splits, root, part) for part in parts])
    if not listing.entries:
        raise ValueError(f"{splits} names no video of the subset {subset!r} in its column split; give another list")
    return replace(listing, title=f"{listing.title} {subset}")


def _read_part(folder: Path, root: Path, part: str) -> Listing:
    """Read the first list of a subset that can serve."""
    for file in (folder / name for name in SUBSET_FILES[part]):
        if file.is_file() and ((listing := _read_file(file, root, None)).classes or part == "train"):
            return listing
    raise ValueError(f"{folder} holds no {part} list with videos: looked for {', '.join(SUBSET_FILES[part])}")


def _read_file(file: Path, root: Path, split_names: tuple[str, ...] | None) -> Listing:
    """Read one list, official or plain; `split_names` keeps the rows whose column ``split`` is one of them."""
    if not _is_official(file):
        return replace(read_list(file, root), title=f"list {file.name}")
    with file.open(encoding="utf-8-sig", newline="") as lines:
        entries = tuple(_official_entries(file, csv.DictReader(lines), split_names))
    return Listing("Kinetics-400", entries, class_order(entry.label for entry in entries), key=_stem)


def _official_entries(
    file: Path, rows: "csv.DictReader[str]", split_names: tuple[str, ...] | None
) -> Iterator[ListedVideo]:
    """Yield the videos of an official file under the names that downloaders give them."""
    for row in rows:
        if split_names and "split" in row and row["split"] not in split_names:
            continue
        video = row["youtube_id"]
        try:
            start, end = int(float(row["time_start"])), int(float(row["time_end"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}, line {rows.line_num}: {video} has no time_start and time_end") from error
        yield ListedVideo((f"{video}_{start:06d}_{end:06d}", video), row.get("label") or None)


def _is_official(file: Path) -> bool:
    """Tell by its first line whether a list is a CSV file of Kinetics."""
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        return "youtube_id" in lines.readline().strip().split(",")


def _join(listings: list[Listing]) -> Listing:
    """Put several lists of one kind together."""
    first = listings[0]
    if any(listing.key is not first.key for listing in listings):
        raise ValueError("of the train and test lists one is an official CSV file and one is not; give two of a kind")
    entries = tuple(entry for listing in listings for entry in listing.entries)
    title = " and ".join(dict.fromkeys(listing.title for listing in listings))
    return Listing(title, entries, class_order(entry.label for entry in entries), key=first.key)


def _stem(path: str) -> str:
    """Return the file's name without folder and suffix: what a list of Kinetics knows of a file."""
    name = PurePosixPath(path)
    return name.stem if name.suffix else name.name
