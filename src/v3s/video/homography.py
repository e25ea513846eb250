"""Projective maps of the plane as values (paper section 3.1).

Convention: coordinates are continuous, x to the right and y downwards, with (0, 0) at the frame's top left *corner*
(not at the centre of its first pixel). A resize is then a diagonal matrix, a crop a translation, and the corner
equations of the paper hold as printed, without half-pixel terms.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Homography:
    """A projective map of the plane, from source to output coordinates.

    Attributes:
        matrix: float64, shape (3, 3), scaled so that the lower right entry is 1, unless (0, 0) goes to infinity.
    """

    matrix: FloatArray

    def __matmul__(self, first: "Homography") -> "Homography":
        """Chain two maps: ``(after @ first)(p) == after(first(p))``."""
        return _normalised(self.matrix @ first.matrix)

    def __call__(self, points: ArrayLike) -> FloatArray:
        """Map points of shape (..., 2), given as (x, y) in pixels."""
        points = np.asarray(points, dtype=np.float64)
        mapped = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        return np.asarray(mapped[..., :2] / mapped[..., 2:])

    def inverse(self) -> "Homography":
        """The map from output back to source coordinates."""
        return _normalised(np.linalg.inv(self.matrix))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Homography) and bool(np.array_equal(self.matrix, other.matrix))

    def __hash__(self) -> int:
        return hash((self.matrix + 0.0).tobytes())  # the sum turns -0.0, which equals 0.0, into it


def identity() -> Homography:
    """The map that moves nothing."""
    return Homography(np.eye(3))


def scale(x: float, y: float) -> Homography:
    """Stretch widths by ``x`` and heights by ``y`` about the corner (0, 0): also a resize."""
    return Homography(np.diag([x, y, 1.0]))


def translation(x: float, y: float) -> Homography:
    """Move every point by (x, y) pixels; a crop whose corner is (x0, y0) is ``translation(-x0, -y0)``."""
    return Homography(np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]]))


def mirror(width: float) -> Homography:
    """Swap left and right in a frame that is ``width`` pixels wide."""
    return Homography(np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))


def crop_and_resize(x: float, y: float, width: float, height: float, out_width: float, out_height: float) -> Homography:
    """Cut the window with corner (x, y) and size (width, height), then resize it to (out_width, out_height)."""
    return scale(out_width / width, out_height / height) @ translation(-x, -y)


def corners(width: float, height: float) -> FloatArray:
    """The four corners of a frame in the paper's order: (0, 0), (0, H), (W, H), (W, 0). Shape (4, 2)."""
    return np.array([[0.0, 0.0], [0.0, height], [width, height], [width, 0.0]])


def from_corners(source: ArrayLike, output: ArrayLike) -> Homography:
    """The map that takes four points to four others, by the paper's 8x8 linear system.

    Args:
        source: shape (4, 2), the points (x_i, y_i) in pixels.
        output: shape (4, 2), the points (u_i, v_i) in pixels.

    Returns:
        The map with m_8 = 1.

    Raises:
        ValueError: three of the points lie on one line, so that no such map exists, or (0, 0) would go to infinity.

    Source: paper section 3.1, the system for m_0 ... m_7.
    """
    source, output = np.asarray(source, dtype=np.float64), np.asarray(output, dtype=np.float64)
    (x, y), (u, v) = source.T, output.T
    zero, one = np.zeros(4), np.ones(4)
    system = np.block(
        [
            [np.stack([x, y, one, zero, zero, zero, -x * u, -y * u], axis=1)],
            [np.stack([zero, zero, zero, x, y, one, -x * v, -y * v], axis=1)],
        ]
    )
    problem = "three points lie on one line" if _three_on_a_line(source) or _three_on_a_line(output) else None
    try:
        entries = np.linalg.solve(system, np.concatenate([u, v]))
    except np.linalg.LinAlgError:
        problem = problem or "(0, 0) would go to infinity, which m_8 = 1 excludes"
    if problem:
        raise ValueError(f"no projective map takes {source.tolist()} to {output.tolist()}: {problem}")
    return Homography(np.append(entries, 1.0).reshape(3, 3))


def _three_on_a_line(points: FloatArray) -> bool:
    """Whether three of four points lie on one line, up to rounding."""
    extent = np.ptp(points, axis=0).max()
    first, second, third = points[[0, 0, 0, 1]], points[[1, 1, 2, 2]], points[[2, 3, 3, 3]]
    (ax, ay), (bx, by) = (second - first).T, (third - first).T
    return bool(np.abs(ax * by - ay * bx).min() <= 1e-9 * extent**2)


def _normalised(matrix: NDArray[np.floating]) -> Homography:
    corner = matrix[2, 2]
    return Homography(np.asarray(matrix / (corner if corner else 1.0), dtype=np.float64))
