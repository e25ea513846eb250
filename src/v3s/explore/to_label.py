"""What to label next: vectors that cover the collection, by the greedy algorithm for k centres (Gonzalez, 1985)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from v3s.explore.matrix import Matrix, blocks_of, check_matrix, mean_vector, rows_of, square_distances

_LABELLED_AT_ONCE = 1024


def choose_to_label(
    vectors: Matrix, number: int = 50, *, labelled: Sequence[int] | NDArray[np.int64] = (), seed: int = 0
) -> NDArray[np.int64]:
    """Choose vectors such that every other one is near to a chosen or a labelled one.

    Each choice is the vector that is farthest from all labelled and chosen ones; without labels the first is the one
    nearest to the mean. The largest distance left is at most twice the smallest possible.

    Args:
        vectors: shape (N, D), unit length.
        number: how many to choose.
        labelled: rows that are labelled already; they are not chosen.
        seed: decides between equally far ones.

    Returns:
        Row numbers in the order of choice, int64, shape (number,): the first of them are the choice of a smaller
        number. Fewer if fewer rows are not labelled.

    Raises:
        ValueError: the vectors are not finite, or a labelled row does not exist.
    """
    check_matrix(vectors)
    taken = np.unique(np.asarray(labelled, np.int64))
    if number < 0 or (len(taken) and not 0 <= taken[0] <= taken[-1] < len(vectors)):
        raise ValueError(
            f"asked for {number} of {len(vectors):,} vectors, with labelled rows up to {max(taken, default=0)}; "
            "a number is 0 or more, and rows are counted from 0"
        )
    order = np.random.default_rng(seed).random(len(vectors))
    distances = np.full(len(vectors), np.inf, np.float32)
    for part in np.array_split(taken, -(-len(taken) // _LABELLED_AT_ONCE)) if len(taken) else ():
        _approach(distances, vectors, rows_of(vectors, part))
    chosen: list[int] = []
    while len(chosen) < min(number, len(vectors) - len(taken)):
        if not chosen and not len(taken):
            centre = np.full(len(vectors), np.inf, np.float32)
            _approach(centre, vectors, mean_vector(vectors).float()[None])
            chosen.append(_first(-centre, order))
        else:
            distances[taken], distances[chosen] = -1, -1
            chosen.append(_first(distances, order))
        _approach(distances, vectors, rows_of(vectors, np.array(chosen[-1:])))
    return np.array(chosen, np.int64)


def _approach(distances: NDArray[np.float32], vectors: Matrix, centres: Tensor) -> None:
    """Lower each vector's squared distance to that to the nearest of further centres, in place."""
    for first, block in blocks_of(vectors):
        part = distances[first : first + len(block)]
        np.minimum(part, square_distances(block, centres).amin(dim=1).numpy(), out=part)


def _first(values: NDArray[np.float32], order: NDArray[np.float64]) -> int:
    """The row with the largest value; of equal ones the first in an order."""
    rows = np.flatnonzero(values == values.max())
    return int(rows[order[rows].argmin()])
