"""C3D with batch normalisation: eight 3x3x3 convolutions in five stages (paper 4.1.1)."""

from torch import nn

from v3s.backbones.contract import StagedBackbone, scale_channels
from v3s.backbones.layers import normalised

# Stage -> (kernel and stride of the pooling before it, channels of its convolutions).
STAGES = {
    "conv1": (None, (64,)),
    "conv2": ((1, 2, 2), (128,)),
    "conv3": ((2, 2, 2), (256, 256)),
    "conv4": ((2, 2, 2), (512, 512)),
    "conv5": ((2, 2, 2), (512, 512)),
}


def c3d(width: float = 1.0) -> StagedBackbone:
    """Build C3D: convolutions with bias, each followed by batch normalisation and ReLU; 27,661,440 parameters.

    A clip of 16x112x112 gives 512x2x7x7 at conv5. Pooling rounds sizes up, so clips may have any length and size.

    Args:
        width: factor for all numbers of channels.
    """
    blocks: dict[str, tuple[nn.Module, int]] = {}
    num_in = 3
    for stage, (pooling, channels) in STAGES.items():
        layers: list[nn.Module] = [nn.MaxPool3d(pooling, ceil_mode=True)] if pooling else []
        for num_out in (scale_channels(num_channels, width) for num_channels in channels):
            layers += [nn.Conv3d(num_in, num_out, 3, padding=1), *normalised(num_out)]
            num_in = num_out
        blocks[stage] = nn.Sequential(*layers), num_in
    return StagedBackbone(blocks)
