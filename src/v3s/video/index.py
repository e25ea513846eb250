"""The index of a video: true length, size, timing, and where it may be entered.

Containers overstate their length, timestamps mislead, and a key frame is not always a safe place to start. So a file
is decoded once from end to end (:mod:`v3s.video.first_pass`), and what was learned is kept in a :class:`VideoIndex`.
"""

import base64
import json
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import PacketSideData
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from v3s.video.container import MAX_SECONDS, VideoError, first_palette, open_video, packets_from
from v3s.video.first_pass import NUM_CHECKED_FRAMES, ConcealedError, Pass, look_of, remarks_on, take_pass
from v3s.video.frames import ColourSpace
from v3s.video.light.mask import mask_to_text
from v3s.video.light.window import DEEP, ValueWindow, values_of
from v3s.video.orientation import Orientation
from v3s.video.planes import RGB, Layout, PlaneReader, planar_format, plane_lines
from v3s.video.stills.found import FoundStills, Stills
from v3s.video.stills.source import find_stills, read_stills
from v3s.video.timing import ASSUMED_RATE, HIGHEST_RATE

__all__ = ["VideoError", "VideoIndex", "index_video", "open_video", "packets_from"]


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
        fps: Mean frame rate in frames per second, over the file's timestamps.
        duration_seconds: From the first frame's start to the last frame's end.
        known_format: FFmpeg's name of the container's format where the packets have the same times in a file that is
            opened by it, without probing; elsewhere ``None``.
        codec: FFmpeg's name of the decoder; "tiff" or "dicom" where it is none of FFmpeg's.
        pixel_format: FFmpeg's name of the stored pixel format, of the first frame.
        timestamps: The presentation time of every frame in the stream's time base, strictly increasing: a ``range``
            where they are evenly spaced. Empty where the file's own are missing, repeated or out of order; such a
            file is read in sequence from its start.
        packets_match: Whether every packet's time is the time of exactly one frame, so that a packet whose picture is
            not wanted is known before it is decoded.
        key_frames: Numbers of the frames besides the first at which decoding may start, ascending: each was tried.
        fingerprint: 64 bits that identify the pictures: the same in every copy of a file, under any name.
        mirrored: Whether pictures are mirrored top to bottom before they are turned by ``rotation``.
        matrix: As in :class:`v3s.video.frames.ColourSpace`, of the first frame.
        full: As in :class:`v3s.video.frames.ColourSpace`, of the first frame.
        is_mixed: Whether pixel format or colour space change on the way: all frames are then read as RGB, each by what
            it says of itself.
        stream: Number of the video's stream in the file.
        rate_varies: Whether frames are not evenly spaced in time.
        remarks: What is unusual about the file although it can be read, e.g. ``"black throughout"``.
        tick_seconds: The stream's time base: what a tick of ``timestamps`` lasts, in seconds; 0 where it is not known.
        stills: How frames are kept that are pictures of their own; ``None`` for a video file.
        window: Which values of a deep picture are shown as black and white; ``None`` where the format has no window.
        still_share: Of the pixels that are not dark, the share that never changes, as in
            :class:`v3s.video.light.mask.StillPixels`.
        overlay: The pixels of an overlay, as text (:func:`v3s.video.light.mask.mask_to_text`); ``None`` without one.
        mask: The pixels that reading makes black, as text; ``None`` for none.
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
    fingerprint: int
    mirrored: bool = False
    matrix: str = "bt601"
    full: bool = False
    is_mixed: bool = False
    stream: int = 0
    rate_varies: bool = False
    remarks: tuple[str, ...] = ()
    tick_seconds: float = 0.0
    stills: Stills | None = None
    window: ValueWindow | None = None
    still_share: float = 0.0
    overlay: str | None = None
    mask: str | None = None

    @property
    def orientation(self) -> Orientation:
        """How stored pictures are mirrored and turned before they are shown."""
        return Orientation(self.rotation, self.mirrored)

    @property
    def layout(self) -> Layout:
        """The layout in which all frames are read."""
        return RGB if self.is_mixed else _layout(self.pixel_format, self.matrix, self.full)

    def to_json(self) -> str:
        """Write the index as one line of JSON.

        Evenly spaced timestamps shrink to ``[start, step]``, others to the first and their packed steps (half a byte to
        two bytes a frame), and fields at their default are omitted.
        """
        times, values = self.timestamps, {item.name: getattr(self, item.name) for item in fields(self)}
        usual = {item.name for item in fields(self) if values[item.name] == item.default}
        values["timestamps"] = [times.start, times.step] if isinstance(times, range) else _packed(times)
        values["stills"] = self.stills and asdict(self.stills)
        return json.dumps({name: value for name, value in values.items() if name not in usual})

    @classmethod
    def from_json(cls, line: str) -> "VideoIndex":
        """Read an index that :meth:`to_json` wrote."""
        values = json.loads(line)
        times = values["timestamps"]
        if len(times) == 2 and isinstance(times[1], int):
            start, step = times
            times = range(start, start + step * values["num_frames"], step)
        values["timestamps"] = times if isinstance(times, range) else _unpacked(times)
        listed = {name: tuple(values[name]) for name in ("key_frames", "remarks", "window") if name in values}
        stills = {"stills": Stills.from_json(values["stills"])} if "stills" in values else {}
        return cls(**values | listed | stills)


