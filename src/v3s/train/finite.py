"""No update is made with a NaN or an infinity: the decision is taken on the device, so that no step waits for it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from v3s.files.weights import load_weights, weights_as_bytes
from v3s.files.writing import CheckpointError, read_json, write_atomically, write_json
from v3s.train.distributed import Processes, sum_over


class NonFiniteError(ValueError):
    """A loss or a gradient was NaN or infinite; the message says where, and no update was made with it."""


class FiniteGuard:
    """Lets an optimizer step as long as the losses and gradients of all processes are finite, and never after.

    The optimizer must be a fused one: those skip an update where their ``found_inf`` is 1, without asking the host
    (the protocol of `torch.amp.GradScaler`). The weights therefore stay what they were before the first bad step,
    however late `num_good` is read.

    Args:
        processes: the run's; one process's bad batch stops them all.
        device: where the gradients are.

    Attributes:
        found: 1 from the first bad step on, 0 before; on the device.
        num_steps: so far, those that were not made among them.
    """

    def __init__(self, processes: Processes, device: torch.device) -> None:
        self._processes = processes
        self.found = torch.zeros((), device=device)
        self._good = torch.zeros((), dtype=torch.int64, device=device)
        self.num_steps = 0

    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """Move the weights, unless this loss, its gradients or those of an earlier step are not finite."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        bad = (~torch.isfinite(norm + loss.detach())).float()
        self.found = torch.clamp(self.found + sum_over(bad, self._processes), max=1)
        self._good += self.found == 0
        self.num_steps += 1
        assert all(group["fused"] for group in optimizer.param_groups)
        optimizer.found_inf = self.found  # type: ignore[attr-defined]
        optimizer.step()

    def num_bad(self) -> int:
        """How many steps were not made, counted from the first bad one; waits for the device."""
        return self.num_steps - int(self._good)


@dataclass(frozen=True, slots=True)
class BadBatch:
    """A batch whose loss or gradient was not finite, as ``nonfinite/`` in a run's folder keeps it.

    Attributes:
        epoch: from 0.
        step: in the epoch, from 0.
        learning_rate: of that step.
        num_processes: that shared the batch: process p had every one from sample p on.
        samples: for each clip everything that was drawn, as plain values; ``index`` and ``video`` among them.
    """

    epoch: int
    step: int
    learning_rate: float
    num_processes: int
    samples: list[dict[str, Any]]

    def __str__(self) -> str:
        return f"epoch {self.epoch + 1}, step {self.step + 1}, learning rate {self.learning_rate:g}"


BATCH, _MODEL = "batch.json", "model.safetensors"


def save_bad_batch(folder: Path, batch: BadBatch, model: nn.Module) -> None:
    """Write the batch and the weights that it met."""
    write_atomically(folder / _MODEL, lambda beside: beside.write_bytes(weights_as_bytes(model)))
    write_json(folder / BATCH, asdict(batch))


def load_bad_batch(folder: Path, model: nn.Module) -> BadBatch:
    """Read what `save_bad_batch` wrote, the weights into the model.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    try:
        batch = BadBatch(**read_json(folder / BATCH))
    except TypeError as error:
        raise CheckpointError(f"{folder / BATCH}: incomplete ({error})") from error
    load_weights(folder / _MODEL, model)
    return batch
