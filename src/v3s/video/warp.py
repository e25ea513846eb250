"""Frames and one map to a clip: the only resampling in the project.

Every clip is read from its source frames once, whatever was composed into its map, so that no class of the pretext
task carries the blur of a second resampling. A map is the same for all frames of a clip: where samples lie, and their
weights, are computed once. On a CPU :mod:`v3s.video.kernel` does it where the extra ``fast`` is installed; elsewhere,
and on a GPU, torch does.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from v3s.video.frames import ColourSpace, Frames, subsampling, to_rgb
from v3s.video.homography import FloatArray, Homography, corners, scale

MAX_SAMPLES = 4  # an output pixel averages at most 4 x 4 samples: enough for 1080p to 112
_COVERED = 1.4  # source pixels that one bilinear sample stands for

Samples = tuple[int, int]
"""How many samples across and down an output pixel averages, spread evenly over it."""


def warp(
    frames: Frames | Tensor,
    to_output: Homography,
    height: int,
    width: int,
    *,
    samples: Samples | None = None,
    blur: float = 0.0,
) -> Tensor:
    """Sample every frame once through one map.

    Args:
        frames: the source; also an RGB tensor, uint8 of shape (T, 3, H, W).
        to_output: the map from source pixels to output pixels.
        height: of the output, in pixels.
        width: of the output, in pixels.
        samples: how many an output pixel averages; by default :func:`samples_for` this map.
        blur: side, in output pixels, of the square about each output pixel that is averaged; up to 1 it is the pixel's
            own square. Its samples lie no further apart.

    Returns:
        uint8 RGB, shape (3, T, height, width). Output pixels that fall outside the source repeat its border.

    Convention: the centre of the output pixel in row i and column j is (j + 0.5, i + 0.5).
    """
    if isinstance(frames, Tensor):
        frames = Frames((frames,), None)
    samples = blurred_samples(samples or samples_for(to_output, height, width), blur)
    kernel = _kernel() if frames.planes[0].device.type == "cpu" else None
    if kernel is None:
        alone = Frames(tuple(plane[None] for plane in frames.planes), frames.colour)
        return warp_batch(alone, [to_output], height, width, samples=samples, blurs=[blur])[0]
    to_source = to_output.inverse()
    (left, top), (right, bottom) = _ends(to_source, height, width, blur)
    parts, maps, numbers = [], [], []
    for plane in frames.planes:
        tall, wide = subsampling(frames.planes[0], plane)
        columns = _touched(left / wide, right / wide, plane.shape[-1])
        rows = _touched(top / tall, bottom / tall, plane.shape[-2])
        parts.append(kernel.frames_innermost(plane[..., rows, columns].numpy()))
        maps.append(_to_plane(tall, wide, rows.start, columns.start) @ to_source.matrix)
        numbers.append(_fewer(samples, tall, wide))
    to_parts, side = np.stack(maps).astype(np.float32), np.float32(max(1.0, blur))
    colours = np.eye(3, 4) if frames.colour is None else np.array(frames.colour.to_rgb())
    clip = np.empty((3, height, width, len(frames)), np.uint8)
    kernel.sample_clip(tuple(parts), to_parts, np.array(numbers), side, colours.astype(np.float32), clip)
    return torch.from_numpy(clip).permute(0, 3, 1, 2)


def warp_batch(
    frames: Frames,
    to_output: Sequence[Homography],
    height: int,
    width: int,
    *,
    samples: Samples,
    blurs: Sequence[float] | None = None,
    compiled: bool = False,
) -> Tensor:
    """Warp many clips at once, each through its own map, on the device where their frames are: meant for a GPU.

    Args:
        frames: planes of shape (B, T, channels, H, W).
        to_output: B maps from source pixels to output pixels.
        height: of the output, in pixels.
        width: of the output, in pixels.
        samples: how many an output pixel averages, those of the blurs included (:func:`blurred_samples`).
        blurs: of each clip, as :func:`warp` takes it.
        compiled: let `torch.compile` make one kernel of all that is done to the pixels.

    Returns:
        uint8 RGB, shape (B, 3, T, height, width), on the same device: :func:`warp` of each clip, up to rounding.
    """
    first = frames.planes[0]
    to_source = np.stack([one.inverse().matrix for one in to_output])
    sides = torch.tensor([max(1.0, side) for side in blurs or [1.0] * len(to_output)])
    sides = sides.to(first.device, non_blocking=True)
    maps, grids = [], []
    for plane in frames.planes:
        tall, wide = subsampling(first, plane)
        maps.append(_on(first.device, _to_plane(tall, wide) @ to_source))
        grids.append(_grid(height, width, *_fewer(samples, tall, wide), first.device))
    sample = _compiled_sampling() if compiled else _sample_pictures
    clips = sample(frames.planes, maps, grids, sides, frames.colour)
    return clips.view(*clips.shape[:3], height, width)


def samples_for(to_output: Homography, height: int, width: int) -> Samples:
    """How many samples an output pixel averages: across and down, enough for the source pixels that it covers.

    Measured at the output's middle: one number for the whole clip keeps the filter the same across it.
    """
    to_source, x, y = to_output.inverse(), width / 2, height / 2
    across = to_source([[x - 0.5, y], [x + 0.5, y]])
    down = to_source([[x, y - 0.5], [x, y + 0.5]])
    shrink_x = float(np.linalg.norm(across[1] - across[0]))
    shrink_y = float(np.linalg.norm(down[1] - down[0]))
    return _whole(shrink_x), _whole(shrink_y)


def blurred_samples(samples: Samples, blur: float) -> Samples:
    """How many samples a blurred pixel averages, so that they lie no further apart than those of a sharp one."""
    across, down = samples
    return math.ceil(max(1.0, blur) * across), math.ceil(max(1.0, blur) * down)


def to_width(width: int, height: int, most: int) -> tuple[Homography, int, int]:
    """The map that shrinks a frame to at most ``most`` pixels of width, with its new height and width."""
    shrink = min(1.0, most / width)
    return scale(shrink, shrink), max(1, round(shrink * height)), max(1, round(shrink * width))


def _whole(shrink: float) -> int:
    return min(MAX_SAMPLES, max(1, math.ceil(shrink / _COVERED)))


def numba_version() -> str | None:
    """Of the extra ``fast``; ``None`` where it is not installed."""
    return version("numba") if find_spec("numba") else None


@lru_cache(maxsize=1)
def _kernel() -> ModuleType | None:
    """What does the same on a CPU in less than half the time; ``None`` where the extra ``fast`` is not installed."""
    return import_module("v3s.video.kernel") if numba_version() else None


@lru_cache(maxsize=1)
def _compiled_sampling() -> Callable[..., Tensor]:
    return torch.compile(_sample_pictures)


@lru_cache(maxsize=16)
def _grid(height: int, width: int, across: int, down: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The samples of all output pixels: their pixels' centres as (x, y), and how far from them each one lies.

    Both float32 of shape (2, pixels, samples of a pixel).
    """
    column, row = np.arange(width)[None, :, None, None] + 0.5, np.arange(height)[:, None, None, None] + 0.5
    right, below = ((np.arange(number) + 0.5) / number - 0.5 for number in (across, down))
    whole = np.zeros((height, width, down, across))
    centres, offsets = (
        np.stack([(whole + axis).reshape(height * width, -1) for axis in axes]).astype(np.float32)
        for axes in ((column, row), (right, below[:, None]))
    )
    return torch.from_numpy(centres).to(device), torch.from_numpy(offsets).to(device)


