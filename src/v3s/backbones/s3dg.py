"""S3D-G: separable 3D Inception with feature gating (paper 4.1.1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v3s.backbones.contract import StagedBackbone, scale_channels
from v3s.backbones.layers import Triple, normalised

_STEM_CHANNELS, _SEPARABLE_CHANNELS = 64, 192
# Stage -> (kernel of the pooling before it, its blocks); a block is the widths of `Inception`.
_INCEPTION: dict[str, tuple[Triple, tuple[tuple[int, int, int, int, int, int], ...]]] = {
    "conv3": (
        (1, 3, 3),
        (
            (64, 96, 128, 16, 32, 32),
            (128, 128, 192, 32, 96, 64),
        ),
    ),
    "conv4": (
        (3, 3, 3),
        (
            (192, 96, 208, 16, 48, 64),
            (160, 112, 224, 24, 64, 64),
            (128, 128, 256, 24, 64, 64),
            (112, 144, 288, 32, 64, 64),
            (256, 160, 320, 32, 128, 128),
        ),
    ),
    "conv5": (
        (2, 2, 2),
        (
            (256, 160, 320, 32, 128, 128),
            (384, 192, 384, 48, 128, 128),
        ),
    ),
}


def s3dg(width: float = 1.0) -> StagedBackbone:
    """Build S3D-G; 9,125,072 parameters. A clip of 16x224x224 gives 1024x2x7x7 at conv5.

    Args:
        width: factor for all numbers of channels.
    """
    num_stem, num_channels = scale_channels(_STEM_CHANNELS, width), scale_channels(_SEPARABLE_CHANNELS, width)
    opening = [
        _SamePool((1, 3, 3), (1, 2, 2)),
        *_unit(num_stem, num_stem, (1, 1, 1)),
        *_separable(num_stem, num_channels),
        Gate(num_channels),
    ]
    blocks: dict[str, tuple[nn.Module, int]] = {
        "conv1": (nn.Sequential(*_unit(3, num_stem, (3, 7, 7), 2)), num_stem),
        "conv2": (nn.Sequential(*opening), num_channels),
    }
    for stage, (pooling, rows) in _INCEPTION.items():
        layers: list[nn.Module] = [_SamePool(pooling, (2 if pooling[0] > 1 else 1, 2, 2))]
        for row in rows:
            widths = [scale_channels(number, width) for number in row]
            layers.append(Inception(num_channels, widths))
            num_channels = widths[0] + widths[2] + widths[4] + widths[5]
        blocks[stage] = nn.Sequential(*layers), num_channels
    return StagedBackbone(blocks, clip_size=224)


def max_pool_same(inputs: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Max pooling with TensorFlow's "SAME" padding: each size becomes ceil(size / stride).

    Convention: the padding (ceil(size / stride) - 1) * stride + kernel - size is split between both sides; if it is
    odd, the end gets one more. Padded positions never win. Rounding the output size up supplies the padding at the end.

    Args:
        inputs: ``(B, C, T, H, W)``.
        kernel: (time, height, width).
        stride: (time, height, width).
    """
    sizes = inputs.shape[2:]
    before = [max(0, (-(-n // s) - 1) * s + k - n) // 2 for n, k, s in zip(sizes, kernel, stride, strict=True)]
    return F.max_pool3d(inputs, kernel, stride, before, ceil_mode=True)


class _SamePool(nn.Module):
    """:func:`max_pool_same` as a layer."""

    def __init__(self, kernel: Triple, stride: Triple):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(B, C, T, H, W)`` to sizes divided by the stride, rounded up."""
        return max_pool_same(inputs, self.kernel, self.stride)


class Gate(nn.Module):
    """Feature gating: each channel is multiplied by the sigmoid of a linear map of the means of all channels."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.linear = nn.Linear(num_channels, num_channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(B, C, T, H, W)`` to the same shape."""
        weights = torch.sigmoid(self.linear(inputs.mean(dim=(2, 3, 4))))
        return inputs * weights[:, :, None, None, None]


class Inception(nn.Module):
    """Four gated branches, concatenated along the channels.

    Args:
        num_in: input channels.
        widths: numbers of channels of the branches: 1x1x1; 1x1x1 and 3x3x3; 1x1x1 and 3x3x3; pooled 1x1x1.
    """

    def __init__(self, num_in: int, widths: Sequence[int]):
        super().__init__()
        single, squeeze1, separable1, squeeze2, separable2, pooled = widths
        point = (1, 1, 1)
        self.branches = nn.ModuleList(
            [
                nn.Sequential(*_unit(num_in, single, point), Gate(single)),
                nn.Sequential(*_unit(num_in, squeeze1, point), *_separable(squeeze1, separable1), Gate(separable1)),
                nn.Sequential(*_unit(num_in, squeeze2, point), *_separable(squeeze2, separable2), Gate(separable2)),
                nn.Sequential(_SamePool((3, 3, 3), point), *_unit(num_in, pooled, point), Gate(pooled)),
            ]
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(B, num_in, T, H, W)`` to the same T, H, W."""
        return torch.cat([branch(inputs) for branch in self.branches], dim=1)


def _separable(num_in: int, num_out: int) -> list[nn.Module]:
    """Make a 3x3x3 convolution from one in space and one in time."""
    return [*_unit(num_in, num_out, (1, 3, 3)), *_unit(num_out, num_out, (3, 1, 1))]


def _unit(num_in: int, num_out: int, kernel: Triple, stride: int = 1) -> list[nn.Module]:
    """Make a convolution without bias, batch normalisation and ReLU."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    convolution = nn.Conv3d(num_in, num_out, kernel, stride, padding, bias=False)
    return [convolution, *normalised(num_out)]
