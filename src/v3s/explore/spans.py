"""The rows of a collection as arrays: their vectors, and which stretch of which file each of them shows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v3s.explore.matrix import Matrix
from v3s.files.text import short_repr
from v3s.vectors.collection import Vectors
from v3s.vectors.entries import tabulate


@dataclass(frozen=True, slots=True, eq=False)
class SpanTable:
    """Where each row of a collection comes from.

    Attributes:
        files: path of each file as listed, in the order in which they first occur.
        file_of: number of each row's file, int64 (N,).
        starts: start of each row in seconds from the start of its file on, float64 (N,).
        ends: its end in seconds, float64 (N,).
        are_whole: whether each row is a whole file.
    """

    files: tuple[str, ...]
    file_of: NDArray[np.int64]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    are_whole: bool
    __repr__ = short_repr


def matrix_of(collection: Vectors) -> Matrix:
    """All vectors of a collection in memory, in the precision in which they are stored: shape (N, D)."""
    return np.concatenate([shard.vectors.numpy() for shard in collection.shards])


def are_whole_files(collection: Vectors) -> bool:
    """Whether each row of a collection is a whole file, which its path alone names."""
    return not (collection.description.per_clip or collection.has_spans)


def table_of(collection: Vectors) -> SpanTable:
    """Where the rows of a collection come from.

    Raises:
        ValueError: the list of the collection is damaged or forged.
    """
    columns = tabulate(collection.entries())
    videos, starts, ends = collection.row_times(columns)
    return SpanTable(columns.files, columns.file_of[videos], starts, ends, are_whole_files(collection))
