"""The one decode pass over a whole file: what it contains, whether frames are missing, and what is unusual about it."""

import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from v3s.files.text import counted
from v3s.video.chunks import walk_chunks
from v3s.video.container import (
    BARE_FORMATS,
    Stage,
    VideoError,
    all_packets,
    reason_of,
    stated_frames,
    stated_seconds,
)
from v3s.video.headers import Headers
from v3s.video.light.brightness import Brightness
from v3s.video.light.mask import StillPixels
from v3s.video.light.window import DEEP, ValueCounts, values_of
from v3s.video.orientation import AS_STORED, Orientation, orientation_of
from v3s.video.planes import Layout, PlaneReader, layout_of, meaning_of
from v3s.video.timing import ASSUMED_RATE, HIGHEST_RATE, Timing, steady_step, timing_of

_FORMATS_THAT_STATE_LENGTH = {"asf", "flv", "matroska,webm"}  # in seconds, and no number of frames
MIN_FRAMES_BETWEEN_KEYS = 12
NUM_CHECKED_FRAMES = 3
_DOING: dict[Stage, str] = {"open": "opening", "demux": "reading", "decode": "decoding"}


class ConcealedError(VideoError):
    """The decoder met an error, perhaps one that it conceals: frames may depend on where decoding starts."""


