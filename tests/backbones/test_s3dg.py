"""S3D-G: stage shapes, SAME pooling, gates."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from v3s.backbones.s3dg import Gate, Inception, max_pool_same, s3dg


def test_stage_shapes_of_the_papers_clip() -> None:
    with torch.device("meta"):
        stages = s3dg().forward_stages(torch.rand(1, 3, 16, 224, 224))
    assert {name: tuple(stage.shape[1:]) for name, stage in stages.items()} == {
        "conv1": (64, 8, 112, 112),
        "conv2": (192, 8, 56, 56),
        "conv3": (480, 8, 28, 28),
        "conv4": (832, 4, 14, 14),
        "conv5": (1024, 2, 7, 7),
    }


def padded_oracle(inputs: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Pad as TensorFlow documents SAME, with more at the end than at the start, and pool without padding."""
    padding: list[int] = []
    for size, k, s in zip(inputs.shape[2:], kernel, stride, strict=True):
        total = max(k - s, 0) if size % s == 0 else max(k - size % s, 0)
        padding = [total // 2, total - total // 2, *padding]
    return F.max_pool3d(F.pad(inputs, padding, value=float("-inf")), kernel, stride)


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))],
)
@pytest.mark.parametrize("sizes", [(8, 6, 10), (7, 9, 6), (5, 1, 3), (1, 2, 1), (2, 4, 5)])
def test_same_pooling_is_tensorflows(
    sizes: tuple[int, int, int], kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> None:
    inputs = torch.randn((2, 3, *sizes), generator=torch.Generator().manual_seed(0))
    pooled = max_pool_same(inputs, kernel, stride)
    assert pooled.shape[2:] == tuple(-(-size // step) for size, step in zip(sizes, stride, strict=True))
    assert torch.equal(pooled, padded_oracle(inputs, kernel, stride))


def test_an_even_size_is_padded_at_its_end() -> None:
    ramp = torch.arange(6.0).reshape(1, 1, 1, 1, 6)
    assert max_pool_same(ramp, (1, 1, 3), (1, 1, 2)).flatten().tolist() == [2.0, 4.0, 5.0]


def test_a_gate_scales_whole_channels() -> None:
    gate = Gate(4)
    inputs = torch.rand((2, 4, 3, 5, 6), generator=torch.Generator().manual_seed(0)) + 0.1
    ratio = gate(inputs) / inputs
    expected = torch.sigmoid(inputs.flatten(2).mean(2) @ gate.linear.weight.T + gate.linear.bias)
    torch.testing.assert_close(ratio, expected[:, :, None, None, None].expand_as(ratio))


def test_an_inception_block_joins_its_branches() -> None:
    with torch.device("meta"):
        block = Inception(192, (64, 96, 128, 16, 32, 32))
        assert block(torch.rand(1, 192, 4, 6, 10)).shape == (1, 256, 4, 6, 10)
