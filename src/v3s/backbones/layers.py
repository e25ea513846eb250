"""The layers that all networks repeat after a convolution: batch normalisation and ReLU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Triple = tuple[int, int, int]  # time, height, width


class BatchNorm(nn.BatchNorm3d):
    """Batch normalisation of clips; on a GPU, of their frames as one batch of pictures.

    The values are the same, but torch has kernels for channels last in four dimensions, not in five.
    """

    def forward(self, clips: Tensor) -> Tensor:
        """Map ``(B, C, T, H, W)`` to the same shape."""
        super()._check_input_dim(clips)
        if not is_fast_as_pictures(clips):
            return super().forward(clips)
        pictures = super().forward(clips.transpose(1, 2).flatten(0, 1))
        return as_clips(pictures, len(clips))

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        """Let pictures pass: what is given was looked at before."""


class ReLU(nn.ReLU):
    """ReLU in place; but not on a GPU after :class:`BatchNorm`, whose view of pictures that would copy."""

    def forward(self, clips: Tensor) -> Tensor:
        """Map any shape to the same."""
        return F.relu(clips, inplace=not is_fast_as_pictures(clips))


def is_fast_as_pictures(clips: Tensor) -> bool:
    """Whether clips lie where, and as, frames are one batch of pictures without a copy."""
    return clips.is_cuda and clips.is_contiguous(memory_format=torch.channels_last_3d)


def as_clips(pictures: Tensor, num_clips: int) -> Tensor:
    """Pictures of shape (B * T, C, H, W) as clips of shape (B, C, T, H, W), without a copy."""
    return pictures.view(num_clips, -1, *pictures.shape[1:]).transpose(1, 2)


def normalised(num_channels: int) -> tuple[BatchNorm, ReLU]:
    """Make what follows a convolution."""
    return BatchNorm(num_channels), ReLU()
