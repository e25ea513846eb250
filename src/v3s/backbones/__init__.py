"""Backbones by name, and a user's own by reference; what each promises is in ``contract``."""

import importlib
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from v3s.backbones.c3d import c3d
from v3s.backbones.contract import Backbone, StagedBackbone, check_backbone
from v3s.backbones.resnet3d import r2plus1d, r2plus1d18, r3d, r3d18
from v3s.backbones.s3dg import s3dg
from v3s.options import closest

__all__ = ["BACKBONES", "Backbone", "StagedBackbone", "check_backbone", "create_backbone", "import_backbone"]

BACKBONES: dict[str, Callable[[float], StagedBackbone]] = {
    "c3d": c3d,
    "r3d": r3d,
    "r2plus1d": r2plus1d,
    "s3dg": s3dg,
    "r3d18": r3d18,
    "r2plus1d18": r2plus1d18,
}

_GATE_STD = 0.01  # every gate starts near 1/2


def create_backbone(name: str, width: float = 1.0, *, seed: int = 0) -> StagedBackbone:
    """Build a backbone on the CPU with random weights that depend on ``seed`` and on nothing else.

    Convolutions are drawn from a normal distribution that keeps the gradient's variance through ReLU (He, fan-out; as
    torchvision's video networks), biases are 0, batch normalisation starts as the identity. From every second filter of
    a convolution over time its mean over time is taken: it answers to change alone. Filters that are all drawn freely
    answer to what stands still, which swamps what moves: no temporal label was learned from them (docs/log.md). The
    global random state is neither read nor changed.

    Args:
        name: one of ``BACKBONES``.
        width: multiplier of all numbers of channels; 1.0 is the paper's network.
        seed: seed of the weights.

    Raises:
        ValueError: the name is unknown, or the width is not positive.
    """
    if name not in BACKBONES:
        hint = closest(name, BACKBONES)
        raise ValueError(f"no backbone is called {name!r}{hint}; there are: {', '.join(BACKBONES)}")
    with torch.device("meta"):  # shapes only: nothing is drawn from the global generator
        network = BACKBONES[name](width)
    network.to_empty(device="cpu")
    _initialise(network, torch.Generator().manual_seed(seed))
    return network


def import_backbone(reference: str) -> Backbone:
    """Import a user's own backbone and check it. This runs the code of the named module.

    Args:
        reference: ``package.module:factory``; the factory is called without arguments and returns the backbone.

    Raises:
        ValueError: the reference cannot be followed, or its backbone breaks a promise of :class:`Backbone`.
    """
    module_name, _, factory_name = reference.partition(":")
    if not module_name or not factory_name:
        raise ValueError(f"{reference!r} given; a reference to a backbone reads 'package.module:factory'")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"{reference!r}: {error}; install the package or put its folder on PYTHONPATH") from error
    if not callable(factory := getattr(module, factory_name, None)):
        raise ValueError(f"{reference!r}: {module.__file__} has no function {factory_name!r}")
    network = factory()
    check_backbone(network)
    assert isinstance(network, Backbone)
    return network


def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Fill all parameters and buffers of a network of convolutions, batch normalisations and gates."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            _fill(module, math.sqrt(2 / fan_out), generator)
            _see_change(module)
        elif isinstance(module, nn.Linear):
            _fill(module, _GATE_STD, generator)
        elif isinstance(module, nn.BatchNorm3d):
            module.reset_parameters()
        else:
            assert not list(module.parameters(recurse=False)), f"no initialisation for {type(module).__name__}"


@torch.no_grad()
def _see_change(convolution: nn.Conv3d) -> None:
    """Take the mean over time from every second filter of a convolution over time, and keep its variance."""
    if (taps := convolution.kernel_size[0]) > 1:
        filters = convolution.weight[::2]
        filters -= filters.mean(dim=2, keepdim=True)
        filters *= math.sqrt(taps / (taps - 1))


def _fill(module: nn.Conv3d | nn.Linear, std: float, generator: torch.Generator) -> None:
    """Draw the weight, and set the bias to 0."""
    nn.init.normal_(module.weight, std=std, generator=generator)
    if isinstance(module.bias, Tensor):
        nn.init.zeros_(module.bias)
