"""A change of colour is one affine map of every pixel, cut off at the ends of the range."""

import numpy as np
import pytest
import torch

from v3s.video.colour import UNCHANGED, Colour, recolour, recolour_batch

CLIP = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 4, 5, 7), dtype=np.uint8))


def test_unchanged_is_the_clip_itself() -> None:
    assert recolour(CLIP, UNCHANGED) is CLIP


@pytest.mark.parametrize("colour", [Colour(1.3, 0.7, 0.4), Colour(0.6, 1.4, 1.4), Colour(saturation=0)])
def test_against_the_definition(colour: Colour) -> None:
    """Saturation, contrast, brightness, pixel by pixel."""
    rgb = CLIP.double()
    grey = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
    saturated = grey + colour.saturation * (rgb - grey)
    contrasted = 127.5 + colour.contrast * (saturated - 127.5)
    expected = (colour.brightness * contrasted).clamp(0, 255)
    assert (recolour(CLIP, colour).double() - expected).abs().max() <= 0.501


def test_grey_has_three_equal_channels_in_every_frame() -> None:
    grey = recolour(CLIP, Colour(saturation=0))
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])


def test_a_batch_is_its_clips() -> None:
    colours = [Colour(1.3, 0.7, 0.4), UNCHANGED, Colour(0.6, 1.4, 1.4), Colour(saturation=0)]
    clips = torch.stack([CLIP, CLIP.flip(1), 255 - CLIP, CLIP.flip(3)])
    changed = recolour_batch(clips, colours)
    assert (changed.shape, changed.dtype) == (clips.shape, torch.uint8)
    for one, clip, colour in zip(changed, clips, colours, strict=True):
        assert (one.int() - recolour(clip, colour).int()).abs().max() <= 1
    assert torch.equal(changed[1], clips[1])
    assert recolour_batch(clips, [UNCHANGED] * 4) is clips


def test_all_frames_change_alike() -> None:
    still = CLIP[:, :1].expand(3, 6, 5, 7)
    changed = recolour(still, Colour(1.1, 0.8, 0.5))
    assert (changed == changed[:, :1]).all()
