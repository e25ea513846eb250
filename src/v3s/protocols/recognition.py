"""Action recognition: a backbone with one linear head, its training clips, and its results (section 4.3)."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from v3s.data.clips import SampleKey
from v3s.data.index_table import IndexTable
from v3s.data.views import View, evenly_spaced
from v3s.files.text import short_repr
from v3s.protocols.classify import confusion_counts, per_class_accuracy, top_5_accuracy, top_k
from v3s.protocols.errors import standard_error
from v3s.protocols.labelled.parts import UNKNOWN
from v3s.recognizers.calibration import Calibration
from v3s.video.decode import read_frames
from v3s.video.warp import warp

_CUT = 4  # keeps this random stream separate from those of data.clips


class RecognitionModel(nn.Module):
    """A backbone and one fully connected layer, without dropout.

    Args:
        backbone: any module that implements `v3s.backbones.contract.Backbone`.
        num_classes: outputs of the layer.
        seed: seed of the layer's initial weights.

    Source: paper section 4.3, "initialize the fully connected layer randomly".
    """

    def __init__(self, backbone: nn.Module, num_classes: int, *, seed: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.classifier = nn.Linear(int(backbone.num_features), num_classes)  # type: ignore[arg-type]

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips (B, 3, T, H, W) in [0, 1] to logits (B, classes)."""
        logits: Tensor = self.classifier(self.backbone(clips))
        return logits


def recognition_objective(model: nn.Module, clips: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the cross entropy and the accuracy of a batch, for the training loop."""
    logits = model(clips).float()
    return {"loss": F.cross_entropy(logits, labels), "accuracy": (logits.argmax(dim=1) == labels).float().mean()}


@dataclass(frozen=True, slots=True)
class Cut:
    """The random parameters of one clip.

    Attributes:
        start: first frame.
        left: position of the crop from left (0) to right (1).
        top: position of the crop from top (0) to bottom (1).
        flip: whether the clip is mirrored.
    """

    start: int
    left: float = 0.5
    top: float = 0.5
    flip: bool = False


def draw_cut(room: int, *, seed: int, epoch: int, index: int, flip: bool) -> Cut:
    """Draw start and crop of a training clip; depends only on the seed, the epoch and the sample's index.

    Args:
        room: the last possible first frame.
        seed: seed of the run.
        epoch: number of the epoch, from 0.
        index: index of the sample.
        flip: mirror half of the clips.
    """
    generator = np.random.default_rng((seed, epoch, index, _CUT))
    start = int(generator.integers(room + 1))
    left, top, side = generator.random(3).tolist()
    return Cut(start, left, top, flip and side < 0.5)


class LabelledClips(Dataset[tuple[Tensor, Tensor]]):
    """One clip of each video with its label, indexed by (epoch, index).

    Args:
        table: the videos.
        labels: their classes, int64, shape (len(table),).
        view: length and size of the clips; a shorter video repeats its last frame.
        seed: seed of random starts and crops; None cuts the centre of every video in every epoch.
        flip: mirror half of the random clips.
    """

    def __init__(
        self, table: IndexTable, labels: Tensor, view: View, *, seed: int | None = None, flip: bool = False
    ) -> None:
        self.table, self.labels, self.view, self.seed, self.flip = table, labels, view, seed, flip

    def __len__(self) -> int:
        return len(self.table)

    def path(self, key: SampleKey) -> str:
        """Return the file of a sample."""
        return self.table[key[1]].path

    def describe(self, key: SampleKey) -> dict[str, Any]:
        """Return all parameters drawn for a sample, as plain values."""
        number = key[1]
        cut = asdict(self.cut(*key))
        return {"index": number, "video": self.table[number].path, **cut, "labels": [int(self.labels[number])]}

    def cut(self, epoch: int, index: int) -> Cut:
        """Return the parameters of a sample."""
        room = max(0, int(self.table.num_frames[index]) - self.view.clip_frames)
        if self.seed is None:
            return Cut(evenly_spaced(room, 1)[0])
        return draw_cut(room, seed=self.seed, epoch=epoch, index=index, flip=self.flip)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, Tensor]:
        """Return the clip, uint8 of shape (3, T, size, size), and its label, int64 of shape ()."""
        source, cut = self.table[key[1]], self.cut(*key)
        frames, size = self.view.frames(cut.start, source.num_frames), self.view.clip_size
        to_clip = self.view.to_clip(source.width, source.height, left=cut.left, top=cut.top, flip=cut.flip)
        return warp(read_frames(source, frames), to_clip, size, size), self.labels[key[1]]


@dataclass(frozen=True, slots=True, eq=False)
class RecognitionScores:
    """A recognizer's predictions on the test videos.

    Attributes:
        classes: names of the classes, (C,).
        labels: the true classes, int64, shape (M,); `UNKNOWN` counts as wrong.
        probabilities: predicted probability of each class, float32, shape (M, C).
        groups: number of each video's group, int64, shape (M,).
    """

    classes: tuple[str, ...]
    labels: Tensor
    probabilities: Tensor
    groups: Tensor
    __repr__ = short_repr

    @property
    def hits(self) -> Tensor:
        """For each video 1 if its class is predicted, else 0; float64, shape (M,)."""
        return top_k(self.probabilities, self.labels, 1)

    @property
    def top_1(self) -> float:
        """The share of videos whose class is predicted, in [0, 1]."""
        return float(self.hits.mean())

    @property
    def top_5(self) -> float | None:
        """The share of videos whose class is among the five most probable ones; None of five classes or fewer."""
        return top_5_accuracy(self.probabilities, self.labels)

    @property
    def standard_error(self) -> float:
        """The standard error of top-1 over groups of videos."""
        return standard_error(self.hits, self.groups)

    @property
    def confusion(self) -> Tensor:
        """Counts of (true class, predicted class), int64, shape (C, C), without the videos of unknown class."""
        known = self.labels != UNKNOWN
        return confusion_counts(self.labels[known], self.probabilities[known].argmax(dim=1), len(self.classes))

    @property
    def per_class(self) -> dict[str, float | None]:
        """Top-1 accuracy of each class; None for a class without test videos."""
        shares = per_class_accuracy(self.confusion).tolist()
        return {name: None if share != share else share for name, share in zip(self.classes, shares, strict=True)}


@dataclass(frozen=True, slots=True, eq=False)
class RecognitionResult:
    """The result of a fine-tuning run.

    Attributes:
        run: folder of the run.
        best_epoch: the epoch (from 1) whose weights were kept.
        validation: mean validation loss and accuracy in that epoch.
        scores: predictions on the test videos.
        chance: top-1 accuracy of a uniform guess.
        majority: test accuracy of always predicting the most frequent training class.
        calibration: of the probabilities, on the validation videos.
    """

    run: Path
    best_epoch: int
    validation: dict[str, float]
    scores: RecognitionScores
    chance: float
    majority: float
    calibration: Calibration
