"""A whole training: epochs, validation, the best weights, checkpoints, and going on after a kill."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from v3s.train.checkpoint import load_checkpoint, save_checkpoint
from v3s.train.device import Compute
from v3s.train.distributed import Processes
from v3s.train.loop import Batch, Clock, Objective, Sums, freeze_batch_norm, timed, train_step
from v3s.train.progress import Progress
from v3s.train.run import RunFolder


class TrainingStoppedError(Exception):
    """Training was asked to stop, by SIGINT or SIGTERM; ``--resume`` goes on from its last checkpoint."""


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
    batches: Iterator[Batch],
    steps_per_epoch: int,
    num_epochs: int,
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
        batches: one stream over all remaining epochs, from ``position`` on.
        steps_per_epoch: batches in an epoch.
        num_epochs: in all.
        validate: one validation pass; its "loss" drives a plateau schedule.
        score: how good a validation was; the epoch with the highest is kept.
        keep_best: called with (epoch, validation) for each new best epoch, in the first process.
        checkpoint_seconds: at most this long between two checkpoints.
        progress: told of every step and epoch.

    Raises:
        TrainingStoppedError: on SIGINT or SIGTERM, after a checkpoint was written.
    """
    with _stop_signal() as stop, _workers_may_stop_first(stop):
        while position.epoch < num_epochs:
            clock = _train_epoch(training, run, position, batches, steps_per_epoch, checkpoint_seconds, progress, stop)
            train = position.sums.means(training.processes, training.compute.device)
            validation = validate()
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
                save_checkpoint(run.last, training.state(position))
    return position


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


def _train_epoch(
    training: Training,
    run: RunFolder,
    position: Position,
    batches: Iterator[Batch],
    steps_per_epoch: int,
    checkpoint_seconds: float,
    progress: Progress,
    stop: threading.Event,
) -> Clock:
    training.trained.train()
    if training.frozen_batch_norm:
        freeze_batch_norm(training.model)
    clock, saved = Clock(), time.monotonic()
    for batch in timed(batches, steps_per_epoch - position.step, clock):
        terms = train_step(training.trained, batch, training.objective, training.optimizer, training.compute)
        position.sums.add(terms, len(batch[0]))
        position.step += 1
        progress.step(position.epoch, position.step, position.sums, clock)
        due = stop.is_set() or time.monotonic() - saved >= checkpoint_seconds
        if due and training.processes.is_first:
            save_checkpoint(run.last, training.state(position))
            saved = time.monotonic()
        if stop.is_set():
            raise TrainingStoppedError(f"stopped in epoch {position.epoch + 1} after step {position.step}")
    return clock


def _step_schedule(scheduler: LRScheduler | ReduceLROnPlateau, loss: float) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(loss)
    else:
        scheduler.step()


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a step is never cut in half. A second SIGINT stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _workers_may_stop_first(stop: threading.Event) -> Iterator[None]:
    """A signal to all processes may end the data workers before the step is over: that is a stop, not a failure."""
    try:
        yield
    except RuntimeError as error:
        if not stop.is_set() or "DataLoader worker" not in str(error):
            raise
        raise TrainingStoppedError("stopped, with the data workers, since the last checkpoint") from error


def resume_position(training: Training, run: RunFolder, *, resume: bool) -> Position:
    """Where to start: at the last checkpoint of a resumed run, else at the beginning."""
    if not (resume and run.last.exists()):
        return Position()
    position = training.restore(load_checkpoint(run.last))
    if training.processes.is_first:
        run.keep_metrics(position.epoch)
    return position
