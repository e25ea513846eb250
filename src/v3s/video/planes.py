"""FFmpeg's decoded frames to the planes that the project works on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from v3s.files.checksum import adler32
from v3s.video.frames import ColourSpace, Frames

_PLANAR_FORMATS = frozenset(f"yuv{full}{sampling}p" for full in ("", "j") for sampling in ("420", "422", "444"))
FULL_RANGE = 2  # FFmpeg's AVCOL_RANGE_JPEG
_MATRIX_OF_SPACE = {1: "bt709", 4: "fcc", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
"""The matrix of each of FFmpeg's colour spaces; all others, the unspecified one among them, are BT.601 to swscale."""

_SPACES = {
    "bt601": Colorspace.ITU601,
    "bt709": Colorspace.ITU709,
    "bt2020": Colorspace.BT2020,
    "fcc": Colorspace.FCC,
    "smpte240m": Colorspace.SMPTE240M,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """What the planes of a video are: one layout for all of its frames, so that none depends on its company.

    Attributes:
        planes: "yuv420p", "yuv422p", "yuv444p" or "gbrp", of 8 bits.
        colour: How the planes make RGB; ``None`` for "gbrp".
    """

    planes: str
    colour: ColourSpace | None


RGB = Layout("gbrp", None)


class PlaneReader:
    """Takes the planes out of decoded frames.

    Args:
        layout: Of the planes: a frame of another format or colour space is converted, by what it says of itself.
            ``None`` takes every frame in its own layout.
    """

    def __init__(self, layout: Layout | None = None) -> None:
        self._layout = self._wanted = layout
        self._given: tuple[str, int, int] | None = None  # format, matrix and range of the frame before
        self._fits, self._layout_checksum = False, 1
        self._convert = Converter()

    def __call__(self, frame: VideoFrame) -> list[list[np.ndarray]]:
        """The planes of a frame without the padding of their lines: [[Y], [U, V]], or [[R, G, B]]. Views of it."""
        if (given := meaning_of(frame)) != self._given:
            self._given, self._layout = given, self._wanted or layout_of(frame)
            self._fits, self._layout_checksum = fits(frame, self._layout), adler32(repr(self._layout).encode())
        assert self._layout is not None
        if not self._fits:
            frame = self._convert(frame, self._layout)
        first, *others = map(plane_lines, frame.planes)
        return [[others[1], first, others[0]]] if self._layout.planes == "gbrp" else [[first], others]

    def checksum(self, frame: VideoFrame) -> int:
        """Adler-32 of all that makes a picture as it is read: every plane, and how they make RGB."""
        planes = self(frame)
        checksum = self._layout_checksum
        for group in planes:
            for plane in group:
                checksum = adler32(np.ascontiguousarray(plane), checksum)
        return checksum


class Converter:
    """Brings frames into a layout, and to a size."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(
        self, frame: VideoFrame, layout: Layout, size: tuple[int, int] | None = None, interpolation: str | None = None
    ) -> VideoFrame:
        """Convert a frame.

        Args:
            frame: Any frame of FFmpeg's; its own format, matrix and range say what its values mean.
            layout: What is wanted.
            size: Height and width; by default the frame's.
            interpolation: FFmpeg's name of the way in which it is made larger or smaller; by default bilinear.
        """
        height, width = size or (frame.height, frame.width)
        own, wanted = layout_of(frame), layout.colour
        from_rgb = own.colour != wanted
        if from_rgb:
            frame = self._rgb(frame, own)  # swscale is off by several levels on other ways
        return self._scale(
            frame,
            width=width,
            height=height,
            format=layout.planes,
            dst_colorspace=_SPACES[wanted.matrix] if wanted and from_rgb else None,
            dst_color_range=wanted and (ColorRange.JPEG if wanted.full else ColorRange.MPEG),
            interpolation=interpolation,
        )

    def _rgb(self, frame: VideoFrame, own: Layout) -> VideoFrame:
        """A frame as the RGB that reading makes of it: of YUV by the same arithmetic as clips."""
        if not fits(frame, own):
            frame = self._scale(frame, format=own.planes)
        if own.colour is None:
            return frame
        luma, *chroma = (torch.from_numpy(plane_lines(plane).copy()) for plane in frame.planes)
        red, green, blue = Frames((luma[None, None], torch.stack(chroma)[None]), own.colour).rgb()[0].numpy()
        made = VideoFrame(frame.width, frame.height, "gbrp")
        for plane, values in zip(made.planes, (green, blue, red), strict=True):
            plane_lines(plane)[:] = values
        return made

    def _scale(self, frame: VideoFrame, **wanted: Any) -> VideoFrame:
        # One thread: starting threads for each frame costs more than they save on frames of this size.
        return self._reformatter.reformat(frame, threads=1, **wanted)


def meaning_of(frame: VideoFrame) -> tuple[str, int, int]:
    """All that a frame says of what its values mean: FFmpeg's pixel format, colour space and range."""
    return frame.format.name, frame.colorspace, frame.color_range


def layout_of(frame: VideoFrame) -> Layout:
    """The layout that holds a frame without loss of resolution."""
    planes = planar_format(frame.format)
    return RGB if planes == "gbrp" else Layout(planes, colour_of(frame))


def fits(frame: VideoFrame, layout: Layout) -> bool:
    """Whether a frame's planes are those of a layout, without conversion."""
    return frame.format.name in (layout.planes, layout.planes.replace("yuv", "yuvj")) and layout_of(frame) == layout


def colour_of(frame: VideoFrame) -> ColourSpace:
    """Matrix and range of a decoded frame, as swscale takes them."""
    full = frame.format.name.startswith("yuvj") or int(frame.color_range) == FULL_RANGE
    return ColourSpace(_MATRIX_OF_SPACE.get(int(frame.colorspace), "bt601"), full)


def planar_format(given: VideoFormat) -> str:
    """The 8-bit planar format that holds frames of a format without loss of resolution."""
    if given.name in _PLANAR_FORMATS:
        return given.name.replace("yuvj", "yuv")
    if given.is_rgb or given.has_palette or len(given.components) < 3:
        return "gbrp"
    tall, wide = (size(16) for size in (given.chroma_height, given.chroma_width))
    return {(8, 8): "yuv420p", (16, 8): "yuv422p"}.get((tall, wide), "yuv444p")


def plane_lines(plane: VideoPlane) -> np.ndarray:
    """A plane without the padding at the end of its lines, the first line on top: uint8, (height, width), a view."""
    lines = np.ndarray((plane.height, plane.width), np.uint8, memoryview(plane), strides=(abs(plane.line_size), 1))
    return lines[::-1] if plane.line_size < 0 else lines
