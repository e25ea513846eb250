"""How bright a video is: one that is dark or flat throughout decodes as well as any, and shows nothing."""

from collections.abc import Sequence

import numpy as np

from v3s.video.frames import ColourSpace

EVERY = 64  # frames between two that are looked at, beside some of the first
_ROWS, _COLUMNS = 3, 5  # every third row and every fifth column are counted: no pattern of a picture repeats by both
_SMALL = 64  # pixels: of a picture with a shorter side all are counted
OUTLIERS = 1e-4  # the share of pixels, darkest and brightest, that does not count: a sensor's hot ones
DARK = 24  # of 255: a picture that is never brighter than this shows nothing to the eye
FLAT = 3  # of 255: a picture whose brightest and darkest values are nearer than this has one colour

_STRETCHED = np.clip(np.round((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.int64)


class Brightness:
    """Counts the values of a few frames of one video, 0 to 255: brightness, or red, green and blue."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), np.int64)
        self._num_seen = 0

    @staticmethod
    def looks_at(number: int) -> bool:
        """Whether a frame is one of those that are looked at."""
        return number % EVERY == 0 or (number < EVERY and number & (number - 1) == 0)

    def add(self, planes: Sequence[np.ndarray], colour: ColourSpace | None) -> None:
        """Count the values of a frame, as shown: limited range (16 to 235) is stretched.

        Args:
            planes: Of its first group: Y, or R, G and B; uint8, shape (height, width).
            colour: Of the frame; ``None`` for RGB.
        """
        for counts, plane in zip(self._counts, planes, strict=False):
            if min(plane.shape) >= _SMALL:
                plane = plane[self._num_seen % _ROWS :: _ROWS, self._num_seen % _COLUMNS :: _COLUMNS]
            found = np.bincount(plane.ravel(), minlength=256)
            if colour and not colour.full:
                found = np.bincount(_STRETCHED, weights=found, minlength=256).astype(np.int64)
            counts += found
        self._num_seen += 1

    def remark(self) -> str | None:
        """What is unusual about the video; ``None`` if nothing is."""
        channels = self._counts[self._counts.any(axis=1)]
        if not len(channels):
            return None
        sums = channels.cumsum(axis=1)
        ends = [np.searchsorted(row, [row[-1] * OUTLIERS, row[-1] * (1 - OUTLIERS)], side="right") for row in sums]
        darkest, brightest = np.minimum(np.array(ends), 255).T
        most = int(brightest.max())
        if (brightest - darkest).max() < FLAT:
            return "black throughout" if most < FLAT else "one colour throughout"
        return f"nearly black: its brightest value is {most} of 255" if most <= DARK else None
