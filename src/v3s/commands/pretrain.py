"""``v3s pretrain``: a folder of videos in, a trained backbone out (paper sections 3 and 4.1)."""

from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from v3s.backbones import create_backbone, import_backbone
from v3s.backbones.device import Compute, choose_compute, divide_cores, fastest_convolutions
from v3s.backbones.stages import freeze_stages
from v3s.commands.pretrain_result import PretrainResult, judge_run
from v3s.commands.report.answers import Answers
from v3s.commands.report.report import RunReport
from v3s.data.clips import BatchOptions, BatchOrder, PretextClips, SampleKey, validation_batches
from v3s.data.groups import GroupOptions, hold_out_rows, number_groups
from v3s.data.lists.splits import VideoOptions
from v3s.data.loading import load_batches
from v3s.data.quarantine import Quarantine
from v3s.data.resident import Loading, ResidentFrames, load_resident_frames, resident_batches
from v3s.data.scan import Scan
from v3s.data.usable import require_length, usable_videos
from v3s.features.saved import InitialWeights, Trained, load_saved, refuse_other_kind, save_trained
from v3s.features.warm_start import facts_of_start, refuse_weights, warm_start
from v3s.files.lock import only_writer
from v3s.files.text import counted
from v3s.options import require_not_negative, require_positive
from v3s.pretext.model import PretextModel, mean_accuracy, pretext_objective
from v3s.pretext.objective import ObjectiveOptions
from v3s.pretext.plan import ClipOptions, Sampling
from v3s.pretext.task import PretextTask, get_task, needs_of_shorter_clips
from v3s.train.callbacks import Callback
from v3s.train.contents import contents_of
from v3s.train.distributed import Processes, check_same, first_is_done, launched_processes, process_group, wait_for_all
from v3s.train.fit import fit
from v3s.train.optimizer import Schedule, TrainingOptions, loggers, sgd
from v3s.train.run import RunFolder, check_out, hash_of_files, says_how_to_resume, shared_options, take_run
from v3s.train.training import BatchNormStatistics, Stream, Training, TrainingJob, frozen_modules, on_devices, score_by
from v3s.video.store import StoredVideo


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingOptions, BatchOptions, ObjectiveOptions, ClipOptions, GroupOptions, VideoOptions):
    """Pre-train a backbone on videos without labels (paper sections 3 and 4.1).

    Attributes:
        out: Folder of the run.
        backbone: c3d, r3d, r2plus1d, s3dg, r3d18 or r2plus1d18.
        width: Multiplier for the number of channels of every layer.
        task: The pretext task: v3s; a row of the paper's Table 3 (ss, sp, ss+sp, ts, tp, ts+tp) or Table 1 (ss-1.9,
            ts-4, ...); or v3s-short, whose labels short videos can show (22 frames for --clip-frames 8).
        minutes: For the recipe own: how long the training may take; a message says if it takes a quarter more or less.
            Default: what 200,000 clips take.
        resume: Resume the run in the folder, or start it if there is none.
        overwrite: Replace the run in the folder.

    More options:
        learning_rate: Learning rate of SGD. Default: 0.005 for r3d, 0.01 for the others.
        loading: workers reads in processes; resident keeps the whole store in the memory of the GPU (or host) and makes
            batches there; auto is resident on a GPU if the store fits in its memory next to the network, else workers.
        init: A run, its folder "last", or what v3s convert wrote: start from the weights of its backbone, which must
            have the same name and width. Clips are normalised as these weights expect it.
        batch_norm: Statistics of batch norm: local uses those of each process, sync those of all processes, frozen the
            running averages; auto is sync on several GPUs, else local.
        statistics_clips: Training clips, at most one epoch, on which batch norm's statistics of the saved weights are
            re-estimated at the end, after the epoch to keep is chosen; 0 keeps the running averages. Not for
            --batch-norm frozen.
        compile: Compile the network with torch.compile; on a GPU, also compile the warp of resident frames and search
            for the fastest convolutions. A run then starts half a minute or more later.
    """

    out: str
    backbone: str = "r3d"
    width: float = 1.0
    task: str = "v3s"
    epochs: int = 300
    minutes: float | None = None
    learning_rate: float | None = None
    loading: Loading = "auto"
    init: str | None = None
    batch_norm: BatchNormStatistics = "auto"
    statistics_clips: int = 1024
    compile: bool = False
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_weights(self.backbone)
        require_positive(self, "width", "learning_rate", "minutes")
        self.check_clips()
        require_not_negative(self, "statistics_clips")
        self.check_batches()
        self.check_drawing(self)
        self.check_objective(self.clips_together)

    @property
    def initial_rate(self) -> float:
        """The learning rate to start with (paper section 4.1.2)."""
        return self.learning_rate or (0.005 if self.backbone == "r3d" else 0.01)

    def divide(self, found: Scan) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of the usable videos that are trained on, and of those that are validated on."""
        return hold_out_rows(found.usable_table, self.validation_videos, self.seed, self.groups_of(found))


@dataclass(frozen=True, slots=True)
class PretrainJob:
    """A pre-training that is checked but not started; its videos have been read.

    Attributes:
        config: all options.
        network: the backbone to train.
        started: the weights that it starts from; None if they are random.
        task: the two label tables.
        sampling: how clips are cut.
        scan: the videos, with the verdict on each.
        train: clips to train on.
        validation: clips of other videos.
        compute: device and precision.
        processes: this process among those of the run.
        console: where to print.
        num_workers: processes that read videos.
        held_out: the rows of the usable videos that are validated on.
        resident: the frames of the training and validation videos if they are kept in memory, else None.
    """

    config: PretrainConfig
    network: nn.Module
    started: InitialWeights | None
    task: PretextTask
    sampling: Sampling
    scan: Scan
    train: PretextClips
    validation: PretextClips
    compute: Compute
    processes: Processes
    console: Console
    num_workers: int
    held_out: NDArray[np.int64]
    resident: tuple[ResidentFrames, ResidentFrames] | None

    def batches(
        self, clips: PretextClips, order: BatchOrder | list[list[SampleKey]], quarantine: Quarantine
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Batches of these clips in this order, without the files in quarantine."""
        if self.resident:
            frames = self.resident[0] if clips is self.train else self.resident[1]
            return resident_batches(clips, frames, order, compiled=self.config.compile)
        on_gpu = self.compute.device.type == "cuda"
        return load_batches(clips, order, num_workers=self.num_workers, pin_memory=on_gpu, quarantine=quarantine)


