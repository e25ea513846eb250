"""Brightness, contrast and saturation of a clip: one change for all its frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)  # the grey of a colour, BT.601
_MIDDLE = 127.5


@dataclass(frozen=True, slots=True)
class Colour:
    """Factors of a change of colour; 1 changes nothing.

    Attributes:
        brightness: multiplies every value, last.
        contrast: multiplies the distance from the middle of the range, so that it asks nothing of the clip.
        saturation: multiplies the distance from grey, first; 0 leaves a grey clip.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0

    def affine(self) -> tuple[Tensor, float]:
        """The same as ``matrix @ rgb + offset`` for values in 0..255: shape (3, 3), and one number."""
        grey = torch.tensor([_LUMA] * 3)
        saturate = self.saturation * torch.eye(3) + (1 - self.saturation) * grey
        return self.brightness * self.contrast * saturate, self.brightness * (1 - self.contrast) * _MIDDLE


UNCHANGED = Colour()


def recolour(clip: Tensor, colour: Colour) -> Tensor:
    """Change the colour of a clip.

    Args:
        clip: uint8, shape (3, T, H, W).
        colour: the change.

    Returns:
        A clip of the same type and shape; values beyond 0..255 are cut off there.
    """
    if colour == UNCHANGED:
        return clip
    matrix, offset = colour.affine()
    red, green, blue = clip.float()
    rows = (  # not a matrix product, which depends on memory's layout
        torch.add(red * r, green, alpha=g).add_(blue, alpha=b).add_(offset) for r, g, b in matrix.tolist()
    )
    # By way of int16: torch takes three times as long from float32 to uint8 at once.
    return torch.stack([row.round_().clamp_(0, 255).to(torch.int16).to(torch.uint8) for row in rows])


def recolour_batch(clips: Tensor, colours: Sequence[Colour]) -> Tensor:
    """Change the colour of many clips at once, each in its own way: meant for a GPU.

    One clip at a time would launch some 25 kernels for each.

    Args:
        clips: uint8, shape (B, 3, T, H, W).
        colours: the change of each clip.

    Returns:
        `recolour` of each clip, up to rounding.
    """
    if all(colour == UNCHANGED for colour in colours):
        return clips
    matrices, offsets = zip(*(colour.affine() for colour in colours), strict=True)
    factors = torch.stack(matrices).to(clips.device, non_blocking=True).permute(1, 2, 0)[..., None, None, None]
    offset = torch.tensor(offsets).to(clips.device, non_blocking=True)[:, None, None, None]
    red, green, blue = clips.float().unbind(dim=1)
    rows = (
        (red * of_red).addcmul_(green, of_green).addcmul_(blue, of_blue).add_(offset)
        for of_red, of_green, of_blue in factors
    )
    return torch.stack([row.round_().clamp_(0, 255).to(torch.uint8) for row in rows], dim=1)
