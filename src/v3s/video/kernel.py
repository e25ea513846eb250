"""The warp of one clip on a CPU, in one pass over its pixels: compiled by Numba, the extra ``fast``.

Frames lie innermost, so that one place in all frames is a run of bytes: its weights are computed once, and the
processor's vectors run over frames. Where Numba is not installed, :mod:`v3s.video.warp` does the same in torch.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Sums keep their order, so that a clip's pixels do not depend on how many frames it has.
_OPTIONS: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy", "nogil": True}
_f = np.float32


def _kept(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a function once for a machine; where the result cannot be kept, once for each process."""
    try:
        compiled = njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # there is no folder for it
        return njit(**_OPTIONS)(function)  # type: ignore[no-any-return]

    @wraps(function)
    def call(*arguments: Any) -> None:
        try:
            compiled(*arguments)
        except OSError:  # the disk is full; it is compiled all the same
            compiled(*arguments)

    return call


@njit(inline="always", **_OPTIONS)
def _place_line(to_plane, y, right, height, width, corners, weights):  # type: ignore[no-untyped-def]
    """Where one sample of every pixel of a line lies, its four taps' weights, and the first tap's number."""
    for column in range(len(corners)):
        x = _f(column) + _f(0.5) + right
        depth = to_plane[2, 0] * x + to_plane[2, 1] * y + to_plane[2, 2]
        across = (to_plane[0, 0] * x + to_plane[0, 1] * y + to_plane[0, 2]) / depth
        down = (to_plane[1, 0] * x + to_plane[1, 1] * y + to_plane[1, 2]) / depth
        across = min(max(across, _f(0)), _f(width - 1))
        down = min(max(down, _f(0)), _f(height - 1))
        left, top = min(np.int32(across), max(width - 2, 0)), min(np.int32(down), max(height - 2, 0))
        corners[column] = top * width + left
        across -= _f(left)
        down -= _f(top)
        weights[0, column] = (_f(1) - down) * (_f(1) - across)
        weights[1, column] = (_f(1) - down) * across
        weights[2, column] = down * (_f(1) - across)
        weights[3, column] = down * across


@njit(inline="always", **_OPTIONS)
def _add_line(pixels, right, below, corners, weights, share, line):  # type: ignore[no-untyped-def]
    """Add one sample of every pixel of a line, times its share, for all frames."""
    for column in range(len(corners)):
        # Without a sign, Numba does not look for numbers that count from the end.
        corner = np.uintp(corners[column])
        first, second = pixels[corner], pixels[corner + np.uintp(right)]
        third, fourth = pixels[corner + np.uintp(below)], pixels[corner + np.uintp(below + right)]
        a, b = share * weights[0, column], share * weights[1, column]
        c, d = share * weights[2, column], share * weights[3, column]
        total = line[column]
        for frame in range(len(total)):
            total[frame] += a * _f(first[frame]) + b * _f(second[frame]) + c * _f(third[frame]) + d * _f(fourth[frame])


@njit(inline="always", **_OPTIONS)
def _finish_line(one, two, three, row, line):  # type: ignore[no-untyped-def]
    """One colour of a line, rounded to the nearest."""
    shift = row[3] + _f(0.5)
    for place in range(len(line)):
        value = row[0] * one[place] + row[1] * two[place] + row[2] * three[place] + shift
        line[place] = np.uint8(np.int32(min(max(value, _f(0)), _f(255))))


def frames_innermost(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """From shape (T, channels, H, W) to (channels, H, W, T), contiguous."""
    num_frames, channels, height, width = plane.shape
    if num_frames % 8:
        return np.ascontiguousarray(plane.transpose(1, 2, 3, 0))
    words = np.empty((channels, height, width, num_frames // 8), np.uint64)
    _gather_words(plane, words)
    return words.view(np.uint8)


@_kept
def _gather_words(plane, words):  # type: ignore[no-untyped-def]
    """One place in eight frames is a word: its bytes are shifted together for a line of places at a time."""
    channels, height, width, num_words = words.shape
    pair = np.empty((2, width), np.uint64)
    for channel in range(channels):
        for row in range(height):
            line = words[channel, row]
            for first in range(0, num_words, 2):
                for number in range(min(2, num_words - first)):
                    for column in range(width):
                        word = np.uint64(0)
                        for byte in range(8):
                            value = plane[8 * (first + number) + byte, channel, row, column]
                            word |= np.uint64(value) << np.uint64(8 * byte)
                        pair[number, column] = word
                # Vectors can write two words side by side, but not single words with gaps between them.
                if first + 1 < num_words:
                    for column in range(width):
                        line[column, first] = pair[0, column]
                        line[column, first + 1] = pair[1, column]
                else:
                    line[:, first] = pair[0]


@_kept
def sample_clip(planes, maps, samples, side, colours, clip):  # type: ignore[no-untyped-def]
    """Sample planes at the places of every output pixel, and make red, green and blue of them.

    Args:
        planes: a tuple of uint8 arrays of shape (channels, H, W, T), contiguous, three channels in all.
        maps: from output pixels to the samples of each plane, whose centres are whole numbers; float32 of shape
            (planes, 3, 3).
        samples: of an output pixel in each plane, across and down, int64 of shape (planes, 2).
        side: of the square that a pixel's samples are spread over, in output pixels, float32.
        colours: rows of the affine map from the channels and 1, each 0..255, to R, G and B, float32 of shape (3, 4).
        clip: where to write, uint8 of shape (3, height, width, T).
    """
    _, height, width, num_frames = clip.shape
    lines = np.empty((3, width, num_frames), np.float32)
    corners, weights = np.empty(width, np.int32), np.empty((4, width), np.float32)
    for row in range(height):
        lines[:] = 0
        channel = 0
        for number in range(len(planes)):
            plane = planes[number]
            num_channels, tall, wide, _ = plane.shape
            right, below = min(1, wide - 1), wide * min(1, tall - 1)
            across, down = samples[number]
            for i in range(down):
                y = _f(row) + _f(0.5) + side * ((_f(i) + _f(0.5)) / _f(down) - _f(0.5))
                for j in range(across):
                    x = side * ((_f(j) + _f(0.5)) / _f(across) - _f(0.5))
                    _place_line(maps[number], y, x, tall, wide, corners, weights)
                    for k in range(num_channels):
                        pixels = plane[k].reshape(tall * wide, num_frames)
                        _add_line(pixels, right, below, corners, weights, _f(1) / _f(across * down), lines[channel + k])
            channel += num_channels
        one, two, three = lines[0].ravel(), lines[1].ravel(), lines[2].ravel()
        for colour in range(3):
            _finish_line(one, two, three, colours[colour], clip[colour, row].ravel())