def pretrain(
    config: PretrainConfig,
    *,
    backbone: nn.Module | None = None,
    callbacks: Sequence[Callback] = (),
    console: Console | None = None,
) -> PretrainResult:
    """Pre-train a backbone; ``keep`` says which epoch's weights are kept.

    Args:
        config: all options.
        backbone: your own network, to train instead of ``config.backbone``; see `v3s.check_backbone`.
        callbacks: receive the numbers of every step and epoch, in the first process; see `v3s.Callback`.
        console: where to print; the terminal by default.

    Raises:
        ValueError: the configuration or the videos are invalid; nothing was written.
        TrainingStoppedError: on SIGINT or SIGTERM, after a checkpoint; ``resume`` continues from it.
        NonFiniteError: a loss or a gradient was NaN or infinite; no update was made with it.
        ProcessLostError: another process of the run ended.
        SaveError: a file cannot be written; the previous checkpoint is intact.
    """
    launched = launched_processes()
    compute = choose_compute(config.device, config.precision, local_rank=launched.local_rank)
    console = (console or Console()) if launched.is_first else Console(quiet=True)
    callbacks = (*callbacks, *loggers(config, Path(config.out)))
    lock = only_writer(Path(config.out)) if launched.is_first else nullcontext()
    with lock, process_group(launched, compute.device) as processes:
        if processes.is_first:
            refuse_other_kind(Path(config.out), "pretrained")
            check_out(config.out, resume=config.resume, overwrite=config.overwrite)
        job = set_up_pretraining(config, backbone=backbone, compute=compute, processes=processes, console=console)
        with says_how_to_resume("pretrain", config.out, console):
            return _train(job, _open(job), callbacks)


