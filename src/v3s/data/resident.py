"""A store held whole in memory, beside the network: a batch is a gather and a warp, with no processes that read.

On a GPU the frames live in its own memory, or in the host's where they are too many: each batch is then gathered there
into page-locked memory, which the GPU fetches while the host goes on. Clips are those that :mod:`v3s.data.loading`
gives: the same on a CPU, up to its rounding on a GPU.
"""

import math
import os
from collections import defaultdict
from collections.abc import Generator, Iterable, Sequence
from itertools import chain
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from v3s.data.clips import PretextClips, SampleKey
from v3s.data.handover import stack
from v3s.data.index_table import IndexTable
from v3s.pretext.cut import cut_clip
from v3s.pretext.plan import ClipPlan
from v3s.video.colour import UNCHANGED, recolour
from v3s.video.decode import Video
from v3s.video.frames import ColourSpace, Frames
from v3s.video.store import PixelFormat, StoredVideo, frame_bytes, plane_shapes, read_whole
from v3s.video.warp import Samples, blurred_samples, warp_batch

Loading = Literal["auto", "workers", "resident"]
_SHARE_OF_DEVICE, SHARE_OF_MEMORY = 0.6, 0.8
"""How much of a GPU's free memory, and of the host's memory, frames may take: the rest is the network's."""


