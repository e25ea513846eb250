"""Grad-CAM: compared with captum and finite differences, on a planted patch, and its images."""

import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn
from torch.nn import functional as F

from v3s.backbones import StagedBackbone, create_backbone
from v3s.protocols.gradcam import INFERNO, contact_sheet, grad_cam, overlay

FRAMES, HEIGHT, WIDTH = 8, 20, 28


def small_backbone(seed: int = 0) -> StagedBackbone:
    """Three 5-D stages that shrink time, height and width by different factors."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        blocks: dict[str, tuple[nn.Module, int]] = {
            "first": (nn.Sequential(nn.Conv3d(3, 6, 3, padding=1), nn.ReLU()), 6),
            "second": (nn.Sequential(nn.MaxPool3d((1, 2, 2)), nn.Conv3d(6, 8, 3, padding=1), nn.ReLU()), 8),
            "third": (nn.Sequential(nn.Conv3d(8, 10, 3, stride=2, padding=1), nn.ReLU()), 10),
        }
        return StagedBackbone(blocks).eval()


def small_head(num_features: int = 10, seed: int = 1) -> nn.Linear:
    head = nn.Linear(num_features, 4)
    nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(seed))
    return head


def random_clips(seed: int = 2) -> Tensor:
    return torch.rand(2, 3, FRAMES, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


def scaled(heat: Tensor) -> Tensor:
    low, high = heat.amin(dim=(1, 2, 3), keepdim=True), heat.amax(dim=(1, 2, 3), keepdim=True)
    return (heat - low) / (high - low).clamp(min=1e-30)


@pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks")
@pytest.mark.parametrize("stage", ["first", "second", "third"])
def test_agrees_with_captum_if_averaging_over_time_changes_nothing(stage: str) -> None:
    backbone, head, clips, target = small_backbone(), small_head(), random_clips(), torch.tensor([2, 0])
    layer = LayerGradCam(nn.Sequential(backbone, head), backbone.get_submodule(stage))
    attribution = layer.attribute(clips, target, relu_attributions=True)
    expected = LayerAttribution.interpolate(attribution, (FRAMES, HEIGHT, WIDTH), "trilinear")[:, 0].detach()
    heat = grad_cam(backbone, head, clips, stage, target)
    assert torch.allclose(heat, scaled(expected), atol=1e-5) == (stage == "third")  # its gradient is constant


def test_weights_of_a_slice_are_the_effect_of_increasing_it() -> None:
    """The mean gradient over H, W is the change of the logit if a constant is added to one slice of one channel."""
    backbone, head, clip = small_backbone().double(), small_head().double(), random_clips()[:1].double()
    second, third = backbone.forward_stages(clip)["second"].detach(), backbone.get_submodule("third")
    weights = torch.empty(second.shape[1:3], dtype=torch.float64)
    step = 1e-6
    for channel, time in torch.cartesian_prod(*map(torch.arange, second.shape[1:3])).tolist():
        change = torch.zeros_like(second)
        change[:, channel, time] = step
        logits = [head(third(second + sign * change).mean(dim=(2, 3, 4)))[0, 3] for sign in (1, -1)]
        weights[channel, time] = (logits[0] - logits[1]) / (2 * step) / (second.shape[3] * second.shape[4])
    expected = (weights[None, :, :, None, None] * second).sum(dim=1, keepdim=True).relu()
    expected = F.interpolate(expected, (FRAMES, HEIGHT, WIDTH), mode="trilinear")[:, 0].detach()
    torch.testing.assert_close(grad_cam(backbone, head, clip, "second", 3), scaled(expected), atol=1e-4, rtol=0)


def test_finds_the_patch_that_increases_the_logit() -> None:
    identity = nn.Conv3d(3, 3, 1, bias=False)
    identity.weight.data.copy_(torch.eye(3)[..., None, None, None])
    backbone = StagedBackbone({"only": (identity, 3)}).eval()
    clip = torch.full((1, 3, FRAMES, HEIGHT, WIDTH), 0.1)
    clip[:, 1, 5, 3:9, 20:26] = 1.0  # green in frame 5, above and to the right
    heat = grad_cam(backbone, lambda features: features, clip, "only", target=1)
    assert heat[0, 5, 3:9, 20:26].min() == 1
    heat[0, 5, 3:9, 20:26] = 0
    assert heat.max() == 0


@pytest.mark.parametrize("name", ["c3d", "r3d", "r2plus1d", "s3dg"])
def test_heat_maps_have_the_clips_size_for_every_stage_of_every_backbone(name: str) -> None:
    backbone = create_backbone(name, width=0.125).eval()
    head = small_head(backbone.num_features)
    clips = torch.rand(2, 3, 16, 48, 64, generator=torch.Generator().manual_seed(0))
    for stage in backbone.stages:
        heat = grad_cam(backbone, head, clips, stage, 1)
        assert heat.shape == (2, 16, 48, 64)
        assert 0 <= heat.min() <= heat.max() <= 1
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert not clips.requires_grad


def test_heat_of_a_clip_does_not_depend_on_its_batch() -> None:
    backbone, head, clips = small_backbone(), small_head(), random_clips()
    together = grad_cam(backbone, head, clips, "second", 1)
    torch.testing.assert_close(together[1:], grad_cam(backbone, head, clips[1:], "second", 1), atol=1e-5, rtol=0)


def test_works_without_gradients_and_on_frozen_weights() -> None:
    backbone, head, clips = small_backbone(), small_head(), random_clips()
    expected = grad_cam(backbone, head, clips, "second", 1)
    backbone.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(grad_cam(backbone, head, clips, "second", 1), expected)


def test_no_positive_evidence_gives_zeros() -> None:
    backbone, clips = small_backbone(), random_clips()
    assert grad_cam(backbone, lambda features: -features, clips, "third", 0).max() == 0


def test_refuses_an_unknown_stage_a_training_backbone_and_a_bad_target() -> None:
    backbone, head, clips = small_backbone(), small_head(), random_clips()
    with pytest.raises(ValueError, match=r"no stage 'conv9'; it has: first, second, third"):
        grad_cam(backbone, head, clips, "conv9", 0)
    with pytest.raises(ValueError, match=r"target is \[4, 4\]; it must be from 0 to 3"):
        grad_cam(backbone, head, clips, "third", 4)
    with pytest.raises(ValueError, match=r"call backbone\.eval\(\)"):
        grad_cam(backbone.train(), head, clips, "third", 0)


def test_refuses_a_stage_that_is_a_copy() -> None:
    class CopiesItsStages(StagedBackbone):
        def forward_stages(self, clips: Tensor) -> dict[str, Tensor]:
            stages = super().forward_stages(clips)
            return {name: stage.clone() for name, stage in stages.items()}

    blocks: dict[str, tuple[nn.Module, int]] = {
        "first": (nn.Conv3d(3, 4, 3, padding=1), 4),
        "second": (nn.Conv3d(4, 10, 3, padding=1), 10),
    }
    with pytest.raises(ValueError, match=r"the logit does not depend on stage 'first'"):
        grad_cam(CopiesItsStages(blocks).eval(), small_head(), random_clips(), "first", 0)


def test_colours_get_lighter_with_heat() -> None:
    heat = torch.linspace(0, 1, 200).view(2, 10, 10)
    colours = overlay(torch.zeros(2, 10, 10, 3, dtype=torch.uint8), heat, opacity=1).view(-1, 3)
    luminance = colours.float() @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert (luminance.diff() >= -0.5).all()
    assert tuple(colours[0].tolist()) == INFERNO[0]
    assert tuple(colours[-1].tolist()) == INFERNO[-1]


def test_overlay_blends_frames_and_colours() -> None:
    frames = torch.randint(0, 256, (3, 4, 6, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(overlay(frames, torch.zeros(3, 4, 6), opacity=0), frames)
    half = overlay(frames, torch.zeros(3, 4, 6), opacity=0.5)
    assert (half[..., :2].int() * 2 - frames[..., :2].int()).abs().max() <= 1
    with pytest.raises(ValueError, match=r"clip torch\.uint8 \(3, 4, 6, 3\) and heat \(3, 6, 4\)"):
        overlay(frames, torch.zeros(3, 6, 4))


def test_contact_sheet_has_frames_above_heat_maps_from_left_to_right() -> None:
    frames = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 4, 6, 3)
    sheet = contact_sheet(frames, frames + 100)
    assert sheet.shape == (8, 18, 3)
    assert sheet[0, ::6, 0].tolist() == [0, 1, 2]
    assert sheet[4, ::6, 0].tolist() == [100, 101, 102]
    with pytest.raises(ValueError, match=r"two equal shapes"):
        contact_sheet(frames, frames[:2])
