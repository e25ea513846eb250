"""A pre-training before it begins: its videos read and divided, its network and all that moves it."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal, cast

import torch
from rich.console import Console
from torch import Tensor, nn

from v3s.backbones import create_backbone, import_backbone
from v3s.backbones.device import Compute, ComputeOptions, divide_cores
from v3s.data.clips import BatchOrder, PretextClips, SampleKey, hold_out
from v3s.data.lists.splits import VideoOptions
from v3s.data.loading import load_batches
from v3s.data.quarantine import Quarantine
from v3s.data.resident import ResidentFrames, can_be_resident, resident_batches
from v3s.data.scan import Scan
from v3s.data.usable import usable_videos
from v3s.options import require_not_negative, require_positive
from v3s.pretext.model import PretextModel, pretext_objective
from v3s.pretext.plan import CLIP_SIZES, ClipOptions, Sampling
from v3s.pretext.task import PretextTask, get_task
from v3s.train.distributed import (
    Processes,
    first_is_done,
    wrap,
)
from v3s.train.training import Training
from v3s.video.store import StoredVideo

BatchNormStatistics = Literal["auto", "local", "sync", "frozen"]
Loading = Literal["auto", "workers", "resident"]


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(ComputeOptions, ClipOptions, VideoOptions):
    """Pre-train a backbone on videos without labels (paper sections 3 and 4.1).

    Attributes:
        out: Folder of the run.
        backbone: c3d, r3d, r2plus1d, s3dg, r3d18 or r2plus1d18.
        width: Multiplies the number of channels of every layer.
        task: The pretext task: v3s, or a row of the paper's Tables 1 and 3.
        epochs: Passes over the videos.
        batch_size: Clips in a step, over all processes.
        learning_rate: Of SGD; default 0.005 for r3d, 0.01 for the others.
        momentum: Of SGD.
        weight_decay: Of SGD.
        patience: Epochs without a better validation loss after which the learning rate falls to a tenth.
        train_clips: Clips of each training video in an epoch; more than 1 gives few videos epochs of some length.
        parts: Divide the training videos into so many parts, of which every batch takes as many clips each. Of several
            processes, whose number must divide it, each then reads and holds its own parts alone.
        validation_videos: Videos held out, drawn by the seed; default the paper's share (800 of 9,537), at most 800.
        validation_clips: Fixed clips of each validation video.
        loading: workers reads in processes; resident holds a store whole in the memory of the GPU (or of the host) and
            makes batches there; auto is resident on a GPU where the store fits into its memory beside the network.
        batch_norm: local takes each process's own statistics, sync all processes', frozen the running ones; auto is
            sync on several GPUs, else local.
        compile: Compile the network with torch.compile; on a GPU also the warp of frames that it holds, and search for
            the fastest convolutions. A run begins half a minute or more later.
        checkpoint_seconds: At most this long between two checkpoints.
        resume: Go on with the run in the folder, or start it if there is none.
        overwrite: Replace the run in the folder.
    """

    out: str
    backbone: str = "r3d"
    width: float = 1.0
    task: str = "v3s"
    epochs: int = 300
    batch_size: int = 32
    learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    patience: int = 50
    train_clips: int = 1
    parts: int = 1
    validation_videos: int | None = None
    validation_clips: int = 1
    loading: Loading = "auto"
    batch_norm: BatchNormStatistics = "auto"
    compile: bool = False
    checkpoint_seconds: float = 300.0
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs", "batch_size", "width", "train_clips", "parts", "validation_clips", "patience")
        require_positive(self, *CLIP_SIZES, "learning_rate")
        require_not_negative(self, "momentum", "weight_decay")
        if self.batch_size % self.parts:
            raise ValueError(f"batch_size is {self.batch_size}; it must be a multiple of the {self.parts} parts")
        if self.parts > 1 and (self.train_clips > 1 or self.short == "fit"):
            raise ValueError("a video belongs to one of several parts: choose --train-clips 1 and --short leave-out")

    @property
    def initial_rate(self) -> float:
        """The learning rate to start with (paper section 4.1.2)."""
        return self.learning_rate or (0.005 if self.backbone == "r3d" else 0.01)


@dataclass(frozen=True, slots=True)
class PretrainJob:
    """A pre-training, read and checked but not begun.

    Attributes:
        config: everything that can be chosen.
        network: the backbone to train.
        task: the two label tables.
        sampling: how clips are cut.
        scan: the videos, and what each was found to be.
        train: clips to train on.
        validation: clips of other videos.
        compute: device and precision.
        processes: this process among the run's.
        console: where to report.
        num_workers: processes that read videos.
        held: the frames of the training and of the validation videos, where they are held in memory.
    """

    config: PretrainConfig
    network: nn.Module
    task: PretextTask
    sampling: Sampling
    scan: Scan
    train: PretextClips
    validation: PretextClips
    compute: Compute
    processes: Processes
    console: Console
    num_workers: int
    held: tuple[ResidentFrames, ResidentFrames] | None

    def batches(
        self, clips: PretextClips, order: BatchOrder | list[list[SampleKey]], quarantine: Quarantine
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Batches of these clips in this order, without the files in quarantine."""
        if self.held:
            frames = self.held[0] if clips is self.train else self.held[1]
            return resident_batches(clips, frames, order, compiled=self.config.compile)
        on_gpu = self.compute.device.type == "cuda"
        return load_batches(clips, order, num_workers=self.num_workers, pin_memory=on_gpu, quarantine=quarantine)


