"""Grad-CAM: where in a clip, and when, the network found what it answers (paper section 4.6, Figure 5)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from v3s.backbones import Backbone

INFERNO = (
    (0, 0, 4),
    (27, 12, 65),
    (74, 12, 107),
    (120, 28, 109),
    (165, 44, 96),
    (207, 68, 70),
    (237, 105, 37),
    (251, 155, 6),
    (247, 209, 61),
    (252, 255, 164),
)
"""Ten evenly spaced RGB colours of the public-domain map "inferno": lightness grows evenly from black to yellow."""


def grad_cam(
    backbone: Backbone,
    head: Callable[[Tensor], Tensor],
    clip: Tensor,
    stage: str,
    target: int | Tensor,
) -> Tensor:
    """Compute the heat of each pixel of each frame for one logit of a head.

    The channels of a stage are weighted by the gradient of the logit, averaged over height and width of each time
    slice, summed and cut at 0; the result is interpolated trilinearly to the size of the clip and scaled to [0, 1] over
    the whole clip, so that frames can be compared. A clip with no positive evidence is 0 everywhere. Nothing is left
    behind: no gradient in the parameters, no hook.

    Args:
        backbone: in evaluation mode, so that the clips of a batch do not mix.
        head: features (B, D) -> logits (B, classes): a recognition head, the spatial or the temporal head.
        clip: float, shape (B, 3, T, H, W), in [0, 1].
        stage: name of a stage of the backbone. The last one of C3D and R3D has two steps in time for 16 frames; the
            one before it is finer.
        target: class whose logit (before the softmax) is explained: one number, or one for each clip, shape (B,).

    Returns:
        Heat, float, shape (B, T, H, W), in [0, 1].

    Raises:
        ValueError: the stage is unknown or does not lead to the logit, the backbone is in training mode, or the
            target is out of range.

    Source: paper section 4.6.
    """
    if stage not in backbone.stages:
        raise ValueError(f"no stage is called {stage!r}; the backbone has {', '.join(backbone.stages)}")
    if isinstance(backbone, nn.Module) and backbone.training:
        raise ValueError("the backbone is in training mode, where clips of a batch mix; call backbone.eval()")
    with torch.enable_grad():
        stages = backbone.forward_stages(clip.detach().requires_grad_())
        features = stages[list(backbone.stages)[-1]].mean(dim=(2, 3, 4))
        score = _target_logits(head(features), target).sum()
        (gradient,) = torch.autograd.grad(score, stages[stage], allow_unused=True)
    if gradient is None:
        raise ValueError(f"stage {stage!r} does not lead to the logit; forward_stages must return it as computed")
    weights = gradient.mean(dim=(3, 4), keepdim=True)
    heat = (weights * stages[stage].detach()).sum(dim=1, keepdim=True).relu()
    return _normalise(F.interpolate(heat, clip.shape[2:], mode="trilinear", align_corners=False)[:, 0])


def overlay(clip: Tensor, heat: Tensor, *, opacity: float = 0.5) -> Tensor:
    """Lay the colours of the heat over the frames.

    Args:
        clip: uint8, shape (T, H, W, 3), RGB.
        heat: float, shape (T, H, W), in [0, 1]; 0 is black, 1 is light yellow.
        opacity: share of the heat's colour in each pixel, 0 to 1.

    Returns:
        Frames, uint8, shape (T, H, W, 3).

    Raises:
        ValueError: the shapes do not fit, or the clip is not uint8.
    """
    if clip.dtype != torch.uint8 or clip.shape != (*heat.shape, 3):
        given = f"clip {clip.dtype} {tuple(clip.shape)} and heat {tuple(heat.shape)}"
        raise ValueError(f"{given} given; uint8 (T, H, W, 3) and (T, H, W) are needed")
    mixed = torch.lerp(clip.float(), _colours(heat.float()), opacity)
    return mixed.round().to(torch.uint8)


def contact_sheet(frames: Tensor, heat: Tensor) -> Tensor:
    """Lay out a clip as one picture: its frames in a row from left to right, the heat pictures below them.

    Args:
        frames: uint8, shape (T, H, W, 3).
        heat: pictures of the same shape, as :func:`overlay` gives.

    Returns:
        Picture, uint8, shape (2 H, T W, 3).

    Raises:
        ValueError: the two shapes differ.
    """
    if frames.shape != heat.shape or frames.ndim != 4:
        given = f"frames {tuple(frames.shape)} and heat {tuple(heat.shape)}"
        raise ValueError(f"{given} given; two equal shapes (T, H, W, 3) are needed")
    return torch.cat([torch.cat(list(row), dim=1) for row in (frames, heat)])


def _target_logits(logits: Tensor, target: int | Tensor) -> Tensor:
    """Pick the logit of each clip, shape (B,)."""
    classes = torch.as_tensor(target, device=logits.device).expand(len(logits))
    if int(classes.min()) < 0 or int(classes.max()) >= logits.shape[1]:
        raise ValueError(f"target {classes.tolist()} given; the head has {logits.shape[1]} classes, counted from 0")
    return logits.gather(1, classes[:, None])[:, 0]


def _normalise(heat: Tensor) -> Tensor:
    """Map the smallest value of each clip to 0 and the largest to 1; a constant clip to 0."""
    low, high = heat.amin(dim=(1, 2, 3), keepdim=True), heat.amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(high > low, (heat - low) / (high - low), 0)


def _colours(heat: Tensor) -> Tensor:
    """Look up colours of values in [0, 1], linear between the rows of the table: float, shape (*heat.shape, 3)."""
    table = torch.tensor(INFERNO, dtype=torch.float32, device=heat.device)
    position = heat.clamp(0, 1) * (len(table) - 1)
    below = position.long().clamp(max=len(table) - 2)
    return torch.lerp(table[below], table[below + 1], (position - below)[..., None])