@dataclass(slots=True)
class Pass:
    """What the pass saw, packet by packet and frame by frame.

    Attributes:
        path: The file.
        find_key_frames: Whether to note key packets, and what the frames from them on look like.
        frame_times: Of every frame, in the order in which they came; 0 for one without.
        num_untimed: How many frames have no time.
        packet_times: Of every packet that is not empty and has a time.
        key_times: Of key packets, far enough apart for a seek to pay.
        key_headers: By the time of a key packet that is in `key_times`, the kinds of headers in it.
        headers: Those in all packets, where key frames are looked for.
        checksums: By the time of a frame, of the first frames from each key frame on.
        num_packets: How many are not empty.
        num_discarded: How many of them the file says are not to be shown.
        num_empty: How many chunks of an AVI with missing frames are empty.
        num_corrupt: How many frames the decoder marks as damaged and patched up.
        num_leading: How many packets come before the first key packet; ``None`` where there is none.
        size: Width and height of frames as stored.
        pixel_format: Of the first frame, by FFmpeg's name.
        orientation: Of the first frame, and of all others that have a display matrix.
        layout: Of the planes of the first frame.
        failure: The first, from the first key packet on: its stage, the reason and the error.
        changes: Describes the first change of layout; empty without one.
        digest: Of all packets.
        planes: Reads frames as they are.
        brightness: Of a few of them, if they have 8 bits or no window.
        values: Of all of them, if they are deep and have a window.
        still: Which pixels never change.
    """

    path: str | Path
    find_key_frames: bool = True
    frame_times: "array[int]" = field(default_factory=lambda: array("q"))
    num_untimed: int = 0
    packet_times: "array[int]" = field(default_factory=lambda: array("q"))
    key_times: list[int] = field(default_factory=list)
    key_headers: dict[int, frozenset[int]] = field(default_factory=dict)
    headers: Headers = field(default_factory=Headers)
    checksums: dict[int, int] = field(default_factory=dict)
    num_packets: int = 0
    num_discarded: int = 0
    num_empty: int = 0
    num_corrupt: int = 0
    num_leading: int | None = None
    size: tuple[int, int] = (0, 0)
    pixel_format: str = ""
    orientation: Orientation = AS_STORED
    failure: tuple[Stage, str, Exception] | None = None
    changes: str = ""
    layout: Layout | None = None
    digest: "blake2b" = field(default_factory=lambda: blake2b(digest_size=8))
    planes: PlaneReader = field(default_factory=PlaneReader)
    brightness: Brightness = field(default_factory=Brightness)
    values: ValueCounts = field(default_factory=ValueCounts)
    still: StillPixels = field(default_factory=StillPixels)
    _meaning: tuple[str, int, int] | None = None
    _last_key: int = 0
    _num_keys_reached: int = 0
    _num_to_check: int = 0
    _early_failure: tuple[Stage, str, Exception] | None = None

    def note_failure(self, stage: Stage, error: Exception) -> None:
        """Remember the first failure. Packets before the first key packet need frames that the file does not hold."""
        failure = stage, f"{_DOING[stage]} failed at frame {len(self.frame_times)} ({reason_of(error)})", error
        if self.num_leading is None and stage == "decode":
            self._early_failure = self._early_failure or failure
        else:
            self.failure = self.failure or failure

    def fingerprint(self) -> int:
        """64 bits that identify the video: a digest of its packets, and of how their pictures are shown."""
        digest = self.digest.copy()
        digest.update(repr((self.orientation, self.layout)).encode())
        return int.from_bytes(digest.digest(), "big")

    def failure_of_all(self) -> tuple[Stage, str, Exception | None] | None:
        """The first failure that counts: of a file without a key packet all do."""
        return self.failure or (self._early_failure if self.num_leading is None else None)

    def add_packet(self, packet: "Packet[VideoStream]") -> None:
        """Note a packet that is not empty."""
        if self.num_leading is None and packet.is_keyframe:
            self.num_leading = self.num_packets
        kinds = self.headers.add(packet) if self.find_key_frames else frozenset()
        if packet.pts is not None:
            self.packet_times.append(packet.pts)
            far_enough = self.num_packets - self._last_key >= MIN_FRAMES_BETWEEN_KEYS
            if self.find_key_frames and packet.is_keyframe and far_enough:
                self.key_times.append(packet.pts)
                self.key_headers[packet.pts] = kinds
                self._last_key = self.num_packets
        self.digest.update(packet)
        self.num_packets += 1
        self.num_discarded += packet.is_discard

    def add_frame(self, frame: VideoFrame) -> None:
        """Note a frame.

        Raises:
            VideoError: It is not as large, or not turned, as those before.
        """
        number, time = len(self.frame_times), frame.pts
        is_looked_at = self.brightness.looks_at(number)
        if meaning_of(frame) != self._meaning:
            self._note_meaning(frame, number)
        if (frame.width, frame.height) != self.size:
            sizes = f"{self.size[0]}x{self.size[1]} to {frame.width}x{frame.height}"
            raise VideoError(f"{self.path}: frame size changes from {sizes} at frame {number}")
        if is_looked_at or frame.key_frame or frame.rotation:  # a matrix comes with a key frame, if not with all
            self._check_orientation(frame, number)
        self.frame_times.append(time or 0)
        self.num_untimed += time is None
        self.num_corrupt += frame.is_corrupt
        self._look_at(frame, number)
        if time is None:
            return
        if self._num_keys_reached < len(self.key_times) and time >= self.key_times[self._num_keys_reached]:
            self._num_keys_reached += 1
            self._num_to_check = NUM_CHECKED_FRAMES
        if self._num_to_check:
            self.checksums[time] = self.planes.checksum(frame)
            self._num_to_check -= 1

    def _look_at(self, frame: VideoFrame, number: int) -> None:
        """Count the values of a frame, and compare it with those before."""
        is_deep, is_compared = frame.format.name in DEEP, self.still.looks_at(number)
        if is_deep:
            self.values.add(frame)
        if is_deep and is_compared:
            values = values_of(frame)
            self.still.add([values] if values.ndim == 2 else list(values.transpose(2, 0, 1)), None)
        elif not is_deep and (is_compared or self.brightness.looks_at(number)):
            first, colour = self.planes(frame)[0], layout_of(frame).colour
            if is_compared:
                self.still.add(first, colour)
            if self.brightness.looks_at(number):
                self.brightness.add(first, colour)

    def _note_meaning(self, frame: VideoFrame, number: int) -> None:
        """Note what the values of frames mean, and a change of it."""
        self._meaning, name, layout = meaning_of(frame), frame.format.name, layout_of(frame)
        if not number:
            self.size, self.pixel_format, self.layout = (frame.width, frame.height), name, layout
        elif layout != self.layout and not self.changes:
            kinds = f"{_described(self.pixel_format, self.layout)} to {_described(name, layout)}"
            self.changes = f"changes from {kinds} at frame {number}; all frames are read as RGB"

    def _check_orientation(self, frame: VideoFrame, number: int) -> None:
        """Compare the display matrix of a frame with that of the first."""
        try:
            orientation = orientation_of(frame)
        except ValueError as error:
            raise VideoError(f"{self.path}: {error}") from error
        if not number:
            self.orientation = orientation or AS_STORED
        elif orientation not in (None, self.orientation):
            raise VideoError(f"{self.path}: display orientation changes at frame {number}")


