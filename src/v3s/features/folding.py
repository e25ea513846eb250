"""Faster inference: batch normalisation is folded into the convolution before it.

In evaluation mode, batch normalisation is one multiplication and one addition per channel, which can be absorbed by the
weights and the bias of the convolution.
"""

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from v3s.backbones import StagedBackbone


@torch.no_grad()
def fold(backbone: nn.Module) -> nn.Module:
    """Return a faster copy of a network in evaluation mode with the same stages, up to rounding.

    A network that is not a :class:`StagedBackbone` is returned unchanged, since its forward pass may use the tensor
    between a convolution and its normalisation.
    """
    if not isinstance(backbone, StagedBackbone):
        return backbone
    folded = copy.deepcopy(backbone)
    _fold_within(folded)
    return folded


def _fold_within(module: nn.Module) -> None:
    """Replace every chain of layers in a module by a folded chain, at any depth."""
    for name, child in module.named_children():
        chain = nn.Sequential(*_fold_layers(list(_layers(child)))) if type(child) is nn.Sequential else child
        setattr(module, name, chain)
        _fold_within(chain)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of nested chains in order."""
    if type(module) is not nn.Sequential:
        yield module
        return
    for child in module:
        yield from _layers(child)


def _fold_layers(layers: list[nn.Module]) -> Iterator[nn.Module]:
    """Fold each normalisation that directly follows a convolution; other layers are unchanged."""
    while layers:
        layer, following = layers.pop(0), layers[0] if layers else None
        if type(layer) is nn.Conv3d and isinstance(following, nn.BatchNorm3d) and following.running_mean is not None:
            yield fuse_conv_bn_eval(layer, following)
            del layers[0]
        else:
            yield layer
