"""The lines of videos.jsonl: the videos and spans that a collection has vectors of."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from v3s.files.reading import parse_as

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