def set_up_pretraining(
    config: PretrainConfig,
    *,
    backbone: nn.Module | None = None,
    compute: Compute,
    processes: Processes,
    console: Console,
) -> PretrainJob:
    """Read the videos and check everything; writes nothing.

    Raises:
        ValueError: the configuration or the videos are invalid.
    """
    config.check_shares(processes.count)
    if config.contrast and config.batch_size // processes.count < 2 * config.clips_together:
        least = 2 * config.clips_together * processes.count
        raise ValueError(f"batch_size is {config.batch_size}; contrast needs two videos per process, at least {least}")
    if config.batch_norm == "sync" and processes.count > 1 and compute.device.type == "cpu":
        raise ValueError("batch_norm is sync, which torch supports only on GPUs; choose local or frozen on CPUs")
    task = get_task(config.task)
    if backbone is not None:
        config = replace(config, backbone=f"{type(backbone).__module__}:{type(backbone).__qualname__}")
    network = backbone if backbone is not None else _network(config)
    run = RunFolder(Path(config.out)) if config.resume else None
    started = warm_start(network, config.backbone, config.width, config.init, run, console)
    freeze_stages(network, config.freeze or ())
    sampling = config.sampling(int(network.clip_frames), int(network.clip_size))  # type: ignore[arg-type]
    scanned = _read_videos(config, task, sampling, processes, console)
    parts = config.divide(scanned)
    clips = PretextClips(scanned.usable_table, task, sampling, seed=config.seed, together=config.clips_together)
    train, validation = map(clips.subset, parts)
    validation = validation.balanced(len(validation) * config.validation_clips)
    config.check_train_videos(len(train), processes.count)
    own = range(processes.rank, len(train), processes.count) if config.parts > 1 else range(len(train))
    stored, on_machine = isinstance(train.table.source(0), StoredVideo), processes.local_count
    resident = load_resident_frames(train.table, validation.table, own, compute.device, config.loading, on_machine)
    num_workers = divide_cores(
        0 if resident else config.workers, compute.device, training=True, stored=stored, num_processes=on_machine
    )
    return PretrainJob(
        config, network, started, task, sampling, scanned, train, validation, compute, processes, console,
        num_workers, parts[1], resident,
    )  # fmt: skip


def _network(config: PretrainConfig) -> nn.Module:
    if ":" not in config.backbone:
        return create_backbone(config.backbone, config.width, seed=config.seed)
    return cast(nn.Module, import_backbone(config.backbone))


def _read_videos(
    config: PretrainConfig, task: PretextTask, sampling: Sampling, processes: Processes, console: Console
) -> Scan:
    """Read every file once; with several processes, the first one reads and the others use its results."""
    listed = config.list_videos()
    number_groups(listed.paths, config.group)  # fails before the videos are read
    shortest = task.shortest_span(sampling.clip_frames, sampling.seam)
    longest = task.longest_span(sampling.clip_frames, sampling.seam)
    if not processes.is_first:
        first_is_done(processes, "scan")
    scanned = usable_videos(
        listed,
        min_frames=longest if config.short == "leave-out" else shortest,
        console=console,
        workers=config.workers,
        shorter=needs_of_shorter_clips(config.task, sampling.clip_frames),
    )
    if processes.is_first:
        first_is_done(processes, "scan")
    require_length(scanned, longest)
    return scanned


def _open(job: PretrainJob) -> RunFolder:
    """Open the folder of the run; with several processes, the first one creates it."""
    run, scan = RunFolder(Path(job.config.out)), job.scan
    names = scan.videos.names
    videos = contents_of((names[place] for place in scan.usable), scan.usable_table)
    check_same(shared_options(job.config), "options", job.processes)
    check_same(videos, "usable videos", job.processes)
    check_same({job.started.weights: job.started.fingerprint} if job.started else {}, "weights", job.processes)
    if job.processes.is_first:
        run = take_run(job.config, _facts(job), videos)
    wait_for_all(job.processes)
    return run


def _facts(job: PretrainJob) -> dict[str, Any]:
    """What manifest.json records of this run, in addition to the environment."""
    return {
        "kind": "pretrained",
        "seed": job.config.seed,
        "processes": job.processes.count,
        "workers": job.num_workers,
        "compute": str(job.compute),
        "source": job.scan.videos.source,
        "files_sha256": hash_of_files(job.scan.videos.names),
        "noun": job.scan.videos.noun,
        "videos": {**job.scan.counts, "train": len(job.train), "validation": len(job.validation)},
        **facts_of_start(job.started, job.network),
        "left_out": {report.name: f"{report.reason} ({report.stage})" for report in job.scan.reports if report.is_bad},
    }


