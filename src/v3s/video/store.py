"""Frames decoded once and kept: how one video lies in a shard of a store, and how chosen frames come out of it.

A frame is a record of planes, brightness first, then the two colour differences; or the JPEG picture of them. A video's
records follow one another: any frame is one read, and nothing before it is decoded.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import ClassVar, Literal

import av
import numpy as np
import torch
from av.video.codeccontext import VideoCodecContext

from v3s.files.checksum import adler32
from v3s.video.container import VideoError
from v3s.video.frames import ColourSpace, Frames
from v3s.video.light.window import ValueWindow
from v3s.video.planes import plane_lines

PixelFormat = Literal["yuv", "jpeg", "rgb"]
SHORT_SIDE = 256  # default for the short side of stored frames, in pixels; smaller frames are not enlarged
MOST_REMEMBERED = 100_000  # videos, of which a process remembers which frames it has compared with their checksums
_PADDING = bytes(64)  # FFmpeg's readers look ahead


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """One video in a store.

    Attributes:
        path: The video that was stored.
        shard: The file that holds its frames.
        offset: Where they begin in it, in bytes.
        num_bytes: How many bytes they take. Behind them lies a table: for "jpeg" the offset (uint64) at which each
            picture begins, and that of the end; then, where ``table_checksum`` is given, the Adler-32 (uint32) of each
            frame.
        checksum: Adler-32 of these bytes.
        pixel_format: "yuv" (4:2:0 planes), "jpeg" (pictures of such) or "rgb" (planes).
        num_frames: The number of frames that a full sequential decode gave.
        height: Of the stored frames in pixels, after the display rotation.
        width: Of the stored frames in pixels.
        matrix: As in :class:`v3s.video.frames.ColourSpace`.
        full: As in :class:`v3s.video.frames.ColourSpace`.
        fps: Mean frame rate of the source in frames per second.
        duration_seconds: Of the source.
        codec: Of the source: FFmpeg's name of its decoder.
        rate_varies: As in :class:`v3s.video.index.VideoIndex`.
        remarks: As in :class:`v3s.video.index.VideoIndex`.
        fingerprint: As in :class:`v3s.video.index.VideoIndex`; in a store of an earlier version of the frames instead.
        table_checksum: Adler-32 of the table; ``None`` in a store of an earlier version, whose frames have no checksums
            of their own.
        window: As in :class:`v3s.video.index.VideoIndex`: the stored frames are what it shows.
    """

    path: str
    shard: str
    offset: int
    num_bytes: int
    checksum: int
    pixel_format: PixelFormat
    num_frames: int
    height: int
    width: int
    matrix: str
    full: bool
    fps: float
    duration_seconds: float
    codec: str
    rate_varies: bool = False
    remarks: tuple[str, ...] = ()
    fingerprint: int = 0
    table_checksum: int | None = None
    window: ValueWindow | None = None

    def to_json(self) -> str:
        """Write it as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "StoredVideo":
        """Read an entry that :meth:`to_json` wrote, of this version or an earlier one."""
        values = json.loads(line)
        of_frames = values["checksum"] << 32 | values["num_bytes"] & 0xFFFFFFFF
        listed = {"remarks": tuple(values.get("remarks", ())), "window": tuple(values.get("window") or ()) or None}
        return cls(**{"fingerprint": of_frames} | values | listed)


