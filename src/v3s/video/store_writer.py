"""Write videos into a store: every frame decoded once, shrunk where it is large, and appended to a shard."""

import errno
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from mmap import mmap
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import numpy as np
import torch
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from v3s.files.checksum import adler32
from v3s.video.container import VideoError
from v3s.video.frames import ColourSpace, Frames
from v3s.video.index import index_video
from v3s.video.light.mask import blank, check_mask
from v3s.video.light.window import DEEP, ValueWindow, choose_window, shown
from v3s.video.orientation import AS_STORED, orientation_of
from v3s.video.planes import FULL_RANGE, Converter, Layout, fits, layout_of, plane_lines
from v3s.video.store import PixelFormat, StoredVideo, stored_size

_JPEG_QUALITY = 3  # of FFmpeg's 2 (best) to 31
BLOCK = 4096  # bytes: no disk in use has larger ones
PIECE = 4 << 20  # bytes that are written at once
DIRECT = getattr(os, "O_DIRECT", 0)  # of Linux


class ShardWriter:
    """A file that grows by the frames of one video after another.

    What is written gathers in memory and goes to the disk a piece at a time, in a thread, past the system's cache where
    the file system lets it: copies in the cache took longer than decoding (docs/log.md). The disk then takes whole
    blocks alone, so a video begins at one.

    Args:
        path: of the file, which must not exist.

    Attributes:
        checksum: Adler-32 of what was written since :meth:`begin`.
    """

    def __init__(self, path: Path) -> None:
        self.checksum = 1
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        self._pass_cache(True)
        self._gathering, self._leaving = (np.frombuffer(mmap(-1, PIECE), np.uint8) for _ in range(2))
        self._start = self._gathered = 0  # the first place in the file of what is gathered, and how much that is
        self._thread, self._written = ThreadPoolExecutor(1), Future[None]()
        self._written.set_result(None)

    @property
    def size(self) -> int:
        """Written so far, in bytes."""
        return self._start + self._gathered

    @property
    def error(self) -> BaseException | None:
        """Why writing failed, if it did: the disk may be full."""
        return self._written.exception()

    def begin(self) -> int:
        """Start a video; returns where it begins."""
        self._write(np.zeros(-self.size % BLOCK, np.uint8))
        self.checksum = 1
        return self.size

    def write(self, values: np.ndarray) -> None:
        """Append values of a byte each."""
        flat = np.ascontiguousarray(values).reshape(-1)
        self.checksum = adler32(flat, self.checksum)
        self._write(flat)

    def cut(self, size: int) -> None:
        """Take back what was written beyond a size, which is where a video began."""
        if size < self._start:
            self._written.result()
            self._start = size
        self._gathered = size - self._start

    def _write(self, flat: np.ndarray) -> None:
        while len(flat):
            part = flat[: PIECE - self._gathered]
            self._gathering[self._gathered : self._gathered + len(part)] = part
            self._gathered += len(part)
            flat = flat[len(part) :]
            if self._gathered == PIECE:
                self._hand_over()

    def _hand_over(self) -> None:
        """Let the thread write what is gathered, up to the end of a block, once it has written what was before."""
        self._written.result()
        self._gathering, self._leaving = self._leaving, self._gathering
        whole = self._leaving[: self._gathered + -self._gathered % BLOCK]
        self._written = self._thread.submit(self._write_out, whole.data, self._start)
        self._start, self._gathered = self.size, 0

    def _write_out(self, values: memoryview, place: int) -> None:
        while values:
            try:
                os.lseek(self._file, place, os.SEEK_SET)  # only this thread writes
                num_written = os.write(self._file, values)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._pass_cache(False):
                    raise
                continue
            values, place = values[num_written:], place + num_written

    def _pass_cache(self, wanted: bool) -> bool:
        """Write past the system's cache, or through it; whether that is a change that the file system makes."""
        if not DIRECT:
            return False
        from fcntl import F_GETFL, F_SETFL, fcntl

        flags = fcntl(self._file, F_GETFL)
        changed = flags | DIRECT if wanted else flags & ~DIRECT
        with suppress(OSError):
            fcntl(self._file, F_SETFL, changed)
        return fcntl(self._file, F_GETFL) != flags

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._hand_over()
                self._written.result()
                os.ftruncate(self._file, self.size)
                os.fsync(self._file)
        finally:
            self._thread.shutdown()
            os.close(self._file)


def store_video(
    path: str | Path,
    shard: ShardWriter,
    *,
    pixel_format: PixelFormat,
    short_side: int,
    shard_name: str,
    window: str = "auto",
    mask: str | None = None,
) -> StoredVideo:
    """Decode a video once from end to end, and append its frames to a shard.

    Args:
        path: The video.
        shard: Where its frames go.
        pixel_format: As in :class:`StoredVideo`.
        short_side: Larger frames are shrunk to this many pixels by averaging areas; smaller ones are kept.
        shard_name: The shard's name once it is complete.
        window: Of deep pictures, as in :func:`v3s.video.light.window.choose_window`; "auto" decodes them twice.
        mask: Which pixels become black before frames are shrunk, as in :func:`v3s.video.span.seen`; "auto" decodes
            twice.

    Raises:
        VideoError: As :func:`v3s.video.index.index_video` does; the shard is then as it was.
        OSError: The shard cannot be written, which is not the video's fault.
    """
    start = shard.begin()
    writer = _FrameWriter(path, shard, pixel_format, short_side, (window, mask))
    try:
        index = index_video(path, each_frame=writer)
    except BaseException:
        shard.cut(start)
        if shard.error:
            raise shard.error from None
        raise
    num_bytes, checksum = shard.size - start, shard.checksum
    table = np.array(writer.checksums, np.uint32).view(np.uint8)
    if pixel_format == "jpeg":
        places = np.array([*writer.places, start + num_bytes], np.uint64) - np.uint64(start)
        table = np.concatenate([places.view(np.uint8), table])
    shard.write(table)
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
        rate_varies=index.rate_varies,
        remarks=index.remarks,
        fingerprint=index.fingerprint,
        table_checksum=adler32(table),
        window=writer.window,
    )


