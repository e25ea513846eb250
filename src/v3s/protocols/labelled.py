"""Labelled videos in two parts: training videos (or the gallery) and test videos (or the queries)."""

import os
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from v3s.data.groups import GroupOptions, number_groups, unite
from v3s.data.index_table import IndexTable
from v3s.data.lists.spans import SpanOptions
from v3s.data.lists.splits import VideoList, list_videos
from v3s.data.scan import Scan
from v3s.data.usable import usable_videos
from v3s.data.views import View, count_padded
from v3s.features.encoder import Encoder
from v3s.files.text import counted, say

UNKNOWN = -1
"""The label of a test video whose class has no training videos: its prediction always counts as wrong."""
_NUM_LISTED = 5  # classes listed in a message


@dataclass(frozen=True, kw_only=True)
class LabelledOptions(GroupOptions, SpanOptions):
    """Labelled videos in two parts: training videos (the gallery) and test videos (the queries).

    Attributes:
        data: A folder of videos in class folders (inside train and test folders, or with --splits), or a list file.
        splits: Official split lists of UCF101, HMDB51 or Kinetics-400 (a folder, or a CSV file) for the videos in DATA.
        test_data: A folder or list file of the test videos, if DATA has no test subset.

    More options:
        split: Number of the official split.
        allow_missing: Continue without the videos of the list that are missing.
    """

    data: Annotated[str, "DATA"]
    splits: str | None = None
    split: int = 1
    test_data: str | None = None
    allow_missing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_data is not None and self.splits is not None:
            given = f"test_data ({self.test_data}) and splits ({self.splits})"
            raise ValueError(f"{given} cannot be combined; give only one")


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Training videos (N) and test videos (M) with their labels.

    Attributes:
        train_table: the training videos, or the gallery.
        train_labels: numbers into `classes`, int64, shape (N,).
        test_table: the test videos, or the queries.
        test_labels: numbers into `classes`, int64, shape (M,); `UNKNOWN` if the class has no training videos.
        classes: the names of the classes that have training videos, in the order of the training list.
        train_source: one line that describes the training list.
        test_source: one line that describes the test list.
        train_paths: path of each training video as listed, (N,).
        test_paths: path of each test video as listed, (M,).
        left_out: path and reason of each skipped video.
        test_groups: number of each test video's group, int64, shape (M,).
        train_groups: which training videos belong together if they are to be divided, as copies or by their group,
            integers, shape (N,); None: each is alone.
    """

    train_table: IndexTable
    train_labels: Tensor
    test_table: IndexTable
    test_labels: Tensor
    classes: tuple[str, ...]
    train_source: str
    test_source: str
    train_paths: tuple[str, ...]
    test_paths: tuple[str, ...]
    left_out: dict[str, str]
    test_groups: Tensor
    train_groups: NDArray[np.int64] | None = None

    @property
    def tables(self) -> dict[str, IndexTable]:
        """The videos of each part, by what a report calls them."""
        return {"training videos": self.train_table, "test videos": self.test_table}

    @property
    def num_test_groups(self) -> int:
        """Number of groups of test videos."""
        return len(torch.unique(self.test_groups))

    def to_json(self) -> dict[str, Any]:
        """What every result contains of the videos, so that results on the same videos can be compared in pairs."""
        return {
            "num_test_groups": self.num_test_groups,
            "test_videos": self.test_paths,
            "test_groups": self.test_groups.tolist(),
            "left_out": self.left_out,
        }

    @property
    def num_unknown(self) -> int:
        """Number of test videos whose class has no training videos."""
        return int((self.test_labels == UNKNOWN).sum())

    @property
    def chance(self) -> float:
        """The expected accuracy of a uniform guess: 1 / number of classes."""
        return 1 / len(self.classes)

    @property
    def majority(self) -> float:
        """The test accuracy of always predicting the most frequent training class."""
        majority_class = torch.bincount(self.train_labels).argmax()
        return float((self.test_labels == majority_class).double().mean())


def labelled_parts(
    options: LabelledOptions,
    *,
    workers: int | None = None,
    console: Console,
    divides: bool = False,
    fps: float | None = None,
    window: str | None = None,
) -> Parts:
    """List and read both parts; includes every readable video, however short.

    Args:
        options: where the videos and their labels are.
        workers: processes that read files for the first time; None starts one per processor.
        console: where to report what was read, what is skipped, and which test labels are unknown.
        divides: whether the training videos will be divided by group, so that ``group`` must do so too.
        fps: frame rate of the network's run, if the options do not say otherwise.
        window: window of that run, if the options do not say otherwise.

    Raises:
        ValueError: a part cannot be listed, has videos without labels or no readable videos, both parts share a file or
            some time of one, the training part has fewer than two classes, or ``group`` does not divide a part into
            groups.
    """
    spans = options.spans_for(fps, window)
    if options.test_data is None:
        lists = [
            list_videos(
                options.data,
                splits=options.splits,
                split=options.split,
                subset=subset,
                allow_missing=options.allow_missing,
                spans=spans,
            )
            for subset in ("train", "test")
        ]
    else:
        lists = [
            list_videos(data, subset="all", allow_missing=options.allow_missing, spans=spans)
            for data in (options.data, options.test_data)
        ]
    for listed in lists:
        require_labels(listed, "write 'path label' on each line of the list, or give the official --splits")
    _check_disjoint(*lists)
    for listed in lists if divides else lists[1:]:
        number_groups(listed.paths, options.group)  # fails before the videos are read
    train, test = (usable_videos(listed, min_frames=1, console=console, workers=workers) for listed in lists)
    parts = _collect(train, test, options, divides=divides)
    if len(parts.classes) < 2:
        raise ValueError(
            f"{parts.train_source}: all videos are of the class {parts.classes[0]!r}; at least two classes are needed"
        )
    _report_unknown(test, parts, console)
    return parts


def labelled_vectors(
    options: LabelledOptions, encoder: Encoder, *, workers: int | None, console: Console, divides: bool = False
) -> tuple[Parts, Tensor, Tensor]:
    """List, read and encode both parts.

    Args:
        options: where the videos and their labels are.
        encoder: turns videos into vectors.
        workers: processes that read files for the first time; None starts one per processor.
        console: where to report and to show progress.
        divides: as for `labelled_parts`.

    Returns:
        Both parts, the vectors of the training videos (N, D) and those of the test videos (M, D): float32, each the
        mean over the clips of a video.

    Raises:
        ValueError: as `labelled_parts`, or the network's output contains NaN or infinity.
    """
    view = encoder.view
    parts = labelled_parts(options, workers=workers, console=console, divides=divides, fps=view.fps, window=view.window)
    report_padded(parts.tables, encoder.view, console)
    train = encoder.mean_vectors(parts.train_table, console=console, what="training videos")
    return parts, train, encoder.mean_vectors(parts.test_table, console=console, what="test videos")


def report_padded(tables: Mapping[str, IndexTable], view: View, console: Console) -> None:
    """Report how many videos are shorter than a clip, so that their last frame is repeated.

    Args:
        tables: what the videos are called in the report -> the videos.
        view: the length of a clip.
        console: where to report.
    """
    for name, table in tables.items():
        if padded := count_padded(table, view):
            text = f"{padded:,} of {len(table):,} {name} are shorter than {view.clip_frames} frames"
            say(console, f"{text}: their last frame is repeated")


def require_labels(listed: VideoList, alternatives: str) -> None:
    """Refuse a list with unlabelled videos.

    Args:
        listed: the videos.
        alternatives: ends the message: what to do other than to sort the videos into class folders.

    Raises:
        ValueError: a video has no label.
    """
    missing = [path for path, label in zip(listed.paths, listed.labels, strict=True) if label is None]
    if missing:
        raise ValueError(
            f"{listed.source}: {len(missing):,} of {len(listed):,} videos have no label; first: {missing[0]}; "
            f"put the videos in one folder per class, {alternatives}"
        )


def _check_disjoint(train: VideoList, test: VideoList) -> None:
    """Refuse test videos that are also training videos, and test spans that overlap training spans."""
    trained: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for file, start, end in _times_of(train):
        trained[file].append((start, end))
    starts = {file: sorted(start for start, _ in spans) for file, spans in trained.items()}
    latest = {file: list(accumulate((end for _, end in sorted(spans)), max)) for file, spans in trained.items()}
    shared = []
    for name, (file, start, end) in zip(test.names, _times_of(test), strict=True):
        before = bisect_left(starts.get(file, ()), end)  # training spans that begin before its end
        if before and latest[file][before - 1] > start:
            shared.append(name)
    if shared:
        raise ValueError(
            f"{len(shared):,} of {len(test):,} test videos are also training videos; first: {shared[0]}; "
            f"give parts that share no file or time of a file (training: {train.source}; test: {test.source})"
        )


def _times_of(listed: VideoList) -> Iterator[tuple[str, float, float]]:
    """The file of each entry of a list, and its start and end in seconds; a whole file has no end."""
    bounds = listed.bounds or ((0.0, None),) * len(listed)
    for path, (start, end) in zip(listed.paths, bounds, strict=True):
        yield os.path.realpath(listed.root / path), start, inf if end is None else end


def _collect(train: Scan, test: Scan, options: LabelledOptions, *, divides: bool) -> Parts:
    occurring = set(train.usable_labels)
    classes = tuple(name for name in train.videos.classes if name in occurring)
    numbers = {name: number for number, name in enumerate(classes)}
    both = [(part, part.videos.names) for part in (train, test)]
    train_labels, test_labels = (
        torch.tensor([numbers.get(str(label), UNKNOWN) for label in part.usable_labels]) for part in (train, test)
    )
    train_paths, test_paths = (tuple(names[position] for position in part.usable) for part, names in both)
    return Parts(
        train.usable_table,
        train_labels,
        test.usable_table,
        test_labels,
        classes,
        train.videos.source,
        test.videos.source,
        train_paths,
        test_paths,
        {**train.skipped, **test.skipped},
        torch.from_numpy(options.groups_of(test)),
        unite(train.usable_table.fingerprints, options.groups_of(train)) if divides else None,
    )


def _report_unknown(test: Scan, parts: Parts, console: Console) -> None:
    unknown = Counter(label for label in test.usable_labels if label not in parts.classes)
    if not unknown:
        return
    listed = ", ".join(f"{label} ({count:,})" for label, count in unknown.most_common(_NUM_LISTED))
    num_more = len(unknown) - _NUM_LISTED
    more = f" and {counted(num_more, 'more class')}" if num_more > 0 else ""
    say(
        console,
        f"{parts.num_unknown:,} of {len(parts.test_labels):,} test videos have a class without training videos: "
        f"{listed}{more}; they count as wrong",
    )
