"""A video file as FFmpeg opens it: which files are let in, and one kind of error for all that can go wrong."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

MAX_PIXELS = 4096 * 4096
"""Largest frame that is decoded, in pixels: DCI 4K fits, and a small file cannot ask for gigabytes."""

MAX_STREAMS = 32
"""A file has fewer streams: each is probed with a decoder of its own before the first frame is known."""

MAX_SECONDS = 1e6
"""Longest duration that is believed, in seconds: eleven days. A file of any size may state any length."""

# Formats that hold their own pictures. Playlists (concat, hls, dash) and numbered images would open other files.
FORMATS = (
    "apng,asf,av1,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,swf,"
    "wtv,yuv4mpegpipe"
)

# The list of the decoders that may probe has none, and no packets are read to guess a rate.
NO_PROBING = {"codec_whitelist": "none", "fpsprobesize": "0"}

Stage = Literal["open", "demux", "decode"]
"""Where reading failed: finding a video in the file, taking packets from it, or making pictures of them."""


class VideoError(ValueError):
    """A video that cannot be read, with the file and the reason in its message.

    Attributes:
        stage: Where reading failed.
        num_frames: How many frames of a damaged file decode all the same; 0 where it is refused as a whole.
    """

    def __init__(self, message: str, stage: Stage = "decode", num_frames: int = 0) -> None:
        super().__init__(message)
        self.stage: Stage = stage
        self.num_frames = num_frames


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a file cannot be used.

    Attributes:
        stage: Where reading it failed.
        reason: Why, without the file's name.
        num_frames: How many of its frames decode all the same; 0 where it is refused as a whole.
    """

    stage: Stage
    reason: str
    num_frames: int = 0

    @classmethod
    def of(cls, error: VideoError, path: str) -> "Failure":
        """What an error says of a file."""
        return cls(error.stage, str(error).removeprefix(f"{path}: "), error.num_frames)


@contextmanager
def open_video(path: str | Path, known_format: str | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file's first video stream for decoding on one thread, and close it in any case.

    Packets of other streams are not read.

    This is the border with FFmpeg, which fails in many ways (its own errors, ``IndexError``, ``UnicodeDecodeError``):
    whatever it raises inside the ``with`` block leaves it as a :class:`VideoError`.

    Args:
        path: The file.
        known_format: FFmpeg's name of the container's format, for a file that was opened before. Without it the format
            is found out, every stream is probed (its first frames are decoded, sound too, for what the header does not
            say) and the limits are checked, which takes up to five times as long. Packets of a file that is not probed
            may have other times: :mod:`v3s.video.index` compares them.

    Raises:
        VideoError: If the file is missing, empty, not a video, or fails while it is read.
    """
    if not os.path.isfile(path):
        raise VideoError(f"{path}: {'is not a file' if os.path.exists(path) else 'does not exist'}", "open")
    if os.path.getsize(path) == 0:
        raise VideoError(f"{path}: is an empty file", "open")
    stage: Stage = "open"
    try:
        with _open_container(path, known_format) as container:
            stream = _video_stream(container, path)
            if known_format is None:
                _check_limits(container, stream, path)
            stage = "decode"
            yield container, stream
    except (VideoError, AssertionError):
        raise
    except Exception as error:
        raise VideoError(f"{path}: is not a video, or is damaged: {reason_of(error)}", stage) from error


def packets_from(container: InputContainer, stream: VideoStream, time: int | None) -> "Iterator[Packet[VideoStream]]":
    """Yield a stream's packets from a key frame's on, ``None`` for all; nothing where seeking does not reach it."""
    if time is None:
        yield from container.demux(stream)
        return
    container.seek(time, stream=stream)
    packets = container.demux(stream)
    for packet in packets:
        if packet.pts is None or packet.pts > time:
            return
        if packet.pts == time:
            yield packet
            break
    yield from packets


def _open_container(path: str | Path, known_format: str | None) -> InputContainer:
    # max_pixels guards the probing decoder. "file:" keeps a colon in a name from being read as a protocol.
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": FORMATS,
        "max_pixels": str(MAX_PIXELS),
        "max_streams": str(MAX_STREAMS),
    } | (NO_PROBING if known_format else {})
    try:  # tags may not be UTF-8
        return av.open(f"file:{path}", format=known_format, mode="r", metadata_errors="ignore", options=options)
    except av.ArgumentError as error:
        raise VideoError(f"{path}: is in none of the video formats that are read: {FORMATS}", "open") from error
    except MemoryError as error:
        told = f"asks for too much memory, or has {MAX_STREAMS} streams or more"
        raise VideoError(f"{path}: {told}", "open") from error


def _video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise VideoError(f"{path}: has no video stream", "open")
    decoder = streams[0].codec_context
    if decoder is None:
        raise VideoError(f"{path}: its video has a codec that FFmpeg cannot decode", "open")
    for other in container.streams:
        if other is not streams[0]:
            other.discard = Discard.all
    decoder.options = {"max_pixels": str(MAX_PIXELS)}
    decoder.thread_type = "NONE"
    decoder.thread_count = 1
    return streams[0]


def _check_limits(container: InputContainer, stream: VideoStream, path: str | Path) -> None:
    if (width := stream.width) * (height := stream.height) > MAX_PIXELS:
        raise VideoError(f"{path}: frames of {width}x{height} exceed the limit of {MAX_PIXELS} pixels", "open")
    if len(container.streams) >= MAX_STREAMS:
        raise VideoError(f"{path}: has {MAX_STREAMS} streams or more", "open")
    if stream.frames > container.size:
        raise VideoError(f"{path}: states {stream.frames} frames, more than it has bytes", "open")
    seconds = stated_seconds(container, stream)
    if seconds > MAX_SECONDS:
        raise VideoError(f"{path}: states a length of {seconds:.3g} seconds; the limit is {MAX_SECONDS:.0e}", "open")


def stated_seconds(container: InputContainer, stream: VideoStream) -> float:
    """The length that the stream states, else the container's; 0 where neither does."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def reason_of(error: Exception) -> str:
    """FFmpeg's words for an error, without the file's name."""
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
