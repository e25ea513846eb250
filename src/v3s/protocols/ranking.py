"""Ranking by cosine similarity, and its metrics: top-k accuracy and mean average precision."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from v3s.vectors.exact import Neighbours, nearest

PAPER_KS = (1, 5, 10, 20, 50)
"""The columns of the paper's Tables 4 and 5."""


def rank(queries: Tensor, gallery: Tensor, k: int, *, centre: bool = False) -> Neighbours:
    """Rank the gallery by cosine similarity for each query; in a tie the lower gallery row comes first.

    The search is exact. A zero vector has similarity 0 with all vectors.

    Args:
        queries: features, shape (Q, D).
        gallery: features, shape (G, D).
        k: number of neighbours, 1 to G.
        centre: first subtract the gallery's mean from all features, which removes what all videos have in common.

    Raises:
        ValueError: the shapes do not match, ``k`` is out of range, or a feature is not finite.

    Source: paper section 4.4.
    """
    queries, gallery = queries.float(), gallery.float()
    if centre:
        mean = gallery.mean(dim=0)
        queries, gallery = queries - mean, gallery - mean
    return nearest(F.normalize(queries, dim=-1), F.normalize(gallery, dim=-1), k)


def top_k_accuracy(
    query_labels: Tensor, gallery_labels: Tensor, neighbours: Tensor, ks: Sequence[int] = PAPER_KS
) -> dict[int, float]:
    """Return the share of queries with at least one neighbour of their own class among the first k; all queries count.

    Args:
        query_labels: integers, shape (Q,).
        gallery_labels: integers, shape (G,).
        neighbours: gallery rows, best first, int64, shape (Q, K).
        ks: values of k. A k above K is allowed only if the whole gallery is ranked (K = G).

    Returns:
        k -> accuracy in [0, 1].

    Raises:
        ValueError: the shapes do not match, or a k exceeds the number of ranked neighbours.

    Source: paper section 4.4, "a correct retrieval is counted"; Tables 4 and 5.
    """
    hits = _matches(query_labels, gallery_labels, neighbours)
    num_ranked = hits.shape[1]
    if min(ks) < 1 or (max(ks) > num_ranked and num_ranked < len(gallery_labels)):
        raise ValueError(
            f"got ks = {tuple(ks)}; each must be from 1 to {num_ranked}, "
            f"since {num_ranked} of {len(gallery_labels)} gallery rows are ranked"
        )
    return {k: hits[:, :k].any(dim=1).double().mean().item() for k in ks}


def mean_average_precision(query_labels: Tensor, gallery_labels: Tensor, neighbours: Tensor) -> float:
    """Return the mean over all queries of the average precision of the full ranking.

    The average precision of a query is the mean of precision@r over the ranks r of its class; 0 if its class is not in
    the gallery.

    Args:
        query_labels: integers, shape (Q,).
        gallery_labels: integers, shape (G,).
        neighbours: the whole gallery ranked, best first, int64, shape (Q, G).

    Raises:
        ValueError: the shapes do not match, or only a part of the gallery is ranked.
    """
    hits = _matches(query_labels, gallery_labels, neighbours)
    if hits.shape[1] != len(gallery_labels):
        raise ValueError(
            f"{hits.shape[1]} of {len(gallery_labels)} gallery rows are ranked; mean average precision needs all"
        )
    precision = hits.cumsum(dim=1).double() / torch.arange(1, hits.shape[1] + 1, device=hits.device)
    average = (precision * hits).sum(dim=1) / hits.sum(dim=1).clamp(min=1)
    return average.mean().item()


def _matches(query_labels: Tensor, gallery_labels: Tensor, neighbours: Tensor) -> Tensor:
    """Return which neighbours have the query's class: bool, shape (Q, K)."""
    if neighbours.ndim != 2 or len(neighbours) != len(query_labels) or not len(query_labels):
        got = f"{len(query_labels)} query labels and neighbours {tuple(neighbours.shape)}"
        raise ValueError(f"got {got}; expected at least one query, and one row of neighbours per query")
    if int(neighbours.max()) >= len(gallery_labels):
        raise ValueError(
            f"got {len(gallery_labels)} gallery labels and neighbour number {int(neighbours.max())}; "
            "expected one label per gallery row"
        )
    return gallery_labels[neighbours] == query_labels[:, None]
