"""The transforms as printed: paper sections 3.1, 3.2 and 4.1.2, Tables 1 and 3."""

import numpy as np
import pytest

from v3s.pretext.plan import Labels, Picture, Sampling, plan_clip
from v3s.pretext.spatial import SpatialProjection, SpatialScale
from v3s.pretext.task import TASKS, PretextTask
from v3s.pretext.temporal import TemporalProjection, TemporalScale, offsets, span
from v3s.video.homography import corners

W, H = 320.0, 240.0
HEADS = ("right", "left", "top", "bottom")


# Section 3.1: the conversion formula and its linear system


@pytest.mark.parametrize("row", TASKS["ss+sp"].spatial, ids=str)
def test_map_solves_the_printed_system(row: SpatialScale | SpatialProjection) -> None:
    x, y = corners(W, H).T
    u, v = row.output_corners(W, H).T
    system = [[x[i], y[i], 1, 0, 0, 0, -x[i] * u[i], -y[i] * u[i]] for i in range(4)]
    system += [[0, 0, 0, x[i], y[i], 1, -x[i] * v[i], -y[i] * v[i]] for i in range(4)]
    m = row.homography(W, H).matrix.ravel()
    assert m[8] == 1
    np.testing.assert_allclose(np.array(system) @ m[:8], [*u, *v], atol=1e-9)


@pytest.mark.parametrize("row", TASKS["ss+sp"].spatial, ids=str)
def test_map_is_the_printed_formula(row: SpatialScale | SpatialProjection) -> None:
    x, y = 71.0, 163.5
    transform = row.homography(W, H)
    m = transform.matrix.ravel()
    u = (m[0] * x + m[1] * y + m[2]) / (m[6] * x + m[7] * y + 1)
    v = (m[3] * x + m[4] * y + m[5]) / (m[6] * x + m[7] * y + 1)
    np.testing.assert_allclose(transform([x, y]), [u, v])


def test_corners_of_scale() -> None:
    a, b = 1.0, 0.3  # Fig. 2
    assert SpatialScale(a, b).output_corners(W, H).tolist() == [[0, 0], [0, b * H], [a * W, b * H], [a * W, 0]]


@pytest.mark.parametrize("c", [0.8, 0.65, 0.5])
def test_corners_of_projection_with_the_right_side_as_head(c: float) -> None:
    printed = [[0, 0], [0, H], [W, (H + c * H) / 2], [W, (H - c * H) / 2]]
    moved = SpatialProjection(c, "right").output_corners(W, H)
    np.testing.assert_allclose(moved, np.array(printed, dtype=float))
    assert moved[2, 1] - moved[3, 1] == pytest.approx(c * H)  # "the length of the head end"


# Section 3.2: spans in source frames of a clip of l = 16


@pytest.mark.parametrize(("s", "frames"), [(1, 16), (2, 31), (3, 46), (4, 61)])
def test_span_of_temporal_scale(s: int, frames: int) -> None:
    """Speed s skips s - 1 frames; the printed index, stride s - 1, would show one frame sixteen times at s = 1."""
    assert span(TemporalScale(s), 16) == frames
    assert offsets(TemporalScale(s), 16) == tuple(i * s for i in range(16))


SPANS = {(1, 2): 23, (2, 3): 38, (3, 4): 53, (4, 5): 68, (2, 1): 24, (3, 2): 39, (4, 3): 54, (5, 4): 69}


@pytest.mark.parametrize("p", SPANS)
def test_span_of_temporal_projection(p: tuple[int, int]) -> None:
    """With the other reading of the seam, a pattern spans what its reverse spans here."""
    assert span(TemporalProjection(p), 16) == SPANS[p] == 8 * p[0] + 7 * p[1] + 1
    assert span(TemporalProjection(p), 16, "second") == SPANS[p[::-1]] == 7 * p[0] + 8 * p[1] + 1


