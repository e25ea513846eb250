"""Labelled videos in two parts: what a classifier or a gallery learns from, and what it is asked about."""

import os
from collections import Counter
from dataclasses import dataclass
from typing import Annotated

import torch
from rich.console import Console
from torch import Tensor

from v3s.data.index_table import IndexTable
from v3s.data.lists.splits import VideoList, list_videos
from v3s.data.scan import Scan
from v3s.data.usable import usable_videos
from v3s.data.views import View, count_padded
from v3s.features.encoder import Encoder
from v3s.files.text import say

UNKNOWN = -1
"""The label of a test video whose class has no training video: no answer about it can be right."""
_NUM_NAMED = 5  # classes that a message names


@dataclass(frozen=True, kw_only=True)
class LabelledOptions:
    """Labelled videos in two parts: training videos (the gallery) and test videos (the queries).

    Attributes:
        data: A folder of videos in class folders (below folders train and test, or with --splits), or a list.
        splits: Official split lists (a folder, or a CSV file) of UCF101, HMDB51 or Kinetics-400 for the videos in data.
        test_data: A folder or list of the test videos, if data has no test part.

    More options:
        split: Number of the official split.
        allow_missing: Continue although videos of the list are missing.
    """

    data: Annotated[str, "DATA"]
    splits: str | None = None
    split: int = 1
    test_data: str | None = None
    allow_missing: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Training videos (N) and test videos (M) with their labels.

    Attributes:
        train_table: the training videos, or the gallery.
        train_labels: numbers into `classes`, int64, shape (N,).
        test_table: the test videos, or the queries.
        test_labels: numbers into `classes`, int64, shape (M,); `UNKNOWN` where the training part lacks the class.
        classes: the names of the classes that have a training video, in the order of the training list.
        train_source: one line: what was read.
        test_source: one line: what was read.
        train_paths: path of each training video as its list has it, (N,).
        test_paths: path of each test video as its list has it, (M,).
        left_out: path and reason of each listed video that cannot be read.
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

    @property
    def num_unknown(self) -> int:
        """How many test videos are of a class that no training video has."""
        return int((self.test_labels == UNKNOWN).sum())

    @property
    def chance(self) -> float:
        """The accuracy of a guess: one over the number of classes."""
        return 1 / len(self.classes)

    @property
    def majority(self) -> float:
        """The test accuracy of always answering the most frequent training class."""
        most = torch.bincount(self.train_labels).argmax()
        return float((self.test_labels == most).double().mean())


def labelled_parts(options: LabelledOptions, *, workers: int | None = None, console: Console) -> Parts:
    """List and read both parts; every video that can be read is in, however short.

    Args:
        options: where the videos and their labels are.
        workers: processes that read files which are not known yet; None takes one a processor.
        console: where to say what was read, what is skipped, and which test labels are unknown.

    Raises:
        ValueError: a part cannot be listed, has videos without labels or none that can be read, both parts share a
            file, or the training part has fewer than two classes.
    """
    if options.test_data is None:
        lists = [
            list_videos(
                options.data,
                splits=options.splits,
                split=options.split,
                subset=subset,
                allow_missing=options.allow_missing,
            )
            for subset in ("train", "test")
        ]
    else:
        if options.splits is not None:
            raise ValueError(f"both test_data {options.test_data} and splits {options.splits} were given; give one")
        lists = [
            list_videos(given, subset="all", allow_missing=options.allow_missing)
            for given in (options.data, options.test_data)
        ]
    for listed in lists:
        _check_labels(listed)
    _check_disjoint(*lists)
    train, test = (usable_videos(listed, min_frames=1, console=console, workers=workers) for listed in lists)
    parts = _collect(train, test)
    if len(parts.classes) < 2:
        raise ValueError(f"{parts.train_source}: only the class {parts.classes[0]!r}; at least two are needed")
    _say_unknown(test, parts, console)
    return parts


def labelled_vectors(
    options: LabelledOptions, encoder: Encoder, *, workers: int | None, console: Console
) -> tuple[Parts, Tensor, Tensor]:
    """List, read and encode both parts.

    Args:
        options: where the videos and their labels are.
        encoder: what turns them into vectors.
        workers: processes that read files which are not known yet; None takes one a processor.
        console: where to report, and to show a bar.

    Returns:
        Both parts, the vectors of the training videos (N, D) and those of the test videos (M, D): float32, each the
        mean over the clips of a video.

    Raises:
        ValueError: as `labelled_parts`, or the network gives NaN or infinity.
    """
    parts = labelled_parts(options, workers=workers, console=console)
    say_padded(parts, encoder.view, console)
    train = encoder.mean_vectors(parts.train_table, console=console, what="training videos")
    return parts, train, encoder.mean_vectors(parts.test_table, console=console, what="test videos")


def say_padded(parts: Parts, view: View, console: Console) -> None:
    """Say how many videos of each part are shorter than a clip, so that their last frame is repeated."""
    for name, table in (("training", parts.train_table), ("test", parts.test_table)):
        if padded := count_padded(table, view):
            text = f"{padded:,} of {len(table):,} {name} videos are shorter than {view.clip_frames} frames"
            say(console, f"{text}: their last frame is repeated")


def _check_labels(listed: VideoList) -> None:
    missing = [path for path, label in zip(listed.paths, listed.labels, strict=True) if label is None]
    if missing:
        raise ValueError(
            f"{listed.source}: {len(missing):,} of them have no label, first: {missing[0]}; put the videos in one "
            "folder for each class, write 'path label' in each line of the list, or give the official --splits"
        )


def _check_disjoint(train: VideoList, test: VideoList) -> None:
    """Refuse to test on a video that is trained on."""
    files = {os.path.realpath(train.root / path) for path in train.paths}
    shared = [path for path in test.paths if os.path.realpath(test.root / path) in files]
    if shared:
        raise ValueError(
            f"{len(shared):,} of {len(test):,} test videos are training videos too, first: {shared[0]}; "
            f"give parts that share no file (training: {train.source}; test: {test.source})"
        )


def _collect(train: Scan, test: Scan) -> Parts:
    occurring = set(train.usable_labels)
    classes = tuple(name for name in train.videos.classes if name in occurring)
    numbers = {name: number for number, name in enumerate(classes)}
    train_labels, test_labels = (
        torch.tensor([numbers.get(str(label), UNKNOWN) for label in found.usable_labels]) for found in (train, test)
    )
    train_paths, test_paths = (
        tuple(found.videos.paths[position] for position in found.usable) for found in (train, test)
    )
    reports = (*train.reports, *test.reports)
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
        {report.path: report.reason for report in reports if report.verdict != "usable"},
    )


def _say_unknown(test: Scan, parts: Parts, console: Console) -> None:
    unknown = Counter(label for label in test.usable_labels if label not in parts.classes)
    if not unknown:
        return
    named = ", ".join(f"{label} ({count:,})" for label, count in unknown.most_common(_NUM_NAMED))
    more = f" and {len(unknown) - _NUM_NAMED:,} more classes" if len(unknown) > _NUM_NAMED else ""
    say(
        console,
        f"{parts.num_unknown:,} of {len(parts.test_labels):,} test videos are of classes that no training video has: "
        f"{named}{more}; they stay in and count as wrong",
    )
