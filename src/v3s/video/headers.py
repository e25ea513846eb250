"""Headers of a codec that lie among a video's pictures, where they may change without the container knowing.

A decoder that jumps over a changed header decodes what follows by the old one: to other pictures, without an error.
"""

from collections.abc import Callable, Iterator

from av.packet import Packet
from av.video.stream import VideoStream

_KIND_OF: dict[str, Callable[[int], int | None]] = {
    "h264": lambda first: first & 31 if first & 31 in (7, 8) else None,
    "hevc": lambda first: first >> 1 & 63 if first >> 1 & 63 in (32, 33, 34) else None,
    "mpeg1video": lambda first: first if first == 0xB3 else None,
    "mpeg2video": lambda first: first if first == 0xB3 else None,
    "mpeg4": lambda first: 0x20 if 0x20 <= first <= 0x2F else None,
}
"""By codec: which kind of header a unit of a packet is, by its first byte; ``None`` for all others."""

_LENGTH_AT = {"h264": 4, "hevc": 21}  # in what the container states, where units follow their lengths
_MOST_UNITS = 256  # of a kind that are kept


class Headers:
    """The headers in a video's packets.

    Args:
        codec: FFmpeg's name.
        stated: What the container states for the decoder; empty if nothing.
    """

    def __init__(self, codec: str = "", stated: bytes = b"") -> None:
        self._kind_of, self._units = _KIND_OF.get(codec), dict[int, set[bytes]]()
        place = _LENGTH_AT.get(codec, len(stated))
        self._num_length_bytes = (stated[place] & 3) + 1 if len(stated) > place and stated[0] == 1 else 0

    def add(self, packet: "Packet[VideoStream]") -> frozenset[int]:
        """Note the headers in a packet, and return their kinds."""
        if self._kind_of is None:
            return frozenset()
        found = set()
        for unit in self._divide(bytes(packet)):
            if unit and (kind := self._kind_of(unit[0])) is not None:
                found.add(kind)
                if len(units := self._units.setdefault(kind, set())) < _MOST_UNITS:
                    units.add(unit)
        return frozenset(found)

    def kinds_beside(self, stated: bytes) -> frozenset[int]:
        """The kinds of which a decoder that knows only what a container states may lack one."""
        return frozenset(kind for kind, units in self._units.items() if any(unit not in stated for unit in units))

    def _divide(self, content: bytes) -> Iterator[bytes]:
        """The units of a packet: each follows its length, or a start code."""
        if not self._num_length_bytes:
            yield from (unit.rstrip(b"\0") for unit in content.split(b"\0\0\1")[1:])
            return
        place = 0
        while place < len(content):
            start = place + self._num_length_bytes
            place = start + int.from_bytes(content[place:start], "big")
            yield content[start:place]
