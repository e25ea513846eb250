"""C3D: stage shapes, and pooling of small clips."""

import pytest
import torch
from torch import nn

from v3s.backbones.c3d import c3d


def test_stage_shapes_of_the_papers_clip() -> None:
    with torch.device("meta"):
        stages = c3d().forward_stages(torch.rand(1, 3, 16, 112, 112))
    assert {name: tuple(stage.shape[1:]) for name, stage in stages.items()} == {
        "conv1": (64, 16, 112, 112),
        "conv2": (128, 16, 56, 56),
        "conv3": (256, 8, 28, 28),
        "conv4": (512, 4, 14, 14),
        "conv5": (512, 2, 7, 7),
    }


@pytest.mark.parametrize(("num_frames", "height", "width", "last"), [(8, 48, 64, (1, 3, 4)), (1, 20, 9, (1, 2, 1))])
def test_sizes_round_up(num_frames: int, height: int, width: int, last: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        stages = c3d(0.25).forward_stages(torch.rand(1, 3, num_frames, height, width))
    assert stages["conv5"].shape[2:] == last


def test_eight_convolutions_with_bias() -> None:
    with torch.device("meta"):
        convolutions = [module for module in c3d().modules() if isinstance(module, nn.Conv3d)]
    assert [module.out_channels for module in convolutions] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert all(module.kernel_size == (3, 3, 3) and module.bias is not None for module in convolutions)
