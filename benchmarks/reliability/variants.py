"""Small videos in many codecs, and kinds of damage to a file: the inputs of ``videos.py``."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

NUM_FRAMES, WIDTH, HEIGHT = 100, 96, 72
KINDS = {  # name -> encoder, pixel format, options
    "x264.mp4": ("libx264", "yuv420p", {"preset": "veryfast", "g": "25"}),
    "x264.mkv": ("libx264", "yuv420p", {"preset": "veryfast", "g": "25", "bf": "0"}),
    "x264.flv": ("libx264", "yuv420p", {"preset": "veryfast", "g": "25", "bf": "0"}),
    "x265.mp4": ("libx265", "yuv420p", {"preset": "ultrafast", "x265-params": "log-level=none:keyint=25"}),
    "xvid.avi": ("mpeg4", "yuv420p", {"g": "12"}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {"g": "12"}),
    "mpeg2.ts": ("mpeg2video", "yuv420p", {"g": "12"}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}),
    "vp8.webm": ("libvpx", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "g": "25"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "g": "25"}),
}
STATE_LENGTH = ("matroska,webm", "flv")  # in seconds, instead of a number of frames
Damage = Callable[[bytes, bytes, np.random.Generator], bytes]


def first_frames(path: Path) -> list[av.VideoFrame]:
    """The first frames of a real video, small; the last one repeats if it is short."""
    frames: list[av.VideoFrame] = []
    with av.open(str(path), metadata_errors="ignore") as container:
        for frame in container.decode(video=0):
            frames.append(frame.reformat(width=WIDTH, height=HEIGHT, format="yuv420p"))
            if len(frames) == NUM_FRAMES:
                break
    return frames + frames[-1:] * (NUM_FRAMES - len(frames))


def encode(frames: list[av.VideoFrame], path: Path, kind: str) -> Path:
    """Write frames as one of the kinds of file."""
    codec, pixel_format, options = KINDS[kind]
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, width=WIDTH, height=HEIGHT, pix_fmt=pixel_format, options=options)
        assert isinstance(stream, av.VideoStream)
        for number, frame in enumerate(frames):
            picture = frame.reformat(format=pixel_format)
            picture.pts, picture.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return path


def truncate(data: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    """Keep the first part."""
    return data[: int(len(data) * generator.uniform(0.02, 0.98))]


def flip_bits(data: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    """Flip 1 to 64 bits anywhere."""
    damaged = bytearray(data)
    for place in generator.integers(len(data), size=int(2 ** generator.uniform(0, 6))):
        damaged[place] ^= 1 << int(generator.integers(8))
    return bytes(damaged)


def zero_blocks(data: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    """Overwrite 1 to 4 stretches, of up to a fifth of the file, with zeros."""
    damaged = bytearray(data)
    for start, stop in _blocks(len(data), generator):
        damaged[start:stop] = bytes(stop - start)
    return bytes(damaged)


def drop_blocks(data: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    """Remove 1 to 4 stretches."""
    for start, stop in _blocks(len(data), generator):
        data = data[:start] + data[stop:]
    return data


def swap_header(data: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    """Replace its first bytes by those of another file."""
    length = int(generator.integers(16, 2048))
    return other[:length] + data[length:]


DAMAGES: tuple[Damage, ...] = (truncate, flip_bits, zero_blocks, drop_blocks, swap_header)


def _blocks(size: int, generator: np.random.Generator) -> Iterator[tuple[int, int]]:
    for _ in range(generator.integers(1, 5)):
        length = int(size * generator.uniform(0.002, 0.2))
        start = int(generator.integers(size - length))
        yield start, start + length


def write_variants(folder: Path, originals: list[Path], number: int, seed: int) -> list[Path]:
    """Write damaged copies of the originals, with every kind of damage in turn; returns the original of each copy."""
    folder.mkdir(parents=True, exist_ok=True)
    data = [path.read_bytes() for path in originals]
    sources = []
    for variant in range(number):
        generator = np.random.default_rng((seed, variant))
        source = variant % len(originals)
        damage = DAMAGES[variant // len(originals) % len(DAMAGES)]
        damaged = damage(data[source], data[int(generator.integers(len(data)))], generator)
        (folder / f"{variant:05}.{damage.__name__}.{originals[source].name}").write_bytes(damaged)
        sources.append(originals[source])
    return sources


def count_frames(path: Path) -> tuple[int, bool]:
    """How many frames a reader gets that continues after every error, and whether the header states a number."""
    count = 0
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            promises = stream.frames > 0 or (container.format.name in STATE_LENGTH and bool(container.duration))
            for packet in container.demux(stream):
                with suppress(Exception):
                    count += len(stream.decode(packet))
            return count, promises
    except Exception:
        return count, False
