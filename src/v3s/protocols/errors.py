"""Standard errors over groups of videos: takes of one scene are right or wrong together."""

from math import sqrt

import torch
from torch import Tensor


def standard_error(scores: Tensor, groups: Tensor) -> float:
    """Return the standard error of the mean of the videos' scores, with groups as independent samples.

    This is the cluster-robust error: sqrt(G / (G - 1) x sum over groups of (sum of a group's deviations)^2) / N. If
    each video is its own group, it is the ordinary standard error; if there is only one group, videos are taken as
    independent.

    Args:
        scores: score of each video, such as 1 if it is right and 0 if not, shape (N,). For a comparison of two networks
            on the same videos, the difference of their scores.
        groups: number of each video's group, int64, shape (N,).

    Returns:
        The error; 0 for a single video.
    """
    num_groups = len(torch.unique(groups))
    if num_groups == 1:
        groups, num_groups = torch.arange(len(scores)), len(scores)
    if num_groups == 1:
        return 0.0
    deviations = scores.double() - scores.double().mean()
    sums = torch.zeros(int(groups.max()) + 1, dtype=torch.float64).index_add_(0, groups, deviations)
    return sqrt(num_groups / (num_groups - 1) * float(sums.square().sum())) / len(scores)
