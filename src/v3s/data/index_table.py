"""Many video indices in a few arrays, which worker processes share without copying."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from v3s.files.text import short_repr
from v3s.video.decode import Span, Video, video_from_json
from v3s.video.index import VideoIndex
from v3s.video.store import StoredVideo

_MOST_PARSED_BYTES = 1 << 25
"""Of text, whose indices a process keeps ready: those of recordings take long to parse."""

_IDENTITY = ("num_bytes", "num_frames", "height", "width", "fps", "duration_seconds", "fingerprint", "checksum")


def content_of(video: Video) -> str:
    """Identify what a file or a span contains, whatever its name: 16 hexadecimal digits, the same for every copy.

    It is made from what an index or a store states: sizes, times, and the sums over packets or frames.
    """
    file = video.video if isinstance(video, Span) else video
    stated = {name: getattr(file, name) for name in _IDENTITY if hasattr(file, name)}
    if isinstance(file, VideoIndex) and file.mask:
        stated["mask"] = file.mask
    if isinstance(video, Span):
        times = round(video.start_seconds, 6), round(video.end_seconds, 6)
        stated["span"] = video.first, video.num_frames, *times, video.rate
    return hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, eq=False)
class SpanRows:
    """The spans of a table's rows, as in :class:`v3s.video.span.Span`.

    Attributes:
        sources: int32 (len,), the number of each row's video among the indices of the table.
        firsts: int64 (len,), the number of its first frame.
        starts: float64 (len,), in seconds.
        ends: float64 (len,), in seconds.
        rate: frames per second of all spans; ``None`` for the videos' frames.
    """

    sources: NDArray[np.int32]
    firsts: NDArray[np.int64]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    rate: float | None
    __repr__ = short_repr

    @classmethod
    def of(cls, spans: Sequence[Span], sources: Sequence[int]) -> "SpanRows":
        """Collect the spans of videos with these numbers; they have one rate.

        Raises:
            ValueError: they have several.
        """
        rates = {span.rate for span in spans}
        if len(rates) > 1:
            raise ValueError(f"spans of one table have one rate; got {rates}")
        firsts, starts, ends = zip(*((span.first, span.start_seconds, span.end_seconds) for span in spans), strict=True)
        return cls(
            np.array(sources, np.int32),
            np.array(firsts, np.int64),
            np.array(starts, np.float64),
            np.array(ends, np.float64),
            rates.pop(),
        )

    def subset(self, numbers: NDArray[np.int64]) -> "SpanRows":
        """Return the spans of some rows."""
        return SpanRows(
            self.sources[numbers], self.firsts[numbers], self.starts[numbers], self.ends[numbers], self.rate
        )


@dataclass(frozen=True, slots=True, eq=False)
class IndexTable:
    """A read-only sequence of :data:`~v3s.video.decode.Video`, stored as text in one buffer.

    A list of objects would be copied page by page into every forked worker as reference counts change, and it would
    pickle slowly; arrays avoid both. Spans of one file share its index.

    Attributes:
        text: uint8, the concatenated JSON lines of all indices.
        offsets: int64 (indices + 1,), the start of each line in `text`.
        num_frames: int32 (len,), the true length of each video in frames.
        fingerprints: uint64 (len,), the same for videos of the same content.
        spans: which part of which index each row is; ``None`` if each row is the whole video of its number.
    """

    text: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    num_frames: NDArray[np.int32]
    fingerprints: NDArray[np.uint64]
    spans: SpanRows | None = None
    _parsed: dict[int, VideoIndex | StoredVideo] = field(default_factory=dict, repr=False)
    __repr__ = short_repr

    @classmethod
    def of(cls, videos: Iterable[Video]) -> "IndexTable":
        """Collect whole videos, or spans, in order."""
        spans: list[Span] = []
        lines: list[bytes] = []
        sources: dict[int, int] = {}  # numbers by identity: indices of hours take long to compare
        num_frames: list[int] = []
        fingerprints: list[int] = []
        for video in videos:
            if isinstance(video, Span):
                spans.append(video)  # and with it its source, so that no other object gets the same identity
                if sources.setdefault(id(video.video), len(lines)) == len(lines):
                    lines.append(video.video.to_json().encode())
            else:
                lines.append(video.to_json().encode())
            num_frames.append(video.num_frames)
            fingerprints.append(video.fingerprint)
        offsets = np.cumsum([0, *map(len, lines)], dtype=np.int64)
        text = np.frombuffer(b"".join(lines), np.uint8)
        if spans and len(spans) < len(num_frames):
            raise ValueError("a table has whole videos or spans, not both")
        rows = SpanRows.of(spans, [sources[id(span.video)] for span in spans]) if spans else None
        return cls(text, offsets, np.array(num_frames, np.int32), np.array(fingerprints, np.uint64), rows)

    def __len__(self) -> int:
        return len(self.num_frames)

    def __iter__(self) -> Iterator[Video]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> Video:
        if not 0 <= number < len(self):
            raise IndexError(f"{number} is out of range: the table contains {len(self)} videos, numbered from 0")
        if self.spans is None:
            return self._index(number)
        return Span(
            self.source(int(self.spans.sources[number])),
            int(self.spans.firsts[number]),
            int(self.num_frames[number]),
            float(self.spans.starts[number]),
            float(self.spans.ends[number]),
            self.spans.rate,
        )

    @property
    def sources(self) -> NDArray[np.int32]:
        """The number of each row's index, int32 (len,): rows with the same number are of one file."""
        return self.spans.sources if self.spans else np.arange(len(self), dtype=np.int32)

    @property
    def contents(self) -> NDArray[np.uint64]:
        """The fingerprint of each row's whole file, uint64 (len,), the same for every copy of the file."""
        if self.spans is None:
            return self.fingerprints
        files = [self.source(number).fingerprint for number in range(len(self.offsets) - 1)]
        return np.array(files, np.uint64)[self.spans.sources]

    def source(self, number: int) -> VideoIndex | StoredVideo:
        """Return an index by its number; those of spans are kept ready, as far as their text is short in all."""
        if self.spans is None:
            return self._index(number)
        if number not in self._parsed:
            kept = sum(int(self.offsets[other + 1] - self.offsets[other]) for other in self._parsed)
            if kept + self.offsets[number + 1] - self.offsets[number] > _MOST_PARSED_BYTES:
                self._parsed.clear()
            self._parsed[number] = self._index(number)
        return self._parsed[number]

    def _index(self, number: int) -> VideoIndex | StoredVideo:
        start, end = self.offsets[number : number + 2]
        return video_from_json(self.text[start:end].tobytes().decode())

    def subset(self, numbers: Sequence[int] | NDArray[np.int64]) -> "IndexTable":
        """Return the table of the given videos, in the given order."""
        chosen = np.asarray(numbers, dtype=np.int64)
        own = self.num_frames[chosen], self.fingerprints[chosen]
        if self.spans is not None:
            return IndexTable(self.text, self.offsets, *own, self.spans.subset(chosen))
        rows = [self.text[self.offsets[number] : self.offsets[number + 1]] for number in numbers]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        text = np.concatenate(rows) if rows else self.text[:0]
        return IndexTable(text, offsets, *own)
