"""What a collection consists of: entries, the lines of videos.jsonl, and rows, which its shards hold."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from v3s.files.checksum import adler32
from v3s.files.reading import parse_as
from v3s.files.text import short_repr

VIDEOS = "videos.jsonl"


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
        if self.num_frames < 1 or min(self.seconds, self.start_seconds) < 0:
            raise ValueError(f"num_frames is {self.num_frames} and seconds {self.seconds}; both must be positive")

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


def entries_of(lines: bytes, folder: Path) -> Iterator[Entry]:
    """Read the content of videos.jsonl."""
    return (parse_as(Entry, line, folder / VIDEOS) for line in lines.splitlines())


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
