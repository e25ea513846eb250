"""Malicious files, and a watch over files that must not be opened."""

import ctypes
import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av

from benchmarks.reliability.variants import KINDS, encode

IN_OPEN = 0x20


def write_tricks(data: Path, outside: Path) -> list[Path]:
    """Write them to `data`; `outside` contains the files that some of them point to."""
    data.mkdir()
    outside.mkdir()
    pictures = [av.VideoFrame(96, 72, "yuv420p") for _ in range(3)]
    encode(pictures, outside / "video.mp4", "x264.mp4")
    (outside / "folder").mkdir()
    encode(pictures, outside / "folder/video.mp4", "x264.mp4")
    (data / "ffconcat.mp4").write_text(f"ffconcat version 1.0\nfile '{outside / 'video.mp4'}'\n")
    (data / "hls.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{outside / 'video.mp4'}\n#EXT-X-ENDLIST\n"
    )
    (data / "link.mp4").symlink_to(outside / "video.mp4")
    (data / "linked-folder").symlink_to(outside / "folder")
    (data / "device.mp4").symlink_to("/dev/zero")
    os.mkfifo(data / "pipe.mp4")
    (data / "empty.mp4").touch()
    (data / "folder.mp4").mkdir()
    _huge(data)
    _long(data)
    _many_streams(data / "streams.mkv", 100)
    _many_streams(data / "streams.mp4", 100)
    return sorted(data.iterdir())


def _huge(data: Path) -> None:
    """Frames of 16,384 x 16,384 pixels (H.264: 8,192 x 8,192) in a few kilobytes."""
    size = struct.pack(">HH", 16384, 16384)
    jpeg = encode([av.VideoFrame(96, 72, "yuv420p")] * 3, data / "huge.mjpeg.avi", "mjpeg.avi")
    jpeg.write_bytes(
        jpeg.read_bytes().replace(b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", 72, 96), b"\xff\xc0\x00\x11\x08" + size)
    )
    with av.open(str(data / "huge.h264.mp4"), "w") as output:
        stream = output.add_stream(
            "libx264", rate=30, width=8192, height=8192, pix_fmt="yuv420p", options={"preset": "ultrafast"}
        )
        assert isinstance(stream, av.VideoStream)
        output.mux(stream.encode(av.VideoFrame(8192, 8192, "yuv420p")))
        output.mux(stream.encode(None))
    squeezed = zlib.compress(bytes((1 + 16384 // 8) * 16384), 9)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 16384, 16384, 1, 0, 0, 0, 0),
        b"acTL": struct.pack(">II", 1, 0),
        b"fcTL": struct.pack(">IIIIIHHBB", 0, 16384, 16384, 0, 0, 1, 30, 0, 0),
        b"IDAT": squeezed,
        b"IEND": b"",
    }
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks.items()
    )
    (data / "huge.apng.gif").write_bytes(png)
    screen = struct.pack("<HHBBB", 16384, 16384, 0x80, 0, 0) + bytes([0, 0, 0, 255, 255, 255])
    image = b"\x2c" + struct.pack("<HHHHB", 0, 0, 16384, 16384, 0) + b"\x02\x02\x44\x01\x00\x3b"
    (data / "huge.gif").write_bytes(b"GIF89a" + screen + image)


def _long(data: Path) -> None:
    """Headers that state 10^9 seconds, 2^31 frames, and an index of 80 million frames."""
    codec, pixel_format, options = KINDS["x264.mkv"]
    with av.open(str(data / "long.mkv"), "w") as output:
        stream = output.add_stream(codec, rate=30, width=96, height=72, pix_fmt=pixel_format, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.time_base = Fraction(1, 1)
        for seconds in (0, 10**9):
            picture = av.VideoFrame(96, 72, "yuv420p")
            picture.pts, picture.time_base = seconds, Fraction(1, 1)
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    pictures = [av.VideoFrame(96, 72, "yuv420p") for _ in range(3)]
    _overwrite(encode(pictures, data / "long.avi", "xvid.avi"), b"strh", 40, (2**31 - 1).to_bytes(4, "little"))
    index = encode(pictures, data / "long.mp4", "x265.mp4")
    many = (80_000_000).to_bytes(4, "big")
    _overwrite(index, b"stsz", 8, (1).to_bytes(4, "big") + many)
    _overwrite(index, b"stts", 12, many)
    _overwrite(index, b"stsc", 16, many)


def _overwrite(path: Path, name: bytes, offset: int, value: bytes) -> None:
    data = bytearray(path.read_bytes())
    place = data.index(name) + offset
    data[place : place + len(value)] = value
    path.write_bytes(data)


def _many_streams(path: Path, number: int) -> None:
    with av.open(str(path), "w") as output:
        streams = [output.add_stream("mpeg4", rate=30, width=32, height=32, pix_fmt="yuv420p") for _ in range(number)]
        for stream in streams:
            assert isinstance(stream, av.VideoStream)
            output.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
            output.mux(stream.encode(None))


class Watch:
    """Records which files of a folder are opened within the context, with inotify on Linux."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> "Watch":
        libc = ctypes.CDLL(None)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK)
        for folder in (self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())):
            libc.inotify_add_watch(self._descriptor, os.fsencode(folder), IN_OPEN)
        return self

    def opened(self) -> list[str]:
        """The names of the opened files."""
        try:
            events = os.read(self._descriptor, 2**16)
        except BlockingIOError:
            return []
        names = []
        while events:
            length = struct.unpack_from("iIII", events)[3]
            names.append(events[16 : 16 + length].rstrip(b"\0").decode() or ".")
            events = events[16 + length :]
        return names

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)
