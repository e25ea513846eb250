"""A whole training: epochs, validation, the best weights, checkpoints, and going on after a kill."""

import math
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from v3s.backbones.device import Compute
from v3s.data.clips import BatchOrder, SampleKey
from v3s.train.checkpoint import load_newest_checkpoint, save_checkpoint
from v3s.train.distributed import Agreement, Processes, wait_for_all
from v3s.train.finite import BadBatch, FiniteGuard, NonFiniteError, save_bad_batch
from v3s.train.loop import Batch, Clock, Objective, Sums, freeze_batch_norm, timed, train_step
from v3s.train.progress import Progress
from v3s.train.run import NONFINITE, RunFolder
from v3s.train.stop import StopAskedError, StopRequest, TrainingStoppedError, listen_for_stop

LAG = {"cpu": 0, "cuda": 4}  # steps until the host looks at what a step found: a GPU is kept busy meanwhile
SAVING_SHARE = 0.05  # of the time, at most, goes into the checkpoints at the ends of epochs


@dataclass(slots=True)
class Position:
    """Where a training stands: all that a checkpoint holds beside the tensors.

    Attributes:
        epoch: epochs finished.
        step: steps finished in the epoch under way.
        sums: of the epoch under way.
        best_score: the best validation score so far.
        best_epoch: the epoch (from 1) that reached it; 0 before the first.
    """

    epoch: int = 0
    step: int = 0
    sums: Sums = field(default_factory=Sums)
    best_score: float = float("-inf")
    best_epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The moving parts of a training and how they move.

    Attributes:
        model: the module whose weights are kept.
        trained: the same, as it is called in training (compiled, or wrapped for several processes).
        optimizer: moves the weights.
        scheduler: stepped once after each epoch, with the validation loss where it wants one.
        objective: what is minimised.
        compute: device and precision.
        processes: this process among the run's.
        frozen_batch_norm: train with the running statistics of every batch norm.
    """

    model: nn.Module
    trained: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | ReduceLROnPlateau
    objective: Objective
    compute: Compute
    processes: Processes
    frozen_batch_norm: bool = False

    def state(self, position: Position) -> dict[str, Any]:
        """Everything that a later process needs to go on as if nothing had happened."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "epoch": position.epoch,
            "step": position.step,
            "sums": {name: value.cpu() for name, value in position.sums.terms.items()},
            "samples": position.sums.samples,
            "best_score": position.best_score,
            "best_epoch": position.best_epoch,
        }

    def restore(self, state: dict[str, Any]) -> Position:
        """Take up a state; returns where it stood."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        keep_sums = self.processes.is_first  # they were summed there: the others start from zero
        terms = {name: value.to(self.compute.device) for name, value in state["sums"].items()}
        sums = Sums(terms if keep_sums else {name: value * 0 for name, value in terms.items()})
        sums.samples = state["samples"] if keep_sums else 0
        return Position(state["epoch"], state["step"], sums, state["best_score"], state["best_epoch"])


def fit(
    training: Training,
    run: RunFolder,
    position: Position,
    *,
    order: BatchOrder,
    batches: Generator[Batch, None, None],
    describe: Callable[[SampleKey], dict[str, Any]],
    validate: Callable[[], dict[str, float]],
    score: Callable[[dict[str, float]], float],
    keep_best: Callable[[int, dict[str, float]], None],
    checkpoint_seconds: float,
    progress: Progress,
) -> Position:
    """Train from ``position`` to the end.

    Args:
        training: the moving parts.
        run: where checkpoints and metrics go.
        position: where to start.
        order: of all epochs, from ``position`` on.
        batches: in that order; closed at the end.
        describe: everything that was drawn for a sample; see `BadBatch`.
        validate: one validation pass; its "loss" drives a plateau schedule.
        score: how good a validation was; the epoch with the highest is kept.
        keep_best: called with (epoch, validation) for each new best epoch, in the first process.
        checkpoint_seconds: at most this long between two checkpoints.
        progress: told of every step and epoch.

    Raises:
        TrainingStoppedError: on SIGINT or SIGTERM, after a checkpoint was written.
        NonFiniteError: a loss or a gradient was not finite; no update was made with it.
    """
    guard = FiniteGuard(training.processes, training.compute.device)
    agreement = Agreement(training.processes, LAG[training.compute.device.type])
    checkpoints = _Checkpoints(training, run, position, guard, agreement, checkpoint_seconds, order, describe)
    with progress, closing(batches), listen_for_stop() as stop, _saved_when_stopped(stop, checkpoints):
        while position.epoch < order.num_epochs:
            clock = _train_epoch(training, position, batches, order.steps_per_epoch, checkpoints, progress, stop)
            train = position.sums.means(training.processes)
            with _cut_short(stop, training.processes):
                validation = validate()
            if not math.isfinite(validation["loss"]):
                raise NonFiniteError(f"the validation loss of epoch {position.epoch + 1} is {validation['loss']}")
            rate = training.optimizer.param_groups[0]["lr"]
            _step_schedule(training.scheduler, validation["loss"])
            position.epoch, position.step, position.sums = position.epoch + 1, 0, Sums()
            if score(validation) > position.best_score:
                position.best_score, position.best_epoch = score(validation), position.epoch
                if training.processes.is_first:
                    keep_best(position.epoch, validation)
            line = _metrics_line(position, rate, clock, training.processes, train, validation)
            progress.end_epoch(line)
            if training.processes.is_first:
                run.add_metrics(line)
            checkpoints.after_epoch(is_last=position.epoch == order.num_epochs)
    return position


@dataclass(slots=True)
class _Checkpoints:
    """Saves a training now and then, and never one that met a loss or gradient that is not finite."""

    training: Training
    run: RunFolder
    position: Position
    guard: FiniteGuard
    agreement: Agreement
    seconds: float
    order: BatchOrder
    describe: Callable[[SampleKey], dict[str, Any]]
    saved: float = field(default_factory=time.monotonic)
    saving_seconds: float = 0.0

    def after_step(self, stop: StopRequest) -> None:
        """End the training where some process found a reason to, in all at the same step; else save if it is time."""
        asked = torch.full((), float(stop.number or 0), device=self.training.compute.device)
        found, number = self.agreement.step(self.guard.found, asked)
        if found:
            self.check()
        if number:
            stop.number = int(number)
            raise StopAskedError
        if time.monotonic() - self.saved >= self.seconds:
            self.save()

    def after_epoch(self, *, is_last: bool) -> None:
        """Save, unless the epochs are so short that it would take more of the time than training may lose."""
        if is_last or time.monotonic() - self.saved >= self.saving_seconds / SAVING_SHARE:
            self.save()

    def save(self) -> None:
        """Write a checkpoint, in the first process; the others, which need not wait for their devices, go on."""
        start = time.monotonic()
        if self.training.processes.is_first:
            self.check()
            save_checkpoint(self.run.last, self.training.state(self.position))
        self.saved = time.monotonic()
        self.saving_seconds = self.saved - start

    def check(self) -> None:
        """Raise `NonFiniteError` if a step was not made, with its batch kept in the run's folder."""
        if not (num_bad := self.guard.num_bad()):
            return
        epoch, step, training = self.position.epoch, self.position.step - num_bad, self.training
        rate = training.optimizer.param_groups[0]["lr"]
        samples = [self.describe(key) for key in self.order.batch(epoch, step)]
        batch = BadBatch(epoch, step, rate, training.processes.count, samples)
        if training.processes.is_first:
            save_bad_batch(self.run.path / NONFINITE, batch, training.model)
        files = sorted({str(sample["video"]) for sample in batch.samples})
        raise NonFiniteError(
            f"a loss or gradient is not finite ({batch}); no update was made with it, the last checkpoint is from "
            f"before. To see where: v3s replay --run {self.run.path}\nIts clips are from:\n  " + "\n  ".join(files)
        )


