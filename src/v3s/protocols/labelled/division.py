"""Labelled videos without a test part, divided into training and test videos: by class, in whole groups, by a seed.

The division is written down as two lists in a folder, which ``--splits`` takes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from v3s.data.groups import gap_between
from v3s.data.lists.listfile import list_writer, spans_writer
from v3s.data.lists.spans import Bounds
from v3s.data.lists.splits import VideoList
from v3s.files.writing import write_keeping

TEST_SHARE = 1 / 4
"""Share of each class's videos that is tested on."""

LISTS = ("train.csv", "test.csv")
"""The two lists of a division."""

_DIVISION = 5  # separates this random stream from those of the samples


def divide(labels: Sequence[str], groups: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Choose test videos: of each class as nearly as possible a quarter, in whole groups.

    A class whose videos are in several groups is tested on at least one of them and trained on at least one, as far as
    groups that span classes allow it. A class with a single group is trained on only.

    Args:
        labels: class of each video, (N,).
        groups: the group of each video, integers, shape (N,); videos of a group, and copies, are on one side.
        seed: seed of the order in which groups are tried.

    Returns:
        Whether each video is a test video, shape (N,).

    Raises:
        ValueError: no group can be tested on without taking the last one of a class from training.
    """
    counts: dict[int, Counter[str]] = defaultdict(Counter)  # videos of each class in each group
    for label, group in zip(labels, groups.tolist(), strict=True):
        counts[group][label] += 1
    of_class: dict[str, list[int]] = defaultdict(list)
    names = list(counts)
    for group in (names[place] for place in np.random.default_rng((seed, 0, 0, _DIVISION)).permutation(len(names))):
        for label in counts[group]:
            of_class[label].append(group)
    left = {label: len(own) for label, own in of_class.items()}  # groups of each class that are trained on
    wanted = {label: TEST_SHARE * number for label, number in Counter(labels).items()}
    tested: set[int] = set()

    def can_take(group: int) -> bool:
        return group not in tested and all(left[label] > 1 for label in counts[group])

    def gain(group: int) -> float:
        """By how many videos testing on a group brings its classes nearer to their quarters."""
        return sum(abs(wanted[label]) - abs(wanted[label] - number) for label, number in counts[group].items())

    def take(group: int) -> None:
        tested.add(group)
        for label, number in counts[group].items():
            left[label] -= 1
            wanted[label] -= number

    for label in sorted(of_class, key=lambda name: (len(of_class[name]), name)):
        if not tested.intersection(of_class[label]) and (free := list(filter(can_take, of_class[label]))):
            take(next((group for group in free if gain(group) > 0), min(free, key=lambda group: counts[group].total())))
    for label in of_class:
        for group in of_class[label]:
            if can_take(group) and gain(group) > 0:
                take(group)
    if not tested:
        raise ValueError(
            "no class has videos in two groups, one to train on and one to test on; add videos, give a --group that "
            "makes more groups, or give test videos with --test-data"
        )
    return np.isin(groups, list(tested))


def next_to(starts: NDArray[np.float64], ends: NDArray[np.float64], is_test: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which training spans of one recording are so near to a test span that they are on neither side, (N,).

    Args:
        starts: of the spans, in seconds, shape (N,).
        ends: of the spans, in seconds, shape (N,).
        is_test: which of them are tested on, shape (N,).
    """
    gap = gap_between(starts, ends)
    order = np.argsort(starts[is_test], kind="stable")
    test_starts, test_ends = starts[is_test][order], np.maximum.accumulate(ends[is_test][order])
    before = np.searchsorted(test_starts, ends + gap)  # test spans that begin before the gap after each span ends
    latest = np.where(before > 0, test_ends[np.maximum(before - 1, 0)], -np.inf)
    return ~is_test & (latest > starts - gap)


def undivided(labels: Sequence[str], is_test: NDArray[np.bool_]) -> dict[str, str]:
    """The classes that are on one side only, and on which."""
    sides: dict[str, set[bool]] = defaultdict(set)
    for label, side in zip(labels, is_test.tolist(), strict=True):
        sides[label].add(side)
    return {name: "test" if own == {True} else "training" for name, own in sides.items() if len(own) == 1}


def write_division(folder: Path, train: VideoList, test: VideoList) -> list[Path]:
    """Write two lists, ``train.csv`` and ``test.csv``, which ``--splits`` takes with the same DATA.

    Returns:
        Where lists of another division are now, which were there before.
    """
    kept = [
        write_keeping(
            folder / name,
            spans_writer(_spans(listed))
            if listed.bounds
            else list_writer(zip(listed.paths, listed.labels, strict=True)),
        )
        for name, listed in zip(LISTS, (train, test), strict=True)
    ]
    return [path for path in kept if path is not None]


def _spans(listed: VideoList) -> Iterator[tuple[str, Bounds, str | None]]:
    return zip(listed.paths, listed.bounds, listed.labels, strict=True)
