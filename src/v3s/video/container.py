"""A video file as FFmpeg opens it: which files are let in, and one kind of error for all that can go wrong."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer
from av.packet import Packet, PacketSideData
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from v3s.files.remote.address import RemoteError
from v3s.files.remote.fetch import held
from v3s.options import MissingPackageError, absence
from v3s.video.chunks import ends_in_box

MAX_PIXELS = 4096 * 4096
"""Largest frame that is decoded, in pixels: DCI 4K fits, and a small file cannot ask for gigabytes."""

MAX_STREAMS = 32
"""A file has fewer video streams: FFmpeg probes each with its own decoder before the first frame is known. Sound,
subtitles, fonts, cover pictures and attached ones are not decoded and do not count."""

MOST_STREAMS = 1000
"""A file has fewer streams of any kind."""

MAX_SECONDS = 1e6
"""Longest duration that is accepted, in seconds: eleven days. A file of any size may state any length."""

FORMATS = {
    "apng": ".apng",
    "asf": ".asf .dvr-ms .wmv",
    "av1": ".obu",
    "avi": ".avi .divx .xvid",
    "dv": ".dif .dv",
    "flv": ".flv",
    "gif": ".gif",
    "h264": ".264 .26l .avc .h264 .h26l",
    "hevc": ".265 .h265 .hevc",
    "ivf": ".ivf",
    "m4v": ".cmp .m4v .mp4v",
    "matroska": ".mk3d .mkv .webm",
    "mjpeg": ".mjpeg .mjpg",
    "mov": ".3g2 .3gp .3gpp .f4v .insv .ism .ismv .lrv .m4v .mj2 .mov .mp4 .mpg4 .mqv .qt",
    "mpeg": ".evo .m2p .mpe .mpeg .mpg .ps .vob .vro",
    "mpegts": ".m2t .m2ts .mts .tod .tp .trp .ts",
    "mpegvideo": ".m1v .m2v .mpgv .mpv",
    "mxf": ".mxf",
    "nut": ".nut",
    "obu": ".obu",
    "ogg": ".ogm .ogv .ogx",
    "rm": ".rm .rmvb .rv",
    "swf": ".swf",
    "wtv": ".wtv",
    "yuv4mpegpipe": ".y4m",
}
"""The formats that are read, by FFmpeg's names, with the endings of their files. Playlists (concat, hls, dash) and
numbered images are not among them: they would open other files."""

ENDINGS = frozenset(" ".join(FORMATS.values()).split())
"""The endings, in lower case, by which a file in a folder counts as a video. Reading it shows whether it is one."""

BARE_FORMATS = frozenset({"av1", "h264", "hevc", "m4v", "mjpeg", "mpegvideo", "obu"})
"""Formats that are a bare stream of one codec, without a container: they have no header and no timestamps."""

# The list of the decoders that may probe has none, and no packets are read to guess a rate.
NO_PROBING = {"codec_whitelist": "none", "fpsprobesize": "0"}

COUNTING = NO_PROBING | {"probesize": "32", "analyzeduration": "1"}  # the header alone
_TO_BE_FILLED_IN = 1 << 30  # frames, as FFmpeg writes into an AVI that goes through a pipe
_SEEN_BONUS, _DEFAULT_BONUS = 100_000_000, 5_000_000  # pixels that FFmpeg adds to a stream's picture in its choice
_PROBED_BYTES, _PROBED_SECONDS = 5_000_000, {"mpeg": 7.0, "mpegts": 7.0}  # what FFmpeg probes; elsewhere 5 seconds

Stage = Literal["open", "demux", "decode"]
"""Where reading failed: finding a video in the file, reading packets from it, or decoding them."""


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
        may_pass: Whether it says nothing of the file's content: the system did not give it, a package that reads it was
            not installed, or the process that read it ended. It is not remembered, since the same file may be read well
            the next time.
    """

    stage: Stage
    reason: str
    num_frames: int = 0
    may_pass: bool = False

    @classmethod
    def of(cls, error: VideoError, path: str) -> "Failure":
        """What an error says of a file."""
        cause = error.__cause__
        is_damage = isinstance(cause, av.PermissionError) and error.stage != "open"  # FFmpeg's -1, of damaged content
        may_pass = isinstance(cause, (OSError, MissingPackageError)) and not is_damage
        return cls(error.stage, str(error).removeprefix(f"{path}: "), error.num_frames, may_pass)


