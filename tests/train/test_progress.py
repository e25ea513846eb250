"""What a training says of the time that it takes."""

import io
from typing import Any

import pytest
import torch
from rich.console import Console

from v3s.data.clips import BatchOrder
from v3s.train import progress as module
from v3s.train.loop import Clock, Sums
from v3s.train.progress import Progress, describe

MEANS: dict[str, Any] = {"loss": 1.0}


def lines_of(
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    *,
    minutes: float | None,
    first_epoch: int = 0,
    num_epochs: int = 40,
) -> list[str]:
    """The lines of a training with two steps of this many seconds in an epoch, after 100 seconds for the first."""
    order = BatchOrder(num_samples=8, batch_size=4, num_epochs=num_epochs, seed=0, first_epoch=first_epoch)
    now, lines = [0.0], list[str]()
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(module, "_LINE_SECONDS", float("inf"))
    shown = Progress(order, lines.append, Console(file=io.StringIO()), minutes)
    now[0] = 100 - seconds
    for epoch in range(first_epoch, num_epochs):
        for step in (1, 2):
            now[0] += seconds
            shown.step(epoch, step, Sums(), Clock(torch.device("cpu")))
        line = {"epoch": epoch + 1, "train": MEANS, "validation": MEANS, "clips_per_second": 1.0, "waiting_share": 0.0}
        shown.end_epoch({**line, "best_epoch": 1})
    return lines


def test_each_epoch_but_the_last_says_when_the_training_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = lines_of(monkeypatch, 30.0, minutes=None)
    assert len(lines) == 40
    assert lines[0].endswith("kept: epoch 1, about 39 min left")
    assert lines[-2].endswith("about 1 min left")
    assert "left" not in lines[-1]


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(30, ""), (37, ""), (23, ""), (60, "about 80 min, not 40. To take 40"), (15, "about 20 min, not 40. To take 40")],
)
def test_a_time_that_will_not_hold_is_said_once(monkeypatch: pytest.MonkeyPatch, seconds: float, says: str) -> None:
    said = [line for line in lines_of(monkeypatch, seconds, minutes=40) if line.startswith("at this speed")]
    assert len(said) == bool(says)
    assert not says or says in said[0]
    if seconds == 60:
        assert "the same command with --epochs 20 --overwrite" in said[0]
    resumed = [line for line in lines_of(monkeypatch, seconds, minutes=40, first_epoch=20) if "at this speed" in line]
    assert len(resumed) == bool(says)
    assert not says or ("min in all, not 40; stop it at any time" in resumed[0] and "--overwrite" not in resumed[0])


def test_a_step_is_one_line_however_narrow_the_file_is_taken_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    written, clock, sums = io.StringIO(), Clock(torch.device("cpu")), Sums()
    sums.add({"loss": torch.tensor(1.0), **dict.fromkeys(("loss_spatial", "loss_temporal"), torch.tensor(0.5))}, 4)
    clock.seconds = 1.0
    monkeypatch.setattr(module, "_LINE_SECONDS", -1.0)
    order = BatchOrder(num_samples=800, batch_size=4, num_epochs=40, seed=0)
    Progress(order, print, Console(file=written, width=40)).step(0, 2, sums, clock)
    assert written.getvalue().count("\n") == 1
    assert written.getvalue().startswith("epoch 1/40 loss 1.000 ")


def test_the_loss_of_training_is_that_of_the_heads_as_in_validation() -> None:
    heads = {"loss_spatial": 2.0, "accuracy_spatial": 0.1, "loss_temporal": 1.0, "accuracy_temporal": 0.2}
    text = "loss 3.000 spatial 10.0% temporal 20.0%"
    assert describe({"loss": 3.0, **heads}) == text
    assert describe({"loss": 5.0, "loss_contrast": 4.0, **heads}) == text.replace("000 ", "000 contrast 4.000 ")
    assert describe({"loss": 1.5, "accuracy": 0.5}) == "loss 1.500 accuracy 50.0%"
