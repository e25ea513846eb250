"""Learning rates over a run: each schedule by hand, warm-up, the heads apart, and the same after a resume."""

from dataclasses import dataclass, replace
from math import cos, pi
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from v3s.train.optimizer import Schedule, TrainingOptions, sgd


@dataclass(frozen=True, kw_only=True)
class Options(TrainingOptions):
    """Ten epochs."""

    epochs: int = 10


class Small(nn.Module):
    """A backbone of one layer, with one head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(3, 2), nn.Linear(2, 2)

    def forward(self, numbers: Tensor) -> Tensor:
        """Numbers (B, 3) to (B, 2)."""
        result: Tensor = self.head(self.backbone(numbers))
        return result


def rates(
    options: Options, losses: list[float] | None = None, *, resumed_after: int | None = None
) -> list[list[float]]:
    """The rates of every group in each epoch, and after the last."""
    optimizer = sgd(Small(), 0.1, options)
    schedule, seen = Schedule(optimizer, options), []
    for epoch, loss in enumerate(losses or [1.0] * options.epochs):
        if epoch == resumed_after:
            saved = optimizer.state_dict(), schedule.state_dict()
            optimizer = sgd(Small(), 0.1, options)
            schedule = Schedule(optimizer, options)
            optimizer.load_state_dict(saved[0])
            schedule.load_state_dict(saved[1])
        seen.append([group["lr"] for group in optimizer.param_groups])
        schedule.end_epoch(loss)
    return [*seen, [group["lr"] for group in optimizer.param_groups]]


def test_a_cosine_ends_at_zero() -> None:
    expected = [0.1 * (1 + cos(pi * epoch / 10)) / 2 for epoch in range(11)]
    assert [rate for (rate,) in rates(Options(schedule="cosine"))] == pytest.approx(expected, abs=1e-12)
    assert expected[0] == 0.1
    assert expected[10] == pytest.approx(0, abs=1e-12)


def test_steps_divide_by_ten() -> None:
    found = [rate for (rate,) in rates(Options(schedule="step", decay_epochs=4))]
    assert found == pytest.approx([0.1] * 4 + [0.01] * 4 + [0.001] * 3)


def test_a_plateau_divides_by_ten_after_more_than_its_patience() -> None:
    losses = [3.0, 2.0, 2.0, 2.5, 2.0, 1.0, 1.0, 1.0]
    found = [rate for (rate,) in rates(Options(patience=2), losses)]
    assert found == pytest.approx([0.1] * 5 + [0.01] * 4)


@pytest.mark.parametrize("schedule", ["plateau", "cosine", "step"])
def test_a_warm_up_rises_in_equal_steps_and_shifts_the_schedule(schedule: Any) -> None:
    options = Options(schedule=schedule, warmup=3, epochs=9, decay_epochs=2, patience=1)
    found = [rate for (rate,) in rates(options)]
    assert found[:3] == pytest.approx([0.025, 0.05, 0.075])
    assert found[3:] == [rate for (rate,) in rates(replace(options, warmup=0, epochs=6))]


@pytest.mark.parametrize("schedule", ["plateau", "cosine", "step"])
@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("resumed_after", [0, 1, 4, 7])
def test_resuming_changes_no_rate(schedule: Any, warmup: int, resumed_after: int) -> None:
    options = Options(schedule=schedule, warmup=warmup, decay_epochs=2, patience=1, head_rate=3)
    assert rates(options, resumed_after=resumed_after) == rates(options)


def test_heads_have_their_own_rate_in_every_epoch() -> None:
    alone, apart = (rates(Options(schedule="cosine", warmup=2, head_rate=rate)) for rate in (1, 10))
    assert [rate for (rate,) in alone] == [rate for rate, _ in apart]
    assert [head for _, head in apart] == pytest.approx([10 * rate for rate, _ in apart])
    model = Small()
    optimizer = sgd(model, 0.1, Options(head_rate=10))
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]
    assert optimizer.param_groups[1]["params"][0] is model.head.weight


def test_one_rate_is_one_group() -> None:
    """So that plain runs have the same optimizer as before there was a choice."""
    model = Small()
    (group,) = sgd(model, 0.1, Options()).param_groups
    assert all(one is other for one, other in zip(group["params"], model.parameters(), strict=True))
    assert isinstance(sgd(model, 0.1, Options()), torch.optim.SGD)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"warmup": 10}, r"warmup is 10; it must be less than epochs \(10\)"),
        ({"warmup": -1}, "warmup is -1; it must be 0 or more"),
        ({"head_rate": 0}, "head_rate is 0; it must be more than 0"),
        ({"decay_epochs": 0}, "decay_epochs is 0; it must be more than 0"),
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**wrong)
