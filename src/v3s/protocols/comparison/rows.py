"""A comparison as data: for each backbone what it got right on the same test videos, and what it costs."""

from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

import torch
from torch import Tensor

from v3s.features.source import Origin, Source
from v3s.files.text import short_repr
from v3s.protocols.errors import critical_value, standard_error

Measure = Literal["linear", "neighbours", "retrieval"]
MEASURES: tuple[Measure, ...] = ("linear", "neighbours", "retrieval")
OWN_ORIGINS = ("pretrained", "recognizer")
"""Of weights that v3s trained."""

_FEWEST_ALIKE = 7  # 2^-7 < 1 %


@dataclass(frozen=True, slots=True)
class Compared:
    """A backbone on the test videos.

    Attributes:
        backbone: as it was given.
        origin: where its weights come from.
        network: name of the network.
        fingerprint: SHA-256 of the weights.
        clips: what a clip is, in words.
        dimension: length of a vector.
        num_parameters: number of parameters.
        licence: of a foundation model, as its card states it.
        clips_per_second: clips that were read and encoded in a second.
        linear: whether the linear probe was right on each test video, (M,).
        neighbours: whether the nearest neighbours' vote was, (M,).
        k: neighbours that voted.
        retrieval: whether the first neighbour has the class, (M,).
        few_labels: accuracy of the linear probe on few labels; ``None`` if a class has fewer.
        few_labels_error: its standard error over draws; ``None`` after a single one.
    """

    backbone: str
    origin: Origin
    network: str
    fingerprint: str
    clips: str
    dimension: int
    num_parameters: int
    licence: str | None
    clips_per_second: float
    linear: tuple[bool, ...]
    neighbours: tuple[bool, ...]
    k: int
    retrieval: tuple[bool, ...]
    few_labels: float | None
    few_labels_error: float | None
    __repr__ = short_repr

    def __post_init__(self) -> None:
        if not (isfinite(self.clips_per_second) and self.clips_per_second > 0):
            raise ValueError(f"clips_per_second is {self.clips_per_second}; it must be more than 0")
        shares = [share for share in (self.few_labels, self.few_labels_error) if share is not None]
        if self.k < 1 or not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"k is {self.k} and few_labels {shares}; they must be 1 or more, and shares")

    @property
    def is_own(self) -> bool:
        """Whether v3s trained its weights."""
        return self.origin in OWN_ORIGINS

    def hits(self, measure: Measure) -> Tensor:
        """Which test videos were right, 0 or 1: float64, shape (M,)."""
        return torch.tensor(getattr(self, measure), dtype=torch.float64)

    def check_videos(self, num_videos: int) -> None:
        """Refuse a row of another number of test videos.

        Raises:
            ValueError: a measure has another number.
        """
        for measure in MEASURES:
            if len(getattr(self, measure)) != num_videos:
                raise ValueError(f"{measure} has {len(getattr(self, measure)):,} of {num_videos:,} test videos")

    def check_network(self, source: Source, dimension: int) -> None:
        """Refuse a row of another network: its file may have been renamed, or edited.

        Raises:
            ValueError: what the row says of the network is not so.
        """
        known = {
            name: getattr(source, name) for name in ("origin", "network", "fingerprint", "num_parameters", "licence")
        }
        for name, value in {**known, "dimension": dimension}.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name} is {getattr(self, name)}, and that of the network is {value}")

    def called(self, backbone: str) -> "Compared":
        """Return this row under the name that the backbone has now."""
        return replace(self, backbone=backbone)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share of the test videos, or a difference of two.

    Attributes:
        value: in [0, 1]; a difference in [-1, 1].
        error: its standard error over groups of videos; of a difference, that of the pairs.
    """

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Backbones on the same videos.

    Attributes:
        rows: the backbones, in the order in which they were given; at least one with random weights.
        classes: names of the classes.
        num_train: number of training videos.
        test_groups: number of each test video's group, (M,).
        chance: accuracy of a uniform guess.
        majority: accuracy of always predicting the most frequent training class.
        train_source: one line that describes the training list.
        test_source: one line that describes the test list.
        num_clips: clips of each video.
    """

    rows: tuple[Compared, ...]
    classes: tuple[str, ...]
    num_train: int
    test_groups: tuple[int, ...]
    chance: float
    majority: float
    train_source: str
    test_source: str
    num_clips: int
    __repr__ = short_repr

    @property
    def random(self) -> Compared:
        """The first backbone with random weights, which the others are compared with."""
        return next(row for row in self.rows if row.origin == "random")

    def share(self, row: Compared, measure: Measure) -> Estimate:
        """The share of the test videos on which a backbone is right."""
        return self._share(row.hits(measure))

    def difference(self, row: Compared, other: Compared, measure: Measure) -> Estimate:
        """How many more test videos a backbone gets right than another, paired by video."""
        return self._share(row.hits(measure) - other.hits(measure))

    def is_clear(self, difference: Estimate) -> bool:
        """Whether a difference is significant: one-sided, at 1 %, over groups.

        Without an error, all groups differ alike: then by the sign test.
        """
        num_groups = len(set(self.test_groups))
        if difference.error == 0:
            return difference.value != 0 and num_groups >= _FEWEST_ALIKE
        return abs(difference.value) > critical_value(num_groups) * difference.error

    def best(self, *, own: bool) -> Compared | None:
        """The best of your own runs by linear probe, or of all others and random weights; ``None`` if there is none."""
        rows = [row for row in self.rows if row.is_own == own]
        return max(rows, key=lambda row: self.share(row, "linear").value, default=None)

    def _share(self, hits: Tensor) -> Estimate:
        return Estimate(float(hits.mean()), standard_error(hits, torch.tensor(self.test_groups)))