@contextmanager
def _saved_when_stopped(stop: StopRequest, checkpoints: _Checkpoints) -> Iterator[None]:
    """Turn a request to stop into a checkpoint and an error that says where."""
    position = checkpoints.position
    try:
        yield
    except StopAskedError:
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
    """What a signal ends at once; not so where others would wait for this process: all stop after the same step."""
    return stop.cut_short() if processes.count == 1 else nullcontext()


def _train_epoch(
    training: Training,
    position: Position,
    batches: Iterator[Batch],
    steps_per_epoch: int,
    checkpoints: _Checkpoints,
    progress: Progress,
    stop: StopRequest,
) -> Clock:
    training.trained.train()
    if training.frozen_batch_norm:
        freeze_batch_norm(training.model)
    clock = Clock(training.compute.device)
    waiting = partial(_cut_short, stop, training.processes)
    for batch in timed(batches, steps_per_epoch - position.step, clock, waiting=waiting):
        terms = train_step(
            training.trained, batch, training.objective, training.optimizer, training.compute, checkpoints.guard
        )
        position.sums.add(terms, len(batch[0]))
        position.step += 1
        checkpoints.after_step(stop)
        progress.step(position.epoch, position.step, position.sums, clock)
    start = time.perf_counter()
    checkpoints.check()
    clock.seconds += time.perf_counter() - start  # for the device to finish
    clock.finish()
    return clock


def _step_schedule(scheduler: LRScheduler | ReduceLROnPlateau, loss: float) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(loss)
        return
    with warnings.catch_warnings():  # an earlier process may have made all steps of this epoch
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step\(\)`")
        scheduler.step()


def resume_position(training: Training, run: RunFolder, *, resume: bool, tell: Callable[[str], None]) -> Position:
    """Where to start: at the newest whole checkpoint of a resumed run, else at the beginning.

    Args:
        training: takes up the checkpoint's state.
        run: where the checkpoints are.
        resume: whether to look for one.
        tell: told of a checkpoint that is damaged; it is set aside, and the one before it is used.

    Raises:
        CheckpointError: there are checkpoints, and none of them is whole.
    """
    if not resume:
        return Position()
    position, damage = Position(), None
    if run.has_checkpoint:
        state, damage = load_newest_checkpoint(run.last)
        position = training.restore(state)
    wait_for_all(training.processes)  # all have read it
    if training.processes.is_first:
        run.keep_metrics(position.epoch)
        if damage is not None:
            run.last.replace(run.last.with_name("damaged.pt"))
    if damage is not None:
        where = f"epoch {position.epoch + 1}, after step {position.step}"
        tell(f"{damage}; it is set aside as damaged.pt, and the one before it is used: going on in {where}")
    return position
