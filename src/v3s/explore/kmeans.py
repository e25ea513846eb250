"""k-means: centres by k-means++ and Lloyd's steps on a sample of the vectors, then the nearest centres of all."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v3s.explore.matrix import BLOCK_ROWS, Matrix, blocks_of, rows_of, square_distances

_ROUNDING = 1e-6  # of squared distances of unit vectors


def sample_rows(num_rows: int, most: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw at most so many of the rows without repetition: ascending."""
    if num_rows <= most:
        return np.arange(num_rows)
    return np.sort(generator.choice(num_rows, most, replace=False)).astype(np.int64)


def fit_centres(
    vectors: Matrix, number: int, generator: np.random.Generator, *, most_rows: int, steps: int
) -> tuple[Tensor, float]:
    """Find centres such that the squared distances of vectors to their nearest centre are small.

    Args:
        vectors: shape (N, D).
        number: how many centres, at least 1; there are fewer if fewer vectors differ.
        generator: draws the sample and the first centres (k-means++: each with a chance in proportion to its squared
            distance from those before it).
        most_rows: as many vectors are drawn at most, and only these are used.
        steps: Lloyd's steps at most; they end when no centre moves.

    Returns:
        The centres, float32 (number, D), and the mean squared distance of the sample to them.
    """
    rows = rows_of(vectors, sample_rows(len(vectors), most_rows, generator))
    centres = _first_centres(rows, number, generator)
    error = np.inf
    for _ in range(steps):
        distances, nearest = _nearest(rows, centres)
        if (now := float(distances.double().mean())) >= error:
            break
        error = now
        counts = torch.bincount(nearest, minlength=len(centres))
        sums = torch.zeros(centres.shape, dtype=torch.float64).index_add_(0, nearest, rows.double())
        centres = (sums[counts > 0] / counts[counts > 0, None]).float()
    return centres, float(_nearest(rows, centres)[0].double().mean())


def _nearest(rows: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The squared distance of each row to its nearest centre, and the centre's number."""
    parts = [square_distances(part, centres).min(dim=1) for part in torch.split(rows, BLOCK_ROWS)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def _first_centres(rows: Tensor, number: int, generator: np.random.Generator) -> Tensor:
    """Choose the first centres among the rows by k-means++."""
    chosen = [int(generator.integers(len(rows)))]
    distances = square_distances(rows, rows[chosen])[:, 0]
    while len(chosen) < min(number, len(rows)):
        weights = distances.double().numpy()
        total = np.cumsum(np.where(weights > _ROUNDING * (1 + weights.mean()), weights, 0.0))
        if total[-1] <= 0:  # every row is a centre already
            break
        chosen.append(int(np.searchsorted(total, generator.random() * total[-1], side="right")))
        distances = torch.minimum(distances, square_distances(rows, rows[chosen[-1:]])[:, 0])
    return rows[chosen]


def nearest_centres(vectors: Matrix, centres: Tensor, count: int = 1) -> NDArray[np.int64]:
    """The numbers of the nearest centres of all vectors, nearest first: shape (N, count)."""
    found = np.empty((len(vectors), count), np.int64)
    for first, block in blocks_of(vectors):
        distances = square_distances(block, centres)
        found[first : first + len(block)] = distances.topk(count, dim=1, largest=False).indices.numpy()
    return found
