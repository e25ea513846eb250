"""Maps of the plane: laws over drawn maps, closed forms, and what is refused. Frames are never square."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from v3s.video.homography import (
    FloatArray,
    Homography,
    corners,
    crop_and_resize,
    from_corners,
    identity,
    mirror,
    scale,
    translation,
)

WIDTH, HEIGHT = 320.0, 240.0
TRAPEZOID = np.array([[0.0, 0.0], [0.0, HEIGHT], [WIDTH, 180.0], [WIDTH, 60.0]])
POINTS = np.array([[0.0, 0.0], [17.5, 3.0], [319.0, 0.5], [160.0, 200.0], [320.0, 240.0]])
quick = settings(deadline=None, max_examples=50)


@st.composite
def quadrilaterals(draw: st.DrawFn) -> FloatArray:
    """The corners of a frame, each moved by less than a quarter of its size: never three on one line."""
    moves = draw(st.lists(st.floats(-0.24, 0.24), min_size=8, max_size=8))
    return np.asarray(corners(WIDTH, HEIGHT) + np.reshape(moves, (4, 2)) * [WIDTH, HEIGHT])


def close(actual: FloatArray, wanted: ArrayLike) -> None:
    np.testing.assert_allclose(actual, np.asarray(wanted, np.float64), rtol=1e-9, atol=1e-7)


@quick
@given(quadrilaterals(), quadrilaterals())
def test_from_corners_takes_each_corner_to_its_place(source: FloatArray, output: FloatArray) -> None:
    close(from_corners(source, output)(source), output)


@quick
@given(quadrilaterals(), quadrilaterals())
def test_from_corners_keeps_straight_lines_straight(source: FloatArray, output: FloatArray) -> None:
    start, end = source[:2]
    line = start + np.linspace(0, 1, 5)[:, None] * (end - start)
    (ax, ay), (bx, by) = (from_corners(source, output)(line) - output[0]).T, output[1] - output[0]
    close((ax * by - ay * bx) / (bx**2 + by**2), np.zeros(5))


@quick
@given(quadrilaterals(), quadrilaterals(), quadrilaterals())
def test_chain_applies_the_right_hand_map_first(a: FloatArray, b: FloatArray, c: FloatArray) -> None:
    first, after = from_corners(a, b), from_corners(b, c)
    close((after @ first)(POINTS), after(first(POINTS)))
    close((after @ first)(a), c)


@quick
@given(quadrilaterals(), quadrilaterals())
def test_inverse_goes_back(a: FloatArray, b: FloatArray) -> None:
    there = from_corners(a, b)
    close(there.inverse()(there(POINTS)), POINTS)
    close((there.inverse() @ there).matrix, np.eye(3))
    close(there.inverse().matrix, from_corners(b, a).matrix)


def test_order_of_a_chain_matters() -> None:
    grow, move = scale(2, 3), translation(10, 20)
    close((grow @ move)([1, 1]), [22, 63])
    close((move @ grow)([1, 1]), [12, 23])


def test_identity_moves_nothing() -> None:
    assert np.array_equal(identity()(POINTS), POINTS)
    assert identity() @ identity() == identity() == identity().inverse()


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.45), (1.3, 1.0), (0.7, 2.35)])
def test_scale_is_diagonal(a: float, b: float) -> None:
    close(from_corners(corners(WIDTH, HEIGHT), corners(a * WIDTH, b * HEIGHT)).matrix, np.diag([a, b, 1]))
    assert np.array_equal(scale(a, b).matrix, np.diag([a, b, 1]))


@pytest.mark.parametrize("c", [0.8, 0.65, 0.5])
def test_right_headed_projection_in_closed_form(c: float) -> None:
    """Solved by hand: the depth w = 1 + (1/c - 1) x/W; u fixes x = 0 and x = W; v fixes y = H/2."""
    slant = (1 / c - 1) / WIDTH
    by_hand = [[1 / c, 0, 0], [slant * HEIGHT / 2, 1, 0], [slant, 0, 1]]
    loss = (1 - c) * HEIGHT / 2
    output = [[0.0, 0.0], [0.0, HEIGHT], [WIDTH, HEIGHT - loss], [WIDTH, loss]]
    close(from_corners(corners(WIDTH, HEIGHT), output).matrix, by_hand)


def test_crop_and_resize_takes_the_window_to_the_whole_output() -> None:
    cut = crop_and_resize(40, 10, 200, 100, 112, 64)
    close(cut([[40, 10], [240, 110], [140, 60]]), [[0, 0], [112, 64], [56, 32]])
    assert crop_and_resize(0, 0, WIDTH, HEIGHT, 64, 64) == scale(64 / WIDTH, 64 / HEIGHT)


def test_mirror_swaps_left_and_right_and_undoes_itself() -> None:
    close(mirror(320)([[0, 7], [320, 7], [80, 9]]), [[320, 7], [0, 7], [240, 9]])
    assert mirror(WIDTH) @ mirror(WIDTH) == identity()


def test_corners_are_in_the_papers_order() -> None:
    assert corners(WIDTH, HEIGHT).tolist() == [[0, 0], [0, HEIGHT], [WIDTH, HEIGHT], [WIDTH, 0]]


@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 4, 2)])
def test_points_of_any_shape(shape: tuple[int, ...]) -> None:
    points = np.random.default_rng(0).uniform(0, 200, shape)
    projection = from_corners(corners(WIDTH, HEIGHT), TRAPEZOID)
    one_by_one = [projection(point) for point in points.reshape(-1, 2)]
    assert projection(points).shape == shape
    close(projection(points).reshape(-1, 2), one_by_one)


@quick
@given(quadrilaterals(), st.floats(-2, 3), st.permutations(range(4)), st.booleans())
def test_three_points_on_a_line_are_refused(
    points: FloatArray, place: float, order: list[int], in_output: bool
) -> None:
    flat = points.copy()
    first, second, third = order[:3]
    flat[third] = flat[first] + place * (flat[second] - flat[first])
    with pytest.raises(ValueError, match=r"no projective map takes .* three points lie on one line"):
        from_corners(*((points, flat) if in_output else (flat, points)))


@pytest.mark.parametrize("points", [np.zeros((4, 2)), corners(WIDTH, 0.0), corners(0.0, HEIGHT)])
def test_frame_without_area_is_refused(points: FloatArray) -> None:
    with pytest.raises(ValueError, match="three points lie on one line"):
        from_corners(points, corners(WIDTH, HEIGHT))


def test_origin_sent_to_infinity_is_refused_by_the_papers_system() -> None:
    """The map u = 1/x, v = y/x suits these four points, but its m_8 is 0."""
    source = np.array([[1.0, 0.0], [1.0, 1.0], [2.0, 2.0], [2.0, 0.0]])
    output = np.stack([1 / source[:, 0], source[:, 1] / source[:, 0]], axis=1)
    with pytest.raises(ValueError, match=r"\(0, 0\) would go to infinity"):
        from_corners(source, output)


def test_chain_may_send_the_origin_to_infinity() -> None:
    """The short side of a 3:1 frame under the strongest projection: exactly this happens, outside of the window."""
    projection = from_corners(corners(2, 1), [[0.0, 0.0], [0.0, 1.0], [2.0, 0.75], [2.0, 0.25]])
    chained = projection @ translation(-2, 0)
    assert np.isfinite(chained.matrix).all()
    close(chained([[3.0, 0.2]]), projection([[1.0, 0.2]]))
    close(chained.inverse()(chained(POINTS[1:])), POINTS[1:])


def test_equal_maps_have_equal_hashes() -> None:
    assert translation(0.0, 0.0) == translation(-0.0, 0.0) == identity()
    assert hash(translation(0.0, 0.0)) == hash(translation(-0.0, 0.0)) == hash(identity())
    assert len({scale(1, 2), scale(1.0, 2.0), scale(2, 1)}) == 2
    assert scale(1, 2) != scale(1, 2 + 1e-12)
    assert identity() != "identity"


def test_pickle_keeps_the_map() -> None:
    before = from_corners(corners(WIDTH, HEIGHT), TRAPEZOID)
    after: Homography = pickle.loads(pickle.dumps(before))
    assert after == before
    assert after.matrix.dtype == np.float64