def _train(job: PretrainJob, run: RunFolder, callbacks: Sequence[Callback]) -> PretrainResult:
    answers, fastest = Answers(), fastest_convolutions(job.compute.device) if job.config.compile else nullcontext()
    steps = _training_job(job, replace(pretraining(job), validation_objective=answers))
    report = RunReport(
        run, job.scan, job.validation, job.held_out, job.config.groups_of(job.scan), steps.order, answers,
        job.processes, network=f"{job.config.backbone}, width {job.config.width:g}", keep=job.config.keep,
        num_train=len(job.train), can_go_on=job.config.can_go_on,
    )  # fmt: skip
    with fastest, report.page.written_when_stopped():
        fit(replace(steps, callbacks=callbacks, after_epoch=report.after_epoch), run)
    wait_for_all(job.processes)
    result = judge_run(
        run, job.task, num_clips=len(job.validation) * job.config.validation_clips, noun=job.scan.videos.noun,
        clips_per_epoch=steps.order.clips_per_epoch, can_go_on=job.config.can_go_on, console=job.console,
        is_first=job.processes.is_first,
    )  # fmt: skip
    report.finish(steps, None if ":" in job.config.backbone else _network(job.config))
    return result


def pretraining(job: PretrainJob) -> Training:
    """The model on its devices, with its optimizer, schedule and objective."""
    config = job.config
    model, trained = on_devices(
        PretextModel(job.network, job.task, seed=config.seed, projects=config.contrast > 0),
        job.compute,
        job.processes,
        batch_norm=config.batch_norm,
        compiled=config.compile,
    )
    optimizer = sgd(model, config.initial_rate, config)
    return Training(
        model=model,
        trained=trained,
        optimizer=optimizer,
        schedule=Schedule(optimizer, config),
        objective=config.objective(),
        validation_objective=pretext_objective,
        compute=job.compute,
        processes=job.processes,
        frozen=frozen_modules(model, config.freeze, config.batch_norm),
    )


def _training_job(job: PretrainJob, training: Training) -> TrainingJob:
    config, processes, model = job.config, job.processes, training.model
    assert isinstance(model, PretextModel)
    rank, shared = processes.rank, {"rank": processes.rank, "num_processes": processes.count}
    order = config.order(len(job.train), num_epochs=config.epochs, seed=config.seed, **shared)
    return TrainingJob(
        training=training,
        train=Stream(name=f"train {rank}", num_files=len(job.train), read=partial(job.batches, job.train)),
        order=order,
        validation=Stream(
            name=f"validation {rank}", num_files=len(job.validation), read=partial(job.batches, job.validation)
        ),
        fixed=validation_batches(len(job.validation), config.validation_clips, config.batch_size, **shared),
        describe=job.train.describe,
        score=score_by(config.keep, mean_accuracy),
        save=partial(_save, job, model),
        load=partial(load_saved, model=model),
        save_start=job.started is not None,
        statistics_clips=config.statistics_clips,
        minutes=config.minutes,
        checkpoint_seconds=config.checkpoint_seconds,
        stop_early=config.stop_early,
        resume=config.resume,
        opening=_announcement(job, model, order.clips_per_epoch),
        console=job.console,
    )


def _save(job: PretrainJob, model: PretextModel, folder: Path, results: dict[str, Any]) -> None:
    trained = Trained(
        kind="pretrained", backbone=job.config.backbone, width=job.config.width, fps=job.config.fps,
        window=job.config.window, mask=job.scan.videos.spans.mask, task=job.task, sampling=job.sampling,
        results=results, init=job.started,
    )  # fmt: skip
    save_trained(folder, model, trained)


def _announcement(job: PretrainJob, model: PretextModel, clips_per_epoch: int) -> str:
    num_parameters = sum(parameter.numel() for parameter in model.backbone.parameters())
    sampling, task, together = job.sampling, job.task, job.config.clips_together
    left = job.scan.num_usable - len(job.train) - len(job.validation)
    groups = f"{together} clips of a video together{job.config.beyond_text}; " if together > 1 else ""
    return (
        f"{job.config.backbone}, width {job.config.width:g}, {num_parameters:,} parameters, on {job.compute}; "
        f"clips of {sampling.clip_frames} x {sampling.clip_size} x {sampling.clip_size}; "
        f"{len(job.train):,} training and {counted(len(job.validation), 'validation video')}"
        f"{f', {left:,} close to both unused' if left else ''}; "
        f"{job.config.epochs * clips_per_epoch:,} training clips in all; {groups}{job.config.frozen_text}"
        f"chance is {1 / len(task.spatial):.1%} (spatial) and {1 / len(task.temporal):.1%} (temporal)"
    )
