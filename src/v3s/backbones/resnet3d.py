"""R3D and R(2+1)D: one residual network with the convolution as a parameter (paper 4.1.1).

``r3d`` and ``r2plus1d`` have one block per stage, which gives the 14.4M parameters of the paper's Table 2. ``r3d18``
and ``r2plus1d18`` have two blocks per stage, as in torchvision. To load torchvision's tensors, rename ``stem`` to
``conv1`` and ``layer1`` .. ``layer4`` to ``conv2`` .. ``conv5``, and drop ``fc``.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from v3s.backbones.contract import StagedBackbone, scale_channels
from v3s.backbones.layers import BatchNorm, Triple, normalised

_Convolution = Callable[[int, int, Triple, Triple], nn.Module]  # num_in, num_out, kernel, stride
_Block = Callable[[int, int, int], nn.Module]  # num_in, num_out, stride

_CHANNELS = (64, 128, 256, 512)
_STEM_KERNEL, _STEM_STRIDE = (3, 7, 7), (1, 2, 2)
_TORCHVISION_STEM_MID_CHANNELS = 45  # the formula would give 83


def r3d(width: float = 1.0) -> StagedBackbone:
    """Build R3D: plain 3D convolutions, one block per stage; 14,361,792 parameters.

    A clip of 16x112x112 gives 512x2x7x7 at conv5.

    Args:
        width: factor for all numbers of channels.
    """
    return _resnet(full_convolution, 1, width)


def r2plus1d(width: float = 1.0) -> StagedBackbone:
    """Build R(2+1)D: R3D with all convolutions factored, including the shortcuts; 14,365,303 parameters.

    Args:
        width: factor for all numbers of channels, which determine the middle channels of factored convolutions.
    """
    return _resnet(factored_convolution, 1, width)


def r3d18(width: float = 1.0) -> StagedBackbone:
    """Build R3D-18: R3D with two blocks per stage; 33,166,272 parameters, named as in torchvision's ``r3d_18``.

    Args:
        width: factor for all numbers of channels.
    """
    return _resnet(full_convolution, 2, width)


def r2plus1d18(width: float = 1.0) -> StagedBackbone:
    """Build R(2+1)D-18, two blocks per stage; 31,300,125 parameters, named as in torchvision's ``r2plus1d_18``.

    It differs from ``r2plus1d`` as torchvision's network does: 45 middle channels in the stem, plain shortcuts, and in
    each block both convolutions have the middle channels of the first.

    Args:
        width: factor for all numbers of channels.
    """
    num_out, num_mid = scale_channels(_CHANNELS[0], width), max(1, int(_TORCHVISION_STEM_MID_CHANNELS * width))
    factored = factored_convolution(3, num_out, _STEM_KERNEL, _STEM_STRIDE, num_mid)
    return _chain(nn.Sequential(*factored, *normalised(num_out)), _torchvision_block, 2, width)


def full_convolution(num_in: int, num_out: int, kernel: Triple, stride: Triple) -> nn.Conv3d:
    """Make a 3D convolution without bias, padded to keep the size at stride 1. Kernel and stride are (t, h, w)."""
    time, height, width = kernel
    return nn.Conv3d(num_in, num_out, kernel, stride, (time // 2, height // 2, width // 2), bias=False)


def factored_convolution(
    num_in: int, num_out: int, kernel: Triple, stride: Triple, num_mid: int | None = None
) -> nn.Sequential:
    """Factor a convolution into (2+1)D: convolution in space, batch normalisation, ReLU, convolution in time.

    Args:
        num_in: input channels.
        num_out: output channels.
        kernel: (time, height, width) of the convolution to factor.
        stride: (time, height, width); each factor gets its part.
        num_mid: number of channels between the factors; by default :func:`num_middle_channels`.
    """
    num_mid = num_mid or num_middle_channels(num_in, num_out, kernel)
    return nn.Sequential(
        full_convolution(num_in, num_mid, (1, *kernel[1:]), (1, *stride[1:])),
        *normalised(num_mid),
        full_convolution(num_mid, num_out, (kernel[0], 1, 1), (stride[0], 1, 1)),
    )


def num_middle_channels(num_in: int, num_out: int, kernel: Triple) -> int:
    """Return the channels between the factors for which they have as many weights as the full convolution, or fewer."""
    time, area = kernel[0], kernel[1] * kernel[2]
    return time * area * num_in * num_out // (area * num_in + time * num_out)


class _ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions and a shortcut, which is a 1x1x1 convolution if the shape changes.

    Args:
        num_in: input channels.
        num_out: output channels.
        stride: stride of the first convolution in time, height and width.
        convolution: builds the two convolutions.
        shortcut: builds the convolution of the shortcut.
    """

    def __init__(self, num_in: int, num_out: int, stride: int, convolution: _Convolution, shortcut: _Convolution):
        super().__init__()
        strides = (stride, stride, stride)
        self.conv1 = nn.Sequential(convolution(num_in, num_out, (3, 3, 3), strides), *normalised(num_out))
        self.conv2 = nn.Sequential(convolution(num_out, num_out, (3, 3, 3), (1, 1, 1)), BatchNorm(num_out))
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or num_in != num_out:
            self.downsample = nn.Sequential(shortcut(num_in, num_out, (1, 1, 1), strides), BatchNorm(num_out))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(B, num_in, t, h, w)`` to ``(B, num_out, ceil(t / stride), ceil(h / stride), ceil(w / stride))``."""
        return F.relu(self.conv2(self.conv1(inputs)) + self.downsample(inputs), inplace=True)


def _torchvision_block(num_in: int, num_out: int, stride: int) -> _ResidualBlock:
    """Make a block of torchvision's R(2+1)D: equal middle channels in both convolutions, a plain shortcut."""
    num_mid = num_middle_channels(num_in, num_out, (3, 3, 3))
    return _ResidualBlock(num_in, num_out, stride, partial(factored_convolution, num_mid=num_mid), full_convolution)


def _resnet(convolution: _Convolution, num_blocks: int, width: float) -> StagedBackbone:
    """Make a network from one kind of convolution."""
    num_out = scale_channels(_CHANNELS[0], width)
    stem = nn.Sequential(convolution(3, num_out, _STEM_KERNEL, _STEM_STRIDE), *normalised(num_out))
    block = partial(_ResidualBlock, convolution=convolution, shortcut=convolution)
    return _chain(stem, block, num_blocks, width)


def _chain(stem: nn.Sequential, block: _Block, num_blocks: int, width: float) -> StagedBackbone:
    """Append four residual stages to a stem; all but the first halve time, height and width."""
    channels = [scale_channels(num_channels, width) for num_channels in _CHANNELS]
    stages: dict[str, tuple[nn.Module, int]] = {"conv1": (stem, channels[0])}
    for number, (num_in, num_out) in enumerate(pairwise([channels[0], *channels]), start=2):
        first = block(num_in, num_out, 1 if number == 2 else 2)
        others = [block(num_out, num_out, 1) for _ in range(num_blocks - 1)]
        stages[f"conv{number}"] = nn.Sequential(first, *others), num_out
    return StagedBackbone(stages)
