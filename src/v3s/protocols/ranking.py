"""How good a ranking of neighbours is: top-k accuracy and mean average precision."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from v3s.vectors.exact import Neighbours, nearest

PAPER_KS = (1, 5, 10, 20, 50)
"""The columns of the paper's Tables 4 and 5."""


def rank(queries: Tensor, gallery: Tensor, k: int, *, centre: bool = False) -> Neighbours:
    """Rank the gallery by cosine similarity for each query; between equal scores the lower gallery row comes first.

    The comparison is exact. A vector of length 0 has similarity 0 with everything.

    Args:
        queries: features, shape (Q, D).
        gallery: features, shape (G, D).
        k: number of neighbours, 1 to G.
        centre: subtract the gallery's mean from both sides first, which takes away what all videos share.

    Raises:
        ValueError: the shapes do not fit, ``k`` is out of range, or a feature is not finite.

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
    """The share of queries with at least one neighbour of their own class among the first k; all queries count.

    Args:
        query_labels: integers, shape (Q,).
        gallery_labels: integers, shape (G,).
        neighbours: gallery rows, best first, int64, shape (Q, K).
        ks: values of k. A k above K is allowed only where the whole gallery is ranked (K = G): its top k is all of it.

    Returns:
        k -> accuracy in [0, 1].

    Raises:
        ValueError: the shapes do not fit, or some k asks for more neighbours than were ranked.

    Source: paper section 4.4, "a correct retrieval is counted"; Tables 4 and 5.
    """
    hits = _matches(query_labels, gallery_labels, neighbours)
    num_ranked = hits.shape[1]
    if min(ks) < 1 or (max(ks) > num_ranked and num_ranked < len(gallery_labels)):
        raise ValueError(f"ks = {tuple(ks)} given; {num_ranked} of {len(gallery_labels)} gallery rows were ranked")
    return {k: hits[:, :k].any(dim=1).double().mean().item() for k in ks}


def mean_average_precision(query_labels: Tensor, gallery_labels: Tensor, neighbours: Tensor) -> float:
    """The mean over all queries of the average precision of the full ranking.

    The average precision of a query is the mean of precision@r over the ranks r that hold its class; 0 for a query
    whose class the gallery does not have.

    Args:
        query_labels: integers, shape (Q,).
        gallery_labels: integers, shape (G,).
        neighbours: the whole gallery ranked, best first, int64, shape (Q, G).

    Raises:
        ValueError: the shapes do not fit, or a part of the gallery is not ranked.
    """
    hits = _matches(query_labels, gallery_labels, neighbours)
    if hits.shape[1] != len(gallery_labels):
        raise ValueError(f"{hits.shape[1]} of {len(gallery_labels)} gallery rows were ranked; mean AP needs all")
    precision = hits.cumsum(dim=1).double() / torch.arange(1, hits.shape[1] + 1, device=hits.device)
    average = (precision * hits).sum(dim=1) / hits.sum(dim=1).clamp(min=1)
    return average.mean().item()


def _matches(query_labels: Tensor, gallery_labels: Tensor, neighbours: Tensor) -> Tensor:
    """Which neighbours have the query's class: bool, shape (Q, K)."""
    if neighbours.ndim != 2 or len(neighbours) != len(query_labels) or not len(query_labels):
        given = f"{len(query_labels)} query labels and neighbours {tuple(neighbours.shape)}"
        raise ValueError(f"{given} given; at least one query and one row of neighbours for each are needed")
    if int(neighbours.max()) >= len(gallery_labels):
        raise ValueError(f"neighbour {int(neighbours.max())} has no label: {len(gallery_labels)} gallery labels given")
    return gallery_labels[neighbours] == query_labels[:, None]
