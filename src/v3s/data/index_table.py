"""Many video indices in four arrays, which worker processes share without copying."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v3s.files.text import short_repr
from v3s.video.decode import Video, video_from_json

_IDENTITY = ("num_bytes", "num_frames", "height", "width", "fps", "duration_seconds", "fingerprint", "checksum")


def content_of(video: Video) -> str:
    """Identify what a file contains, whatever its name: 16 hexadecimal digits, the same for every copy.

    It is made from what an index or a store states: sizes, times, and the sums over packets or frames.
    """
    stated = {name: getattr(video, name) for name in _IDENTITY if hasattr(video, name)}
    return hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, eq=False)
class IndexTable:
    """A read-only sequence of :data:`~v3s.video.decode.Video`, stored as text in one buffer.

    A list of objects would be copied page by page into every forked worker as reference counts change, and it would
    pickle slowly; four arrays avoid both.

    Attributes:
        text: uint8, the concatenated JSON lines of all indices.
        offsets: int64 (len + 1), the start of each line in `text`.
        num_frames: int32 (len,), the true length of each video in frames.
        fingerprints: uint64 (len,), the same for videos of the same content.
    """

    text: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    num_frames: NDArray[np.int32]
    fingerprints: NDArray[np.uint64]
    __repr__ = short_repr

    @classmethod
    def of(cls, indices: Iterable[Video]) -> "IndexTable":
        """Collect indices in order."""
        lines: list[bytes] = []
        num_frames: list[int] = []
        fingerprints: list[int] = []
        for index in indices:
            lines.append(index.to_json().encode())
            num_frames.append(index.num_frames)
            fingerprints.append(index.fingerprint)
        offsets = np.cumsum([0, *map(len, lines)], dtype=np.int64)
        text = np.frombuffer(b"".join(lines), np.uint8)
        return cls(text, offsets, np.array(num_frames, np.int32), np.array(fingerprints, np.uint64))

    def __len__(self) -> int:
        return len(self.num_frames)

    def __iter__(self) -> Iterator[Video]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> Video:
        if not 0 <= number < len(self):
            raise IndexError(f"{number} is out of range: the table contains {len(self)} videos, numbered from 0")
        start, end = self.offsets[number : number + 2]
        return video_from_json(self.text[start:end].tobytes().decode())

    def subset(self, numbers: Sequence[int] | NDArray[np.int64]) -> "IndexTable":
        """Return the table of the given videos, in the given order."""
        rows = [self.text[self.offsets[number] : self.offsets[number + 1]] for number in numbers]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        text = np.concatenate(rows) if rows else self.text[:0]
        chosen = np.asarray(numbers, dtype=np.int64)
        return IndexTable(text, offsets, self.num_frames[chosen], self.fingerprints[chosen])
