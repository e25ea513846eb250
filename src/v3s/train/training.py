"""The parts of a training: model and optimizer, streams of samples, and the state in a checkpoint."""

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from rich.console import Console
from torch import nn

from v3s.backbones.device import Compute
from v3s.backbones.stages import stage_modules
from v3s.data.clips import BatchOrder, SampleKey
from v3s.data.quarantine import Quarantine
from v3s.train.callbacks import Callback
from v3s.train.distributed import Processes, wrap
from v3s.train.loop import Batch, Objective, Sums, batch_norms
from v3s.train.optimizer import Keep, Schedule

Score = tuple[float, ...]
"""A rating of a validation pass; the greater one is better."""
BatchNormStatistics = Literal["auto", "local", "sync", "frozen"]
_Model = TypeVar("_Model", bound=nn.Module)


@dataclass(slots=True)
class Position:
    """How far a training has progressed: everything in a checkpoint besides the tensors.

    Attributes:
        epoch: number of finished epochs.
        step: number of finished steps in the current epoch.
        sums: sums over the current epoch.
        best_score: the best validation score so far; empty before the first, and if the last epoch is kept.
        best_epoch: the epoch (from 1) whose weights are kept; 0 before the first.
        lowest_loss: the lowest validation loss so far.
        lowest_epoch: the number of epochs that were finished then.
    """

    epoch: int = 0
    step: int = 0
    sums: Sums = field(default_factory=Sums)
    best_score: Score = ()
    best_epoch: int = 0
    lowest_loss: float = math.inf
    lowest_epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A model, its optimizer and everything else that determines how the weights change.

    Attributes:
        model: the module whose weights are saved.
        trained: the same module as it is called in training (compiled, or wrapped for several processes).
        optimizer: updates the weights.
        schedule: sets the learning rates after each epoch.
        objective: what is minimised.
        validation_objective: the terms of clips that are looked at on their own, as in validation.
        compute: device and precision.
        processes: the place of this process in the run.
        frozen: modules that stay in evaluation mode in training, so that their batch norms keep their statistics.
    """

    model: nn.Module
    trained: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    objective: Objective
    validation_objective: Objective
    compute: Compute
    processes: Processes
    frozen: tuple[nn.Module, ...] = ()

    def state(self, position: Position) -> dict[str, Any]:
        """Everything that a later process needs to resume as if the training had never stopped."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epoch": position.epoch,
            "step": position.step,
            "sums": {name: value.cpu() for name, value in position.sums.terms.items()},
            "samples": position.sums.samples,
            "best_score": position.best_score,
            "best_epoch": position.best_epoch,
            "lowest_loss": position.lowest_loss,
            "lowest_epoch": position.lowest_epoch,
        }

    def restore(self, state: dict[str, Any]) -> Position:
        """Restore a state; returns its position."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        former = {"finished": state["epoch"], "rule": state.get("scheduler")}  # of checkpoints before 0.1.0
        self.schedule.load_state_dict(state.get("schedule", former))
        keep_sums = self.processes.is_first  # the saved sums are those of the first process: the others start from zero
        terms = {name: value.to(self.compute.device) for name, value in state["sums"].items()}
        sums = Sums(terms if keep_sums else {name: value * 0 for name, value in terms.items()})
        sums.samples = state["samples"] if keep_sums else 0
        score = state["best_score"]
        if isinstance(score, float):  # of checkpoints before 0.1.0: the accuracy; the earlier epoch won ties
            score = (score, math.inf)
        lowest = state.get("lowest_loss", math.inf), state.get("lowest_epoch", state["epoch"])
        return Position(state["epoch"], state["step"], sums, score, state["best_epoch"], *lowest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Samples of a set of videos, in batches.

    Attributes:
        name: name of the stream in quarantine.jsonl.
        num_files: number of videos, of which at most half may fail.
        read: reads the batches in a given order, without the files in quarantine.
    """

    name: str
    num_files: int
    read: Callable[[BatchOrder | list[list[SampleKey]], Quarantine], Generator[Batch, None, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """Everything that `v3s.train.fit.fit` needs to train from the first epoch to the last.

    Attributes:
        training: the model and how it is trained.
        train: source of the training batches.
        order: order of the training batches, starting with the first epoch.
        validation: source of the validation batches.
        fixed: the samples of every validation pass, in batches.
        describe: returns everything that was drawn for a training sample; see `BadBatch`.
        score: rates a validation pass by its means; the epoch with the highest score is kept. None keeps the last one.
        save: writes the weights into a folder, with the epoch (from 1) and its means; called in the first process only.
        checkpoint_seconds: longest time between two checkpoints.
        minutes: how long the training is meant to take, as said if that will not hold; None is as long as it takes.
        stop_early: training clips without a lower validation loss after which to stop; None never stops.
        resume: whether to start from the newest checkpoint, if there is one.
        opening: text to report before the first step.
        console: where to report.
        statistics_clips: number of training clips, at most an epoch, on which batch norm's statistics of the saved
            weights are estimated at the end; 0 keeps the running averages.
        load: loads what ``save`` wrote into the model; needed with ``statistics_clips``.
        save_start: whether to write a checkpoint before the first step, so that resuming needs nothing that the
            weights were loaded from.
        callbacks: what is called after each step and epoch, in the first process.
        after_epoch: called in every process when an epoch is in metrics.jsonl.
    """

    training: Training
    train: Stream
    order: BatchOrder
    validation: Stream
    fixed: list[list[SampleKey]]
    describe: Callable[[SampleKey], dict[str, Any]]
    score: Callable[[dict[str, float]], Score] | None
    save: Callable[[Path, dict[str, Any]], None]
    checkpoint_seconds: float
    stop_early: int | None
    resume: bool
    opening: str
    console: Console
    statistics_clips: int = 0
    minutes: float | None = None
    load: Callable[[Path], object] | None = None
    save_start: bool = False
    callbacks: Sequence[Callback] = ()
    after_epoch: Callable[[], None] = lambda: None

    def is_finished(self, position: Position) -> bool:
        """Whether a training that has come so far ends here: after its last epoch, or early."""
        return position.epoch >= self.order.num_epochs or self.stops_early(position)

    def stops_early(self, position: Position) -> bool:
        """Whether the validation loss has not fallen for ``stop_early`` training clips."""
        num_clips = (position.epoch - position.lowest_epoch) * self.order.clips_per_epoch
        return self.stop_early is not None and num_clips >= self.stop_early


def score_by(keep: Keep, accuracy: Callable[[dict[str, float]], float]) -> Callable[[dict[str, float]], Score] | None:
    """Return how validation passes are rated, or None if the last epoch is kept.

    Of epochs with the same accuracy, the one with the lower loss is better: a network that gives one answer to
    everything often ties with one that has begun to learn.

    Args:
        keep: what decides.
        accuracy: the accuracy in the means of a validation pass.
    """
    if keep == "last":
        return None
    if keep == "loss":
        return lambda means: (-means["loss"],)
    return lambda means: (accuracy(means), -means["loss"])


def kept_sentence(keep: Keep, epoch: int) -> str:
    """Say which epoch is kept, and why, while a training runs or when it has ended.

    Args:
        keep: what decides.
        epoch: the best one so far, from 1; the last one if nothing else decides.
    """
    if keep == "last":
        return "The last epoch is kept (--keep last)."
    best = "loss is the lowest" if keep == "loss" else "accuracy is the highest"
    return f"Epoch {epoch:,} is kept: its validation {best}."


def frozen_modules(
    model: nn.Module, freeze: Iterable[str] | None, batch_norm: BatchNormStatistics = "local"
) -> tuple[nn.Module, ...]:
    """The modules of a model that stay in evaluation mode in training.

    Args:
        model: a network with a ``backbone``, on its device.
        freeze: stages of the backbone that are not trained.
        batch_norm: "frozen" adds every batch norm.
    """
    norms = batch_norms(model) if batch_norm == "frozen" else []
    return (*norms, *stage_modules(model.backbone, freeze or ()))  # type: ignore[arg-type]


def on_devices(
    model: _Model, compute: Compute, processes: Processes, *, batch_norm: BatchNormStatistics, compiled: bool
) -> tuple[_Model, nn.Module]:
    """Move a model to its device; returns the model, and the module to call in training.

    Args:
        model: the model as it was built.
        compute: the device.
        processes: if there are several, gradients are averaged over all of them.
        batch_norm: "sync", or "auto" on several GPUs, computes the statistics over all processes.
        compiled: whether to compile the module for training. Validation would need another compilation, since its
            batches differ in size.
    """
    several_gpus = processes.count > 1 and compute.device.type == "cuda"
    if batch_norm == "sync" or (batch_norm == "auto" and several_gpus):
        model = cast(_Model, nn.SyncBatchNorm.convert_sync_batchnorm(model))  # type: ignore[no-untyped-call]
    model = compute.network(model)
    trained = wrap(model, processes, compute.device)
    return model, cast(nn.Module, torch.compile(trained)) if compiled else trained
