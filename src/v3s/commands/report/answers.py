"""What both heads answer to the validation clips, and which clips the backbone finds alike."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from v3s.pretext.model import Logits, PretextModel, pretext_terms
from v3s.train.distributed import Processes, gather

_BLOCK, _LEVELS = 8, 2 / 255  # a block of 8 x 8 pixels averages the noise of a codec away


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """The answers to validation clips, in the order of their numbers; those that could not be read are missing.

    Attributes:
        numbers: the number of each clip, shape (N,).
        truth: the rows that were drawn, spatial and temporal, shape (N, 2).
        answers: the rows that were predicted, shape (N, 2).
        still: whether a clip shows no motion, shape (N,).
    """

    numbers: NDArray[np.int64]
    truth: NDArray[np.int64]
    answers: NDArray[np.int64]
    still: NDArray[np.bool_]

    def by_head(self) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
        """Name, true rows and predicted rows of each head."""
        for head, name in enumerate(("spatial", "temporal")):
            yield name, self.truth[:, head], self.answers[:, head]


class Answers:
    """The objective of a validation pass, which also keeps what both heads answered; see `v3s.train.loop.Objective`."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._still: dict[int, bool] = {}  # by the number of the clip: every pass has the same clips

    def __call__(self, model: nn.Module, clips: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the terms of a batch; the third of its labels is the number of each clip."""
        assert isinstance(model, PretextModel)
        return self._keep(model(clips), clips, labels)

    def _keep(self, logits: Logits, clips: Tensor, labels: Tensor) -> dict[str, Tensor]:
        spatial, temporal = (head.argmax(dim=1) for head in (logits.spatial, logits.temporal))
        numbers = labels[:, 2]
        still = torch.zeros_like(numbers) if self._still else is_still(clips).long()
        self._rows.append(torch.stack([numbers, labels[:, 0], labels[:, 1], spatial, temporal, still], dim=1))
        return pretext_terms(logits, labels)

    def take(self, processes: Processes) -> Answered:
        """Return the answers of the newest pass of all processes, and forget them; every process must call it."""
        own = torch.cat(self._rows).tolist() if self._rows else []
        self._rows.clear()
        newest = {row[0]: row for rows in gather(own, processes) for row in rows}
        self._still = self._still or {number: bool(row[5]) for number, row in newest.items()}
        rows = np.array([newest[number] for number in sorted(newest)], np.int64).reshape(-1, 6)
        still = np.array([self._still.get(number, False) for number in sorted(newest)], bool)
        return Answered(rows[:, 0], rows[:, 1:3], rows[:, 3:5], still)


def is_still(clips: Tensor) -> Tensor:
    """Whether nothing moves in a clip: no block of 8 x 8 pixels changes its mean by two levels of 255.

    Args:
        clips: in [0, 1], shape (B, 3, T, H, W).

    Returns:
        bool, shape (B,).
    """
    side = min(_BLOCK, *clips.shape[-2:])
    blocks = F.avg_pool3d(clips.float(), (1, side, side))
    return (blocks.amax(dim=2) - blocks.amin(dim=2)).amax(dim=(1, 2, 3)) < _LEVELS


@dataclass(slots=True, eq=False)
class Gallery:
    """Clips of different videos as vectors of several networks.

    Attributes:
        numbers: the number of each clip.
        vectors: name of the network -> unit vectors of the clips, one after the other.
    """

    numbers: list[int] = field(default_factory=list)
    vectors: dict[str, list[Tensor]] = field(default_factory=dict)

    def nearest(self, network: str, query: int, groups: NDArray[np.int64], count: int) -> list[int]:
        """The positions of the clips most like one of them, of other groups.

        Args:
            network: its name.
            query: position of the clip.
            groups: the group of each clip, shape (N,).
            count: how many.
        """
        vectors = torch.stack(self.vectors[network])
        likeness = (vectors @ vectors[query]).numpy()
        order = np.argsort(-likeness, kind="stable")
        return [int(other) for other in order if groups[other] != groups[query]][:count]


class KeptAnswers(Answers):
    """The same for the weights that are kept, with the vectors of the first clip of some videos.

    Args:
        most: the number of videos.
        num_videos: number of all validation videos.
        others: name -> a network to compare with, in evaluation mode, on the device of the clips.
    """

    TRAINED = "the trained network"

    def __init__(self, most: int, num_videos: int, others: dict[str, nn.Module]) -> None:
        super().__init__()
        self._most, self._num_videos, self._others = most, num_videos, others
        self.gallery = Gallery(vectors={name: [] for name in (self.TRAINED, *others)})

    def __call__(self, model: nn.Module, clips: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the terms of a batch."""
        assert isinstance(model, PretextModel)
        features = model.backbone(clips)
        room = self._most - len(self.gallery.numbers)
        rows = (labels[:, 2] < self._num_videos).nonzero()[: max(room, 0), 0]
        if len(rows):
            self.gallery.numbers += labels[rows, 2].tolist()
            found = {self.TRAINED: features[rows]}
            found |= {name: network(clips[rows]) for name, network in self._others.items()}
            for name, vectors in found.items():
                self.gallery.vectors[name] += F.normalize(vectors.float(), dim=1).cpu().unbind()
        return self._keep(Logits(model.spatial_head(features), model.temporal_head(features)), clips, labels)
