"""Networks made ready for inference on a CPU: batch normalisation becomes part of the convolutions before it.

In evaluation mode batch normalisation is one multiplication and one addition a channel, which the convolution's weights
and bias can hold. These are oneDNN's convolutions, by the operator of torch.compile, with weights that are rounded and
laid out once and not in every pass; torch's own go round oneDNN in fp32 for small clips and in one thread, which is
slower. ReLU stays a layer of its own: oneDNN's makes NaN 0, which would hide damaged weights.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from v3s.backbones import StagedBackbone
from v3s.train.device import Compute


@torch.no_grad()
def fold(backbone: nn.Module, compute: Compute) -> nn.Module:
    """A network that gives the same stages in less time, but no gradients.

    Args:
        backbone: in evaluation mode, on ``compute.device``. It stays as it is.
        compute: device and precision.

    Returns:
        A copy with folded convolutions; on a GPU, or without oneDNN, the network itself. So is a network that is no
        :class:`StagedBackbone`: its forward pass may take what lies between a convolution and its normalisation.
    """
    if not (isinstance(backbone, StagedBackbone) and _has_onednn(compute)):
        return backbone
    folded = copy.deepcopy(backbone)
    _fold_within(folded, torch.bfloat16 if compute.bf16 else torch.float32)
    return folded


class FoldedConvolution(nn.Module):
    """A convolution and the batch normalisation behind it.

    Args:
        convolution: its padding is zeros, and given as numbers.
        normalisation: with running statistics.
        dtype: of the weights and of the output.
    """

    def __init__(self, convolution: nn.Conv3d, normalisation: nn.BatchNorm3d, dtype: torch.dtype):
        super().__init__()
        folded = fuse_conv_bn_eval(convolution, normalisation)
        assert folded.bias is not None
        self.weight = folded.weight.detach().to(dtype)
        self.bias, self.dtype = folded.bias.detach(), dtype
        self.geometry = folded.padding, folded.stride, folded.dilation, folded.groups
        self.packed_for: tuple[torch.Size, int] | None = None  # the best layout depends on both

    def forward(self, clips: Tensor) -> Tensor:
        """Map ``(B, num_in, T, H, W)`` to what the two layers make of it."""
        clips = clips.to(self.dtype, memory_format=torch.channels_last_3d)
        if self.packed_for != (case := (clips.shape, torch.get_num_threads())):
            pack: Callable[..., Tensor] = torch._C._nn.mkldnn_reorder_conv3d_weight
            self.packed = pack(self.weight.contiguous().to_mkldnn(), *self.geometry, clips.shape)
            self.packed_for = case
        convolve = torch.ops.mkldnn._convolution_pointwise
        found: Tensor = convolve(clips, self.packed, self.bias, *self.geometry, "none", [], "")
        return found

    def __getstate__(self) -> dict[str, Any]:
        """All but the packed weights, which can be neither copied nor pickled."""
        return {**self.__dict__, "packed": None, "packed_for": None}


def _has_onednn(compute: Compute) -> bool:
    if compute.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return not compute.bf16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _fold_within(module: nn.Module, dtype: torch.dtype) -> None:
    """Put a folded chain in place of every chain of layers in a module, at any depth."""
    for name, child in module.named_children():
        chain = nn.Sequential(*_fold_layers(list(_layers(child)), dtype)) if type(child) is nn.Sequential else child
        setattr(module, name, chain)
        _fold_within(chain, dtype)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of a chain of chains, one after another."""
    if type(module) is not nn.Sequential:
        yield module
        return
    for child in module:
        yield from _layers(child)


def _fold_layers(layers: list[nn.Module], dtype: torch.dtype) -> Iterator[nn.Module]:
    """Fold where normalisation directly follows a convolution; other layers stay as they are."""
    while layers:
        layer, following = layers.pop(0), layers[0] if layers else None
        if type(layer) is nn.Conv3d and type(following) is nn.BatchNorm3d and _can_fold(layer, following):
            yield FoldedConvolution(layer, following, dtype)
            del layers[0]
        else:
            yield layer


def _can_fold(convolution: nn.Conv3d, normalisation: nn.BatchNorm3d) -> bool:
    padded_with_zeros = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
    return padded_with_zeros and normalisation.running_mean is not None
