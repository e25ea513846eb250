"""A video file as FFmpeg reads it, and the index of one: true length, size, timing, and where it may be entered.

Containers overstate their length, timestamps mislead, and a key frame is not always a safe place to start. So a file
is decoded once from end to end, and what that pass learned is kept in a :class:`VideoIndex`.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

MAX_PIXELS = 4096 * 4096
"""Largest frame that is decoded, in pixels: DCI 4K fits, and a small file cannot ask for gigabytes."""

# Formats that hold their own pictures. Playlists (concat, hls, dash) and numbered images would open other files.
FORMATS = (
    "apng,asf,av1,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,swf,"
    "wtv,yuv4mpegpipe"
)
MIN_FRAMES_BETWEEN_KEYS = 12
NUM_CHECKED_FRAMES = 3


class VideoError(ValueError):
    """A video that cannot be read, with the file and the reason in its message."""


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """What one decode pass over a file learned.

    Attributes:
        path: The file.
        num_bytes: Its size, by which a file that changed is noticed.
        num_frames: The number of frames that a full sequential decode gives.
        num_corrupt: How many of them the decoder marks as damaged and patched up. A patch depends on all that was
            decoded before, so a file with any is read in sequence from its start.
        height: Height in pixels, after the display rotation.
        width: Width in pixels, after the display rotation. The sample aspect ratio is not applied.
        rotation: Counter-clockwise display rotation in degrees: 0, 90, 180 or 270.
        fps: Mean frame rate in frames per second.
        duration_seconds: From the first frame's start to the last frame's end.
        codec: FFmpeg's name of the decoder.
        pixel_format: FFmpeg's name of the stored pixel format.
        timestamps: The presentation time of every frame in the stream's time base, strictly increasing: a ``range``
            where they are evenly spaced. Empty where the file's own are missing, repeated or out of order; such a
            file is read in sequence from its start.
        packets_match: Whether every packet's time is the time of exactly one frame, so that a packet whose picture is
            not wanted is known before it is decoded.
        key_frames: Numbers of the frames besides the first at which decoding may start: each was tried.
    """

    path: str
    num_bytes: int
    num_frames: int
    num_corrupt: int
    height: int
    width: int
    rotation: int
    fps: float
    duration_seconds: float
    codec: str
    pixel_format: str
    timestamps: Sequence[int]
    packets_match: bool
    key_frames: tuple[int, ...]

    def to_json(self) -> str:
        """Write the index as one line of JSON; evenly spaced timestamps shrink to ``[start, step]``."""
        times = self.timestamps
        compact = [times.start, times.step] if isinstance(times, range) else list(times)
        return json.dumps({item.name: getattr(self, item.name) for item in fields(self)} | {"timestamps": compact})

    @classmethod
    def from_json(cls, line: str) -> "VideoIndex":
        """Read an index that :meth:`to_json` wrote."""
        values = json.loads(line)
        times = values["timestamps"]
        if len(times) == 2:
            start, step = times
            times = range(start, start + step * values["num_frames"], step)
        values["timestamps"] = times if isinstance(times, range) else tuple(times)
        return cls(**values | {"key_frames": tuple(values["key_frames"])})


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file's first video stream for decoding on one thread, and close it in any case.

    This is the border with FFmpeg, which fails in many ways (its own errors, ``IndexError``, ``UnicodeDecodeError``):
    whatever it raises inside the ``with`` block leaves it as a :class:`VideoError`.

    Raises:
        VideoError: If the file is missing, empty, not a video, or fails while it is read.
    """
    if not Path(path).is_file():
        raise VideoError(f"{path}: {'is not a file' if Path(path).exists() else 'does not exist'}")
    if Path(path).stat().st_size == 0:
        raise VideoError(f"{path}: is an empty file")
    try:
        with _open_container(path) as container:
            yield container, _video_stream(container, path)
    except (VideoError, AssertionError):
        raise
    except Exception as error:
        raise VideoError(f"{path}: is not a video, or is damaged: {_reason(error)}") from error


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


