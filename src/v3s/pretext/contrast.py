"""Contrast: two clips of one video belong together, clips of other videos do not. An objective beyond the paper.

No warp shows which video a clip is from, so V3S does not ask for it. The paper names contrast as future research.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from v3s.options import require_not_negative
from v3s.pretext.model import pretext_objective, pretext_terms

TEMPERATURE = 0.1  # as in TCLR
PretextObjective = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class ObjectiveOptions:
    """What pre-training minimises: the paper's L_S + L_T, or more.

    More options:
        contrast: Weight of a contrast between videos: clips of one video belong together, those of the batch's other
            videos do not. It is added to the paper's loss and needs --clips-together 2 or more.

    For ablations:
        heads: Weight of the losses of both heads; 0 trains by contrast alone.
    """

    contrast: float = 0.0
    heads: float = 1.0

    def check_objective(self, clips_together: int) -> None:
        """Check the weights.

        Args:
            clips_together: clips of one video in a batch.

        Raises:
            ValueError: a weight is out of range, or the contrast has no two clips to compare.
        """
        require_not_negative(self, "contrast", "heads")
        if self.contrast > 0 and clips_together == 1:
            raise ValueError(f"contrast is {self.contrast:g}; it needs clips_together 2 or more")
        if self.heads != 1 and self.contrast == 0:
            raise ValueError(f"heads is {self.heads:g}; a weight other than 1 needs a contrast")

    def objective(self) -> PretextObjective:
        """Return the objective of training; without a contrast, that of the paper."""
        if self.contrast == 0:
            return pretext_objective
        return partial(contrast_objective, contrast=self.contrast, heads=self.heads)


def contrast_loss(
    vectors: Tensor, videos: Tensor, spans: Tensor | None = None, *, temperature: float = TEMPERATURE
) -> Tensor:
    """NT-Xent: cross entropy of finding a clip's own video among all other clips of the batch.

    Each clip is compared with all others by the cosine of their vectors over the temperature. The mean, over the other
    clips of its video, of the negative logarithm of their softmax is its loss; the result is the mean over all clips
    that have such others.

    With several processes, each compares the clips of its own share of the batch only: negatives are not gathered, so
    that the loss of a batch depends on the number of processes.

    Args:
        vectors: one for each clip, of any length but zero, shape (B, D).
        videos: number of each clip's video or span, int64, shape (B,).
        spans: file, start and end of each clip's span, int64, shape (B, 3). Spans of one file that overlap are not
            compared: their clips may show the same.
        temperature: divides the cosines.

    Returns:
        A scalar, 0 or more; about log(B - 1) for random vectors, 0 if no clip has a negative.

    Source: Chen et al. 2020 (SimCLR), with several positives as in Khosla et al. 2020 (outside of the logarithm).
    """
    with torch.autocast(vectors.device.type, enabled=False):  # bf16 would round cosines to 1/256
        vectors = F.normalize(vectors.float(), dim=1)
        similar = vectors @ vectors.T / temperature
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    own = videos[:, None] == videos
    positive = own & ~itself
    least = torch.finfo(similar.dtype).min  # not infinity: a clip that is alone in its batch has a gradient of 0
    left_out = itself if spans is None else itself | (_overlap(spans) & ~own)
    log_share = similar - similar.masked_fill(left_out, least).logsumexp(dim=1, keepdim=True)
    num_positive = positive.sum(dim=1)
    losses = -log_share.masked_fill(~positive, 0).sum(dim=1) / num_positive.clamp(min=1)
    return losses.sum() / (num_positive > 0).sum().clamp(min=1)


def _overlap(spans: Tensor) -> Tensor:
    """Whether two spans (file, start, end), (B, 3), are of one file and overlap: bool, shape (B, B)."""
    files, starts, ends = spans.unbind(dim=1)
    return (files[:, None] == files) & (starts[:, None] < ends) & (starts < ends[:, None])


def contrast_objective(
    model: nn.Module, clips: Tensor, targets: Tensor, *, contrast: float, heads: float = 1.0
) -> dict[str, Tensor]:
    """The terms of V3S and a contrast between videos: heads * (L_S + L_T) + contrast * C.

    Args:
        model: a `PretextModel` with a projector, in training mode.
        clips: shape (B, 3, T, H, W) with values in [0, 1].
        targets: int64, shape (B, 3): spatial row, temporal row, number of the video. With spans of recordings
            (B, 6): also the number of the file, start and end.
        contrast: weight of the contrast.
        heads: weight of the losses of both heads.
    """
    output = model(clips)
    terms = pretext_terms(output, targets)
    loss_contrast = contrast_loss(output.embedding, targets[:, 2], targets[:, 3:] if targets.shape[1] > 3 else None)
    loss = heads * terms["loss"] + contrast * loss_contrast
    return {**terms, "loss": loss, "loss_contrast": loss_contrast}
