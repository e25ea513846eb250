"""Labelled videos as training and test videos: given as two lists, or one list divided by class and group."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from v3s.data.groups import GroupOptions, gap_between, unite
from v3s.data.index_table import IndexTable
from v3s.data.lists.splits import VideoList
from v3s.data.scan import Scan
from v3s.files.text import counted, say, short_repr, verb
from v3s.protocols.errors import chance_sentence
from v3s.protocols.labelled.division import divide, next_to, undivided, write_division
from v3s.video.decode import Video

UNKNOWN = -1
"""The label of a test video whose class has no training videos: its prediction always counts as wrong."""
_NUM_LISTED = 5  # classes listed in a message


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Labelled videos or spans that can be used (N).

    Attributes:
        videos: their paths, labels and times.
        copies: what each shows, as a number that copies share, integers, shape (N,).
        left_out: path and reason of each video of the list that is skipped.
        table: the videos, if they were read.
        features: their vectors, if these are stored: float32, shape (N, D).
        opens: opens one of them by its number, if their vectors are stored.
    """

    videos: VideoList
    copies: NDArray[Any]
    left_out: dict[str, str]
    table: IndexTable | None = None
    features: Tensor | None = None
    opens: Callable[[int], Video] | None = None
    __repr__ = short_repr

    @classmethod
    def of(cls, found: Scan) -> "Labelled":
        """The usable videos of a scan."""
        everything = cls(found.videos, np.arange(len(found.videos)), found.skipped)
        table = found.usable_table
        return replace(everything.subset(found.usable), copies=table.fingerprints, table=table)

    def subset(self, numbers: NDArray[np.int64], title: str = "") -> "Labelled":
        """Some of them; with a title that describes them."""
        listed, chosen = self.videos, numbers.tolist()
        paths, labels = (tuple(values[number] for number in chosen) for values in (listed.paths, listed.labels))
        bounds = tuple(listed.bounds[number] for number in chosen) if listed.bounds else ()
        return Labelled(
            replace(listed, paths=paths, labels=labels, bounds=bounds, source=title or listed.source),
            self.copies[numbers],
            self.left_out,
            self.table and self.table.subset(numbers),
            None if self.features is None else self.features[torch.from_numpy(numbers)],
            None if self.opens is None else lambda number: self.video(chosen[number]),
        )

    def video(self, number: int) -> Video:
        """Return one of them.

        Raises:
            VideoError: it was embedded, and is gone or has changed since.
        """
        if self.table is not None:
            return self.table[number]
        assert self.opens is not None
        return self.opens(number)

    @property
    def noun(self) -> str:
        """What each is: "span" of a recording, or "video"."""
        return self.videos.noun

    @property
    def span_seconds(self) -> float | None:
        """The median length of spans in seconds; None if these are whole videos."""
        lengths = [end - start for start, end in self.videos.bounds if end is not None]
        return round(median(lengths), 3) if lengths else None

    @property
    def labels(self) -> list[str]:
        """The class of each."""
        return list(map(str, self.videos.labels))

    @property
    def times(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Start and end of each in seconds, each of shape (N,), if they are spans of a single recording."""
        one = len(np.unique(self.table.contents)) if self.table else len(set(self.videos.paths))
        if one > 1 or not self.videos.bounds:
            return None
        starts, ends = zip(*self.videos.bounds, strict=True)
        return np.array(starts), np.array([inf if end is None else end for end in ends])

    def groups(self, options: GroupOptions) -> NDArray[np.int64]:
        """The number of each one's group, shape (N,)."""
        return options.groups_by(self.videos.paths, self.times and self.times[0])


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Training videos (N) and test videos (M) with their labels.

    Attributes:
        train: the training videos, or the gallery.
        train_labels: numbers into `classes`, int64, shape (N,).
        test: the test videos, or the queries.
        test_labels: numbers into `classes`, int64, shape (M,); `UNKNOWN` if the class has no training videos.
        classes: the names of the classes that have training videos, in the order of the training list.
        test_groups: number of each test video's group, int64, shape (M,).
        train_groups: which training videos belong together if they are to be divided, as copies or by their group,
            integers, shape (N,); None: each is alone.
        is_divided: whether one list was divided into these parts, by the seed.
    """

    train: Labelled
    train_labels: Tensor
    test: Labelled
    test_labels: Tensor
    classes: tuple[str, ...]
    test_groups: Tensor
    train_groups: NDArray[np.int64] | None = None
    is_divided: bool = False

    @property
    def train_source(self) -> str:
        """One line that describes the training list."""
        return self.train.videos.source

    @property
    def test_source(self) -> str:
        """One line that describes the test list."""
        return self.test.videos.source

    @property
    def train_paths(self) -> tuple[str, ...]:
        """Path of each training video as listed, with the times of a span, (N,)."""
        return self.train.videos.names

    @property
    def test_paths(self) -> tuple[str, ...]:
        """Path of each test video as listed, with the times of a span, (M,)."""
        return self.test.videos.names

    @property
    def train_table(self) -> IndexTable:
        """The training videos, which were read."""
        assert self.train.table is not None
        return self.train.table

    @property
    def test_table(self) -> IndexTable:
        """The test videos, which were read."""
        assert self.test.table is not None
        return self.test.table

    @property
    def left_out(self) -> dict[str, str]:
        """Path and reason of each skipped video."""
        return {**self.train.left_out, **self.test.left_out}

    @property
    def tables(self) -> dict[str, IndexTable]:
        """The videos of each part, by what a report calls them."""
        return {f"training {self.train.noun}s": self.train_table, f"test {self.test.noun}s": self.test_table}

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


def make_parts(
    found: Sequence[Labelled], options: GroupOptions, *, seed: int, divides: bool, console: Console
) -> Parts:
    """Make the two parts of labelled videos, and say what about them matters for reading a result.

    Args:
        found: the training and the test videos, or all videos, which are divided by class and group.
        options: how groups are found.
        seed: of that division.
        divides: whether the training videos will be divided by group.
        console: where to report.

    Raises:
        ValueError: there are fewer than two classes, or a single list cannot be divided.
    """
    is_divided = len(found) == 1
    if is_divided:
        _require_classes(found[0])
    train, test = _divide(found[0], options, seed, console) if is_divided else found
    _require_classes(train)
    occurring = set(train.labels)
    classes = tuple(name for name in train.videos.classes if name in occurring)
    numbers = {name: number for number, name in enumerate(classes)}
    train_labels, test_labels = (
        torch.tensor([numbers.get(label, UNKNOWN) for label in part.labels]) for part in (train, test)
    )
    test_groups = torch.from_numpy(test.groups(options))
    train_groups = unite(train.copies, train.groups(options)) if divides else None
    parts = Parts(train, train_labels, test, test_labels, classes, test_groups, train_groups, is_divided)
    _report_copies(parts, console)
    _report_unknown(parts, console)
    return parts


def _divide(found: Labelled, options: GroupOptions, seed: int, console: Console) -> tuple[Labelled, Labelled]:
    """Divide labelled videos by class and group; of a single recording, leave out what is next to test spans."""
    groups = unite(found.copies, found.groups(options))
    try:
        is_test = divide(found.labels, groups, seed)
    except ValueError as error:
        example = options.example(found.videos.paths, found.times and found.times[0])
        raise ValueError(f"{error} (a group is what --group says; here {example})") from error
    is_train = ~is_test
    if found.times is not None:
        is_train &= ~next_to(*found.times, is_test)
        if not is_train.any():
            raise ValueError(
                f"{found.videos.source}: all spans are of one recording, and none is {gap_between(*found.times):.0f} s "
                "away from those that would be tested on; add recordings, or give test videos with --test-data"
            )
    names = [f"{found.noun}s for {part}" for part in ("training", "testing")]
    train, test = (
        found.subset(np.flatnonzero(rows), f"{found.videos.source}; {rows.sum():,} {name}, by seed {seed}")
        for rows, name in zip((is_train, is_test), names, strict=True)
    )
    sides = undivided([*train.labels, *test.labels], np.repeat([False, True], [len(train.labels), len(test.labels)]))
    text = f"divided by seed {seed}: {is_train.sum():,} {names[0]} and {is_test.sum():,} {names[1]}, "
    text += (
        "in whole groups" if len(np.unique(groups)) < len(groups) else "each a group of its own (--group joins some)"
    )
    if num_near := len(is_test) - int(is_train.sum() + is_test.sum()):
        text += f"; {num_near:,} next to test spans are used for neither"
    if sides:
        shown = ", ".join(f"{name} ({part})" for name, part in list(sides.items())[:_NUM_LISTED])
        text += f"; {counted(len(sides), 'class')} with one group, on one side only: {shown}"
        text += f" and {len(sides) - _NUM_LISTED:,} more" if len(sides) > _NUM_LISTED else ""
    say(console, text)
    return train, test


def keep_division(parts: Parts, folder: Path, console: Console) -> None:
    """Write the lists of videos that were divided here into a folder, and say how to give them again.

    Lists of another division that are there already are kept under other names.
    """
    if parts.is_divided:
        kept = write_division(folder, parts.train.videos, parts.test.videos)
        say(console, *(f"a list of another division was there before; it is now {path}" for path in kept))
        say(console, f"the division is kept in {folder}: give it again with --splits {folder}")


def report_chance(parts: Parts, name: str, accuracy: float, baseline: float, error: float, console: Console) -> None:
    """Say it if a result is not clearly above chance, as by `chance_sentence`, whose arguments it takes."""
    sentence = chance_sentence(
        name,
        accuracy,
        baseline,
        error=error,
        num_scores=len(parts.test_labels),
        num_groups=parts.num_test_groups,
        noun=parts.test.noun,
    )
    if sentence is not None:
        say(console, sentence)


def _require_classes(found: Labelled) -> None:
    if len(classes := set(found.labels)) < 2:
        raise ValueError(
            f"{found.videos.source}: all {found.noun}s are of the class {classes.pop()!r}; at least two classes are "
            "needed"
        )


def _report_copies(parts: Parts, console: Console) -> None:
    """Say how many test videos a network or classifier has seen under another name."""
    is_copy = np.isin(parts.test.copies, parts.train.copies)
    if is_copy.any():
        first, noun = parts.test_paths[int(is_copy.argmax())], parts.test.noun
        what = f"is a copy of a training {noun}" if is_copy.sum() == 1 else f"are copies of training {noun}s"
        say(
            console,
            f"{is_copy.sum():,} of {len(is_copy):,} test {noun}s {what}, first: {first}; "
            f"a result on copies says nothing about other {noun}s",
        )


def _report_unknown(parts: Parts, console: Console) -> None:
    unknown = Counter(label for label in parts.test.labels if label not in parts.classes)
    if not unknown:
        return
    listed = ", ".join(f"{label} ({count:,})" for label, count in unknown.most_common(_NUM_LISTED))
    num_more = len(unknown) - _NUM_LISTED
    more, noun = f" and {counted(num_more, 'more class')}" if num_more > 0 else "", parts.test.noun
    say(
        console,
        f"{parts.num_unknown:,} of {len(parts.test_labels):,} test {noun}s {verb(parts.num_unknown, 'have')} a class "
        f"without training {noun}s: {listed}{more}; {'it counts' if parts.num_unknown == 1 else 'they count'} as wrong",
    )
