"""Spatial labels: the map of the corners, symmetries between heads, and windows that contain only picture."""

import numpy as np
import pytest

from v3s.pretext.plan import Bars, Picture, PreResize, Sampling, Zoom, _crop_side, compose, resize_to_canvas
from v3s.pretext.spatial import HEADS, SpatialProjection, SpatialScale, SpatialTransform
from v3s.pretext.task import TASKS, PretextTask
from v3s.video.homography import FloatArray, Homography, corners, mirror

WIDTH, HEIGHT = 320.0, 240.0
ROWS = sorted({row for task in TASKS.values() for row in task.spatial}, key=str)
LENGTHS = [0.8, 0.75, 0.7, 0.65, 0.6, 0.5]
FRACTIONS = [0.0, 0.13, 0.5, 0.87, 1.0]
TRANSPOSE = Homography(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))


def close(actual: FloatArray, wanted: FloatArray) -> None:
    np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_map_takes_the_frame_to_its_output_corners(row: SpatialTransform) -> None:
    mapped = row.homography(WIDTH, HEIGHT)(corners(WIDTH, HEIGHT))
    np.testing.assert_allclose(mapped, row.output_corners(WIDTH, HEIGHT), atol=1e-9)


@pytest.mark.parametrize("head", HEADS)
def test_only_the_head_side_shrinks_and_it_stays_centred(head: str) -> None:
    sides = {"left": (0, 1), "bottom": (1, 2), "right": (2, 3), "top": (3, 0)}
    before = corners(WIDTH, HEIGHT)
    after = SpatialProjection(0.65, head).output_corners(WIDTH, HEIGHT)  # type: ignore[arg-type]
    for side, (first, second) in sides.items():
        length = np.linalg.norm(before[first] - before[second])
        if side == head:
            assert np.linalg.norm(after[first] - after[second]) == pytest.approx(0.65 * length)
            close(after[first] + after[second], before[first] + before[second])
    tail = sides[{"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[head]]
    assert np.array_equal(after[list(tail)], before[list(tail)])


@pytest.mark.parametrize("c", LENGTHS)
def test_left_head_is_the_mirrored_right_head(c: float) -> None:
    right, left = (SpatialProjection(c, head).homography(WIDTH, HEIGHT) for head in HEADS[:2])
    close(left.matrix, (mirror(WIDTH) @ right @ mirror(WIDTH)).matrix)


@pytest.mark.parametrize("c", LENGTHS)
def test_top_and_bottom_heads_are_left_and_right_ones_of_the_transposed_frame(c: float) -> None:
    for upright, lying in (("top", "left"), ("bottom", "right")):
        one = SpatialProjection(c, upright).homography(WIDTH, HEIGHT)  # type: ignore[arg-type]
        other = SpatialProjection(c, lying).homography(HEIGHT, WIDTH)  # type: ignore[arg-type]
        close(one.matrix, (TRANSPOSE @ other @ TRANSPOSE).matrix)


@pytest.mark.parametrize("c", LENGTHS)
@pytest.mark.parametrize(("u", "v"), [(0.0, 0.3), (0.4, 1.0), (0.9, 0.6)])
def test_windows_have_the_same_symmetries(c: float, u: float, v: float) -> None:
    size, side = 224.0, 90.0
    right, left, top, bottom = (SpatialProjection(c, head) for head in HEADS)
    window = right.window(size, side, u, v)
    mirrored = left.window(size, side, 1 - u, v)
    assert (mirrored.x, mirrored.y) == pytest.approx((size - window.x - side, window.y))
    turned = bottom.window(size, side, v, u)
    assert (turned.x, turned.y) == pytest.approx((window.y, window.x))
    turned = top.window(size, side, v, 1 - u)
    assert (turned.x, turned.y) == pytest.approx((window.y, size - window.x - side))


@pytest.mark.parametrize("a", [1.0, 1.15, 1.45])
def test_scale_window_moves_over_the_whole_stretched_canvas(a: float) -> None:
    row = SpatialScale(a, 1.0)
    first, last = row.window(224, 112, 0, 0), row.window(224, 112, 1, 1)
    assert (first.x, first.y, first.side) == (0, 0, 112)
    assert (last.x + 112, last.y + 112) == pytest.approx((a * 224, 224))


def map_window_back(row: SpatialTransform, u: float, v: float, task: PretextTask, sampling: Sampling) -> FloatArray:
    """The corners of a clip on the canvas before its transform, as shares of the canvas."""
    window = row.window(sampling.canvas_size, _crop_side(task, row, sampling, (u + v) / 2), u, v)
    to_clip = compose(row, window, Homography(np.eye(3)), sampling)
    size = sampling.clip_size
    return np.asarray(to_clip.inverse()(corners(size, size)) / sampling.canvas_size)


@pytest.mark.parametrize("zoom", ["paper", "even"])
@pytest.mark.parametrize(("clip_size", "canvas_size"), [(112, 224), (224, 256)])
def test_every_window_of_every_row_contains_only_picture(zoom: Zoom, clip_size: int, canvas_size: int) -> None:
    sampling = Sampling(clip_size=clip_size, canvas_size=canvas_size, zoom=zoom)
    for task in set(TASKS.values()):
        for row in task.spatial:
            for u in FRACTIONS:
                for v in FRACTIONS:
                    shares = map_window_back(row, u, v, task, sampling)
                    assert shares.min() > -1e-9, (row, u, v)
                    assert shares.max() < 1 + 1e-9, (row, u, v)


@pytest.mark.parametrize("pre_resize", ["squash", "short-side"])
@pytest.mark.parametrize("flipped", [True, False])
@pytest.mark.parametrize(("width", "height"), [(320, 240), (340, 256), (240, 320), (960, 320), (96, 500)])
def test_every_clip_is_inside_the_frame_without_its_bars(
    pre_resize: PreResize, flipped: bool, width: int, height: int
) -> None:
    """Also for frames of 3:1, whose top left corner a projection may send to infinity."""
    bars = Bars(left=3, top=20, right=7, bottom=10) if pre_resize == "squash" else Bars()
    sampling = Sampling(pre_resize=pre_resize)
    to_canvas = resize_to_canvas(Picture(width, height, bars), sampling)
    low, high = np.array([bars.left, bars.top]), np.array([width - bars.right, height - bars.bottom])
    for row in TASKS["v3s"].spatial:
        for u, v in ((0, 0), (1, 1), (0, 1), (0.3, 0.6)):
            window = row.window(224, row.paper_side(224, 112), u, v)
            source = compose(row, window, to_canvas, sampling, flipped=flipped).inverse()(corners(112, 112))
            assert (source > low - 1e-6).all(), (row, u, v)
            assert (source < high + 1e-6).all(), (row, u, v)


@pytest.mark.parametrize("c", LENGTHS)
@pytest.mark.parametrize("head", HEADS)
def test_no_larger_square_fits_everywhere(c: float, head: str) -> None:
    """A square one pixel larger than `largest_side` extends beyond the picture at the head end."""
    row = SpatialProjection(c, head)  # type: ignore[arg-type]
    longer = row.largest_side(224) + 1
    u, v = {"right": (1, 0), "left": (0, 0), "bottom": (0, 1), "top": (0, 0)}[head]
    window = row.window(224, longer, u, v)
    square = corners(longer, longer) + np.array([window.x, window.y])
    shares = row.homography(224, 224).inverse()(square) / 224
    assert shares.min() < -1e-4 or shares.max() > 1 + 1e-4


def test_even_zoom_draws_one_side_for_every_row_and_it_fits() -> None:
    sampling = Sampling(zoom="even")
    for task in TASKS.values():
        for fraction in (0.0, 0.31, 1.0):
            sides = {_crop_side(task, row, sampling, fraction) for row in task.spatial}
            assert len(sides) == 1
            assert 0 < sides.pop() <= min(112.0, *(row.largest_side(224) for row in task.spatial))


def test_even_zoom_never_stretches_a_strong_projection_beyond_its_head() -> None:
    """On a small canvas, the limit for the rows of `sp-0.5` is the head, not the clip."""
    sampling = Sampling(zoom="even", clip_size=112, canvas_size=160)
    assert _crop_side(TASKS["sp-0.5"], TASKS["sp-0.5"].spatial[0], sampling, 1.0) == 80
    assert _crop_side(TASKS["sp-0.5"], TASKS["sp-0.5"].spatial[0], sampling, 0.0) == 60


def test_the_largest_square_of_a_scale_has_its_shorter_side() -> None:
    assert SpatialScale(1.5, 1.25).largest_side(224) == SpatialScale(1.25, 1.5).largest_side(224) == 280


def test_all_scales_are_drawn_at_least_as_large_as_the_canvas() -> None:
    """A crop of 112 always fits, since no value of Table 1 shrinks the frame."""
    scales = [row for row in ROWS if isinstance(row, SpatialScale)]
    assert len(scales) > 6
    assert min(min(row.a, row.b) for row in scales) == 1
    assert min(row.largest_side(224) for row in scales) == 224
