"""Labelled videos in two parts: training videos (or the gallery) and test videos (or the queries)."""

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from pathlib import Path
from typing import Annotated

from rich.console import Console

from v3s.data.groups import GroupOptions, number_groups
from v3s.data.lists.kinetics import is_single
from v3s.data.lists.listing import Subset
from v3s.data.lists.remote import local_data
from v3s.data.lists.spans import SpanOptions
from v3s.data.lists.splits import VideoList, has_test_part, list_videos
from v3s.data.store_folder import see_as_stored
from v3s.data.usable import usable_videos
from v3s.data.views import View
from v3s.files.remote.address import hide_secrets
from v3s.files.text import verb
from v3s.protocols.labelled.parts import Labelled, Parts, make_parts


@dataclass(frozen=True, kw_only=True)
class LabelledOptions(GroupOptions, SpanOptions):
    """Labelled videos in two parts: training videos (the gallery) and test videos (the queries).

    Attributes:
        data: A folder of videos in class folders, which may lie in train and test folders, or a list file with labels.
            Without test videos, a quarter of each class is tested on, in whole groups, chosen by the seed.
        splits: Official split lists of UCF101, HMDB51 or Kinetics-400 (a folder, or a CSV file) for the videos in DATA,
            a folder with train.csv and test.csv, or a list of your own whose paths are relative to DATA.
        test_data: A folder or list file of the test videos.

    More options:
        split: Number of the official split.
        allow_missing: Continue without the videos of the list that are missing.
    """

    data: Annotated[str | None, "DATA"] = None
    splits: str | None = None
    split: int = 1
    test_data: str | None = None
    allow_missing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        hide_secrets(self, "data", "test_data")
        see_as_stored(self)
        if self.test_data is not None and self.splits is not None:
            given = f"test_data ({self.test_data}) and splits ({self.splits})"
            raise ValueError(f"{given} cannot be combined; give only one")


def labelled_parts(
    options: LabelledOptions,
    *,
    seed: int = 0,
    workers: int | None = None,
    console: Console,
    divides: bool = False,
    view: View | None = None,
) -> Parts:
    """List and read both parts; includes every readable video, however short.

    Args:
        options: where the videos and their labels are.
        seed: chooses the test videos, if there is only one list.
        workers: processes that read files for the first time; None starts one per processor.
        console: where to report what was read, what is skipped, and which test labels are unknown.
        divides: whether the training videos will be divided by group, so that ``group`` must do so too.
        view: the clips of the network; its frame rate, window and mask hold if the options do not say otherwise.

    Raises:
        ValueError: a part cannot be listed, has videos without labels or no readable videos, both parts share a file or
            some time of one, the training part has fewer than two classes, or ``group`` does not divide a part into
            groups.
    """
    lists = _list_parts(options, options.spans_for(view))
    check_lists(lists, options, divides)
    found = [Labelled.of(usable_videos(listed, min_frames=1, console=console, workers=workers)) for listed in lists]
    return make_parts(found, options, seed=seed, divides=divides, console=console)


def _list_parts(options: LabelledOptions, spans: SpanOptions) -> list[VideoList]:
    """List the training and the test videos, or all of them where none are for testing."""
    assert options.data is not None
    missing = options.allow_missing
    if options.test_data is not None:
        both = options.data, options.test_data
        return [list_videos(data, subset="all", allow_missing=missing, spans=spans) for data in both]
    data = local_data(options.data)
    is_one = not has_test_part(data) if options.splits is None else is_single(Path(options.splits))
    subsets: tuple[Subset, ...] = ("all",) if is_one else ("train", "test")
    lists = {"splits": options.splits, "split": options.split, "allow_missing": missing, "spans": spans}
    return [list_videos(data, subset=subset, **lists) for subset in subsets]  # type: ignore[arg-type]


def check_lists(lists: Sequence[VideoList], options: GroupOptions, divides: bool) -> None:
    """Check lists before their videos are read.

    Args:
        lists: the training and the test list, or a single list, which will be divided.
        options: how groups are found.
        divides: whether the training videos will be divided by group.

    Raises:
        ValueError: a video has no label, the lists share a file or some time of one, or ``group`` does not divide one.
    """
    for listed in lists:
        require_labels(listed)
    if len(lists) == 2:
        _check_disjoint(*lists)
    for listed in lists if divides else lists[-1:]:
        number_groups(listed.paths, options.group)


def require_labels(listed: VideoList, alternatives: str = "or give the official --splits") -> None:
    """Refuse a list with unlabelled videos.

    Args:
        listed: the videos.
        alternatives: ends the message: what to do other than to give class folders or a list with labels.

    Raises:
        ValueError: a video has no label.
    """
    missing = [path for path, label in zip(listed.paths, listed.labels, strict=True) if label is None]
    if missing:
        raise ValueError(
            f"{listed.source}: {len(missing):,} of {len(listed):,} videos {verb(len(missing), 'have')} no label; "
            f"first: {missing[0]}; "
            "put the videos in one folder per class, give a list with labels as DATA ('path label' on each line, or "
            f"labels/labels.csv of v3s serve), {alternatives}"
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
        both = "is also a training video" if len(shared) == 1 else "are also training videos"
        raise ValueError(
            f"{len(shared):,} of {len(test):,} test videos {both}; first: {shared[0]}; "
            f"give parts that share no file or time of a file (training: {train.source}; test: {test.source})"
        )


def _times_of(listed: VideoList) -> Iterator[tuple[str, float, float]]:
    """The file of each entry of a list, and its start and end in seconds; a whole file has no end."""
    bounds = listed.bounds or ((0.0, None),) * len(listed)
    for path, (start, end) in zip(listed.paths, bounds, strict=True):
        yield os.path.realpath(listed.root / path), start, inf if end is None else end
