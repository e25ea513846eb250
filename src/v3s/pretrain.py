"""``v3s pretrain``: a folder of videos in, a trained backbone out (paper sections 3 and 4.1)."""

from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from v3s.backbones import create_backbone, import_backbone
from v3s.config import PretrainConfig, check_resumable, from_yaml, to_yaml
from v3s.data.clips import BatchOrder, PretextClips, SampleKey, hold_out, load_batches, validation_batches
from v3s.data.letterbox import detect_all_bars
from v3s.data.scan import Scan
from v3s.data.splits import list_videos
from v3s.data.usable import usable_videos
from v3s.pretext.model import PretextModel, pretext_objective
from v3s.pretext.plan import Sampling
from v3s.pretext.task import PretextTask, get_task
from v3s.train.checkpoint import read_json, write_atomically
from v3s.train.device import Compute, choose_compute, divide_cores
from v3s.train.distributed import (
    Processes,
    first_is_done,
    launched_processes,
    process_group,
    wait_for_all,
    wrap,
)
from v3s.train.fit import Training, fit, resume_position
from v3s.train.lock import only_writer
from v3s.train.loop import evaluate
from v3s.train.progress import Progress, describe
from v3s.train.run import CONFIG, MANIFEST, RunFolder, hash_of_files, open_log, open_run, teller, write_manifest
from v3s.train.stop import TrainingStoppedError
from v3s.train.trained import describe_trained, save_trained


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """What a pre-training reached.

    Attributes:
        run: its folder.
        best_epoch: the epoch (from 1) whose weights were kept.
        validation: the means of that epoch's validation: losses and accuracies of both heads.
    """

    run: Path
    best_epoch: int
    validation: dict[str, float]


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

    def loader(self, clips: PretextClips, order: Any) -> torch.utils.data.DataLoader[tuple[Tensor, Tensor]]:
        """Batches of these clips in this order."""
        on_gpu = self.compute.device.type == "cuda"
        return load_batches(clips, order, num_workers=self.num_workers, pin_memory=on_gpu)


def pretrain(
    config: PretrainConfig, *, backbone: nn.Module | None = None, console: Console | None = None
) -> PretrainResult:
    """Pre-train a backbone and keep the epoch with the best mean validation accuracy.

    Args:
        config: everything that can be chosen.
        backbone: a network of your own to train in place of ``config.backbone``; see `v3s.check_backbone`.
        console: where to report; the terminal by default.

    Returns:
        Where the run is and what it reached.

    Raises:
        ValueError: something is wrong with the configuration or the videos; nothing was written.
        TrainingStoppedError: on SIGINT or SIGTERM, after a checkpoint; go on with ``resume``.
        NonFiniteError: a loss or a gradient was NaN or infinite; no update was made with it.
        ProcessLostError: another process of the run ended.
        SaveError: a file cannot be written; the checkpoint before it is whole.
    """
    launched = launched_processes()
    compute = choose_compute(config.device, config.precision, local_rank=launched.local_rank)
    console = (console or Console()) if launched.is_first else Console(quiet=True)
    alone = only_writer(Path(config.out)) if launched.is_first else nullcontext()
    with alone, process_group(launched, compute.device) as processes:
        job = prepare(config, backbone=backbone, compute=compute, processes=processes, console=console)
        run = _open(job)
        try:
            return _train(job, run)
        except TrainingStoppedError as stopped:
            console.print(f"{stopped}; go on with: v3s pretrain --out {run.path} --resume", highlight=False)
            raise


