"""``v3s pretrain``: a folder of videos in, a trained backbone out (paper sections 3 and 4.1)."""

import shlex
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from v3s.backbones.device import choose_compute, fastest_convolutions
from v3s.commands.pretrain_setup import PretrainConfig, PretrainJob, set_up, set_up_training
from v3s.data.clips import BatchOrder, validation_batches
from v3s.features.saved import describe_trained, save_trained
from v3s.files.lock import only_writer
from v3s.files.writing import read_json
from v3s.pretext.model import PretextModel
from v3s.train.config_file import check_resumable, from_yaml, write_yaml
from v3s.train.distributed import launched_processes, process_group, wait_for_all
from v3s.train.fit import fit
from v3s.train.progress import describe
from v3s.train.run import (
    CONFIG,
    MANIFEST,
    RunFolder,
    check_out,
    hash_of_files,
    open_run,
    write_manifest,
)
from v3s.train.stop import TrainingStoppedError
from v3s.train.training import Stream, Training, TrainingJob


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
        if processes.is_first:
            check_out(config.out, resume=config.resume, overwrite=config.overwrite)
        job = set_up(config, backbone=backbone, compute=compute, processes=processes, console=console)
        run = _open(job)
        try:
            return _train(job, run)
        except TrainingStoppedError as stopped:
            command = f"v3s pretrain --out {shlex.quote(config.out)} --resume"
            console.print(f"{stopped}; go on with: {command}", highlight=False, markup=False, soft_wrap=True)
            raise


def _open(job: PretrainJob) -> RunFolder:
    """The run's folder, with config.yaml and manifest.json written, or checked where the run is resumed."""
    config, path = job.config, Path(job.config.out)
    if not job.processes.is_first:
        wait_for_all(job.processes)
        return RunFolder(path)
    run = open_run(path, resume=config.resume, overwrite=config.overwrite)
    files_hash = hash_of_files(job.scan.videos.paths)
    goes_on = config.resume and (path / MANIFEST).is_file()
    if goes_on:
        _check_same(job, run, files_hash)
    write_yaml(path / CONFIG, config)  # also of a run that goes on: it may have been given more epochs
    if not goes_on:
        write_manifest(run, _facts(job, files_hash))
    wait_for_all(job.processes)
    return run


def _check_same(job: PretrainJob, run: RunFolder, files_hash: str) -> None:
    before = from_yaml(PretrainConfig, (run.path / CONFIG).read_text(encoding="utf-8"))
    check_resumable(run.path, before, job.config)
    manifest, now = read_json(run.path / MANIFEST), len(job.scan.reports) + job.scan.videos.num_missing
    if manifest["files_sha256"] != files_hash:
        raise ValueError(
            f"{run.path} cannot be resumed: the list of videos has changed since it began "
            f"({manifest['videos']['listed']:,} videos, now {now:,}); bring it back, or begin a run with another --out"
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
            "partial": counts["partial"],
            "too_short": counts["too short"],
            "train": len(job.train),
            "validation": len(job.validation),
        },
        "left_out": {report.path: f"{report.reason} ({report.stage})" for report in reports if report.is_bad},
    }


def _train(job: PretrainJob, run: RunFolder) -> PretrainResult:
    fastest = fastest_convolutions(job.compute.device) if job.config.compile else nullcontext()
    training = set_up_training(job)
    with fastest:
        fit(_training_job(job, training, run), run)
    wait_for_all(job.processes)
    return _result(run, job.console)


def _training_job(job: PretrainJob, training: Training, run: RunFolder) -> TrainingJob:
    config, processes, model = job.config, job.processes, training.model
    assert isinstance(model, PretextModel)
    rank, shared = processes.rank, {"rank": processes.rank, "num_processes": processes.count}
    return TrainingJob(
        training=training,
        train=Stream(name=f"train {rank}", num_files=len(job.train), read=partial(job.batches, job.train)),
        order=BatchOrder(
            num_samples=len(job.train) * config.train_clips,
            batch_size=config.batch_size,
            num_epochs=config.epochs,
            seed=config.seed,
            num_parts=config.parts,
            **shared,
        ),
        validation=Stream(
            name=f"validation {rank}", num_files=len(job.validation), read=partial(job.batches, job.validation)
        ),
        fixed=validation_batches(len(job.validation), config.validation_clips, config.batch_size, **shared),
        describe=job.train.describe,
        score=_mean_accuracy,
        keep_best=partial(_keep_best, job, run, model),
        checkpoint_seconds=config.checkpoint_seconds,
        resume=config.resume,
        opening=_announcement(job, model),
        console=job.console,
    )


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


def _mean_accuracy(validation: dict[str, float]) -> float:
    """The mean of both heads' accuracies: the paper's "best validation accuracy"."""
    return (validation["accuracy_spatial"] + validation["accuracy_temporal"]) / 2
