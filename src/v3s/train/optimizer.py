"""SGD, how its learning rates change from epoch to epoch, and the options of every training."""

import warnings
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR

from v3s.backbones.device import ComputeOptions
from v3s.options import require_not_negative, require_positive
from v3s.train.callbacks import Callback
from v3s.train.tensorboard import EVENTS, TensorBoard

Keep = Literal["loss", "accuracy", "last"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(ComputeOptions):
    """How weights are trained.

    Attributes:
        epochs: Passes over the training videos.

    More options:
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        head_rate: Learning rate of all layers after the backbone, as a multiple of that of the backbone.
        schedule: plateau divides the learning rate by ten after --patience epochs without a lower validation loss; step
            divides it by ten every --decay-epochs epochs; cosine lowers it along half a cosine, to 0 after the last
            epoch, so that the number of epochs cannot change on resume.
        warmup: Epochs in which the learning rate rises in equal steps, before the schedule starts.
        patience: Epochs without a lower validation loss, for the schedule plateau.
        decay_epochs: Epochs between two divisions, for the schedule step.
        keep: Which weights the run keeps: those of the epoch with the lowest validation loss, those with the highest
            validation accuracy (if equal, with the lower loss), or the last. The folder "last" in the run's folder
            always contains the last ones.
        stop_early: Stop when this many training clips, rounded up to whole epochs, have brought no lower validation
            loss. Default: never.
        checkpoint_seconds: Longest time between two checkpoints, in seconds.
        freeze: Stages of the backbone whose weights and batch-norm statistics stay as they are at the start, such as
            conv1,conv2. They cost no backward pass if no stage before them is trained.
        log: tensorboard also writes event files into RUN/tensorboard, with every step; needs the extra tensorboard.
    """

    former: ClassVar[dict[str, Any]] = {"keep": "accuracy", "statistics_clips": 0}
    """What runs did whose config.yaml does not have these options."""

    epochs: int
    momentum: float = 0.9
    weight_decay: float = 5e-4
    head_rate: float = 1.0
    schedule: Literal["plateau", "cosine", "step"] = "plateau"
    warmup: int = 0
    patience: int = 50
    decay_epochs: int = 100
    keep: Keep = "loss"
    stop_early: int | None = None
    checkpoint_seconds: float = 300.0
    freeze: tuple[str, ...] | None = None
    log: Literal["tensorboard"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs", "head_rate", "patience", "decay_epochs", "stop_early")
        require_not_negative(self, "momentum", "weight_decay", "warmup")
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup is {self.warmup}; it must be less than epochs ({self.epochs})")

    @property
    def can_go_on(self) -> bool:
        """Whether a finished run can be resumed with more epochs: the schedule cosine ends with those it was given."""
        return self.schedule != "cosine"

    @property
    def frozen_text(self) -> str:
        """The frozen stages, for an announcement; empty if there are none."""
        return f"frozen: {', '.join(self.freeze)}; " if self.freeze else ""


def loggers(options: TrainingOptions, run: Path) -> list[Callback]:
    """The callbacks that the options ask for.

    Args:
        options: what to write.
        run: the folder of the run.

    Raises:
        ValueError: the extra that one of them needs is not installed.
    """
    return [TensorBoard(run / EVENTS)] if options.log == "tensorboard" else []


def sgd(model: nn.Module, rate: float, options: TrainingOptions) -> torch.optim.SGD:
    """The optimizer of the paper (section 4.1.2).

    Args:
        model: a network with a ``backbone``; its other layers are the heads.
        rate: learning rate of the backbone.
        options: momentum, weight decay, and the rate of the heads.
    """
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if options.head_rate != 1:
        own = {id(parameter) for parameter in model.backbone.parameters()}  # type: ignore[union-attr]
        heads = [parameter for parameter in model.parameters() if id(parameter) not in own]
        backbone = [parameter for parameter in model.parameters() if id(parameter) in own]
        groups = [{"params": backbone}, {"params": heads, "lr": rate * options.head_rate}]
    return torch.optim.SGD(groups, lr=rate, momentum=options.momentum, weight_decay=options.weight_decay, fused=True)


class Schedule:
    """The learning rates of an optimizer from epoch to epoch.

    With a warm-up of W epochs, epoch 1 + i of the first W has the share (1 + i) / (1 + W) of the rates; the schedule
    starts with the epoch after them.

    Args:
        optimizer: its rates are those to start with; with a warm-up, they are lowered here.
        options: which schedule.

    Source: paper section 4.1.2 for the first rate alone; it states no schedule (docs/paper.md).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, options: TrainingOptions) -> None:
        self.can_go_on = options.can_go_on
        self._optimizer, self._warmup, self._num_finished = optimizer, options.warmup, 0
        self._rule = _rule(optimizer, options)
        self._rates = [group["lr"] for group in optimizer.param_groups]
        if self._warmup:
            self._warm_up()

    def end_epoch(self, loss: float) -> None:
        """Set the rates of the next epoch.

        Args:
            loss: the validation loss of the epoch that has ended.
        """
        self._num_finished += 1
        if self._num_finished <= self._warmup:
            self._warm_up()
        elif isinstance(self._rule, ReduceLROnPlateau):
            self._rule.step(loss)
        else:
            with warnings.catch_warnings():  # the process before a resume may have done all steps of this epoch
                warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)` before `optimizer")
                self._rule.step()

    def _warm_up(self) -> None:
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * ((1 + self._num_finished) / (1 + self._warmup))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs besides the optimizer's own state, which contains the current rates."""
        return {"finished": self._num_finished, "rule": self._rule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self._num_finished = state["finished"]
        self._rule.load_state_dict(state["rule"])


def _rule(optimizer: torch.optim.Optimizer, options: TrainingOptions) -> StepLR | LambdaLR | ReduceLROnPlateau:
    if options.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, factor=0.1, patience=options.patience, min_lr=1e-7)
    if options.schedule == "step":
        return StepLR(optimizer, options.decay_epochs, gamma=0.1)
    length = options.epochs - options.warmup
    return LambdaLR(optimizer, lambda epoch: (1 + cos(pi * epoch / length)) / 2)
