"""Plans: every random choice is a function of the key, stays within the video, and leaks nothing about the label."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v3s.pretext.plan import (
    EVEN_ZOOM,
    NO_BARS,
    Bars,
    ClipOptions,
    ClipPlan,
    LabelPrior,
    Labels,
    Picture,
    PreResize,
    Sampling,
    Zoom,
    balanced_labels,
    compose,
    draw_labels,
    max_samples,
    middle_crop,
    plan_clip,
    resize_to_canvas,
    sample_generator,
)
from v3s.pretext.spatial import SpatialProjection, SpatialTransform, Window
from v3s.pretext.task import TASKS, PretextTask
from v3s.pretext.temporal import Seam, offsets, span
from v3s.video.colour import UNCHANGED
from v3s.video.homography import FloatArray, corners, mirror
from v3s.video.warp import samples_for

WIDTH, HEIGHT = 320, 240
V3S = TASKS["v3s"]
STILL = TASKS["ts"]  # its one spatial label is the identity
# 99.9 % of chi-square draws lie below these, by degrees of freedom
CRITICAL = {10: 29.59, 17: 40.79, 197: 264.1}


def draw_plan(
    key: Sequence[int] = (0, 0, 0),
    task: PretextTask = V3S,
    labels: Labels | None = None,
    *,
    num_frames: int = 200,
    width: int = WIDTH,
    height: int = HEIGHT,
    bars: Bars = NO_BARS,
    sampling: Sampling | None = None,
) -> ClipPlan:
    """Plan the sample of a key (seed, epoch, index); draw its labels unless they are given."""
    seed, epoch, index = key
    generator, sampling = sample_generator(seed, epoch, index), sampling or Sampling()
    labels = labels or draw_labels(task, sampling.label_prior, generator)
    return plan_clip(
        task,
        labels,
        num_frames=num_frames,
        picture=Picture(width, height, bars),
        sampling=sampling,
        generator=generator,
    )


def chi_square(counts: Sequence[int], shares: Sequence[float]) -> float:
    expected = np.array(shares) * sum(counts)
    return float(((np.array(counts) - expected) ** 2 / expected).sum())


def jacobian(plan: ClipPlan, x: float, y: float) -> FloatArray:
    """How the plan's map turns a small step in the source at (x, y) into one in the clip; shape (2, 2)."""
    step = 1e-3
    at, right, below = plan.to_clip([[x, y], [x + step, y], [x, y + step]])
    return np.stack([right - at, below - at], axis=1) / step


# The key is all there is to a sample.


def test_same_key_same_plan() -> None:
    assert draw_plan((3, 1, 4)) == draw_plan((3, 1, 4))
    assert hash(draw_plan((3, 1, 4))) == hash(draw_plan((3, 1, 4)))


def test_different_keys_differ() -> None:
    """Also keys that differ by a trailing zero or a swap: numpy's seeding pads with zeros."""
    keys = [(seed, epoch, index) for seed in range(6) for epoch in range(6) for index in range(6)]
    keys += [(0, 0, 2**32 - 1), (2**32 - 1, 0, 0), (0, 2**32 - 1, 0)]
    assert len({draw_plan(key).to_clip for key in keys}) == len(keys)


def test_neighbouring_samples_are_not_correlated() -> None:
    places = np.array([sample_generator(0, epoch, index).random(3) for epoch in range(20) for index in range(50)])
    for before, after in ((places[:-1], places[1:]), (places[:-50], places[50:])):
        correlation = np.corrcoef(before.T, after.T)[:3, 3:]
        assert np.abs(correlation).max() < 4 / np.sqrt(len(before))


# Frames


@settings(deadline=None, max_examples=60)
@given(
    st.integers(69, 400),
    st.integers(0, 2**32 - 1),
    st.integers(0, 17),
    st.integers(0, 10),
    st.sampled_from(["first", "second"]),
)
def test_frames_lie_in_the_video_and_follow_the_label(
    num_frames: int, seed: int, spatial: int, temporal: int, seam: Seam
) -> None:
    plan = draw_plan(
        (seed, 0, 0), labels=Labels(spatial, temporal), num_frames=num_frames, sampling=Sampling(seam=seam)
    )
    assert 0 <= plan.frames[0] < plan.frames[-1] < num_frames
    start = plan.frames[0]
    assert tuple(frame - start for frame in plan.frames) == offsets(V3S.temporal[temporal], 16, seam)
    assert plan.labels == Labels(spatial, temporal)


