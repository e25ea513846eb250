"""Many video indices in three arrays, so that data loading processes share them for good."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v3s.video.decode import Video, video_from_json


@dataclass(frozen=True, slots=True, eq=False)
class IndexTable:
    """A read-only sequence of :data:`~v3s.video.decode.Video`, kept as text in one buffer.

    A list of objects is copied page by page into every forked worker as its reference counts change, and pickles
    slowly; three arrays do neither.

    Attributes:
        text: uint8, the JSON lines of all indices, one after another.
        offsets: int64 (len + 1), where each line begins in `text`.
        num_frames: int32 (len,), the true length of each video in frames.
    """

    text: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    num_frames: NDArray[np.int32]

    @classmethod
    def of(cls, indices: Iterable[Video]) -> "IndexTable":
        """Collect indices in their order."""
        lines: list[bytes] = []
        num_frames: list[int] = []
        for index in indices:
            lines.append(index.to_json().encode())
            num_frames.append(index.num_frames)
        offsets = np.cumsum([0, *map(len, lines)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(lines), np.uint8), offsets, np.array(num_frames, np.int32))

    def __len__(self) -> int:
        return len(self.num_frames)

    def __iter__(self) -> Iterator[Video]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> Video:
        if not 0 <= number < len(self):
            raise IndexError(f"the table holds {len(self)} videos, numbered from 0; {number} is none of them")
        start, end = self.offsets[number : number + 2]
        return video_from_json(self.text[start:end].tobytes().decode())

    def subset(self, numbers: Sequence[int] | NDArray[np.int64]) -> "IndexTable":
        """Return the table of the chosen videos, in the given order."""
        rows = [self.text[self.offsets[number] : self.offsets[number + 1]] for number in numbers]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        text = np.concatenate(rows) if rows else self.text[:0]
        return IndexTable(text, offsets, self.num_frames[np.asarray(numbers, dtype=np.int64)])