@pytest.mark.parametrize("p", SPANS)
def test_both_stages_have_eight_frames(p: tuple[int, int]) -> None:
    """l_1 = l_2 = 8, l_1 + l_2 = l = 16."""
    for seam in ("first", "second"):
        frames = offsets(TemporalProjection(p), 16, seam)
        first, second = frames[:8], frames[8:]
        assert first == tuple(range(0, 8 * p[0], p[0]))
        assert second == tuple(range(second[0], second[0] + 8 * p[1], p[1]))


def test_one_pattern_frame_by_frame() -> None:
    frames = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 22)
    assert offsets(TemporalProjection((1, 2)), 16) == frames
    assert offsets(TemporalProjection((1, 2)), 16, "second") == frames[:8] + tuple(frame + 1 for frame in frames[8:])


# Section 4.1.2: resize to 224 x 224, crop 112 x 112, or l x l for a projection


@pytest.mark.parametrize(("c", "side"), [(0.8, 179.2), (0.65, 145.6), (0.5, 112.0)])
@pytest.mark.parametrize("head", HEADS)
def test_projection_is_cropped_by_the_length_of_its_head(c: float, side: float, head: str) -> None:
    assert SpatialProjection(c, head).paper_side(224, 112) == pytest.approx(side)  # type: ignore[arg-type]


@pytest.mark.parametrize("row", TASKS["ss"].spatial, ids=str)
def test_scale_is_cropped_by_112_and_never_resized_again(row: SpatialScale) -> None:
    assert row.paper_side(224, 112) == 112
    plan = plan_clip(
        TASKS["ss"],
        Labels(TASKS["ss"].spatial.index(row), 0),
        num_frames=16,
        picture=Picture(320, 240),
        sampling=Sampling(),
        generator=np.random.default_rng(0),
    )
    diagonal = [224 / 320 * row.a, 224 / 240 * row.b, 1]
    np.testing.assert_allclose(np.diag(plan.to_clip.matrix), diagonal)


@pytest.mark.parametrize("c", [0.8, 0.65, 0.5])
@pytest.mark.parametrize("u", [0.0, 0.37, 1.0])
def test_place_of_a_clean_square(c: float, u: float) -> None:
    """Loss d(x) = (S - l)/2 * x/S above and below; slack (S - l) (1 - (x0 + l)/S) for the square's corner."""
    size, length = 224, c * 224
    row = SpatialProjection(c, "right")
    first, last = row.window(size, length, u, 0), row.window(size, length, u, 1)
    assert first.x == last.x == pytest.approx(u * (size - length))
    assert first.y == pytest.approx((size - length) / 2 * (first.x + length) / size)
    assert last.y - first.y == pytest.approx((size - length) * (1 - (first.x + length) / size))


@pytest.mark.parametrize(("c", "share"), [(0.8, 0.30), (0.65, 0.53), (0.5, 0.75)])
def test_plain_random_crop_would_hold_black_pixels(c: float, share: float) -> None:
    """Why the square is placed inside: a 112 crop anywhere on the warped canvas gives the projection away."""
    places = np.random.default_rng(0).uniform(0, 112, (20_000, 2))
    row = SpatialProjection(c, "right")
    square = places[:, None] + corners(112, 112)
    source = row.homography(224, 224).inverse()(square)
    black = ((source < 0) | (source > 224)).any(axis=(1, 2)).mean()
    assert black == pytest.approx(share, abs=0.015)


# Tables 1 and 3


