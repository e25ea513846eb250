"""``v3s finetune``: train a backbone to recognise actions, then test it with ten clips a video (paper section 4.3).

The epoch to keep is chosen on held-out training videos; the test videos are read only after that, once.
"""

from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from rich.console import Console
from torch import Tensor

from v3s.backbones.device import Compute, choose_compute, divide_cores
from v3s.backbones.stages import freeze_stages
from v3s.data.clips import BatchOrder, SampleKey, validation_batches
from v3s.data.groups import hold_out_rows
from v3s.data.loading import load_batches
from v3s.data.quarantine import Quarantine
from v3s.data.usable import report_padded
from v3s.data.views import View
from v3s.features.encoder import Feature
from v3s.features.saved import describe_trained, refuse_foundation, refuse_other_kind
from v3s.features.source import Source, open_source
from v3s.files.lock import only_writer
from v3s.files.reading import read_value
from v3s.files.text import counted, print_table, say
from v3s.files.weights import CLASSIFIER
from v3s.files.writing import write_json
from v3s.options import require_positive
from v3s.pages.templates import write_page
from v3s.protocols.finetune_page import recognition_page, recognition_table
from v3s.protocols.labelled import LabelledOptions, labelled_parts
from v3s.protocols.labelled.division import LISTS
from v3s.protocols.labelled.parts import Parts, keep_division, report_chance
from v3s.protocols.recognition import (
    LabelledClips,
    RecognitionModel,
    RecognitionResult,
    RecognitionScores,
    recognition_objective,
)
from v3s.recognizers.calibration import calibrate
from v3s.recognizers.classifier import Recognition, save_answers, save_recognizer
from v3s.recognizers.recognizer import open_recognizer
from v3s.train.callbacks import Callback
from v3s.train.contents import contents_of
from v3s.train.distributed import Processes
from v3s.train.fit import fit
from v3s.train.optimizer import Keep, Schedule, TrainingOptions, loggers, sgd
from v3s.train.run import (
    FREE_ON_RESUME,
    MANIFEST,
    METRICS,
    REPORT,
    RESULT,
    RunFolder,
    check_out,
    hash_of_files,
    read_metrics,
    says_how_to_resume,
    take_run,
)
from v3s.train.running_page import RunningPage
from v3s.train.training import Stream, Training, TrainingJob, frozen_modules, score_by
from v3s.video.store import StoredVideo

_FREE = {*FREE_ON_RESUME, "test_clips", "average"}  # these do not affect the weights


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainingOptions, LabelledOptions):
    """Fine-tune a backbone to recognise actions, then test it on ten clips per video (paper section 4.3, Table 2).

    Attributes:
        backbone: Folder of a run, a safetensors file, or, to train from scratch, random:NAME[@WIDTH] or random:RUN.
        out: Folder of the run.
        batch_size: Clips per step.
        resume: Resume the run in the folder, or start it if there is none.
        overwrite: Replace the run in the folder.

    More options:
        clip_frames: Frames per clip. Default: what the backbone was trained on (for s3dg, the paper uses 64).
        clip_size: Side of a clip in pixels. Default: what the backbone was trained on.
        learning_rate: Learning rate of SGD. Default: 0.001 (s3dg: 0.01).
        flip: Mirror half of the training clips.
        validation_videos: Training videos held out to choose the epoch that is kept. Default: the paper's share.
        test_clips: Clips per test video.

    For ablations:
        average: What to average over the clips of a video: probabilities (as in the paper) or logits.
    """

    data: Annotated[str, "DATA"] = field()
    out: str
    backbone: str
    clip_frames: int | None = None
    clip_size: int | None = None
    epochs: int = 160
    batch_size: int = 8
    learning_rate: float | None = None
    schedule: Literal["plateau", "cosine", "step"] = "step"
    keep: Keep = "accuracy"
    flip: bool = False
    validation_videos: int | None = None
    test_clips: int = 10
    average: Literal["probabilities", "logits"] = "probabilities"
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "batch_size", "test_clips", "clip_frames", "clip_size", "learning_rate")