def set_up(
    config: PretrainConfig,
    *,
    backbone: nn.Module | None = None,
    compute: Compute,
    processes: Processes,
    console: Console,
) -> PretrainJob:
    """Read the videos and check everything; writes nothing.

    Raises:
        ValueError: something is wrong with the configuration or the videos.
    """
    _check_processes(config, processes, compute)
    task = get_task(config.task)
    if backbone is not None:
        config = replace(config, backbone=f"{type(backbone).__module__}:{type(backbone).__qualname__}")
    network = backbone if backbone is not None else _network(config)
    sampling = config.sampling(int(network.clip_frames), int(network.clip_size))  # type: ignore[arg-type]
    found = _read_videos(config, task, sampling, processes, console)
    parts = hold_out(found.num_usable, config.validation_videos, config.seed)
    clips = PretextClips(found.usable_table, task, sampling, seed=config.seed)
    train, validation = map(clips.subset, parts)
    _check_train_videos(config, len(train), processes)
    own = range(processes.rank, len(train), processes.count) if config.parts > 1 else range(len(train))
    resident = config.loading == "resident" or (
        config.loading == "auto"
        and can_be_resident(chain(map(train.table.__getitem__, own), validation.table), compute.device)
    )
    num_workers = divide_cores(
        0 if resident else config.workers,
        compute.device,
        training=True,
        stored=isinstance(train.table[0], StoredVideo),
        num_processes=processes.local_count,
    )
    held = None
    if resident:
        held = ResidentFrames(train.table, compute.device, own), ResidentFrames(validation.table, compute.device)
    return PretrainJob(
        config, network, task, sampling, found, train, validation, compute, processes, console, num_workers, held
    )


def _check_processes(config: PretrainConfig, processes: Processes, compute: Compute) -> None:
    """Refuse what these processes cannot share, before any video is read."""
    count = processes.count
    if config.batch_size % count:
        raise ValueError(f"batch_size is {config.batch_size}; it must be a multiple of the {count} processes")
    if config.parts > 1 and config.parts % count:
        raise ValueError(f"parts is {config.parts}; it must be a multiple of the {count} processes that share them")
    if config.batch_norm == "sync" and count > 1 and compute.device.type == "cpu":
        raise ValueError("batch_norm is sync, which torch can do between GPUs alone; choose local or frozen on CPUs")


def _check_train_videos(config: PretrainConfig, num_videos: int, processes: Processes) -> None:
    """Refuse too few training videos for the parts, or for the processes."""
    if config.parts > num_videos:
        raise ValueError(f"parts is {config.parts}, more than the {num_videos} training videos")
    if processes.count > 1 and num_videos * config.train_clips < config.batch_size:
        raise ValueError(
            f"{num_videos} training videos give less than one batch of {config.batch_size}, which "
            f"{processes.count} processes cannot share; choose a smaller --batch-size or more --train-clips"
        )


def _network(config: PretrainConfig) -> nn.Module:
    if ":" not in config.backbone:
        return create_backbone(config.backbone, config.width, seed=config.seed)
    network = import_backbone(config.backbone)
    assert isinstance(network, nn.Module)  # import_backbone checked it
    return network


def _read_videos(
    config: PretrainConfig, task: PretextTask, sampling: Sampling, processes: Processes, console: Console
) -> Scan:
    """Read every file once; of several processes the first reads, the others find what it read."""
    listed = config.list_videos()
    shortest = task.shortest_span(sampling.clip_frames, sampling.seam)
    longest = task.longest_span(sampling.clip_frames, sampling.seam)
    if not processes.is_first:
        first_is_done(processes, "scan")
    found = usable_videos(listed, min_frames=longest if config.short == "leave-out" else shortest, console=console)
    if processes.is_first:
        first_is_done(processes, "scan")
    most = int(found.usable_table.num_frames.max())
    if most < longest:
        raise ValueError(
            f"no video is long enough for every label: the longest has {most} frames, the task needs {longest}; "
            "choose fewer --clip-frames or another --task"
        )
    return found


def _model(job: PretrainJob) -> PretextModel:
    model: nn.Module = PretextModel(job.network, job.task, seed=job.config.seed)
    several_gpus = job.processes.count > 1 and job.compute.device.type == "cuda"
    if job.config.batch_norm == "sync" or (job.config.batch_norm == "auto" and several_gpus):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    assert isinstance(model, PretextModel)
    return job.compute.network(model)


def set_up_training(job: PretrainJob) -> Training:
    """The model on its device, with all that moves it."""
    config, model = job.config, _model(job)
    trained = wrap(model, job.processes, job.compute.device)
    if config.compile:  # not in place: validation, in batches of other sizes, would be compiled anew
        trained = cast(nn.Module, torch.compile(trained))
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.initial_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True,
    )
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=config.patience, min_lr=1e-7)
    return Training(
        model=model,
        trained=trained,
        optimizer=optimizer,
        scheduler=plateau,
        objective=pretext_objective,
        compute=job.compute,
        processes=job.processes,
        frozen_batch_norm=config.batch_norm == "frozen",
    )
