"""The spans of a collection in columns, so that a million of them are filtered in milliseconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from posixpath import dirname

import numpy as np
from numpy.typing import NDArray

from v3s.explore.spans import are_whole_files
from v3s.files.text import short_repr
from v3s.vectors.collection import Vectors
from v3s.vectors.entries import tabulate

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
        return are_whole_files(self.vectors)

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
    """Read the list of a collection's videos.

    Raises:
        ValueError: the list is damaged or forged.
    """
    columns = tabulate(vectors.entries())
    videos, starts, ends = vectors.row_times(columns)
    folders = list(map(dirname, columns.files))
    folder_names, label_names = sorted(set(folders)), sorted(columns.labels)
    folder_of = _places(folders, folder_names)[columns.file_of]
    label_of = np.append(_places(columns.labels, label_names), -1)[columns.label_of]
    return Catalogue(
        vectors,
        columns.files,
        tuple(folder_names),
        tuple(label_names),
        columns.file_of[videos],
        folder_of[videos],
        label_of[videos],
        starts,
        ends,
        {file: number for number, file in enumerate(columns.files)},
    )


def _places(names: Sequence[str], among: Sequence[str]) -> NDArray[np.int64]:
    """The place of each name among others, int64 (N,)."""
    places = {name: place for place, name in enumerate(among)}
    return np.array([places[name] for name in names], np.int64)
