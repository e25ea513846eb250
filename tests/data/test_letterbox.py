"""Constant borders are found to the pixel and trimmed with their blurred edge, and nothing else is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from v3s.data.letterbox import EDGE, MAX_RANGE, detect_all_bars, detect_bars, find_bars, picture_of
from v3s.data.lists.spans import SpanOptions
from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.data.synthetic import make_clips
from v3s.pages.images import mp4
from v3s.pretext.plan import NO_BARS, Bars, Sampling
from v3s.video.decode import index_video, read_frames

HEIGHT, WIDTH, NUM_FRAMES = 96, 128, 5
BLACK, BLUE, WHITE = (16, 16, 16), (20, 30, 200), (245, 245, 245)


def random_frames(low: int = 0, high: int = 256) -> Tensor:
    values = np.random.default_rng(0).integers(low, high, (NUM_FRAMES, 3, HEIGHT, WIDTH), dtype=np.uint8)
    return torch.from_numpy(values)


def with_bars(frames: Tensor, bars: Bars, colour: tuple[int, int, int] = BLACK, noise: int = MAX_RANGE // 2) -> Tensor:
    """Paint bars of a colour that varies by ``noise`` levels either way, as compression leaves it."""
    grain = np.random.default_rng(1).integers(-noise, noise + 1, frames.shape)
    painted = torch.from_numpy((np.array(colour)[:, None, None] + grain).clip(0, 255).astype(np.uint8))
    rows, columns = slice(bars.top, HEIGHT - bars.bottom), slice(bars.left, WIDTH - bars.right)
    painted[:, :, rows, columns] = frames[:, :, rows, columns]
    return painted


def trimmed(bars: Bars) -> Bars:
    """The pixels to trim for bars of these widths."""
    return Bars(*(width + EDGE if width else 0 for width in (bars.left, bars.top, bars.right, bars.bottom)))


@pytest.mark.parametrize("colour", [BLACK, BLUE, WHITE])
@pytest.mark.parametrize(
    "bars",
    [
        Bars(top=12, bottom=13),
        Bars(left=16, right=9),
        Bars(left=5, top=1, right=20, bottom=34),
        Bars(right=47),
        NO_BARS,
    ],
)
def test_bars_are_found_to_the_pixel(bars: Bars, colour: tuple[int, int, int]) -> None:
    assert find_bars(with_bars(random_frames(), bars, colour)) == trimmed(bars)


def test_noise_beyond_the_limit_is_picture() -> None:
    assert find_bars(with_bars(random_frames(), Bars(top=12), noise=MAX_RANGE)) == NO_BARS


def test_dark_scene_has_no_bars() -> None:
    assert find_bars(random_frames(0, MAX_RANGE)) == NO_BARS


def test_dark_half_of_a_scene_is_not_a_bar() -> None:
    assert find_bars(with_bars(random_frames(), Bars(top=HEIGHT // 2))) == NO_BARS
    assert find_bars(with_bars(random_frames(), Bars(top=HEIGHT // 2, right=30))) == trimmed(Bars(right=30))


def test_one_frame_with_picture_in_the_border_is_enough() -> None:
    frames = with_bars(random_frames(), Bars(top=12, bottom=12))
    frames[3, :, :6] = random_frames()[3, :, :6]
    assert find_bars(frames) == trimmed(Bars(bottom=12))


def test_dark_frames_at_the_start_do_not_hide_bars() -> None:
    frames = with_bars(random_frames(), Bars(left=10, right=12))
    frames[:2] = 16
    assert find_bars(frames) == trimmed(Bars(left=10, right=12))


def test_bars_that_flicker_are_picture() -> None:
    frames = with_bars(random_frames(), Bars(top=12), noise=2)
    frames[2, :, :12] += MAX_RANGE - 2
    assert find_bars(frames) == NO_BARS


def test_smooth_sky_is_not_a_bar() -> None:
    """Every line of the sky is constant, but the lines differ."""
    frames = random_frames()
    frames[:, :, :30] = torch.linspace(200, 80, 30).to(torch.uint8)[:, None]
    assert find_bars(frames).top <= 4 + EDGE


def test_memory_layout_changes_nothing() -> None:
    frames = with_bars(random_frames(), Bars(left=5, top=1, right=20, bottom=38))
    channels_last = frames.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert find_bars(channels_last) == find_bars(frames)


@pytest.mark.parametrize("bars", [Bars(top=12, bottom=14), Bars(left=20, right=15), NO_BARS])
def test_bars_of_a_compressed_video(tmp_path: Path, bars: Bars) -> None:
    """A bar is trimmed completely, with at most its edge of the picture, although the codec smears it over a block."""
    path, *_ = make_clips(tmp_path, num_videos=1, num_frames=30, height=HEIGHT, width=WIDTH)
    frames = read_frames(index_video(path), range(30)).rgb()
    video = with_bars(frames, bars, noise=0).permute(0, 2, 3, 1)
    (tmp_path / "boxed.mp4").write_bytes(mp4(video, 25))
    detected = detect_bars(index_video(tmp_path / "boxed.mp4"))
    for side in ("left", "top", "right", "bottom"):
        width = getattr(bars, side)
        assert width <= getattr(detected, side) <= (width + EDGE if width else 0)


def test_a_span_has_the_bars_of_its_file_in_training_and_in_a_preview(tmp_path: Path) -> None:
    film = np.random.default_rng(0).integers(0, 256, (50, HEIGHT, WIDTH, 3), dtype=np.uint8)
    film[:25, :22] = 16  # at the top, the first half is dark
    (tmp_path / "film.mp4").write_bytes(mp4(film, 25))
    table = scan(list_videos(tmp_path, spans=SpanOptions(segment=1)), min_frames=1, cache=None).usable_table
    in_preview = [picture_of(span, Sampling(trim_bars=True)).bars for span in table]
    assert in_preview == [Bars(*row) for row in detect_all_bars(table).tolist()] == [NO_BARS, NO_BARS]


def test_bars_of_real_videos(shared: Path) -> None:
    """Letterboxed films in a 4:3 frame: after trimming, every border line is about as bright as its neighbours."""
    videos = shared / "data" / "UCF-101"
    for name in ("BasketballDunk/v_BasketballDunk_g04_c04", "Surfing/v_Surfing_g23_c04"):
        index = index_video(videos / f"{name}.avi")
        bars = detect_bars(index)
        assert bars.left == bars.right == 0
        picture = (
            read_frames(index, [0, index.num_frames // 2]).rgb()[:, :, bars.top : index.height - bars.bottom].double()
        )
        assert 94 <= picture.shape[2] <= 100  # 176 x 132 with a 16:9 picture
        lines = picture.mean(dim=(0, 1, 3))
        assert lines[0] > 0.8 * lines[2:6].mean()
        assert lines[-1] > 0.8 * lines[-6:-2].mean()


def test_video_of_one_frame(tmp_path: Path) -> None:
    (tmp_path / "still.mp4").write_bytes(mp4(with_bars(random_frames(), Bars(top=16)).permute(0, 2, 3, 1)[:1], 25))
    assert detect_bars(index_video(tmp_path / "still.mp4")).left == 0