class FrameKind(NamedTuple):
    """What frames must have in common to be warped together: format, size and colour space."""

    pixel_format: PixelFormat
    height: int
    width: int
    matrix: str
    full: bool

    @property
    def num_bytes(self) -> int:
        """Of a frame."""
        return frame_bytes(self.pixel_format, self.height, self.width)

    @property
    def colour(self) -> ColourSpace | None:
        """Of the planes; ``None`` for RGB."""
        return None if self.pixel_format == "rgb" else ColourSpace(self.matrix, self.full)

    def planes(self, rows: Tensor) -> list[Tensor]:
        """Rows of bytes, a frame each, as planes of shape (frames, channels, H, W), without a copy."""
        shapes = plane_shapes(self.pixel_format, self.height, self.width)
        parts = torch.split(rows, [math.prod(shape) for shape in shapes], dim=1)
        return [part.view(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


def _kind_of(video: StoredVideo) -> FrameKind:
    """The kind of a video's frames."""
    return FrameKind(video.pixel_format, video.height, video.width, video.matrix, video.full)


class ResidentFrames:
    """All frames of videos of a table, each one row of bytes.

    Attributes:
        device: where clips are made.
        rows: by kind, uint8 of shape (frames of that kind, bytes of a frame).
        places: of each video that is held, its kind and the row of its first frame.

    Args:
        table: videos of a store in the format "yuv" or "rgb".
        device: where clips are made.
        held: numbers of the videos to hold; all by default.

    Raises:
        ValueError: a video is a file, or stored as pictures; or there is not enough memory.
        VideoError: a shard cannot be read, or is damaged.
    """

    def __init__(self, table: IndexTable, device: torch.device, held: range | None = None) -> None:
        self.device = device
        videos = {number: _stored(table[number]) for number in (range(len(table)) if held is None else held)}
        counts: dict[FrameKind, int] = defaultdict(int)
        self.places: dict[int, tuple[FrameKind, int]] = {}
        for number, video in videos.items():
            kind = _kind_of(video)
            self.places[number] = kind, counts[kind]
            counts[kind] += video.num_frames
        home = _home(sum(count * kind.num_bytes for kind, count in counts.items()), device)
        self.rows: dict[FrameKind, Tensor] = {
            kind: torch.empty((count, kind.num_bytes), dtype=torch.uint8, device=home) for kind, count in counts.items()
        }
        for number, (kind, first) in self.places.items():
            _read_into(videos[number], self.rows[kind][first : first + videos[number].num_frames])

    def of(self, video: int, numbers: Sequence[int]) -> Frames:
        """Frames of one video, of those that are held in the host's memory."""
        kind, first = self.places[video]
        rows = torch.tensor(numbers) + first
        return Frames(tuple(plane.index_select(0, rows) for plane in kind.planes(self.rows[kind])), kind.colour)

    def frames(self, kind: FrameKind, rows: Tensor, num_clips: int) -> Frames:
        """Gather rows of one kind as the planes of several clips, shape (num_clips, T, channels, H, W)."""
        home = self.rows[kind]
        pinned = home.device != self.device
        picked = torch.empty((len(rows), kind.num_bytes), dtype=torch.uint8, device=home.device, pin_memory=pinned)
        torch.index_select(home, 0, rows.to(home.device, non_blocking=True), out=picked)
        picked = picked.to(self.device, non_blocking=True)
        planes = (plane.view(num_clips, -1, *plane.shape[1:]) for plane in kind.planes(picked))
        return Frames(tuple(planes), kind.colour)


def resident_batches(
    clips: PretextClips, frames: ResidentFrames, order: Iterable[list[SampleKey]], *, compiled: bool = False
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Make training clips on the device where the frames are.

    Args:
        clips: what is drawn for each sample; its table is that of the frames.
        frames: of its videos.
        order: the keys of each batch.
        compiled: let `torch.compile` make one kernel of the warp, on a GPU.

    Yields:
        (clips, uint8 of shape (B, 3, T, size, size), labels, int64 of shape (B, 2)), both on the device.
    """
    for keys in order:
        drawn = [clips.plan(*key) for key in keys]
        made = cut_clips(frames, drawn, clips.sampling.clip_size, compiled=compiled)
        labels = torch.tensor([[plan.labels.spatial, plan.labels.temporal] for _, plan in drawn])
        yield made, labels.to(frames.device, non_blocking=True)


def cut_clips(
    frames: ResidentFrames, drawn: Sequence[tuple[int, ClipPlan]], size: int, *, compiled: bool = False
) -> Tensor:
    """Carry out the plans of a batch: one by one on a CPU, together on a GPU.

    Args:
        frames: of the videos.
        drawn: (number of the video, plan) of each clip.
        size: side of a clip in pixels.
        compiled: see :func:`resident_batches`.

    Returns:
        uint8, shape (B, 3, T, size, size), on the frames' device.
    """
    if frames.device.type != "cpu":
        return cut_together(frames, drawn, size, compiled=compiled)
    (batch,) = stack([(cut_clip(frames.of(video, plan.frames), plan, size),) for video, plan in drawn])
    return batch


def cut_together(
    frames: ResidentFrames, drawn: Sequence[tuple[int, ClipPlan]], size: int, *, compiled: bool = False
) -> Tensor:
    """Carry out the plans of a batch, those of one kind of frames at once; see :func:`cut_clips`."""
    groups: dict[tuple[FrameKind, Samples], list[int]] = defaultdict(list)
    for position, (video, plan) in enumerate(drawn):
        groups[frames.places[video][0], blurred_samples(plan.samples, plan.blur)].append(position)
    made: dict[int, Tensor] = {}
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
        if len(groups) == 1 and all(plan.colour == UNCHANGED for plan in plans):
            return warped
        for clip, plan, position in zip(warped, plans, positions, strict=True):
            made[position] = recolour(clip, plan.colour)
    (batch,) = stack([(made[position],) for position in range(len(drawn))])
    return batch


def hold_frames(
    train: IndexTable, validation: IndexTable, own: range, device: torch.device, loading: Loading
) -> tuple[ResidentFrames, ResidentFrames] | None:
    """The frames of training and validation videos in memory, or None where processes are to read them.

    Args:
        train: the training videos.
        validation: the validation videos.
        own: numbers of the training videos that this process reads.
        device: that trains.
        loading: "resident", "workers", or "auto": resident where a GPU has room for stored frames.
    """
    if loading == "auto":
        videos = chain(map(train.__getitem__, own), validation)
        loading = "resident" if _can_be_resident(videos, device) else "workers"
    if loading == "workers":
        return None
    return ResidentFrames(train, device, own), ResidentFrames(validation, device)


def _can_be_resident(videos: Iterable[Video], device: torch.device) -> bool:
    """Whether all these videos are stored frames that fit into a GPU's own memory."""
    if device.type != "cuda":
        return False
    num_bytes = 0
    for video in videos:
        if not isinstance(video, StoredVideo) or video.pixel_format == "jpeg":
            return False
        num_bytes += video.num_bytes
    return _fits(num_bytes, device)


def _fits(num_bytes: int, gpu: torch.device) -> bool:
    """Whether a GPU has room; what torch holds of its memory and does not use is free too."""
    free = torch.cuda.mem_get_info(gpu)[0] + torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)
    return num_bytes <= _SHARE_OF_DEVICE * free


def _stored(video: object) -> StoredVideo:
    if not isinstance(video, StoredVideo) or video.pixel_format == "jpeg":
        raise ValueError(
            f"{getattr(video, 'path', video)}: only frames of a store in the format yuv or rgb can be held in memory; "
            "make one with v3s prepare, or read with processes (--loading workers)"
        )
    return video


def _home(num_bytes: int, device: torch.device) -> torch.device:
    """Where frames can be held: on the device if they fit there, else in the host's memory."""
    if device.type == "cuda" and _fits(num_bytes, device):
        return device
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if num_bytes > SHARE_OF_MEMORY * memory:
        raise ValueError(
            f"the frames take {num_bytes / 1e9:.1f} GB, too much for {memory / 1e9:.1f} GB of memory; read with "
            "processes (--loading workers), or make a smaller store (v3s prepare --short-side)"
        )
    return torch.device("cpu")


def _read_into(video: StoredVideo, rows: Tensor) -> None:
    """Read all frames of a video."""
    staging = rows if rows.device.type == "cpu" else torch.empty(rows.shape, dtype=torch.uint8)
    read_whole(video, staging.numpy())
    if staging is not rows:
        rows.copy_(staging)
