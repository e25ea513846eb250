"""Networks made ready for inference: batch normalisation becomes part of the convolution before it.

In evaluation mode batch normalisation is one multiplication and one addition a channel, which the convolution's weights
and bias can hold.
"""

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from v3s.backbones import StagedBackbone


@torch.no_grad()
def fold(backbone: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode that gives the same stages, up to rounding, in less time.

    A network that is not a :class:`StagedBackbone` is returned as it is: its forward pass may use what is between a
    convolution and its normalisation.
    """
    if not isinstance(backbone, StagedBackbone):
        return backbone
    folded = copy.deepcopy(backbone)
    _fold_within(folded)
    return folded


def _fold_within(module: nn.Module) -> None:
    """Put a folded chain in place of every chain of layers in a module, at any depth."""
    for name, child in module.named_children():
        chain = nn.Sequential(*_fold_layers(list(_layers(child)))) if type(child) is nn.Sequential else child
        setattr(module, name, chain)
        _fold_within(chain)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of a chain of chains, one after another."""
    if type(module) is not nn.Sequential:
        yield module
        return
    for child in module:
        yield from _layers(child)


def _fold_layers(layers: list[nn.Module]) -> Iterator[nn.Module]:
    """Fold where normalisation directly follows a convolution; other layers stay as they are."""
    while layers:
        layer, following = layers.pop(0), layers[0] if layers else None
        if type(layer) is nn.Conv3d and isinstance(following, nn.BatchNorm3d) and following.running_mean is not None:
            yield fuse_conv_bn_eval(layer, following)
            del layers[0]
        else:
            yield layer
