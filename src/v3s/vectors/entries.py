"""What a collection consists of: entries, the lines of videos.jsonl, and rows, which its shards hold."""

import json
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from itertools import pairwise
from math import isclose
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v3s.files.checksum import adler32
from v3s.files.reading import is_text, parse_as, parse_json
from v3s.files.text import short_repr

VIDEOS = "videos.jsonl"
_MOST_FRAMES, _MOST_SECONDS = 2**31 - 1, 1e9  # of an entry: rows count frames in int32, and 1e9 s are 30 years
_LINES_AT_ONCE = 10_000
_VALUES_PER_LINE = 100  # on average, at most; commas in names count
_KINDS: dict[str, tuple[type, ...]] = {
    "path": (str,), "label": (str, NoneType), "num_frames": (int,), "seconds": (int, float), "content": (str,),
    "start_seconds": (int, float),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of videos.jsonl: path relative to the root (posix), label or None, length in frames and in seconds.

    ``content`` identifies what the file contained, see `v3s.data.index_table.content_of`; folders of earlier versions
    do not have it. ``start_seconds`` is where the entry begins in its file, if it is a span.
    """

    path: str
    label: str | None
    num_frames: int
    seconds: float
    content: str = ""
    start_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not self.path or self.label == "":
            raise ValueError(f"path is {self.path[:60]!r} and label {self.label!r}; neither may be empty")
        if not 1 <= self.num_frames <= _MOST_FRAMES:
            raise ValueError(f"num_frames is {self.num_frames}; it must be from 1 to {_MOST_FRAMES:,}")
        if not (0 <= self.seconds <= _MOST_SECONDS and 0 <= self.start_seconds <= _MOST_SECONDS):
            raise ValueError(
                f"seconds is {self.seconds:g} and start_seconds {self.start_seconds:g}; they must be from 0 to "
                f"{_MOST_SECONDS:g}"
            )

    def time_of(self, frame: int) -> float:
        """Return when a frame is shown, in seconds from the start of the file on, if frames are evenly spaced."""
        return self.start_seconds + frame * (self.seconds / self.num_frames)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row comes from: the entry, its file, and the span: first frame and end frame, counted in the entry.

    Start and end in seconds are counted in the file.
    """

    entry: Entry
    file: str
    start_frame: int
    end_frame: int
    start_seconds: float
    end_seconds: float


def video_lines(videos: Iterable[Entry]) -> bytes:
    """Return the content of videos.jsonl."""
    names, optional = Entry.__slots__, ("content", "start_seconds")
    values = (
        {name: value for name in names if (value := getattr(video, name)) or name not in optional} for video in videos
    )
    return b"".join(json.dumps(each).encode() + b"\n" for each in values)


def noun_of(lines: bytes) -> str:
    """What the entries of videos.jsonl are: spans, if some do not begin with their file, or videos."""
    return "span" if b'"start_seconds"' in lines else "video"


def cut_text(entries: Iterable[Entry]) -> str:
    """How videos were cut into spans, in words: how long those of a file are, and how far apart they begin."""
    if not (files := _cut_files(entries)):
        return "whole videos"
    length, step = _length_and_step(files)
    return f"spans of {length:.1f} s, which begin every {step:.1f} s"


def segment_options(entries: Sequence[Entry], given: Mapping[str, str]) -> Mapping[str, str]:
    """The options that cut whole files in this way; none for whole files, and for the spans of a list.

    Args:
        entries: what the files were cut into.
        given: the options that are given now, which are returned where no file is long enough to show others.
    """
    if not (files := _cut_files(entries)):
        longest = max((entry.seconds for entry in entries), default=0.0)
        return given if longest <= float(given.get("segment", 0)) else {}
    length, step = _length_and_step(files)
    pairs = [pair for spans in files for pair in pairwise(spans)]
    is_even = all(isclose(a.seconds, length) and isclose(b.start_seconds - a.start_seconds, step) for a, b in pairs)
    if not is_even or any(spans[0].start_seconds for spans in files):
        return {}
    stride = {} if isclose(length, step) else {"segment_stride": f"{step:g}"}
    return {"segment": f"{length:g}"} | stride


def _cut_files(entries: Iterable[Entry]) -> list[list[Entry]]:
    """The spans of each file that has several."""
    files: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        files[entry.path].append(entry)
    return [spans for spans in files.values() if len(spans) > 1]


def _length_and_step(files: Sequence[Sequence[Entry]]) -> tuple[float, float]:
    """The length of spans and the time between their starts, in seconds."""
    length = max(span.seconds for spans in files for span in spans)
    steps = [b.start_seconds - a.start_seconds for spans in files for a, b in pairwise(spans)]
    return length, min((step for step in steps if step > 0), default=length)


def entries_of(lines: bytes, listed: Path) -> Iterator[Entry]:
    """Read the content of videos.jsonl, every value checked: 100,000 lines in a second or two.

    Args:
        lines: the content.
        listed: the file, for messages.

    Raises:
        CheckpointError: a line is damaged or forged; the message names it.
    """
    every = lines.splitlines()
    for first in range(0, len(every), _LINES_AT_ONCE):
        some = every[first : first + _LINES_AT_ONCE]
        try:
            values = parse_json(b"[" + b",".join(some) + b"]", max_values=_VALUES_PER_LINE * (1 + len(some)))
            if len(values) != len(some) or not all(map(_is_plain, values)):
                raise ValueError("not a list of entries")
            yield from [Entry(**value) for value in values]
        except (TypeError, ValueError, OverflowError):  # line by line, the same checks name the line and the value
            yield from (
                parse_as(Entry, line, f"{listed}, line {number:,}") for number, line in enumerate(some, first + 1)
            )


def _is_plain(values: Any) -> bool:
    """Whether the types of a line's values are those of an entry."""
    return (
        type(values) is dict
        and all(type(value) in _KINDS.get(name, ()) for name, value in values.items())
        and is_text(values.get("path", ""), values.get("label") or "", values.get("content", ""))
    )


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The entries (V) of a collection in columns, which take little memory.

    Attributes:
        files: the paths as listed, each once, in the order in which they first occur.
        file_of: number of each entry's file, int64 (V,).
        labels: the labels, each once, in the order in which they first occur.
        label_of: number of each entry's label, -1 without one, int64 (V,).
        num_frames: length of each, int64 (V,).
        seconds: the same in seconds, float64 (V,).
        starts: its start in seconds from the start of its file on, float64 (V,).
    """

    files: tuple[str, ...]
    file_of: NDArray[np.int64]
    labels: tuple[str, ...]
    label_of: NDArray[np.int64]
    num_frames: NDArray[np.int64]
    seconds: NDArray[np.float64]
    starts: NDArray[np.float64]
    __repr__ = short_repr


def tabulate(entries: Iterable[Entry]) -> Columns:
    """Put entries into columns."""
    files: dict[str, int] = {}
    labels: dict[str | None, int] = {None: -1}
    file_of, label_of, num_frames = array("q"), array("q"), array("q")
    seconds, starts = array("d"), array("d")
    for entry in entries:
        file_of.append(files.setdefault(entry.path, len(files)))
        label_of.append(labels.setdefault(entry.label, len(labels) - 1))
        num_frames.append(entry.num_frames)
        seconds.append(entry.seconds)
        starts.append(entry.start_seconds)
    names = tuple(name for name in labels if name is not None)
    whole = (np.array(column, np.int64) for column in (file_of, label_of, num_frames))
    of_file, of_label, lengths = whole
    return Columns(tuple(files), of_file, names, of_label, lengths, np.array(seconds), np.array(starts))


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """Unit vectors (n, D), memory-mapped if read from disk, with the video, first frame and end of each: int32 (n,).

    ``lengths``, float32 (n,), are those that the network's own vectors had; an earlier version wrote none.
    """

    vectors: Tensor
    videos: Tensor
    starts: Tensor
    ends: Tensor
    lengths: Tensor | None = None
    __repr__ = short_repr

    @property
    def columns(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def cut(self, low: int, high: int) -> "Shard":
        """Return some of its rows."""
        return Shard(**{name: tensor[low:high] for name, tensor in self.columns.items()})


def join_shards(pieces: Sequence[Shard]) -> Shard:
    """Join the rows of several shards, in order; without lengths if one has none."""
    names = set.intersection(*(set(piece.columns) for piece in pieces))
    return Shard(**{name: torch.cat([piece.columns[name] for piece in pieces]) for name in names})


def columns_of(names: Iterable[str]) -> list[str]:
    """The names of a shard's tensors that its file must have, and lengths where it has them."""
    return [field.name for field in fields(Shard) if field.default is MISSING or field.name in names]


def checksum_of(shard: Shard) -> str:
    """Adler-32 of the tensors of a shard, in the order of its fields."""
    checksum = 1
    for tensor in shard.columns.values():
        checksum = adler32(np.ascontiguousarray(tensor.numpy()).data, checksum)
    return f"adler32-{checksum:08x}"