def test_clips_start_anywhere_that_fits() -> None:
    needed = span(V3S.temporal[3], 16)
    for room in (0, 1, 4):
        starts = {
            draw_plan((0, 0, index), labels=Labels(0, 3), num_frames=needed + room).frames[0] for index in range(80)
        }
        assert starts == set(range(room + 1))


@pytest.mark.parametrize(("temporal", "needed"), [(0, 16), (2, 46), (10, 69)])
def test_too_short_video_is_refused_with_both_numbers(temporal: int, needed: int) -> None:
    draw_plan(labels=Labels(0, temporal), num_frames=needed)
    with pytest.raises(ValueError, match=rf"the video has {needed - 1} frames; speed \d( then \d)? needs {needed}$"):
        draw_plan(labels=Labels(0, temporal), num_frames=needed - 1)


# Labels


def test_labels_are_uniform_and_independent() -> None:
    drawn = [draw_labels(V3S, "class", sample_generator(0, 1, index)) for index in range(8000)]
    pairs = np.zeros((18, 11), int)
    for labels in drawn:
        pairs[labels.spatial, labels.temporal] += 1
    assert chi_square(pairs.sum(1).tolist(), [1 / 18] * 18) < CRITICAL[17]
    assert chi_square(pairs.sum(0).tolist(), [1 / 11] * 11) < CRITICAL[10]
    assert chi_square(pairs.ravel().tolist(), [1 / 198] * 198) < CRITICAL[197]


def test_family_prior_gives_scale_and_projection_half_each() -> None:
    drawn = [draw_labels(V3S, "family", sample_generator(0, 0, index)) for index in range(8000)]
    spatial = np.bincount([labels.spatial for labels in drawn], minlength=18)
    temporal = np.bincount([labels.temporal for labels in drawn], minlength=11)
    assert chi_square(spatial.tolist(), [1 / 12] * 6 + [1 / 24] * 12) < CRITICAL[17]
    assert chi_square(temporal.tolist(), [1 / 6] * 3 + [1 / 16] * 8) < CRITICAL[10]
    assert chi_square(spatial.tolist(), [1 / 18] * 18) > 5 * CRITICAL[17]


@pytest.mark.parametrize("prior", ["class", "family"])
def test_table_of_one_row_has_one_label(prior: LabelPrior) -> None:
    assert {draw_labels(STILL, prior, sample_generator(0, 0, index)).spatial for index in range(20)} == {0}


# Geometry


@pytest.mark.parametrize("row", range(18))
def test_flip_is_a_mirror_of_the_source(row: int) -> None:
    """The frame is mirrored before the transform, so the label stays true."""
    spatial, sampling = V3S.spatial[row], Sampling()
    window = spatial.window(224, 100, 0.2, 0.7)
    to_canvas = resize_to_canvas(Picture(WIDTH, HEIGHT), sampling)
    flipped = compose(spatial, window, to_canvas, sampling, flipped=True)
    by_hand = compose(spatial, window, to_canvas, sampling) @ mirror(WIDTH)
    points = corners(250, 150) + 30.0
    np.testing.assert_allclose(flipped(points), by_hand(points), rtol=1e-9)


def test_flip_mirrors_half_of_the_clips_and_none_without() -> None:
    def num_mirrored(sampling: Sampling) -> int:
        plans = [draw_plan((0, 0, index), sampling=sampling) for index in range(400)]
        return sum(np.linalg.det(jacobian(plan, WIDTH / 2, HEIGHT / 2)) < 0 for plan in plans)

    assert num_mirrored(Sampling()) == 0
    assert abs(num_mirrored(Sampling(flip=True)) - 200) < 4 * 10  # four standard deviations


@pytest.mark.parametrize("zoom", ["paper", "even"])
@pytest.mark.parametrize("row", range(6, 18))
def test_objects_are_smallest_at_the_head_also_in_flipped_clips(zoom: str, row: int) -> None:
    spatial, sampling = V3S.spatial[row], Sampling(flip=True, zoom=zoom)  # type: ignore[arg-type]
    assert isinstance(spatial, SpatialProjection)
    ends = {"right": [[109, 56], [3, 56]], "left": [[3, 56], [109, 56]]}
    ends |= {"bottom": [[56, 109], [56, 3]], "top": [[56, 3], [56, 109]]}
    for index in range(12):
        plan = draw_plan((0, 0, index), labels=Labels(row, 0), sampling=sampling)
        head, tail = (abs(np.linalg.det(jacobian(plan, *plan.to_clip.inverse()(end)))) for end in ends[spatial.head])
        assert head < 0.97 * tail


