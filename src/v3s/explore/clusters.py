"""Clusters of a collection: k-means, or HDBSCAN, which finds their number and leaves some vectors in none."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v3s.explore.kmeans import fit_centres, nearest_centres, sample_rows
from v3s.explore.matrix import Centred, Matrix, centred, square_distances
from v3s.explore.projection import project
from v3s.options import import_extra

MOST_CLUSTERS = 30  # that are chosen if no number is given: as many can be looked at
MOST_SAMPLED = 20_000
"""Vectors that centres, or HDBSCAN's clusters, are found from; the others join the cluster of the nearest centre, or of
the nearest sampled vector."""

_ROWS_AT_ONCE = 8192
_RESTARTS, _STEPS = 3, 50
_DIMENSIONS = 20  # that HDBSCAN works in: density means little in hundreds
_SMALLEST_SHARE, _SMALLEST = 200, 5  # HDBSCAN's clusters have N / 200 vectors at least, and no fewer than 5


def clusters_of(vectors: Matrix, number: int | None = None, *, seed: int = 0) -> NDArray[np.int64]:
    """Divide vectors into clusters of similar ones.

    Of more than 20,000 vectors, 20,000 drawn at random are clustered; the others join the nearest cluster.

    Args:
        vectors: shape (N, D), unit length.
        number: how many clusters, by k-means; None takes sqrt(N / 2), at most 30. 0 lets HDBSCAN find the number
            (extra ``explore``).
        seed: of the sample and of the first centres, see `centres_of`.

    Returns:
        The cluster of each vector, from 0, the largest first: int64, shape (N,). There are fewer than ``number`` if
        fewer vectors differ. -1 is in no cluster, which only HDBSCAN gives.

    Raises:
        ValueError: the number is negative, the vectors are not finite, or scikit-learn is not installed.
    """
    if number is not None and number < 0:
        raise ValueError(f"the number of clusters is {number}; it must be 1 or more, or 0 for HDBSCAN")
    shifted = centred(vectors)
    if number == 0:
        return _by_size(_by_density(shifted, np.random.default_rng(seed)))
    number = number or min(MOST_CLUSTERS, max(1, round(math.sqrt(len(vectors) / 2))))
    return _by_size(nearest_centres(shifted, centres_of(shifted, number, seed))[:, 0])


def centres_of(vectors: Centred, number: int, seed: int) -> Tensor:
    """The centres of clusters by k-means: float32, shape (number, D), fewer if fewer vectors differ.

    Args:
        vectors: shape (N, D), finite.
        number: how many centres, at least 1.
        seed: of the sample and of the first centres; of three attempts that with the smallest distances counts.
    """
    attempts = (
        fit_centres(vectors, number, np.random.default_rng((seed, attempt)), most_rows=MOST_SAMPLED, steps=_STEPS)
        for attempt in range(_RESTARTS)
    )
    return min(attempts, key=lambda attempt: attempt[1])[0]


def typical_members(vectors: Matrix, clusters: NDArray[np.int64], number: int) -> list[NDArray[np.int64]]:
    """Some members of each cluster, from the one nearest to its mean on outwards, in equal steps.

    Args:
        vectors: shape (N, D), finite.
        clusters: the cluster of each, -1 for none, shape (N,).
        number: how many of each cluster; all of a smaller one.

    Returns:
        Row numbers by cluster.
    """
    shifted, members = centred(vectors), []
    for cluster in range(int(clusters.max()) + 1):
        rows = np.flatnonzero(clusters == cluster)
        parts = [shifted.rows(part) for part in np.array_split(rows, -(-len(rows) // _ROWS_AT_ONCE))]
        mean = torch.stack([part.sum(dim=0) for part in parts]).sum(dim=0) / len(rows)
        distances = torch.cat([square_distances(part, mean[None])[:, 0] for part in parts])
        ordered = rows[np.argsort(distances.numpy(), kind="stable")]
        steps = np.arange(min(number, len(rows))) * len(rows) // min(number, len(rows))
        members.append(ordered[steps])
    return members


def _by_density(vectors: Centred, generator: np.random.Generator) -> NDArray[np.int64]:
    """Clusters by HDBSCAN in the principal plane of some dimensions; -1 is in none."""
    library = import_extra("sklearn.cluster", "explore", "HDBSCAN")
    rows = sample_rows(len(vectors), MOST_SAMPLED, generator)
    smallest = max(_SMALLEST, len(rows) // _SMALLEST_SHARE)
    if len(rows) <= smallest:
        return np.zeros(len(vectors), np.int64)
    points = project(vectors, min(_DIMENSIONS, len(vectors.mean)))
    labels: NDArray[np.int64] = (
        library.HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(points[rows]).astype(np.int64)
    )
    if len(rows) < len(vectors):
        labels = labels[nearest_centres(among := centred(points), among.rows(rows))[:, 0]]
    return labels


def _by_size(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number clusters from the largest to the smallest; of equal ones that of the first vector comes first."""
    names, firsts, counts = np.unique(labels[labels >= 0], return_index=True, return_counts=True)
    order = np.lexsort((firsts, -counts))
    numbers = np.full(int(labels.max(initial=-1)) + 2, -1, np.int64)  # the last is that of label -1
    numbers[names[order]] = np.arange(len(order))
    return numbers[labels]
