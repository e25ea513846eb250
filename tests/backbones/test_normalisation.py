"""Clips normalised as weights expect it: before the first stage, in every form of a network, and in no tensor of it."""

import copy

import pytest
import torch
from torch import Tensor, nn

from v3s.backbones import BACKBONES, Normalisation, check_backbone, create_backbone
from v3s.backbones.contract import expect_normalised, normalisation_of
from v3s.backbones.device import Compute
from v3s.backbones.normalisation import KINETICS
from v3s.features.source import fold
from v3s.files.weights import fingerprint
from v3s.protocols.gradcam import grad_cam

PLAIN = Compute(torch.device("cpu"), bf16=False)


def random_clips() -> Tensor:
    return torch.rand((2, 3, 8, 32, 32), generator=torch.Generator().manual_seed(1))


def by_hand(clips: Tensor) -> Tensor:
    channels = zip(clips.unbind(1), KINETICS.mean, KINETICS.std, strict=True)
    return torch.stack([(values - mean) / std for values, mean, std in channels], dim=1)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_network_gives_the_stages_of_normalised_clips(name: str) -> None:
    plain = create_backbone(name, 0.125).eval()
    network = copy.deepcopy(plain)
    network.normalisation = KINETICS
    check_backbone(network, clip_frames=8, clip_size=32)
    clips = random_clips()
    with torch.no_grad():
        for changed in (network, copy.deepcopy(network), fold(network)):
            assert normalisation_of(changed) == KINETICS
            stages, expected = changed.forward_stages(clips), plain.forward_stages(by_hand(clips))  # type: ignore[operator]
            for stage in network.stages:
                torch.testing.assert_close(stages[stage], expected[stage], rtol=1e-4, atol=1e-5)
        assert torch.equal(network(clips), plain(by_hand(clips)))
        network.normalisation = None
        assert torch.equal(network(clips), plain(clips))


def test_it_is_no_part_of_the_weights() -> None:
    plain, network = create_backbone("r3d", 0.125), create_backbone("r3d", 0.125)
    network.normalisation = KINETICS
    assert fingerprint(network.state_dict()) == fingerprint(plain.state_dict())
    assert [name for name, _ in network.named_children()] == list(network.stages)
    network.load_state_dict(plain.state_dict(), assign=True)
    assert network.normalisation == KINETICS


def test_it_keeps_the_memory_format_and_compiles() -> None:
    network = create_backbone("r2plus1d", 0.125)
    network.normalisation = KINETICS
    network, seen = PLAIN.network(network).eval(), []
    network.get_submodule("conv1").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    clips = PLAIN.clips((random_clips() * 255).to(torch.uint8))
    features = network(clips)
    assert seen[0].is_contiguous(memory_format=torch.channels_last_3d)
    assert seen[0].dtype == torch.float32
    torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(clips), features)
    with Compute(torch.device("cpu"), bf16=True).autocast():
        assert network(clips).isfinite().all()
    assert all(tensor.dtype == torch.float32 for tensor in seen)


def test_grad_cam_explains_the_normalised_clip() -> None:
    plain, network = (create_backbone("r3d", 0.125).eval() for _ in range(2))
    network.normalisation = KINETICS
    head, clips = nn.Linear(network.num_features, 4), random_clips()
    assert torch.equal(grad_cam(network, head, clips, "conv4", 1), grad_cam(plain, head, by_hand(clips), "conv4", 1))


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.4, 0.4, 0.4), (0.2, 0.0, 0.2)), ((0.4, 0.4, 0.4), (0.2, -0.2, 0.2)), ((0.4, float("nan"), 0.4), (1, 1, 1))],
)
def test_impossible_numbers_are_refused(mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="both must be finite, and std more than 0"):
        Normalisation(mean, std)


def test_a_network_of_your_own_normalises_by_itself() -> None:
    network = nn.Conv3d(3, 8, 1)
    expect_normalised(network, None)
    assert normalisation_of(network) is None
    with pytest.raises(ValueError, match=r"these weights expect normalised clips .* Conv3d is not a StagedBackbone"):
        expect_normalised(network, KINETICS)
