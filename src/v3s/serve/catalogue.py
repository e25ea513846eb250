"""The spans of a collection in columns, so that a million of them are filtered in milliseconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from posixpath import dirname
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v3s.files.reading import checked, parse_json
from v3s.files.text import short_repr
from v3s.vectors.collection import Vectors, VectorsError, videos_path

_LINES_AT_ONCE = 10_000
_MAX_VALUES_PER_LINE = 100  # of the list of videos; commas in names count
_SAME_SECONDS = 1e-3  # two times that differ by less are the same


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """The spans of a collection, one per vector.

    Attributes:
        vectors: the collection.
        paths: path of each file as listed.
        folders: the folders of the files, in alphabetical order.
        labels: the labels that the collection's list gave, in alphabetical order.
        file_of: number of each span's file, int64 (N,).
        folder_of: number of its folder, int64 (N,).
        label_of: number of its label, -1 without one, int64 (N,).
        starts: its start in seconds from the start of the file on, float64 (N,).
        ends: its end, float64 (N,).
    """

    vectors: Vectors
    paths: tuple[str, ...]
    folders: tuple[str, ...]
    labels: tuple[str, ...]
    file_of: NDArray[np.int64]
    folder_of: NDArray[np.int64]
    label_of: NDArray[np.int64]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    _numbers: dict[str, int]
    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.file_of)

    @property
    def has_whole_files(self) -> bool:
        """Whether every span is a whole file, which its path alone names."""
        return not (self.vectors.description.per_clip or self.vectors.has_spans)

    def check_row(self, row: int) -> None:
        """Check the number of a span.

        Raises:
            ValueError: there is no such span.
        """
        if not 0 <= row < len(self):
            raise ValueError(f"span {row} does not exist; there are {len(self):,}")

    def find(self, path: str, start: float, end: float | None) -> NDArray[np.int64]:
        """The rows of a span, from its file and times; none if the collection does not have it."""
        is_it = self.file_of == self._numbers.get(path, -1)
        if (end is None) != self.has_whole_files:
            is_it[:] = False
        elif end is not None:
            is_it &= (np.abs(self.starts - start) < _SAME_SECONDS) & (np.abs(self.ends - end) < _SAME_SECONDS)
        return np.flatnonzero(is_it)


def read_catalogue(vectors: Vectors) -> Catalogue:
    """Read the list of a collection's videos in one go: 100,000 lines in a second.

    Raises:
        VectorsError: a line of the list is damaged.
    """
    videos = np.concatenate([shard.videos.numpy() for shard in vectors.shards]).astype(np.int64)
    frames = (np.concatenate([getattr(shard, end).numpy() for shard in vectors.shards]) for end in ("starts", "ends"))
    paths, labels, numbers = _read_lines(vectors)
    num_frames, seconds, starts = numbers.T
    file_of, files = _numbered(paths)
    folder_of_file, folders = _numbered(list(map(dirname, files)))
    label_of, names = _numbered(labels)
    folder_order, label_order = _ranks(folders), _ranks(names)
    seconds_of_frame = (seconds / num_frames)[videos]
    begins, ends = (starts[videos] + each * seconds_of_frame for each in frames)
    return Catalogue(
        vectors,
        tuple(files),
        tuple(sorted(folders)),
        tuple(sorted(name for name in names if name is not None)),
        file_of[videos],
        folder_order[folder_of_file][file_of][videos],
        label_order[label_of][videos],
        begins,
        ends,
        files,
    )


def _read_lines(vectors: Vectors) -> tuple[list[str], list[str | None], NDArray[np.float64]]:
    """Path and label of each video, and its length in frames, its length and its start in seconds, float64 (V, 3)."""
    listed = videos_path(vectors.folder, vectors.description.generation)
    lines = vectors.lines.splitlines()
    paths: list[str] = []
    labels: list[str | None] = []
    numbers: list[tuple[float, float, float]] = []
    try:
        for first in range(0, len(lines), _LINES_AT_ONCE):
            some = lines[first : first + _LINES_AT_ONCE]
            values: Any = parse_json(b"[" + b",".join(some) + b"]", max_values=_MAX_VALUES_PER_LINE * (1 + len(some)))
            paths += [checked(str, value["path"], "path") for value in values]
            labels += [checked(str | None, value["label"], "label") for value in values]
            numbers += [(value["num_frames"], value["seconds"], value.get("start_seconds", 0.0)) for value in values]
        table = np.array(numbers, np.float64).reshape(len(lines), 3)
        if not (np.isfinite(table).all() and (table >= (1, 0, 0)).all()):
            raise ValueError("a length or a start is negative")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VectorsError(f"{listed}: damaged ({error}); embed again with --overwrite") from error
    return paths, labels, table


def _numbered(names: Sequence[Any]) -> tuple[NDArray[np.int64], dict[Any, int]]:
    """The number of each name, int64 (N,), and the names by number in the order in which they first occur."""
    numbers: dict[Any, int] = {}
    of_each = [numbers.setdefault(name, len(numbers)) for name in names]
    return np.array(of_each, np.int64), numbers


def _ranks(names: dict[Any, int]) -> NDArray[np.int64]:
    """The place in alphabetical order of each name, int64; -1 for None."""
    places = {name: place for place, name in enumerate(sorted(name for name in names if name is not None))}
    return np.array([places.get(name, -1) for name in names], np.int64)
