"""Lists with one file per subset: the official CSV files of Kinetics-400, or plain ``path label`` lists."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from v3s.data.lists.folder import names_video
from v3s.data.lists.listfile import read_list
from v3s.data.lists.listing import ListedVideo, Listing, Subset, class_order
from v3s.files.reading import read_lines

SUBSET_FILES = {
    "train": ("train.csv", "train.txt"),
    "test": ("test.csv", "test.txt", "val.csv", "val.txt"),
}
"""File names of each subset: the first existing file is used, which for "test" must contain labels."""

_SPLIT_NAMES = {"train": ("train",), "test": ("test", "val", "validate")}
"""Values of the column ``split`` of a single file, for each subset."""
_ALL_NAMES = tuple(name for names in _SPLIT_NAMES.values() for name in names)


def read_kinetics(splits: Path, root: Path, subset: Subset, is_video: Callable[[Path], bool] = names_video) -> Listing:
    """Read the videos of one subset from a list file or from a folder of them.

    An official file has the header ``label,youtube_id,time_start,time_end,split`` and may have more columns;
    quotes, and spaces around a value, make no difference, nor do capitals in the header and in ``split``. Its videos
    are found by the name ``<youtube_id>_<start:06d>_<end:06d>`` or ``<youtube_id>``, with any suffix and in any folder.
    A file without this header contains one ``path label`` per line, relative to `root`.

    The subset ``"test"`` is ``test.csv`` if it has labels, otherwise ``val.csv``, because the official test list of
    Kinetics-400 has been distributed without labels. From a single file with the column ``split``, only the rows of the
    subset are read; a single file without it has no subset ``"test"``.

    Args:
        splits: A list, or a folder with ``train.csv`` and ``val.csv`` or ``test.csv``.
        root: The folder of videos.
        subset: Which videos.
        is_video: Whether a path names a video, as for `read_list`.

    Raises:
        ValueError: There is no list for the subset, or a row cannot be read.
    """
    parts = ("train", "test") if subset == "all" else (subset,)
    if splits.is_file():
        if subset == "test" and is_single(splits):
            lacks = " (no column split)" if _is_official(splits) else ""
            raise ValueError(
                f"{splits} is a single list without a test subset{lacks}; give a folder that contains test.csv"
            )
        listing = _read_file(splits, root, is_video, None if subset == "all" else _SPLIT_NAMES[subset])
    else:
        listing = _join([_read_part(splits, root, is_video, part) for part in parts])
    if not listing.entries:
        raise ValueError(f"{splits} lists no videos with subset {subset!r} in its column split; give another list")
    return replace(listing, title=f"{listing.title} {subset}")


def is_single(splits: Path) -> bool:
    """Whether this is one list that does not say which videos are for testing."""
    return splits.is_file() and not (_is_official(splits) and "split" in _columns(splits))


def _read_part(folder: Path, root: Path, is_video: Callable[[Path], bool], part: str) -> Listing:
    """Read the first usable list of a subset."""
    for file in (folder / name for name in SUBSET_FILES[part]):
        if file.is_file() and ((listing := _read_file(file, root, is_video, None)).classes or part == "train"):
            return listing
    needs = ", which needs labels" if part == "test" else ""
    raise ValueError(f"{folder} contains no usable {part} list{needs}: looked for {', '.join(SUBSET_FILES[part])}")


def _read_file(
    file: Path, root: Path, is_video: Callable[[Path], bool], split_names: tuple[str, ...] | None
) -> Listing:
    """Read one list, official or plain; of an official one only the rows with one of `split_names`, if given."""
    if not _is_official(file):
        return replace(read_list(file, root, is_video), title=f"list {file.name}")
    try:
        rows = csv.DictReader(read_lines(file), _columns(file), skipinitialspace=True, strict=True)
        next(rows, None)  # the header
        entries = tuple(_official_entries(file, rows, split_names))
    except csv.Error as error:
        raise ValueError(f"{file}: not a CSV file ({error}); restore the official file") from error
    return Listing("Kinetics-400", entries, class_order(entry.label for entry in entries), key=_stem)


def _official_entries(
    file: Path, rows: "csv.DictReader[str]", split_names: tuple[str, ...] | None
) -> Iterator[ListedVideo]:
    """Yield the videos of an official file with the names that downloaders give them."""
    for row in rows:
        video, part = (row["youtube_id"] or "").strip(), (row.get("split") or "").strip().lower()
        if split_names and "split" in row:
            if part not in _ALL_NAMES:
                known = ", ".join(_ALL_NAMES)
                raise ValueError(f"{file}, line {rows.line_num}: split is {part!r}; it must be one of {known}")
            if part not in split_names:
                continue
        try:
            start, end = int(float(row["time_start"])), int(float(row["time_end"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{file}, line {rows.line_num}: {video} has no time_start and time_end") from error
        yield ListedVideo((f"{video}_{start:06d}_{end:06d}", video), (row.get("label") or "").strip() or None)


def _is_official(file: Path) -> bool:
    """Whether a list is a CSV file of Kinetics, judged by its first line."""
    return "youtube_id" in _columns(file)


def _columns(file: Path) -> list[str]:
    """The columns that the first line of a CSV file names, in lower case."""
    first = next(read_lines(file), "")
    return [name.strip().lower() for name in next(csv.reader([first], skipinitialspace=True), [])]


def _join(listings: list[Listing]) -> Listing:
    """Join several lists of the same kind."""
    first = listings[0]
    if any(listing.key is not first.key for listing in listings):
        raise ValueError("only one of the two lists is an official CSV file; give two lists of the same kind")
    entries = tuple(entry for listing in listings for entry in listing.entries)
    title = " and ".join(dict.fromkeys(listing.title for listing in listings))
    return Listing(title, entries, class_order(entry.label for entry in entries), key=first.key)


def _stem(path: str) -> str:
    """Return the name of a file without folder and suffix, as in a list of Kinetics."""
    name = PurePosixPath(path)
    return name.stem if name.suffix else name.name
