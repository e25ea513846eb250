"""Overlays: pixels that are not of the scene, such as text, a scale or a logo, and are blanked before anything looks.

A place that never changes, or that a picture names, becomes black in every frame. Nothing of it reaches a clip.
"""

import hashlib
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from v3s.video.container import VideoError
from v3s.video.frames import ColourSpace
from v3s.video.light.brightness import DARK
from v3s.video.orientation import AS_STORED, orientation_of
from v3s.video.stills.folder import is_picture, read_picture

Blanked = NDArray[np.bool_]
"""Which pixels of an upright picture are blanked: shape (height, width)."""

_EVERY = 8  # frames between two that are compared
_FEWEST = 8  # compared frames: fewer may agree by chance
_STILL = 4  # of 255: a pixel whose values lie no further apart never changes; codecs change still ones by this much
MOST_STILL = 0.25  # of the pixels that are not dark: where more never change, the scene itself is still
_AROUND, _FEWEST_AROUND = 2, 5  # of the 5 x 5 pixels around one of an overlay, at least 5 never change
_WHITE = 128  # of 255: a mask picture's pixels from here on are blanked
_ASPECT = 0.02  # by which the shapes of a mask and of a frame may differ: sizes are rounded
_MOST_PIXELS = 1 << 28

_NEEDED = "give auto, none, or a picture whose white pixels are blanked"


class StillPixels:
    """Finds the pixels of one video that never change.

    The rule: of every eighth frame of the file, the least and the greatest value of each pixel are kept (brightness; of
    RGB all three). A pixel never changes if they lie at most 4 of 255 apart. It is dark if it is never brighter than
    24: dark ones, such as black bars, are black already and do not count. What never changes is an overlay, without
    single pixels, if it is at most a quarter of all that is not dark. Otherwise the scene itself is still, as in a
    video of one picture, and there is no overlay. Nor is there one where fewer than eight frames are compared.
    """

    def __init__(self) -> None:
        self._low = self._high = np.zeros((0, 0, 0), np.uint8)
        self._num_seen = 0
        self._colour: ColourSpace | None = None

    @staticmethod
    def looks_at(number: int) -> bool:
        """Whether a frame is one of those that are compared."""
        return number % _EVERY == 0

    def add(self, planes: list[NDArray[np.generic]], colour: ColourSpace | None) -> None:
        """Compare a frame with those before.

        Args:
            planes: Y, or R, G and B, or grey; shape (height, width) each.
            colour: Of the frame; ``None`` for RGB and grey.
        """
        if not self._num_seen:
            self._low, self._high, self._colour = np.stack(planes), np.stack(planes), colour
        elif len(planes) != len(self._low) or colour != self._colour or planes[0].dtype != self._low.dtype:
            self._low, self._high = np.zeros_like(self._low), np.full_like(self._high, np.iinfo(self._high.dtype).max)
        else:
            for low, high, plane in zip(self._low, self._high, planes, strict=True):
                np.minimum(low, plane, out=low)
                np.maximum(high, plane, out=high)
        self._num_seen += 1

    def found(self, window: tuple[float, float] | None = None) -> tuple[float, Blanked | None]:
        """What never changes: its share of the pixels that are not dark, 0 to 1, and the overlay.

        Args:
            window: Which values of a deep picture are shown as black and white.

        Returns:
            As stored, not upright; no overlay if there is none.
        """
        limited = self._colour is not None and not self._colour.full
        black, white = window or ((16.0, 235.0) if limited else (0.0, 255.0))
        level = (white - black) / 255
        is_lit, is_still = (
            np.asarray((self._high > int(black + DARK * level)).any(axis=0)),
            np.asarray((self._high - self._low <= int(_STILL * level)).all(axis=0)),
        )
        is_still &= is_lit
        share = is_still.sum() / max(1.0, float(is_lit.sum())) if self._num_seen >= _FEWEST else 0.0
        if not 0 < share <= MOST_STILL:
            return share, None
        height, width = is_still.shape
        rows, columns = (np.arange(length)[:, None] + [-_AROUND, _AROUND + 1] for length in (height, width))
        overlay = is_still & (_counts(is_still, rows.clip(0, height), columns.clip(0, width)) >= _FEWEST_AROUND)
        return share, overlay if overlay.any() else None


def read_mask(choice: str | None) -> str | None:
    """What a choice asks for, as text that needs no other file.

    Args:
        choice: "auto", "none", the file of a picture whose white pixels (128 to 255, as a viewer shows them: turned by
            EXIF, and none where it is transparent) are blanked, or what this function returned.

    Returns:
        ``None`` for "none" or none, "auto", or the pixels of the picture as :func:`mask_to_text` writes them.

    Raises:
        ValueError: There is no such file, it is no picture, or it blanks all pixels or none.
    """
    if choice in (None, "none", "auto"):
        return "auto" if choice == "auto" else None
    assert choice is not None
    if ":" in choice and choice.partition(":")[0].replace("x", "", 1).isdecimal():
        text_to_mask(choice)
        return choice
    if not Path(choice).is_file():
        raise ValueError(f"mask {choice} is not a file; {_NEEDED}")
    if not is_picture(choice):
        raise ValueError(f"mask {choice} does not have the name of a picture (PNG, JPEG or TIFF); {_NEEDED}")
    try:
        levels = _levels(read_picture(Path(choice), f"mask {choice}"))
    except VideoError as error:
        raise ValueError(f"{error}; {_NEEDED}") from error
    if levels.min() >= _WHITE or levels.max() < _WHITE:
        least, most = levels.min(), levels.max()
        which = f"every pixel: its darkest is {least}" if least >= _WHITE else f"no pixel: its brightest is {most}"
        raise ValueError(f"mask {choice} blanks {which} of 255; white pixels, 128 to 255, are blanked")
    return mask_to_text(levels >= _WHITE)


