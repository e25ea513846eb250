"""One training step, one epoch, one validation pass. Knows no task: an objective says what is minimised.

An objective is a function ``(model, inputs, targets) -> dict of scalar tensors``; the loop minimises ``"loss"`` and
averages the rest over samples.
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
    """Sums over the samples of an epoch, kept on the device so that a step never waits for it.

    Attributes:
        terms: the sum of each term times its batch's size.
        samples: how many samples were added.
    """

    terms: dict[str, Tensor] = field(default_factory=dict)
    samples: int = 0

    def add(self, terms: dict[str, Tensor], num_samples: int) -> None:
        """Add a batch's mean terms."""
        for name, value in terms.items():
            weighted = value.detach().double() * num_samples
            self.terms[name] = self.terms[name] + weighted if name in self.terms else weighted
        self.samples += num_samples

    def means(self, processes: Processes) -> dict[str, float]:
        """The means over the samples of all processes, of which one may have none: every process calls it."""
        found = gather(({name: value.item() for name, value in self.terms.items()}, self.samples), processes)
        names, samples = sorted({name for terms, _ in found for name in terms}), sum(number for _, number in found)
        return {name: sum(terms.get(name, 0.0) for terms, _ in found) / max(samples, 1) for name in names}

    def local_means(self) -> dict[str, float]:
        """The means over this process's samples, for a progress line."""
        return {name: value.item() / self.samples for name, value in self.terms.items()}


@dataclass(slots=True)
class Clock:
    """How an epoch's seconds were spent.

    Attributes:
        device: that trains.
        waiting_seconds: until the next batch was there. On a GPU, those in which it had nothing of the network to do,
            the making of the batch included where the GPU makes it: what the host does meanwhile costs nothing.
        seconds: in all.
        steps: finished in that time.
        samples: trained on in that time, in this process.
    """

    device: torch.device
    waiting_seconds: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    samples: int = 0
    _underway: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = field(default_factory=deque)

    @property
    def waiting_share(self) -> float:
        """The share of time that went into waiting for data, 0..1."""
        return self.waiting_seconds / self.seconds if self.seconds else 0.0

    @property
    def samples_per_second(self) -> float:
        """Samples trained on per second, in this process."""
        return self.samples / self.seconds if self.seconds else 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Book the time within as waiting."""
        if self.device.type == "cpu":
            start = time.perf_counter()
            yield
            self.waiting_seconds += time.perf_counter() - start
            return
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        before.record()  # reached when the step before is finished
        yield
        after.record()
        self._underway.append((before, after))
        while self._underway and self._underway[0][1].query():  # type: ignore[no-untyped-call]
            self._book()

    def finish(self) -> None:
        """Book what a GPU had not yet finished; it has now."""
        while self._underway:
            self._book()

    def _book(self) -> None:
        before, after = self._underway.popleft()
        self.waiting_seconds += before.elapsed_time(after) / 1000


def train_step(
    model: nn.Module,
    batch: Batch,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    compute: Compute,
    guard: FiniteGuard,
) -> dict[str, Tensor]:
    """One optimisation step, unless the loss or the gradient is not finite; returns the terms, detached.

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
    """Yield that many batches and book the time: waiting for the next one, in the given context, and all of it."""
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
    """The mean of every term over all samples of all processes, in evaluation mode."""
    was_training = model.training
    model.eval()
    sums = Sums()
    for clips, targets in batches:
        if not len(clips):  # all its files are in quarantine
            continue
        with compute.autocast():
            terms = objective(model, compute.clips(clips), targets.to(compute.device, non_blocking=True))
        sums.add(terms, len(clips))
    model.train(was_training)
    return sums.means(processes)


def freeze_batch_norm(model: nn.Module) -> None:
    """Use the running statistics of every batch norm, and stop updating them; call it after ``model.train()``."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
