"""Encoders are checked with a decoder, contact sheets and outlines with small hand-computed cases."""

import base64
import io

import av
import numpy as np
import pytest
import torch

from v3s.pages.images import Pixels, data_uri, gif, jpeg, mp4, outline, png, tile

HEIGHT, WIDTH = 46, 70


def decode(data: bytes) -> Pixels:
    with av.open(io.BytesIO(data), "r") as container:
        frames = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]
    return np.stack(frames)


def smooth_clip(num_frames: int, height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """Return a moving colour gradient, smooth so that lossy codecs preserve it."""
    y, x, t = np.meshgrid(np.arange(height), np.arange(width), np.arange(num_frames), indexing="ij")
    planes = [128 + 100 * np.sin((x + 4 * t) / 20), 128 + 100 * np.cos(y / 15), 60 + x]
    return np.stack(planes, axis=-1).transpose(2, 0, 1, 3).astype(np.uint8)


def test_png_is_lossless() -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT - 1, WIDTH - 1, 3), dtype=np.uint8)
    assert (decode(png(image))[0] == image).all()


def test_png_accepts_a_tensor_that_is_not_contiguous() -> None:
    frame = torch.arange(3 * 5 * 7, dtype=torch.uint8).reshape(3, 5, 7)
    assert (decode(png(frame.permute(1, 2, 0)))[0] == frame.permute(1, 2, 0).numpy()).all()


def test_jpeg_is_close() -> None:
    image = smooth_clip(1)[0]
    assert np.abs(decode(jpeg(image))[0].astype(int) - image).mean() < 3


def test_mp4_has_all_frames_and_its_index_at_the_start() -> None:
    clip = smooth_clip(20)
    data = mp4(clip, 25)
    assert decode(data).shape == clip.shape
    assert np.abs(decode(data).astype(int) - clip).mean() < 4
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert container.duration == pytest.approx(20 / 25 * 1e6)


def test_mp4_repeats_the_edge_of_an_odd_side() -> None:
    assert decode(mp4(smooth_clip(3, 45, 69), 30000 / 1001)).shape == (3, 46, 70, 3)


def test_gif_has_all_frames_the_right_duration_and_close_colours() -> None:
    clip = smooth_clip(6)
    data = gif(clip, 10)
    assert decode(data).shape == clip.shape
    assert np.abs(decode(data).astype(int) - clip).mean() < 6
    with av.open(io.BytesIO(data), "r") as container:
        assert container.duration == pytest.approx(0.6e6)


def test_a_picture_an_hour_is_shown_at_the_slowest_rate() -> None:
    """A container counts time in fractions with small denominators."""
    for data in (gif(smooth_clip(2), 1 / 3600), mp4(smooth_clip(2), 1 / 3600)):
        with av.open(io.BytesIO(data), "r") as container:
            assert len(list(container.decode(video=0))) == 2
            assert container.duration is not None
            assert container.duration / 1e6 > 500


def test_data_uri_contains_the_bytes() -> None:
    head, body = data_uri(b"\x00\xffabc", "image/png").split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == b"\x00\xffabc"


def test_tile_fills_row_by_row_with_white_gaps() -> None:
    images = np.stack([np.full((4, 6, 3), value, np.uint8) for value in (10, 20, 30)])
    sheet = tile(images, columns=2)
    assert sheet.shape == (4 + 2 + 4, 6 + 2 + 6, 3)
    assert (sheet[:4, :6] == 10).all()
    assert (sheet[:4, 8:] == 20).all()
    assert (sheet[6:, :6] == 30).all()
    assert (sheet[4:6] == 255).all()
    assert (sheet[:, 6:8] == 255).all()
    assert (sheet[6:, 8:] == 255).all()


def test_outline_covers_the_edges_and_nothing_else() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    drawn = outline(image, [(5, 4), (25, 4), (25, 16), (5, 16)], colour=(200, 100, 50), thickness=2)
    assert (image == 0).all(), "the image itself must be unchanged"
    assert (drawn[3:5, 5:25] == (200, 100, 50)).all()  # one pixel on each side of the line y = 4
    assert (drawn[6:14, 7:23] == 0).all()
    assert (drawn[:2] == 0).all()
    assert (drawn == drawn[::-1]).all()
    assert (drawn == drawn[:, ::-1]).all()


def test_an_outline_may_extend_beyond_the_frame() -> None:
    drawn = outline(np.zeros((20, 30, 3), np.uint8), [(-10, 10), (60, 10), (60, 90)])
    assert drawn[9:11].any()
    assert not drawn[:8].any()


@pytest.mark.parametrize("wrong", [np.zeros((4, 5, 3)), np.zeros((3, 4, 5), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_pixels_of_another_type_or_shape_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 pixels of shape \(H, W, 3\)"):
        png(wrong)
    with pytest.raises(ValueError, match=r"expected uint8 pixels of shape \(T, H, W, 3\)"):
        mp4(wrong, 25)


def test_numbers_out_of_range_are_refused() -> None:
    clip = smooth_clip(2)
    with pytest.raises(ValueError, match="positive and finite, got 0"):
        mp4(clip, 0)
    with pytest.raises(ValueError, match="positive and finite, got nan"):
        gif(clip, float("nan"))
    with pytest.raises(ValueError, match="columns = 0"):
        tile(clip, columns=0)
