"""The rows of a collection as arrays: their vectors, and which stretch of which file each of them shows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from v3s.explore.matrix import Matrix
from v3s.files.text import short_repr
from v3s.vectors.collection import Vectors


@dataclass(frozen=True, slots=True, eq=False)
class SpanTable:
    """Where each row of a collection comes from.

    Attributes:
        files: full path of each file, in the order in which they first occur.
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


def table_of(collection: Vectors) -> SpanTable:
    """Where the rows of a collection come from."""
    entries = [collection.video(number) for number in range(collection.description.num_videos)]
    numbers = {path: number for number, path in enumerate(dict.fromkeys(entry.path for entry in entries))}
    videos, first, end = (
        np.concatenate([getattr(shard, name).numpy() for shard in collection.shards]).astype(np.int64)
        for name in ("videos", "starts", "ends")
    )
    places = np.array([numbers[entry.path] for entry in entries], np.int64)
    begins = np.array([entry.start_seconds for entry in entries])
    frame_seconds = np.array([entry.seconds / entry.num_frames for entry in entries])
    starts, ends = (begins[videos] + frames * frame_seconds[videos] for frames in (first, end))
    root, are_whole = Path(collection.description.root), not (collection.description.per_clip or collection.has_spans)
    files = tuple(str(root / path) for path in numbers)
    return SpanTable(files, places[videos], starts, ends, are_whole)
