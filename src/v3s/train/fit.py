"""A complete training: epochs, validation, the best weights, checkpoints, and resuming after a kill."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from v3s.data.quarantine import Quarantine
from v3s.train.checkpoint import load_newest_checkpoint, save_checkpoint
from v3s.train.distributed import Agreement, Processes, wait_for_all
from v3s.train.finite import BadBatch, FiniteGuard, NonFiniteError, save_bad_batch
from v3s.train.loop import Batch, Clock, Sums, freeze_batch_norm, timed, train_step, validate
from v3s.train.progress import Progress
from v3s.train.run import NONFINITE, RunFolder, open_log, reporter
from v3s.train.stop import StopRequest, StopRequestedError, TrainingStoppedError, listen_for_stop
from v3s.train.training import Position, TrainingJob

LAG = {"cpu": 0, "cuda": 4}  # steps until the host reads a step's flags, so that a GPU stays busy
SAVING_SHARE = 0.05  # largest share of the time that checkpoints at the ends of epochs may take


def fit(job: TrainingJob, run: RunFolder) -> None:
    """Train to the last epoch, from the start or from the newest checkpoint of a resumed run.

    Args:
        job: the model, its data and the options.
        run: the folder for checkpoints, metrics and the log.

    Raises:
        TrainingStoppedError: SIGINT or SIGTERM arrived; a checkpoint was written.
        NonFiniteError: a loss or a gradient was not finite; no update was made with it.
        CheckpointError: the run is resumed and has checkpoints, but all of them are damaged.
    """
    training, processes = job.training, job.training.processes
    with open_log(run if processes.is_first else None) as log:
        report = reporter(log, job.console)
        position = _start(job, run, report)
        order = replace(job.order, first_epoch=position.epoch, first_step=position.step)
        held_out = run.quarantine(job.validation.name, job.validation.num_files, repeats=True, report=report)
        batches = job.train.read(order, run.quarantine(job.train.name, job.train.num_files, report=report))
        report(job.opening)
        guard = FiniteGuard(processes, training.compute.device)
        checkpoints = _Checkpoints(job, run, position, guard, Agreement(processes, LAG[training.compute.device.type]))
        progress = Progress(order, report, job.console)
        with progress, closing(batches), listen_for_stop() as stop, _saved_when_stopped(stop, checkpoints):
            while position.epoch < order.num_epochs:
                clock = _train_epoch(checkpoints, batches, progress, stop)
                train = position.sums.means(processes)
                with _cut_short(stop, processes):
                    validation = _validate(job, position, held_out)
                rate = _end_epoch(job, position, validation)
                line = _metrics_line(position, rate, clock, processes, train, validation)
                progress.end_epoch(line)
                if processes.is_first:
                    run.add_metrics(line)
                checkpoints.after_epoch(is_last=position.epoch == order.num_epochs)


def _validate(job: TrainingJob, position: Position, held_out: Quarantine) -> dict[str, float]:
    """Run a validation pass and return the mean of each term."""
    training = job.training
    batches = job.validation.read(job.fixed, held_out)
    means = validate(training.model, batches, training.objective, training.compute, training.processes)
    if not math.isfinite(means["loss"]):
        raise NonFiniteError(f"the validation loss of epoch {position.epoch + 1} is {means['loss']}")
    return means


def _end_epoch(job: TrainingJob, position: Position, validation: dict[str, float]) -> float:
    """Step the schedule, and keep the weights if they are the best so far; returns the epoch's learning rate."""
    training = job.training
    rate: float = training.optimizer.param_groups[0]["lr"]
    _step_schedule(training.scheduler, validation["loss"])
    position.epoch, position.step, position.sums = position.epoch + 1, 0, Sums()
    if job.score(validation) > position.best_score:
        position.best_score, position.best_epoch = job.score(validation), position.epoch
        if training.processes.is_first:
            job.keep_best({"epoch": position.epoch, **validation})
    return rate


