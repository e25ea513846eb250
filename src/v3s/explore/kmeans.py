"""k-means: centres by k-means++ and Lloyd's steps on a sample of the vectors, then the nearest centres of all."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v3s.explore.matrix import Centred, square_distances

_ROWS_AT_ONCE = 4096
_LEAST_GAIN = 1e-3  # of the mean squared distance, by a step
_ROUNDING = 1e-6  # of squared lengths


def sample_rows(num_rows: int, most: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw at most this number of rows without repetition, in ascending order."""
    if num_rows <= most:
        return np.arange(num_rows)
    return np.sort(generator.choice(num_rows, most, replace=False)).astype(np.int64)


def fit_centres(
    vectors: Centred, number: int, generator: np.random.Generator, *, most_rows: int, steps: int
) -> tuple[Tensor, float]:
    """Find centres such that the squared distances of vectors to their nearest centre are small.

    Args:
        vectors: shape (N, D).
        number: how many centres, at least 1; there are fewer if fewer vectors differ.
        generator: draws the sample and the first centres (k-means++: each with a chance in proportion to its squared
            distance from those before it).
        most_rows: as many vectors are drawn at most, and only these are used.
        steps: Lloyd's steps at most; they end when distances shrink by less than a thousandth.

    Returns:
        The centres, centred as the vectors, float32 (number, D), and the mean squared distance of the sample to them.
    """
    rows = vectors.rows(sample_rows(len(vectors), most_rows, generator))
    centres = _first_centres(rows, number, generator)
    error = np.inf
    for _ in range(steps):
        distances, nearest = _nearest(rows, centres)
        if (now := float(distances.mean(dtype=torch.float64))) >= error * (1 - _LEAST_GAIN):
            break
        error = now
        counts = torch.bincount(nearest, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        centres = sums[counts > 0] / counts[counts > 0, None]
    return centres, float(_nearest(rows, centres)[0].mean(dtype=torch.float64))


def _nearest(rows: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The squared distance of each row to its nearest centre, and the centre's number."""
    parts = [square_distances(part, centres).min(dim=1) for part in torch.split(rows, _ROWS_AT_ONCE)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def _first_centres(rows: Tensor, number: int, generator: np.random.Generator) -> Tensor:
    """Choose the first centres among the rows by k-means++."""
    chosen = [int(generator.integers(len(rows)))]
    lengths = rows.square().sum(dim=1)
    distances = torch.full_like(lengths, torch.inf)
    while len(chosen) < min(number, len(rows)):
        last = rows[chosen[-1]]
        now = (lengths - 2 * (rows @ last) + lengths[chosen[-1]]).clamp_(min=0)
        now[now < _ROUNDING * (lengths + lengths[chosen[-1]])] = 0  # a copy of it
        distances = torch.minimum(distances, now)
        total = np.cumsum(distances.double().numpy())
        if total[-1] <= 0:  # every row is a centre already
            break
        chosen.append(int(np.searchsorted(total, generator.random() * total[-1], side="right")))
    return rows[chosen]


def nearest_centres(vectors: Centred, centres: Tensor, count: int = 1) -> NDArray[np.int64]:
    """The numbers of the nearest centres of all vectors, nearest first: shape (N, count)."""
    found = np.empty((len(vectors), count), np.int64)
    for rows, block in vectors.blocks():
        found[rows] = square_distances(block, centres).topk(count, dim=1, largest=False).indices.numpy()
    return found
