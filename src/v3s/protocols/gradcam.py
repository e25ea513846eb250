"""Grad-CAM: which regions and frames of a clip a class score is based on (paper section 4.6, Figure 5)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from v3s.backbones import Backbone
from v3s.backbones.stages import check_stage

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
"""Ten evenly spaced RGB colours of the public-domain colour map "inferno": from black to yellow, evenly lighter."""


def grad_cam(
    backbone: Backbone,
    head: Callable[[Tensor], Tensor],
    clip: Tensor,
    stage: str,
    target: int | Tensor,
) -> Tensor:
    """Compute a heat map over all pixels and frames for one logit of a head.

    Each channel of a stage is weighted by the gradient of the logit, averaged over height and width of each time
    slice. The weighted channels are summed and negative values set to 0; the result is interpolated trilinearly to the
    size of the clip and scaled to [0, 1] over the whole clip, so that frames can be compared. A clip without positive
    evidence gives all zeros. There are no side effects: no gradients in the parameters, no hooks.

    Args:
        backbone: in evaluation mode, so that the clips of a batch stay independent.
        head: features (B, D) -> logits (B, classes): a recognition head, the spatial or the temporal head.
        clip: float, shape (B, 3, T, H, W), in [0, 1].
        stage: name of a stage of the backbone. For 16 frames, the last stage of C3D and R3D has two time steps; the
            stage before it is finer.
        target: class whose logit (before the softmax) is explained: one number, or one per clip, shape (B,).

    Returns:
        Heat maps, float, shape (B, T, H, W), in [0, 1].

    Raises:
        ValueError: the stage is unknown or the logit does not depend on it, the backbone is in training mode, or the
            target is out of range.

    Source: paper section 4.6.
    """
    check_stage(backbone, stage)
    if isinstance(backbone, nn.Module) and backbone.training:
        raise ValueError("the backbone is in training mode, where a batch's clips interact; call backbone.eval()")
    with torch.enable_grad():
        stages = backbone.forward_stages(clip.detach().requires_grad_())
        features = stages[list(backbone.stages)[-1]].mean(dim=(2, 3, 4))
        score = _target_logits(head(features), target).sum()
        (gradient,) = torch.autograd.grad(score, stages[stage], allow_unused=True)
    if gradient is None:
        raise ValueError(
            f"the logit does not depend on stage {stage!r}; forward_stages must return the tensors that it computes on"
        )
    weights = gradient.mean(dim=(3, 4), keepdim=True)
    heat = (weights * stages[stage].detach()).sum(dim=1, keepdim=True).relu()
    return _normalise(F.interpolate(heat, clip.shape[2:], mode="trilinear", align_corners=False)[:, 0])


def overlay(clip: Tensor, heat: Tensor, *, opacity: float = 0.5) -> Tensor:
    """Blend a coloured heat map into the frames.

    Args:
        clip: uint8, shape (T, H, W, 3), RGB.
        heat: float, shape (T, H, W), in [0, 1]; 0 is black, 1 is light yellow.
        opacity: weight of the heat map's colour in each pixel, 0 to 1.

    Returns:
        Frames, uint8, shape (T, H, W, 3).

    Raises:
        ValueError: the shapes do not match, or the clip is not uint8.
    """
    if clip.dtype != torch.uint8 or clip.shape != (*heat.shape, 3):
        got = f"clip {clip.dtype} {tuple(clip.shape)} and heat {tuple(heat.shape)}"
        raise ValueError(f"got {got}; expected uint8 (T, H, W, 3) and (T, H, W)")
    mixed = torch.lerp(clip.float(), _colours(heat.float()), opacity)
    return mixed.round().to(torch.uint8)


def contact_sheet(frames: Tensor, heat: Tensor) -> Tensor:
    """Arrange a clip as one image: frames from left to right, their heat maps below.

    Args:
        frames: uint8, shape (T, H, W, 3).
        heat: images of the same shape, as returned by :func:`overlay`.

    Returns:
        Image, uint8, shape (2 H, T W, 3).

    Raises:
        ValueError: the two shapes differ.
    """
    if frames.shape != heat.shape or frames.ndim != 4:
        got = f"frames {tuple(frames.shape)} and heat {tuple(heat.shape)}"
        raise ValueError(f"got {got}; expected two equal shapes (T, H, W, 3)")
    return torch.cat([torch.cat(list(row), dim=1) for row in (frames, heat)])


def _target_logits(logits: Tensor, target: int | Tensor) -> Tensor:
    """Select each clip's target logit, shape (B,)."""
    classes = torch.as_tensor(target, device=logits.device).expand(len(logits))
    if int(classes.min()) < 0 or int(classes.max()) >= logits.shape[1]:
        raise ValueError(f"target is {classes.tolist()}; it must be from 0 to {logits.shape[1] - 1} for this head")
    return logits.gather(1, classes[:, None])[:, 0]


def _normalise(heat: Tensor) -> Tensor:
    """Map the smallest value of each clip to 0 and the largest to 1; a constant clip to 0."""
    low, high = heat.amin(dim=(1, 2, 3), keepdim=True), heat.amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(high > low, (heat - low) / (high - low), 0)


def _colours(heat: Tensor) -> Tensor:
    """Map values in [0, 1] to colours, linearly interpolated: float, shape (*heat.shape, 3)."""
    table = torch.tensor(INFERNO, dtype=torch.float32, device=heat.device)
    position = heat.clamp(0, 1) * (len(table) - 1)
    below = position.long().clamp(max=len(table) - 2)
    return torch.lerp(table[below], table[below + 1], (position - below)[..., None])
