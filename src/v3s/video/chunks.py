"""The chunks of a file, read without FFmpeg, which skips some silently: is their chain whole, and are some empty?

A file may have fewer pictures than its header promises because it is damaged, or because no picture was due: for a
dropped picture, capture programs write an empty chunk into an AVI file, and leave a gap in the timestamps of others.
A chain that is whole from the file's first byte to its last shows that nothing is missing.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Chain:
    """What a walk over a file's chunks found.

    Attributes:
        is_whole: Whether chunk follows chunk up to the end of the file.
        num_pictures: How many chunks hold a picture, in Matroska of any stream; 0 where chunks hold parts of pictures.
        num_empty: How many chunks of the video's stream hold nothing.
    """

    is_whole: bool
    num_pictures: int
    num_empty: int


def walk_chunks(path: str | Path, format_name: str, stream_number: int, tick: Callable[[], None]) -> Chain | None:
    """Walk over a file's chunks.

    Args:
        path: The file.
        format_name: FFmpeg's name of its format.
        stream_number: Of the video's stream.
        tick: Called for every chunk: the walk over a long file takes long.

    Returns:
        ``None`` for a format whose chunks this module does not know.
    """
    walk = _WALKS.get(format_name.split(",")[0])
    if walk is None:
        return None
    num_pictures = num_empty = 0
    is_whole = True
    try:
        with Path(path).open("rb") as file:
            for size in walk(file, os.fstat(file.fileno()).st_size, stream_number):
                tick()
                num_pictures += bool(size)
                num_empty += size == 0
    except _BrokenChainError:
        is_whole = False
    return Chain(is_whole, num_pictures, num_empty)


class _BrokenChainError(Exception):
    """A chunk with an invalid header, or one that ends beyond the file."""


def _take(file: BinaryIO, num_bytes: int) -> bytes:
    taken = file.read(num_bytes)
    if len(taken) < num_bytes:
        raise _BrokenChainError
    return taken


def _riff(file: BinaryIO, end: int, stream_number: int) -> Iterator[int | None]:
    """AVI: a name of four letters and a size; ``RIFF`` and ``LIST`` contain others, after a name of their own.

    Yields:
        For every chunk its size in bytes, if it is one of the video's stream; ``None`` if not.
    """
    place, names = 0, {f"{stream_number:02}{kind}".encode() for kind in ("dc", "db")}
    while place + 8 <= end:
        file.seek(place)
        name, size = _take(file, 4), int.from_bytes(_take(file, 4), "little")
        if not name.strip(b"\0"):
            raise _BrokenChainError
        yield size if name in names else None
        place += 12 if name in (b"RIFF", b"LIST") else 8 + size + size % 2
    if place > end + 1:
        raise _BrokenChainError


_MASTERS = {0x18538067, 0x1F43B675}  # a Segment, a Cluster
_BLOCKS = {0xA3, 0xA0, 0xAF}
_ELEMENTS = _MASTERS | _BLOCKS | {
    0x1A45DFA3, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367,  # in a Segment
    0xE7, 0x5854, 0xA7, 0xAB,  # in a Cluster
    0xEC, 0xBF,  # anywhere
}  # fmt: skip


def _ebml(file: BinaryIO, end: int, stream_number: int) -> Iterator[int | None]:
    """Matroska: a name and a size, each as long as the zeros before its first bit say; yields as :func:`_riff`."""
    place = 0
    while place < end:
        file.seek(place)
        first = _take(file, 1)
        name = int.from_bytes(first + _take(file, 8 - first[0].bit_length()), "big")
        length = _take(file, 1)[0]
        extra = 8 - length.bit_length()
        if name not in _ELEMENTS or extra > 7:
            raise _BrokenChainError
        size = int.from_bytes(bytes([length & (0x7F >> extra)]) + _take(file, extra), "big")
        unknown = size == (1 << 7 * (extra + 1)) - 1  # a recorder that could not go back to write it
        if unknown != (unknown and name in _MASTERS) or (not unknown and file.tell() + size > end):
            raise _BrokenChainError
        yield size if name in _BLOCKS else None
        place = file.tell() + (0 if name in _MASTERS else size)


def _flv(file: BinaryIO, end: int, stream_number: int) -> Iterator[int | None]:
    """Flash: tags of sound (8), video (9) and data (18), each followed by its size; yields as :func:`_riff`."""
    file.seek(5)
    place = int.from_bytes(_take(file, 4), "big") + 4
    while place < end:
        file.seek(place)
        head = _take(file, 11)
        size = int.from_bytes(head[1:4], "big")
        file.seek(place + 11 + size)
        if head[0] & 0x1F not in (8, 9, 18) or int.from_bytes(_take(file, 4), "big") != 11 + size:
            raise _BrokenChainError
        yield size if head[0] & 0x1F == 9 else None
        place += 15 + size


def _ivf(file: BinaryIO, end: int, stream_number: int) -> Iterator[int | None]:
    """IVF: a header, then frames with a size and a time; yields as :func:`_riff`."""
    file.seek(6)
    place = int.from_bytes(_take(file, 2), "little")
    while place < end:
        file.seek(place)
        size = int.from_bytes(_take(file, 12)[:4], "little")
        yield size
        place += 12 + size
    if place > end:
        raise _BrokenChainError


_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")  # the name of the object that holds the packets
_ASF_ALL = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")  # of the one at the beginning


def _asf(file: BinaryIO, end: int, stream_number: int) -> Iterator[int | None]:
    """ASF: objects of a name and a size; in one of them packets of equal size whose first bit is set.

    Packets contain parts of pictures, so pictures are not counted.
    """
    place = 0
    while place < end:
        file.seek(place)
        name, size = _take(file, 16), int.from_bytes(_take(file, 8), "little")
        if size < 24 or place + size > end or (place == 0) != (name == _ASF_ALL):
            raise _BrokenChainError
        if name == _ASF_DATA:
            num_packets = int.from_bytes(_take(file, 24)[16:], "little")
            if not num_packets or (size - 50) % num_packets:
                raise _BrokenChainError
            for number in range(num_packets):
                file.seek(place + 50 + number * ((size - 50) // num_packets))
                if not _take(file, 1)[0] & 0x80:
                    raise _BrokenChainError
                yield None
        yield None
        place += size


def _gif(file: BinaryIO, end: int, stream_number: int) -> Iterator[int | None]:
    """GIF: a head, then pictures (,) and extensions (!), each in parts that follow their sizes, and a mark of the end.

    The mark may be missing. FFmpeg ends silently at what is neither.
    """
    _skip_colours(file, _take(file, 13)[10])
    while kind := file.read(1).strip(b";"):
        if kind not in (b",", b"!"):
            raise _BrokenChainError
        if kind == b",":
            _skip_colours(file, _take(file, 9)[8])
        _take(file, 1)
        while size := _take(file, 1)[0]:
            file.seek(size, os.SEEK_CUR)
        yield None


def _skip_colours(file: BinaryIO, flags: int) -> None:
    file.seek(3 << (flags & 7) + 1 if flags & 0x80 else 0, os.SEEK_CUR)


_WALKS = {"asf": _asf, "avi": _riff, "flv": _flv, "gif": _gif, "ivf": _ivf, "matroska": _ebml}


def ends_in_box(path: str | Path) -> bool:
    """Whether a file is MP4 and ends within one of its boxes, each of a size and a name, so that its end is missing."""
    with Path(path).open("rb") as file:
        place, end = 0, os.fstat(file.fileno()).st_size
        while place < end:
            file.seek(place)
            head = file.read(16)
            size = int.from_bytes(head[:4], "big")
            size = int.from_bytes(head[8:], "big") if size == 1 else size or end - place
            if size < 8 or (place == 0 and head[4:8] != b"ftyp"):
                return False
            place += size
        return place > end