@pytest.mark.parametrize(("width", "height"), [(320, 240), (240, 320), (640, 272)])
@pytest.mark.parametrize("bars", [NO_BARS, Bars(left=11, top=6, right=3, bottom=16)])
def test_short_side_keeps_the_shape_of_things(width: int, height: int, bars: Bars) -> None:
    sampling = Sampling(pre_resize="short-side")
    plan = draw_plan(task=STILL, width=width, height=height, bars=bars, sampling=sampling)
    expected = 224 / min(width - bars.left - bars.right, height - bars.top - bars.bottom)
    np.testing.assert_allclose(jacobian(plan, width / 3, height / 4), expected * np.eye(2), atol=1e-6)


def test_short_side_takes_the_middle() -> None:
    to_canvas = resize_to_canvas(
        Picture(640, 300, Bars(left=20, top=30, right=40, bottom=10)), Sampling(pre_resize="short-side")
    )
    np.testing.assert_allclose(
        to_canvas([[180, 30], [310, 160], [440, 290]]), [[0, 0], [112, 112], [224, 224]], atol=1e-9
    )


def test_squash_changes_the_shape_as_the_paper_does() -> None:
    """A 4:3 frame becomes 0.75 as wide, a 16:9 frame 0.56."""
    for width, height, squeeze in ((320, 240, 0.75), (640, 360, 0.5625)):
        across, _, _, down = jacobian(draw_plan(task=STILL, width=width, height=height), 100, 100).ravel()
        assert across / down == pytest.approx(squeeze)


@pytest.mark.parametrize("pre_resize", ["squash", "short-side"])
def test_the_middle_crop_is_the_unscaled_middle_of_the_canvas(pre_resize: PreResize) -> None:
    picture, sampling = Picture(640, 300, Bars(left=20, top=30, right=40, bottom=10)), Sampling(pre_resize=pre_resize)
    points = corners(640, 300)
    on_canvas = resize_to_canvas(picture, sampling)(points)
    np.testing.assert_allclose(middle_crop(picture, sampling)(points), on_canvas - (224 - 112) / 2, atol=1e-9)


@pytest.mark.parametrize("pre_resize", ["squash", "short-side"])
@pytest.mark.parametrize("flip", [True, False])
def test_bars_are_never_in_a_clip(pre_resize: PreResize, flip: bool) -> None:
    bars = Bars(left=31, top=12, right=5, bottom=44)
    sampling = Sampling(pre_resize=pre_resize, flip=flip)
    reached = []
    for index in range(150):
        plan = draw_plan((0, 0, index), width=400, bars=bars, sampling=sampling)
        reached.append(plan.to_clip.inverse()(corners(112, 112)))
    low, high = np.min(reached, axis=(0, 1)), np.max(reached, axis=(0, 1))
    inner = [[31, 12], [395, 196]] if pre_resize == "squash" else [[121, 12], [305, 196]]
    assert (low > np.array(inner[0]) - 1e-6).all()
    assert (high < np.array(inner[1]) + 1e-6).all()
    np.testing.assert_allclose([low, high], inner, atol=12)  # and clips come close to all four edges


# Zoom


def crop_side(plan: ClipPlan, spatial: SpatialTransform, sampling: Sampling) -> float:
    """The side of the plan's crop in canvas pixels, read off its map."""
    whole = compose(
        spatial, Window(0, 0, sampling.clip_size), resize_to_canvas(Picture(WIDTH, HEIGHT), sampling), sampling
    )
    return sampling.clip_size / float((plan.to_clip @ whole.inverse()).matrix[0, 0])


def test_paper_zoom_crops_by_the_label() -> None:
    for row, spatial in enumerate(V3S.spatial):
        plan = draw_plan((5, 0, row), labels=Labels(row, 0))
        wanted = spatial.c * 224 if isinstance(spatial, SpatialProjection) else 112
        assert crop_side(plan, spatial, Sampling()) == pytest.approx(wanted)


