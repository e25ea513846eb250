"""Folding: the same stages from fewer layers, without a change of the original network."""

import pytest
import torch
from torch import Tensor, nn

from v3s.backbones import BACKBONES, StagedBackbone, create_backbone
from v3s.backbones.device import Compute
from v3s.features.source import fold
from v3s.files.weights import fingerprint

FP32, BF16 = (Compute(torch.device("cpu"), bf16=bf16) for bf16 in (False, True))


def normalised(network: StagedBackbone) -> StagedBackbone:
    """Set evaluation mode, channels last, and statistics like those of a trained network."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d) and module.running_mean is not None and module.running_var is not None:
            for values in (module.running_mean, module.bias):
                nn.init.normal_(values, std=0.1, generator=generator)
            for values in (module.running_var, module.weight):
                nn.init.uniform_(values, 0.5, 1.5, generator=generator)
    return network.eval().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def clips_of(batch: int, frames: int, size: int) -> Tensor:
    shape = batch, 3, frames, size, size
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def stages_of(network: nn.Module, compute: Compute, clips: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode(), compute.autocast():
        return network.forward_stages(compute.clips(clips))  # type: ignore[operator, no-any-return]


def error(actual: Tensor, exact: Tensor) -> float:
    return float((actual.double() - exact.double()).norm() / exact.double().norm())


def chain(*layers: nn.Module) -> StagedBackbone:
    return StagedBackbone({"conv1": (nn.Sequential(*layers), 8)}, clip_frames=4, clip_size=8)


@pytest.mark.parametrize("name", BACKBONES)
def test_stages_stay_the_same(name: str) -> None:
    network, clips = normalised(create_backbone(name, 0.125)), clips_of(2, 8, 64)
    plain, rounded = stages_of(network, FP32, clips), stages_of(network, BF16, clips)
    folded, folded_rounded = (stages_of(fold(network), compute, clips) for compute in (FP32, BF16))
    for stage, exact in plain.items():
        assert error(folded[stage], exact) < 1e-5
        assert error(folded_rounded[stage], exact) < max(0.01, 1.5 * error(rounded[stage], exact))


def normalisations(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm3d) for module in network.modules())


@pytest.mark.parametrize("name", BACKBONES)
def test_no_normalisation_remains(name: str) -> None:
    network = create_backbone(name, 0.125).eval()
    assert normalisations(network)
    assert not normalisations(fold(network))


def test_nan_in_a_weight_reaches_the_output() -> None:
    network = create_backbone("r3d", 0.125).eval()
    next(network.parameters()).data[:] = torch.nan
    for compute in (FP32, BF16):
        assert not stages_of(fold(network), compute, clips_of(1, 4, 16))["conv5"].isfinite().any()


def test_the_original_network_is_unchanged_and_can_be_trained() -> None:
    network = create_backbone("r3d", 0.125)
    before = fingerprint(network.state_dict())
    stages_of(fold(network.eval()), BF16, clips_of(1, 4, 16))
    assert fingerprint(network.state_dict()) == before
    network.train()(clips_of(2, 4, 16).float()).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8, track_running_stats=False)),
        (nn.Conv3d(3, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm3d(8)),
        (nn.utils.parametrizations.weight_norm(nn.Conv3d(3, 8, 3)), nn.BatchNorm3d(8)),
    ],
    ids=["no statistics", "ReLU between", "weight norm"],
)
def test_layers_that_cannot_be_folded_are_unchanged(layers: tuple[nn.Module, ...]) -> None:
    network = normalised(chain(*layers))
    folded, clips = fold(network), clips_of(2, 4, 8)
    assert normalisations(folded) == 1
    assert torch.equal(stages_of(folded, FP32, clips)["conv1"], stages_of(network, FP32, clips)["conv1"])


@pytest.mark.parametrize("affine", [True, False])
def test_groups_dilation_strides_and_bias_are_folded(affine: bool) -> None:
    grouped = nn.Conv3d(8, 8, 3, (1, 2, 2), (2, 1, 1), dilation=(2, 1, 1), groups=4)
    layers = nn.Conv3d(3, 8, 1, padding="same"), nn.BatchNorm3d(8, affine=affine), grouped, nn.BatchNorm3d(8), nn.ReLU()
    network = chain(*layers).eval()
    folded, clips = fold(network), clips_of(2, 6, 12)
    assert not normalisations(folded)
    assert error(stages_of(folded, FP32, clips)["conv1"], stages_of(network, FP32, clips)["conv1"]) < 1e-5


def test_a_custom_network_is_returned_unchanged() -> None:
    network = nn.Sequential(nn.Conv3d(3, 8, 1), nn.BatchNorm3d(8)).eval()
    assert fold(network) is network