def _levels(picture: VideoFrame) -> NDArray[np.uint8]:
    """How bright a picture is where it is not transparent, 0 to 255, upright: (height, width)."""
    opaque = picture.to_ndarray(format="rgba")[..., 3] >= _WHITE
    levels = np.asarray(picture.to_ndarray(format="gray"), np.uint8) * opaque
    return (orientation_of(picture) or AS_STORED).upright(levels)


def require_mask(mask: str | None) -> None:
    """Check that a mask is one that :func:`read_mask` returns; no file is read.

    Raises:
        ValueError: It is not.
    """
    if mask not in (None, "auto"):
        assert mask is not None
        text_to_mask(mask)


def mask_to_text(blanked: Blanked) -> str:
    """Width x height, then lengths of runs along the lines: kept, blanked, kept and so on.

    >>> mask_to_text(np.array([[False, True, True], [True, False, False]]))
    '3x2:1,3,2'
    """
    flat = blanked.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate([[0] if flat[0] else [], changes, [flat.size]]).astype(np.int64)
    return f"{blanked.shape[1]}x{blanked.shape[0]}:{','.join(map(str, np.diff(ends, prepend=0).tolist()))}"


@lru_cache(maxsize=16)
def text_to_mask(text: str) -> Blanked:
    """The inverse of :func:`mask_to_text`.

    Raises:
        ValueError: It is not such a text.
    """
    size, _, listed = text.partition(":")
    try:
        width, height = map(int, size.split("x"))
        runs = np.array(list(map(int, listed.split(","))), np.int64)
    except (ValueError, OverflowError):
        width = height = 0
        runs = np.zeros(1, np.int64)
    if (
        not 0 < width * height <= _MOST_PIXELS
        or width < 1
        or (runs < 0).any()
        or (runs > _MOST_PIXELS).any()
        or runs.sum() != width * height
    ):
        shown = text if len(text) < 80 else f"{text[:80]}..."
        raise ValueError(f"mask is {shown!r}; {_NEEDED}")
    blanked = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    blanked.flags.writeable = False
    return blanked


def check_mask(text: str, width: int, height: int) -> None:
    """Check that a mask fits frames of this size: it is stretched over them, so it has their shape.

    Raises:
        ValueError: It has another one, or nothing is left; the message does not name the video.
    """
    mask = text_to_mask(text)
    tall, wide = mask.shape
    if abs(math.log(width * tall / (height * wide))) > _ASPECT:
        raise ValueError(f"has frames of {width}x{height}; the mask is {wide}x{tall}, of another shape")
    if _stretched(text, height, width).all():
        raise ValueError(f"has frames of {width}x{height}, of which the mask blanks every pixel")


def blank(planes: list[list[np.ndarray]], text: str, colour: ColourSpace | None) -> list[list[np.ndarray]]:
    """Make the blanked pixels of a picture black.

    A sample of a smaller plane is blanked if any pixel that it covers is.

    Args:
        planes: [[Y], [U, V]], or [[R, G, B]], upright; they stay as they are.
        text: The mask.
        colour: How they make RGB; ``None`` for RGB.

    Returns:
        Copies of the planes.
    """
    blacks = [0] if colour is None else [0 if colour.full else 16, 128]
    return [
        [np.where(_stretched(text, *plane.shape), np.uint8(black), plane) for plane in group]
        for group, black in zip(planes, blacks, strict=True)
    ]


def mask_text(text: str | None) -> str:
    """A mask in words: those of two masks differ, since they end with the beginning of the text's SHA-256."""
    if text is None or text == "auto":
        return text or "none"
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"a picture of {text.partition(':')[0]} that blanks {blanked_share(text):.2%} (SHA-256 {digest})"


def blanked_share(text: str) -> float:
    """The share of the picture that a mask blanks, from 0 to 1."""
    return float(text_to_mask(text).mean())


@lru_cache(maxsize=32)
def _stretched(text: str, height: int, width: int) -> Blanked:
    """A mask on a plane of another size: a sample is blanked if any part of what it covers is."""
    mask = text_to_mask(text)
    if mask.shape == (height, width):
        return mask
    ends = [
        np.stack([np.arange(new) * old // new, -(-np.arange(1, new + 1) * old // new)], axis=1)
        for old, new in zip(mask.shape, (height, width), strict=True)
    ]
    stretched = _counts(mask, *ends) > 0
    stretched.flags.writeable = False
    return stretched


def _counts(mask: Blanked, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many pixels of each rectangle are set; first and last + 1 of its rows and columns, (n, 2) each."""
    sums = np.pad(mask.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32), ((1, 0), (1, 0)))
    (top, bottom), (left, right) = rows.T, columns.T
    counts: NDArray[np.int64] = (sums[bottom] - sums[top])[:, right] - (sums[bottom] - sums[top])[:, left]
    return counts