class _FrameWriter:
    """Writes the frames of one video as they are decoded.

    Attributes:
        size: Height and width of the stored frames.
        colour: Of the stored frames: that of the first, into which any others are brought.
        places: Where the pictures begin in the shard, for "jpeg".
        checksums: Adler-32 of each frame.
        window: Through which deep pictures are seen.
        mask: Which pixels become black.
    """

    def __init__(
        self,
        path: str | Path,
        shard: ShardWriter,
        pixel_format: PixelFormat,
        short_side: int,
        choice: tuple[str, str | None],
    ) -> None:
        self._path, self._choice, self.window = path, choice, cast(ValueWindow | None, None)
        self.mask: str | None = None
        self.size, self.colour, self.places, self.checksums = (0, 0), ColourSpace(), list[int](), list[int]()
        self._shard, self._pixel_format, self._short_side = shard, pixel_format, short_side
        self._layout: Layout | None = None
        self._orientation, self._convert = AS_STORED, Converter()
        self._encoder: VideoCodecContext | None = None

    def __call__(self, frame: VideoFrame) -> None:
        planes = self._planes(frame)
        self.size = planes[0].shape
        if self._pixel_format == "jpeg":
            self.places.append(self._shard.size)
            planes = [np.frombuffer(self._picture(planes), np.uint8)]
        checksum = 1
        for plane in planes:
            self._shard.write(plane)
            checksum = adler32(plane, checksum)
        self.checksums.append(checksum)

    def _planes(self, frame: VideoFrame) -> list[np.ndarray]:
        """The planes to store, contiguous, upright and not too large."""
        if self._layout is None:
            self._choose(frame)
        frame = shown(frame, self.window)
        chosen = self._layout = self._layout or self._begin(frame)
        if self.mask:
            frame = self._blanked(frame, self.mask)
        layout = layout_of(frame) if self._pixel_format == "rgb" else chosen
        size = stored_size(frame.height, frame.width, self._short_side)
        if size != (frame.height, frame.width) or not fits(frame, layout):
            frame = self._convert(frame, layout, size, "AREA")
        turned = [np.ascontiguousarray(self._orientation.upright(plane_lines(plane))) for plane in frame.planes]
        if layout.planes == "gbrp":
            return [turned[2], turned[0], turned[1]]
        if self._pixel_format == "rgb":
            luma, chroma = torch.from_numpy(turned[0]), torch.from_numpy(np.stack(turned[1:]))
            return list(Frames((luma[None, None], chroma[None]), layout.colour).rgb()[0].numpy())
        return turned

    def _choose(self, first: VideoFrame) -> None:
        """Choose the window, the mask and the orientation; what all frames say is learned in a pass of its own."""
        window, mask = self._choice
        is_deep = first.format.name in DEEP
        asks = mask == "auto" or (is_deep and window == "auto")
        known = index_video(self._path, find_key_frames=False) if asks else None
        if is_deep:
            self.window = choose_window(window, first.format.name, known.window if known else None)
        self.mask = known.overlay if known and mask == "auto" else mask if mask != "auto" else None
        self._orientation = orientation_of(first) or AS_STORED  # `shown` makes frames that no longer say it
        if self.mask:
            height, width = self._orientation.upright_shape(first.height, first.width)
            try:
                check_mask(self.mask, width, height)
            except ValueError as error:
                raise VideoError(f"{self._path}: {error}", "open") from error

    def _blanked(self, frame: VideoFrame, mask: str) -> VideoFrame:
        """A frame whose masked pixels are black."""
        layout = layout_of(frame)
        planes = list(map(plane_lines, self._convert(frame, layout).planes))
        groups = [planes] if layout.planes == "gbrp" else [planes[:1], planes[1:]]
        upright = [[self._orientation.upright(plane) for plane in group] for group in groups]
        made = VideoFrame(frame.width, frame.height, layout.planes)  # the decoder still needs its own
        made.colorspace = frame.colorspace
        made.color_range = ColorRange.JPEG if layout.colour and layout.colour.full else frame.color_range
        for plane, values in zip(made.planes, chain(*blank(upright, mask, layout.colour)), strict=True):
            plane_lines(plane)[:] = self._orientation.as_stored(values)
        return made

    def _begin(self, first: VideoFrame) -> Layout:
        """Choose the layout of the stored frames. Values of RGB and greys keep the range that they are marked with."""
        read = layout_of(first)
        self.colour = read.colour or ColourSpace(full=int(first.color_range) == FULL_RANGE)
        return Layout("yuv420p", self.colour)

    def _picture(self, planes: list[np.ndarray]) -> bytes:
        """Planes as a JPEG picture; their values are kept whatever their range."""
        height, width = self.size
        if self._encoder is None:
            encoder = av.CodecContext.create("mjpeg", "w")
            assert isinstance(encoder, VideoCodecContext)
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
            encoder.time_base, encoder.thread_count = Fraction(1, 25), 1
            encoder.qmin = encoder.qmax = _JPEG_QUALITY
            self._encoder = encoder
        picture = VideoFrame(width, height, "yuvj420p")
        for plane, values in zip(picture.planes, planes, strict=True):
            plane_lines(plane)[:] = values
        picture.pts = len(self.places)
        return b"".join(map(bytes, self._encoder.encode(picture)))
