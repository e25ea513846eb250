"""Chosen frames of an indexed video, exact to the pixel, for the least decoding.

Where the index allows it, decoding starts at the nearest safe key frame, skips frames that no other frame needs,
and ends with the last wanted frame. Frames stay as the codec keeps them (:mod:`v3s.video.frames`).
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, count
from typing import NamedTuple

import av
import numpy as np
import torch
from av.container import InputContainer
from av.packet import Packet, PacketSideData
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from v3s.video.container import VideoError, first_palette, open_video, packets_from
from v3s.video.frames import Frames
from v3s.video.index import VideoIndex, index_video
from v3s.video.light.mask import blank
from v3s.video.light.window import shown
from v3s.video.planes import PlaneReader
from v3s.video.span import Span
from v3s.video.stills.source import read_stills
from v3s.video.store import StoredVideo, read_stored

__all__ = ["Span", "Video", "VideoError", "VideoIndex", "index_video", "read_frames"]

# Codecs whose standards forbid any later frame to refer to a frame marked as not a reference.
_SKIPPING_CODECS = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})
_CHANGED = "is not the file that was indexed: it changed since; index it again"
_MOST_REORDERED = 64  # frames by which a decoder may give a frame late
_MIN_FRAMES_SAVED = 4  # a seek costs about as much as decoding these


Video = VideoIndex | StoredVideo | Span
"""A video whose frames can be read: a file with its index, frames in a store, or a span of either."""


def video_from_json(text: str) -> VideoIndex | StoredVideo:
    """The inverse of both ``to_json``."""
    return StoredVideo.from_json(text) if '"shard": ' in text else VideoIndex.from_json(text)


class Stretch(NamedTuple):
    """A stretch of decoding: the key frame where it starts, ``None`` for the file's start, and the frames wanted."""

    start: int | None
    frames: list[int]


def read_frames(index: Video, frames: Sequence[int]) -> Frames:
    """Read chosen frames of a video: of a file, of a store, or of a span of either.

    The pixels are those of a sequential decode. 8-bit planes are kept as they are; deeper greys and RGB are shown
    through the index's window; swscale reduces deeper YUV to 8 bits, and makes RGB of palettes and greys. Where format
    or colour space change on the way, every frame becomes RGB by what it says of itself: none depends on which others
    are read with it. The display matrix is applied, the sample aspect ratio is not: pixels stay as stored. Those that
    the index's mask blanks are black.

    Args:
        index: What :func:`index_video` returned for the file, or an entry of a store.
        frames: Frame numbers, each in [0, ``index.num_frames``), in any order, repeats allowed.

    Returns:
        T frames of ``index.height`` x ``index.width``, in the order asked for.

    Raises:
        VideoError: If a number is out of range, the file cannot be read, or it changed since it was indexed.
    """
    if isinstance(index, Span):
        return read_frames(index.video, index.source_frames(frames))
    if isinstance(index, StoredVideo):
        return read_stored(index, frames)
    positions: dict[int, list[int]] = {}
    for position, number in enumerate(map(int, frames)):
        if not 0 <= number < index.num_frames:
            raise VideoError(f"{index.path}: has frames 0 to {index.num_frames - 1}; frame {number} was asked for")
        positions.setdefault(number, []).append(position)
    if not positions:
        return Frames((torch.empty(0, 3, index.height, index.width, dtype=torch.uint8),), None)
    # Frames may be lost after a seek that a pass from the start gives: then only that pass is left.
    if (filled := _fill(index, positions)) is None:
        in_sequence = replace(index, known_format=None, packets_match=False, key_frames=())
        if (filled := _fill(in_sequence, positions)) is None:
            raise VideoError(f"{index.path}: {_CHANGED}")
    return filled


def stream_frames(video: Video, wanted: Sequence[int], *, at_once: int) -> Iterator[Frames]:
    """Read frames in order of time, each decoded once, and hold a few of them; as :func:`read_frames`.

    Args:
        video: The video.
        wanted: Frame numbers, ascending, without repeats.
        at_once: How many frames are given together.

    Yields:
        All wanted frames, in parts of ``at_once``.
    """
    if isinstance(video, Span):
        yield from stream_frames(video.video, video.source_frames(wanted), at_once=at_once)
        return
    parts = [wanted[start : start + at_once] for start in range(0, len(wanted), at_once)]
    if isinstance(video, StoredVideo) or len(parts) < 2:
        yield from (read_frames(video, part) for part in parts)
        return
    early: dict[int, list[list[np.ndarray]]] = {}  # of later parts: decoders may give frames out of order
    decoded = _decode_wanted(video, wanted)
    for part in parts:
        place_of = {number: place for place, number in enumerate(part)}
        clip: tuple[np.ndarray, ...] = ()
        for number, planes in chain([(number, early.pop(number)) for number in part if number in early], decoded):
            if (place := place_of.pop(number, None)) is None:
                early[number] = [[plane.copy() for plane in group] for group in planes]
            else:
                clip = clip or _empty_clip(len(part), planes)
                _write(planes, clip, place)
            if not place_of or number > part[-1] + _MOST_REORDERED:
                break
        if place_of:  # the decoder lost a frame after a seek: only a pass from the start has it
            in_sequence = replace(video, known_format=None, packets_match=False, key_frames=())
            yield read_frames(in_sequence, part)
        else:
            yield Frames(tuple(map(torch.from_numpy, clip)), video.layout.colour)


