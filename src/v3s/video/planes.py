"""FFmpeg's decoded frames to the planes that the project works on."""

import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter

from v3s.video.frames import ColourSpace

_PLANAR_FORMATS = frozenset(f"yuv{full}{sampling}p" for full in ("", "j") for sampling in ("420", "422", "444"))
_FULL_RANGE = 2  # FFmpeg's AVCOL_RANGE_JPEG
_MATRIX_OF_SPACE = {1: "bt709", 4: "fcc", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
"""The matrix of each of FFmpeg's colour spaces; all others, the unspecified one among them, are BT.601 to swscale."""


class PlaneReader:
    """Takes the planes out of decoded frames of one video.

    Attributes:
        colour: of the frames: that of the first one of their format.
    """

    def __init__(self) -> None:
        self.colour: ColourSpace | None = None
        self._given = self._taken = ""  # FFmpeg's names of the frames' format, and of that of the planes
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> list[list[np.ndarray]]:
        """The planes of a frame without the padding of their lines: [[Y], [U, V]], or [[R, G, B]]. Views of it."""
        if (given := frame.format.name) != self._given:
            self._given, self._taken = given, planar_format(frame)
            self.colour = None if self._taken == "gbrp" else colour_of(frame)
        if self._taken != given:
            # One thread: starting threads for each frame costs more than they save on frames of this size.
            frame = self._reformatter.reformat(frame, format=self._taken, threads=1)
        first, *others = map(plane_lines, frame.planes)
        return [[others[1], first, others[0]]] if self._taken == "gbrp" else [[first], others]


def colour_of(frame: VideoFrame) -> ColourSpace:
    """Matrix and range of a decoded frame, as swscale takes them."""
    full = frame.format.name.startswith("yuvj") or int(frame.color_range) == _FULL_RANGE
    return ColourSpace(_MATRIX_OF_SPACE.get(int(frame.colorspace), "bt601"), full)


def planar_format(frame: VideoFrame) -> str:
    """The 8-bit planar format that holds a frame without loss of resolution."""
    given = frame.format
    if given.name in _PLANAR_FORMATS:
        return given.name
    if given.is_rgb or given.has_palette or len(given.components) < 3:
        return "gbrp"
    tall, wide = (size(16) for size in (given.chroma_height, given.chroma_width))
    return {(8, 8): "yuv420p", (16, 8): "yuv422p"}.get((tall, wide), "yuv444p")


def plane_lines(plane: VideoPlane) -> np.ndarray:
    """A plane without the padding at the end of its lines: uint8, shape (height, width), a view."""
    return np.ndarray((plane.height, plane.width), np.uint8, memoryview(plane), strides=(abs(plane.line_size), 1))
