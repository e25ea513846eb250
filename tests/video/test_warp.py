"""The one resampling: exact where it can be, against plain oracles where it cannot. Frames are never square."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from v3s.pretext.plan import Labels, Picture, Sampling, plan_clip
from v3s.pretext.spatial import SpatialProjection
from v3s.pretext.task import TASKS
from v3s.video import kernel
from v3s.video import warp as module
from v3s.video.frames import ColourSpace, Frames
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
from v3s.video.warp import MAX_SAMPLES, to_width, warp

HEIGHT, WIDTH = 37, 53
TILT = from_corners(corners(WIDTH, HEIGHT), [[2, 1], [-3, 30], [44, 35], [40, 6]])


@pytest.fixture(autouse=True, params=["numba", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every law holds for the warp with the extra ``fast`` and without it."""
    if request.param == "numba":
        assert module._kernel() is not None
    else:
        monkeypatch.setattr(module, "_kernel", lambda: None)
    return str(request.param)


def noise(num_frames: int = 2, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    values = np.random.default_rng(0).integers(0, 256, (num_frames, 3, height, width), dtype=np.uint8)
    return torch.from_numpy(values)


def natural_texture(height: int, width: int) -> Tensor:
    """One frame whose amplitude falls as 1/f, as in natural images; uint8 (1, 3, H, W)."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(np.random.default_rng(0).normal(size=(3, height, width))) / frequency
    texture = np.fft.irfft2(spectrum, s=(height, width))
    texture = 128 + 40 * texture / texture.std(axis=(1, 2), keepdims=True)
    return torch.from_numpy(texture.clip(0, 255).round().astype(np.uint8))[None]


def as_clip(frames: Tensor) -> Tensor:
    return frames.transpose(0, 1)


def look_up(frame: NDArray[np.uint8], x: float, y: float) -> FloatArray:
    """One bilinear sample of a frame (3, H, W) at a continuous point, the border repeated. Written for reading."""
    height, width = frame.shape[1:]
    x, y = np.clip(x - 0.5, 0, width - 1), np.clip(y - 0.5, 0, height - 1)
    left, top = math.floor(x), math.floor(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    a, b = x - left, y - top
    above = (1 - a) * frame[:, top, left] + a * frame[:, top, right]
    below = (1 - a) * frame[:, bottom, left] + a * frame[:, bottom, right]
    return np.asarray((1 - b) * above + b * below)


def warp_slowly(frames: Tensor, to_output: Homography, height: int, width: int, num_samples: int = 1) -> FloatArray:
    """The oracle: every output pixel by itself, the mean of num_samples x num_samples looks."""
    to_source = np.linalg.inv(to_output.matrix)
    places = (np.arange(num_samples) + 0.5) / num_samples
    clip = np.zeros((3, len(frames), height, width))
    for t, frame in enumerate(frames.numpy()):
        for row, column in np.ndindex(height, width):
            looks = []
            for dy in places:
                for dx in places:
                    x, y, depth = to_source @ [column + dx, row + dy, 1]
                    looks.append(look_up(frame, x / depth, y / depth))
            clip[:, t, row, column] = np.mean(looks, axis=0)
    return clip


def test_shape_and_type() -> None:
    clip = warp(noise(5), scale(0.5, 0.5), 11, 17)
    assert (clip.shape, clip.dtype) == ((3, 5, 11, 17), torch.uint8)


def test_identity_returns_every_bit() -> None:
    assert torch.equal(warp(noise(), identity(), HEIGHT, WIDTH), as_clip(noise()))


def test_identity_is_exact_on_a_large_frame() -> None:
    frames = noise(1, 1080, 1920)
    assert torch.equal(warp(frames, identity(), 1080, 1920), as_clip(frames))
    cut = warp(frames, translation(-1700, -900), 100, 200)
    assert torch.equal(cut, as_clip(frames[:, :, 900:1000, 1700:1900]))


def test_crop_of_whole_pixels_is_a_slice() -> None:
    assert torch.equal(warp(noise(), translation(-9, -4), 20, 31), as_clip(noise()[:, :, 4:24, 9:40]))


def test_mirror_is_a_flip() -> None:
    assert torch.equal(warp(noise(), mirror(WIDTH), HEIGHT, WIDTH), as_clip(noise().flip(3)))


def test_projection_against_the_oracle() -> None:
    clip = warp(noise(), TILT, 31, 47, samples=(1, 1))
    assert np.abs(clip.numpy() - warp_slowly(noise(), TILT, 31, 47)).max() <= 0.51


@pytest.mark.parametrize(("shrink", "num_samples"), [(1.2, 1), (1.5, 2), (2.2, 2), (2.9, 3), (4.2, 4)])
def test_shrinking_averages_a_sample_for_each_source_pixel(shrink: float, num_samples: int) -> None:
    smaller = scale(1 / shrink, 1 / shrink) @ translation(-1.37, -0.21)
    clip = warp(noise(), smaller, 8, 11)
    assert np.abs(clip.numpy() - warp_slowly(noise(), smaller, 8, 11, num_samples)).max() <= 0.51
    if num_samples > 1:
        assert np.abs(clip.numpy() - warp_slowly(noise(), smaller, 8, 11, num_samples - 1)).max() > 5


def test_antialiasing_is_bounded() -> None:
    frames = noise(1, 300, 410)
    clip = warp(frames, scale(0.04, 0.04), 12, 16)
    assert np.abs(clip.numpy() - warp_slowly(frames, scale(0.04, 0.04), 12, 16, MAX_SAMPLES)).max() <= 0.51


def test_directions_shrink_apart() -> None:
    """Halving the width alone averages pairs in each row and leaves the rows alone."""
    halved = warp(noise(1, 6, 40), scale(0.5, 1), 6, 20)[:, 0].double()
    pairs = noise(1, 6, 40)[0].double().view(3, 6, 20, 2).mean(-1)
    assert (halved - pairs).abs().max() <= 0.51


def test_halving_is_the_area_mean() -> None:
    frames = noise(2, 46, 62)
    area = F.interpolate(frames.double(), size=(23, 31), mode="area")
    assert (warp(frames, scale(0.5, 0.5), 23, 31).double() - as_clip(area)).abs().max() <= 0.51


@pytest.mark.parametrize("num_frames", [1, 7, 8, 16, 24, 40])
def test_frames_innermost(num_frames: int) -> None:
    values = np.random.default_rng(5).integers(0, 256, (num_frames, 2, 9, 21), dtype=np.uint8)
    for plane in (values, values[:, :, 2:7, 3:20]):
        turned = kernel.frames_innermost(plane)
        assert np.array_equal(turned, plane.transpose(1, 2, 3, 0))
        assert turned.flags.c_contiguous


@pytest.mark.parametrize(("height", "width"), [(112, 150), (80, 100), (112, 112)])
def test_averaging_takes_off_most_of_the_distance_to_an_antialiased_resize(height: int, width: int) -> None:
    frames, smaller = natural_texture(240, 320), scale(width / 320, height / 240)
    resized = as_clip(F.interpolate(frames.double(), size=(height, width), mode="bilinear", antialias=True))
    smooth = (warp(frames, smaller, height, width).double() - resized).abs().mean()
    rough = (warp(frames, smaller, height, width, samples=(1, 1)).double() - resized).abs().mean()
    assert smooth < 0.4 * rough
    assert smooth < 4


def test_half_the_samples_are_taken_only_along_the_halved_side_of_a_plane() -> None:
    """4:2:2 whose colours vary down only is the same picture as 4:4:4."""
    luma, chroma = torch.full((2, 1, HEIGHT, WIDTH), 128, dtype=torch.uint8), noise()[:, 1:, :, :1]
    clips = [
        warp(
            Frames((luma, chroma.expand(-1, -1, -1, columns).contiguous()), ColourSpace("bt709")),
            scale(1, 1 / 3),
            12,
            53,
        )
        for columns in (WIDTH, WIDTH // 2 + 1)
    ]
    assert (clips[0].int() - clips[1].int()).abs().max() <= 1


@pytest.mark.parametrize(("size", "shrunk"), [((640, 360), (180, 320)), ((100, 36), (36, 100)), ((2000, 3), (1, 320))])
def test_a_picture_is_as_wide_as_wanted_at_most_and_keeps_its_shape(
    size: tuple[int, int], shrunk: tuple[int, int]
) -> None:
    to_picture, *made = to_width(*size, 320)
    assert tuple(made) == shrunk
    np.testing.assert_allclose(to_picture([size]), [np.array(size) * min(1, 320 / size[0])])


def test_all_frames_take_one_map() -> None:
    clip = warp(noise(1).expand(6, -1, -1, -1), TILT, 30, 41)
    assert torch.equal(clip, clip[:, :1].expand_as(clip))


def test_frames_do_not_mix() -> None:
    together = warp(noise(4), TILT, 30, 41)
    assert torch.equal(together, torch.cat([warp(frame[None], TILT, 30, 41) for frame in noise(4)], dim=1))


@pytest.mark.parametrize("samples", [None, (1, 1)])
def test_outside_repeats_the_border_and_is_never_black(samples: tuple[int, int] | None) -> None:
    white = torch.full((2, 3, HEIGHT, WIDTH), 255, dtype=torch.uint8)
    for leaving in (TILT, translation(30, -20), scale(0.3, 0.3), scale(0.05, 0.5) @ TILT):
        assert (warp(white, leaving, 60, 70, samples=samples) == 255).all()
    moved = warp(noise(), translation(5, -3), HEIGHT, WIDTH)
    assert torch.equal(moved[:, :, :-3, :5], as_clip(noise())[:, :, 3:, :1].expand(-1, -1, -1, 5))


@pytest.mark.parametrize(
    ("move", "corner"),
    [((500, 500), (0, 0)), ((-500, 500), (0, -1)), ((500, -500), (-1, 0)), ((-500, -500), (-1, -1))],
)
def test_wholly_outside_is_the_nearest_corner(move: tuple[int, int], corner: tuple[int, int]) -> None:
    row, column = corner
    clip = warp(noise(), translation(*move), 8, 12)
    assert torch.equal(clip, as_clip(noise())[:, :, row, column, None, None].expand_as(clip))


def test_memory_layout_changes_nothing() -> None:
    """Decoded frames are a view of (T, H, W, 3) memory."""
    channels_last = noise().permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not channels_last.is_contiguous()
    for some_map in (identity(), TILT, scale(0.4, 0.4)):
        assert torch.equal(warp(channels_last, some_map, 20, 29), warp(noise(), some_map, 20, 29))


def test_only_what_the_window_shows_is_read_and_nothing_is_written() -> None:
    frames = noise()
    window = crop_and_resize(12, 8, 20, 15, 16, 12)
    before = warp(frames, window, 12, 16)
    assert torch.equal(frames, noise())
    frames[:, :, :6], frames[:, :, 26:], frames[..., :10], frames[..., 35:] = 0, 0, 0, 0
    assert torch.equal(warp(frames, window, 12, 16), before)


def two_steps(frames: Tensor, to_clip: Homography, size: int, canvas: int = 224) -> Tensor:
    """The reference: an antialiased resize to the canvas, then the map's other part at 8 x 8 samples a pixel."""
    height, width = frames.shape[-2:]
    resized = F.interpolate(frames.double(), size=(canvas, canvas), mode="bilinear", antialias=True)
    to_canvas = scale(width / canvas, height / canvas)
    places = (np.arange(8 * size) + 0.5) / 8
    points = (to_clip @ to_canvas).inverse()(np.stack(np.meshgrid(places, places), axis=-1))
    lookup = torch.from_numpy(points / canvas * 2 - 1)[None]
    return F.avg_pool2d(F.grid_sample(resized, lookup, padding_mode="border", align_corners=False), 8)


def signal_to_noise(clip: Tensor, reference: Tensor) -> float:
    """PSNR in dB."""
    return 10 * math.log10(255**2 / float((clip.double() - reference).square().mean()))


def test_composed_map_is_close_to_two_antialiased_steps() -> None:
    """PSNR on a 1/f texture, sharper than compressed video: 29 to 37 dB, more where the map shrinks more."""
    frames, task = natural_texture(240, 320), TASKS["ss+sp"]
    for row, spatial in enumerate(task.spatial):
        generator, sampling = np.random.default_rng(row), Sampling()
        plan = plan_clip(
            task, Labels(row, 0), num_frames=16, picture=Picture(320, 240), sampling=sampling, generator=generator
        )
        reference = two_steps(frames, plan.to_clip, 112)
        smooth = signal_to_noise(warp(frames, plan.to_clip, 112, 112)[:, 0][None], reference)
        rough = signal_to_noise(warp(frames, plan.to_clip, 112, 112, samples=(1, 1))[:, 0][None], reference)
        assert smooth > 28.5, spatial
        assert smooth > rough - 0.1, spatial
        if isinstance(spatial, SpatialProjection) and spatial.c == 0.8:
            assert smooth > max(34, rough + 5), spatial


# Blur


def test_blur_up_to_a_pixel_is_none() -> None:
    frames = noise()
    for to_output in (TILT, scale(0.3, 0.7)):
        plain = warp(frames, to_output, 20, 24)
        assert torch.equal(plain, warp(frames, to_output, 20, 24, blur=0.4))
        assert torch.equal(plain, warp(frames, to_output, 20, 24, blur=1.0))


@pytest.mark.parametrize("blur", [3, 5])
def test_odd_blur_of_the_identity_is_a_box_filter(blur: int) -> None:
    frames = noise()
    blurred = as_clip(warp(frames, identity(), HEIGHT, WIDTH, blur=blur)).double()
    box = F.avg_pool2d(frames.double(), blur, stride=1)
    inner = slice(blur // 2, -(blur // 2))
    assert (blurred[..., inner, inner] - box).abs().max() <= 0.51


def test_a_blurred_window_is_a_window_of_the_blurred_frame() -> None:
    """The blur reaches beyond the window: what lies there is read too."""
    whole = warp(noise(), identity(), HEIGHT, WIDTH, blur=7)
    assert torch.equal(warp(noise(), translation(-12, -9), 16, 20, blur=7), whole[..., 9:25, 12:32])


@pytest.mark.parametrize("stretch", [(1.0, 1.45), (1.45, 1.0), (0.4, 0.6), (2.0, 3.0)])
def test_blur_is_measured_in_the_output_however_the_source_is_stretched(stretch: tuple[float, float]) -> None:
    """An edge becomes a ramp as wide as the blur, across and down."""
    frames = torch.zeros(1, 3, 200, 200, dtype=torch.uint8)
    for across in (True, False):
        edge = frames.clone()
        edge[(..., slice(100, None)) if across else (..., slice(100, None), slice(None))] = 255
        height, width = round(200 * stretch[1]), round(200 * stretch[0])
        clip = warp(edge, scale(*stretch), height, width, blur=8.0)[0, 0].double()
        line = clip[height // 2] if across else clip[:, width // 2]
        ramp = int(((line > 0.02 * 255) & (line < 0.98 * 255)).sum())
        assert 6 <= ramp <= 10


@pytest.mark.parametrize("way", ["numba"], indirect=True)
@pytest.mark.parametrize("samples", [(1, 1), (2, 3)])
@pytest.mark.parametrize("colour", [ColourSpace("bt709"), ColourSpace("bt601", full=True)])
def test_planes_give_what_torch_makes_of_them(
    samples: tuple[int, int], colour: ColourSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brightness in full, colour differences at half the resolution and out of range; blurred, beyond the border."""
    values = np.random.default_rng(3).integers(0, 256, (7, 3, HEIGHT, WIDTH), dtype=np.uint8)
    chroma = np.ascontiguousarray(values[:, 1:, : HEIGHT // 2 + 1, : WIDTH // 2 + 1])
    frames = Frames((torch.from_numpy(values[:, :1].copy()), torch.from_numpy(chroma)), colour)
    clip = warp(frames, TILT, 29, 41, samples=samples, blur=2.5)
    monkeypatch.setattr(module, "_kernel", lambda: None)
    difference = (clip.int() - warp(frames, TILT, 29, 41, samples=samples, blur=2.5).int()).abs()
    assert difference.max() <= 1
    assert difference.float().mean() < 1e-3


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (6, 1), (2, 2)])
def test_thin_frames(height: int, width: int) -> None:
    frames = noise(2, height, width)
    assert torch.equal(warp(frames, identity(), height, width), as_clip(frames))
    larger = warp(frames, scale(3, 3), 3 * height, 3 * width, samples=(1, 1))
    assert np.abs(larger.numpy() - warp_slowly(frames, scale(3, 3), 3 * height, 3 * width)).max() <= 0.51
