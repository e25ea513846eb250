"""How a stored picture is mirrored and turned before it is shown: in one of eight ways, by the display matrix."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
from av.sidedata.sidedata import SideData, SideDataContainer, Type
from av.video.frame import VideoFrame

MOST_DEGREES_OFF = 1.0  # of a quarter turn: further off than FFmpeg takes for one, and a file is refused


@dataclass(frozen=True, slots=True)
class Orientation:
    """What makes a stored picture upright.

    Attributes:
        rotation: Counter-clockwise turn in degrees: 0, 90, 180 or 270.
        mirrored: Whether the picture is mirrored top to bottom before it is turned. With 180 degrees that is a mirror
            left to right, with 90 and 270 one along a diagonal.
    """

    rotation: int = 0
    mirrored: bool = False

    @property
    def is_sideways(self) -> bool:
        """Whether height and width change places."""
        return self.rotation % 180 == 90

    def upright(self, plane: np.ndarray) -> np.ndarray:
        """A plane of a stored picture as it is shown; a view."""
        if self.mirrored:
            plane = plane[::-1]
        return np.rot90(plane, self.rotation // 90) if self.rotation else plane

    def as_stored(self, plane: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`upright`; a view."""
        plane = np.rot90(plane, -self.rotation // 90) if self.rotation else plane
        return plane[::-1] if self.mirrored else plane

    def upright_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a picture of a stored height and width."""
        return (width, height) if self.is_sideways else (height, width)


AS_STORED = Orientation()

_OF_TAG = {
    2: Orientation(180, mirrored=True),
    3: Orientation(180),
    4: Orientation(0, mirrored=True),
    5: Orientation(270, mirrored=True),
    6: Orientation(270),
    7: Orientation(90, mirrored=True),
    8: Orientation(90),
}


def orientation_of_tag(number: int) -> Orientation:
    """What the tag Orientation of TIFF says, which is that of EXIF: 1 to 8; any other number says nothing.

    FFmpeg makes a display matrix of the tag in a JPEG or PNG.
    """
    return _OF_TAG.get(number, AS_STORED)


def _unknown_kind(cls: type[Type], value: int) -> Type:
    """A kind of data beside a frame that FFmpeg has and PyAV does not name: EXIF, which comes with a display matrix."""
    kind = object.__new__(cls)
    kind._name_ = f"KIND_{value}"
    kind._value_ = value  # type: ignore[assignment]
    return kind


Type._missing_ = classmethod(_unknown_kind)  # type: ignore[assignment]  # otherwise PyAV raises


def orientation_of(frame: VideoFrame) -> Orientation | None:
    """What a frame's display matrix says; ``None`` where it has none.

    Convention: (x, y) of the stored picture, y pointing down, is shown at (a x + c y, b x + d y); the matrix holds a,
    b, c and d at 0, 1, 3 and 4. Its determinant is negative where it mirrors. One that leaves no area says nothing.

    Raises:
        ValueError: If it turns by other than a multiple of 90 degrees.
    """
    # frame.side_data would make a cycle, which keeps the frame's buffer
    read = cast("Callable[[VideoFrame], Iterable[SideData]]", SideDataContainer)
    data = next((data for data in read(frame) if data.type is Type.DISPLAYMATRIX), None)
    if data is None:
        return None
    matrix = np.frombuffer(bytes(data), np.int32).astype(np.float64)
    a, b, c, d = matrix[[0, 1, 3, 4]]
    if a * d == b * c:
        return AS_STORED
    degrees = float(-np.degrees(np.arctan2(b, a)))
    quarters = round(degrees / 90)
    if abs(degrees - 90 * quarters) > MOST_DEGREES_OFF:
        raise ValueError(f"display rotation of {round(degrees)} degrees is not a multiple of 90")
    return Orientation(90 * quarters % 360, bool(a * d < b * c))
