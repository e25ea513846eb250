"""How well a head of the pretext task does: accuracy, chance and the confusion matrix."""

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
    """What one head answered.

    Attributes:
        labels: the text of each row of the head's table.
        confusion: int64, shape (rows, rows): how many clips of each true row (down) got each answer (across).
        standard_error: of the accuracy, from its spread over the videos: clips of one video are no independent draws.
            With one video, as if they were.
        chance: the accuracy of the best answer that does not look at the clip.
    """

    labels: tuple[str, ...]
    confusion: Counts
    standard_error: float
    chance: float

    @property
    def accuracy(self) -> float:
        """The share of clips whose row was named, in [0, 1]."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
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
    """Count the answers of one head.

    Args:
        rows: its table.
        prior: how rows were drawn.
        truth: true row numbers, shape (N,).
        answers: named row numbers, shape (N,).
        videos: number of the video that each clip was cut from, 0 to M - 1 and each of them, shape (N,).
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
    """The share of clips that carry the most frequent row."""
    if prior == "class":
        return 1 / len(rows)
    families = Counter(type(row) for row in rows)
    return 1 / (len(families) * min(families.values()))
