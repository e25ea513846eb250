"""No update is made with a NaN or an infinity. The check runs on the device, so no step waits for it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from v3s.files.reading import read_as, read_json
from v3s.files.weights import load_weights, weights_as_bytes
from v3s.files.writing import write_atomically, write_json
from v3s.train.distributed import Processes, sum_over


class NonFiniteError(ValueError):
    """A loss or a gradient was NaN or infinite, and no update was made with it; the message names the step."""


class FiniteGuard:
    """Steps an optimizer until a loss or a gradient in any process is not finite, and skips every step from then on.

    The optimizer must be fused: a fused optimizer skips the update if its ``found_inf`` is 1, without asking the host
    (the protocol of `torch.amp.GradScaler`). So the weights stay as they were before the first bad step, no matter how
    late `num_skipped` is read.

    Args:
        processes: all processes of the run; a bad batch in one of them stops all.
        device: the device of the gradients.

    Attributes:
        found_inf: 0 until the first bad step, 1 from then on; on the device.
        num_steps: number of steps so far, skipped ones included.
    """

    def __init__(self, processes: Processes, device: torch.device) -> None:
        self._processes = processes
        self.found_inf = torch.zeros((), device=device)
        self._num_good = torch.zeros((), dtype=torch.int64, device=device)
        self.num_steps = 0

    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """Update the weights, unless a loss or gradient of this step or of an earlier one is not finite."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        bad = (~torch.isfinite(norm + loss.detach())).float()
        self.found_inf = torch.clamp(self.found_inf + sum_over(bad, self._processes), max=1)
        self._num_good += self.found_inf == 0
        self.num_steps += 1
        assert all(group["fused"] for group in optimizer.param_groups)
        optimizer.found_inf = self.found_inf  # type: ignore[attr-defined]
        optimizer.step()

    def num_skipped(self) -> int:
        """The number of skipped steps: the first bad one and all later ones. Waits for the device."""
        return self.num_steps - int(self._num_good)


@dataclass(frozen=True, slots=True)
class BadBatch:
    """A batch with a non-finite loss or gradient, as stored in ``nonfinite/`` in the run's folder.

    Attributes:
        epoch: number of the epoch, from 0.
        step: number of the step within the epoch, from 0.
        learning_rate: learning rate of the step.
        num_processes: number of processes that shared the batch, by `v3s.data.clips.share_of`.
        samples: everything that was drawn for each clip, as plain values, including ``index`` and ``video``.
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
    """Write the batch and the weights of its step."""
    write_atomically(folder / _MODEL, lambda temporary: temporary.write_bytes(weights_as_bytes(model)))
    write_json(folder / BATCH, asdict(batch))


def load_bad_batch(folder: Path, model: nn.Module) -> BadBatch:
    """Read the files of `save_bad_batch`: returns the batch, and loads the weights into the model.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    batch = read_as(BadBatch, read_json(folder / BATCH), folder / BATCH)
    load_weights(folder / _MODEL, model)
    return batch
