"""Layers of a network in the form that a device computes right, or fast: the values are the same, up to rounding.

A network is written once, in plain layers. What a device's library does badly with one of them is put in another way
while it runs, whoever wrote the network. docs/log.md has what each form gains.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from v3s.backbones.layers import Triple, as_clips

_ALIGNED = 8  # channels that the matrix units of a GPU take at once in bf16
_FEW_CHANNELS = 4


class _ConvolutionCall(NamedTuple):
    """What ``F.conv3d`` is given."""

    clips: Tensor
    weight: Tensor
    bias: Tensor | None
    stride: Triple
    padding: Triple
    dilation: Triple
    groups: int


class _ConvolutionForm(TorchFunctionMode):
    """Within it, the 3D convolutions of ``nn.Conv3d`` run as :meth:`convolve` says; all else runs as it is."""

    def convolve(self, given: _ConvolutionCall) -> Tensor:
        """Give what ``F.conv3d`` gives."""
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Put a convolution in its form, and leave every other function alone."""
        if func is F.conv3d and len(args) == 7 and not isinstance(args[4], str):  # as nn.Conv3d calls it
            return self.convolve(_ConvolutionCall(*args))
        return func(*args, **(kwargs or {}))


class PadInTime(_ConvolutionForm):
    """Within it, 3D convolutions of few frames get their padding in time as zeros of the clip: the result is the same.

    On a CPU in bf16 the weight gradient of a convolution that pads few frames by itself holds uninitialised memory
    (oneDNN in torch 2.13, see docs/log.md): so it was for up to 7/3 times as many frames as are padded on a side. One
    frame whose kernel spans the padded clip, as in the last stages, is safe.
    """

    def convolve(self, given: _ConvolutionCall) -> Tensor:
        """Pad before."""
        clips, weight, (time, height, width) = given.clips, given.weight, given.padding
        frames, taps = clips.shape[2], weight.shape[2]
        if frames <= 3 * time and not (frames == 1 and taps == 2 * time + 1):
            given = given._replace(clips=F.pad(clips, (0, 0, 0, 0, time, time)), padding=(0, height, width))
        return F.conv3d(*given)


class FastOnGpu(_ConvolutionForm):
    """Within it, layers run in the form that is fast on an NVIDIA GPU in ``channels_last_3d``.

    - A convolution of few channels and stride 2 in space, as a network begins with, is :func:`convolve_blocks`.
    - While `torch.compile` traces, channels are padded to a multiple of 8 (:func:`convolve_aligned`). Outside, cuDNN
      does so itself, with a pass over memory for each convolution that needs it.
    """

    def convolve(self, given: _ConvolutionCall) -> Tensor:
        """Take the fast form, if there is one."""
        clips, weight, bias, stride, padding, dilation, groups = given
        if groups == 1 and tuple(dilation) == (1, 1, 1):
            if torch.compiler.is_compiling():
                return convolve_aligned(clips, weight, bias, stride, padding)
            if _in_blocks(weight, stride):
                return convolve_blocks(clips, weight, bias, stride, padding)
        return F.conv3d(*given)


def _in_blocks(weight: Tensor, stride: Triple) -> bool:
    """Whether :func:`convolve_blocks` takes a convolution."""
    return weight.shape[1] <= _FEW_CHANNELS and tuple(stride[1:]) == (2, 2)


def convolve_blocks(clips: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple, padding: Triple) -> Tensor:
    """Convolve few channels with stride 2 in height and width: as pictures of blocks of 2 x 2 pixels, with stride 1.

    The channels of a block's pixels, and those of the frames that the kernel spans, become channels of one picture:
    48 of 3, which fill the matrix units that 3 leave empty.

    Args:
        clips: shape (B, C, T, H, W).
        weight: shape (channels out, C, taps in time, in height, in width).
        bias: shape (channels out,), or ``None``.
        stride: in time, height and width; the latter two 2.
        padding: in time, height and width, on both sides.

    Returns:
        What ``F.conv3d`` gives, in ``channels_last_3d``.
    """
    if torch.is_autocast_enabled(clips.device.type):
        clips = clips.to(torch.get_autocast_dtype(clips.device.type))  # before it is copied, not after
    (top, bottom, *tall), (left, right, *wide) = (
        _to_blocks(clips.shape[axis], weight.shape[axis], padding[axis - 2]) for axis in (3, 4)
    )
    more = clips.shape[1] % 2  # so that a block has a multiple of 8 channels
    padded = F.pad(clips, (left, right, top, bottom, padding[0], padding[0], 0, more))
    batch, channels, length, height, width = padded.shape
    pixels = padded.permute(0, 2, 3, 4, 1).reshape(batch, length, height // 2, 2, width // 2, 2, channels)
    blocks = pixels.transpose(3, 4).reshape(batch, length, height // 2, width // 2, 4 * channels)
    taps = weight.shape[2]
    num_frames = (length - taps) // stride[0] + 1
    last = (num_frames - 1) * stride[0] + 1
    spanned = torch.cat([blocks[:, tap : tap + last : stride[0]] for tap in range(taps)], dim=-1)
    kernel = F.pad(weight, (*wide, *tall, 0, 0, 0, more))
    kernel = kernel.reshape(len(kernel), channels, taps, kernel.shape[3] // 2, 2, kernel.shape[4] // 2, 2)
    kernel = kernel.permute(0, 3, 5, 2, 4, 6, 1).flatten(3)  # the channels of a picture are (tap, row, column, channel)
    pictures = F.conv2d(spanned.flatten(0, 1).permute(0, 3, 1, 2), kernel.permute(0, 3, 1, 2), bias)
    return as_clips(pictures, batch)


def _to_blocks(size: int, taps: int, padding: int) -> tuple[int, int, int, int]:
    """How an axis of clips, and that of a kernel, are padded at both ends so that a stride of 2 becomes whole blocks.

    Output i looks from pixel 2 i - padding on: with an odd padding the kernel begins a pixel earlier, with a zero.
    """
    earlier = padding % 2
    num_blocks = (taps + earlier + 1) // 2
    num_outputs = (size + 2 * padding - taps) // 2 + 1
    before = padding + earlier
    return before, 2 * (num_outputs - 1 + num_blocks) - before - size, earlier, 2 * num_blocks - taps - earlier


def convolve_aligned(clips: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple, padding: Triple) -> Tensor:
    """Convolve with zeros added to the channels, those in and those out, up to a multiple of 8; none come out.

    The compiler writes the zeros with what the layer before computes, and skips them in the layer after.
    """
    num_out, num_in = weight.shape[:2]
    few = _in_blocks(weight, stride)
    more_out, more_in = -num_out % _ALIGNED, 0 if few else -num_in % _ALIGNED
    if more_in:
        clips = F.pad(clips, (0, 0, 0, 0, 0, 0, 0, more_in))
    if more_in or more_out:
        weight = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, more_in, 0, more_out))
    if bias is not None and more_out:
        bias = F.pad(bias, (0, more_out))
    convolved = (convolve_blocks if few else F.conv3d)(clips, weight, bias, stride, padding)
    return convolved[:, :num_out] if more_out else convolved
