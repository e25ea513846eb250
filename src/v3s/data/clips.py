"""Videos to training clips: which sample is drawn when, and how it is made.

A sample is named by (epoch, index). Its generator comes from (seed, epoch, index) alone, so worker counts, sharding
over processes and exact resume need no code of their own.
"""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from v3s.data.index_table import IndexTable
from v3s.pretext.cut import cut_clip
from v3s.pretext.plan import (
    NO_BARS,
    Bars,
    ClipPlan,
    Labels,
    Sampling,
    draw_labels,
    plan_clip,
    sample_generator,
)
from v3s.pretext.task import PretextTask
from v3s.pretext.temporal import span
from v3s.video.decode import read_frames

Short = Literal["leave-out", "fit"]
SampleKey = tuple[int, int]
"""(epoch, index) of a sample."""

VALIDATION_EPOCH = 2**32 - 1  # the epoch whose clips validation sees: drawn once, the same at every pass
PAPER_VALIDATION = 800
PAPER_SHARE = 800 / 9537  # of UCF101's first training split
_ORDER, _HOLD_OUT = 2, 3  # domains that keep these draws apart from the samples' own


def seed_problem(seed: int) -> str | None:
    """Why a number cannot be a seed, or None."""
    return None if 0 <= seed < 2**32 else f"seed is {seed}; it must be in 0 .. 2**32 - 1"


def hold_out(num_videos: int, num_validation: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split video numbers into training and validation, both sorted; None holds out the paper's share.

    Raises:
        ValueError: nothing would be left to train on.
    """
    if num_validation is None:
        num_validation = min(PAPER_VALIDATION, max(1, round(PAPER_SHARE * num_videos)))
    if not 0 < num_validation < num_videos:
        raise ValueError(
            f"{num_validation} of {num_videos} usable videos were asked for as validation videos: training and "
            "validation need at least one each"
        )
    order = np.random.default_rng((seed, 0, 0, _HOLD_OUT)).permutation(num_videos)
    return np.sort(order[num_validation:]), np.sort(order[:num_validation])


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOrder:
    """The batches of a whole run, in order, as one stream: iterate it to get lists of sample keys.

    Every epoch is a seeded permutation of all samples, cut into batches of ``batch_size``; a last incomplete batch is
    left for the next epochs, unless it is the only one. Process ``rank`` of ``num_processes`` gets its share of each.
    """

    num_samples: int
    batch_size: int
    num_epochs: int
    seed: int
    first_epoch: int = 0
    first_step: int = 0
    rank: int = 0
    num_processes: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return max(1, self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Yield this process's share of every batch, from (first_epoch, first_step) on."""
        for epoch in range(self.first_epoch, self.num_epochs):
            order = np.random.default_rng((self.seed, epoch, 0, _ORDER)).permutation(self.num_samples)
            for step in range(self.first_step if epoch == self.first_epoch else 0, self.steps_per_epoch):
                batch = order[step * self.batch_size : (step + 1) * self.batch_size]
                yield [(epoch, int(index)) for index in batch[self.rank :: self.num_processes]]


class PretextClips(Dataset[tuple[Tensor, Tensor]]):
    """Clips of the pretext task, indexed by (epoch, index): the decode, the warp and nothing random but the key.

    Args:
        table: the videos; each sample index is a video of it.
        task: the label tables.
        sampling: how clips are cut.
        seed: of the run.
        short: "leave-out" expects every video to be long enough for the longest span; "fit" draws the labels first and,
            where the sample's video is too short for them, another among the videos that fit.
        bars: int32, shape (len(table), 4), borders to trim of every video, or None.
    """

    def __init__(
        self,
        table: IndexTable,
        task: PretextTask,
        sampling: Sampling,
        *,
        seed: int,
        short: Short = "leave-out",
        bars: np.ndarray | None = None,
    ) -> None:
        self.table, self.task, self.sampling = table, task, sampling
        self.seed, self.short, self.bars = seed, short, bars

    def __len__(self) -> int:
        return len(self.table)

    def plan(self, epoch: int, index: int) -> tuple[int, ClipPlan]:
        """The video and the plan of a sample."""
        generator = sample_generator(self.seed, epoch, index)
        labels = draw_labels(self.task, self.sampling.label_prior, generator)
        video = self._video(index % len(self.table), labels, generator)
        source = self.table[video]
        plan = plan_clip(
            self.task,
            labels,
            num_frames=source.num_frames,
            width=source.width,
            height=source.height,
            sampling=self.sampling,
            generator=generator,
            bars=self._bars(video),
        )
        return video, plan

    def _bars(self, video: int) -> Bars:
        return NO_BARS if self.bars is None else Bars(*self.bars[video].tolist())

    def _video(self, video: int, labels: Labels, generator: np.random.Generator) -> int:
        needed = span(self.task.temporal[labels.temporal], self.sampling.clip_frames, self.sampling.seam)
        if self.short == "leave-out" or self.table.num_frames[video] >= needed:
            return video
        return int(generator.choice(np.flatnonzero(self.table.num_frames >= needed)))

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, Tensor]:
        """The clip, uint8 of shape (3, T, size, size), and its two labels, int64 of shape (2,)."""
        video, plan = self.plan(*key)
        frames = read_frames(self.table[video], plan.frames)
        clip = cut_clip(frames, plan, self.sampling.clip_size)
        return clip, torch.tensor([plan.labels.spatial, plan.labels.temporal])


def load_batches(
    clips: Dataset[tuple[Tensor, Tensor]],
    order: BatchOrder | Sequence[list[SampleKey]],
    *,
    num_workers: int,
    pin_memory: bool = False,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """A loader over given batches. Workers open files themselves and use one thread each."""
    return DataLoader(
        clips,
        batch_sampler=order,
        num_workers=num_workers,
        worker_init_fn=start_worker,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
    )


def start_worker(worker: int) -> None:
    """What a process that reads videos does first: one thread, and no say about Ctrl-C."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: the main one decides when to stop


def validation_batches(
    num_videos: int, clips_per_video: int, batch_size: int, *, rank: int = 0, num_processes: int = 1
) -> list[list[SampleKey]]:
    """The fixed validation clips in batches, none left out. Process ``rank`` gets every ``num_processes``-th clip."""
    keys = [(VALIDATION_EPOCH, number) for number in range(num_videos * clips_per_video)][rank::num_processes]
    return [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
