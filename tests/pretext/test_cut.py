"""A clip shows all that its plan says: the map, the blur and the colours."""

from dataclasses import replace

import numpy as np
import torch

from v3s.pretext.cut import cut_clip
from v3s.pretext.plan import ClipPlan, Labels
from v3s.video.colour import Colour
from v3s.video.homography import translation

PLAN = ClipPlan(frames=(0, 1), to_clip=translation(-6, -3), labels=Labels(0, 0), samples=(1, 1))


def test_a_clip_shows_its_plan() -> None:
    values = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 50), dtype=np.uint8)
    frames = torch.from_numpy(values)
    plain = cut_clip(frames, PLAN, 24)
    assert torch.equal(plain, frames[:, :, 3:27, 6:30].transpose(0, 1))
    blurred = cut_clip(frames, replace(PLAN, blur=3.0), 24)
    assert (blurred.double().std() * 3 / plain.double().std()).round() == 1  # the mean of nine independent values
    grey = cut_clip(frames, replace(PLAN, colour=Colour(1.0, 1.0, 0.0)), 24)
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])