TABLE_1_SCALES = {
    "ss-1.45": [(1, 1.15), (1, 1.3), (1, 1.45), (1.15, 1), (1.3, 1), (1.45, 1)],
    "ss-1.9": [(1, 1.3), (1, 1.6), (1, 1.9), (1.3, 1), (1.6, 1), (1.9, 1)],
    "ss-2.35": [(1, 1.45), (1, 1.9), (1, 2.35), (1.45, 1), (1.9, 1), (2.35, 1)],
}
TABLE_1_PROJECTIONS = {"sp-0.7": [0.8, 0.75, 0.7], "sp-0.6": [0.8, 0.7, 0.6], "sp-0.5": [0.8, 0.65, 0.5]}
TABLE_1_SPEEDS = {"ts-2": [1, 2], "ts-3": [1, 2, 3], "ts-4": [1, 2, 3, 4]}
TABLE_1_PATTERNS = {
    "tp-4": [(1, 2), (2, 3), (2, 1), (3, 2)],
    "tp-6": [(1, 2), (2, 3), (3, 4), (2, 1), (3, 2), (4, 3)],
    "tp-8": [(1, 2), (2, 3), (3, 4), (4, 5), (2, 1), (3, 2), (4, 3), (5, 4)],
}


def test_every_row_of_table_1_is_a_task_and_no_other() -> None:
    rows = [*TABLE_1_SCALES, *TABLE_1_PROJECTIONS, *TABLE_1_SPEEDS, *TABLE_1_PATTERNS]
    assert len(rows) == 12
    assert set(TASKS) - {"v3s-short"} == {*rows, "ss", "sp", "ss+sp", "ts", "tp", "ts+tp", "v3s"}


@pytest.mark.parametrize("name", TABLE_1_SCALES)
def test_scales_of_table_1(name: str) -> None:
    assert TASKS[name].spatial == tuple(SpatialScale(a, b) for a, b in TABLE_1_SCALES[name])
    assert TASKS[name].temporal == (TemporalScale(1),)


@pytest.mark.parametrize("name", TABLE_1_PROJECTIONS)
def test_projections_of_table_1(name: str) -> None:
    wanted = {SpatialProjection(c, head) for c in TABLE_1_PROJECTIONS[name] for head in HEADS}  # type: ignore[arg-type]
    assert len(TASKS[name].spatial) == 12
    assert set(TASKS[name].spatial) == wanted
    assert TASKS[name].temporal == (TemporalScale(1),)


@pytest.mark.parametrize("name", TABLE_1_SPEEDS)
def test_speeds_of_table_1(name: str) -> None:
    assert TASKS[name] == PretextTask((SpatialScale(1, 1),), tuple(TemporalScale(s) for s in TABLE_1_SPEEDS[name]))


@pytest.mark.parametrize("name", TABLE_1_PATTERNS)
def test_patterns_of_table_1(name: str) -> None:
    wanted = tuple(TemporalProjection(p) for p in TABLE_1_PATTERNS[name])
    assert TASKS[name] == PretextTask((SpatialScale(1, 1),), wanted)


# Rows of Table 3: outputs of the spatial and the temporal head
TABLE_3 = {"ss": (6, 1), "sp": (12, 1), "ss+sp": (18, 1), "ts": (1, 3), "tp": (1, 8), "ts+tp": (1, 11), "v3s": (18, 11)}


@pytest.mark.parametrize("name", TABLE_3)
def test_rows_of_table_3(name: str) -> None:
    assert (len(TASKS[name].spatial), len(TASKS[name].temporal)) == TABLE_3[name]


def test_table_3_combines_the_best_rows_of_table_1() -> None:
    best = {"ss": "ss-1.45", "sp": "sp-0.5", "ts": "ts-3", "tp": "tp-8"}
    assert all(TASKS[name] == TASKS[row] for name, row in best.items())
    assert TASKS["ss+sp"].spatial == TASKS["ss"].spatial + TASKS["sp"].spatial
    assert TASKS["ts+tp"].temporal == TASKS["ts"].temporal + TASKS["tp"].temporal
    assert TASKS["v3s"] == PretextTask(TASKS["ss+sp"].spatial, TASKS["ts+tp"].temporal)


def test_no_spatial_class_is_the_identity() -> None:
    assert SpatialScale(1, 1) not in TASKS["v3s"].spatial
    assert TemporalScale(1) in TASKS["v3s"].temporal
