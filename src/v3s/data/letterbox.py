"""Detect the constant borders of a video, which a projection would turn into slanted edges."""

import numpy as np
import torch
from torch import Tensor

from v3s.data.index_table import IndexTable
from v3s.pretext.plan import NO_BARS, Bars, Picture, Sampling, middle_crop
from v3s.video.decode import Span, Video, read_frames
from v3s.video.homography import Homography

NUM_FRAMES = 5  # number of frames examined, evenly spaced, so that one dark scene does not count as a bar
MAX_RANGE = 16  # levels by which a channel of a bar may vary over its pixels and frames (compression noise)
EDGE = 4  # lines next to a bar that compression has blurred; they are trimmed too
_MAX_SHARE = 0.4  # a wider bar, relative to the frame, counts as picture


def find_bars(frames: Tensor) -> Bars:
    """Find the rows and columns at the borders that have one constant colour in all frames.

    Args:
        frames: uint8, shape (T, 3, H, W).

    Returns:
        The pixels to trim on each side, including the blurred edge of a bar; all zero for a video without bars.
    """
    low, high = frames.amin(dim=0).int(), frames.amax(dim=0).int()
    rows = torch.stack([low.amin(dim=2), high.amax(dim=2)])
    columns = torch.stack([low.amin(dim=1), high.amax(dim=1)])
    return Bars(left=_run(columns), top=_run(rows), right=_run(columns.flip(2)), bottom=_run(rows.flip(2)))


def _run(lines: Tensor) -> int:
    """Count the lines to trim: those that are constant together, and the edge; 0 if they could be a dark picture.

    Args:
        lines: shape (2, 3, number of lines), the minimum and maximum of every line and channel.
    """
    low, high = lines[0].cummin(dim=1).values, lines[1].cummax(dim=1).values
    constant = (high - low).amax(dim=0) <= MAX_RANGE
    length = int(constant.sum())
    trimmed = length + EDGE if length else 0
    return trimmed if trimmed <= _MAX_SHARE * len(constant) else 0


def detect_bars(video: Video) -> Bars:
    """Read a few frames of a video, of a span those of its whole file, and detect its bars."""
    whole = video.video if isinstance(video, Span) else video
    places = np.linspace(0, whole.num_frames - 1, NUM_FRAMES).round().astype(int)
    return find_bars(read_frames(whole, sorted(set(places.tolist()))).rgb())


def detect_all_bars(table: IndexTable) -> np.ndarray:
    """`detect_bars` of each video, as left, top, right, bottom: int32 of shape (len(table), 4)."""
    numbers, rows = np.unique(table.sources, return_inverse=True)  # spans of a file have its bars
    all_bars = [detect_bars(table.source(number)) for number in numbers.tolist()]
    return np.array([(bars.left, bars.top, bars.right, bars.bottom) for bars in all_bars], np.int32)[rows]


def picture_of(video: Video, sampling: Sampling) -> Picture:
    """Return the picture that clips of a video are cut from, without its bars if the sampling trims them."""
    return Picture(video.width, video.height, detect_bars(video) if sampling.trim_bars else NO_BARS)


def untransformed(video: Video, sampling: Sampling) -> Homography:
    """Return `middle_crop` for a video, without its bars if the sampling trims them."""
    return middle_crop(picture_of(video, sampling), sampling)
