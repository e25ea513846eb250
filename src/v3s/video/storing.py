"""Write videos into a store: every frame decoded once, shrunk where it is large, and appended to a shard."""

import os
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import torch
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from v3s.video.frames import ColourSpace, Frames
from v3s.video.index import index_video
from v3s.video.planes import colour_of, planar_format, plane_lines
from v3s.video.store import PixelFormat, StoredVideo, stored_size

JPEG_QUALITY = 3  # of FFmpeg's 2 (best) to 31


class ShardWriter:
    """A file that grows by the frames of one video after another.

    Attributes:
        path: of the file, which must not exist.
        size: written so far, in bytes.
        checksum: Adler-32 of what was written since :meth:`begin`.
        error: why the last write failed, if it did: the disk may be full.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.size, self.checksum = path, 0, 1
        self.error: OSError | None = None
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    def begin(self) -> int:
        """Start a video; returns where it begins."""
        self.checksum = 1
        return self.size

    def write(self, buffers: Sequence[Any]) -> None:
        """Append contiguous buffers."""
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        for view in views:
            self.checksum = zlib.adler32(view, self.checksum)
        while views:
            try:
                num_written = os.writev(self._file, views)
            except OSError as error:
                self.error = error
                raise
            self.size += num_written
            while views and num_written >= len(views[0]):
                num_written -= len(views.pop(0))
            if views:
                views[0] = views[0][num_written:]

    def cut(self, size: int) -> None:
        """Take back what was written beyond a size."""
        os.ftruncate(self._file, size)
        self.size = os.lseek(self._file, size, os.SEEK_SET)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)


def store_video(
    path: str | Path, shard: ShardWriter, *, pixel_format: PixelFormat, short_side: int, shard_name: str
) -> StoredVideo:
    """Decode a video once from end to end, and append its frames to a shard.

    Args:
        path: The video.
        shard: Where its frames go.
        pixel_format: As in :class:`StoredVideo`.
        short_side: Larger frames are shrunk to this many pixels by averaging areas; smaller ones are kept.
        shard_name: The shard's name once it is complete.

    Raises:
        VideoError: As :func:`v3s.video.index.index_video` does; the shard is then as it was.
        OSError: The shard cannot be written, which is not the video's fault.
    """
    start = shard.begin()
    writer = _FrameWriter(shard, pixel_format, short_side)
    try:
        index = index_video(path, each_frame=writer, find_key_frames=False)
    except BaseException as error:
        shard.cut(start)
        raise (shard.error or error) from None
    num_bytes, checksum = shard.size - start, shard.checksum
    if pixel_format == "jpeg":
        shard.write([np.array([place - start for place in (*writer.places, start + num_bytes)], np.uint64)])
    height, width = writer.size
    return StoredVideo(
        path=str(path),
        shard=shard_name,
        offset=start,
        num_bytes=num_bytes,
        checksum=checksum,
        pixel_format=pixel_format,
        num_frames=index.num_frames,
        height=height,
        width=width,
        matrix=writer.colour.matrix,
        full=writer.colour.full,
        fps=index.fps,
        duration_seconds=index.duration_seconds,
        codec=index.codec,
    )


class _FrameWriter:
    """Writes the frames of one video as they are decoded.

    Attributes:
        size: Height and width of the stored frames.
        colour: Of the stored frames.
        places: Where the pictures begin in the shard, for "jpeg".
    """

    def __init__(self, shard: ShardWriter, pixel_format: PixelFormat, short_side: int) -> None:
        self.size, self.colour, self.places = (0, 0), ColourSpace(), list[int]()
        self._shard, self._pixel_format, self._short_side = shard, pixel_format, short_side
        self._reformatter = VideoReformatter()
        self._encoder: VideoCodecContext | None = None

    def __call__(self, frame: VideoFrame) -> None:
        planes = self._planes(frame)
        self.size = planes[0].shape
        if self._pixel_format == "jpeg":
            self.places.append(self._shard.size)
            planes = [np.frombuffer(self._picture(planes), np.uint8)]
        self._shard.write(planes)

    def _planes(self, frame: VideoFrame) -> list[np.ndarray]:
        """The planes to store, contiguous, upright and not too large."""
        name, has_colour = frame.format.name, planar_format(frame) != "gbrp"
        self.colour = colour_of(frame) if has_colour else ColourSpace()
        target = "yuvj420p" if self.colour.full else "yuv420p"
        if self._pixel_format == "rgb":
            target = planar_format(frame)
        height, width = stored_size(frame.height, frame.width, self._short_side)
        turns, planes = frame.rotation % 360 // 90, frame.planes
        is_target = name == target or (name == "yuv420p" and has_colour and target == "yuvj420p")
        if (height, width) != (frame.height, frame.width) or not is_target:
            planes = self._reformatter.reformat(
                frame, width=width, height=height, format=target, interpolation="AREA", threads=1
            ).planes
        lines = map(plane_lines, planes)
        turned = [np.ascontiguousarray(np.rot90(plane, turns) if turns else plane) for plane in lines]
        if target == "gbrp":
            return [turned[2], turned[0], turned[1]]
        if self._pixel_format == "rgb":
            luma, chroma = torch.from_numpy(turned[0]), torch.from_numpy(np.stack(turned[1:]))
            return list(Frames((luma[None, None], chroma[None]), self.colour).rgb()[0].numpy())
        return turned

    def _picture(self, planes: list[np.ndarray]) -> bytes:
        """Planes as a JPEG picture; their values are kept whatever their range."""
        height, width = self.size
        if self._encoder is None:
            encoder = av.CodecContext.create("mjpeg", "w")
            assert isinstance(encoder, VideoCodecContext)
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
            encoder.time_base, encoder.thread_count = Fraction(1, 25), 1
            encoder.qmin = encoder.qmax = JPEG_QUALITY
            self._encoder = encoder
        picture = VideoFrame(width, height, "yuvj420p")
        for plane, values in zip(picture.planes, planes, strict=True):
            plane_lines(plane)[:] = values
        picture.pts = len(self.places)
        return b"".join(map(bytes, self._encoder.encode(picture)))
