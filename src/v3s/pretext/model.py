"""Two heads on a backbone, and the loss L = L_S + L_T (paper section 3.3)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from v3s.pretext.task import PretextTask


class Logits(NamedTuple):
    """What the two heads say of a batch: shapes (B, spatial rows) and (B, temporal rows)."""

    spatial: Tensor
    temporal: Tensor


class PretextModel(nn.Module):
    """A backbone with one fully connected layer for each head.

    Args:
        backbone: any module that fulfils `v3s.backbones.contract.Backbone`.
        task: the two label tables; a head has one output for each row.
        seed: of the heads' initial weights.
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
        """Clips of shape (B, 3, T, H, W), values in [0, 1], to the logits of both heads."""
        features = self.backbone(clips)
        return Logits(self.spatial_head(features), self.temporal_head(features))


def pretext_terms(logits: Logits, labels: Tensor) -> dict[str, Tensor]:
    """The loss and what is reported beside it, each a mean over the batch.

    Args:
        logits: of both heads.
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
    """L = L_S + L_T of a batch of clips, as the training loop calls it; see `pretext_terms`."""
    return pretext_terms(model(clips), labels)


def mean_accuracy(validation: dict[str, float]) -> float:
    """The mean of both heads' accuracies: the paper's "best validation accuracy"."""
    return (validation["accuracy_spatial"] + validation["accuracy_temporal"]) / 2
