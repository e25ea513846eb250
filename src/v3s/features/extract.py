"""Clips to vectors: which features of a network are used, and what makes two vectors comparable."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from v3s.backbones import Backbone
from v3s.backbones.device import Compute
from v3s.data.views import View

Pool = Literal["mean", "max"]

_PREPROCESSING = 1  # increase it if frames are resized differently: vectors from before and after cannot be mixed

_POSITIONS_ON_CPU = 16 * 112 * 112
"""Frames x height x width of a forward pass on a CPU, one clip of the paper; larger passes exceed the caches."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A stage of a backbone, pooled to a vector.

    Attributes:
        stage: name of the stage.
        pool: "mean" averages over time and space (D = channels); "max" max-pools height and width by two and flattens,
            the retrieval protocol's last pooling layer (512 x 2 x 3 x 3 = 9,216 numbers from 512 x 2 x 7 x 7).

    Source: paper section 4.4, "features at the last pooling layer"; VCOP pools conv5 by (1, 2, 2).
    """

    stage: str = "conv5"
    pool: Pool = "mean"

    def extract(self, stages: dict[str, Tensor]) -> Tensor:
        """Return the vectors of a batch from its stages: float32, shape (B, D)."""
        stage = stages[self.stage].float()
        if self.pool == "mean":
            return stage.mean(dim=(2, 3, 4))
        return F.max_pool3d(stage, (1, 2, 2), ceil_mode=min(stage.shape[-2:]) < 2).flatten(1)


def check_stage(backbone: nn.Module | Backbone, stage: str) -> None:
    """Refuse a stage that a backbone does not have.

    Raises:
        ValueError: the stage does not exist; the message lists those that do.
    """
    stages = list(backbone.stages)  # type: ignore[arg-type]
    if stage not in stages:
        raise ValueError(f"the backbone has no stage {stage!r}; it has: {', '.join(stages)}")


@torch.inference_mode()
def clip_features(
    backbone: nn.Module, clips: Tensor, features: Sequence[Feature], compute: Compute, *, batch_size: int = 16
) -> list[Tensor]:
    """Compute the features of clips.

    Args:
        backbone: in evaluation mode, on ``compute.device``.
        clips: uint8, shape (N, 3, T, H, W).
        features: the features to compute.
        compute: device and precision.
        batch_size: maximum clips in a forward pass; fewer on a CPU.

    Returns:
        For each feature, float32 on the CPU, shape (N, D).
    """
    parts: list[list[Tensor]] = [[] for _ in features]
    if compute.device.type == "cpu" and len(clips):
        batch_size = min(batch_size, max(1, _POSITIONS_ON_CPU // clips[0, 0].numel()))
    for batch in torch.split(clips, batch_size):
        with compute.autocast():
            stages = backbone.forward_stages(compute.clips(batch))  # type: ignore[operator]
        for part, feature in zip(parts, features, strict=True):
            part.append(feature.extract(stages).cpu())
    return [torch.cat(part) for part in parts]


def mean_features(encoded: Iterable[tuple[int, list[Tensor]]]) -> list[Tensor]:
    """Average over the clips of each video: for each feature float32 of shape (videos, D)."""
    rows = [[vectors.mean(dim=0) for vectors in features] for _, features in encoded]
    return [torch.stack(column) for column in zip(*rows, strict=True)]


@dataclass(frozen=True, slots=True)
class Space:
    """What makes two vectors comparable: one network, one way to cut clips, one feature.

    Attributes:
        weights: SHA-256 of the network's weights.
        view: the clips that represent a video.
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
