"""Parameter counts of the backbones (paper Table 2; the four exact trunks and the two modern twins)."""

import pytest
import torch

from v3s.backbones import BACKBONES

TRUNKS = {
    "c3d": 27_661_440,
    "r3d": 14_361_792,
    "r2plus1d": 14_365_303,
    "s3dg": 9_125_072,
    "r3d18": 33_166_272,
    "r2plus1d18": 31_300_125,
}


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_backbone_has_a_count() -> None:
    assert TRUNKS.keys() == BACKBONES.keys()


@pytest.mark.parametrize("name", TRUNKS)
def test_trunk(name: str) -> None:
    with torch.device("meta"):
        assert num_parameters(BACKBONES[name](1.0)) == TRUNKS[name]


def test_r2plus1d_with_a_ucf101_head_is_the_papers_14_4_million() -> None:
    with torch.device("meta"):
        network = BACKBONES["r2plus1d"](1.0)
        total = num_parameters(network) + num_parameters(torch.nn.Linear(network.num_features, 101))
    assert total == 14_417_116
    assert round(total / 1e6, 1) == 14.4


# torchvision publishes these totals for its networks with a head of 400 classes.
@pytest.mark.parametrize(("name", "published"), [("r3d18", 33_371_472), ("r2plus1d18", 31_505_325)])
def test_twins_with_a_kinetics_head_have_torchvisions_counts(name: str, published: int) -> None:
    with torch.device("meta"):
        network = BACKBONES[name](1.0)
        assert num_parameters(network) + num_parameters(torch.nn.Linear(network.num_features, 400)) == published


def test_a_gate_is_a_square_linear_map() -> None:
    with torch.device("meta"):
        network = BACKBONES["s3dg"](1.0)
    gates = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    assert len(gates) == 1 + 9 * 4
    assert all(gate.in_features == gate.out_features for gate in gates)