def index_video(
    path: str | Path, *, each_frame: Callable[[VideoFrame], None] | None = None, find_key_frames: bool = True
) -> VideoIndex:
    """Decode a file once from end to end and learn its true length, size, timing and safe starting points.

    A key frame is kept only if seeking to it in a newly opened file gives the pixels that the pass from the start gave:
    groups of pictures may be open, and seeking may land elsewhere.

    Args:
        path: Any container that FFmpeg reads, except playlists and numbered images.
        each_frame: Called with every frame, in order; it belongs to the decoder once the call is over.
        find_key_frames: Try the key frames; without, the index has none.

    Returns:
        The index from which :func:`v3s.video.decode.read_frames` reads.

    Raises:
        VideoError: If the file is missing, empty, not a video, damaged, changes its frame size on the way or has
            frames of more than :data:`MAX_PIXELS`. A file counts as damaged if decoding fails anywhere, or if more
            than 8 frames and more than 10 % of what its header promises do not decode; smaller lies are common.
    """
    with open_video(path) as (container, stream):
        seen = _decode_all(path, container, stream, each_frame)
        timestamps = _timestamps(seen.frame_times)
        fps = _frame_rate(path, stream, timestamps)
        duration = len(seen.frame_times) / fps
        if timestamps:
            duration = float((timestamps[-1] - timestamps[0]) * (stream.time_base or 0)) + 1 / fps
        upright = seen.rotation % 180 == 0
        shortcuts = find_key_frames and bool(timestamps) and seen.num_corrupt == 0
        return VideoIndex(
            path=str(path),
            num_bytes=Path(path).stat().st_size,
            num_frames=len(seen.frame_times),
            num_corrupt=seen.num_corrupt,
            height=seen.size[1] if upright else seen.size[0],
            width=seen.size[0] if upright else seen.size[1],
            rotation=seen.rotation,
            fps=fps,
            duration_seconds=duration,
            codec=stream.codec_context.name,
            pixel_format=seen.pixel_format,
            timestamps=timestamps,
            packets_match=shortcuts and sorted(seen.packet_times) == list(timestamps),
            key_frames=tuple(_safe_key_frames(path, timestamps, seen)) if shortcuts else (),
        )


def _open_container(path: str | Path) -> InputContainer:
    # max_pixels guards the probing decoder. "file:" keeps a colon in a name from being read as a protocol.
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS, "max_pixels": str(MAX_PIXELS)}
    try:
        return av.open(f"file:{path}", mode="r", metadata_errors="ignore", options=options)  # tags may not be UTF-8
    except av.ArgumentError as error:
        raise VideoError(f"{path}: is in none of the video formats that are read: {FORMATS}") from error


def _video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise VideoError(f"{path}: has no video stream")
    decoder = streams[0].codec_context
    if decoder is None:
        raise VideoError(f"{path}: its video has a codec that FFmpeg cannot decode")
    if decoder.width * decoder.height > MAX_PIXELS:
        raise VideoError(f"{path}: frames of {decoder.width}x{decoder.height} exceed the limit of {MAX_PIXELS} pixels")
    decoder.options = {"max_pixels": str(MAX_PIXELS)}
    decoder.thread_type = "NONE"
    decoder.thread_count = 1
    return streams[0]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"


class _Pass:
    """What the pass over the whole file saw, packet by packet and frame by frame."""

    def __init__(self) -> None:
        self.frame_times: list[int | None] = []
        self.packet_times: list[int] = []
        self.num_packets = self.num_discarded = self.num_corrupt = 0
        self.size, self.rotation, self.pixel_format = (0, 0), 0, ""  # (width, height) as stored
        self.key_times: list[int] = []  # of key packets, not nearer than they pay
        self.fingerprints: dict[int, int] = {}  # time -> checksum of the first frames from each key frame on
        self._last_key = self._num_keys_reached = self._num_to_check = 0

    def add_packet(self, packet: "Packet[VideoStream]") -> None:
        if packet.pts is not None:
            self.packet_times.append(packet.pts)
            if packet.is_keyframe and self.num_packets - self._last_key >= MIN_FRAMES_BETWEEN_KEYS:
                self.key_times.append(packet.pts)
                self._last_key = self.num_packets
        self.num_packets += 1
        self.num_discarded += packet.is_discard

    def add_frame(self, frame: VideoFrame) -> None:
        if not self.frame_times:
            self.size, self.pixel_format = (frame.width, frame.height), frame.format.name
            self.rotation = frame.rotation % 360
        self.frame_times.append(frame.pts)
        self.num_corrupt += frame.is_corrupt
        if frame.pts is None:
            return
        if self._num_keys_reached < len(self.key_times) and frame.pts >= self.key_times[self._num_keys_reached]:
            self._num_keys_reached += 1
            self._num_to_check = NUM_CHECKED_FRAMES
        if self._num_to_check:
            self.fingerprints[frame.pts] = _fingerprint(frame)
            self._num_to_check -= 1


