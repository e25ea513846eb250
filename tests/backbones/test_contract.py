"""One contract for every backbone, and the violations that check_backbone must find."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from v3s.backbones import BACKBONES, Backbone, StagedBackbone, check_backbone, create_backbone
from v3s.backbones.contract import scale_channels

WIDTH = 0.25


def random_clips(num_frames: int, height: int, width: int, num_clips: int = 2) -> Tensor:
    return torch.rand((num_clips, 3, num_frames, height, width), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("clip_frames", "clip_size"), [(8, 56), (16, 32), (4, 17)])
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_keeps_the_contract(name: str, clip_frames: int, clip_size: int) -> None:
    check_backbone(create_backbone(name, WIDTH), clip_frames=clip_frames, clip_size=clip_size)


@pytest.mark.parametrize("name", BACKBONES)
def test_stages_are_named_alike_and_not_negative(name: str) -> None:
    network = create_backbone(name, WIDTH)
    assert isinstance(network, Backbone)
    assert list(network.stages) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    for stage, output in network.forward_stages(random_clips(8, 40, 56)).items():
        assert output.min() >= 0, stage
        assert output.max() > 0, stage


@pytest.mark.parametrize("name", BACKBONES)
def test_width_scales_every_stage(name: str) -> None:
    with torch.device("meta"):
        full, half = BACKBONES[name](1.0), BACKBONES[name](0.5)
    assert list(half.stages.values()) == [num_channels // 2 for num_channels in full.stages.values()]


@pytest.mark.parametrize("name", BACKBONES)
def test_memory_format_does_not_change_the_result(name: str) -> None:
    network, clips = create_backbone(name, WIDTH).eval(), random_clips(8, 24, 40)
    expected = network(clips)
    channels_last = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    actual = channels_last(clips.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_autocast_keeps_values_finite(name: str) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = create_backbone(name, 0.125)(random_clips(4, 16, 24))
    assert features.dtype == torch.bfloat16
    assert features.isfinite().all()


@pytest.mark.parametrize("name", ["r2plus1d", "s3dg"])
def test_compiles_without_a_graph_break(name: str) -> None:
    network, clips = create_backbone(name, 0.125).eval(), random_clips(4, 16, 24)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(clips), network(clips))


@pytest.mark.parametrize(
    ("num_channels", "width", "scaled"), [(64, 1.0, 64), (64, 0.25, 16), (24, 0.5, 16), (16, 0.1, 8)]
)
def test_scaled_channels_are_multiples_of_eight(num_channels: int, width: float, scaled: int) -> None:
    assert scale_channels(num_channels, width) == scaled


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan"), float("inf")])
def test_width_must_be_positive(width: float) -> None:
    with pytest.raises(ValueError, match=f"width is {width}; it must be a positive number"):
        scale_channels(64, width)


def mean(stage: Tensor) -> Tensor:
    return stage.mean(dim=(2, 3, 4))


class Tiny(StagedBackbone):
    """A valid backbone of two stages, which tests can break in three places."""

    def __init__(
        self,
        enter: Callable[[Tensor], Tensor] = lambda clips: clips,
        leave: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda stages: stages,
        pool: Callable[[Tensor], Tensor] = mean,
    ) -> None:
        first = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU())
        second = nn.Sequential(nn.Conv3d(4, 6, 3, stride=2, padding=1), nn.BatchNorm3d(6), nn.Dropout(0.5), nn.ReLU())
        super().__init__({"first": (first, 4), "second": (second, 6)}, clip_frames=4, clip_size=12)
        self.enter, self.leave, self.pool = enter, leave, pool

    def forward_stages(self, clips: Tensor) -> dict[str, Tensor]:
        """Map clips to two stages."""
        return self.leave(super().forward_stages(self.enter(clips)))

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips to features."""
        return self.pool(self.forward_stages(clips)["second"])


def with_attribute(name: str, value: object) -> Tiny:
    network = Tiny()
    setattr(network, name, value)
    return network


VIOLATIONS: dict[str, tuple[object, str]] = {
    "no module": ("c3d", "a str is not a backbone; a backbone must be a torch.nn.Module"),
    "no attributes": (nn.Linear(3, 3), "Linear has no num_features, stages, clip_frames, clip_size, forward_stages"),
    "wrong num_features": (with_attribute("num_features", 7), "num_features = 7, stages = .* last stage"),
    "wrong channels": (with_attribute("stages", {"first": 5, "second": 6}), r"'first'.*requires \(2, 5, t, h, w\)"),
    "stages in another order": (
        Tiny(leave=lambda stages: dict(reversed(stages.items()))),
        r"returned \['second', 'first'\]; stages requires \['first', 'second'\]",
    ),
    "no pooling": (Tiny(pool=lambda stage: stage), r"features of shape .* num_features = 6 requires \(2, 6\)"),
    "another pooling": (Tiny(pool=lambda stage: stage.amax(dim=(2, 3, 4))), "from the mean of the last stage"),
    "dead parameter": (with_attribute("spare", nn.Parameter(torch.zeros(3))), "no gradient reaches spare;"),
    "NaN for a black clip": (
        Tiny(enter=lambda clips: clips / clips.std(dim=(1, 2, 3, 4), keepdim=True)),
        "stage 'first': .* NaN or infinite",
    ),
    "NaN features": (Tiny(pool=lambda stage: mean(stage) / 0), "features: 12 of 12 values are NaN or infinite"),
    "NaN gradient": (
        Tiny(pool=lambda stage: mean(stage) + (0 * stage.sum()).sqrt()),
        "gradient of first.0.weight: .* NaN or infinite",
    ),
    "batch leak in evaluation": (Tiny(enter=lambda clips: clips - clips.mean()), "with another clip in its batch"),
    "random in evaluation": (
        Tiny(enter=lambda clips: clips + torch.rand_like(clips)),
        "without randomness in evaluation",
    ),
    "changed input": (Tiny(enter=lambda clips: clips.sub_(0.5)), "changes its input"),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_check_finds(violation: str) -> None:
    module, message = VIOLATIONS[violation]
    with pytest.raises(ValueError, match=message):
        check_backbone(module)


@pytest.mark.parametrize("training", [True, False])
def test_check_accepts_a_valid_module_and_leaves_no_trace(training: bool) -> None:
    network = Tiny().train(training)
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    check_backbone(network)
    assert network.training is training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in network.parameters())
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_check_accepts_a_frozen_parameter() -> None:
    check_backbone(with_attribute("spare", nn.Parameter(torch.zeros(3), requires_grad=False)))
