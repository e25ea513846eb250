"""The study's steps: commands that v3s takes, in order, and what makes one of them done."""

import json
import os
from pathlib import Path

import pytest

from benchmarks.study import PROTOCOLS, ROWS, Step, plan_steps, read_options
from v3s.cli import load_command, read_config


def steps(out: Path, *more: str) -> list[Step]:
    given = [f"--out={out}", "--data=videos", "--splits=lists", f"--protocols={','.join(PROTOCOLS)}", *more]
    return list(plan_steps(*read_options(given)))


def test_every_step_is_a_command_that_v3s_takes(tmp_path: Path) -> None:
    planned = steps(tmp_path, "--batch-size", "16", "--workers=1", "--finetune=--epochs=5 --flip")
    for step in planned:
        name, *options = step.arguments
        config = read_config(name, load_command(name)[1], options)
        assert config.data == "videos"
        assert Path(config.out) in (step.written, step.written.parent)
    trained = {step.written.parent.name: step for step in planned if step.arguments[0] == "pretrain"}
    assert set(trained) == {f"r2plus1d-{row}-{seed}" for row in ROWS[1:] for seed in (0, 1, 2)}
    plus = read_config("pretrain", load_command("pretrain")[1], trained["r2plus1d-v3s-plus-2"].arguments[1:])
    assert (plus.task, plus.zoom, plus.seed, plus.batch_size) == ("v3s", "even", 2, 16)
    assert plus.blur > 0


def test_network_is_trained_before_it_is_evaluated_and_fine_tuning_comes_last(tmp_path: Path) -> None:
    names = [step.arguments[0] for step in steps(tmp_path, "--rows=random,v3s", "--seeds=0", "--finetune=")]
    asked = ["retrieve", "probe", "similarity"]
    assert names == ["audit", *asked, "pretrain", *asked, "evaluate", "audit", "finetune", "finetune"]


def test_training_is_done_with_its_last_epoch(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    step = Step([], metrics, epochs=2)
    assert not step.is_done()
    metrics.write_text(json.dumps({"epoch": 1}) + "\n")
    assert not step.is_done()
    with metrics.open("a") as file:
        file.write(json.dumps({"epoch": 2}) + "\n")
    assert step.is_done()


def test_result_older_than_its_weights_is_computed_again(tmp_path: Path) -> None:
    weights, written = tmp_path / "weights", tmp_path / "result.json"
    step = Step([], written, weights=weights)
    assert not step.is_done()
    weights.touch()
    written.touch()
    os.utime(weights, (100, 100))
    assert step.is_done()
    os.utime(written, (50, 50))
    assert not step.is_done()


@pytest.mark.parametrize("wrong", ["--rows=v3s,v4s", "--protocols=guess"])
def test_unknown_rows_and_protocols_are_refused(wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        steps(tmp_path, wrong)
    assert "unknown row or protocol: " in capsys.readouterr().err
