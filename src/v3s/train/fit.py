"""A complete training: epochs, validation, the best weights, checkpoints, and resuming after a kill."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import torch

from v3s.data.quarantine import Quarantine
from v3s.train.callbacks import Callbacks
from v3s.train.checkpoint import load_newest_checkpoint, save_checkpoint, saved_epoch
from v3s.train.distributed import Agreement, Processes, wait_for_all
from v3s.train.finite import BadBatch, FiniteGuard, NonFiniteError, save_bad_batch
from v3s.train.loop import Batch, Clock, Sums, set_training_mode, timed, train_step, validate
from v3s.train.progress import Progress, describe
from v3s.train.run import NONFINITE, RunFolder, open_log, reporter
from v3s.train.statistics import estimate_statistics, layers_to_estimate
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
        usable = run.quarantine(job.train.name, job.train.num_files, report=report)
        batches = job.train.read(order, usable)
        report(job.opening)
        guard = FiniteGuard(processes, training.compute.device)
        lag = LAG[training.compute.device.type]
        checkpoints = _Checkpoints(job, run, position, guard, Agreement(processes, lag))
        callbacks = Callbacks(job.callbacks if processes.is_first else (), lag, report)
        if job.save_start and not run.has_checkpoint:
            checkpoints.save()
        progress = Progress(order, report, job.console, job.minutes, chooses=job.score is not None)
        with callbacks, progress, closing(batches), listen_for_stop() as stop, _saved_when_stopped(stop, checkpoints):
            while not job.is_finished(position):
                clock = _train_epoch(checkpoints, batches, progress, callbacks, stop)
                train = position.sums.means(processes)
                with _cut_short(stop, processes):
                    validation = _validate(job, position.epoch + 1, held_out)
                rate = _end_epoch(job, run, position, validation)
                line = _metrics_line(position, rate, clock, processes, train, validation)
                progress.end_epoch(line)
                if processes.is_first:
                    run.add_metrics(line)
                callbacks.epoch(order.steps_per_epoch * position.epoch, line)
                job.after_epoch()
                checkpoints.after_epoch(validation, is_last=job.is_finished(position))
            if job.stops_early(position):
                num_clips = (position.epoch - position.lowest_epoch) * order.clips_per_epoch
                report(
                    f"stopped early after epoch {position.epoch}: {num_clips:,} training clips brought no lower "
                    f"validation loss than epoch {position.lowest_epoch} had; raise --stop-early to train on"
                )
        if job.statistics_clips and layers_to_estimate(training.model, training.frozen):
            _estimate_again(job, run, usable, held_out, report)


def _estimate_again(
    job: TrainingJob, run: RunFolder, usable: Quarantine, held_out: Quarantine, report: Callable[[str], None]
) -> None:
    """Re-estimate batch norm's statistics of the saved weights, on clips of the epoch after theirs.

    So the same weights get the same statistics, however often and with however many epochs the run is resumed.
    Checkpoints keep the running averages, so that a run that is resumed ends as any other. What a kill interrupts here,
    the next resume repeats.
    """
    training = job.training
    num_batches = min(job.order.steps_per_epoch, max(1, job.statistics_clips // job.order.batch_size))
    assert job.load is not None
    wait_for_all(training.processes)  # until the first has written the weights
    folders = defaultdict(list)
    for folder in (run.path, run.last_weights):
        folders[saved_epoch(folder)].append(folder)
    for epoch, same in folders.items():
        which = "kept" if run.path in same else "last"
        job.load(same[0])
        order = replace(job.order, first_epoch=epoch, num_epochs=epoch + 1)
        with closing(job.train.read(order, usable)) as batches:
            few = islice(batches, num_batches)
            estimate_statistics(training.model, few, training.compute, training.processes, training.frozen)
        means = _validate(job, epoch, held_out)
        report(
            f"the {which} weights, of epoch {epoch}, with batch-norm statistics re-estimated on "
            f"{num_batches * order.batch_size:,} training clips: validation {describe(means)}"
        )
        if training.processes.is_first:
            for folder in same:
                job.save(folder, {"epoch": epoch, **means})


def _validate(job: TrainingJob, epoch: int, held_out: Quarantine) -> dict[str, float]:
    """Run a validation pass and return the mean of each term; ``epoch`` counts from 1."""
    training = job.training
    batches = job.validation.read(job.fixed, held_out)
    means = validate(training.model, batches, training.validation_objective, training.compute, training.processes)
    if not math.isfinite(means["loss"]):
        raise NonFiniteError(f"the validation loss of epoch {epoch} is {means['loss']}")
    return means


def _end_epoch(job: TrainingJob, run: RunFolder, position: Position, validation: dict[str, float]) -> float:
    """Step the schedule, and keep the weights if they are the best so far; returns the epoch's learning rate."""
    training = job.training
    rate: float = training.optimizer.param_groups[0]["lr"]
    training.schedule.end_epoch(validation["loss"])
    position.epoch, position.step, position.sums = position.epoch + 1, 0, Sums()
    if validation["loss"] < position.lowest_loss:
        position.lowest_loss, position.lowest_epoch = validation["loss"], position.epoch
    if job.score is None:  # the last weights are written with the checkpoints
        position.best_epoch = position.epoch
    elif (score := job.score(validation)) > position.best_score:
        position.best_score, position.best_epoch = score, position.epoch
        if training.processes.is_first:
            job.save(run.path, {"epoch": position.epoch, **validation})
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

    def after_epoch(self, validation: dict[str, float], *, is_last: bool) -> None:
        """Save, unless epochs are so short that checkpoints would exceed their share of the time."""
        is_due = time.monotonic() - self.saved >= self.saving_seconds / SAVING_SHARE
        if is_due or is_last or not self.run.last_weights.exists():
            self.save({"epoch": self.position.epoch, **validation})

    def save(self, results: dict[str, Any] | None = None) -> None:
        """Write a checkpoint in the first process; the others continue without waiting for their devices.

        Args:
            results: at the end of an epoch, what is known of it: its weights are written too, as the last ones.
        """
        start, training = time.monotonic(), self.job.training
        if training.processes.is_first:
            self.check()
            if results is not None:
                for folder in (self.run.path, self.run.last_weights)[self.job.score is not None :]:
                    self.job.save(folder, results)
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
        raise TrainingStoppedError(f"stopped in {_place(position)}", stop.number) from None