def take_pass(
    seen: Pass,
    container: InputContainer,
    stream: VideoStream,
    each_frame: Callable[[VideoFrame], None] | None,
    tick: Callable[[], None],
) -> Timing:
    """Decode a file from end to end.

    Args:
        seen: Takes what is seen.
        container: The file, opened.
        stream: Its video.
        each_frame: Called with every frame, in order.
        tick: Called for every packet.

    Returns:
        When its frames are shown.

    Raises:
        ConcealedError: Key frames are asked for, and the decoder meets an error, even one that it conceals.
        VideoError: The file is damaged, lacks frames that it promises, or changes what reading assumes to be constant.
    """
    if seen.find_key_frames:
        stream.codec_context.options |= {"err_detect": "explode"}
        seen.headers = Headers(stream.codec_context.name, stream.codec_context.extradata or b"")
    for packet in _demux(container, stream, seen):
        tick()
        if packet.size:
            seen.add_packet(packet)
        for frame in _decode(stream, packet, seen):
            seen.add_frame(frame)
            if each_frame:
                each_frame(frame)
    _check_promise(seen, container, stream, tick)
    stated = _stated_rate(container, stream)
    times = [None] * len(seen.frame_times) if seen.num_untimed else seen.frame_times
    timing = timing_of(times, stream.time_base, stated)
    if timing is None:
        raise VideoError(f"{seen.path}: neither its header nor its timestamps give a frame rate")
    if stated and container.format.name in BARE_FORMATS:  # the times are FFmpeg's: it counts packets
        return Timing(timing.timestamps, float(stated), len(seen.frame_times) / float(stated), varies=False)
    if seen.num_empty and not timing.timestamps:  # the rate that is stated is that of all chunks
        seconds = (len(seen.frame_times) + seen.num_empty) / timing.fps
        return Timing((), len(seen.frame_times) / seconds, seconds, varies=True)
    return timing


def _demux(container: InputContainer, stream: VideoStream, seen: Pass) -> "Iterator[Packet[VideoStream]]":
    """Yield packets as far as they can be read."""
    try:
        yield from all_packets(container, stream)
    except av.FFmpegError as error:
        seen.note_failure("demux", error)


def _decode(stream: VideoStream, packet: "Packet[VideoStream]", seen: Pass) -> list[VideoFrame]:
    """Decode one packet; one that cannot be decoded gives no frame, and those after it are still tried.

    Raises:
        ConcealedError: Decoding failed, and key frames are asked for.
    """
    try:
        return stream.decode(packet)
    except av.FFmpegError as error:
        if seen.find_key_frames:
            raise ConcealedError(f"{seen.path}: {reason_of(error)}") from error
        seen.note_failure("decode", error)
        return []


def _check_promise(seen: Pass, container: InputContainer, stream: VideoStream, tick: Callable[[], None]) -> None:
    """Refuse a file in which reading failed, or that has fewer frames than it promises.

    Raises:
        VideoError: It is one.
    """
    num_decoded, failure = len(seen.frame_times), seen.failure_of_all()
    num_promised = max(_num_promised(container, stream, seen), seen.num_packets) - seen.num_discarded
    if failure is None and num_decoded and _is_short(num_decoded, num_promised):
        num_promised = _num_required(seen, container, stream, num_promised, tick)
        if _is_short(num_decoded, num_promised):
            failure = "demux", "frames are missing", None
    elif failure is None and container.format.name == "gif":  # it promises no number
        chain = walk_chunks(seen.path, "gif", stream.index, tick)
        what = f"the data after frame {num_decoded - 1} are not GIF, or are cut off"
        failure = ("demux", what, None) if chain and not chain.is_whole else None
    if failure:
        stage, reason, error = failure
        promised = f"{num_decoded} of {num_promised} promised frames"
        counts = promised if num_promised > num_decoded else counted(num_decoded, "frame")
        raise VideoError(f"{seen.path}: is damaged: {reason}; {counts} can be decoded", stage, num_decoded) from error
    if num_decoded == 0:
        raise VideoError(f"{seen.path}: has a video stream, but no frame of it can be decoded")


