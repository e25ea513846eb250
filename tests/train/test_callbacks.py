"""Callbacks: what they are given, that they change nothing, fail by name, and do not see an epoch again."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from v3s import Callback, FinetuneConfig, PretrainConfig, finetune, pretrain
from v3s.files.weights import fingerprint
from v3s.train.callbacks import Callbacks
from v3s.train.run import read_metrics
from v3s.train.stop import TrainingStoppedError

QUIET = Console(quiet=True)
STEPS = 3  # in an epoch of `small_pretraining`: 12 videos in batches of 4


class Recorder:
    """Keeps every call, and tries to disturb the training."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.epochs: list[tuple[int, int]] = []
        self.ends: list[BaseException | None] = []
        self.values: list[dict[str, float]] = []

    def on_step(self, step: int, values: dict[str, float]) -> None:
        """Keep a step."""
        self.steps.append(step)
        self.values.append(dict(values))
        values.clear()
        torch.manual_seed(step)
        np.random.seed(step)  # noqa: NPY002

    def on_epoch(self, epoch: int, step: int, values: dict[str, float]) -> None:
        """Keep an epoch."""
        self.epochs.append((epoch, step))
        self.values.append(dict(values))
        values.clear()

    def on_end(self, error: BaseException | None) -> None:
        """Keep the end."""
        self.ends.append(error)


class Failing(Callback):
    """Fails in one of its methods."""

    def __init__(self, method: str) -> None:
        setattr(self, method, self.fail)

    def fail(self, *values: object) -> None:
        """Fail."""
        raise LookupError("no such table")


def weights_of(run: Path) -> str:
    return fingerprint(torch.load(run / "checkpoints/last.pt", weights_only=True)["model"])


def test_a_callback_is_given_every_step_and_epoch_and_changes_nothing(
    pretrained: Path, small_pretraining: PretrainConfig, tmp_path: Path
) -> None:
    first, second = Recorder(), Recorder()
    pretrain(replace(small_pretraining, out=str(tmp_path)), callbacks=[first, second], console=QUIET)
    for recorder in (first, second):
        assert recorder.steps == [1, 2, 3, 4, 5, 6]
        assert recorder.epochs == [(1, STEPS), (2, 2 * STEPS)]
        assert recorder.ends == [None]
    assert first.values == second.values
    assert all(type(value) is float for values in first.values for value in values.values())
    line, given = read_metrics(tmp_path / "metrics.jsonl")[0], first.values[STEPS]
    assert given["validation/loss"] == line["validation"]["loss"]
    assert given["learning_rate"] == line["learning_rate"]
    assert given.keys() == {
        *(f"{part}/{term}" for part in ("train", "validation") for term in line["train"]),
        *(line.keys() - {"epoch", "train", "validation"}),
    }
    losses = [values["step/loss"] for values in first.values[:STEPS]]
    assert given["train/loss"] == pytest.approx(sum(losses) / STEPS)
    assert weights_of(tmp_path) == weights_of(pretrained)


def test_finetuning_calls_them_too(small_finetuning: FinetuneConfig, tmp_path: Path) -> None:
    recorder = Recorder()
    finetune(replace(small_finetuning, out=str(tmp_path)), callbacks=[recorder], console=QUIET)
    assert [epoch for epoch, _ in recorder.epochs] == [1, 2]
    assert recorder.values[0].keys() == {"step/loss", "step/accuracy"}
    assert recorder.ends == [None]


def test_a_resumed_run_starts_after_its_checkpoint(
    small_pretraining: PretrainConfig,
    tmp_path: Path,
    killed_after: Callable[[int], AbstractContextManager[None]],
) -> None:
    """It is killed when step 5 is done, after the checkpoint of that step and before the callback hears of it."""
    given, before, after = replace(small_pretraining, out=str(tmp_path)), Recorder(), Recorder()
    with killed_after(4):
        pretrain(replace(given, resume=True), callbacks=[before], console=QUIET)
    assert "resuming" not in (tmp_path / "train.log").read_text()  # there was nothing to resume
    assert (before.steps, before.epochs) == ([1, 2, 3, 4], [(1, STEPS)])
    assert [type(end) for end in before.ends] == [KeyboardInterrupt]
    pretrain(replace(given, resume=True, epochs=3), callbacks=[after], console=QUIET)
    assert "resuming in epoch 2 after step 2" in (tmp_path / "train.log").read_text()
    assert (after.steps, after.epochs) == ([6, 7, 8, 9], [(2, 2 * STEPS), (3, 3 * STEPS)])
    again = Recorder()
    pretrain(replace(given, resume=True, epochs=3), callbacks=[again], console=QUIET)
    assert (again.steps, again.epochs, again.ends) == ([], [], [None])


