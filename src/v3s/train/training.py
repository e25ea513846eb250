"""What a training is: the parts that move, the samples that it sees and what is kept of it."""

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
        """Everything that a later process needs to resume as if nothing had happened."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Samples of some videos, in batches.

    Attributes:
        name: of the stream in quarantine.jsonl.
        num_files: how many videos there are, of which at most half may go bad.
        read: batches in an order, without the files in quarantine.
    """

    name: str
    num_files: int
    read: Callable[[BatchOrder | list[list[SampleKey]], Quarantine], Generator[Batch, None, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """A training as `v3s.train.fit.fit` carries it out, from its first epoch to its last.

    Attributes:
        training: the moving parts.
        train: where the batches come from.
        order: of the batches, from the first epoch on.
        validation: where the batches of a validation come from.
        fixed: the samples of every validation, in batches.
        describe: everything that was drawn for a sample of ``train``; see `BadBatch`.
        score: how good a validation was, given its means; the epoch with the highest is kept.
        keep_best: called with the epoch (from 1) and the means of each new best epoch, in the first process.
        checkpoint_seconds: at most this long between two checkpoints.
        resume: start at the newest checkpoint, if there is one.
        opening: what is said before the first step.
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
    """A model on its device, and the same as it is called in training.

    Args:
        model: as it was built.
        compute: the device.
        processes: with several, gradients are averaged over them, and statistics of batch norm where that is asked for.
        batch_norm: "sync", or "auto" on several GPUs, takes the statistics over all processes.
        compiled: compile what is called in training. Validation, in batches of other sizes, would be compiled again.
    """
    several_gpus = processes.count > 1 and compute.device.type == "cuda"
    if batch_norm == "sync" or (batch_norm == "auto" and several_gpus):
        model = cast(_Model, nn.SyncBatchNorm.convert_sync_batchnorm(model))  # type: ignore[no-untyped-call]
    model = compute.network(model)
    trained = wrap(model, processes, compute.device)
    return model, cast(nn.Module, torch.compile(trained)) if compiled else trained


def sgd(model: nn.Module, rate: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """The optimiser of the paper (section 4.1.2)."""
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum, weight_decay=weight_decay, fused=True)