def _is_short(num_decoded: int, num_promised: int) -> bool:
    """Whether more frames are missing than headers often overstate."""
    return num_promised - num_decoded > max(8, num_promised / 10)


def _num_required(
    seen: Pass, container: InputContainer, stream: VideoStream, num_promised: int, tick: Callable[[], None]
) -> int:
    """How many frames a file must have, on a closer look: a header also counts what is not a frame.

    A packet that decodes without an error but gives no picture is not a frame: it comes before the first key frame, is
    never shown, or repeats the previous picture. An empty chunk and a gap in time are not frames either. All this holds
    only if the chain of chunks is whole, in formats where that can be seen.
    """
    num_silent = seen.num_packets - seen.num_discarded - len(seen.frame_times)
    chain = walk_chunks(seen.path, container.format.name, stream.index, tick)
    if chain is None:
        return num_promised - num_silent
    seen.num_empty = chain.num_empty
    if not chain.is_whole:
        return num_promised - chain.num_empty
    if container.format.name == "avi":  # its header counts chunks, empty ones too
        return num_promised - chain.num_empty - num_silent
    num_pictures = chain.num_pictures if len(container.streams) == 1 else 0  # else some are another stream's
    return max(num_pictures, seen.num_packets) - seen.num_discarded - num_silent


def _num_promised(container: InputContainer, stream: VideoStream, seen: Pass) -> int:
    """How many pictures a file's header promises, by number or by length; 0 if by neither.

    An MP4's list of edits may show only a part of the pictures: FFmpeg's index has those that are left. A length counts
    only where the header states it (elsewhere FFmpeg guesses) and no audio stream may determine it. A lone packet
    counts by the stream's rate.
    """
    if container.format.name.startswith("mov,") and (num_left := len(stream.index_entries)):
        return min(stated_frames(stream), num_left)
    if container.format.name not in _FORMATS_THAT_STATE_LENGTH or len(container.streams) != 1:
        return stated_frames(stream)
    if len(seen.packet_times) < 2:  # no step between times is known
        step = 1 / float(stream.average_rate or stream.guessed_rate or math.inf)
    else:
        step = steady_step(seen.packet_times) * float(stream.time_base or 0)
    return max(stated_frames(stream), round(stated_seconds(container, stream) / step) if step else 0)


def _stated_rate(container: InputContainer, stream: VideoStream) -> Fraction | float | None:
    """The rate that the header states, else FFmpeg's guess; of a bare stream what its codec states."""
    if container.format.name in BARE_FORMATS:
        return codec_rate(stream) or ASSUMED_RATE
    return stream.average_rate or stream.guessed_rate


def codec_rate(stream: VideoStream) -> Fraction | None:
    """The rate that the codec's own header states, if it does and can be believed."""
    rate = stream.codec_context.framerate
    return rate if rate and 0 < rate <= HIGHEST_RATE else None


def remarks_on(seen: Pass, container: InputContainer, stream: VideoStream, timing: Timing) -> tuple[str, ...]:
    """What is unusual about a video that can be read."""
    found = []
    if seen.num_leading:
        found.append(f"starts mid-GOP: {seen.num_leading} packets come before its first key frame")
    num_silent = seen.num_packets - seen.num_discarded - (seen.num_leading or 0) - len(seen.frame_times)
    if num_silent > max(8, seen.num_packets / 10):
        found.append(f"{num_silent} of its {seen.num_packets} packets give no picture of their own")
    if seen.changes:
        found.append(seen.changes)
    if timing.varies:
        found.append(f"its rate varies: {timing.fps:.4g} frames per second on average")
    if container.format.name in BARE_FORMATS:
        why = "its codec's header states that" if codec_rate(stream) else "nothing states a rate"
        found.append(f"keeps no times: {timing.fps:.4g} frames per second are assumed; {why}")
    return (*found, *look_of(seen))


def look_of(seen: Pass) -> tuple[str, ...]:
    """What is unusual about the brightness of a video."""
    window = seen.values.window()
    flat = "black throughout" if window and window[0] == window[1] else None
    return tuple(filter(None, [flat, seen.brightness.remark()]))


def _described(pixel_format: str, layout: Layout | None) -> str:
    """A pixel format and colour space in words."""
    colour = layout.colour if layout else None
    return f"{pixel_format} ({colour.matrix}, {'full' if colour.full else 'limited'} range)" if colour else pixel_format
