"""Two heads on a backbone, and the loss L = L_S + L_T (paper section 3.3)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from v3s.pretext.task import PretextTask


class Logits(NamedTuple):
    """The outputs of both heads for a batch, of shapes (B, spatial rows) and (B, temporal rows)."""

    spatial: Tensor
    temporal: Tensor


class PretextModel(nn.Module):
    """A backbone with one fully connected layer per head.

    Args:
        backbone: any module that satisfies `v3s.backbones.contract.Backbone`.
        task: the two label tables; each head has one output per row.
        seed: seed of the initial weights of the heads.
    """

    def __init__(self, backbone: nn.Module, task: PretextTask, *, seed: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        num_features = int(backbone.num_features)  # type: ignore[arg-type]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.spatial_head = nn.Linear(num_features, len(task.spatial))
            self.temporal_head = nn.Linear(num_features, len(task.temporal))

    def forward(self, clips: Tensor) -> Logits:
        """Map clips of shape (B, 3, T, H, W) with values in [0, 1] to the logits of both heads."""
        features = self.backbone(clips)
        return Logits(self.spatial_head(features), self.temporal_head(features))


def pretext_terms(logits: Logits, labels: Tensor) -> dict[str, Tensor]:
    """Compute the loss and the other reported terms, each a mean over the batch.

    Args:
        logits: outputs of both heads.
        labels: int64, shape (B, 2): spatial row, temporal row.

    Source: paper section 3.3, L = L_S + L_T.
    """
    spatial, temporal = labels.unbind(dim=1)
    loss_spatial = F.cross_entropy(logits.spatial.float(), spatial)
    loss_temporal = F.cross_entropy(logits.temporal.float(), temporal)
    return {
        "loss": loss_spatial + loss_temporal,
        "loss_spatial": loss_spatial,
        "loss_temporal": loss_temporal,
        "accuracy_spatial": (logits.spatial.argmax(dim=1) == spatial).float().mean(),
        "accuracy_temporal": (logits.temporal.argmax(dim=1) == temporal).float().mean(),
    }


def pretext_objective(model: nn.Module, clips: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The objective of the training loop, L = L_S + L_T of a batch of clips; see `pretext_terms`."""
    return pretext_terms(model(clips), labels)


def mean_accuracy(validation: dict[str, float]) -> float:
    """The mean accuracy of both heads, for the "best validation accuracy" of the paper."""
    return (validation["accuracy_spatial"] + validation["accuracy_temporal"]) / 2