def plane_shapes(pixel_format: PixelFormat, height: int, width: int) -> tuple[tuple[int, int, int], ...]:
    """The planes of a frame: (channels, height, width) of each group."""
    if pixel_format == "rgb":
        return ((3, height, width),)
    return (1, height, width), (2, (height + 1) // 2, (width + 1) // 2)


def frame_bytes(pixel_format: PixelFormat, height: int, width: int) -> int:
    """The bytes of a frame; for "jpeg" what it usually takes, a tenth of its planes."""
    planes = sum(channels * tall * wide for channels, tall, wide in plane_shapes(pixel_format, height, width))
    return planes // 10 if pixel_format == "jpeg" else planes


def stored_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width of stored frames: the short side is at most ``short_side``, the shape is kept."""
    shrink = min(1.0, short_side / min(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def read_stored(video: StoredVideo, frames: Sequence[int]) -> Frames:
    """Read chosen frames out of a store; as :func:`v3s.video.decode.read_frames`.

    A frame is compared with its checksum when it is first read in a process.

    Raises:
        VideoError: If a number is out of range, or the frames are missing or damaged.
    """
    for number in frames:
        if not 0 <= number < video.num_frames:
            raise VideoError(f"{video.path}: has frames 0 to {video.num_frames - 1}; frame {number} was asked for")
    shapes = plane_shapes(video.pixel_format, video.height, video.width)
    clip = [np.empty((len(frames), *shape), np.uint8) for shape in shapes]
    with _shard_of(video) as shard:
        read = _read_pictures if video.pixel_format == "jpeg" else _read_planes
        read(video, shard, frames, clip)
    colour = None if video.pixel_format == "rgb" else ColourSpace(video.matrix, video.full)
    return Frames(tuple(map(torch.from_numpy, clip)), colour)


@contextmanager
def _shard_of(video: StoredVideo) -> "Iterator[FileIO]":
    """Open the file that holds a video's frames; what cannot be read of it is a :class:`VideoError`."""
    try:
        with Path(video.shard).open("rb", buffering=0) as shard:
            yield shard
    except OSError as error:
        raise VideoError(f"{video.path}: its frames cannot be read from {video.shard}: {error.strerror}") from error


def _read_planes(video: StoredVideo, file: FileIO, frames: Sequence[int], clip: list[np.ndarray]) -> None:
    size = frame_bytes(video.pixel_format, video.height, video.width)
    with _Checks(video, file, frames) as checks:
        for position, number in enumerate(frames):
            parts = [group[position] for group in clip]
            file.seek(video.offset + number * size)
            _check_length(video, sum(file.readinto(part) for part in parts), size)
            checks.check(number, parts)


def _read_pictures(video: StoredVideo, file: FileIO, frames: Sequence[int], clip: list[np.ndarray]) -> None:
    places = np.frombuffer(_read_table(video, file), np.uint64, video.num_frames + 1)
    decoder = _jpeg_decoder()
    with _Checks(video, file, frames) as checks:
        for position, number in enumerate(frames):
            start, end = map(int, places[number : number + 2])
            if not start < end <= video.num_bytes:
                raise _damaged(video, number)
            file.seek(video.offset + start)
            picture = file.read(end - start)
            _check_length(video, len(picture), end - start)
            checks.check(number, [picture])
            clip[0][position, 0], clip[1][position, 0], clip[1][position, 1] = _decoded(video, number, picture, decoder)


def _decoded(video: StoredVideo, number: int, picture: bytes, decoder: VideoCodecContext) -> list[np.ndarray]:
    """The planes of a JPEG picture."""
    try:
        (frame,) = decoder.decode(av.Packet(picture + _PADDING))
    except (av.FFmpegError, ValueError) as error:  # or it gives no frame, or several
        raise _damaged(video, number) from error
    if (frame.height, frame.width, frame.format.name) != (video.height, video.width, "yuvj420p"):
        raise _damaged(video, number)
    return [plane_lines(plane) for plane in frame.planes]


def _check_length(video: StoredVideo, given: int, needed: int) -> None:
    if given != needed:
        raise VideoError(f"{video.path}: {video.shard} is shorter than it was written; run v3s prepare again")


def _damaged(video: StoredVideo, number: int | None = None) -> VideoError:
    what = f"its frames in {video.shard} are" if number is None else f"frame {number} in {video.shard} is"
    return VideoError(f"{video.path}: {what} damaged; delete the shard, run v3s prepare again")


def _read_table(video: StoredVideo, file: FileIO) -> bytes:
    """The table behind a video's frames, compared with its checksum."""
    size = 8 * (video.num_frames + 1) if video.pixel_format == "jpeg" else 0
    size += 0 if video.table_checksum is None else 4 * video.num_frames
    file.seek(video.offset + video.num_bytes)
    table = file.read(size)
    _check_length(video, len(table), size)
    if video.table_checksum not in (None, adler32(table)):
        raise _damaged(video)
    return table


class _Checks:
    """Compares frames with their checksums, unless this process did so before.

    Args:
        video: Whose frames; those of an earlier version's store have no checksums, and are not compared.
        file: Its shard.
        frames: Numbers of those that will be read.
    """

    _known: ClassVar[dict[int, int]] = {}  # a bit for each frame of a video that was compared

    def __init__(self, video: StoredVideo, file: FileIO, frames: Sequence[int]) -> None:
        self._video, self._key = video, hash((video.shard, video.offset, video.table_checksum))
        self._good = self._known.get(self._key, 0)
        self._sums: np.ndarray | None = None
        if video.table_checksum is not None and any(not self._good >> number & 1 for number in frames):
            self._sums = np.frombuffer(_read_table(video, file)[-4 * video.num_frames :], np.uint32)

    def check(self, number: int, parts: "Sequence[np.ndarray | bytes]") -> None:
        """Compare the bytes of a frame.

        Raises:
            VideoError: They are not those that were written.
        """
        if self._sums is None or self._good >> number & 1:
            return
        checksum = 1
        for part in parts:
            checksum = adler32(part, checksum)
        if checksum != self._sums[number]:
            raise _damaged(self._video, number)
        self._good |= 1 << number

    def __enter__(self) -> "_Checks":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._sums is not None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[self._key] = self._good


def _jpeg_decoder() -> VideoCodecContext:
    decoder = av.CodecContext.create("mjpeg", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    return decoder


def verify_stored(video: StoredVideo) -> None:
    """Compare all bytes of a video with their checksums.

    Raises:
        VideoError: They differ, or cannot be read.
    """
    checksum, left = 1, video.num_bytes
    with _shard_of(video) as shard:
        _read_table(video, shard)
        shard.seek(video.offset)
        while left and (block := shard.read(min(left, 1 << 22))):
            checksum, left = adler32(block, checksum), left - len(block)
    if left or checksum != video.checksum:
        raise _damaged(video)


def read_whole(video: StoredVideo, frames: np.ndarray) -> None:
    """Read all frames of a video that is stored as planes, and compare them with their checksum.

    Args:
        video: In the format "yuv" or "rgb".
        frames: Takes them: uint8, of as many bytes as they have.

    Raises:
        VideoError: They cannot be read, are fewer, or are damaged.
    """
    view, done = frames.data.cast("B"), 0
    with _shard_of(video) as shard:
        shard.seek(video.offset)
        while done < len(view) and (count := shard.readinto(view[done:])):
            done += count
    _check_length(video, done, len(view))
    if adler32(view) != video.checksum:
        raise _damaged(video)