def prepare(
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
    if config.batch_size % processes.count:
        raise ValueError(f"batch_size {config.batch_size} is no multiple of the {processes.count} processes")
    task = get_task(config.task)
    if backbone is not None:
        config = replace(config, backbone=f"{type(backbone).__module__}:{type(backbone).__qualname__}")
    network = backbone if backbone is not None else _network(config)
    sampling = config.sampling(int(network.clip_frames), int(network.clip_size))  # type: ignore[arg-type]
    found = _read_videos(config, task, sampling, processes, console)
    train, validation = _divide(config, task, sampling, found)
    num_workers = divide_cores(config.workers, compute.device)
    if processes.count > 1 and len(train) * config.train_clips < config.batch_size:
        raise ValueError(
            f"{len(train)} training videos give less than one batch of {config.batch_size}, which "
            f"{processes.count} processes cannot share; choose a smaller --batch-size or more --train-clips"
        )
    return PretrainJob(
        config, network, task, sampling, found, train, validation, compute, processes, console, num_workers
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
    listed = list_videos(
        config.data, splits=config.splits, split=config.split, subset=config.subset, allow_missing=config.allow_missing
    )
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


def _divide(
    config: PretrainConfig, task: PretextTask, sampling: Sampling, found: Scan
) -> tuple[PretextClips, PretextClips]:
    """Training and validation clips of different videos."""
    table = found.usable_table
    parts = hold_out(len(table), config.validation_videos, config.seed)
    bars = detect_all_bars(table) if config.trim_bars else None
    train, validation = (
        PretextClips(
            table.subset(part),
            task,
            sampling,
            seed=config.seed,
            short=config.short,
            bars=None if bars is None else bars[part],
        )
        for part in parts
    )
    return train, validation


def _open(job: PretrainJob) -> RunFolder:
    """The run's folder, with config.yaml and manifest.json written, or checked where the run is resumed."""
    config, path = job.config, Path(job.config.out)
    if not job.processes.is_first:
        wait_for_all(job.processes)
        return RunFolder(path)
    run = open_run(path, resume=config.resume, overwrite=config.overwrite)
    files_hash = hash_of_files(job.scan.videos.paths)
    if config.resume and (path / MANIFEST).is_file():
        _check_same(config, run, files_hash)
    else:
        text = to_yaml(config)
        write_atomically(path / CONFIG, lambda beside: beside.write_text(text, encoding="utf-8"))
        write_manifest(run, _facts(job, files_hash))
    wait_for_all(job.processes)
    return run


def _check_same(config: PretrainConfig, run: RunFolder, files_hash: str) -> None:
    before = from_yaml(PretrainConfig, (run.path / CONFIG).read_text(encoding="utf-8"))
    check_resumable(run.path, before, config)
    old_hash = read_json(run.path / MANIFEST)["files_sha256"]
    if old_hash != files_hash:
        raise ValueError(
            f"{run.path} cannot be resumed: the list of videos has changed since it began "
            f"(hash {old_hash[:12]}, now {files_hash[:12]})"
        )


def _facts(job: PretrainJob, files_hash: str) -> dict[str, Any]:
    """What manifest.json says of this run beside the environment."""
    reports, listed = job.scan.reports, job.scan.videos
    counts = Counter(report.verdict for report in reports)
    return {
        "seed": job.config.seed,
        "processes": job.processes.count,
        "workers": job.num_workers,
        "compute": str(job.compute),
        "source": listed.source,
        "files_sha256": files_hash,
        "videos": {
            "listed": len(reports) + listed.num_missing,
            "missing": listed.num_missing,
            "unreadable": counts["unreadable"],
            "too_short": counts["too short"],
            "train": len(job.train),
            "validation": len(job.validation),
        },
        "unreadable": {report.path: report.reason for report in reports if report.verdict == "unreadable"},
    }


def _train(job: PretrainJob, run: RunFolder) -> PretrainResult:
    config, processes = job.config, job.processes
    training = prepare_training(job)
    model = training.model
    assert isinstance(model, PretextModel)
    with open_log(run if processes.is_first else None) as log:
        tell = teller(log, job.console)
        position = resume_position(training, run, resume=config.resume, tell=tell)
        order = BatchOrder(
            num_samples=len(job.train) * config.train_clips,
            batch_size=config.batch_size,
            num_epochs=config.epochs,
            seed=config.seed,
            first_epoch=position.epoch,
            first_step=position.step,
            rank=processes.rank,
            num_processes=processes.count,
        )
        fixed = validation_batches(
            len(job.validation),
            config.validation_clips,
            config.batch_size,
            rank=processes.rank,
            num_processes=processes.count,
        )
        validation_loader = job.loader(job.validation, fixed)
        tell(_announcement(job, model))
        finished = position.epoch * order.steps_per_epoch + position.step
        with Progress(config.epochs, order.steps_per_epoch, finished, log, job.console) as progress:
            fit(
                training,
                run,
                position,
                batches=iter(job.loader(job.train, order)),
                steps_per_epoch=order.steps_per_epoch,
                num_epochs=config.epochs,
                describe_batch=lambda epoch, step: [
                    describe_sample(job.train, key) for key in order.batch(epoch, step)
                ],
                validate=lambda: evaluate(model, validation_loader, pretext_objective, job.compute, processes),
                score=mean_accuracy,
                keep_best=lambda epoch, validation: _keep_best(job, run, model, {"epoch": epoch, **validation}),
                checkpoint_seconds=config.checkpoint_seconds,
                progress=progress,
            )
    wait_for_all(processes)
    return _result(run, job.console)


def _keep_best(job: PretrainJob, run: RunFolder, model: PretextModel, results: dict[str, Any]) -> None:
    save_trained(
        run.path,
        model,
        backbone=job.config.backbone,
        width=job.config.width,
        task=job.task,
        sampling=job.sampling,
        results=results,
    )


def describe_sample(clips: PretextClips, key: SampleKey) -> dict[str, Any]:
    """Everything that was drawn for a sample, as plain values."""
    video, plan = clips.plan(*key)
    return {
        "index": key[1],
        "video": clips.table[video].path,
        "frames": list(plan.frames),
        "to_clip": plan.to_clip.matrix.tolist(),
        "labels": [plan.labels.spatial, plan.labels.temporal],
    }


def _announcement(job: PretrainJob, model: PretextModel) -> str:
    num_parameters = sum(parameter.numel() for parameter in model.backbone.parameters())
    sampling, task = job.sampling, job.task
    return (
        f"{job.config.backbone}, width {job.config.width:g}, {num_parameters:,} parameters, on {job.compute}; "
        f"clips of {sampling.clip_frames} x {sampling.clip_size} x {sampling.clip_size}; "
        f"{len(job.train):,} training and {len(job.validation):,} validation videos; "
        f"chance is {1 / len(task.spatial):.1%} (spatial) and {1 / len(task.temporal):.1%} (temporal)"
    )


def _result(run: RunFolder, console: Console) -> PretrainResult:
    results = dict(describe_trained(run.path).results)
    best_epoch = int(results.pop("epoch"))
    text = f"best epoch {best_epoch}: validation {describe(results)}\n{run.path / 'backbone.safetensors'}"
    console.print(text, highlight=False, soft_wrap=True)
    return PretrainResult(run.path, best_epoch, results)


def _model(job: PretrainJob) -> PretextModel:
    model: nn.Module = PretextModel(job.network, job.task, seed=job.config.seed)
    several_gpus = job.processes.count > 1 and job.compute.device.type == "cuda"
    if job.config.batch_norm == "sync" or (job.config.batch_norm == "auto" and several_gpus):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    model.to(job.compute.device)
    model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    assert isinstance(model, PretextModel)
    return model


def prepare_training(job: PretrainJob) -> Training:
    """The model on its device, with all that moves it."""
    config, model = job.config, _model(job)
    trained = wrap(model, job.processes, job.compute.device)
    if config.compile:
        trained.compile()
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


def mean_accuracy(validation: dict[str, float]) -> float:
    """The mean of both heads' accuracies: the paper's "best validation accuracy"."""
    return (validation["accuracy_spatial"] + validation["accuracy_temporal"]) / 2