def _to_plane(tall: int, wide: int, top: int = 0, left: int = 0) -> FloatArray:
    """From the source to part of a plane, smaller by these factors: (0, 0) is the *centre* of the first sample."""
    return np.array([[1 / wide, 0.0, -left - 0.5], [0.0, 1 / tall, -top - 0.5], [0.0, 0.0, 1.0]])


def _fewer(samples: Samples, tall: int, wide: int) -> Samples:
    """How many of a pixel's samples are left in a plane that is smaller by these factors."""
    across, down = samples
    return math.ceil(across / wide), math.ceil(down / tall)


def _ends(to_source: Homography, height: int, width: int, blur: float) -> list[list[float]]:
    """The least and the largest x and y in the source that an output looks at.

    A projective map takes straight lines to straight lines, so the extremes of a rectangle's image are at its corners.
    """
    beyond = max(0.0, blur - 1) / 2
    ends = to_source(corners(width + 2 * beyond, height + 2 * beyond) - beyond)
    return [ends.min(axis=0).tolist(), ends.max(axis=0).tolist()]


def _touched(low: float, high: float, length: int) -> slice:
    """The samples of a line that bilinear looks between two places touch; places beyond its ends are moved to them."""
    first, last = (int(min(max(place - 0.5, 0), length - 1)) for place in (low, high))
    return slice(first, min(last + 2, length))


def _on(device: torch.device, maps: FloatArray) -> Tensor:
    return torch.from_numpy(maps).to(device, torch.float32, non_blocking=True)


def _places(plane: Tensor, to_plane: Tensor, grid: tuple[Tensor, Tensor], sides: Tensor) -> Tensor:
    """Where the samples of every output pixel lie in a plane.

    Args:
        plane: its shape ends in (H, W).
        to_plane: B maps from output pixels to the samples of the plane, float32 of shape (B, 3, 3).
        grid: the samples of all output pixels, as :func:`_grid` gives them.
        sides: of the square that each map's samples are spread over, in output pixels, float32 of shape (B,).

    Returns:
        float32, shape (B, 2, pixels, samples of a pixel): columns and rows, none outside the plane.
    """
    centres, offsets = grid
    spread = torch.addcmul(centres, sides[:, None, None, None], offsets)
    # Not a matrix product: its last bit depends on where in memory the matrices lie.
    x, y, one = to_plane[..., None, None].unbind(2)
    points = (x * spread[:, :1]).addcmul_(y, spread[:, 1:]).add_(one)
    places = points[:, :2].div_(points[:, 2:])
    places[:, 0].clamp_(0, plane.shape[-1] - 1)
    places[:, 1].clamp_(0, plane.shape[-2] - 1)
    return places


def _sample_pictures(
    planes: Sequence[Tensor],
    maps: Sequence[Tensor],
    grids: Sequence[tuple[Tensor, Tensor]],
    sides: Tensor,
    colour: ColourSpace | None,
) -> Tensor:
    """Warp clips in torch: every frame is a channel of a picture, which is sampled at one set of places.

    Args:
        planes: uint8, shape (B, T, channels, H, W).
        maps: of each plane, as :func:`_places` takes them.
        grids: of each plane, likewise.
        sides: likewise.
        colour: of the planes.

    Returns:
        uint8 RGB, shape (B, 3, T, output pixels).
    """
    channels: list[Tensor] = []
    for plane, to_plane, grid in zip(planes, maps, grids, strict=True):
        height, width = plane.shape[-2:]
        column, row = _places(plane, to_plane, grid, sides).unbind(1)
        # grid_sample counts from -1, the centre of the first sample, to 1, that of the last one.
        places = torch.stack([column * (2 / max(1, width - 1)) - 1, row * (2 / max(1, height - 1)) - 1], dim=-1)
        for pictures in plane.to(torch.float32).unbind(2):
            channels.append(F.grid_sample(pictures, places, padding_mode="border", align_corners=True).mean(-1))
    return torch.stack(to_rgb(channels, colour), dim=1)
