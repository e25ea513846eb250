"""A store kept entirely in memory: a batch is a gather and a warp, without worker processes.

With a GPU, the frames are in GPU memory, or in host memory if they do not fit. Each batch is then gathered on the host
into page-locked memory, which the GPU fetches while the host continues. The clips are those of
:mod:`v3s.data.loading`: identical on a CPU, equal up to rounding on a GPU.
"""

import math
import os
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import chain
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from v3s.data.clips import PretextClips, SampleKey
from v3s.data.handover import stack
from v3s.data.index_table import IndexTable
from v3s.files.text import size_text
from v3s.pretext.cut import cut_clip
from v3s.pretext.plan import ClipPlan
from v3s.video.colour import recolour_batch
from v3s.video.decode import Span, Video
from v3s.video.frames import ColourSpace, Frames
from v3s.video.store import PixelFormat, StoredVideo, frame_bytes, plane_shapes, read_whole
from v3s.video.warp import Samples, blurred_samples, warp_batch

Loading = Literal["auto", "workers", "resident"]
_SHARE_OF_DEVICE, SHARE_OF_MEMORY = 0.6, 0.8
"""Largest share of the GPU's free memory, and of the host's memory, for frames; the network needs the rest."""


class FrameKind(NamedTuple):
    """The properties that frames must share to be warped together: format, size and colour space."""

    pixel_format: PixelFormat
    height: int
    width: int
    matrix: str
    full: bool

    @property
    def num_bytes(self) -> int:
        """The size of a frame."""
        return frame_bytes(self.pixel_format, self.height, self.width)

    @property
    def colour(self) -> ColourSpace | None:
        """The colour space of the planes; ``None`` for RGB."""
        return None if self.pixel_format == "rgb" else ColourSpace(self.matrix, self.full)

    def planes(self, rows: Tensor) -> list[Tensor]:
        """View rows of bytes, one frame each, as planes of shape (frames, channels, H, W), without a copy."""
        shapes = plane_shapes(self.pixel_format, self.height, self.width)
        parts = torch.split(rows, [math.prod(shape) for shape in shapes], dim=1)
        return [part.view(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


def _kind_of(video: StoredVideo) -> FrameKind:
    """The kind of the frames of a video."""
    return FrameKind(video.pixel_format, video.height, video.width, video.matrix, video.full)


class ResidentFrames:
    """All frames of the videos of a table in memory, each as one row of bytes.

    Attributes:
        device: the device that makes clips.
        rows: for each kind, uint8 of shape (number of frames, bytes per frame).
        places: for each video in memory, its kind and the row of its first frame.

    Args:
        table: videos of a store in the format "yuv" or "rgb".
        device: the device that makes clips.
        numbers: numbers of the videos to keep in memory; all by default.
        memory: the device whose memory keeps the frames; the one that makes clips by default.

    Raises:
        ValueError: a video is a file or is stored as JPEG.
        VideoError: a shard cannot be read, or is damaged.
    """

    def __init__(
        self,
        table: IndexTable,
        device: torch.device,
        numbers: range | None = None,
        memory: torch.device | None = None,
    ) -> None:
        self.device = device
        videos = {
            number: _require_stored(table[number]) for number in (range(len(table)) if numbers is None else numbers)
        }
        counts: dict[FrameKind, int] = defaultdict(int)
        self.places: dict[int, tuple[FrameKind, int]] = {}
        for number, video in videos.items():
            kind = _kind_of(video)
            self.places[number] = kind, counts[kind]
            counts[kind] += video.num_frames
        self.rows: dict[FrameKind, Tensor] = {
            kind: torch.empty((count, kind.num_bytes), dtype=torch.uint8, device=memory or device)
            for kind, count in counts.items()
        }
        for number, (kind, first) in self.places.items():
            _read_into(videos[number], self.rows[kind][first : first + videos[number].num_frames])

    def of(self, video: int, numbers: Sequence[int]) -> Frames:
        """Some frames of one video; for frames in host memory."""
        kind, first = self.places[video]
        rows = torch.tensor(numbers) + first
        return Frames(tuple(plane.index_select(0, rows) for plane in kind.planes(self.rows[kind])), kind.colour)

    def frames(self, kind: FrameKind, rows: Tensor, num_clips: int) -> Frames:
        """Gather rows of one kind as planes of several clips, of shape (num_clips, T, channels, H, W)."""
        stored = self.rows[kind]
        pinned = stored.device != self.device
        picked = torch.empty((len(rows), kind.num_bytes), dtype=torch.uint8, device=stored.device, pin_memory=pinned)
        torch.index_select(stored, 0, rows.to(stored.device, non_blocking=True), out=picked)
        picked = picked.to(self.device, non_blocking=True)
        planes = (plane.view(num_clips, -1, *plane.shape[1:]) for plane in kind.planes(picked))
        return Frames(tuple(planes), kind.colour)


def resident_batches(
    clips: PretextClips, frames: ResidentFrames, order: Iterable[list[SampleKey]], *, compiled: bool = False
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Make training clips on the device of the frames.

    Args:
        clips: the samples; their table must be that of the frames.
        frames: frames of the videos.
        order: the keys of each batch.
        compiled: whether `torch.compile` fuses the warp into one kernel, on a GPU.

    Yields:
        (clips, uint8 of shape (B, 3, T, size, size), targets, int64 of shape (B, 2 or 3)), both on the device.
    """
    for keys in order:
        drawn = [clips.plan(*key) for key in keys]
        batch = cut_clips(frames, drawn, clips.sampling.clip_size, compiled=compiled)
        labels = torch.tensor([clips.targets(key, *sample) for key, sample in zip(keys, drawn, strict=True)])
        yield batch, labels.to(frames.device, non_blocking=True)


def cut_clips(
    frames: ResidentFrames, drawn: Sequence[tuple[int, ClipPlan]], size: int, *, compiled: bool = False
) -> Tensor:
    """Cut the clips of a batch: one by one on a CPU, together on a GPU.

    Args:
        frames: frames of the videos.
        drawn: (number of the video, plan) for each clip.
        size: side of a clip in pixels.
        compiled: see :func:`resident_batches`.

    Returns:
        uint8, shape (B, 3, T, size, size), on the device of the frames.
    """
    if frames.device.type != "cpu":
        return cut_together(frames, drawn, size, compiled=compiled)
    (batch,) = stack([(cut_clip(frames.of(video, plan.frames), plan, size),) for video, plan in drawn])
    return batch


def cut_together(
    frames: ResidentFrames, drawn: Sequence[tuple[int, ClipPlan]], size: int, *, compiled: bool = False
) -> Tensor:
    """Cut the clips of a batch, all clips from one kind of frames at once; see :func:`cut_clips`."""
    groups: dict[tuple[FrameKind, Samples], list[int]] = defaultdict(list)
    for position, (video, plan) in enumerate(drawn):
        groups[frames.places[video][0], blurred_samples(plan.samples, plan.blur)].append(position)
    clips: dict[int, Tensor] = {}
    for (kind, samples), positions in groups.items():
        plans = [drawn[position][1] for position in positions]
        firsts = [frames.places[drawn[position][0]][1] for position in positions]
        rows = torch.tensor(
            [first + number for first, plan in zip(firsts, plans, strict=True) for number in plan.frames]
        )
        warped = warp_batch(
            frames.frames(kind, rows, len(plans)),
            [plan.to_clip for plan in plans],
            size,
            size,
            samples=samples,
            blurs=[plan.blur for plan in plans],
            compiled=compiled,
        )
        coloured = recolour_batch(warped, [plan.colour for plan in plans])
        if len(groups) == 1:
            return coloured
        clips |= dict(zip(positions, coloured, strict=True))
    (batch,) = stack([(clips[position],) for position in range(len(drawn))])
    return batch


def load_resident_frames(
    train: IndexTable,
    validation: IndexTable,
    own: range,
    device: torch.device,
    loading: Loading,
    num_processes: int = 1,
) -> tuple[ResidentFrames, ResidentFrames] | None:
    """Load the frames of training and validation videos into memory; returns None if workers should read them.

    Args:
        train: the training videos.
        validation: the validation videos.
        own: numbers of the training videos that this process uses.
        device: the device that trains.
        loading: "resident", "workers" or "auto"; "auto" is "resident" if the frames are stored and fit on the GPU.
        num_processes: number of processes of this machine that do so, each with its own frames and GPU.

    Raises:
        ValueError: a video is a file or is stored as JPEG; or there is not enough memory.
        VideoError: a shard cannot be read, or is damaged.
    """

    def videos() -> Iterator[Video]:
        return chain(map(train.__getitem__, own), validation)

    if loading == "auto":
        loading = "resident" if _can_be_resident(videos(), device) else "workers"
    if loading == "workers":
        return None
    memory = _choose_memory(sum(_require_stored(video).num_bytes for video in videos()), device, num_processes)
    return ResidentFrames(train, device, own, memory), ResidentFrames(validation, device, memory=memory)


def _can_be_resident(videos: Iterable[Video], device: torch.device) -> bool:
    """Whether all videos are stored frames, and fit into GPU memory together."""
    if device.type != "cuda":
        return False
    num_bytes = 0
    for video in videos:
        if not isinstance(video, StoredVideo) or video.pixel_format == "jpeg":
            return False
        num_bytes += video.num_bytes
    return _fits(num_bytes, device)


def _fits(num_bytes: int, gpu: torch.device) -> bool:
    """Whether a GPU has room; memory that torch has reserved but does not use counts as free."""
    free = torch.cuda.mem_get_info(gpu)[0] + torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)
    return num_bytes <= _SHARE_OF_DEVICE * free


def _require_stored(video: object) -> StoredVideo:
    if isinstance(video, Span):
        raise ValueError(f"{video.path}: spans (--segment, --fps or a list of spans) are read with --loading workers")
    if not isinstance(video, StoredVideo) or video.pixel_format == "jpeg":
        raise ValueError(
            f"{getattr(video, 'path', video)}: only a store in the format yuv or rgb can be loaded into memory; "
            "make one with v3s prepare, or use --loading workers"
        )
    return video


def _choose_memory(num_bytes: int, device: torch.device, num_processes: int) -> torch.device:
    """Choose the device's memory for the frames of a process if they fit, otherwise the host's, which all share."""
    if device.type == "cuda" and _fits(num_bytes, device):
        return device
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if num_processes * num_bytes > SHARE_OF_MEMORY * memory:
        raise ValueError(
            f"the frames need {size_text(num_processes * num_bytes)}, too much for {size_text(memory)} of memory; "
            "use --loading workers, or make a smaller store (v3s prepare --short-side)"
        )
    return torch.device("cpu")


def _read_into(video: StoredVideo, rows: Tensor) -> None:
    """Read all frames of a video into rows."""
    staging = rows if rows.device.type == "cpu" else torch.empty(rows.shape, dtype=torch.uint8)
    read_whole(video, staging.numpy())
    if staging is not rows:
        rows.copy_(staging)