@contextmanager
def open_video(
    path: str | Path, known_format: str | None = None, stream_number: int | None = None
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file's video stream for decoding on one thread, and close it in any case.

    Of several video streams, it is the one that the ``ffmpeg`` command takes (`best_stream`). Packets of others are
    not read.

    This is the border with FFmpeg, which fails in many ways (its own errors, ``IndexError``, ``UnicodeDecodeError``):
    whatever it raises inside the ``with`` block leaves it as a :class:`VideoError`.

    Args:
        path: The file.
        known_format: FFmpeg's name of the container's format, for a file that was opened before. Without it FFmpeg
            detects the format and probes every stream (it decodes the first frames, sound too, for what the header
            does not say), and the limits are checked, which takes up to five times as long. Without probing,
            packets may have other times: :mod:`v3s.video.index` compares them.
        stream_number: Number of the stream, for a file that was opened before: the best one depends on probing.

    Raises:
        VideoError: If the file is missing, empty, not a video, or fails while it is read.
    """
    if os.path.isdir(path):
        raise VideoError(f"{path}: is a folder without numbered pictures; give a video, or a folder of frames", "open")
    if not os.path.isfile(path):
        raise VideoError(f"{path}: {'is not a file' if os.path.exists(path) else absence(path)}", "open")
    if os.path.getsize(path) == 0:
        raise VideoError(f"{path}: is an empty file", "open")
    stage: Stage = "open"
    try:
        with held(path), _open_container(path, known_format) as container:
            if known_format is None:
                _check_streams(container, path)
            stream = _video_stream(container, path, stream_number)
            if known_format is None:
                _check_limits(container, stream, path)
            stage = "decode"
            yield container, stream
    except (VideoError, AssertionError):
        raise
    except RemoteError as error:
        raise VideoError(f"{path}: {error}", "open") from error
    except Exception as error:
        is_cut = stage == "open" and isinstance(error, av.InvalidDataError) and ends_in_box(path)
        reason = "the end of the file is missing" if is_cut else reason_of(error)
        what = "cannot be read" if stage == "open" and isinstance(error, OSError) else "is not a video, or is damaged"
        raise VideoError(f"{path}: {what}: {reason}", stage) from error


def first_palette(container: InputContainer, stream: VideoStream) -> PacketSideData | None:
    """The palette that comes with a stream's first packet, and often never again; call it before any other read."""
    packet = next(container.demux(stream), None)
    return packet.get_sidedata("palette") if packet and packet.has_sidedata("palette") else None


def all_packets(container: InputContainer, stream: VideoStream) -> "Iterator[Packet[VideoStream]]":
    """Yield a stream's packets, and at last one that makes the decoder return the frames that it still holds.

    Empty ones between them are omitted, as by the ``ffmpeg`` command: in Ogg they say that the last picture stays.
    """
    return (packet for packet in container.demux(stream) if packet.size or packet.dts is None)


def packets_from(
    container: InputContainer, stream: VideoStream, time: int | None, palette: PacketSideData | None = None
) -> "Iterator[Packet[VideoStream]]":
    """Yield a stream's packets from a key frame's on; nothing where seeking does not reach it.

    Args:
        container: The file.
        stream: Its video.
        time: Of the key frame; ``None`` for all packets.
        palette: For the key frame, if it brings none of its own.
    """
    if time is None:
        yield from all_packets(container, stream)
        return
    container.seek(time, stream=stream)
    packets = all_packets(container, stream)
    for packet in packets:
        if packet.pts is None or packet.pts > time:
            return
        if packet.pts == time:
            if palette and not packet.has_sidedata("palette"):
                packet.set_sidedata(palette)
            yield packet
            break
    yield from packets


def _open_container(path: str | Path, known_format: str | None) -> InputContainer:
    """Open a file. Many streams are counted before any is probed, which is slow."""
    try:
        if known_format:
            return _open(path, known_format, MOST_STREAMS, NO_PROBING)
        container = _open_few(path)
        if container is None:
            with _open(path, None, MOST_STREAMS, COUNTING) as counted:
                _check_streams(counted, path)
            container = _open(path, None, MOST_STREAMS)
        return container
    except MemoryError as error:
        reason = f"asks for too much memory, or has {MOST_STREAMS} streams or more"
        raise VideoError(f"{path}: {reason}", "open") from error


def _open_few(path: str | Path) -> InputContainer | None:
    """Open a file of few streams; ``None`` if it may have more: some formats refuse the rest, others skip them."""
    try:
        container = _open(path, None, MAX_STREAMS)
    except MemoryError:
        return None
    if len(container.streams) < MAX_STREAMS:
        return container
    container.close()
    return None


def _open(
    path: str | Path, known_format: str | None, max_streams: int, probing: dict[str, str] | None = None
) -> InputContainer:
    # max_pixels guards the probing decoder. "file:" keeps a colon in a name from being read as a protocol.
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(FORMATS),
        "max_pixels": str(MAX_PIXELS),
        "max_streams": str(max_streams),
    } | (probing or {})
    try:  # tags may not be UTF-8
        return av.open(f"file:{path}", format=known_format, mode="r", metadata_errors="ignore", options=options)
    except av.ArgumentError as error:
        if known_format is None and (bare := _bare_format(path)):
            return _open(path, bare, max_streams, probing)
        known = ",".join(FORMATS)
        raise VideoError(f"{path}: is in none of the video formats that are read: {known}", "open") from error


