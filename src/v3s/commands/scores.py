"""What the heads of the pretext task predict, and the scores of one: accuracy, chance level, confusion matrix."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v3s.backbones.device import Compute
from v3s.files.text import short_repr
from v3s.pretext.model import PretextModel
from v3s.pretext.plan import LabelPrior
from v3s.pretext.task import PretextTask
from v3s.protocols.errors import is_above, standard_error

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class HeadScores:
    """The scores of one head.

    Attributes:
        labels: the text of each row of the head's table.
        confusion: int64, shape (rows, rows): number of clips with each true row (down) and predicted row (across).
        standard_error: standard error of the accuracy over groups, since clips of one video or group are not
            independent; with a single group, they are treated as independent.
        num_groups: number of groups that the clips are from: groups of videos, or else videos.
        chance: the best accuracy that is expected without looking at the clip.
    """

    labels: tuple[str, ...]
    confusion: Counts
    standard_error: float
    num_groups: int
    chance: float
    __repr__ = short_repr

    @property
    def accuracy(self) -> float:
        """The share of clips whose row was predicted correctly, in [0, 1]."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def most_frequent_answer(self) -> float:
        """The share of clips that were given the most frequent answer, in [0, 1]."""
        return float(self.confusion.sum(axis=0).max() / self.confusion.sum())

    @property
    def best_single_answer(self) -> float:
        """The share of clips that the best constant answer gets right, in [0, 1]."""
        return float(self.confusion.sum(axis=1).max() / self.confusion.sum())

    @property
    def one_answer(self) -> str | None:
        """The text of the row that was the answer to every clip, if there is one and other rows were possible."""
        given = np.flatnonzero(self.confusion.sum(axis=0))
        return self.labels[int(given[0])] if len(given) == 1 < len(self.labels) else None

    @property
    def is_above_chance(self) -> bool:
        """Whether the accuracy is above chance, and above the best constant answer to these clips: significantly.

        The test is one-sided, at 1 %, over groups.
        """
        baseline, num_clips = max(self.chance, self.best_single_answer), int(self.confusion.sum())
        return is_above(
            self.accuracy, baseline, error=self.standard_error, num_scores=num_clips, num_groups=self.num_groups
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "accuracy": self.accuracy,
            "standard_error": self.standard_error,
            "num_groups": self.num_groups,
            "chance": self.chance,
            "most_frequent_answer": self.most_frequent_answer,
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
        }


@torch.no_grad()
def predict_labels(
    model: PretextModel, batches: Iterable[tuple[Tensor, Tensor]], compute: Compute
) -> tuple[Counts, Counts]:
    """Return the labels that both heads predict for clips, int64 of shape (clips, 2), and the true labels.

    Args:
        model: the network with its heads.
        batches: clips, uint8 of shape (B, 3, T, size, size), and their labels, first the spatial and the temporal one.
        compute: device and precision.
    """
    compute.network(model)
    predictions, truth = [], []
    for clips, labels in batches:
        with compute.autocast():
            logits = model(compute.clips(clips))
        predictions.append(torch.stack([head.argmax(dim=1).cpu() for head in logits], dim=1))
        truth.append(labels[:, :2])
    return torch.cat(predictions).numpy(), torch.cat(truth).numpy()


def score_head(
    rows: tuple[object, ...], prior: LabelPrior, truth: Counts, answers: Counts, groups: Counts
) -> HeadScores:
    """Score the predictions of one head.

    Args:
        rows: the table of the head.
        prior: how rows were drawn.
        truth: true row numbers, shape (N,).
        answers: predicted row numbers, shape (N,).
        groups: the number of each clip's group, or else of its video, from 0, shape (N,).
    """
    confusion = np.zeros((len(rows), len(rows)), np.int64)
    np.add.at(confusion, (truth, answers), 1)
    hits = truth == answers
    error = standard_error(torch.from_numpy(hits), torch.from_numpy(groups))
    return HeadScores(tuple(map(str, rows)), confusion, error, len(np.unique(groups)), chance(rows, prior))


def score_heads(
    task: PretextTask, prior: LabelPrior, truth: Counts, answers: Counts, groups: Counts
) -> tuple[HeadScores, HeadScores]:
    """Score the predictions of the spatial and of the temporal head, as `score_head`: rows of shape (N, 2)."""
    spatial, temporal = (
        score_head(rows, prior, truth[:, head], answers[:, head], groups)
        for head, rows in enumerate((task.spatial, task.temporal))
    )
    return spatial, temporal


def one_answer_sentence(name: str, head: HeadScores) -> str:
    """Say that a head gives one answer to every clip."""
    return f"{name} head: answers {head.one_answer!r} to everything, so its accuracy says nothing"


def chance(rows: tuple[object, ...], prior: LabelPrior) -> float:
    """The share of clips that have the most frequent row."""
    if prior == "class":
        return 1 / len(rows)
    families = Counter(type(row) for row in rows)
    return 1 / (len(families) * min(families.values()))