def _decode_wanted(index: VideoIndex, wanted: Sequence[int]) -> Iterator[tuple[int, list[list[np.ndarray]]]]:
    """Yield numbers and upright planes of wanted frames, as they come; planes are views that the next frame ends."""
    to_planes, orientation, colour = PlaneReader(index.layout), index.orientation, index.layout.colour
    for number, frame in _wanted_frames(index, wanted):
        planes = [list(map(orientation.upright, group)) for group in to_planes(shown(frame, index.window))]
        if planes[0][0].shape != (index.height, index.width):
            raise VideoError(f"{index.path}: {_CHANGED}")
        planes = blank(planes, index.mask, colour) if index.mask else planes
        del frame  # a frame that fails to decode may show what its buffer last held: buffers return at once
        yield number, planes
        planes.clear()


def _wanted_frames(index: VideoIndex, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Yield wanted frames with their numbers, as they come."""
    if index.stills:
        yield from read_stills(index.path, index.stills, wanted)
        return
    with open_video(index.path, index.known_format, index.stream) as (container, stream):
        if container.size != index.num_bytes:
            raise VideoError(f"{index.path}: {_CHANGED}")
        stretches, palette = plan_stretches(index, wanted), None
        if index.pixel_format == "pal8" and stretches[0].start is not None:
            palette = first_palette(container, stream)
        for stretch in stretches:
            yield from _decode_stretch(index, container, stream, stretch, palette)


def _fill(index: VideoIndex, positions: dict[int, list[int]]) -> Frames | None:
    """Write every wanted frame to its positions in the clip; ``None`` if one did not arrive."""
    clip: tuple[np.ndarray, ...] = ()
    num_missing = len(positions)
    for number, planes in _decode_wanted(index, sorted(positions)):
        clip = clip or _empty_clip(sum(map(len, positions.values())), planes)
        for position in positions[number]:
            _write(planes, clip, position)
        num_missing -= 1
    if num_missing:
        return None
    return Frames(tuple(map(torch.from_numpy, clip)), index.layout.colour)


def _empty_clip(length: int, planes: list[list[np.ndarray]]) -> tuple[np.ndarray, ...]:
    """Uninitialised planes for a clip of as many frames, each like this one."""
    return tuple(np.empty((length, len(group), *group[0].shape), np.uint8) for group in planes)


def _write(planes: list[list[np.ndarray]], clip: tuple[np.ndarray, ...], place: int) -> None:
    """Copy a frame's planes to their place in a clip."""
    for whole, group in zip(clip, planes, strict=True):
        for channel, plane in enumerate(group):
            whole[place, channel] = plane


def plan_stretches(index: VideoIndex, wanted: Sequence[int]) -> list[Stretch]:
    """Divide wanted frames, ascending, into stretches: a new one where jumping to a key frame saves decoding.

    A video with a palette that is read from its start is read without a jump: the palette may have changed.
    """
    stretches: list[Stretch] = []
    next_frame = 0
    for number in wanted:
        keys = bisect_right(index.key_frames, number)
        may_jump = not stretches or index.pixel_format != "pal8" or stretches[0].start is not None
        if may_jump and keys and index.key_frames[keys - 1] - next_frame >= _MIN_FRAMES_SAVED:
            stretches.append(Stretch(index.key_frames[keys - 1], []))
        elif not stretches:
            stretches.append(Stretch(None, []))
        stretches[-1].frames.append(number)
        next_frame = number + 1
    return stretches


def _decode_stretch(
    index: VideoIndex,
    container: InputContainer,
    stream: VideoStream,
    stretch: Stretch,
    palette: PacketSideData | None,
) -> Iterator[tuple[int, VideoFrame]]:
    """Decode one stretch and yield its wanted frames with their numbers.

    Packets before the first key packet may fail, as in the pass that indexed the file: they need frames it lacks. What
    fails after a jump ends the stretch early: a format may lose its way where the file was not read up to there.
    """
    timed, decode = bool(index.timestamps), stream.codec_context.decode
    wanted: dict[int | None, int] = {index.timestamps[n] if timed else n: n for n in stretch.frames}
    arrival = count()
    is_entered = False
    try:
        for packet in needed_packets(index, container, stream, stretch, palette):
            is_entered = is_entered or packet is None or packet.is_keyframe
            try:
                decoded = decode(packet)
            except av.FFmpegError:
                if is_entered:
                    raise
                continue
            for frame in decoded:
                number = wanted.pop(frame.pts if timed else next(arrival), None)
                if number is not None:
                    yield number, frame
            if not wanted:
                return
    except av.FFmpegError:
        if stretch.start is None:
            raise


def needed_packets(
    index: VideoIndex,
    container: InputContainer,
    stream: VideoStream,
    stretch: Stretch,
    palette: PacketSideData | None = None,
) -> "Iterator[Packet[VideoStream] | None]":
    """Yield what the decoder needs for a stretch; ``None`` makes it return the frames that it still holds.

    Where packets match frames, the decoder learns before each packet whether its picture is wanted.
    """
    start_time = None if stretch.start is None else index.timestamps[stretch.start]
    packets = packets_from(container, stream, start_time, palette)
    if not index.packets_match:
        yield from packets
        return
    unsent: set[int | None] = {index.timestamps[number] for number in stretch.frames}
    decoder, skips = stream.codec_context, index.codec in _SKIPPING_CODECS
    for packet in packets:
        wanted = packet.pts in unsent
        if skips:
            decoder.skip_frame = "DEFAULT" if wanted else "NONREF"
        yield packet
        if wanted:
            unsent.remove(packet.pts)
            if not unsent:
                yield None
                return
