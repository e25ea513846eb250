"""What to label next: one typical vector of each of many clusters, those without labels first.

This is TypiClust (Hacohen, Dekel and Weinshall, "Active learning on a budget", 2022) with the vector that is nearest to
a cluster's centre as the typical one. Greedy k-centre, which takes the vector that is farthest from all chosen ones,
takes outliers: with few labels a probe learned less from them than from as many drawn at random.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from v3s.explore.clusters import centres_of
from v3s.explore.kmeans import nearest_centres
from v3s.explore.matrix import Matrix, centred

MOST_TO_LABEL = 2000
"""How many vectors are chosen at most: one of each cluster."""


def choose_to_label(
    vectors: Matrix, number: int = 50, *, labelled: Sequence[int] | NDArray[np.int64] = (), seed: int = 0
) -> NDArray[np.int64]:
    """Choose vectors to label such that they, with those that are labelled, stand for the whole collection.

    The vectors are divided into as many clusters as there will be labels (2,000 at most), so that there are enough
    without a label. Clusters come in the order of the share of their vectors that are labelled, the smallest first, and
    then of their size, the largest first; of each the unlabelled vector nearest to its centre is chosen.

    Args:
        vectors: shape (N, D), unit length.
        number: how many to choose; more than 2,000 are not chosen.
        labelled: rows that are labelled already; they are not chosen.
        seed: see `v3s.explore.clusters.centres_of`.

    Returns:
        Row numbers in the order of choice, int64, shape (number,); fewer if there are fewer clusters with a free one.

    Raises:
        ValueError: the vectors are not finite, or a labelled row does not exist.
    """
    rows = np.unique(np.asarray(labelled, np.int64))
    if number < 0 or (len(rows) and not 0 <= rows[0] <= rows[-1] < len(vectors)):
        raise ValueError(
            f"asked for {number} of {len(vectors):,} vectors, with labelled rows up to {max(rows, default=0)}; a "
            "number is 0 or more, and rows are counted from 0"
        )
    is_labelled = np.zeros(len(vectors), bool)
    is_labelled[rows] = True
    if not number or is_labelled.all():
        return np.zeros(0, np.int64)
    shifted = centred(vectors)
    centres = centres_of(shifted, min(number + len(rows), MOST_TO_LABEL, len(vectors)), seed)
    cluster_of = nearest_centres(shifted, centres)[:, 0]
    distances = np.concatenate(
        [(block - centres[cluster_of[part]]).square().sum(dim=1).numpy() for part, block in shifted.blocks()]
    )
    free = np.flatnonzero(~is_labelled)
    nearest_first = free[np.lexsort((free, distances[free], cluster_of[free]))]
    names, places = np.unique(cluster_of[nearest_first], return_index=True)
    sizes = np.bincount(cluster_of)[names]
    shares = np.bincount(cluster_of, weights=is_labelled)[names] / sizes
    order = np.lexsort((names, -sizes, shares))[:number]
    chosen: NDArray[np.int64] = nearest_first[places[order]]
    return chosen
