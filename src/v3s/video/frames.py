"""Decoded frames as planes, as video codecs keep them: brightness in full, colour differences at half the resolution.

Planes are read, moved and warped as they are, and become RGB only where pixels are few: after the warp.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Weights of red and blue in the brightness, by FFmpeg's names of the matrices.
_MATRICES = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "fcc": (0.3, 0.11),
    "smpte240m": (0.212, 0.087),
    "bt2020": (0.2627, 0.0593),
}


@dataclass(frozen=True, slots=True)
class ColourSpace:
    """How brightness and colour differences (Y, U, V) make red, green and blue.

    Attributes:
        matrix: "bt601", "bt709", "bt2020", "fcc" or "smpte240m".
        full: whether Y spans 0..255 ("full range", as in JPEG) or 16..235.
    """

    matrix: str = "bt601"
    full: bool = False

    def to_rgb(self) -> list[tuple[float, float, float, float]]:
        """The rows of the affine map from (Y, U, V, 1), each 0..255, to R, G and B."""
        red, blue = _MATRICES[self.matrix]
        green = 1 - red - blue
        bright, chroma, black = (1.0, 1.0, 0.0) if self.full else (255 / 219, 255 / 224, 16.0)
        to_blue, to_red = 2 * (1 - blue) * chroma, 2 * (1 - red) * chroma
        weights = (0.0, to_red), (-to_blue * blue / green, -to_red * red / green), (to_blue, 0.0)
        return [(bright, u, v, -bright * black - 128 * (u + v)) for u, v in weights]


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Frames of one video.

    Attributes:
        planes: uint8 tensors of shape (T, channels, height, width): one with R, G, B, or one with Y and another, which
            may be smaller, with U and V.
        colour: how Y, U and V make RGB; ``None`` for RGB.

    Convention: a plane that is f times smaller than the first covers the same picture: its sample in row i and column j
    lies at ((j + 0.5) f, (i + 0.5) f).
    """

    planes: tuple[Tensor, ...]
    colour: ColourSpace | None

    def __len__(self) -> int:
        return len(self.planes[0])

    def __getitem__(self, chosen: "slice | list[int]") -> "Frames":
        return Frames(tuple(plane[chosen] for plane in self.planes), self.colour)

    @property
    def height(self) -> int:
        """Of the picture, in pixels."""
        return self.planes[0].shape[-2]

    @property
    def width(self) -> int:
        """Of the picture, in pixels."""
        return self.planes[0].shape[-1]

    def split(self, size: int) -> "Iterator[Frames]":
        """Parts of ``size`` frames each, the last one perhaps shorter."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def rgb(self) -> Tensor:
        """The frames as uint8 RGB, shape (T, 3, H, W); smaller planes are enlarged by repeating their samples."""
        if self.colour is None:
            return self.planes[0]
        luma, chroma = self.planes
        tall, wide = subsampling(luma, chroma)
        chroma = chroma.repeat_interleave(tall, dim=2).repeat_interleave(wide, dim=3)
        chroma = chroma[:, :, : self.height, : self.width]
        channels = [plane.float() for plane in (luma[:, 0], chroma[:, 0], chroma[:, 1])]
        return torch.stack(to_rgb(channels, self.colour), dim=1)


def subsampling(first: Tensor, plane: Tensor) -> tuple[int, int]:
    """How many times smaller a plane is than the first one, in height and in width: 1 or 2."""
    return round(first.shape[-2] / plane.shape[-2]), round(first.shape[-1] / plane.shape[-1])


def to_rgb(channels: list[Tensor], colour: ColourSpace | None) -> list[Tensor]:
    """Three float channels of one shape, 0..255, to uint8 R, G and B, rounded to the nearest; writes to them.

    Memory that is new, or that the cache has lost, costs more here than arithmetic: one colour is finished at a time.
    """
    if colour is None:
        return [_rounded(channel) for channel in channels]
    y, u, v = channels
    (bright, _, red_v, red), (_, green_u, green_v, green), (_, blue_u, _, blue) = colour.to_rgb()
    y.mul_(bright)
    greens = _rounded(torch.add(y, u, alpha=green_u).add_(v, alpha=green_v), green)
    reds = _rounded(torch.add(y, v, alpha=red_v, out=v), red)
    return [reds, greens, _rounded(torch.add(y, u, alpha=blue_u, out=u), blue)]


def _rounded(channel: Tensor, shift: float = 0.0) -> Tensor:
    """As uint8; by way of int16, since torch takes three times as long from float32 to uint8 at once."""
    return channel.add_(shift + 0.5).to(torch.int16).clamp_(0, 255).to(torch.uint8)
