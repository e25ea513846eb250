"""Backbones by name, and your own by reference; ``contract`` defines the interface of a backbone."""

import importlib
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from v3s.backbones.c3d import c3d
from v3s.backbones.contract import Backbone, StagedBackbone, check_backbone
from v3s.backbones.normalisation import Normalisation
from v3s.backbones.resnet3d import r2plus1d, r2plus1d18, r3d, r3d18
from v3s.backbones.s3dg import s3dg
from v3s.options import closest

__all__ = [
    "BACKBONES",
    "Backbone",
    "Normalisation",
    "StagedBackbone",
    "check_backbone",
    "create_backbone",
    "import_backbone",
]

BACKBONES: dict[str, Callable[[float], StagedBackbone]] = {
    "c3d": c3d,
    "r3d": r3d,
    "r2plus1d": r2plus1d,
    "s3dg": s3dg,
    "r3d18": r3d18,
    "r2plus1d18": r2plus1d18,
}

MAX_WIDTH = 16
"""R3D has 33 million parameters at width 1, and 8.5 billion at this width."""

_GATE_STD = 0.01  # so that every gate starts near 1/2


def create_backbone(name: str, width: float = 1.0, *, seed: int = 0) -> StagedBackbone:
    """Build a backbone on the CPU with random weights that depend only on ``seed``.

    Convolutions are drawn from a normal distribution that preserves the variance of gradients through ReLU (He,
    fan-out; as in torchvision's video networks). Biases are 0, and batch normalisation starts as the identity. Every
    second filter of a convolution over time has its mean over time subtracted, so that it responds only to change.
    Without this, filters mostly respond to static content, which drowns out motion, and no temporal label was learned
    (docs/log.md, "Why the temporal head learned nothing"). The global random state is neither read nor changed.

    Args:
        name: one of ``BACKBONES``.
        width: factor for all numbers of channels; 1.0 is the network of the paper.
        seed: seed of the weights.

    Raises:
        ValueError: the name is unknown, or the width is out of range.
    """
    check_name(name, width)
    with torch.device("meta"):  # shapes only: nothing is drawn from the global generator
        network = BACKBONES[name](width)
    network.to_empty(device="cpu")
    _initialise(network, torch.Generator().manual_seed(seed))
    return network


def check_name(name: str, width: float) -> None:
    """Refuse a network that does not exist, or would not fit into any memory.

    Raises:
        ValueError: the name is unknown, or the width is out of range.
    """
    if name not in BACKBONES:
        hint = closest(name.replace("(2+1)", "2plus1"), BACKBONES)  # papers write R(2+1)D
        raise ValueError(f"no backbone is called {name!r}{hint}; available: {', '.join(BACKBONES)}")
    if not 0 < width <= MAX_WIDTH:
        raise ValueError(f"width is {width:g}; it must be more than 0 and at most {MAX_WIDTH}")


def import_backbone(reference: str) -> Backbone:
    """Import your own backbone and check it. This runs the code of the module.

    Args:
        reference: ``package.module:factory``; the factory takes no arguments and returns the backbone.

    Raises:
        ValueError: the reference cannot be resolved, or its backbone violates the contract of :class:`Backbone`.
    """
    module_name, _, factory_name = reference.partition(":")
    if not module_name or not factory_name:
        raise ValueError(f"{reference!r} is not a reference to a backbone; use the form 'package.module:factory'")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"{reference!r}: {error}; install the package or add its folder to PYTHONPATH") from error
    if not callable(factory := getattr(module, factory_name, None)):
        raise ValueError(f"{reference!r}: {module.__file__} has no function {factory_name!r}")
    network = factory()
    check_backbone(network)
    assert isinstance(network, Backbone)
    return network


def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Initialise all parameters and buffers of a network of convolutions, batch normalisations and gates."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            _fill(module, math.sqrt(2 / fan_out), generator)
            _respond_to_change(module)
        elif isinstance(module, nn.Linear):
            _fill(module, _GATE_STD, generator)
        elif isinstance(module, nn.BatchNorm3d):
            module.reset_parameters()
        else:
            assert not list(module.parameters(recurse=False)), f"no initialisation for {type(module).__name__}"


@torch.no_grad()
def _respond_to_change(convolution: nn.Conv3d) -> None:
    """Subtract the mean over time from every second filter of a convolution over time, and restore its variance."""
    if (taps := convolution.kernel_size[0]) > 1:
        filters = convolution.weight[::2]
        filters -= filters.mean(dim=2, keepdim=True)
        filters *= math.sqrt(taps / (taps - 1))


def _fill(module: nn.Conv3d | nn.Linear, std: float, generator: torch.Generator) -> None:
    """Draw the weight, and set the bias to 0."""
    nn.init.normal_(module.weight, std=std, generator=generator)
    if isinstance(module.bias, Tensor):
        nn.init.zeros_(module.bias)
