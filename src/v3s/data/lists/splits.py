"""The videos to use: a folder, a list file, or the official splits of UCF101, HMDB51 and Kinetics-400."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

from v3s.data.lists.folder import (
    VIDEO_ENDINGS,
    find_files,
    is_frame_folder,
    link_outside,
    names_video,
    subset_folders,
    video_files,
)
from v3s.data.lists.hmdb51 import read_hmdb51
from v3s.data.lists.kinetics import SUBSET_FILES, read_kinetics
from v3s.data.lists.listfile import read_list
from v3s.data.lists.listing import (
    FolderEntries,
    ListedVideo,
    Listing,
    Subset,
    class_order,
    encoding_hint,
    locate,
    missing_hint,
)
from v3s.data.lists.pattern import is_pattern, read_pattern
from v3s.data.lists.remote import local_data, mirror_listed
from v3s.data.lists.spans import WHOLE_VIDEOS, Bounds, SpanOptions, check_overlaps, span_name
from v3s.data.lists.ucf101 import read_ucf101
from v3s.data.store_folder import see_as_stored
from v3s.data.views import View
from v3s.files.remote.address import hide_secrets
from v3s.files.remote.fetch import held
from v3s.files.remote.mirror import shown_place
from v3s.files.text import counted, short_repr, verb
from v3s.options import absence, require_regular

_TEST_VIDEOS = "give official lists (--splits) or, depending on the command, --test-data or --subset all"


@dataclass(frozen=True, slots=True)
class VideoList:
    """The videos of one subset of a dataset.

    Attributes:
        root: The folder that the paths are relative to.
        paths: The path of each video relative to `root`, posix, in the order of the list. A list file may also contain
            absolute paths; ``root / path`` is the file in either case.
        labels: The class name of each video, or ``None``.
        classes: The labels that occur, in the dataset's own order: UCF101 by official number, others alphabetically.
        source: A description, e.g. ``"UCF101 split 1 train: 1,621 videos in 21 classes"``.
        num_missing: Number of listed videos that are not on disk.
        stays_inside: Whether links out of `root` are refused, because no list names the files.
        skipped: What else the folder contains, by ending, and repeated entries, in words; empty if nothing.
        bounds: Start and end of each entry in its file, in seconds; empty if the entries are whole files.
        spans: How the entries are cut and sampled, once their files have been read.
        notes: What cutting them showed, one sentence each; empty before.
    """

    root: Path
    paths: tuple[str, ...]
    labels: tuple[str | None, ...]
    classes: tuple[str, ...]
    source: str
    num_missing: int = 0
    stays_inside: bool = False
    skipped: str = ""
    bounds: tuple[Bounds, ...] = ()
    spans: SpanOptions = WHOLE_VIDEOS
    notes: tuple[str, ...] = ()
    __repr__ = short_repr

    @property
    def names(self) -> tuple[str, ...]:
        """What each entry is called: its path, and its times where it is a span."""
        if not self.bounds:
            return self.paths
        return tuple(map(span_name, self.paths, self.bounds))

    @property
    def noun(self) -> str:
        """What each entry is: "span" of a recording, or "video"."""
        return "span" if self.bounds else "video"

    @property
    def description(self) -> str:
        """Which videos were listed, and what was skipped."""
        return f"{self.source}; skipped: {self.skipped}" if self.skipped else self.source

    def __len__(self) -> int:
        return len(self.paths)


def list_videos(
    data: str | Path,
    *,
    splits: str | Path | None = None,
    split: int = 1,
    subset: Subset = "train",
    allow_missing: bool = False,
    spans: SpanOptions = WHOLE_VIDEOS,
) -> VideoList:
    """List the videos of a dataset, with their labels if there are any.

    Args:
        data: A folder, a video (a file, or a folder of numbered pictures), a list file (``.txt``, ``.csv``), or the URL
            of one. A list has one ``path`` or ``path label`` per line, or spans (see
            :func:`v3s.data.lists.listfile.read_list`), relative to the folder of the list. In a folder without
            `splits`, the label of a video is the name of its folder; videos directly in `data` have no label. Links
            that lead out of such a folder are refused: only a list may name files elsewhere. Or a pattern of several of
            these, see :func:`v3s.data.lists.pattern.read_pattern`.
        splits: The official lists for the videos in the folder: ``ucfTrainTestlist`` (UCF101),
            ``testTrainMulti_7030_splits`` (HMDB51), a CSV file of Kinetics-400, or a folder with ``train.csv`` and
            ``val.csv`` or ``test.csv``.
        split: The official split of UCF101 and HMDB51: 1, 2 or 3. All other datasets only have split 1.
        subset: A folder has subsets if it only contains the folders ``train`` and ``test`` or ``val``. All videos of
            any other folder, and of a list file, are ``"train"``. ``"all"`` is both subsets.
        allow_missing: Continue without the listed videos that are missing.
        spans: How videos are cut into segments, and sampled.

    Raises:
        ValueError: A path does not exist, there are no videos, a listed video is missing, a list contradicts itself, or
            the dataset has no such split or subset.
    """
    if subset not in get_args(Subset):
        raise ValueError(f"subset is {subset!r}; give one of {', '.join(get_args(Subset))}")
    root, listing = _read(local_data(data), Path(splits) if splits is not None else None, split, subset)
    located = locate(listing, root)
    num_missing = located.count(None)
    if num_missing and (not allow_missing or num_missing == len(located)):
        raise ValueError(_missing_message(root, listing, located))
    return list_located(root, listing, located, spans)


def list_located(
    root: Path, listing: Listing, located: tuple[str | None, ...], spans: SpanOptions = WHOLE_VIDEOS
) -> VideoList:
    """Return the entries of a list that were found, each once.

    Args:
        root: The folder that paths are relative to.
        listing: The list.
        located: The path of each of its entries, or ``None`` if there is none.
        spans: How videos are cut into segments, and sampled.

    Raises:
        ValueError: The list contradicts itself.
    """
    paths, labels, bounds = _once(root, located, listing)
    num_missing = located.count(None)
    num_repeated = len(located) - num_missing - len(paths)
    repeated = (
        f"{counted(num_repeated, 'entry')} that {verb(num_repeated, 'are')} already listed" if num_repeated else ""
    )
    occurring = set(labels)
    classes = tuple(name for name in listing.classes if name in occurring)
    in_classes = f"in {counted(len(classes), 'class')}" if classes else "without labels"
    source = f"{listing.title}: {counted(len(paths), 'span' if bounds else 'video')} {in_classes}"
    source += f"; {counted(num_missing, 'more listed video')} missing" if num_missing else ""
    texts = source, num_missing, listing.stays_inside, ", ".join(filter(None, [listing.skipped, repeated]))
    return VideoList(root, paths, labels, classes, *texts, bounds, spans)


def _once(
    root: Path, located: tuple[str | None, ...], listing: Listing
) -> tuple[tuple[str, ...], tuple[str | None, ...], tuple[Bounds, ...]]:
    """Return the entries that were found, each once however it is spelled: paths, labels, and bounds of spans.

    Raises:
        ValueError: An entry is listed with two labels, or spans of different labels overlap, or a label is not UTF-8.
    """
    if listing.stays_inside:  # the files of a folder: no name comes twice, and they may be millions
        return tuple(filter(None, located)), tuple(entry.label for entry in listing.entries), ()
    roots = f"{os.path.abspath(root)}/", f"{os.path.realpath(root)}/"
    label_of: dict[tuple[str, Bounds | None], str | None] = {}
    paths: list[str] = []
    for path, entry in zip(located, listing.entries, strict=True):
        if path is None:
            continue
        if entry.label and (hint := encoding_hint(entry.label)) and not encoding_hint(path):  # else of its folder
            raise ValueError(f"{listing.title} gives {path} the label {entry.label}{hint}")
        plain = os.path.normpath(os.path.realpath(root / path) if ".." in path else path)  # a link may lie before ".."
        plain = path if plain == path else plain
        for folder in roots:
            plain = plain.removeprefix(folder)
        key = plain, entry.bounds
        if key not in label_of:
            label_of[key] = entry.label
            paths.append(path)
        label_of[key] = label_of[key] or entry.label
        if entry.label and label_of[key] != entry.label:
            raise ValueError(
                f"{root / path} has two labels in {listing.title}, {label_of[key]!r} and {entry.label!r}; "
                "keep one line of it"
            )
    check_overlaps(((plain, bounds, label) for (plain, bounds), label in label_of.items() if bounds), listing.title)
    bounds = tuple(bounds or (0.0, None) for _, bounds in label_of)
    return tuple(paths), tuple(label_of.values()), bounds if listing.has_spans else ()


def _read(data: Path, splits: Path | None, split: int, subset: Subset) -> tuple[Path, Listing]:
    """Determine the kind of the dataset and read it: returns the folder that paths are relative to, and the list."""
    if is_pattern(data):
        if splits is not None or split != 1 or subset == "test":
            raise ValueError(
                f"data is the pattern {str(data)!r}, which has no splits and no test subset; {_TEST_VIDEOS}"
            )
        return read_pattern(str(data))
    if not data.exists():
        raise ValueError(f"{data} {absence(data)}; give an existing folder of videos or list file")
    if not data.is_dir():
        require_regular(data)
    if splits is not None:
        if not data.is_dir():
            raise ValueError(f"splits {splits} need a folder of videos, but {data} is a file; give the folder")
        return data, read_splits(splits, split, subset, data)
    if split != 1:
        raise ValueError(f"split {split} was given, but {data} has only one split; omit --split")
    if data.is_dir() and not is_frame_folder(data):
        return _read_folder(data, subset)
    if subset == "test":
        raise ValueError(f"{data} is a single list without a test subset; {_TEST_VIDEOS}")
    if data.suffix.lower() in VIDEO_ENDINGS or data.is_dir():
        data = data if data.name else data.resolve()
        return data.parent, Listing(f"file {shown_place(data)}", (ListedVideo((data.name,)),), ())
    with held(data):
        listing = read_list(data, data.parent)
    root, listing = mirror_listed(listing, data.parent)
    return root, replace(listing, title=f"list {shown_place(data)}")


def has_test_part(data: Path) -> bool:
    """Whether a folder has folders ``train`` and ``test`` (or ``val``), also if videos lie beside them."""
    if not data.is_dir():
        return False
    first = {file.partition("/")[0] for file in video_files(data, inside=data) if "/" in file}
    return "train" in first and not first.isdisjoint(("test", "val"))


def read_splits(
    splits: Path, split: int, subset: Subset, root: Path, is_video: Callable[[Path], bool] = names_video
) -> Listing:
    """Read the official lists of a dataset, or a list per subset.

    Args:
        splits: The lists, as for `list_videos`.
        split: The number of the official split.
        subset: Which videos.
        root: The folder that paths are relative to.
        is_video: Whether a path names a video, as for `read_list`.

    Raises:
        ValueError: A list does not exist or cannot be read, or there is no such split or subset.
    """
    if not splits.exists():
        raise ValueError(f"splits {splits} does not exist; give the folder of the official lists, or a CSV file")
    if not splits.is_dir():
        require_regular(splits)
    numbered = splits.is_dir() and _read_official(splits, split, subset)
    if numbered and not numbered.entries:
        raise ValueError(f"{splits}: the lists of split {split} contain no {subset} videos; restore the official files")
    if numbered:
        return numbered
    if split != 1:
        raise ValueError(f"split {split} was given, but {splits} has only one split; omit --split")
    return read_kinetics(splits, root, subset, is_video)


def _read_official(folder: Path, split: int, subset: Subset) -> Listing | None:
    """Read a folder of numbered splits; ``None`` if the folder contains one list per subset."""
    names = {path.name for path in folder.iterdir()}
    if any(name.startswith("trainlist") for name in names):
        return read_ucf101(folder, split, subset)
    if any("_test_split" in name for name in names):
        return read_hmdb51(folder, split, subset)
    if any(name in names for files in SUBSET_FILES.values() for name in files):
        return None
    raise ValueError(
        f"{folder} contains no known lists: looked for trainlist01.txt (UCF101), *_test_split1.txt (HMDB51), "
        "train.csv, val.csv and test.csv (Kinetics-400 or your own)"
    )


def _read_folder(data: Path, subset: Subset) -> tuple[Path, Listing]:
    """List the videos of a folder, or of one of its folders ``train`` and ``test``."""
    for part in ("train", "test", "val"):
        if target := link_outside(data / part, data):
            raise ValueError(f"{data / part} links out of the data folder to {target}; give that folder or a list file")
    found = find_files(data, inside=data)
    files = found.videos
    subsets = subset_folders(files)
    if subset == "test" and not subsets:
        raise ValueError(
            f"{data} has no test subset: it does not consist of folders train and test (or val); {_TEST_VIDEOS}"
        )
    below = [f"{subsets[part]}/" for part in ("train", "test") if subset in (part, "all")] if subsets else [""]
    listed = [file for folder in below for file in files if file.startswith(folder)]
    entries = FolderEntries(listed, has_subsets=bool(subsets))
    title = f"folder {shown_place(data)}{f' {subset}' if subsets else ''}"
    classes = class_order(entry.label for entry in entries)
    return data, Listing(title, entries, classes, stays_inside=True, skipped=found.skipped())


def _missing_message(root: Path, listing: Listing, located: tuple[str | None, ...]) -> str:
    """Describe how many listed videos are missing, the first of them, and what to do."""
    num_missing = located.count(None)
    first = listing.entries[located.index(None)].names[0]
    if num_missing < len(located):
        return (
            f"{num_missing:,} of {len(located):,} videos of {listing.title} {verb(num_missing, 'are')} missing "
            f"under {root}, first: {first}; "
            f"give --allow-missing to use the {len(located) - num_missing:,} that exist{missing_hint(first, root)}"
        )
    seen = f", but the first video there is {video_files(root)[0]}" if listing.key else ""
    return (
        f"no video of {listing.title} ({len(located):,} listed) is under {root}: looked for {first}{seen}; "
        "give the folder or the store that the listed paths are relative to, and the list with --splits"
        f"{missing_hint(first, root)}"
    )


@dataclass(frozen=True, kw_only=True)
class VideoOptions(SpanOptions):
    """Which videos.

    Attributes:
        data: A folder of videos (subfolders included), a video, a list file with one path per line, or a store from v3s
            prepare. A folder of numbered pictures (PNG, JPEG, TIFF), a TIFF stack and a DICOM file are videos, too.
            A pattern in quotes names several folders or files: 'cages/*/monday*.mp4', '{cages,/mnt/old}/camera1'. All
            but patterns and stores may be at a URL: s3://, gs:// or https://.

    More options:
        splits: Official split lists of UCF101, HMDB51 or Kinetics-400 (a folder, or a CSV file) for the videos in DATA,
            or a list of your own whose paths are relative to DATA.
        split: Number of the official split.
        subset: Part of the split.
        allow_missing: Continue without the videos of the list that are missing.
    """

    data: Annotated[str, "DATA"]
    splits: str | None = None
    split: int = 1
    subset: Subset = "train"
    allow_missing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        hide_secrets(self, "data")
        see_as_stored(self)

    def list_videos(self, view: View | None = None) -> VideoList:
        """List them, as :func:`v3s.data.lists.splits.list_videos`, for a network with this view, see `spans_for`."""
        return list_videos(
            self.data,
            splits=self.splits,
            split=self.split,
            subset=self.subset,
            allow_missing=self.allow_missing,
            spans=self.spans_for(view),
        )
