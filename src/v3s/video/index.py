"""The index of a video: true length, size, timing, and where it may be entered.

Containers overstate their length, timestamps mislead, and a key frame is not always a safe place to start. So a file
is decoded once from end to end, and what that pass learned is kept in a :class:`VideoIndex`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from v3s.video.checksum import adler32
from v3s.video.container import Stage, VideoError, open_video, packets_from, reason_of, stated_seconds

__all__ = ["VideoError", "VideoIndex", "index_video", "open_video", "packets_from"]

FORMATS_THAT_STATE_LENGTH = {"asf", "flv", "matroska,webm"}  # in seconds, and no number of frames
STEADY_SHARE = 0.9  # of the steps between packets: fewer, and a length tells no number of frames
MIN_FRAMES_BETWEEN_KEYS = 12
NUM_CHECKED_FRAMES = 3


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
        known_format: FFmpeg's name of the container's format where the packets have the same times in a file that is
            opened by it, without probing; elsewhere ``None``.
        codec: FFmpeg's name of the decoder.
        pixel_format: FFmpeg's name of the stored pixel format.
        timestamps: The presentation time of every frame in the stream's time base, strictly increasing: a ``range``
            where they are evenly spaced. Empty where the file's own are missing, repeated or out of order; such a
            file is read in sequence from its start.
        packets_match: Whether every packet's time is the time of exactly one frame, so that a packet whose picture is
            not wanted is known before it is decoded.
        key_frames: Numbers of the frames besides the first at which decoding may start, ascending: each was tried.
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
    known_format: str | None
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


def index_video(
    path: str | Path,
    *,
    each_frame: Callable[[VideoFrame], None] | None = None,
    find_key_frames: bool = True,
    tick: Callable[[], None] = lambda: None,
) -> VideoIndex:
    """Decode a file once from end to end and learn its true length, size, timing and safe starting points.

    A key frame is kept only if seeking to it in a newly opened file gives the pixels that the pass from the start gave:
    groups of pictures may be open, and seeking may land elsewhere.

    Args:
        path: Any container that FFmpeg reads, except playlists and numbered images.
        each_frame: Called with every frame, in order; it belongs to the decoder once the call is over.
        find_key_frames: Try the key frames; without, the index has none.
        tick: Called again and again: a long file takes long, and this tells it from a hang.

    Returns:
        The index from which :func:`v3s.video.decode.read_frames` reads.

    Raises:
        VideoError: If the file is missing, empty, not a video, damaged, changes its frame size on the way or has
            frames of more than :data:`MAX_PIXELS`, more than :data:`MAX_STREAMS` streams or a duration beyond
            :data:`MAX_SECONDS`. A file counts as damaged if decoding fails anywhere, or if more than 8 frames and more
            than 10 % of what it promises do not decode; smaller lies are common. Of a damaged file the error tells how
            many frames decode.
    """
    with open_video(path) as (container, stream):
        seen = _decode_all(path, container, stream, _Pass(find_key_frames), each_frame, tick)
        timestamps = _timestamps(seen.frame_times)
        fps = _frame_rate(path, stream, timestamps)
        duration = len(seen.frame_times) / fps
        if timestamps:
            duration = float((timestamps[-1] - timestamps[0]) * (stream.time_base or 0)) + 1 / fps
        upright = seen.rotation % 180 == 0
        shortcuts = find_key_frames and bool(timestamps) and seen.num_corrupt == 0
        packets_match = shortcuts and sorted(seen.packet_times) == list(timestamps)
        known_format = _known_format(path, container, seen, tick) if packets_match else None
        key_frames = _safe_key_frames(path, known_format, timestamps, seen, tick) if shortcuts else ()
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
            known_format=known_format,
            codec=stream.codec_context.name,
            pixel_format=seen.pixel_format,
            timestamps=timestamps,
            packets_match=packets_match,
            key_frames=tuple(sorted(key_frames)),
        )


class _Pass:
    """What the pass over the whole file saw, packet by packet and frame by frame."""

    def __init__(self, find_key_frames: bool) -> None:
        self._find_key_frames = find_key_frames
        self.frame_times: list[int | None] = []
        self.failure: tuple[Stage, str] | None = None  # the first
        self.packet_times: list[int] = []
        self.num_packets = self.num_discarded = self.num_corrupt = 0
        self.size, self.rotation, self.pixel_format = (0, 0), 0, ""  # (width, height) as stored
        self.key_times: list[int] = []  # of key packets, not nearer than they pay
        self.fingerprints: dict[int, int] = {}  # time -> checksum of the first frames from each key frame on
        self._last_key = self._num_keys_reached = self._num_to_check = 0

    def note_failure(self, stage: Stage, error: Exception) -> None:
        reason = f"{stage} failed at frame {len(self.frame_times)} ({reason_of(error)})"
        self.failure = self.failure or (stage, reason)

    def add_packet(self, packet: "Packet[VideoStream]") -> None:
        if packet.pts is not None:
            self.packet_times.append(packet.pts)
            far_enough = self.num_packets - self._last_key >= MIN_FRAMES_BETWEEN_KEYS
            if self._find_key_frames and packet.is_keyframe and far_enough:
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
    seen: _Pass,
    each_frame: Callable[[VideoFrame], None] | None,
    tick: Callable[[], None],
) -> _Pass:
    for packet in _demux(container, stream, seen):
        tick()
        if packet.size:
            seen.add_packet(packet)
        for frame in _decode(stream, packet, seen):
            seen.add_frame(frame)
            if (frame.width, frame.height) != seen.size:
                sizes = f"{seen.size[0]}x{seen.size[1]} to {frame.width}x{frame.height}"
                raise VideoError(f"{path}: frame size changes from {sizes} at frame {len(seen.frame_times) - 1}")
            if each_frame:
                each_frame(frame)
    num_decoded, num_promised = len(seen.frame_times), _num_promised(container, stream, seen)
    if seen.failure is None and num_promised - num_decoded > max(8, num_promised / 10):
        seen.failure = ("demux" if seen.num_packets < num_promised else "decode"), "frames are missing"
    if seen.failure:
        stage, reason = seen.failure
        counts = f"of {num_promised} promised frames {num_decoded} decode"
        raise VideoError(f"{path}: is damaged: {reason}; {counts}", stage, num_decoded)
    if num_decoded == 0:
        raise VideoError(f"{path}: has a video stream without a frame that decodes")
    if seen.rotation % 90:
        raise VideoError(f"{path}: display rotation of {seen.rotation} degrees is not a multiple of 90")
    return seen


def _demux(container: InputContainer, stream: VideoStream, seen: _Pass) -> "Iterator[Packet[VideoStream]]":
    """Yield packets as far as they can be read."""
    try:
        yield from container.demux(stream)
    except av.FFmpegError as error:
        seen.note_failure("demux", error)


def _decode(stream: VideoStream, packet: "Packet[VideoStream]", seen: _Pass) -> list[VideoFrame]:
    """Decode one packet; one that cannot be decoded gives no frame, and those after it are still tried."""
    try:
        return stream.decode(packet)
    except av.FFmpegError as error:
        seen.note_failure("decode", error)
        return []


def _num_promised(container: InputContainer, stream: VideoStream, seen: _Pass) -> int:
    """How many frames a file has by its own account: its header's number, its packets, its length at a steady rate.

    A length counts only where the header states it (elsewhere FFmpeg guesses) and no sound may have set it.
    """
    promised = [stream.frames, seen.num_packets]
    states_length = container.format.name in FORMATS_THAT_STATE_LENGTH and len(container.streams) == 1
    if states_length and (step := _steady_step(seen.packet_times)) and stream.time_base:
        promised.append(round(stated_seconds(container, stream) / float(step * stream.time_base)))
    return max(promised) - seen.num_discarded


def _steady_step(times: Sequence[int]) -> int:
    """The usual step between packets in presentation order; 0 where fewer than nine in ten are about as long."""
    steps = np.diff(np.sort(np.array(times)))
    if not len(steps):
        return 0
    step = int(np.median(steps))
    usual = np.abs(steps - step) <= max(1, step / 10)
    return step if usual.mean() >= STEADY_SHARE else 0


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
    return adler32(lines[:, : plane.width].tobytes())


def _known_format(path: str | Path, probed: InputContainer, seen: _Pass, tick: Callable[[], None]) -> str | None:
    """The format by which the file opens without probing, if the times of its packets stay the same."""
    known_format, times = probed.format.name.split(",")[0], []
    try:
        with open_video(path, known_format) as (container, stream):
            for packet in container.demux(stream):
                tick()
                if packet.size:
                    times.append(packet.pts)
    except VideoError:
        return None
    return known_format if times == seen.packet_times else None


def _safe_key_frames(
    path: str | Path, known_format: str | None, timestamps: Sequence[int], seen: _Pass, tick: Callable[[], None]
) -> Iterator[int]:
    """Seek to each key frame and yield its number if the frames from it on are those of the pass from the start."""
    numbers = {time: number for number, time in enumerate(timestamps)}
    with open_video(path, known_format) as (container, stream):
        for time in filter(numbers.__contains__, seen.key_times):
            tick()
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
