"""Clips to vectors: which numbers of a network are taken, and what makes two vectors comparable."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from v3s.backbones.device import Compute
from v3s.data.views import View

Pool = Literal["mean", "max"]

_PREPROCESSING = 1  # a change of how frames are resized needs another number: vectors before and after must not mix

_POSITIONS_ON_CPU = 16 * 112 * 112
"""Frames x height x width of a forward pass on a CPU, one clip of the paper: larger passes leave the caches."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One kind of vector.

    Attributes:
        stage: the backbone's stage that it is taken from.
        pool: "mean" averages over time and space (D = channels); "max" max-pools time and space by two and flattens,
            the retrieval protocol's last pooling layer (512 x 2 x 3 x 3 = 9,216 numbers from 512 x 2 x 7 x 7).

    Source: paper section 4.4, "features at the last pooling layer"; VCOP pools conv5 by (1, 2, 2).
    """

    stage: str = "conv5"
    pool: Pool = "mean"

    def of(self, stages: dict[str, Tensor]) -> Tensor:
        """The vectors of a batch's stages: float32, shape (B, D)."""
        stage = stages[self.stage].float()
        if self.pool == "mean":
            return stage.mean(dim=(2, 3, 4))
        return F.max_pool3d(stage, (1, 2, 2), ceil_mode=min(stage.shape[-2:]) < 2).flatten(1)


def check_stage(backbone: nn.Module, stage: str) -> None:
    """Refuse a stage that a backbone does not have.

    Raises:
        ValueError: there is no such stage; the message lists those that exist.
    """
    stages = list(backbone.stages)  # type: ignore[arg-type]
    if stage not in stages:
        raise ValueError(f"the backbone has no stage {stage!r}; it has: {', '.join(stages)}")


@torch.inference_mode()
def clip_features(
    backbone: nn.Module, clips: Tensor, features: Sequence[Feature], compute: Compute, *, batch_size: int = 16
) -> list[Tensor]:
    """Vectors of clips.

    Args:
        backbone: in evaluation mode, on ``compute.device``.
        clips: uint8, shape (N, 3, T, H, W).
        features: the kinds of vector wanted.
        compute: device and precision.
        batch_size: clips in a forward pass, at most; fewer on a CPU.

    Returns:
        For each kind, float32 on the CPU, shape (N, D).
    """
    parts: list[list[Tensor]] = [[] for _ in features]
    if compute.device.type == "cpu" and len(clips):
        batch_size = min(batch_size, max(1, _POSITIONS_ON_CPU // clips[0, 0].numel()))
    for batch in torch.split(clips, batch_size):
        with compute.autocast():
            stages = backbone.forward_stages(compute.clips(batch))  # type: ignore[operator]
        for part, feature in zip(parts, features, strict=True):
            part.append(feature.of(stages).cpu())
    return [torch.cat(part) for part in parts]


def mean_features(found: Iterable[tuple[int, list[Tensor]]]) -> list[Tensor]:
    """One vector for each video, the mean over its clips: for each kind float32 of shape (videos, D)."""
    rows = [[vectors.mean(dim=0) for vectors in kinds] for _, kinds in found]
    return [torch.stack(column) for column in zip(*rows, strict=True)]


@dataclass(frozen=True, slots=True)
class Space:
    """What makes two vectors comparable: one network, one way to cut clips, one feature.

    Attributes:
        weights: SHA-256 of the network's weights.
        view: the clips of a video.
        feature: stage and pooling.
    """

    weights: str
    view: View
    feature: Feature

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the weights and the preprocessing."""
        return hashlib.sha256(
            json.dumps({"format": _PREPROCESSING, **asdict(self)}, sort_keys=True).encode()
        ).hexdigest()
