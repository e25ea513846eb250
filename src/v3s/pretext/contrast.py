"""Contrast: two clips of one video belong together, clips of other videos do not. An objective beyond the paper.

No warp shows which video a clip is from, so V3S does not ask for it. The paper names contrast as future research.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.1  # as in TCLR


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
        A scalar, 0 or more; about log(B - 1) for random vectors, 0 if no clip has a positive, or each that
        does has only one and no negative.

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
