"""Pictures and short clips of spans, which every browser shows: made in the processes of `v3s.serve.decoders`."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path

import torch
from torch import Tensor

from v3s.data.index_cache import file_key
from v3s.data.store_folder import is_store
from v3s.data.views import View
from v3s.pages.images import jpeg, mp4, small_frames
from v3s.vectors.entries import Place
from v3s.vectors.moments import video_of
from v3s.vectors.query import known_video
from v3s.video.decode import stream_frames
from v3s.video.frames import ColourSpace, Frames
from v3s.video.index import VideoError, VideoIndex
from v3s.video.span import Span, span_of
from v3s.video.store import StoredVideo
from v3s.video.warp import to_width, warp

_MOST_FPS = 30.0  # of a preview; of faster files every second frame is shown, and so on
_FRAMES_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Preview:
    """What is asked for.

    Attributes:
        root: the folder of the collection's videos.
        place: the span.
        view: the clips of the collection: at which rate and through which window its videos were seen.
        kind: ``picture`` is its middle frame as JPEG, ``clip`` its frames as MP4, ``window`` those of its file between
            two instants, ``facts`` the length of its file in seconds.
        state: what `file_state` says of the file now: another one is another preview.
        width: of the picture, in pixels at most.
        start: of a clip or window, in seconds from the start of the file on.
        end: its end.
    """

    root: str
    place: Place
    view: View
    kind: str
    state: tuple[int, int]
    width: int = 0
    start: float = 0.0
    end: float = 0.0


def make_preview(asked: Preview) -> bytes:
    """Make a picture or a clip.

    Raises:
        VideoError: the file cannot be read, has changed since it was embedded, or has no frame there.
    """
    file = _known(asked.root, asked.place.file, asked.view, asked.state)
    span = video_of(asked.place, file, asked.view.fps)  # refuses a file that has changed
    if asked.kind == "facts":
        return f"{file.duration_seconds:.6f}".encode()
    if asked.kind == "picture":
        (picture,) = small_frames(span, [(span.num_frames - 1) // 2], asked.width)
        return jpeg(picture)
    return _clip(span_of(file, asked.start, asked.end), asked.width)


def warm_up() -> None:
    """Load what the first preview would wait for."""
    to_picture, height, width = to_width(64, 48, 32)
    planes = tuple(torch.zeros(1, channels, side, side, dtype=torch.uint8) for channels, side in ((1, 64), (2, 32)))
    jpeg(warp(Frames(planes, ColourSpace()), to_picture, height, width)[:, 0].permute(1, 2, 0))


def file_state(root: str, file: str) -> tuple[int, int]:
    """What changes with a file, as in its `FileKey`; zeros for the frames in a store, which do not change.

    Raises:
        VideoError: it does not exist, or cannot be read.
    """
    if is_store(Path(root)):
        return 0, 0
    try:
        Path(file).stat()
    except OSError as error:
        reason = "is no longer there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise VideoError(f"{file}: {reason}") from error
    key = file_key(Path(root), file)
    return key[1:] if key else (0, 0)


@lru_cache(maxsize=256)
def _known(root: str, file: str, view: View, state: tuple[int, int]) -> VideoIndex | StoredVideo:
    return known_video(Path(root), Path(file), view)


def _clip(span: Span, width: int) -> bytes:
    if not span.num_frames:
        raise VideoError(f"{span.path}: no frame is shown in this stretch")
    every = max(1, ceil(span.fps / _MOST_FPS - 0.01))
    frames = range(0, span.num_frames, every)
    return mp4(torch.cat(list(_pieces(span, frames, width))), len(frames) / max(span.duration_seconds, 1e-3))


def _pieces(span: Span, frames: range, width: int) -> Iterator[Tensor]:
    """Yield frames, some at a time: uint8, shape (frames, height, width, 3)."""
    to_picture, new_height, new_width = to_width(span.width, span.height, width)
    for some in stream_frames(span, frames, at_once=_FRAMES_AT_ONCE):
        yield warp(some, to_picture, new_height, new_width).permute(1, 2, 3, 0)
