"""Backbones by name and by reference: reproducible weights, and errors that state the fix."""

from pathlib import Path

import pytest
import torch
from torch import nn

from v3s.backbones import BACKBONES, create_backbone, import_backbone

OWN_BACKBONE = """
from torch import nn
from v3s.backbones import StagedBackbone

def sound():
    return StagedBackbone({"only": (nn.Conv3d(3, 5, 3), 5)}, clip_frames=4, clip_size=12)

def broken():
    return StagedBackbone({"only": (nn.Conv3d(3, 5, 3), 6)}, clip_frames=4, clip_size=12)
"""


@pytest.mark.parametrize("name", BACKBONES)
def test_weights_depend_only_on_the_seed(name: str) -> None:
    torch.manual_seed(5)
    first = create_backbone(name, 0.25, seed=3).state_dict()
    torch.manual_seed(6)
    second = create_backbone(name, 0.25, seed=3).state_dict()
    other = create_backbone(name, 0.25, seed=4).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    drawn = [key for key, value in first.items() if value.ndim > 1]
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_global_random_state_is_unchanged(name: str) -> None:
    state = torch.get_rng_state()
    create_backbone(name, 0.25)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_second_filter_over_time_responds_only_to_change(name: str) -> None:
    over_time = [
        module
        for module in create_backbone(name, 0.25).modules()
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1
    ]
    assert over_time
    for module in over_time:
        still = module.weight.detach().sum(dim=2).abs().amax(dim=(1, 2, 3))  # the response to identical frames
        assert float(still[::2].max()) < 1e-5
        assert float(still[1::2].min()) > 1e-3


@pytest.mark.parametrize("name", BACKBONES)
def test_filters_over_change_have_the_variance_of_the_others(name: str) -> None:
    """Subtracting their mean over time removes 1 / taps of the variance, which is restored."""
    large = [
        module
        for module in create_backbone(name, 0.5).modules()
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1 and module.weight.numel() > 20_000
    ]
    assert large
    for module in large:
        expected = (2 / (module.out_channels * module.weight[0, 0].numel())) ** 0.5
        for filters in (module.weight[::2], module.weight[1::2]):
            assert float(filters.detach().std()) == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("name", BACKBONES)
def test_initial_values(name: str) -> None:
    for module in create_backbone(name, 0.5).modules():
        if isinstance(module, nn.Conv3d):
            fan_out = module.out_channels * module.weight[0, 0].numel()
            assert float(module.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.Linear):
            assert float(module.weight.detach().std()) == pytest.approx(0.01, rel=0.15)
            assert not module.bias.any()
        if isinstance(module, nn.BatchNorm3d):
            assert module.running_mean is not None
            assert module.running_var is not None
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.running_var, torch.ones_like(module.running_var))
            assert not module.bias.any()
            assert not module.running_mean.any()


@pytest.mark.parametrize(("name", "meant"), [("R3D", "r3d"), ("r2plus1", "r2plus1d"), ("R(2+1)D", "r2plus1d")])
def test_unknown_name_gets_the_closest(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {meant!r}.*c3d, r3d, r2plus1d, s3dg, r3d18, r2plus1d18"):
        create_backbone(name)


def test_unknown_name_like_no_other() -> None:
    with pytest.raises(ValueError, match=r"^no backbone is called 'xyz'; available: c3d"):
        create_backbone("xyz")


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module on the import path; returns its name."""
    (tmp_path / "own_backbone_for_tests.py").write_text(OWN_BACKBONE)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_backbone_for_tests"


def test_import_backbone(own_module: str) -> None:
    assert import_backbone(f"{own_module}:sound").num_features == 5


def test_import_backbone_checks_what_it_imports(own_module: str) -> None:
    with pytest.raises(ValueError, match="requires \\(2, 6, t, h, w\\)"):
        import_backbone(f"{own_module}:broken")


def test_import_backbone_names_a_missing_function(own_module: str) -> None:
    with pytest.raises(ValueError, match=f"{own_module}.py has no function 'absent'"):
        import_backbone(f"{own_module}:absent")


@pytest.mark.parametrize("reference", ["r3d", "package.module:", ":factory"])
def test_import_backbone_wants_a_reference(reference: str) -> None:
    with pytest.raises(ValueError, match=r"use the form 'package\.module:factory'"):
        import_backbone(reference)


def test_import_backbone_names_a_missing_package() -> None:
    with pytest.raises(ValueError, match=r"No module named 'no_such_package'.*PYTHONPATH"):
        import_backbone("no_such_package.networks:build")
