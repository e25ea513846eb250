"""All that is found out about a collection: what the page and the tables show."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from v3s.explore.clusters import clusters_of
from v3s.explore.duplicates import Duplicate, duplicates_among, least_similarity_of
from v3s.explore.matrix import Matrix, centred
from v3s.explore.outliers import outlier_scores
from v3s.explore.projection import map_of
from v3s.explore.spans import SpanTable
from v3s.explore.to_label import choose_to_label
from v3s.files.text import short_repr


@dataclass(frozen=True, slots=True, eq=False)
class Exploration:
    """What a collection looks like.

    Attributes:
        table: where its rows come from.
        points: the place of each row on the map, float32 (N, 2), in [0, 1].
        clusters: the cluster of each row, from 0, -1 for none, int64 (N,).
        outliers: how far each row is from its neighbours, float32 (N,); see `v3s.explore.outliers`.
        duplicates: the near-duplicates, the longest first.
        least_similarity: of near-duplicates, from 0, an average pair, to 1, a copy.
        to_label: rows to label next, in this order, int64.
    """

    table: SpanTable
    points: NDArray[np.float32]
    clusters: NDArray[np.int64]
    outliers: NDArray[np.float32]
    duplicates: tuple[Duplicate, ...]
    least_similarity: float
    to_label: NDArray[np.int64]
    __repr__ = short_repr


def examine(
    vectors: Matrix,
    table: SpanTable,
    *,
    method: Literal["pca", "tsne"],
    num_clusters: int | None,
    num_to_label: int,
    least_similarity: float | None,
    seed: int,
) -> Exploration:
    """Compute all of it.

    Args:
        vectors: shape (N, D), unit length.
        table: where each of them comes from.
        method: of the map, see `map_of`.
        num_clusters: see `clusters_of`.
        num_to_label: see `choose_to_label`.
        least_similarity: of near-duplicates, see `duplicates_among`.
        seed: of all of them.

    Raises:
        ValueError: the vectors are not finite, there are too many for the map, or an extra is not installed.
    """
    shifted = centred(vectors)
    least = least_similarity_of(shifted, table, seed=seed) if least_similarity is None else least_similarity
    return Exploration(
        table,
        map_of(vectors, method=method, seed=seed),
        clusters_of(vectors, num_clusters, seed=seed),
        outlier_scores(vectors, seed=seed),
        duplicates_among(shifted, table, least=least, seed=seed),
        least,
        choose_to_label(vectors, num_to_label, seed=seed),
    )
