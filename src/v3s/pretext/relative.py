"""Relative speed: which of a video's clips shows this temporal label. An objective beyond the paper.

Videos move at speeds of their own, so a clip alone does not say whether a video is played fast or is fast. Among clips
of one video its own speed cancels. The head's own outputs are the scores, so nothing is added to the network.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def relative_loss(logits: Tensor, labels: Tensor, videos: Tensor) -> Tensor:
    """Cross entropy of finding, among the clips of a video, the one that shows a label.

    For each clip j, the scores of its label, one for each clip of its video, are turned into shares by a softmax over
    these clips; clips with the same label as clip j are not among them. The loss is the mean negative logarithm of clip
    j's own share. What is added to a label's scores of all clips of a video changes nothing.

    Args:
        logits: outputs of a head, shape (B, rows).
        labels: the right rows, int64, shape (B,).
        videos: number of each clip's video, int64, shape (B,).

    Returns:
        A scalar, 0 or more, the mean over the clips that are compared with another one; log K for equal scores of K
        clips; 0 if none is compared.

    Source: after Duan et al. 2022 (TransRank), with a softmax in place of a margin.
    """
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    compared = (videos[:, None] == videos) & (labels[:, None] != labels)
    least = torch.finfo(torch.float32).min  # not infinity, whose gradient is not a number
    scores = logits.float()[:, labels].masked_fill(~(compared | itself), least)  # (clip, label of clip j)
    counts = compared.any(dim=0)
    losses = F.cross_entropy(scores.T, torch.arange(len(labels), device=labels.device), reduction="none")
    return losses[counts].sum() / counts.sum().clamp(min=1)
