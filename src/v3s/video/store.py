"""Frames decoded once and kept: how one video lies in a shard of a store, and how chosen frames come out of it.

A frame is a record of planes, brightness first, then the two colour differences; or the JPEG picture of them. A video's
records follow one another: any frame is one read, and nothing before it is decoded.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch
from av.video.codeccontext import VideoCodecContext

from v3s.video.checksum import adler32
from v3s.video.container import VideoError
from v3s.video.frames import ColourSpace, Frames
from v3s.video.planes import plane_lines

PixelFormat = Literal["yuv", "jpeg", "rgb"]
SHORT_SIDE = 256  # stored frames have at most so many pixels on their short side, unless asked otherwise
_PADDING = bytes(64)  # FFmpeg's readers look ahead


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """One video in a store.

    Attributes:
        path: The video that was stored.
        shard: The file that holds its frames.
        offset: Where they begin in it, in bytes.
        num_bytes: How many bytes they take, for "jpeg" without the table of offsets (uint64) that follows them.
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

    def to_json(self) -> str:
        """Write it as one line of JSON."""
        return json.dumps(asdict(self))


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

    Raises:
        VideoError: If a number is out of range, or the shard is missing or shorter than it was written.
    """
    for number in frames:
        if not 0 <= number < video.num_frames:
            raise VideoError(f"{video.path}: has frames 0 to {video.num_frames - 1}; frame {number} was asked for")
    shapes = plane_shapes(video.pixel_format, video.height, video.width)
    clip = [np.empty((len(frames), *shape), np.uint8) for shape in shapes]
    try:
        with Path(video.shard).open("rb", buffering=0) as shard:
            read = _read_pictures if video.pixel_format == "jpeg" else _read_planes
            read(video, shard.fileno(), frames, clip)
    except OSError as error:
        raise VideoError(f"{video.path}: its frames cannot be read from {video.shard}: {error.strerror}") from error
    colour = None if video.pixel_format == "rgb" else ColourSpace(video.matrix, video.full)
    return Frames(tuple(map(torch.from_numpy, clip)), colour)


def _read_planes(video: StoredVideo, file: int, frames: Sequence[int], clip: list[np.ndarray]) -> None:
    size = frame_bytes(video.pixel_format, video.height, video.width)
    for position, number in enumerate(frames):
        _check_length(video, os.preadv(file, [group[position] for group in clip], video.offset + number * size), size)


def _read_pictures(video: StoredVideo, file: int, frames: Sequence[int], clip: list[np.ndarray]) -> None:
    table = os.pread(file, 8 * (video.num_frames + 1), video.offset + video.num_bytes)
    _check_length(video, len(table), 8 * (video.num_frames + 1))
    places = np.frombuffer(table, np.uint64)
    decoder = _jpeg_decoder()
    for position, number in enumerate(frames):
        start, end = map(int, places[number : number + 2])
        picture = os.pread(file, end - start, video.offset + start)
        _check_length(video, len(picture), end - start)
        (frame,) = decoder.decode(av.Packet(picture + _PADDING))
        luma, *chroma = map(plane_lines, frame.planes)
        clip[0][position, 0] = luma
        clip[1][position] = chroma


def _check_length(video: StoredVideo, given: int, needed: int) -> None:
    if given != needed:
        raise VideoError(f"{video.path}: {video.shard} is shorter than it was written; run v3s prepare again")


def _jpeg_decoder() -> VideoCodecContext:
    decoder = av.CodecContext.create("mjpeg", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    return decoder


def verify_stored(video: StoredVideo) -> None:
    """Compare a video's bytes with their checksum.

    Raises:
        VideoError: They differ, or cannot be read.
    """
    checksum, left = 1, video.num_bytes
    try:
        with Path(video.shard).open("rb") as shard:
            shard.seek(video.offset)
            while left and (block := shard.read(min(left, 1 << 22))):
                checksum, left = adler32(block, checksum), left - len(block)
    except OSError as error:
        raise VideoError(f"{video.path}: its frames cannot be read from {video.shard}: {error.strerror}") from error
    if left or checksum != video.checksum:
        raise VideoError(f"{video.path}: its frames in {video.shard} are damaged; delete the shard, run v3s prepare")