@dataclass(frozen=True, slots=True)
class FinetuneJob:
    """A fine-tuning run whose videos are read and checked, before it starts.

    Attributes:
        config: the options.
        source: the backbone to start from.
        view: how clips are cut.
        parts: the labelled videos.
        train: clips to train on.
        validation: clips of the held-out training videos.
        compute: device and precision.
        num_workers: processes that read videos.
        console: where to report.
    """

    config: FinetuneConfig
    source: Source
    view: View
    parts: Parts
    train: LabelledClips
    validation: LabelledClips
    compute: Compute
    num_workers: int
    console: Console

    def batches(
        self, clips: LabelledClips, order: BatchOrder | list[list[SampleKey]], quarantine: Quarantine
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield batches of these clips in this order, without the files in quarantine."""
        on_gpu = self.compute.device.type == "cuda"
        return load_batches(clips, order, num_workers=self.num_workers, pin_memory=on_gpu, quarantine=quarantine)


def finetune(
    config: FinetuneConfig, *, callbacks: Sequence[Callback] = (), console: Console | None = None
) -> RecognitionResult:
    """Fine-tune a backbone with a new linear head, and test the weights of the epoch that is kept.

    Writes the run's folder: the weights, their description, metrics.jsonl, result.json and report.html.

    Args:
        config: the options.
        callbacks: receive the numbers of every step and epoch; see `v3s.Callback`.
        console: where to report; the terminal by default.

    Raises:
        ValueError: the configuration or the videos are invalid; nothing was written.
        TrainingStoppedError: on SIGINT or SIGTERM, after a checkpoint; ``resume`` continues from it.

    Source: paper section 4.3.
    """
    console = console or Console()
    callbacks = (*callbacks, *loggers(config, Path(config.out)))
    with only_writer(Path(config.out)):
        refuse_other_kind(Path(config.out), "recognizer")
        check_out(config.out, resume=config.resume, overwrite=config.overwrite)
        job = set_up_finetuning(config, console)
        with says_how_to_resume("finetune", config.out, console):
            run = _open(job)
            page = RunningPage(partial(_write_page, job, run))
            with page.written_when_stopped():
                fit(replace(_training_job(job), callbacks=callbacks, after_epoch=page.after_epoch), run)
            return _test(job, run)


def set_up_finetuning(config: FinetuneConfig, console: Console) -> FinetuneJob:
    """Read the videos and check everything, without writing any file.

    Raises:
        ValueError: the configuration or the videos are invalid.
    """
    compute = choose_compute(config.device, config.precision)
    refuse_foundation(config.backbone)
    source = open_source(config.backbone, seed=config.seed)
    view = source.view(
        clip_frames=config.clip_frames,
        clip_size=config.clip_size,
        num_clips=config.test_clips,
        fps=config.fps,
        window=config.window,
        mask=config.mask,
    )
    freeze_stages(source.backbone, config.freeze or ())
    parts = labelled_parts(config, seed=config.seed, workers=config.workers, console=console, divides=True, view=view)
    report_padded(parts.tables, view, console)
    train, validation = _divide(config, view, parts)
    stored = isinstance(train.table.source(0), StoredVideo)
    num_workers = divide_cores(config.workers, compute.device, training=True, stored=stored)
    return FinetuneJob(config, source, view, parts, train, validation, compute, num_workers, console)


def _divide(config: FinetuneConfig, view: View, parts: Parts) -> tuple[LabelledClips, LabelledClips]:
    """Return random clips of the training videos, and the centre clips of the held-out ones."""
    assert parts.train_groups is not None  # since the parts were read to be divided
    train, validation = hold_out_rows(parts.train_table, config.validation_videos, config.seed, parts.train_groups)
    return (
        LabelledClips(
            parts.train_table.subset(train), parts.train_labels[train], view, seed=config.seed, flip=config.flip
        ),
        LabelledClips(parts.train_table.subset(validation), parts.train_labels[validation], view),
    )


def _open(job: FinetuneJob) -> RunFolder:
    parts = job.parts
    videos = contents_of(parts.train_paths, parts.train_table) | contents_of(parts.test_paths, parts.test_table)
    run = take_run(job.config, _facts(job), videos, free=_FREE)
    if not run.has_checkpoint:
        for name in (CLASSIFIER, RESULT, REPORT, *LISTS):
            (run.path / name).unlink(missing_ok=True)
    keep_division(parts, run.path, job.console)
    return run


def _facts(job: FinetuneJob) -> dict[str, Any]:
    """Return what manifest.json records of this run in addition to the environment."""
    parts = job.parts
    labels = [*parts.train_labels.tolist(), *parts.test_labels.tolist()]
    files = zip((*parts.train_paths, *parts.test_paths), labels, strict=True)
    return {
        "kind": "recognizer",
        "seed": job.config.seed,
        "workers": job.num_workers,
        "compute": str(job.compute),
        "backbone": job.source.name,
        "backbone_fingerprint": job.source.fingerprint,
        "train_source": parts.train_source,
        "test_source": parts.test_source,
        "files_sha256": hash_of_files(f"{path} {label}" for path, label in files),
        "noun": parts.train.noun,
        "videos": {
            "listed": len(labels),
            "train": len(job.train),
            "validation": len(job.validation),
            "test": len(parts.test_table),
        },
        "left_out": parts.left_out,
    }


def _training_job(job: FinetuneJob) -> TrainingJob:
    config, training = job.config, finetuning(job)
    assert isinstance(training.model, RecognitionModel)
    return TrainingJob(
        training=training,
        train=Stream(name="train", num_files=len(job.train), read=partial(job.batches, job.train)),
        order=BatchOrder(
            num_samples=len(job.train), batch_size=config.batch_size, num_epochs=config.epochs, seed=config.seed
        ),
        validation=Stream(name="validation", num_files=len(job.validation), read=partial(job.batches, job.validation)),
        fixed=validation_batches(len(job.validation), 1, config.batch_size),
        describe=job.train.describe,
        score=score_by(config.keep, itemgetter("accuracy")),
        save=partial(_save, job, training.model),
        checkpoint_seconds=config.checkpoint_seconds,
        stop_early=config.stop_early,
        resume=config.resume,
        opening=_announcement(job),
        console=job.console,
    )


def _save(job: FinetuneJob, model: RecognitionModel, folder: Path, results: dict[str, Any]) -> None:
    answers = Recognition(
        view=job.view, feature=Feature(list(model.backbone.stages)[-1]),  # type: ignore[arg-type]
        dimension=model.classifier.in_features, average=job.config.average, span_seconds=job.parts.train.span_seconds,
    )  # fmt: skip
    save_recognizer(
        folder, model.backbone, model.classifier, source=job.source, classes=job.parts.classes, recognition=answers,
        results=results,
    )  # fmt: skip


def finetuning(job: FinetuneJob) -> Training:
    """Build the model on its device, with its optimizer, schedule and objective."""
    config, rate, device = job.config, initial_rate(job.config, job.source), job.compute.device
    model = RecognitionModel(job.source.on(job.compute), len(job.parts.classes), seed=config.seed).to(device)
    optimizer = sgd(model, rate, config)
    return Training(
        model=model,
        trained=model,
        optimizer=optimizer,
        schedule=Schedule(optimizer, config),
        objective=recognition_objective,
        validation_objective=recognition_objective,
        compute=job.compute,
        processes=Processes(),
        frozen=frozen_modules(model, config.freeze),
    )


def initial_rate(config: FinetuneConfig, source: Source) -> float:
    """Return the learning rate of the first epoch (paper section 4.3)."""
    if config.learning_rate is not None:
        return config.learning_rate
    return 0.01 if source.architecture == "s3dg" else 0.001


def _announcement(job: FinetuneJob) -> str:
    parts, view = job.parts, job.view
    text = (
        f"{job.source.name} on {job.compute}; clips of {view.clip_frames} x {view.clip_size} x {view.clip_size}; "
        f"learning rate {initial_rate(job.config, job.source):g}; {job.config.frozen_text}{len(job.train):,} training, "
        f"{len(job.validation):,} validation and {counted(len(parts.test_table), f'test {parts.test.noun}')} in "
        f"{counted(len(parts.classes), 'class')}; chance is {parts.chance:.1%}"
    )
    if num_unlearnable := len(parts.classes) - len(set(job.train.labels.tolist())):
        text += f"; {num_unlearnable:,} of {len(parts.classes):,} classes cannot be learned, since all their "
        text += f"{parts.train.noun}s are in validation: reduce --validation-videos"
    return text


def _test(job: FinetuneJob, run: RunFolder) -> RecognitionResult:
    """Test the weights that were kept: the first and only use of the test videos."""
    config, parts = job.config, job.parts
    trained = describe_trained(run.path)
    opened = open_recognizer(run.path, job.compute, num_workers=job.num_workers)
    asked = opened.asked(job.view, config.average)
    held_out = asked.probabilities(job.validation.table, console=job.console, what="calibrating")
    calibration = calibrate(torch.stack(list(held_out)), job.validation.labels, parts.train.noun)
    recognizer = asked.calibrated(calibration)
    save_answers(run.path, recognizer.classifier.recognition)
    say(job.console, f"testing with {counted(config.test_clips, 'clip')} of each {parts.test.noun}")
    probabilities = torch.stack(list(recognizer.probabilities(parts.test_table, console=job.console, what="testing")))
    validation = dict(trained.results)
    best_epoch = int(validation.pop("epoch"))
    scores = RecognitionScores(trained.classes, parts.test_labels, probabilities, parts.test_groups)
    result = RecognitionResult(run.path, best_epoch, validation, scores, parts.chance, parts.majority, calibration)
    print_table(job.console, recognition_table(result, job.parts.test.noun))
    baseline = max(parts.chance, parts.majority)
    report_chance(parts, "network", scores.top_1, baseline, scores.standard_error or 0.0, job.console)
    say(job.console, f"calibration: {calibration}")
    write_json(run.path / RESULT, _description(job, result, trained.fingerprint))
    _write_page(job, run, result)
    say(job.console, str(run.path / REPORT))
    return result


def _write_page(job: FinetuneJob, run: RunFolder, result: RecognitionResult | None = None) -> None:
    parts = job.parts
    sources = {
        f"{len(job.train):,} for training": parts.train_source,
        f"{len(job.validation):,} for validation (choice of the epoch)": parts.train_source,
        f"{len(parts.test_table):,} for testing": parts.test_source,
    }
    html = recognition_page(
        result, read_metrics(run.path / METRICS), name=job.source.name, num_epochs=job.config.epochs,
        num_clips=job.config.test_clips, sources=sources, chance=parts.chance, keep=job.config.keep,
        noun=parts.test.noun,
    )  # fmt: skip
    write_page(run.path / REPORT, html)


def _description(job: FinetuneJob, result: RecognitionResult, fingerprint: str) -> dict[str, Any]:
    parts, scores = job.parts, result.scores
    return {
        "backbone": job.source.name,
        "backbone_fingerprint": read_value(result.run / MANIFEST, "backbone_fingerprint", str),
        "fingerprint": fingerprint,
        "train_source": parts.train_source,
        "test_source": parts.test_source,
        "view": asdict(job.view),
        "average": job.config.average,
        "seed": job.config.seed,
        "num_train": len(job.train),
        "num_validation": len(job.validation),
        "num_test": len(parts.test_table),
        "num_unknown": parts.num_unknown,
        **parts.to_json(),
        "best_epoch": result.best_epoch,
        "validation": result.validation,
        "calibration": asdict(result.calibration),
        "top_1": scores.top_1,
        "standard_error": scores.standard_error,
        "hits": scores.hits.bool().tolist(),
        "top_5": scores.top_5,
        "chance": result.chance,
        "majority": result.majority,
        "per_class": scores.per_class,
        "confusion": scores.confusion.tolist(),
    }