@pytest.mark.parametrize("method", ["on_step", "on_epoch", "on_end"])
def test_a_failing_callback_is_named(small_pretraining: PretrainConfig, tmp_path: Path, method: str) -> None:
    console, others = Console(file=io.StringIO(), width=200), Recorder()
    given = replace(small_pretraining, out=str(tmp_path))
    with pytest.raises(LookupError, match="no such table") as caught:
        pretrain(given, callbacks=[Failing(method), others], console=console)
    named = f"the callback {Failing.__module__}.Failing failed in {method}"
    assert caught.value.__notes__ == [named]
    assert f"{named}: LookupError: no such table" in (tmp_path / "train.log").read_text()
    assert others.ends == [caught.value if method != "on_end" else None]
    recorder = Recorder()
    pretrain(replace(given, resume=True), callbacks=[recorder], console=QUIET)
    assert recorder.epochs[-1:] == ([(2, 2 * STEPS)] if method != "on_end" else [])


def test_the_first_error_stays_if_a_callback_fails_at_the_end() -> None:
    said: list[str] = []
    recorder = Recorder()
    with pytest.raises(ZeroDivisionError), Callbacks([Failing("on_end"), recorder], 0, said.append):
        _ = 1 / 0
    assert "failed in on_end: LookupError: no such table" in said[0]
    assert [type(end) for end in recorder.ends] == [ZeroDivisionError]


def test_steps_that_wait_for_the_device_come_before_the_epoch_and_before_a_stop() -> None:
    line: dict[str, Any] = {"epoch": 1, "train": {}, "validation": {}, "learning_rate": 0.1, "seconds": 1}
    line |= {"clips_per_second": 1.0, "waiting_share": 0.0, "best_epoch": 1}
    recorder = Recorder()
    callbacks = Callbacks([recorder], 2, print)
    for step in (1, 2, 3):
        callbacks.step(step, {"loss": torch.tensor(float(step))})
    assert recorder.values == [{"step/loss": 1.0}]
    callbacks.step(4, {})  # no clip could be read
    callbacks.epoch(4, line)
    assert recorder.steps == [1, 2, 3]
    callbacks.step(5, {"loss": torch.tensor(5.0)})
    with pytest.raises(TrainingStoppedError), callbacks:
        raise TrainingStoppedError("a signal", 15)
    assert recorder.steps == [1, 2, 3, 5]


def test_without_callbacks_nothing_is_read_from_the_device() -> None:
    with Callbacks((), 0, print) as callbacks:
        callbacks.step(1, {"loss": torch.empty((), device="meta")})  # reading it would fail


TWO_PROCESSES = """
import json, sys
from rich.console import Console
from v3s import Callback, PretrainConfig, pretrain

class Count(Callback):
    def on_epoch(self, epoch, step, values):
        with open(sys.argv[2], "a") as file:
            file.write(f"{epoch} {step}\\n")

pretrain(PretrainConfig(**json.loads(sys.argv[1])), callbacks=[Count()], console=Console(quiet=True))
"""


def test_of_several_processes_only_the_first_calls_them(small_pretraining: PretrainConfig, tmp_path: Path) -> None:
    script, called = tmp_path / "script.py", tmp_path / "called.txt"
    script.write_text(TWO_PROCESSES)
    options = json.dumps({**vars(small_pretraining), "out": str(tmp_path / "run"), "precision": "fp32"})
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, options, str(called)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert called.read_text() == f"1 {STEPS}\n2 {2 * STEPS}\n"
    page = (tmp_path / "run/report.html").read_text()
    text = " ".join(page.split())
    assert "Answers of the kept weights to 4 clips of 4 validation videos" in text, "of both processes"
