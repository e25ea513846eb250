"""The scores of a head of the pretext task: accuracy, chance level and confusion matrix."""

from collections import Counter
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v3s.pretext.plan import LabelPrior

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class HeadScores:
    """The scores of one head.

    Attributes:
        labels: the text of each row of the head's table.
        confusion: int64, shape (rows, rows): number of clips with each true row (down) and predicted row (across).
        standard_error: standard error of the accuracy. It is computed from the accuracies of the videos, since clips of
            one video are not independent; with a single video, they are treated as independent.
        chance: the best accuracy that is possible without looking at the clip.
    """

    labels: tuple[str, ...]
    confusion: Counts
    standard_error: float
    chance: float

    @property
    def accuracy(self) -> float:
        """The share of clips whose row was predicted correctly, in [0, 1]."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "accuracy": self.accuracy,
            "standard_error": self.standard_error,
            "chance": self.chance,
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
        }


def score_head(
    rows: tuple[object, ...], prior: LabelPrior, truth: Counts, answers: Counts, videos: Counts
) -> HeadScores:
    """Score the predictions of one head.

    Args:
        rows: the table of the head.
        prior: how rows were drawn.
        truth: true row numbers, shape (N,).
        answers: predicted row numbers, shape (N,).
        videos: the number of each clip's video, shape (N,); the numbers 0 to M - 1 all occur.
    """
    confusion = np.zeros((len(rows), len(rows)), np.int64)
    np.add.at(confusion, (truth, answers), 1)
    hits = truth == answers
    error = sqrt(hits.mean() * (1 - hits.mean()) / len(hits))
    if videos.max() > 0:
        shares = np.bincount(videos, hits) / np.bincount(videos)
        error = float(shares.std(ddof=1) / sqrt(len(shares)))
    return HeadScores(tuple(map(str, rows)), confusion, error, chance(rows, prior))


def chance(rows: tuple[object, ...], prior: LabelPrior) -> float:
    """The share of clips that have the most frequent row."""
    if prior == "class":
        return 1 / len(rows)
    families = Counter(type(row) for row in rows)
    return 1 / (len(families) * min(families.values()))