def test_even_zoom_draws_the_same_sides_for_every_label() -> None:
    sampling = Sampling(zoom="even")
    sides = np.array(
        [
            [crop_side(draw_plan((0, 0, index), V3S, Labels(row, 0), sampling=sampling), spatial, sampling)]
            for row, spatial in enumerate(V3S.spatial)
            for index in range(40)
        ]
    ).reshape(18, 40)
    np.testing.assert_allclose(sides, np.broadcast_to(sides[0], sides.shape))
    assert EVEN_ZOOM * 112 <= sides.min() < 87
    assert 109 < sides.max() <= 112
    assert sides[0].mean() == pytest.approx((1 + EVEN_ZOOM) / 2 * 112, abs=4 * 28 / np.sqrt(12 * 40))


def test_zoom_moves_no_other_choice() -> None:
    """The same key starts at the same frame in both zooms: they can be compared clip by clip."""
    for index in range(10):
        paper, even = (draw_plan((0, 0, index), sampling=Sampling(zoom=zoom)) for zoom in ("paper", "even"))
        assert (paper.frames, paper.labels) == (even.frames, even.labels)


# What hides the label: each is off unless asked for, and moves no choice but its own

HIDING = {"scale_jitter": 0.5, "blur": 3.0, "colour_jitter": 0.4, "grey": 0.2}


def test_nothing_is_hidden_unless_asked_for() -> None:
    plans = [draw_plan((0, 0, index)) for index in range(20)]
    assert {(plan.blur, plan.colour) for plan in plans} == {(0.0, UNCHANGED)}


@pytest.mark.parametrize("name", HIDING)
def test_hiding_one_thing_moves_nothing_else(name: str) -> None:
    both = Sampling(**HIDING)  # type: ignore[arg-type]
    alone = replace(Sampling(), **{name: HIDING[name]})  # type: ignore[arg-type]
    for index in range(10):
        plain, one, all_ = (draw_plan((0, 0, index), sampling=sampling) for sampling in (Sampling(), alone, both))
        assert plain.frames == one.frames == all_.frames
        assert plain.labels == one.labels == all_.labels
        assert one.to_clip == (all_ if name == "scale_jitter" else plain).to_clip
        assert one.blur == (all_ if name == "blur" else plain).blur


@pytest.mark.parametrize("zoom", ["paper", "even"])
def test_scale_jitter_shrinks_the_crops_of_all_classes_alike(zoom: Zoom) -> None:
    """Log-uniformly between 1 and 1 / (1 + j) of the side that the crop had."""
    plain, jittered = Sampling(zoom=zoom), Sampling(zoom=zoom, scale_jitter=0.5)
    shrink = np.array(
        [
            crop_side(draw_plan((0, 0, index), V3S, Labels(row, 0), sampling=jittered), spatial, jittered)
            / crop_side(draw_plan((0, 0, index), V3S, Labels(row, 0), sampling=plain), spatial, plain)
            for row, spatial in enumerate(V3S.spatial)
            for index in range(60)
        ]
    ).reshape(18, 60)
    np.testing.assert_allclose(shrink, np.broadcast_to(shrink[0], shrink.shape))
    low = np.log(1 / 1.5)
    assert low <= np.log(shrink).min() < 0.9 * low
    assert 0.1 * low < np.log(shrink).max() <= 0
    assert np.log(shrink[0]).mean() == pytest.approx(low / 2, abs=4 * -low / np.sqrt(12 * 60))


def test_blur_and_colour_are_drawn_from_their_ranges() -> None:
    plans = [draw_plan((0, 0, index), sampling=Sampling(blur=3, colour_jitter=0.4, grey=0.2)) for index in range(400)]
    blurs = np.array([plan.blur for plan in plans])
    factors = np.array([(plan.colour.brightness, plan.colour.contrast, plan.colour.saturation) for plan in plans])
    coloured = factors[factors[:, 2] > 0]
    for drawn, low, high in [(blurs, 0, 3), *((column, 0.6, 1.4) for column in coloured.T)]:
        assert low <= drawn.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < drawn.max() <= high
    assert abs((factors[:, 2] == 0).sum() - 80) < 4 * 8  # four standard deviations
    assert np.abs(np.corrcoef(np.column_stack([blurs[factors[:, 2] > 0], coloured]).T) - np.eye(4)).max() < 0.25


