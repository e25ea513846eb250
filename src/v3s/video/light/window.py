"""The window of deep pictures: which of their values become black and white, the same for all frames of a file.

A camera of 12 bits that is stored as 16 would come out black if the whole range became 0 to 255.
"""

import math
from functools import lru_cache

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

_BITS = (9, 10, 12, 14, 16)
DEEP = {
    **{f"{kind}{bits}{end}": bits for kind in ("gray", "gbrp") for bits in _BITS for end in ("le", "be")},
    **{f"{kind}{end}": 16 for kind in ("rgb48", "rgba64", "ya16") for end in ("le", "be")},
}
"""Bits of a channel, by FFmpeg's names of the deep formats that have a window: greys and RGB, whose values are those
of a sensor. Those of YUV have their range by a standard."""

_TAIL = 1e-3  # the share of all values, the darkest, that becomes black; the same share of the brightest becomes white

ValueWindow = tuple[float, float]
"""The value that becomes 0, and the one that becomes 255."""


class ValueCounts:
    """Counts the values of all frames of one deep video."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] | None = None

    def add(self, frame: VideoFrame) -> None:
        """Count the values of a frame; those of a format that has no window are not counted."""
        if bits := DEEP.get(frame.format.name):
            found = np.bincount(values_of(frame).ravel(), minlength=1 << bits)
            self._counts = found if self._counts is None else self._counts + found

    def window(self) -> ValueWindow | None:
        """The window between the percentiles 0.1 and 99.9 of all values; ``None`` if nothing was counted.

        Where nearly all values are equal it is between the least and the greatest one.
        """
        if self._counts is None:
            return None
        total = self._counts.cumsum()
        ends = np.searchsorted(total, [total[-1] * _TAIL, total[-1] * (1 - _TAIL)], side="right")
        if ends[0] == ends[1]:
            ends = np.flatnonzero(self._counts)[[0, -1]]
        return float(ends[0]), float(ends[1])


def parse_window(choice: str) -> ValueWindow | None:
    """The two values of a choice "LOW,HIGH"; ``None`` for "auto" and "full".

    >>> parse_window("100,900")
    (100.0, 900.0)

    Raises:
        ValueError: It is none of them.
    """
    if choice in ("auto", "full"):
        return None
    try:
        low, high = map(float, choice.split(","))
        if -math.inf < low < high < math.inf:
            return low, high
    except ValueError:
        pass
    raise ValueError(f"window is {choice!r}; give auto, full, or two values as LOW,HIGH, such as 100,900")


def choose_window(choice: str, pixel_format: str, measured: ValueWindow | None) -> ValueWindow | None:
    """The window of a file.

    Args:
        choice: "auto" for the measured one, "full" for all values that the format can have, or "LOW,HIGH".
        pixel_format: FFmpeg's name of it.
        measured: Of all its frames.

    Returns:
        ``None`` for a format that has no window.
    """
    if pixel_format not in DEEP or choice == "auto":
        return measured
    return parse_window(choice) or (0.0, float((1 << DEEP[pixel_format]) - 1))


def shown(frame: VideoFrame, window: ValueWindow | None) -> VideoFrame:
    """A frame with 8 bits: "gray" or "rgb24" if it has a window, else as it is."""
    if window is None or frame.format.name not in DEEP:
        return frame
    levels: NDArray[np.uint8] = _levels(window, DEEP[frame.format.name])[values_of(frame)]
    return VideoFrame.from_ndarray(levels, format="gray" if levels.ndim == 2 else "rgb24")


def window_text(window: ValueWindow) -> str:
    """A window in words."""
    return f"values from {window[0]:g} to {window[1]:g} are shown as black to white"


@lru_cache(maxsize=8)
def _levels(window: ValueWindow, bits: int) -> NDArray[np.uint8]:
    """The 8-bit level of every value."""
    low, high = window
    share = (np.arange(1 << bits) - low) / max(high - low, 1e-9)
    levels: NDArray[np.uint8] = np.floor(np.clip(share, 0, 1) * 255 + 0.5).astype(np.uint8)
    return levels


def values_of(frame: VideoFrame) -> NDArray[np.uint16]:
    """The values of a deep frame: shape (height, width), or (height, width, 3) for colour."""
    if frame.format.name.startswith("ya16"):
        frame = frame.reformat(format="gray16le")
    values = frame.to_ndarray().astype(np.uint16, copy=False)
    return values if values.ndim == 2 else values[..., :3]
