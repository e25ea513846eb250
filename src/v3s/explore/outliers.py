"""Outliers: vectors that are far from their nearest neighbours."""

import numpy as np
from numpy.typing import NDArray

from v3s.explore.matrix import Matrix, centred
from v3s.explore.neighbours import nearest_others


def outlier_scores(vectors: Matrix, neighbours: int = 10, *, seed: int = 0) -> NDArray[np.float32]:
    """How far each vector is from its nearest neighbours.

    Args:
        vectors: shape (N, D), unit length.
        neighbours: how many count; all others where there are fewer. Strange videos that resemble each other are
            outliers, too, if there are fewer of them.
        seed: see `v3s.explore.neighbours`; more than 4,096 vectors are compared with those of the nearest cells.

    Returns:
        The mean relative distance to them: 0 for a copy of all of its neighbours, 1 if they are as far away as any two
        vectors of the collection. Float32, shape (N,); 0 for a single vector.

    Raises:
        ValueError: the vectors are not finite, or ``neighbours`` is not positive.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours is {neighbours}; it must be more than 0")
    shifted = centred(vectors)
    if len(vectors) == 1:
        return np.zeros(1, np.float32)
    _, distances = nearest_others(shifted, min(neighbours, len(vectors) - 1), seed=seed)
    found = np.isfinite(distances)
    means = np.where(found, distances, 0).sum(axis=1, dtype=np.float64) / np.maximum(found.sum(axis=1), 1)
    scores: NDArray[np.float32] = (means / shifted.unit).astype(np.float32)
    return scores
