"""Vectors as a matrix that is read block by block: never more than a block is converted, and nothing is N x N.

All functions of this room measure by one number, the **relative distance**: the squared distance of two vectors divided
by the mean squared distance of two vectors drawn at random. It is 0 for copies and 1 for an average pair, whatever the
network: the cosines of one network crowd at 0.7, those of another at 0.95.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v3s.files.text import short_repr

Matrix = NDArray[np.floating[Any]]
"""Vectors, float16 or float32, shape (N, D)."""

_BLOCK_ROWS = 8192
_LEAST_SPREAD = 1e-10  # of the mean squared length: below it, all vectors are equal up to rounding


@dataclass(frozen=True, slots=True, eq=False)
class Centred:
    """Vectors whose mean is subtracted as they are read.

    Vectors of some networks differ by a thousandth of their length: distances of such vectors as they are would be
    mostly rounding.

    Attributes:
        vectors: finite, shape (N, D).
        mean: the mean of all vectors, float32, shape (D,).
        unit: the mean squared distance of two vectors drawn at random, the unit of relative distances. Infinite if all
            vectors are equal up to rounding: all relative distances are then 0.
    """

    vectors: Matrix
    mean: Tensor
    unit: float
    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.vectors)

    def rows(self, rows: NDArray[np.int64]) -> Tensor:
        """Some vectors: float32, shape (M, D)."""
        return torch.from_numpy(self.vectors[rows]).float().sub_(self.mean)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield all vectors: which rows, and they as float32."""
        for rows in _slices(len(self.vectors)):
            yield rows, torch.from_numpy(self.vectors[rows].astype(np.float32)).sub_(self.mean)


def centred(vectors: Matrix) -> Centred:
    """Centre vectors.

    Args:
        vectors: shape (N, D).

    Raises:
        ValueError: there are no vectors, the shape is another, or a vector contains NaN or infinity.
    """
    if vectors.ndim != 2 or not vectors.size or not np.issubdtype(vectors.dtype, np.floating):
        raise ValueError(f"got {vectors.dtype} of shape {vectors.shape}; expected at least one vector, floats (N, D)")
    total = torch.zeros(vectors.shape[1], dtype=torch.float64)
    for rows in _slices(len(vectors)):
        total += torch.from_numpy(vectors[rows].astype(np.float32)).sum(dim=0, dtype=torch.float64)
        if not total.isfinite().all():
            is_bad = ~np.isfinite(vectors[rows]).all(axis=1)
            row = rows.start + int(is_bad.argmax())
            raise ValueError(f"vector {row:,} of {len(vectors):,} contains NaN or infinity; embed again")
    mean = total / len(vectors)
    shifted = Centred(vectors, mean.float(), np.inf)
    spread = sum(float(block.square().sum(dtype=torch.float64)) for _, block in shifted.blocks()) / len(vectors)
    is_spread = spread > _LEAST_SPREAD * float(mean.square().sum())
    return Centred(vectors, shifted.mean, 2 * spread if is_spread else np.inf)


def _slices(num_rows: int) -> Iterator[slice]:
    return (slice(first, min(first + _BLOCK_ROWS, num_rows)) for first in range(0, num_rows, _BLOCK_ROWS))


def square_distances(rows: Tensor, others: Tensor) -> Tensor:
    """Squared distances of all pairs of centred vectors: float32, shape (rows, others), at least 0."""
    lengths = rows.square().sum(dim=1)[:, None] + others.square().sum(dim=1)
    return lengths.addmm_(rows, others.T, alpha=-2).clamp_(min=0)
