"""One training step, the timing of an epoch, and a validation pass.

Nothing here depends on the task. An objective defines what is minimised: it is a function ``(model, inputs, targets) ->
dict of scalar tensors``, of which training minimises ``"loss"`` and averages all terms over samples.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from v3s.backbones.device import Compute
from v3s.train.distributed import Processes, gather
from v3s.train.finite import FiniteGuard

Objective = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]
Batch = tuple[Tensor, Tensor]


@dataclass(slots=True)
class Sums:
    """Sums over the samples of an epoch, kept on the device so that no step waits for the device.

    Attributes:
        terms: for each term, the sum over batches of the term times the batch size.
        samples: number of samples added.
    """

    terms: dict[str, Tensor] = field(default_factory=dict)
    samples: int = 0

    def add(self, terms: dict[str, Tensor], num_samples: int) -> None:
        """Add the mean terms of a batch."""
        for name, value in terms.items():
            weighted = value.detach().double() * num_samples
            self.terms[name] = self.terms[name] + weighted if name in self.terms else weighted
        self.samples += num_samples

    def means(self, processes: Processes) -> dict[str, float]:
        """The means over the samples of all processes. Every process must call it, even one without samples."""
        gathered = gather(({name: value.item() for name, value in self.terms.items()}, self.samples), processes)
        names = sorted({name for terms, _ in gathered for name in terms})
        samples = sum(number for _, number in gathered)
        return {name: sum(terms.get(name, 0.0) for terms, _ in gathered) / max(samples, 1) for name in names}

    def local_means(self) -> dict[str, float]:
        """The means over this process's samples, for a progress line."""
        return {name: value.item() / self.samples for name, value in self.terms.items()}


@dataclass(slots=True)
class Clock:
    """How an epoch's seconds were spent.

    Attributes:
        device: the device that trains.
        waiting_seconds: time spent waiting for batches. On a GPU, the time in which the GPU did not run the network,
            including the time to make the batch if the GPU makes it; work of the host at the same time does not count.
        seconds: total time.
        steps: number of steps finished in that time.
        samples: number of samples that this process trained on in that time.
    """

    device: torch.device
    waiting_seconds: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    samples: int = 0
    _pending: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = field(default_factory=deque)

    @property
    def waiting_share(self) -> float:
        """The share of the time spent waiting for data, in [0, 1]."""
        return self.waiting_seconds / self.seconds if self.seconds else 0.0

    @property
    def samples_per_second(self) -> float:
        """Samples trained on per second, in this process."""
        return self.samples / self.seconds if self.seconds else 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside the context as waiting."""
        if self.device.type == "cpu":
            start = time.perf_counter()
            yield
            self.waiting_seconds += time.perf_counter() - start
            return
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        before.record()  # the GPU reaches it when the previous step is finished
        yield
        after.record()
        self._pending.append((before, after))
        while self._pending and self._pending[0][1].query():  # type: ignore[no-untyped-call]
            self._count_oldest()

    def finish(self) -> None:
        """Count the remaining waiting time, which the GPU has finished by now."""
        while self._pending:
            self._count_oldest()

    def _count_oldest(self) -> None:
        before, after = self._pending.popleft()
        self.waiting_seconds += before.elapsed_time(after) / 1000


def train_step(
    model: nn.Module,
    batch: Batch,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    compute: Compute,
    guard: FiniteGuard,
) -> dict[str, Tensor]:
    """Run one optimisation step, without an update if the loss or gradient is not finite; returns the detached terms.

    An empty batch changes nothing and has no terms.
    """
    if not len(batch[0]):
        return {}
    inputs, targets = compute.clips(batch[0]), batch[1].to(compute.device, non_blocking=True)
    with compute.autocast():
        terms = objective(model, inputs, targets)
    optimizer.zero_grad(set_to_none=True)
    terms["loss"].backward()  # type: ignore[no-untyped-call]
    guard.step(optimizer, terms["loss"])
    return {name: value.detach() for name, value in terms.items()}


def timed(
    batches: Iterator[Batch], num_batches: int, clock: Clock, *, waiting: Callable[[], AbstractContextManager[None]]
) -> Iterator[Batch]:
    """Yield that many batches, waiting for each inside the context ``waiting``, and record the times."""
    for _ in range(num_batches):
        start = time.perf_counter()
        with waiting(), clock.waiting():
            batch = next(batches)
        yield batch
        clock.seconds += time.perf_counter() - start
        clock.steps += 1
        clock.samples += len(batch[0])


@torch.no_grad()
def validate(
    model: nn.Module, batches: Iterable[Batch], objective: Objective, compute: Compute, processes: Processes
) -> dict[str, float]:
    """Compute the mean of every term over the samples of all processes, in evaluation mode."""
    was_training = model.training
    model.eval()
    sums = Sums()
    for clips, targets in batches:
        if not len(clips):  # all of its files are in quarantine
            continue
        with compute.autocast():
            terms = objective(model, compute.clips(clips), targets.to(compute.device, non_blocking=True))
        sums.add(terms, len(clips))
    model.train(was_training)
    return sums.means(processes)


def set_training_mode(model: nn.Module, frozen: Iterable[nn.Module]) -> None:
    """Set training mode, except in frozen modules: these use their running statistics and do not update them."""
    model.train()
    for module in frozen:
        module.eval()


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Every batch norm of a model."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
