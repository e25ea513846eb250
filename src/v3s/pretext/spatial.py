"""Spatial scale and spatial projection: labels that stand for a map of the frame (paper section 3.1).

Both work on a canvas: the frame resized to ``size x size`` pixels (224 in the paper). A crop window is drawn on the
transformed canvas, completely inside the picture, and becomes the clip.
"""

from dataclasses import dataclass
from typing import Literal

from v3s.video.homography import FloatArray, Homography, corners, from_corners

Head = Literal["right", "left", "top", "bottom"]
MAX_SCALE = 100
HEADS: tuple[Head, ...] = ("right", "left", "top", "bottom")


@dataclass(frozen=True, slots=True)
class Window:
    """A square cut from the transformed canvas: its corner (x, y) and side, in canvas pixels."""

    x: float
    y: float
    side: float


@dataclass(frozen=True, slots=True)
class SpatialScale:
    """S_S: the frame becomes ``a`` times as wide and ``b`` times as high.

    Source: paper section 3.1, "Scale".
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        if not (0 < self.a <= MAX_SCALE and 0 < self.b <= MAX_SCALE):
            raise ValueError(f"a scale must be more than 0 and at most {MAX_SCALE}; got {self.a} and {self.b}")

    def __str__(self) -> str:
        return f"scale {self.a:g} x {self.b:g}"

    def output_corners(self, width: float, height: float) -> FloatArray:
        """The transformed corners of a frame, in the order of the paper. Shape (4, 2)."""
        return corners(self.a * width, self.b * height)

    def homography(self, width: float, height: float) -> Homography:
        """The map for a (width, height) frame."""
        return from_corners(corners(width, height), self.output_corners(width, height))

    def paper_side(self, size: float, clip_size: float) -> float:
        """The side of the paper's crop: the clip size, so that the crop is not resized (section 4.1.2)."""
        return clip_size

    def largest_side(self, size: float) -> float:
        """The side of the largest square that fits inside the transformed canvas."""
        return min(self.a, self.b) * size

    def window(self, size: float, side: float, u: float, v: float) -> Window:
        """Place a square of the given side; ``u`` and ``v`` in [0, 1] are its horizontal and vertical position."""
        return Window(u * (self.a * size - side), v * (self.b * size - side), side)


@dataclass(frozen=True, slots=True)
class SpatialProjection:
    """S_P: the frame becomes a trapezoid whose ``head`` side shrinks to ``c`` times its length.

    Source: paper section 3.1, "Projection"; the formulas printed there are for ``head="right"``.
    """

    c: float
    head: Head

    def __post_init__(self) -> None:
        if not 0 < self.c <= 1:
            raise ValueError(f"the head of a projection must be more than 0 and at most 1 times as long; got {self.c}")

    def __str__(self) -> str:
        return f"projection {self.c:g} {self.head}"

    def output_corners(self, width: float, height: float) -> FloatArray:
        """The transformed corners (0, 0), (0, H), (W, H), (W, 0). Shape (4, 2)."""
        moved = corners(width, height)
        x, y = (1 - self.c) * width / 2, (1 - self.c) * height / 2
        shift = {
            "right": ((2, 0, -y), (3, 0, y)),
            "left": ((0, 0, y), (1, 0, -y)),
            "top": ((0, x, 0), (3, -x, 0)),
            "bottom": ((1, x, 0), (2, -x, 0)),
        }
        for corner, dx, dy in shift[self.head]:
            moved[corner] += (dx, dy)
        return moved

    def homography(self, width: float, height: float) -> Homography:
        """The map for a (width, height) frame."""
        return from_corners(corners(width, height), self.output_corners(width, height))

    def paper_side(self, size: float, clip_size: float) -> float:
        """The side of the paper's crop: the length of the head end (section 4.1.2)."""
        return self.c * size

    def largest_side(self, size: float) -> float:
        """The side of the largest square that fits at every position along the trapezoid's axis: the head's length."""
        return self.c * size

    def window(self, size: float, side: float, u: float, v: float) -> Window:
        """Place a square of the given side inside the trapezoid, so that none of its pixels is black.

        ``u`` and ``v`` in [0, 1] are its horizontal and vertical position. Along the trapezoid's axis, every position
        on the canvas is possible; across the axis, the slack is determined at the square's narrower end.
        """
        if self.head in ("right", "left"):
            x = u * (size - side)
            return Window(x, self._across(size, side, x, v), side)
        y = v * (size - side)
        return Window(self._across(size, side, y, u), y, side)

    def _across(self, size: float, side: float, along: float, fraction: float) -> float:
        """Return the coordinate across the axis of a square that starts at ``along``, at a fraction of the slack."""
        narrow = along + side if self.head in ("right", "bottom") else size - along
        loss = (1 - self.c) / 2 * narrow
        return loss + fraction * (size - 2 * loss - side)


SpatialTransform = SpatialScale | SpatialProjection
