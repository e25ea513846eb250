"""Apply a plan: from frames to the clip that a network is shown. Nothing is random here."""

from torch import Tensor

from v3s.pretext.plan import ClipPlan
from v3s.video.colour import recolour
from v3s.video.frames import Frames
from v3s.video.warp import warp


def cut_clip(frames: Frames | Tensor, plan: ClipPlan, clip_size: int) -> Tensor:
    """Warp the frames of a plan by its map, with its blur, and change their colour.

    Args:
        frames: those that the plan names, in its order; also an RGB tensor, uint8 of shape (T, 3, H, W).
        plan: of the clip.
        clip_size: side of the clip in pixels, as in the sampling that the plan was drawn with.

    Returns:
        uint8, shape (3, T, clip_size, clip_size).
    """
    clip = warp(frames, plan.to_clip, clip_size, clip_size, samples=plan.samples, blur=plan.blur)
    return recolour(clip, plan.colour)
