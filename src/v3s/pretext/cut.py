"""Apply a plan: from frames to the clip that a network is shown. Nothing is random here."""

from torch import Tensor

from v3s.pretext.plan import ClipPlan
from v3s.video.colour import recolour
from v3s.video.warp import warp


def cut_clip(frames: Tensor, plan: ClipPlan, clip_size: int) -> Tensor:
    """Warp the frames of a plan by its map, with its blur, and change their colour.

    Args:
        frames: those that the plan names, in its order: uint8, shape (T, 3, H, W).
        plan: of the clip.
        clip_size: side of the clip in pixels, as in the sampling that the plan was drawn with.

    Returns:
        uint8, shape (3, T, clip_size, clip_size).
    """
    return recolour(warp(frames, plan.to_clip, clip_size, clip_size, blur=plan.blur), plan.colour)