def _bare_format(path: str | Path) -> str | None:
    """The bare format of a file's ending: its content alone may also be a sequence of pictures."""
    ending = os.path.splitext(path)[1].lower()
    return next((name for name in sorted(BARE_FORMATS) if ending and ending in FORMATS[name].split()), None)


def _video_stream(container: InputContainer, path: str | Path, number: int | None) -> VideoStream:
    streams = _videos(container)
    chosen = best_stream(streams, path) if number is None else next((s for s in streams if s.index == number), None)
    decoder = chosen.codec_context if chosen else None
    if decoder is None and container.format.name.startswith("mov,") and ends_in_box(path):
        raise VideoError(f"{path}: is damaged: the end of its header is missing; copy it again", "open")
    if chosen is None:
        raise VideoError(f"{path}: has no video stream", "open")
    if decoder is None:
        raise VideoError(f"{path}: its video has a codec that FFmpeg cannot decode", "open")
    for other in container.streams:
        if other is not chosen:
            other.discard = Discard.all
    decoder.options = {"max_pixels": str(MAX_PIXELS)}
    decoder.thread_type = "NONE"
    decoder.thread_count = 1
    return chosen


def _videos(container: InputContainer) -> list[VideoStream]:
    """The video streams; FFmpeg shows cover pictures and attached ones as such, too, which they are not."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def best_stream(streams: Sequence[VideoStream], path: str | Path) -> VideoStream | None:
    """The stream that the ``ffmpeg`` command takes (``map_auto_video`` in its source); ``None`` if there is none.

    It is the one with the largest picture; the default mark counts as 5 million pixels, and a packet in what FFmpeg
    probes, the first 5 MB or 5 seconds, as 100 million. In a tie it is the first one. A stream that no decoder reads,
    at which the command stops, is taken only if there is no other.

    Args:
        streams: The video streams of a file, in its order.
        path: The file. It is read again if there is a choice.
    """
    readable = [stream for stream in streams if stream.codec_context] or streams
    if len(readable) < 2:
        return next(iter(readable), None)
    seen = _seen_streams(path, {stream.index for stream in readable})

    def score(stream: VideoStream) -> int:
        pixels = stream.width * stream.height if stream.codec_context else 0
        is_default = bool(stream.disposition & Disposition.default)
        return pixels + _SEEN_BONUS * (stream.index in seen) + _DEFAULT_BONUS * is_default

    return max(readable, key=score)


def _seen_streams(path: str | Path, wanted: set[int]) -> set[int]:
    """The numbers of the streams that have a packet in what FFmpeg probes."""
    with _open(path, None, MOST_STREAMS) as container:
        seconds: dict[int, float] = {}  # of pictures and sound, without the pauses between them
        num_bytes, limit = 0, _PROBED_SECONDS.get(container.format.name, 5.0)
        for packet in container.demux([s for s in container.streams if not s.disposition & Disposition.attached_pic]):
            if packet.dts is None and packet.size == 0:  # it marks the end of a stream
                continue
            number = packet.stream.index
            seconds[number] = seconds.get(number, 0.0) + float((packet.duration or 0) * packet.time_base)
            num_bytes += packet.size
            if wanted <= seconds.keys() or num_bytes >= _PROBED_BYTES or seconds[number] >= limit:
                break
        return set(seconds)


def _check_streams(container: InputContainer, path: str | Path) -> None:
    if len(_videos(container)) >= MAX_STREAMS:
        raise VideoError(f"{path}: has {MAX_STREAMS} video streams or more", "open")


def _check_limits(container: InputContainer, stream: VideoStream, path: str | Path) -> None:
    if (width := stream.width) * (height := stream.height) > MAX_PIXELS:
        raise VideoError(f"{path}: frames of {width}x{height} exceed the limit of {MAX_PIXELS} pixels", "open")
    if stated_frames(stream) > container.size:
        raise VideoError(f"{path}: states {stream.frames} frames, more than it has bytes", "open")
    seconds = stated_seconds(container, stream)
    if seconds > MAX_SECONDS:
        raise VideoError(f"{path}: states a length of {seconds:.3g} seconds; the limit is {MAX_SECONDS:.0e}", "open")


def stated_frames(stream: VideoStream) -> int:
    """How many frames the stream's header states; 0 where it does not."""
    return 0 if stream.frames == _TO_BE_FILLED_IN else stream.frames


def stated_seconds(container: InputContainer, stream: VideoStream) -> float:
    """The length that the stream states, else the container's; 0 where neither does."""
    if stream.frames == _TO_BE_FILLED_IN:
        return 0.0
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def reason_of(error: Exception) -> str:
    """FFmpeg's words for an error, without the file's name."""
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