def _packed(times: Sequence[int]) -> list[int | str]:
    """The first time, and the steps between all as compressed int64 in base64."""
    if not len(times):
        return []
    steps = np.diff(np.asarray(times, np.int64)).astype("<i8")
    return [int(times[0]), base64.b64encode(zlib.compress(steps.tobytes())).decode("ascii")]


def _unpacked(packed: list[Any]) -> Sequence[int]:
    """The inverse of `_packed`."""
    if not packed:
        return ()
    first, text = packed
    steps = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i8")
    return array("q", np.concatenate([[first], first + np.cumsum(steps)]).astype(np.int64).tobytes())


@lru_cache(maxsize=64)
def _layout(pixel_format: str, matrix: str, full: bool) -> Layout:
    planes = planar_format(VideoFormat(pixel_format))
    return RGB if planes == "gbrp" else Layout(planes, ColourSpace(matrix, full))


def index_video(
    path: str | Path,
    *,
    each_frame: Callable[[VideoFrame], None] | None = None,
    find_key_frames: bool = True,
    tick: Callable[[], None] = lambda: None,
) -> VideoIndex:
    """Decode a file once from end to end and learn its true length, size, timing and safe starting points.

    A key frame is kept only if seeking to it, after another opening, gives the pictures that the pass from the start
    gave, in all planes: groups of pictures may be open, seeking may land elsewhere, and a palette may come but once.
    So may a header that differs from the container's: then only key frames that bring such a header are tried.
    A decoder conceals most errors, and what it then shows depends on all that it decoded before: a file with an error
    anywhere is read in sequence.

    Args:
        path: Any container that FFmpeg reads, except playlists; or a folder of frames.
        each_frame: Called with every frame, in order; it belongs to the decoder once the call is over.
        find_key_frames: Try the key frames; without, or with ``each_frame``, the index has none.
        tick: Called again and again: a long file takes long, and this shows that it does not hang.

    Returns:
        The index from which :func:`v3s.video.decode.read_frames` reads.

    Raises:
        VideoError: If the file is missing, empty, not a video, damaged, changes its frame size or the way it is turned
            or has frames of more than :data:`~v3s.video.container.MAX_PIXELS`, too many streams or a duration beyond
            :data:`~v3s.video.container.MAX_SECONDS`. A file counts as damaged if decoding fails anywhere from its first
            key frame on, or if more than 8 frames and more than 10 % of what it promises are not there; smaller lies
            are common. For a damaged file the error has the number of frames that decode.
    """
    if found := find_stills(path):
        return _index_stills(path, found, each_frame, tick)
    if find_key_frames and not each_frame:
        with suppress(ConcealedError):
            return _index_file(Pass(path, find_key_frames=True), None, tick)
    return _index_file(Pass(path, find_key_frames=False), each_frame, tick)


