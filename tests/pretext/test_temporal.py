"""Temporal labels: which frames a clip contains, also for lengths other than the paper's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v3s.pretext.temporal import Seam, TemporalProjection, TemporalScale, TemporalTransform, offsets, span

speeds = st.integers(1, 9)
transforms = st.builds(TemporalScale, speeds) | st.builds(TemporalProjection, st.tuples(speeds, speeds))
lengths = st.integers(2, 64)
seams: st.SearchStrategy[Seam] = st.sampled_from(["first", "second"])
quick = settings(deadline=None, max_examples=60)


@quick
@given(transforms, lengths, seams)
def test_offsets_start_at_zero_and_increase(transform: TemporalTransform, length: int, seam: Seam) -> None:
    places = offsets(transform, length, seam)
    assert len(places) == length
    assert places[0] == 0
    assert all(np.diff(places) >= 1)


@quick
@given(transforms, lengths, seams)
def test_span_reaches_from_the_first_frame_to_the_last(transform: TemporalTransform, length: int, seam: Seam) -> None:
    assert span(transform, length, seam) == offsets(transform, length, seam)[-1] + 1


@quick
@given(speeds, lengths, seams)
def test_constant_speed_is_a_range(speed: int, length: int, seam: Seam) -> None:
    assert offsets(TemporalScale(speed), length, seam) == tuple(range(0, length * speed, speed))


@quick
@given(speeds, lengths, seams)
def test_pattern_of_one_speed_is_that_speed(speed: int, length: int, seam: Seam) -> None:
    assert offsets(TemporalProjection((speed, speed)), length, seam) == offsets(TemporalScale(speed), length, seam)


@quick
@given(speeds, speeds, st.integers(1, 32), seams)
def test_each_half_plays_at_its_own_speed(first: int, second: int, half: int, seam: Seam) -> None:
    places = offsets(TemporalProjection((first, second)), 2 * half, seam)
    assert np.diff(places[:half]).tolist() == [first] * (half - 1)
    assert np.diff(places[half:]).tolist() == [second] * (half - 1)
    assert places[half] - places[half - 1] == (first if seam == "first" else second)


@quick
@given(speeds, speeds, lengths)
def test_reversed_pattern_read_backwards_is_the_pattern_with_the_other_seam(a: int, b: int, half: int) -> None:
    forwards = np.diff(offsets(TemporalProjection((a, b)), 2 * half, "first"))
    backwards = np.diff(offsets(TemporalProjection((b, a)), 2 * half, "second"))
    assert forwards.tolist() == backwards[::-1].tolist()


@pytest.mark.parametrize("speeds", [(0,), (1001,), (1, 0), (-1, 2)])
def test_a_speed_that_stands_still_or_runs_back_is_refused(speeds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"a speed must be from 1 to 1000 source frames per frame; got \("):
        TemporalScale(*speeds) if len(speeds) == 1 else TemporalProjection(speeds)  # type: ignore[arg-type]


def test_odd_length_gives_the_second_half_the_spare_frame() -> None:
    assert offsets(TemporalProjection((1, 3)), 7) == (0, 1, 2, 3, 6, 9, 12)
    assert offsets(TemporalProjection((1, 3)), 7, "second") == (0, 1, 2, 5, 8, 11, 14)


@pytest.mark.parametrize("seam", ["first", "second"])
def test_every_pattern_has_its_own_clips(seam: Seam) -> None:
    """No two of the paper's labels select the same frames, with either seam."""
    labels: list[TemporalTransform] = [TemporalScale(s) for s in (1, 2, 3, 4)]
    labels += [TemporalProjection(p) for p in ((1, 2), (2, 3), (3, 4), (4, 5), (2, 1), (3, 2), (4, 3), (5, 4))]
    assert len({offsets(label, 16, seam) for label in labels}) == 12
