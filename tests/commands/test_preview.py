"""The picture of the transforms: every kind is there, every label is true, nothing comes from outside."""

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from rich.console import Console

from v3s.commands.preview import _FAMILIES, Example, PreviewConfig, cut_examples, preview, seen_corners
from v3s.data.synthetic import make_clips
from v3s.pages.images import mp4
from v3s.pretext.plan import Sampling
from v3s.pretext.spatial import SpatialScale, SpatialTransform
from v3s.pretext.task import TASKS
from v3s.pretext.temporal import TemporalTransform, offsets, span
from v3s.video.index import VideoIndex, index_video

QUIET = Console(quiet=True)
SAMPLING = Sampling(clip_frames=8, clip_size=24, canvas_size=48)
V3S = TASKS["v3s"]
ROWS = {str(row): row for row in V3S.temporal}


@pytest.fixture(scope="module")
def video(small_videos: Path) -> VideoIndex:
    """A video of 40 frames of 48 x 64 pixels."""
    return index_video(small_videos / "spin" / "clip_001.mp4")


def examples(video: VideoIndex, seed: int, sampling: Sampling = SAMPLING) -> dict[str, Example]:
    return {example.kind: example for example in cut_examples(video, V3S, sampling, seed=seed, number=0)}


def test_page_shows_every_kind_with_its_label(small_videos: Path, tmp_path: Path) -> None:
    config = PreviewConfig(
        data=str(small_videos), out=str(tmp_path / "p.html"), num_videos=2, clip_frames=8, clip_size=32
    )
    html = preview(config, console=QUIET).read_text()
    for label in (
        r"scale [\d.]+ x [\d.]+",
        r"projection [\d.]+ (right|left|top|bottom)",
        r"speed \d",
        r"speed \d then \d",
    ):
        assert len(re.findall(f"{label}[;<]", html)) >= 2, label
    assert 'src="http' not in html


def test_every_kind_of_transform_has_a_name_on_the_page() -> None:
    assert set(_FAMILIES.values()) == {*get_args(SpatialTransform), *get_args(TemporalTransform)}


@pytest.mark.parametrize("seed", range(8))
def test_temporal_labels_are_the_frames_that_are_shown(video: VideoIndex, seed: int) -> None:
    shown = examples(video, seed)
    start = shown["original"].plan.frames[0]
    assert shown["original"].plan.frames == tuple(range(start, start + 8))
    for kind in ("temporal scale T_S", "temporal projection T_P"):
        expected = offsets(ROWS[shown[kind].label], 8)
        assert shown[kind].plan.frames == tuple(start + offset for offset in expected)
        assert expected != tuple(range(8)), "a label that leaves the source as it is shows nothing"
    assert all(example.plan.frames[0] == start for example in shown.values())


@pytest.mark.parametrize("seed", range(8))
def test_spatial_labels_are_the_map_that_is_shown(video: VideoIndex, seed: int) -> None:
    """A scale stretches the source by (a, b) more than the original does; a projection bends parallels."""
    shown = examples(video, seed)
    before, scaled, projected = (
        shown[kind].plan.to_clip.matrix for kind in ("original", "spatial scale S_S", "spatial projection S_P")
    )
    stretch = SpatialScale(scaled[0, 0] / before[0, 0], scaled[1, 1] / before[1, 1])
    row = next(row for row in V3S.spatial if str(row) == shown["spatial scale S_S"].label)
    assert isinstance(row, SpatialScale)
    assert (stretch.a, stretch.b) == pytest.approx((row.a, row.b))
    assert np.allclose([before[2, :2], scaled[2, :2]], 0)
    assert np.abs(projected[2, :2]).max() > 1e-4


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("changes", [{}, {"zoom": "even"}, {"pre_resize": "short-side"}, {"flip": True}])
def test_no_clip_sees_beyond_the_frame(video: VideoIndex, seed: int, changes: dict[str, str]) -> None:
    sampling = replace(SAMPLING, **changes)  # type: ignore[arg-type]
    for example in examples(video, seed, sampling).values():
        seen = seen_corners(example.plan, SAMPLING.clip_size)
        assert (seen >= -1e-6).all()
        assert (seen <= np.array([video.width, video.height]) + 1e-6).all()


def test_a_short_video_shows_the_labels_that_fit_and_the_page_says_so(tmp_path: Path) -> None:
    make_clips(tmp_path / "short", num_videos=1, num_frames=19, height=34, width=50)
    config = PreviewConfig(
        data=str(tmp_path / "short"), out=str(tmp_path / "p.html"), clip_frames=8, clip_size=15, canvas_size=31
    )
    html = preview(config, console=QUIET).read_text()
    needed = {str(row): span(row, 8) for row in V3S.temporal}
    assert max(needed.values()) > 19 > min(needed.values())
    assert "the video has 19 frames" in html
    assert "cut from frames that are resized to 31 x 31 pixels first. Drawn with --seed 0;" in " ".join(html.split())
    for row, frames in needed.items():
        assert (f"{row} needs {frames}" in html) == (frames > 19)
    video = index_video(tmp_path / "short" / "bounce" / "clip_000.mp4")
    assert all(max(example.plan.frames) < 19 for seed in range(20) for example in examples(video, seed).values())


def test_videos_that_cannot_be_shown_are_named(small_videos: Path, tmp_path: Path) -> None:
    good = small_videos / "spin" / "clip_000.mp4"
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "good.mp4").write_bytes(good.read_bytes())
    html = preview(
        PreviewConfig(data=str(tmp_path), out=str(tmp_path / "p.html"), clip_frames=8, clip_size=16), console=QUIET
    ).read_text()
    assert "Not usable: 1 of 2 videos" in html
    assert "is an empty file" in html


def test_bars_are_trimmed_where_the_sampling_asks_for_it(tmp_path: Path) -> None:
    film = np.full((60, 48, 64, 3), 255, np.uint8)
    film[:, 8:-8, 4:-4] = 0
    (tmp_path / "boxed.mp4").write_bytes(mp4(film, 25))
    video = index_video(tmp_path / "boxed.mp4")
    for trim, white in ((True, False), (False, True)):
        cut = cut_examples(video, V3S, replace(SAMPLING, trim_bars=trim, zoom="even"), seed=1, number=0)
        assert (max(int(example.clip.max()) for example in cut) > 128) == white


def test_turned_and_odd_real_videos(shared: Path, tmp_path: Path) -> None:
    odd = [
        shared / "data" / "odd" / name for name in ("nasa_13013_rotated.mp4", "testsrc2_odd_height_and_width_444.mp4")
    ]
    for path in odd:
        video = index_video(path)
        cut = cut_examples(video, V3S, replace(SAMPLING, clip_size=23, canvas_size=47), seed=1, number=0)
        assert {example.clip.shape for example in cut} == {(8, 23, 23, 3)}


def test_unusable_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contains no videos"):
        preview(PreviewConfig(data=str(tmp_path)), console=QUIET)


@pytest.mark.parametrize(("name", "value"), [("num_videos", 0), ("seed", -1)])
def test_wrong_numbers_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        PreviewConfig(data="videos", **{name: value})  # type: ignore[arg-type]
