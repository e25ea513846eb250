"""Vectors as a matrix that is read block by block: never more than a block is converted, and nothing is N x N.

All functions of this room measure by one number, the **relative distance**: the squared distance of two vectors divided
by the mean squared distance of two vectors drawn at random. It is 0 for copies and 1 for an average pair, whatever the
network: the cosines of one network crowd at 0.7, those of another at 0.95.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.floating[Any]]
"""Vectors, float16 or float32, shape (N, D)."""

BLOCK_ROWS = 8192
_LEAST_SPREAD = 1e-7  # of the mean squared length: below it, all vectors are equal up to rounding


def check_matrix(vectors: Matrix) -> None:
    """Refuse what is no matrix of finite numbers.

    Raises:
        ValueError: there are no vectors, the shape is another, or a vector contains NaN or infinity.
    """
    if vectors.ndim != 2 or not vectors.size or not np.issubdtype(vectors.dtype, np.floating):
        raise ValueError(f"got {vectors.dtype} of shape {vectors.shape}; expected at least one vector, floats (N, D)")
    for first, block in blocks_of(vectors):
        if not block.sum().isfinite():
            is_bad = ~block.isfinite().all(dim=1)
            if is_bad.any():
                row = first + int(is_bad.int().argmax())
                raise ValueError(f"vector {row:,} of {len(vectors):,} contains NaN or infinity; embed again")


def blocks_of(vectors: Matrix) -> Iterator[tuple[int, Tensor]]:
    """Yield the number of a block's first row, and the block as float32."""
    for first in range(0, len(vectors), BLOCK_ROWS):
        yield first, rows_of(vectors, slice(first, first + BLOCK_ROWS))


def rows_of(vectors: Matrix, rows: slice | NDArray[np.int64]) -> Tensor:
    """Some rows as float32."""
    return torch.from_numpy(np.ascontiguousarray(vectors[rows], np.float32))


def mean_vector(vectors: Matrix) -> Tensor:
    """The mean of all vectors: float64, shape (D,)."""
    total = torch.zeros(vectors.shape[1], dtype=torch.float64)
    for _, block in blocks_of(vectors):
        total += block.double().sum(dim=0)
    return total / len(vectors)


def mean_square_distance(vectors: Matrix) -> float:
    """The mean squared distance of two vectors drawn at random, the unit of relative distances.

    It is infinite if all vectors are equal up to rounding: their relative distances are then 0.
    """
    mean = mean_vector(vectors)
    spread = sum(float((block.double() - mean).square().sum()) for _, block in blocks_of(vectors)) / len(vectors)
    return 2 * spread if spread > _LEAST_SPREAD * float(mean.square().sum()) else np.inf


def square_distances(rows: Tensor, others: Tensor) -> Tensor:
    """Squared distances of all pairs: float32, shape (rows, others), at least 0."""
    lengths = rows.square().sum(dim=1)[:, None] + others.square().sum(dim=1)
    return lengths.addmm_(rows, others.T, alpha=-2).clamp_(min=0)
