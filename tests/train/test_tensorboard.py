"""``--log tensorboard``: event files that TensorBoard itself reads, and a resumed run that is one curve."""

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from v3s import FinetuneConfig, PretrainConfig, finetune, pretrain
from v3s.cli import main
from v3s.files.writing import SaveError
from v3s.train.run import read_metrics
from v3s.train.tensorboard import TensorBoard

QUIET = Console(quiet=True)


@pytest.fixture
def accumulate() -> Callable[[Path], Any]:
    """Reads a folder of event files with TensorBoard's own reader."""
    if find_spec("tensorboard") is None:
        message = "the extra tensorboard is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies
        module = import_module("tensorboard.backend.event_processing.event_accumulator")

    def read(folder: Path) -> Any:
        accumulator = module.EventAccumulator(str(folder), size_guidance={module.SCALARS: 0})
        accumulator.Reload()
        return accumulator

    return read


def test_event_files_have_every_step_and_epoch(
    small_pretraining: PretrainConfig, tmp_path: Path, accumulate: Callable[[Path], Any]
) -> None:
    pretrain(replace(small_pretraining, out=str(tmp_path), log="tensorboard"), console=QUIET)
    events, lines = accumulate(tmp_path / "tensorboard"), read_metrics(tmp_path / "metrics.jsonl")
    assert [event.step for event in events.Scalars("step/loss")] == [1, 2, 3, 4, 5, 6]
    shown = [(event.step, event.value) for event in events.Scalars("validation/accuracy_temporal")]
    assert shown == [(3 * line["epoch"], pytest.approx(line["validation"]["accuracy_temporal"])) for line in lines]
    assert [event.value for event in events.Scalars("epoch")] == [1, 2]


def test_a_resumed_run_is_one_curve(
    small_pretraining: PretrainConfig,
    tmp_path: Path,
    accumulate: Callable[[Path], Any],
    killed_after: Callable[[int], AbstractContextManager[None]],
) -> None:
    """The checkpoint is of the first epoch's end; the two steps after it are trained, and logged, twice."""
    given = replace(small_pretraining, out=str(tmp_path), log="tensorboard", checkpoint_seconds=300)
    with killed_after(5):
        pretrain(given, console=QUIET)
    pretrain(replace(given, resume=True), console=QUIET)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    events = accumulate(tmp_path / "tensorboard")
    assert [event.step for event in events.Scalars("step/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Scalars("validation/loss")] == [3, 6]
    pretrain(replace(given, resume=True), console=QUIET)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2, "nothing was trained, so nothing is logged"
    pretrain(replace(given, overwrite=True, log=None), console=QUIET)
    assert not (tmp_path / "tensorboard").exists()


def test_a_full_disk_is_one_clear_error_and_the_steps_before_it_are_whole(
    tmp_path: Path, accumulate: Callable[[Path], Any], full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    board = TensorBoard(tmp_path / "tensorboard")
    for step in range(1, 11):
        board.on_step(step, {"step/loss": 1.0})
    (file,) = (tmp_path / "tensorboard").iterdir()
    size = file.stat().st_size
    with pytest.raises(SaveError, match=r"tensorboard cannot be written: File too large"), full_disk(size + 10):
        board.on_step(11, {"step/loss": 1.0})
    assert file.stat().st_size == size + 10
    board.on_end(None)
    again = TensorBoard(tmp_path / "tensorboard")
    again.on_step(11, {"step/loss": 2.0})
    events = accumulate(tmp_path / "tensorboard").Scalars("step/loss")
    assert [(event.step, event.value) for event in events] == [(step, 1.0) for step in range(1, 11)] + [(11, 2.0)]
    again.on_end(None)


def test_finetuning_logs_too(
    small_finetuning: FinetuneConfig, tmp_path: Path, accumulate: Callable[[Path], Any]
) -> None:
    finetune(replace(small_finetuning, out=str(tmp_path), log="tensorboard"), console=QUIET)
    assert len(accumulate(tmp_path / "tensorboard").Scalars("validation/accuracy")) == 2


def test_without_the_extra_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any video is looked for."""
    for name in [name for name in sys.modules if name.startswith("tensorboard.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for verb, more in (("pretrain", []), ("finetune", ["--backbone=random:r3d@0.125"])):
        words = [verb, "--data=nowhere", f"--out={tmp_path / 'run'}", "--log=tensorboard", *more]
        assert main(words) != 0
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "log tensorboard needs tensorboard, which is not installed" in error
        assert error.endswith("pip install 'v3s[tensorboard]'\n")
    assert not (tmp_path / "run").exists()
