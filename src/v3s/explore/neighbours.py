"""The nearest vectors of every vector: of a large collection only some cells are searched.

Up to 4,096 vectors each is compared with all others. More are divided into cells of about 512 by k-means, and each is
compared with the vectors of the 8 cells whose centres are nearest: copies lie in the same cells, and of other
neighbours few are missed. Time grows with N times 4,096 instead of N times N.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v3s.explore.kmeans import fit_centres, nearest_centres
from v3s.explore.matrix import Centred, square_distances

_CELL_ROWS, _NUM_CELLS = 512, 8
_LARGEST_CELL = 2048  # a larger one is cut into pieces of consecutive vectors
_ROWS_PER_CENTRE, _STEPS = 32, 5
_QUERIES = 4096  # compared with a cell at a time


def nearest_others(
    vectors: Centred, k: int, *, groups: NDArray[np.int64] | None = None, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the nearest other vectors of each vector.

    Args:
        vectors: shape (N, D).
        k: how many, at least 1.
        groups: the group of each vector, shape (N,): those of its own group are not found. None: each is alone.
        seed: of the centres of cells.

    Returns:
        Row numbers, nearest first, -1 where there are no more: int64, shape (N, k); and squared distances, infinite
        where there are no more: float32, shape (N, k).
    """
    own = torch.from_numpy(np.arange(len(vectors)) if groups is None else groups)
    best = torch.full((len(vectors), k), torch.inf)
    indices = torch.full((len(vectors), k), -1)
    probed, cells = _cells(vectors, seed)
    askers = np.argsort(probed.ravel(), kind="stable") // probed.shape[1]
    ends = np.cumsum(np.bincount(probed.ravel(), minlength=len(cells)))
    for cell, end, count in zip(cells, ends, np.diff(ends, prepend=0), strict=True):
        members, numbers = vectors.rows(cell), torch.from_numpy(cell)
        for queries in torch.split(torch.from_numpy(askers[end - count : end]), _QUERIES):
            distances = square_distances(vectors.rows(queries.numpy()), members)
            distances.masked_fill_(own[queries][:, None] == own[numbers], torch.inf)
            _merge(best, indices, queries, distances, numbers)
    return indices.numpy(), best.numpy()


def _merge(best: Tensor, indices: Tensor, queries: Tensor, distances: Tensor, numbers: Tensor) -> None:
    """Enter the nearest of some vectors into the table of the queries' nearest so far, in place."""
    k = best.shape[1]
    found = distances.topk(min(k, len(numbers)), dim=1, largest=False)
    better = (found.values[:, 0] <= best[queries, -1]).nonzero()[:, 0]
    queries, found_values, found_indices = queries[better], found.values[better], found.indices[better]
    values = torch.cat([best[queries], found_values], dim=1)
    rows = torch.cat([indices[queries], numbers[found_indices].masked_fill(found_values.isinf(), -1)], dim=1)
    by_row = rows.sort(dim=1)  # of equally near ones the lower row comes first
    order = values.gather(1, by_row.indices).sort(dim=1, stable=True)
    best[queries] = order.values[:, :k]
    indices[queries] = by_row.values.gather(1, order.indices)[:, :k]


def _cells(vectors: Centred, seed: int) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """The cells that each vector is compared with, shape (N, 8 or fewer), and the rows of each cell."""
    number = -(-len(vectors) // _CELL_ROWS)
    if number <= _NUM_CELLS:
        return np.zeros((len(vectors), 1), np.int64), [np.arange(len(vectors))]
    generator = np.random.default_rng(seed)
    centres, _ = fit_centres(vectors, number, generator, most_rows=number * _ROWS_PER_CENTRE, steps=_STEPS)
    nearest = nearest_centres(vectors, centres)[:, 0]
    order = np.argsort(nearest, kind="stable")
    cells: list[NDArray[np.int64]] = []
    for rows in np.split(order, np.flatnonzero(np.diff(nearest[order])) + 1):
        cells += np.array_split(rows, -(-len(rows) // _CELL_ROWS)) if len(rows) > _LARGEST_CELL else [rows]
    centres = torch.stack([vectors.rows(rows).mean(dim=0) for rows in cells])
    return nearest_centres(vectors, centres, min(_NUM_CELLS, len(cells))), cells
