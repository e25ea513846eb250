"""The layers after the convolutions of all networks: batch normalisation and ReLU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Triple = tuple[int, int, int]  # time, height, width


class BatchNorm(nn.BatchNorm3d):
    """Batch normalisation of clips; on a GPU, all frames are processed as one batch of pictures.

    The values are the same, but torch has channels-last kernels only for four dimensions, not for five.
    """

    def forward(self, clips: Tensor) -> Tensor:
        """Map ``(B, C, T, H, W)`` to the same shape."""
        super()._check_input_dim(clips)
        if not is_fast_as_pictures(clips):
            return super().forward(clips)
        pictures = super().forward(clips.transpose(1, 2).flatten(0, 1))
        return as_clips(pictures, len(clips))

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        """Accept pictures: the shape of the clips was checked before."""


class ReLU(nn.ReLU):
    """ReLU in place, except on a GPU after :class:`BatchNorm`: there it would copy the view of pictures."""

    def forward(self, clips: Tensor) -> Tensor:
        """Map any shape to the same shape."""
        return F.relu(clips, inplace=not is_fast_as_pictures(clips))


def is_fast_as_pictures(clips: Tensor) -> bool:
    """Whether clips are on a GPU in a memory layout in which their frames form a batch of pictures without a copy."""
    return clips.is_cuda and clips.is_contiguous(memory_format=torch.channels_last_3d)


def as_clips(pictures: Tensor, num_clips: int) -> Tensor:
    """View pictures of shape (B * T, C, H, W) as clips of shape (B, C, T, H, W), without a copy."""
    return pictures.view(num_clips, -1, *pictures.shape[1:]).transpose(1, 2)


def normalised(num_channels: int) -> tuple[BatchNorm, ReLU]:
    """Make the layers that follow a convolution."""
    return BatchNorm(num_channels), ReLU()