def _place(position: Position) -> str:
    step = f"after step {position.step}" if position.step else "before its first step"
    return f"epoch {position.epoch + 1} {step}"


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


def _train_epoch(
    checkpoints: _Checkpoints, batches: Iterator[Batch], progress: Progress, callbacks: Callbacks, stop: StopRequest
) -> Clock:
    training, position = checkpoints.job.training, checkpoints.position
    set_training_mode(training.trained, training.frozen)
    clock = Clock(training.compute.device)
    waiting = partial(_cut_short, stop, training.processes)
    steps_per_epoch = checkpoints.job.order.steps_per_epoch
    for batch in timed(batches, steps_per_epoch - position.step, clock, waiting=waiting):
        terms = train_step(
            training.trained, batch, training.objective, training.optimizer, training.compute, checkpoints.guard
        )
        position.sums.add(terms, len(batch[0]))
        position.step += 1
        checkpoints.after_step(stop)
        progress.step(position.epoch, position.step, position.sums, clock)
        callbacks.step(steps_per_epoch * position.epoch + position.step, terms)
    start = time.perf_counter()
    checkpoints.check()
    clock.seconds += time.perf_counter() - start  # waiting for the device to finish
    clock.finish()
    return clock


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
    where = _place(position)
    if damage is not None:
        report(f"{damage}; renamed to damaged.pt; resuming from the previous checkpoint in {where}")
    elif position.epoch >= job.order.num_epochs:
        longer = "give more --epochs" if training.schedule.can_go_on else "train again, into another --out"
        report(f"all {position.epoch:,} epochs are finished; {longer} to train longer")
    elif (position.epoch or position.step) and not job.stops_early(position):  # not at the very start
        report(f"resuming in {where}")
    return position