@dataclass(slots=True)
class _Checkpoints:
    """Saves checkpoints at intervals, but never after a non-finite loss or gradient."""

    job: TrainingJob
    run: RunFolder
    position: Position
    guard: FiniteGuard
    agreement: Agreement
    saved: float = field(default_factory=time.monotonic)
    saving_seconds: float = 0.0

    def after_step(self, stop: StopRequest) -> None:
        """Stop all processes at the same step if one of them has a reason to; otherwise save if a checkpoint is due."""
        signal_number = torch.full((), float(stop.number or 0), device=self.job.training.compute.device)
        found_inf, number = self.agreement.step(self.guard.found_inf, signal_number)
        if found_inf:
            self.check()
        if number:
            stop.number = int(number)
            raise StopRequestedError
        if time.monotonic() - self.saved >= self.job.checkpoint_seconds:
            self.save()

    def after_epoch(self, *, is_last: bool) -> None:
        """Save, unless epochs are so short that checkpoints would exceed their share of the time."""
        if is_last or time.monotonic() - self.saved >= self.saving_seconds / SAVING_SHARE:
            self.save()

    def save(self) -> None:
        """Write a checkpoint in the first process; the others continue without waiting for their devices."""
        start, training = time.monotonic(), self.job.training
        if training.processes.is_first:
            self.check()
            save_checkpoint(self.run.last, training.state(self.position))
        self.saved = time.monotonic()
        self.saving_seconds = self.saved - start

    def check(self) -> None:
        """Raise `NonFiniteError` if a step was skipped, after saving its batch in the run's folder."""
        if not (num_skipped := self.guard.num_skipped()):
            return
        epoch, step, training = self.position.epoch, self.position.step - num_skipped, self.job.training
        rate = training.optimizer.param_groups[0]["lr"]
        samples = [self.job.describe(key) for key in self.job.order.batch(epoch, step)]
        batch = BadBatch(epoch, step, rate, training.processes.count, samples)
        if training.processes.is_first:
            save_bad_batch(self.run.path / NONFINITE, batch, training.model)
        files = sorted({str(sample["video"]) for sample in batch.samples})
        raise NonFiniteError(
            f"a loss or gradient is not finite ({batch}); no update was made with it, and the last checkpoint predates "
            f"it. To find the cause: v3s replay --run {self.run.path}. The clips of this batch are from: "
            + ", ".join(files)
        )


@contextmanager
def _saved_when_stopped(stop: StopRequest, checkpoints: _Checkpoints) -> Iterator[None]:
    """Turn a request to stop into a checkpoint and an error that names the position."""
    position = checkpoints.position
    try:
        yield
    except StopRequestedError:
        checkpoints.save()
        assert stop.number is not None
        where = f"stopped in epoch {position.epoch + 1} after step {position.step}"
        raise TrainingStoppedError(where, stop.number) from None


def _metrics_line(
    position: Position,
    rate: float,
    clock: Clock,
    processes: Processes,
    train: dict[str, float],
    validation: dict[str, float],
) -> dict[str, Any]:
    return {
        "epoch": position.epoch,
        "learning_rate": rate,
        "train": train,
        "validation": validation,
        "best_epoch": position.best_epoch,
        "seconds": round(clock.seconds, 3),
        "clips_per_second": round(clock.samples_per_second * processes.count, 2),
        "waiting_share": round(clock.waiting_share, 4),
    }


def _cut_short(stop: StopRequest, processes: Processes) -> AbstractContextManager[None]:
    """Let a signal interrupt this work at once, unless other processes wait for it: then all stop at the same step."""
    return stop.cut_short() if processes.count == 1 else nullcontext()


def _train_epoch(checkpoints: _Checkpoints, batches: Iterator[Batch], progress: Progress, stop: StopRequest) -> Clock:
    training, position = checkpoints.job.training, checkpoints.position
    training.trained.train()
    if training.frozen_batch_norm:
        freeze_batch_norm(training.model)
    clock = Clock(training.compute.device)
    waiting = partial(_cut_short, stop, training.processes)
    for batch in timed(batches, checkpoints.job.order.steps_per_epoch - position.step, clock, waiting=waiting):
        terms = train_step(
            training.trained, batch, training.objective, training.optimizer, training.compute, checkpoints.guard
        )
        position.sums.add(terms, len(batch[0]))
        position.step += 1
        checkpoints.after_step(stop)
        progress.step(position.epoch, position.step, position.sums, clock)
    start = time.perf_counter()
    checkpoints.check()
    clock.seconds += time.perf_counter() - start  # waiting for the device to finish
    clock.finish()
    return clock


def _step_schedule(scheduler: LRScheduler | ReduceLROnPlateau, loss: float) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(loss)
        return
    with warnings.catch_warnings():  # the process before a resume may have done all steps of this epoch
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step\(\)`")
        scheduler.step()


def _start(job: TrainingJob, run: RunFolder, report: Callable[[str], None]) -> Position:
    """Restore the newest intact checkpoint of a resumed run; returns where to start.

    A damaged checkpoint is reported and renamed, and the previous one is used.

    Raises:
        CheckpointError: there are checkpoints, but all of them are damaged.
    """
    if not job.resume:
        return Position()
    training, position, damage = job.training, Position(), None
    if run.has_checkpoint:
        state, damage = load_newest_checkpoint(run.last)
        position = training.restore(state)
    wait_for_all(training.processes)  # until all have read the checkpoint
    if training.processes.is_first:
        run.keep_metrics(position.epoch)
        if damage is not None:
            run.last.replace(run.last.with_name("damaged.pt"))
    if damage is not None:
        where = f"epoch {position.epoch + 1}, after step {position.step}"
        report(f"{damage}; renamed to damaged.pt; resuming from the previous checkpoint in {where}")
    return position
