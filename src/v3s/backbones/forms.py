"""Equivalent forms of layers that a device computes correctly, or faster; values are equal up to rounding.

A network is written once, with plain layers. If a device's library handles a layer badly, the layer is replaced by an
equivalent form while the network runs, including networks of your own. The gain of each form: docs/log.md, "The first
GPU" and "bf16 training on a CPU without AMX, mended".
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from v3s.backbones.layers import Triple, as_clips

_ALIGNED = 8  # number of bf16 channels that the matrix units of a GPU process at once
_FEW_CHANNELS = 4


class _ConvolutionCall(NamedTuple):
    """The arguments of ``F.conv3d``."""

    clips: Tensor
    weight: Tensor
    bias: Tensor | None
    stride: Triple
    padding: Triple
    dilation: Triple
    groups: int


class _ConvolutionForm(TorchFunctionMode):
    """A context in which :meth:`convolve` computes the convolutions of ``nn.Conv3d``; all else is unchanged."""

    def convolve(self, call: _ConvolutionCall) -> Tensor:
        """Compute the result of ``F.conv3d``."""
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace 3D convolutions, and call every other function unchanged."""
        if func is F.conv3d and len(args) == 7 and not isinstance(args[4], str):  # as nn.Conv3d calls it
            return self.convolve(_ConvolutionCall(*args))
        return func(*args, **(kwargs or {}))


class PadInTime(_ConvolutionForm):
    """A context in which clips of few frames are padded in time before 3D convolutions; results are the same.

    On a CPU in bf16, the weight gradient of a convolution that itself pads few frames contains uninitialised memory
    (oneDNN in torch 2.13; docs/log.md, "bf16 training on a CPU without AMX, mended"). This was observed for up
    to 7/3 times as many frames as are padded on a side. One frame whose kernel spans the padded clip, as in the last
    stages, is safe.
    """

    def convolve(self, call: _ConvolutionCall) -> Tensor:
        """Pad first, then convolve."""
        clips, weight, (time, height, width) = call.clips, call.weight, call.padding
        frames, taps = clips.shape[2], weight.shape[2]
        if frames <= 3 * time and not (frames == 1 and taps == 2 * time + 1):
            call = call._replace(clips=F.pad(clips, (0, 0, 0, 0, time, time)), padding=(0, height, width))
        return F.conv3d(*call)


class FastOnGpu(_ConvolutionForm):
    """A context in which convolutions use the form that is fast on an NVIDIA GPU in ``channels_last_3d``.

    - A convolution of few channels with stride 2 in space, as at the start of a network, uses :func:`convolve_blocks`.
    - While `torch.compile` traces, channels are padded to a multiple of 8 (:func:`convolve_aligned`). Otherwise cuDNN
      pads them itself, with an additional pass over memory for each such convolution.
    """

    def convolve(self, call: _ConvolutionCall) -> Tensor:
        """Use the fast form, if there is one."""
        clips, weight, bias, stride, padding, dilation, groups = call
        if groups == 1 and tuple(dilation) == (1, 1, 1):
            if torch.compiler.is_compiling():
                return convolve_aligned(clips, weight, bias, stride, padding)
            if _in_blocks(weight, stride):
                return convolve_blocks(clips, weight, bias, stride, padding)
        return F.conv3d(*call)


def _in_blocks(weight: Tensor, stride: Triple) -> bool:
    """Whether a convolution should use :func:`convolve_blocks`."""
    return weight.shape[1] <= _FEW_CHANNELS and tuple(stride[1:]) == (2, 2)


def convolve_blocks(clips: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple, padding: Triple) -> Tensor:
    """Convolve few channels with stride 2 in height and width, as pictures of 2 x 2 pixel blocks with stride 1.

    The channels of all pixels of a block, in all frames that the kernel spans, become channels of one picture. For
    example, 3 channels become 48, which make full use of the matrix units.

    Args:
        clips: shape (B, C, T, H, W).
        weight: shape (channels out, C, taps in time, in height, in width).
        bias: shape (channels out,), or ``None``.
        stride: in time, height and width; the latter two 2.
        padding: in time, height and width, on both sides.

    Returns:
        The result of ``F.conv3d``, in ``channels_last_3d``.
    """
    if torch.is_autocast_enabled(clips.device.type):
        clips = clips.to(torch.get_autocast_dtype(clips.device.type))  # before the copies below, to halve them
    (top, bottom, *kernel_rows), (left, right, *kernel_columns) = (
        _to_blocks(clips.shape[axis], weight.shape[axis], padding[axis - 2]) for axis in (3, 4)
    )
    extra = clips.shape[1] % 2  # makes the number of channels of a block a multiple of 8
    padded = F.pad(clips, (left, right, top, bottom, padding[0], padding[0], 0, extra))
    batch, channels, length, height, width = padded.shape
    pixels = padded.permute(0, 2, 3, 4, 1).reshape(batch, length, height // 2, 2, width // 2, 2, channels)
    blocks = pixels.transpose(3, 4).reshape(batch, length, height // 2, width // 2, 4 * channels)
    taps = weight.shape[2]
    num_frames = (length - taps) // stride[0] + 1
    last = (num_frames - 1) * stride[0] + 1
    spanned = torch.cat([blocks[:, tap : tap + last : stride[0]] for tap in range(taps)], dim=-1)
    kernel = F.pad(weight, (*kernel_columns, *kernel_rows, 0, 0, 0, extra))
    kernel = kernel.reshape(len(kernel), channels, taps, kernel.shape[3] // 2, 2, kernel.shape[4] // 2, 2)
    kernel = kernel.permute(0, 3, 5, 2, 4, 6, 1).flatten(3)  # channels of a picture: (tap, row, column, channel)
    pictures = F.conv2d(spanned.flatten(0, 1).permute(0, 3, 1, 2), kernel.permute(0, 3, 1, 2), bias)
    return as_clips(pictures, batch)


def _to_blocks(size: int, taps: int, padding: int) -> tuple[int, int, int, int]:
    """Return how to pad an axis of clips, then of a kernel, at both ends so that a stride of 2 becomes whole blocks.

    Output i starts at pixel 2 i - padding. With odd padding, the kernel gets a leading zero and starts a pixel earlier.
    """
    earlier = padding % 2
    num_blocks = (taps + earlier + 1) // 2
    num_outputs = (size + 2 * padding - taps) // 2 + 1
    before = padding + earlier
    return before, 2 * (num_outputs - 1 + num_blocks) - before - size, earlier, 2 * num_blocks - taps - earlier


def convolve_aligned(clips: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple, padding: Triple) -> Tensor:
    """Convolve with input and output channels padded with zeros to multiples of 8; the output has no padding.

    The compiler writes the zeros together with the output of the previous layer, and skips them in the next layer.
    """
    num_out, num_in = weight.shape[:2]
    few = _in_blocks(weight, stride)
    extra_out, extra_in = -num_out % _ALIGNED, 0 if few else -num_in % _ALIGNED
    if extra_in:
        clips = F.pad(clips, (0, 0, 0, 0, 0, 0, 0, extra_in))
    if extra_in or extra_out:
        weight = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, extra_in, 0, extra_out))
    if bias is not None and extra_out:
        bias = F.pad(bias, (0, extra_out))
    convolved = (convolve_blocks if few else F.conv3d)(clips, weight, bias, stride, padding)
    return convolved[:, :num_out] if extra_out else convolved