def _decode_all(
    path: str | Path,
    container: InputContainer,
    stream: VideoStream,
    each_frame: Callable[[VideoFrame], None] | None,
) -> _Pass:
    seen = _Pass()
    try:
        for packet in container.demux(stream):
            if packet.size:
                seen.add_packet(packet)
            for frame in stream.decode(packet):
                seen.add_frame(frame)
                if (frame.width, frame.height) != seen.size:
                    sizes = f"{seen.size[0]}x{seen.size[1]} to {frame.width}x{frame.height}"
                    raise VideoError(f"{path}: frame size changes from {sizes} at frame {len(seen.frame_times) - 1}")
                if each_frame:
                    each_frame(frame)
    except VideoError:
        raise
    except Exception as error:
        num_decoded = len(seen.frame_times)
        raise VideoError(f"{path}: is damaged: decoding failed at frame {num_decoded} ({_reason(error)})") from error
    num_decoded, num_promised = len(seen.frame_times), stream.frames - seen.num_discarded
    if num_promised - num_decoded > max(8, num_promised / 10):
        raise VideoError(f"{path}: is damaged: its header promises {num_promised} frames, only {num_decoded} decode")
    if num_decoded == 0:
        raise VideoError(f"{path}: has a video stream without a frame that decodes")
    if seen.rotation % 90:
        raise VideoError(f"{path}: display rotation of {seen.rotation} degrees is not a multiple of 90")
    return seen


def _timestamps(times: list[int | None]) -> Sequence[int]:
    known = [time for time in times if time is not None]
    steps = {later - earlier for earlier, later in pairwise(known)}
    if len(known) < len(times) or any(step <= 0 for step in steps):
        return ()
    if len(steps) > 1:
        return tuple(known)
    step = steps.pop() if steps else 1
    return range(known[0], known[0] + step * len(known), step)


def _frame_rate(path: str | Path, stream: VideoStream, timestamps: Sequence[int]) -> float:
    """The rate that the header states; where it is silent, the mean of the timestamps, then FFmpeg's guess."""
    if stream.average_rate:
        return float(stream.average_rate)
    if len(timestamps) > 1 and stream.time_base:
        return float((len(timestamps) - 1) / ((timestamps[-1] - timestamps[0]) * stream.time_base))
    if stream.guessed_rate:
        return float(stream.guessed_rate)
    raise VideoError(f"{path}: neither its header nor its timestamps give a frame rate")


def _fingerprint(frame: VideoFrame) -> int:
    """A checksum of the first plane without the padding at the end of its lines."""
    plane = frame.planes[0]
    lines = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)
    return zlib.adler32(lines[:, : plane.width].tobytes())


def _safe_key_frames(path: str | Path, timestamps: Sequence[int], seen: _Pass) -> Iterator[int]:
    """Seek to each key frame and yield its number if the frames from it on are those of the pass from the start."""
    numbers = {time: number for number, time in enumerate(timestamps)}
    with open_video(path) as (container, stream):
        for time in filter(numbers.__contains__, seen.key_times):
            checked = timestamps[numbers[time] : numbers[time] + NUM_CHECKED_FRAMES]
            expected = [(checked_time, seen.fingerprints.get(checked_time)) for checked_time in checked]
            if _fingerprints_from(container, stream, time, len(checked)) == expected:
                yield numbers[time]


def _fingerprints_from(
    container: InputContainer, stream: VideoStream, time: int, num_frames: int
) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    try:
        for packet in packets_from(container, stream, time):
            for frame in stream.decode(packet):
                if frame.pts is not None and frame.pts >= time:
                    found.append((frame.pts, _fingerprint(frame)))
            if len(found) >= num_frames:
                break
    except av.FFmpegError:  # the format cannot seek, or what follows cannot be decoded from here
        return []
    return found[:num_frames]
