"""Apply a plan: turn frames into the clip that a network receives. Nothing here is random."""

from torch import Tensor

from v3s.pretext.plan import ClipPlan
from v3s.video.colour import recolour
from v3s.video.frames import Frames
from v3s.video.warp import warp


def cut_clip(frames: Frames | Tensor, plan: ClipPlan, clip_size: int) -> Tensor:
    """Warp the frames of a plan by its map, apply its blur and change the colours.

    Args:
        frames: the frames of the plan, in its order; an RGB tensor, uint8 of shape (T, 3, H, W), is accepted too.
        plan: plan of the clip.
        clip_size: side of the clip in pixels, as in the sampling of the plan.

    Returns:
        uint8, shape (3, T, clip_size, clip_size).
    """
    clip = warp(frames, plan.to_clip, clip_size, clip_size, samples=plan.samples, blur=plan.blur)
    return recolour(clip, plan.colour)
