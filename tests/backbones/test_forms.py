"""Layers in an equivalent form give the same results as plain layers."""

import pytest
import torch
from torch import Tensor, nn

from v3s import create_backbone
from v3s.backbones import layers
from v3s.backbones.forms import FastOnGpu, convolve_aligned, convolve_blocks

DOUBLE = torch.float64


def random(*shape: int) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=DOUBLE)
    return drawn.to(memory_format=torch.channels_last_3d) if drawn.dim() == 5 else drawn


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(16, 16), (13, 18), (15, 9)])
@pytest.mark.parametrize(
    ("kernel", "time_stride", "padding"),
    [((3, 7, 7), 1, (1, 3, 3)), ((1, 7, 7), 1, (0, 3, 3)), ((3, 7, 7), 2, (1, 3, 3)), ((2, 4, 3), 1, (0, 2, 0))],
)
def test_a_convolution_of_blocks_equals_that_of_pixels(
    channels: int,
    size: tuple[int, int],
    kernel: tuple[int, int, int],
    time_stride: int,
    padding: tuple[int, int, int],
) -> None:
    clips, weight, bias = random(2, channels, 5, *size), random(6, channels, *kernel), random(6)
    expected = nn.functional.conv3d(clips, weight, bias, (time_stride, 2, 2), padding)
    actual = convolve_blocks(clips, weight, bias, (time_stride, 2, 2), padding)
    torch.testing.assert_close(actual, expected)
    assert actual.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(("num_in", "num_out"), [(3, 8), (8, 5), (7, 9), (8, 16)])
@pytest.mark.parametrize("biased", [True, False])
def test_padded_channels_change_nothing(num_in: int, num_out: int, biased: bool) -> None:
    clips, weight, bias = random(2, num_in, 4, 6, 6), random(num_out, num_in, 3, 3, 3), random(num_out)
    arguments = clips, weight, bias if biased else None, (1, 2, 2), (1, 1, 1)
    torch.testing.assert_close(convolve_aligned(*arguments), nn.functional.conv3d(*arguments))


def trained_step(name: str, *, training: bool) -> dict[str, Tensor]:
    """The features of a network, the gradients of its weights and its running statistics."""
    network = create_backbone(name, 0.25, seed=1).to(DOUBLE).train(training)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    features = network(random(2, 3, 8, 32, 32))
    features.square().sum().backward()
    gradients = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
    return {"features": features.detach(), **gradients, **dict(network.named_buffers())}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["c3d", "r3d", "r2plus1d", "s3dg"])
def test_a_network_in_fast_form_is_the_same_network(name: str, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = trained_step(name, training=training)
    monkeypatch.setattr(layers, "is_fast_as_pictures", lambda clips: True)
    with FastOnGpu():
        fast = trained_step(name, training=training)
    assert plain.keys() == fast.keys()
    torch.testing.assert_close(fast, plain, rtol=1e-6, atol=1e-7)


def test_the_fast_form_compiles_without_a_graph_break(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a network whose channels are not multiples of 8."""
    network = create_backbone("r2plus1d", 0.3, seed=1).to(DOUBLE)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    clips = random(2, 3, 8, 32, 32)
    expected = network(clips)
    monkeypatch.setattr(layers, "is_fast_as_pictures", lambda clips: True)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with FastOnGpu():
        torch.testing.assert_close(compiled(clips), expected, rtol=1e-6, atol=1e-7)
