"""Clips that represent a whole video for a trained network: evenly spaced, or from a sliding window.

Nothing here is random. A video shorter than a clip repeats its last frame, so no video is skipped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from v3s.data.index_table import IndexTable
from v3s.options import check_clip, check_rate
from v3s.video.decode import Video, read_frames
from v3s.video.homography import Homography, crop_and_resize, mirror, translation
from v3s.video.index import VideoIndex
from v3s.video.light.mask import mask_text, read_mask, require_mask
from v3s.video.light.window import parse_window
from v3s.video.span import at_rate, seen
from v3s.video.store import StoredVideo
from v3s.video.warp import warp

_MOST = 1_000_000  # clips of a video, and frames between two
_PAPER_RESIZE = (128 / 112, 171 / 112)  # height and width of a resized frame / side of the clip (section 4.3)


@dataclass(frozen=True, slots=True)
class Resize:
    """How frames are resized before the crop, for a network that was not trained on the paper's frames.

    Attributes:
        side: pixels of the shorter side; if the shape is not kept, of both sides.
        keeps_shape: whether a frame keeps its ratio of width to height.
    """

    side: int
    keeps_shape: bool

    def size(self, width: int, height: int) -> tuple[float, float]:
        """Return the height and width of a resized (width, height) frame."""
        scale = self.side / min(width, height)
        return (height * scale, width * scale) if self.keeps_shape else (self.side, self.side)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How clips are taken from a video.

    Attributes:
        clip_frames: number of consecutive frames in a clip.
        clip_size: side of a clip in pixels.
        num_clips: number of clips per video, evenly spaced from its first frame to its last.
        stride: number of frames between the starts of a sliding window's clips; 0 takes ``num_clips`` clips instead.
        fps: frames per second at which videos are sampled; ``None`` for every frame of the file.
        window: which values of deep pictures are shown as black and white, as in
            :func:`v3s.video.light.window.choose_window`; ``None`` for "auto".
        mask: which pixels are blanked, as :func:`v3s.video.light.mask.read_mask` returns it; ``None`` for none.
        resize: how frames are resized before the crop; ``None`` as in the paper.

    Source: paper section 4.3 (frames resized to 128 x 171, 10 clips) and 4.5 (16-frame clips with stride 8).
    """

    clip_frames: int = 16
    clip_size: int = 112
    num_clips: int = 10
    stride: int = 0
    fps: float | None = None
    window: str | None = None
    mask: str | None = None
    resize: Resize | None = None

    def __post_init__(self) -> None:
        if min(self.clip_frames, self.clip_size, self.num_clips) < 1 or self.stride < 0:
            raise ValueError(f"a view needs positive sizes and counts, and a stride of 0 or more; got {self}")
        if max(self.num_clips, self.stride) > _MOST:
            raise ValueError(f"num_clips is {self.num_clips} and stride {self.stride}; give at most {_MOST:,}")
        check_clip(self.clip_frames, self.clip_size)
        check_rate(self.fps)
        parse_window(self.window or "auto")
        require_mask(self.mask)
        if self.resize is not None and self.resize.side < self.clip_size:
            raise ValueError(f"frames are resized to {self.resize.side} pixels, less than a clip's {self.clip_size}")

    def sample(self, video: VideoIndex | StoredVideo) -> Video:
        """Return a video as it is seen: at this rate, through this window and this mask."""
        return at_rate(seen(video, self.window, self.mask), self.fps)

    def starts(self, num_frames: int) -> list[int]:
        """Return the first frame of each clip of a video."""
        room = num_frames - self.clip_frames
        if room <= 0:
            return [0] if self.stride else [0] * self.num_clips
        if self.stride:
            return list(range(0, room + 1, self.stride))
        return evenly_spaced(room, self.num_clips)

    def frames(self, start: int, num_frames: int) -> tuple[int, ...]:
        """Return the frame numbers of a clip; beyond the end of the video, the last frame is repeated."""
        return tuple(min(start + step, num_frames - 1) for step in range(self.clip_frames))

    def clips(self, num_frames: int) -> list[tuple[int, ...]]:
        """Return the frame numbers of each clip of a video."""
        return [self.frames(start, num_frames) for start in self.starts(num_frames)]

    def resized(self, width: int, height: int) -> tuple[float, float]:
        """Return the height and width to which a (width, height) frame is resized before the crop; see `to_clip`."""
        if self.resize is not None:
            return self.resize.size(width, height)
        if self.clip_size == 224:
            return 256.0, 256.0
        tall, wide = _PAPER_RESIZE
        return self.clip_size * tall, self.clip_size * wide

    def to_clip(
        self, width: int, height: int, *, left: float = 0.5, top: float = 0.5, flip: bool = False
    ) -> Homography:
        """Return the map from a (width, height) frame: resize to 128 x 171 (times clip_size / 112), then crop.

        For clips of 224 pixels, the resize is to 256 x 256; with ``resize``, to what it says. ``left`` and ``top`` in
        [0, 1] place the crop, by default in the centre. ``flip`` mirrors the clip.
        """
        size = self.clip_size
        resized_height, resized_width = self.resized(width, height)
        whole = crop_and_resize(0, 0, width, height, resized_width, resized_height)
        crop = translation(-left * (resized_width - size), -top * (resized_height - size)) @ whole
        return mirror(size) @ crop if flip else crop


def asked_of(view: View, options: object) -> dict[str, tuple[object, object]]:
    """How options ask videos to be seen, and how a view sees them: name -> (asked, own), equal if they agree.

    Args:
        view: the view of a network, of a recognizer or of stored vectors.
        options: those with ``fps``, ``window`` and ``mask``; one that is missing or ``None`` asks for nothing.

    Raises:
        ValueError: the picture of a mask cannot be read.
    """
    fps, window, mask = (getattr(options, name, None) for name in ("fps", "window", "mask"))
    return {
        **({} if fps is None else {"fps": (fps, view.fps)}),
        **({} if window is None else {"window": (window, view.window or "auto")}),
        **({} if mask is None else {"mask": (mask_text(read_mask(mask)), mask_text(view.mask))}),
    }


def evenly_spaced(room: int, count: int) -> list[int]:
    """Return ``count`` evenly spaced integers from 0 to ``room`` (halves round up); a single one is in the middle.

    >>> evenly_spaced(9, 4)
    [0, 3, 6, 9]
    """
    steps = count - 1
    return [room // 2] if steps == 0 else [(2 * i * room + steps) // (2 * steps) for i in range(count)]


def read_clips(table: IndexTable, video: int, view: View, clips: Sequence[Sequence[int]]) -> Tensor:
    """Read clips of one video, decoding each frame once; uint8, shape (clips, 3, T, size, size)."""
    source = table[video]
    wanted = sorted({frame for clip in clips for frame in clip})
    place = {frame: number for number, frame in enumerate(wanted)}
    warped = warp(
        read_frames(source, wanted), view.to_clip(source.width, source.height), view.clip_size, view.clip_size
    )
    return torch.stack([warped[:, [place[frame] for frame in clip]] for clip in clips])


def count_padded(table: IndexTable, view: View) -> int:
    """Count the videos that are shorter than a clip, so that their last frame is repeated."""
    return int(np.count_nonzero(table.num_frames < view.clip_frames))