def _index_file(seen: Pass, each_frame: Callable[[VideoFrame], None] | None, tick: Callable[[], None]) -> VideoIndex:
    """Take a pass through a file, and try its key frames where that is asked for."""
    with open_video(seen.path) as (container, stream):
        timing = take_pass(seen, container, stream, each_frame, tick)
        shortcuts = seen.find_key_frames and bool(timing.timestamps) and seen.num_corrupt == 0
        steady = (
            shortcuts and not seen.changes
        )  # frames still inside the decoder get the properties that follow a change
        packets_match = steady and np.array_equal(np.sort(seen.packet_times), np.asarray(timing.timestamps))
        known_format = _known_format(container, stream, seen, tick) if packets_match else None
        key_frames = _safe_key_frames(known_format, stream.index, timing.timestamps, seen, tick) if shortcuts else ()
        width, height = seen.size
        height, width = seen.orientation.upright_shape(height, width)
        colour = (seen.layout and seen.layout.colour) or ColourSpace()
        return VideoIndex(
            path=str(seen.path),
            num_bytes=Path(seen.path).stat().st_size,
            num_frames=len(seen.frame_times),
            num_corrupt=seen.num_corrupt,
            height=height,
            width=width,
            rotation=seen.orientation.rotation,
            fps=timing.fps,
            duration_seconds=timing.duration_seconds,
            known_format=known_format,
            codec=stream.codec_context.name,
            pixel_format=seen.pixel_format,
            timestamps=timing.timestamps,
            packets_match=packets_match,
            key_frames=tuple(sorted(key_frames)),
            fingerprint=seen.fingerprint(),
            mirrored=seen.orientation.mirrored,
            matrix=colour.matrix,
            full=colour.full,
            is_mixed=bool(seen.changes),
            stream=stream.index,
            rate_varies=timing.varies,
            remarks=remarks_on(seen, container, stream, timing),
            tick_seconds=float(stream.time_base or 0),
            window=seen.values.window(),
            **_still(seen),
        )


def _index_stills(
    path: str | Path, found: FoundStills, each_frame: Callable[[VideoFrame], None] | None, tick: Callable[[], None]
) -> VideoIndex:
    """Decode all pictures once; they must agree in size and pixel format."""
    seen = Pass(path, find_key_frames=False)
    try:
        for number, frame in read_stills(str(path), found.stills, range(found.num_frames)):
            tick()
            if number and frame.format.name != seen.pixel_format:
                kinds = f"{seen.pixel_format} to {frame.format.name}"
                raise VideoError(f"{path}: pixel format changes from {kinds} at frame {number}")
            seen.add_frame(frame)
            is_deep = frame.format.name in DEEP  # its bytes may be in either order
            for plane in [values_of(frame)] if is_deep else map(plane_lines, frame.planes):
                seen.digest.update(np.ascontiguousarray(plane).data)
            if each_frame:
                each_frame(frame)
    except VideoError as error:
        num_decoded = len(seen.frame_times)
        raise VideoError(
            f"{error}; {num_decoded} of {found.num_frames} frames are good", error.stage, num_decoded
        ) from error.__cause__
    fps, keeps_times = _believed(found)
    why = "nothing states a rate" if found.fps is None else f"the {found.fps:.4g} that it states are out of range"
    assumed = f"keeps no times: {fps:.4g} frames per second are assumed; {why}"
    height, width = seen.orientation.upright_shape(*reversed(seen.size))
    colour = (seen.layout and seen.layout.colour) or ColourSpace()
    return VideoIndex(
        path=str(path),
        num_bytes=found.num_bytes,
        num_frames=found.num_frames,
        num_corrupt=0,
        height=height,
        width=width,
        rotation=seen.orientation.rotation,
        fps=fps,
        duration_seconds=found.num_frames / fps,
        known_format=None,
        codec=found.codec,
        pixel_format=seen.pixel_format,
        timestamps=range(found.num_frames),
        packets_match=False,
        key_frames=(),
        fingerprint=seen.fingerprint(),
        mirrored=seen.orientation.mirrored,
        matrix=colour.matrix,
        full=colour.full,
        remarks=(*(() if keeps_times else (assumed,)), *look_of(seen)),
        tick_seconds=1 / fps,
        stills=found.stills,
        window=seen.values.window(),
        **_still(seen),
    )


