"""Frames and one map to a clip: the only resampling in the project.

Every clip is read from its source frames once, whatever was composed into its map, so that no class of the pretext
task carries the blur of a second resampling. Where the map shrinks, several samples are averaged for each output pixel.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from v3s.video.homography import FloatArray, Homography, scale

MAX_SAMPLES = 4  # an output pixel averages at most 4 x 4 samples: enough for 1080p to 112


def warp(
    frames: Tensor, to_output: Homography, height: int, width: int, *, antialias: bool = True, blur: float = 0.0
) -> Tensor:
    """Sample every frame once through one map.

    Args:
        frames: uint8, shape (T, C, H, W).
        to_output: the map from source pixels to output pixels.
        height: of the output, in pixels.
        width: of the output, in pixels.
        antialias: average a grid of samples for each output pixel where the map shrinks the source.
        blur: side, in output pixels, of the square about each output pixel that is averaged; up to 1 it is the pixel's
            own square.

    Returns:
        uint8, shape (C, T, height, width). Output pixels that fall outside the source repeat its border.

    Convention: the centre of the output pixel in row i and column j is (j + 0.5, i + 0.5).
    """
    to_source = to_output.inverse()
    samples_x, samples_y = _samples(to_source, height, width, max(1.0, blur)) if antialias else (1, 1)
    grid_height, grid_width = height * samples_y, width * samples_x
    centres = _centres(grid_height, grid_width) / np.array([samples_x, samples_y])
    if blur > 1:
        own = np.floor(centres) + 0.5
        centres = own + (centres - own) * blur
    points = to_source(centres)
    left, top, window = _cut(frames, points)
    size = np.array([window.shape[-1], window.shape[-2]])
    lookup = torch.from_numpy((points - [left, top]) / size * 2 - 1).to(torch.float32)
    planes = window.flatten(0, 1).to(torch.float32)[None]
    sampled = F.grid_sample(planes, lookup[None], padding_mode="border", align_corners=False)
    if samples_x * samples_y > 1:
        sampled = F.avg_pool2d(sampled, (samples_y, samples_x))
    num_frames, channels = frames.shape[:2]
    return sampled[0].round_().to(torch.uint8).view(num_frames, channels, height, width).transpose(0, 1)


def to_width(width: int, height: int, most: int) -> tuple[Homography, int, int]:
    """The map that shrinks a frame to at most ``most`` pixels of width, with its new height and width."""
    shrink = min(1.0, most / width)
    return scale(shrink, shrink), max(1, round(shrink * height)), max(1, round(shrink * width))


def _centres(height: int, width: int) -> FloatArray:
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x, y], axis=-1)


def _samples(to_source: Homography, height: int, width: int, blur: float) -> tuple[int, int]:
    """How many samples across and down an output pixel averages: one for each source pixel that its square covers.

    Measured at the output's middle: one number for the whole clip keeps the filter the same across it.
    """
    x, y = width / 2, height / 2
    across = to_source([[x - 0.5, y], [x + 0.5, y]])
    down = to_source([[x, y - 0.5], [x, y + 0.5]])
    shrink_x = float(np.linalg.norm(across[1] - across[0]))
    shrink_y = float(np.linalg.norm(down[1] - down[0]))
    return _whole(shrink_x, blur), _whole(shrink_y, blur)


def _whole(shrink: float, blur: float) -> int:
    if blur == 1:
        return min(MAX_SAMPLES, max(1, math.ceil(shrink - 0.3)))
    return max(math.ceil(blur), min(math.ceil(blur * MAX_SAMPLES), math.ceil(blur * shrink)))


def _cut(frames: Tensor, points: FloatArray) -> tuple[int, int, Tensor]:
    """The part of the frames that the points touch, with its corner: what lies outside need not be converted."""
    height, width = frames.shape[-2:]
    low = np.floor(points.min(axis=(0, 1)) - 1).astype(int)
    high = np.ceil(points.max(axis=(0, 1)) + 1).astype(int)
    left, right = np.clip([low[0], high[0]], 0, width)
    top, bottom = np.clip([low[1], high[1]], 0, height)
    left, top = min(int(left), width - 1), min(int(top), height - 1)
    right, bottom = max(int(right), left + 1), max(int(bottom), top + 1)
    return left, top, frames[:, :, top:bottom, left:right]
