"""Synthetic clips: deterministic, of the expected length and classes, with the cues that the pretext task needs."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from v3s.data.synthetic import MOTIONS, PATTERNS, PERIOD_FRAMES, PERIOD_SPREAD, SHAPES, make_clips
from v3s.pages.images import Pixels

NUM_FRAMES, HEIGHT, WIDTH, FPS = 75, 90, 120, 20


def read(path: Path) -> Pixels:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def make(folder: Path, num_videos: int, seed: int = 0) -> list[Path]:
    return make_clips(
        folder, num_videos=num_videos, num_frames=NUM_FRAMES, height=HEIGHT, width=WIDTH, fps=FPS, seed=seed
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make(tmp_path_factory.mktemp("synthetic"), 2 * len(MOTIONS))


def test_files_have_the_expected_layout_and_length(clips: list[Path]) -> None:
    assert len(MOTIONS) >= 6
    assert [path.parent.name for path in clips] == 2 * list(MOTIONS)
    assert [path.name for path in clips] == ["clip_000.mp4"] * len(MOTIONS) + ["clip_001.mp4"] * len(MOTIONS)
    for path in clips:
        assert read(path).shape == (NUM_FRAMES, HEIGHT, WIDTH, 3)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.average_rate == Fraction(FPS)
            assert container.duration == pytest.approx(NUM_FRAMES / FPS * 1e6)


def test_a_clip_depends_only_on_the_seed_and_its_number(clips: list[Path], tmp_path: Path) -> None:
    again, other = make(tmp_path / "again", 3), make(tmp_path / "other", 1, seed=1)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in clips[:3]]
    assert other[0].read_bytes() != clips[0].read_bytes()
    assert len({path.read_bytes() for path in clips}) == len(clips)


def test_every_clip_moves_and_faster_playback_is_visible(clips: list[Path]) -> None:
    """The mean difference between frames grows with their distance in every clip: playback speed leaves a trace."""
    for path in clips:
        grey = read(path).mean(axis=-1)
        slow, fast = (np.abs(grey[stride:] - grey[:-stride]).mean() for stride in (1, 3))
        assert fast > 1.2 * slow, path


def test_texture_is_isotropic_so_that_a_stretch_is_visible(clips: list[Path]) -> None:
    """Horizontal and vertical gradients have equal mean energy; the smallest stretch of S_S changes it by 1/4."""
    frames = np.stack([read(path)[0].mean(axis=-1) for path in clips])
    across, down = ((np.diff(frames, axis=axis) ** 2).mean() for axis in (2, 1))
    assert across / down == pytest.approx(1, abs=0.12)


def test_power_falls_off_as_in_natural_images(clips: list[Path]) -> None:
    """The power spectrum of natural images is about frequency ** -2; the tiles make ours steeper."""
    frames = np.stack([read(path)[0, :, :HEIGHT].mean(axis=-1) for path in clips])
    window = np.hanning(HEIGHT)[:, None] * np.hanning(HEIGHT)
    power = (np.abs(np.fft.fft2((frames - frames.mean(axis=(1, 2), keepdims=True)) * window)) ** 2).mean(axis=0)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(HEIGHT), np.fft.fftfreq(HEIGHT)))
    band = (radius > 0.03) & (radius < 0.3)
    slope = np.polyfit(np.log(radius[band]), np.log(power[band]), 1)[0]
    assert -3.6 < slope < -1.5


@pytest.mark.parametrize("kind", MOTIONS)
@pytest.mark.parametrize("aspect", [4 / 3, 3 / 4])
def test_objects_stay_near_the_frame_and_move_smoothly(kind: str, aspect: float) -> None:
    period = PERIOD_FRAMES * (1 - PERIOD_SPREAD)
    cycles = (np.arange(200) / period).astype(np.float32)
    poses = MOTIONS[kind](np.random.default_rng(0), cycles, aspect)
    assert poses.x.shape == poses.y.shape == poses.radius.shape == poses.angle.shape == (len(poses.x), 200)
    assert poses.radius.min() > 0
    assert (poses.x.min(), poses.y.min()) > (-0.5, -0.5)
    assert poses.x.max() < aspect + 0.5
    assert poses.y.max() < 1.3
    steps = np.hypot(np.diff(poses.x), np.diff(poses.y))
    steps = steps[steps < 1]  # without rain drops that restart at the top
    assert steps.max() < 0.1, "objects must remain trackable at five times the speed"


def test_shapes_and_patterns_are_measured_in_radii() -> None:
    turn = np.linspace(0, 2 * np.pi, 720, dtype=np.float32)
    for shape in SHAPES:
        assert (shape(1.15 * np.cos(turn), 1.15 * np.sin(turn)) > 0).all(), "nothing is painted beyond 1.15 radii"
        assert shape(0.6 * np.cos(turn), 0.6 * np.sin(turn)).min() < 0
    u, v = 0.5 * np.cos(turn), 0.5 * np.sin(turn)
    for pattern in PATTERNS:
        before, after = (pattern(*place) > 0 for place in ((u, v), (-v, u)))
        assert (before != after).mean() > 0.1, "a quarter turn must be visible"


@pytest.mark.parametrize("wrong", [{"num_videos": 0}, {"height": 121}, {"num_frames": -1}, {"fps": 0}])
def test_wrong_sizes_are_refused(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}': {next(iter(wrong.values()))}"):
        make_clips(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())