def _still(seen: Pass) -> dict[str, Any]:
    """The fields that say which pixels never change."""
    share, overlay = seen.still.found(seen.values.window())
    upright = None if overlay is None else mask_to_text(seen.orientation.upright(overlay))
    return {"still_share": round(share, 4), "overlay": upright}


def _believed(found: FoundStills) -> tuple[float, bool]:
    """Frames per second, and whether the pictures' own statement of it can be believed."""
    can_be = found.fps is not None and 0 < found.fps <= HIGHEST_RATE and found.num_frames / found.fps <= MAX_SECONDS
    return (found.fps, True) if found.fps is not None and can_be else (ASSUMED_RATE, False)


def _known_format(probed: InputContainer, video: VideoStream, seen: Pass, tick: Callable[[], None]) -> str | None:
    """The format by which the file opens without probing, if the times of its packets stay the same."""
    known_format, times = probed.format.name.split(",")[0], array("q")
    try:
        with open_video(seen.path, known_format, video.index) as (container, stream):
            for packet in container.demux(stream):
                tick()
                if packet.size:
                    if packet.pts is None:
                        return None
                    times.append(packet.pts)
    except VideoError:
        return None
    return known_format if times == seen.packet_times else None


def _safe_key_frames(
    known_format: str | None, number: int, timestamps: Sequence[int], seen: Pass, tick: Callable[[], None]
) -> Iterator[int]:
    """Seek to each key frame and yield its number if the frames from it on are those of the pass from the start.

    Where headers or colours change on the way, the file is opened anew for each: a decoder remembers what it saw.
    """
    keys = set(seen.key_times)
    numbers = {time: number for number, time in enumerate(timestamps) if time in keys}
    read = PlaneReader()
    with ExitStack() as opened:
        container, stream = opened.enter_context(open_video(seen.path, known_format, number))
        palette = first_palette(container, stream) if seen.pixel_format == "pal8" else None
        needed = seen.headers.kinds_beside(stream.codec_context.extradata or b"")
        for time in filter(numbers.__contains__, seen.key_times):
            tick()
            if not needed <= seen.key_headers[time]:  # here the decoder may know them from key frames before
                continue
            if needed or seen.changes:
                opened.close()
                container, stream = opened.enter_context(open_video(seen.path, known_format, number))
            checked = timestamps[numbers[time] : numbers[time] + NUM_CHECKED_FRAMES]
            expected = [(checked_time, seen.checksums.get(checked_time)) for checked_time in checked]
            if _checksums_from(container, stream, time, len(checked), read, palette) == expected:
                yield numbers[time]


def _checksums_from(
    container: InputContainer,
    stream: VideoStream,
    time: int,
    num_frames: int,
    read: PlaneReader,
    palette: PacketSideData | None,
) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    try:
        for packet in packets_from(container, stream, time, palette):
            for frame in stream.decode(packet):
                if frame.pts is not None and frame.pts >= time:
                    found.append((frame.pts, read.checksum(frame)))
            if len(found) >= num_frames:
                break
    except av.FFmpegError:  # the format cannot seek, or what follows cannot be decoded from here
        return []
    return found[:num_frames]