@pytest.mark.parametrize("wrong", [{"scale_jitter": -0.1}, {"blur": -1.0}, {"colour_jitter": 1.0}, {"grey": 1.1}])
def test_impossible_hiding_is_refused(wrong: dict[str, float]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=rf"^{name} is {value}; it must be "):
        replace(Sampling(), **wrong)  # type: ignore[arg-type]


# Sampling


@pytest.mark.parametrize(
    "wrong", [{"clip_frames": 1}, {"clip_size": 0}, {"canvas_size": 111}, {"clip_size": 225}, {"clip_frames": -16}]
)
def test_impossible_sampling_is_refused(wrong: dict[str, int]) -> None:
    value = next(iter(wrong.values()))
    with pytest.raises(ValueError, match=r"^\w+ is -?\d+; it must be (2 or more|more than 0|at least)") as raised:
        replace(Sampling(), **wrong)  # type: ignore[arg-type]
    assert str(value) in str(raised.value)


def test_defaults_are_the_papers() -> None:
    sampling = Sampling()
    assert (sampling.clip_frames, sampling.clip_size, sampling.canvas_size) == (16, 112, 224)
    assert (sampling.zoom, sampling.pre_resize, sampling.flip) == ("paper", "squash", False)


def test_sizes_that_were_not_chosen_are_those_of_the_backbone() -> None:
    """The canvas is twice the clip, and for clips of 224 pixels 256, as S3D-G's own resizing."""
    sampled = [
        ClipOptions().sampling(8, 64),
        ClipOptions().sampling(64, 224),
        ClipOptions(clip_size=112).sampling(64, 224),
        ClipOptions(clip_frames=4, clip_size=32).sampling(),
        ClipOptions(canvas_size=300).sampling(64, 224),
    ]
    sizes = [(each.clip_frames, each.clip_size, each.canvas_size) for each in sampled]
    assert sizes == [(8, 64, 128), (64, 224, 256), (64, 112, 128), (4, 32, 64), (64, 224, 300)]


@pytest.mark.parametrize("size", [(320, 240), (240, 1600), (1920, 360)])
def test_all_labels_get_the_samples_of_the_one_that_shrinks_most(size: tuple[int, int]) -> None:
    """Each direction by itself: the label that shrinks the width most need not shrink the height."""
    sampling, picture = Sampling(), Picture(*size)
    to_canvas = resize_to_canvas(picture, sampling)
    windows = ((row, row.window(224, row.paper_side(224, 112), 0.5, 0.5)) for row in V3S.spatial)
    across, down = zip(
        *(samples_for(compose(row, window, to_canvas, sampling), 112, 112) for row, window in windows), strict=True
    )
    assert max_samples(V3S, sampling, picture) == (max(across), max(down))
    assert min(across) < max(across) or min(down) < max(down)


@pytest.mark.parametrize("count", [61, 110, 363])
def test_balance_holds_within_each_family(count: int) -> None:
    """Scales and projections, and the rows within each: to within one."""
    drawn = balanced_labels(V3S, "family", count, np.random.default_rng(count))
    spatial, temporal = [each.spatial for each in drawn], [each.temporal for each in drawn]
    for table, rows in ((V3S.spatial, spatial), (V3S.temporal, temporal)):
        counts = np.bincount(rows, minlength=len(table))
        kinds = np.array([type(row).__name__ for row in table])
        families = [counts[kinds == kind] for kind in sorted(set(kinds))]
        assert len(families) == 2
        assert abs(int(families[0].sum()) - int(families[1].sum())) <= 1
        assert all(family.max() - family.min() <= 1 for family in families)


@pytest.mark.parametrize("zoom", ["paper", "even"])
def test_one_number_of_samples_for_all_labels(zoom: Zoom) -> None:
    """No clip needs more than all get, up to where its crop lies; a larger frame needs more."""
    sampling = Sampling(zoom=zoom)
    across, down = max_samples(V3S, sampling, Picture(320, 240))
    for row in range(len(V3S.spatial)):
        generator = np.random.default_rng(row)
        plan = plan_clip(
            V3S, Labels(row, 0), num_frames=16, picture=Picture(320, 240), sampling=sampling, generator=generator
        )
        own = samples_for(plan.to_clip, 112, 112)
        assert own[0] <= across + 1
        assert own[1] <= down + 1
    assert max_samples(V3S, sampling, Picture(112, 112)) == (1, 1)
    assert max_samples(V3S, sampling, Picture(1920, 1080)) > (across, down)
