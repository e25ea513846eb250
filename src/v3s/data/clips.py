"""From videos to training clips: which sample is drawn when, and how it is made.

A sample is identified by (epoch, index). Its random generator depends only on (seed, epoch, index), so any number of
workers or processes gives the same samples, and exact resuming needs no additional code.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from v3s.data.index_table import IndexTable
from v3s.data.letterbox import detect_all_bars
from v3s.options import require_positive
from v3s.pretext.cut import cut_clip
from v3s.pretext.plan import (
    NO_BARS,
    Bars,
    ClipOptions,
    ClipPlan,
    Labels,
    Picture,
    Sampling,
    balanced_labels,
    draw_different_labels,
    draw_labels,
    plan_clip,
    sample_generator,
)
from v3s.pretext.task import PretextTask
from v3s.pretext.temporal import span
from v3s.video.decode import read_frames

SampleKey = tuple[int, int]
"""(epoch, index) of a sample."""

VALIDATION_EPOCH = 2**32 - 1  # the epoch of all validation clips, so that every validation pass uses the same ones
_ORDER, _TOGETHER, _BALANCE = 2, 5, 6  # separate these random streams from those of the samples and of hold_out (3)


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Which clips are drawn in an epoch, and which of them share a batch.

    Attributes:
        batch_size: Clips per step, over all processes.

    More options:
        train_clips: Clips per training video and epoch. With few videos, more than 1 makes epochs longer.
        clips_together: Number of clips of each video, with different labels, in the same batch. An epoch shows every
            video this many times, and the batch size must be a multiple of it.
        validation_videos: Videos held out, drawn with the seed. Default: the paper's share (800 of 9,537), at most 800.
        validation_clips: Clips per validation video, the same in every epoch.
        parts: Divide the training videos into this many parts; every batch takes equally many clips from each. If not
            1, it must be a multiple of the number of processes; each process reads and keeps only its own parts.
    """

    batch_size: int = 32
    train_clips: int = 1
    clips_together: int = 1
    parts: int = 1
    validation_videos: int | None = None
    validation_clips: int = 1

    def check_batches(self) -> None:
        """Check the values.

        Raises:
            ValueError: a value is out of range, or the batch size is not a multiple of the clips that belong together.
        """
        require_positive(self, "batch_size", "train_clips", "clips_together", "parts", "validation_clips")
        for name in ("parts", "clips_together"):
            if self.batch_size % (number := getattr(self, name)):
                raise ValueError(f"batch_size is {self.batch_size}; it must be a multiple of {name} ({number})")

    def order(
        self, num_videos: int, *, num_epochs: int, seed: int, rank: int = 0, num_processes: int = 1
    ) -> "BatchOrder":
        """Return the training batches for a number of videos."""
        return BatchOrder(
            num_samples=num_videos * self.train_clips,
            batch_size=self.batch_size,
            num_epochs=num_epochs,
            seed=seed,
            rank=rank,
            num_processes=num_processes,
            num_parts=self.parts,
            together=self.clips_together,
        )

    def check_drawing(self, clips: ClipOptions) -> None:
        """Check that batches can be made with this way to draw labels and videos.

        Raises:
            ValueError: parts, or clips that belong together, exclude it.
        """
        if self.parts > 1 and (self.train_clips > 1 or self.clips_together > 1 or clips.short == "fit"):
            raise ValueError(
                f"parts is {self.parts}; more than 1 needs train_clips 1, clips_together 1 and short leave-out"
            )
        if self.clips_together > 1 and (self.train_clips > 1 or clips.label_prior == "family"):
            raise ValueError(
                f"clips_together is {self.clips_together}; more than 1 needs train_clips 1 and label_prior class"
            )

    def check_shares(self, num_processes: int) -> None:
        """Check that processes can share the batches.

        Raises:
            ValueError: they cannot.
        """
        needed = f"it must be a multiple of the number of processes ({num_processes})"
        if self.clips_together > 1 and self.batch_size % (self.clips_together * num_processes):
            needed += f" times clips_together ({self.clips_together})"
            raise ValueError(f"batch_size is {self.batch_size}; {needed}")
        if self.batch_size % num_processes:
            raise ValueError(f"batch_size is {self.batch_size}; {needed}")
        if self.parts > 1 and self.parts % num_processes:
            raise ValueError(f"parts is {self.parts}; {needed}")

    def check_train_videos(self, num_videos: int, num_processes: int) -> None:
        """Check that there are enough training videos for the parts and for the processes.

        Raises:
            ValueError: there are too few.
        """
        if self.parts > num_videos:
            raise ValueError(f"parts is {self.parts}; it must be at most the number of training videos ({num_videos})")
        if self.clips_together > 1 and num_videos == 1:
            raise ValueError(f"clips_together is {self.clips_together}; it needs at least 2 training videos")
        if num_processes > 1 and num_videos * self.train_clips * self.clips_together < self.batch_size:
            raise ValueError(
                f"{num_videos} training videos give less than one batch of {self.batch_size}, but {num_processes} "
                "processes need a full batch; choose a smaller --batch-size or more --train-clips"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOrder:
    """All batches of a run, in order, as one stream: iterate over it to get lists of sample keys.

    Every epoch is a seeded permutation of all samples, cut into batches of ``batch_size``. An incomplete last batch is
    dropped unless it is the only one; its samples appear in other epochs. Process ``rank`` of ``num_processes`` gets
    its share of each batch.

    With ``num_parts``, part p consists of the samples p, p + num_parts, p + 2 num_parts, ... Each part has its own
    permutation, and every batch contains equally many samples of each part. If the number of parts is a multiple of
    ``num_processes``, a process only gets the samples rank, rank + num_processes, ..., and the batches are the same for
    any number of processes.

    With ``together``, each of the ``num_samples`` numbers stands for a group of that many samples, which follow each
    other in a batch and go to the same process: i, i + num_samples, i + 2 num_samples, ... The size of a batch must be
    a multiple of it, and there must be one part.
    """

    num_samples: int
    batch_size: int
    num_epochs: int
    seed: int
    first_epoch: int = 0
    first_step: int = 0
    rank: int = 0
    num_processes: int = 1
    num_parts: int = 1
    together: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return max(1, self._part_size * self.num_parts * self.together // self.batch_size)

    @property
    def clips_per_epoch(self) -> int:
        """Number of clips in an epoch, over all processes."""
        return self.steps_per_epoch * min(self.batch_size, self._part_size * self.num_parts * self.together)

    @property
    def first_batch(self) -> int:
        """Number of the first batch, counted from the start of the run."""
        return self.first_epoch * self.steps_per_epoch + self.first_step

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Yield this process's share of every batch, starting at (first_epoch, first_step)."""
        for epoch in range(self.first_epoch, self.num_epochs):
            order = self._permutation(epoch)
            for step in range(self.first_step if epoch == self.first_epoch else 0, self.steps_per_epoch):
                keys = self._cut(order, epoch, step)
                yield share_of(keys, self.rank, self.num_processes, together=self.together)

    def batch(self, epoch: int, step: int) -> list[SampleKey]:
        """Return one batch, with the shares of all processes."""
        return self._cut(self._permutation(epoch), epoch, step)

    @property
    def _part_size(self) -> int:
        """Number of samples per part and epoch: the size of the smallest part; the largest has at most one more."""
        return self.num_samples // self.num_parts

    def _permutation(self, epoch: int) -> np.ndarray:
        """The samples of an epoch, taken from each part in turn."""
        parts = [np.arange(part, self.num_samples, self.num_parts) for part in range(self.num_parts)]
        drawn = [
            np.random.default_rng((self.seed, epoch, number, _ORDER)).permutation(part)[: self._part_size]
            for number, part in enumerate(parts)
        ]
        order = np.stack(drawn, axis=1).ravel()
        return (order[:, None] + np.arange(self.together) * self.num_samples).ravel()

    def _cut(self, order: np.ndarray, epoch: int, step: int) -> list[SampleKey]:
        return [(epoch, int(index)) for index in order[step * self.batch_size : (step + 1) * self.batch_size]]


def share_of(keys: list[SampleKey], rank: int, num_processes: int, *, together: int = 1) -> list[SampleKey]:
    """Return the samples of a batch that process ``rank`` gets: every ``num_processes``-th group of ``together``."""
    starts = range(rank * together, len(keys), num_processes * together)
    return [key for start in starts for key in keys[start : start + together]]


class PretextClips(Dataset[tuple[Tensor, Tensor]]):
    """Clips of the pretext task, indexed by (epoch, index): decoded, warped, and determined by the key and the seed.

    Attributes:
        bars: int32 of shape (len(table), 4): the left, top, right and bottom bars of every video, detected here if the
            sampling trims them; otherwise None.

    Args:
        table: the videos; sample i is drawn from video i, modulo their number. If ``sampling.short`` is "leave-out",
            every video must be long enough for the longest span. If it is "fit", the labels are drawn first; if the
            sample's video is too short for them, another video that is long enough is drawn.
        task: the label tables.
        sampling: how clips are cut.
        seed: seed of the run.
        together: if more than 1, the samples i, i + len(table), ... of an epoch are a group: this many clips of one
            video with different labels. If ``sampling.short`` is "fit", the video is long enough for all of their
            labels. The number of the video is a third target. Validation clips have no groups.
    """

    def __init__(
        self, table: IndexTable, task: PretextTask, sampling: Sampling, *, seed: int, together: int = 1
    ) -> None:
        self.table, self.task, self.sampling, self.seed, self.together = table, task, sampling, seed, together
        self.bars = detect_all_bars(table) if sampling.trim_bars else None
        self._balanced: list[Labels] | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def num_with_bars(self) -> int:
        """Number of videos with bars to trim."""
        return 0 if self.bars is None else int(self.bars.any(axis=1).sum())

    def subset(self, videos: np.ndarray) -> "PretextClips":
        """Return the clips of some videos, given by their numbers."""
        part = copy(self)
        part.table = self.table.subset(videos)
        part.bars = None if self.bars is None else self.bars[videos]
        return part

    def balanced(self, num_clips: int) -> "PretextClips":
        """Return clips of which validation shows each label equally often, to within one.

        Otherwise a network that gives one answer to everything may be above chance.

        Args:
            num_clips: number of all validation clips.
        """
        other, sampling = copy(self), self.sampling
        generator = np.random.default_rng((self.seed, VALIDATION_EPOCH, 0, _BALANCE))
        other._balanced = balanced_labels(self.task, sampling.label_prior, num_clips, generator)
        return other

    def cut_by(self, sampling: Sampling) -> "PretextClips":
        """Return clips of the same videos with another sampling; bars that were detected before are reused."""
        other = copy(self)
        other.sampling = sampling
        if not sampling.trim_bars:
            other.bars = None
        elif self.bars is None:
            other.bars = detect_all_bars(self.table)
        return other

    def plan(self, epoch: int, index: int) -> tuple[int, ClipPlan]:
        """Return the number of the video and the plan of a sample."""
        generator, number = sample_generator(self.seed, epoch, index), index % len(self.table)
        if epoch == VALIDATION_EPOCH and self._balanced is not None:
            labels = self._balanced[index]
            video = self._video(number, [labels], generator)
        elif self.together == 1 or epoch == VALIDATION_EPOCH:
            labels = draw_labels(self.task, self.sampling.label_prior, generator)
            video = self._video(number, [labels], generator)
        else:
            shared = np.random.default_rng((self.seed, epoch, number, _TOGETHER))
            group = draw_different_labels(self.task, self.together, shared)
            labels, video = group[index // len(self.table)], self._video(number, group, shared)
        source = self.table[video]
        plan = plan_clip(
            self.task,
            labels,
            num_frames=source.num_frames,
            picture=Picture(source.width, source.height, self._bars_of(video)),
            sampling=self.sampling,
            generator=generator,
        )
        return video, plan

    def _bars_of(self, video: int) -> Bars:
        return NO_BARS if self.bars is None else Bars(*self.bars[video].tolist())

    def path(self, key: SampleKey) -> str:
        """Return the file of a sample."""
        epoch, index = key
        video = index % len(self.table) if self.sampling.short == "leave-out" else self.plan(epoch, index)[0]
        return self.table[video].path

    def describe(self, key: SampleKey) -> dict[str, Any]:
        """Return everything that was drawn for a sample, as plain values."""
        video, plan = self.plan(*key)
        return {
            "index": key[1],
            "video": self.table[video].path,
            "frames": list(plan.frames),
            "to_clip": plan.to_clip.matrix.tolist(),
            "labels": [plan.labels.spatial, plan.labels.temporal],
            "samples": list(plan.samples),
            "blur": plan.blur,
            "colour": asdict(plan.colour),
        }

    def _video(self, video: int, labels: Sequence[Labels], generator: np.random.Generator) -> int:
        rows = (self.task.temporal[each.temporal] for each in labels)
        needed = max(span(row, self.sampling.clip_frames, self.sampling.seam) for row in rows)
        if self.sampling.short == "leave-out" or self.table.num_frames[video] >= needed:
            return video
        return int(generator.choice(np.flatnonzero(self.table.num_frames >= needed)))

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, Tensor]:
        """Return the clip, uint8 of shape (3, T, size, size), and its targets, int64 of shape (2,), (3,) or (6,)."""
        video, plan = self.plan(*key)
        frames = read_frames(self.table[video], plan.frames)
        clip = cut_clip(frames, plan, self.sampling.clip_size)
        return clip, torch.tensor(self.targets(key, video, plan))

    def targets(self, key: SampleKey, video: int, plan: ClipPlan) -> list[int]:
        """Return both labels of a sample, and what else there is to know of it.

        That is, of a validation clip, its number. Of a training clip in a group it is the number of its video; for a
        span, the number of its file and its start and end in milliseconds follow.
        """
        labels, spans = [plan.labels.spatial, plan.labels.temporal], self.table.spans
        if self._balanced is not None:
            return [*labels, key[1]]
        if self.together == 1:
            return labels
        if spans is None:
            return [*labels, video]
        times = (round(1000 * float(column[video])) for column in (spans.starts, spans.ends))
        return [*labels, video, int(spans.sources[video]), *times]


def validation_batches(
    num_videos: int, clips_per_video: int, batch_size: int, *, rank: int = 0, num_processes: int = 1
) -> list[list[SampleKey]]:
    """Return all fixed validation clips in batches. Process ``rank`` gets every ``num_processes``-th clip."""
    keys = [(VALIDATION_EPOCH, number) for number in range(num_videos * clips_per_video)][rank::num_processes]
    return [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
