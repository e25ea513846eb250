"""The means of a validation, and what the clock of an epoch counts as waiting."""

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from v3s.backbones.device import choose_compute
from v3s.train.distributed import Processes
from v3s.train.loop import Clock, validate


def test_validation_is_the_mean_over_clips_and_not_over_batches() -> None:
    """Also if the last batch is smaller, and one is empty because its files are in quarantine."""
    model = nn.Dropout()

    def objective(network: nn.Module, clips: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"loss": network(targets.double()).mean()}

    parts = torch.split(torch.arange(10), [7, 0, 3])
    batches = [(torch.zeros(len(part), 3, 2, 4, 4, dtype=torch.uint8), part) for part in parts]
    means = validate(model, batches, objective, choose_compute("cpu", "fp32"), Processes())
    assert means == {"loss": pytest.approx(4.5)}
    assert model.training


def test_on_a_cpu_the_time_inside_the_context_is_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 13.0])
    clock = Clock(torch.device("cpu"), seconds=12)
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: next(times))
        with clock.waiting():
            pass
    assert (clock.waiting_seconds, clock.waiting_share) == (3.0, 0.25)


class _Events:
    """A GPU that records events and reaches them later, each 250 ms after the previous one."""

    def __init__(self) -> None:
        self.recorded = self.reached = 0

    def __call__(self, *, enable_timing: bool) -> Any:
        assert enable_timing
        return _Event(self)


class _Event:
    def __init__(self, events: _Events) -> None:
        self.events, self.number = events, -1

    def record(self) -> None:
        self.number = self.events.recorded
        self.events.recorded += 1

    def query(self) -> bool:
        return self.number < self.events.reached

    def elapsed_time(self, other: "_Event") -> float:
        assert other.query(), "torch would raise"
        return 250.0 * (other.number - self.number)


def test_on_a_gpu_its_own_time_counts_and_the_host_reads_only_finished_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = _Events()
    monkeypatch.setattr(torch.cuda, "Event", events)
    clock = Clock(torch.device("cuda", 0))
    waited = []
    for reached in (0, 1, 4, 4):
        events.reached = reached
        with clock.waiting():
            pass
        waited.append(clock.waiting_seconds)
    assert waited == [0.0, 0.0, 0.5, 0.5]
    events.reached = 8
    clock.finish()
    assert clock.waiting_seconds == 1.0
