"""Find the constant borders of a video, so that a projection does not turn them into slanted edges."""

import numpy as np
import torch
from torch import Tensor

from v3s.data.index_table import IndexTable
from v3s.pretext.plan import NO_BARS, Bars, Picture, Sampling, middle_crop
from v3s.video.decode import Video, read_frames
from v3s.video.homography import Homography

NUM_FRAMES = 5  # frames looked at, evenly spaced: a dark scene in one of them is no bar
MAX_RANGE = 16  # levels that each channel of a bar may vary by, over all its pixels and frames (compression noise)
EDGE = 4  # lines beside a bar that compression has blurred; they go with it
_MAX_SHARE = 0.4  # a bar wider than this share of the frame is a picture


def find_bars(frames: Tensor) -> Bars:
    """The rows and columns at the borders that are one constant colour in all frames.

    Args:
        frames: uint8, shape (T, 3, H, W).

    Returns:
        The pixels to take off each side, the blurred edge of a bar included; all zero for a video without bars.
    """
    low, high = frames.amin(dim=0).int(), frames.amax(dim=0).int()
    rows = torch.stack([low.amin(dim=2), high.amax(dim=2)])
    columns = torch.stack([low.amin(dim=1), high.amax(dim=1)])
    return Bars(left=_run(columns), top=_run(rows), right=_run(columns.flip(2)), bottom=_run(rows.flip(2)))


def _run(lines: Tensor) -> int:
    """How many lines to take off: those constant together, and the edge; none where that would be a dark picture.

    Args:
        lines: shape (2, 3, number of lines), the least and the greatest value of every line and channel.
    """
    low, high = lines[0].cummin(dim=1).values, lines[1].cummax(dim=1).values
    constant = (high - low).amax(dim=0) <= MAX_RANGE
    length = int(constant.sum())
    trimmed = length + EDGE if length else 0
    return trimmed if trimmed <= _MAX_SHARE * len(constant) else 0


def detect_bars(video: Video) -> Bars:
    """Read a few frames of a video and find its bars."""
    places = np.linspace(0, video.num_frames - 1, NUM_FRAMES).round().astype(int)
    return find_bars(read_frames(video, sorted(set(places.tolist()))).rgb())


def detect_all_bars(table: IndexTable) -> np.ndarray:
    """The bars of each video as left, top, right, bottom: int32, shape (len(table), 4)."""
    found = [detect_bars(video) for video in table]
    return np.array([(bars.left, bars.top, bars.right, bars.bottom) for bars in found], np.int32)


def picture_of(video: Video, sampling: Sampling) -> Picture:
    """What clips of a video are cut from: its frames, without their bars where they are to be trimmed."""
    return Picture(video.width, video.height, detect_bars(video) if sampling.trim_bars else NO_BARS)


def untransformed(video: Video, sampling: Sampling) -> Homography:
    """`middle_crop` of a video, without its bars where training trimmed them."""
    return middle_crop(picture_of(video, sampling), sampling)
