"""R3D and R(2+1)D are one network; the 18-layer variants have torchvision's tensors."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from v3s.backbones.contract import StagedBackbone
from v3s.backbones.resnet3d import (
    factored_convolution,
    full_convolution,
    num_middle_channels,
    r2plus1d,
    r2plus1d18,
    r3d,
    r3d18,
)

SHAPES = {
    "conv1": (64, 16, 56, 56),
    "conv2": (64, 16, 56, 56),
    "conv3": (128, 8, 28, 28),
    "conv4": (256, 4, 14, 14),
    "conv5": (512, 2, 7, 7),
}


@pytest.mark.parametrize("build", [r3d, r2plus1d, r3d18, r2plus1d18])
def test_stage_shapes_of_the_papers_clip(build: Callable[[], StagedBackbone]) -> None:
    with torch.device("meta"):
        stages = build().forward_stages(torch.rand(1, 3, 16, 112, 112))
    assert {name: tuple(stage.shape[1:]) for name, stage in stages.items()} == SHAPES


def test_r2plus1d_differs_from_r3d_only_in_the_convolution() -> None:
    with torch.device("meta"):
        plain, factored = r3d(), r2plus1d()
    inside = {
        f"{name}.{number}"
        for name, module in plain.named_modules()
        if isinstance(module, nn.Conv3d)
        for number in range(4)
    }
    assert {name for name, _ in factored.named_modules()} - inside == {name for name, _ in plain.named_modules()}
    for name, module in plain.named_modules():
        twin = factored.get_submodule(name)
        if isinstance(module, nn.Conv3d):
            assert_factors(twin, module)
        else:
            assert type(twin) is type(module), name
            if isinstance(module, nn.BatchNorm3d):
                assert isinstance(twin, nn.BatchNorm3d)
                assert twin.num_features == module.num_features


def assert_factors(twin: nn.Module, whole: nn.Conv3d) -> None:
    """``twin`` has the extent and the stride of the convolution that it factors."""
    in_space, norm, relu, in_time = twin.children()
    assert isinstance(in_space, nn.Conv3d)
    assert isinstance(in_time, nn.Conv3d)
    assert isinstance(norm, nn.BatchNorm3d)
    assert isinstance(relu, nn.ReLU)
    assert (in_space.in_channels, in_time.out_channels) == (whole.in_channels, whole.out_channels)
    assert (in_time.kernel_size[0], *in_space.kernel_size[1:]) == whole.kernel_size
    assert (in_time.stride[0], *in_space.stride[1:]) == whole.stride
    assert (in_space.kernel_size[0], *in_time.kernel_size[1:]) == (1, 1, 1)
    assert (in_space.stride[0], *in_time.stride[1:]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("num_in", "num_out", "kernel", "expected"),
    [(3, 64, (3, 7, 7), 83), (64, 64, (3, 3, 3), 144), (64, 128, (3, 3, 3), 230), (64, 128, (1, 1, 1), 42)],
)
def test_middle_channels(num_in: int, num_out: int, kernel: tuple[int, int, int], expected: int) -> None:
    assert num_middle_channels(num_in, num_out, kernel) == expected


@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 7, 7), (1, 1, 1)])
def test_factors_have_about_as_many_weights(kernel: tuple[int, int, int]) -> None:
    whole = full_convolution(48, 80, kernel, (1, 1, 1)).weight.numel()
    factors = [
        module.weight.numel()
        for module in factored_convolution(48, 80, kernel, (1, 1, 1)).modules()
        if isinstance(module, nn.Conv3d)
    ]
    one_middle_channel = 48 * kernel[1] * kernel[2] + 80 * kernel[0]
    assert 0 <= whole - sum(factors) < one_middle_channel


def torchvision_shapes(*, factored: bool) -> dict[str, tuple[int, ...]]:
    """List the tensors of torchvision's 18-layer networks, name -> shape, without the head."""
    stem_norm = {"stem.1": 45, "stem.4": 64} if factored else {"stem.1": 64}
    shapes: dict[str, tuple[int, ...]] = {"stem.0.weight": (64, 3, 3, 7, 7)}
    if factored:
        shapes = {"stem.0.weight": (45, 3, 1, 7, 7), "stem.3.weight": (64, 45, 3, 1, 1)}
    norms = dict(stem_norm)
    num_in = 64
    for layer, num_out in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name, source = f"layer{layer}.{block}", num_in if block == 0 else num_out
            num_mid = 27 * source * num_out // (9 * source + 3 * num_out)
            for number, channels in ((1, source), (2, num_out)):
                conv = f"{name}.conv{number}"
                if factored:
                    shapes[f"{conv}.0.0.weight"] = (num_mid, channels, 1, 3, 3)
                    shapes[f"{conv}.0.3.weight"] = (num_out, num_mid, 3, 1, 1)
                    norms[f"{conv}.0.1"] = num_mid
                else:
                    shapes[f"{conv}.0.weight"] = (num_out, channels, 3, 3, 3)
                norms[f"{conv}.1"] = num_out
        if layer > 1:
            shapes[f"layer{layer}.0.downsample.0.weight"] = (num_out, num_in, 1, 1, 1)
            norms[f"layer{layer}.0.downsample.1"] = num_out
        num_in = num_out
    for norm, channels in norms.items():
        shapes |= {f"{norm}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{norm}.num_batches_tracked"] = ()
    return shapes


@pytest.mark.parametrize(("build", "factored"), [(r3d18, False), (r2plus1d18, True)])
def test_torchvisions_tensors_fit_by_name(build: Callable[[], StagedBackbone], factored: bool) -> None:
    renamed = {"stem": "conv1", "layer1": "conv2", "layer2": "conv3", "layer3": "conv4", "layer4": "conv5"}
    expected = {}
    for name, shape in torchvision_shapes(factored=factored).items():
        first, rest = name.split(".", 1)
        expected[f"{renamed[first]}.{rest}"] = shape
    with torch.device("meta"):
        assert {name: tuple(value.shape) for name, value in build().state_dict().items()} == expected
