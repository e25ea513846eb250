"""The parts of a training: model and optimizer, streams of samples, and the state in a checkpoint."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

import torch
from rich.console import Console
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from v3s.backbones.device import Compute
from v3s.data.clips import BatchOrder, SampleKey
from v3s.data.quarantine import Quarantine
from v3s.train.distributed import Processes, wrap
from v3s.train.loop import Batch, Objective, Sums

BatchNormStatistics = Literal["auto", "local", "sync", "frozen"]
_Model = TypeVar("_Model", bound=nn.Module)


@dataclass(slots=True)
class Position:
    """How far a training has progressed: everything in a checkpoint besides the tensors.

    Attributes:
        epoch: number of finished epochs.
        step: number of finished steps in the current epoch.
        sums: sums over the current epoch.
        best_score: the best validation score so far.
        best_epoch: the epoch (from 1) with the best score; 0 before the first.
    """

    epoch: int = 0
    step: int = 0
    sums: Sums = field(default_factory=Sums)
    best_score: float = float("-inf")
    best_epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A model, its optimizer and everything else that determines how the weights change.

    Attributes:
        model: the module whose weights are saved.
        trained: the same module as it is called in training (compiled, or wrapped for several processes).
        optimizer: updates the weights.
        scheduler: stepped once after each epoch, with the validation loss if the scheduler needs it.
        objective: what is minimised.
        compute: device and precision.
        processes: the place of this process in the run.
        frozen_batch_norm: whether every batch norm uses its running statistics in training.
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
        """Everything that a later process needs to resume as if the training had never stopped."""
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
        """Restore a state; returns its position."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        keep_sums = self.processes.is_first  # the saved sums are those of the first process: the others start from zero
        terms = {name: value.to(self.compute.device) for name, value in state["sums"].items()}
        sums = Sums(terms if keep_sums else {name: value * 0 for name, value in terms.items()})
        sums.samples = state["samples"] if keep_sums else 0
        return Position(state["epoch"], state["step"], sums, state["best_score"], state["best_epoch"])


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
        score: rates a validation pass by its means; the epoch with the highest score is kept.
        keep_best: called with the epoch (from 1) and the means of each new best epoch, in the first process only.
        checkpoint_seconds: longest time between two checkpoints.
        resume: whether to start from the newest checkpoint, if there is one.
        opening: text to report before the first step.
        console: where to report.
    """

    training: Training
    train: Stream
    order: BatchOrder
    validation: Stream
    fixed: list[list[SampleKey]]
    describe: Callable[[SampleKey], dict[str, Any]]
    score: Callable[[dict[str, float]], float]
    keep_best: Callable[[dict[str, Any]], None]
    checkpoint_seconds: float
    resume: bool
    opening: str
    console: Console


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


def sgd(model: nn.Module, rate: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """The optimizer of the paper (section 4.1.2)."""
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum, weight_decay=weight_decay, fused=True)
