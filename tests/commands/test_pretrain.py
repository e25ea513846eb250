"""Whole small runs: the files they leave, exact resume after a kill, and two processes against one."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from v3s import PretrainConfig, load_backbone, pretrain
from v3s.backbones import create_backbone
from v3s.backbones.device import Compute
from v3s.commands.prepare import PrepareConfig, prepare
from v3s.commands.pretrain import set_up_pretraining
from v3s.features.saved import describe_trained, load_pretext_model
from v3s.features.source import open_source
from v3s.files.weights import OF_RUN, fingerprint
from v3s.train import fit
from v3s.train.checkpoint import load_checkpoint, save_checkpoint
from v3s.train.distributed import Processes
from v3s.train.progress import describe
from v3s.train.run import check_out, read_metrics
from v3s.train.stop import StopRequestedError
from v3s.video.container import open_video

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def config(small_pretraining: PretrainConfig) -> PretrainConfig:
    """The configuration of `pretrained`."""
    return small_pretraining


def weights_of(run: Path) -> str:
    state = torch.load(run / "checkpoints/last.pt", weights_only=True)
    assert (state["epoch"], state["step"]) == (2, 0)
    return fingerprint(state["model"])


def command(config: PretrainConfig, out: Path, *options: str) -> list[str]:
    given = {name: value for name, value in vars(config).items() if value is not None and not isinstance(value, bool)}
    given["out"] = str(out)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    return [sys.executable, "-m", "v3s", "pretrain", *flags, *options]


def test_epochs_shorter_than_a_checkpoint_takes_are_not_saved_each(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []

    def save(path: Path, state: dict[str, Any]) -> None:
        saved.append(state["epoch"])
        save_checkpoint(path, state)

    monkeypatch.setattr(fit, "save_checkpoint", save)
    monkeypatch.setattr(fit, "SAVING_SHARE", 1e-9)
    pretrain(replace(config, out=str(tmp_path), epochs=4, checkpoint_seconds=300), console=QUIET)
    assert saved == [1, 4]


def run_command(arguments: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_head_with_one_label_is_not_reported(pretrained: Path) -> None:
    last = read_metrics(pretrained / "metrics.jsonl")[-1]["train"]
    assert last["accuracy_spatial"] == 1  # the task is ts
    assert describe(last) == f"loss {last['loss']:.3f} temporal {last['accuracy_temporal']:.1%}"
    assert describe({"loss": 2.5, "accuracy": 0.25}) == "loss 2.500 accuracy 25.0%"


def test_run_folder_contains_what_is_promised(pretrained: Path, config: PretrainConfig) -> None:
    manifest = json.loads((pretrained / "manifest.json").read_text())
    assert manifest["videos"] == {
        "listed": 16, "missing": 0, "unreadable": 0, "partial": 0, "too_short": 0, "train": 12, "validation": 4
    }  # fmt: skip
    assert manifest["threads"] == 1
    assert len(manifest["files_sha256"]) == 64
    metrics = read_metrics(pretrained / "metrics.jsonl")
    assert [line["epoch"] for line in metrics] == [1, 2]
    assert set(metrics[0]["train"]) == {
        "loss", "loss_spatial", "loss_temporal", "accuracy_spatial", "accuracy_temporal"
    }  # fmt: skip
    log = (pretrained / "train.log").read_text()
    assert "epoch 2/2" in log
    assert "head is not clearly above chance" in log
    assert f"v3s compare DATA --backbones {pretrained} --out FOLDER shows whether" in log.splitlines()[-1]
    assert "DATA may also be labels/labels.csv of v3s serve" in log.splitlines()[-1]


def test_backbone_is_that_of_the_best_epoch(pretrained: Path) -> None:
    trained = describe_trained(pretrained)
    best = min(read_metrics(pretrained / "metrics.jsonl"), key=lambda line: line["validation"]["loss"])
    assert trained.results["epoch"] == best["epoch"]
    assert trained.results.keys() == {"epoch", *best["validation"]}
    backbone = load_backbone(pretrained / "backbone.safetensors")
    assert fingerprint(backbone.state_dict()) == trained.fingerprint
    assert not backbone.training
    model, _ = load_pretext_model(pretrained)
    logits = model(torch.rand(2, 3, 8, 32, 32))
    assert (logits.spatial.shape, logits.temporal.shape) == ((2, 1), (2, 3))


@pytest.mark.parametrize(("keep", "kept"), [("loss", 2), ("accuracy", 3), ("last", 4)])
def test_the_epoch_that_is_kept_and_the_last_one(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Any, kept: int
) -> None:
    """Epochs 1 and 3 share the best accuracy; epoch 3 has the lower loss of both, epoch 2 the lowest of all."""
    means = [
        {"loss": loss, "accuracy_spatial": 1.0, "accuracy_temporal": accuracy}
        for loss, accuracy in ((1.2, 0.5), (0.9, 0.25), (1.0, 0.5), (1.1, 0.25))
    ]
    passes = iter(means)
    monkeypatch.setattr(fit, "validate", lambda *arguments: next(passes))
    given = replace(config, out=str(tmp_path), keep=keep, epochs=4, statistics_clips=0)
    result = pretrain(given, console=QUIET)
    assert ("kept: epoch" in (tmp_path / "train.log").read_text()) == (keep != "last")  # where nothing is chosen
    assert (result.best_epoch, result.validation) == (kept, means[kept - 1])
    assert describe_trained(tmp_path).results["epoch"] == kept
    page = " ".join((tmp_path / "report.html").read_text().split())
    reason = {"loss": "loss is the lowest", "accuracy": "accuracy is the highest"}.get(keep)
    said = f"Epoch {kept} is kept: its validation {reason}." if reason else "The last epoch is kept (--keep last)."
    assert (said in page, ">kept</text>" in page) == (True, keep != "last")
    assert [line["best_epoch"] for line in read_metrics(tmp_path / "metrics.jsonl")][-1] == kept
    last, state = tmp_path / "last", load_checkpoint(tmp_path / "checkpoints/last.pt")["model"]
    assert describe_trained(last).results == {"epoch": 4, **means[3]}
    weights = {name: state[f"backbone.{name}"] for name in load_file(last / "backbone.safetensors")}
    assert fingerprint(weights) == describe_trained(last).fingerprint == open_source(str(last)).fingerprint
    assert (describe_trained(tmp_path).fingerprint == describe_trained(last).fingerprint) == (keep == "last")
    load_pretext_model(last)


def test_a_run_is_the_same_twice(pretrained: Path, config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(replace(config, out=str(tmp_path / "again")), console=QUIET)
    assert weights_of(tmp_path / "again") == weights_of(pretrained)


def test_another_seed_gives_other_weights(pretrained: Path, config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(replace(config, out=str(tmp_path / "other"), seed=1), console=QUIET)
    assert weights_of(tmp_path / "other") != weights_of(pretrained)


def start_and_wait_for_a_checkpoint(config: PretrainConfig, out: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        command(config, out),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (out / "checkpoints/last.pt").exists():
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("workers", [0, 2])
def test_kill_in_mid_epoch_and_resume(pretrained: Path, config: PretrainConfig, tmp_path: Path, workers: int) -> None:
    out = tmp_path / "killed"
    process = start_and_wait_for_a_checkpoint(replace(config, workers=workers), out)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    run_command([sys.executable, "-m", "v3s", "pretrain", "--out", str(out), "--resume"])
    assert weights_of(out) == weights_of(pretrained)
    assert [line["epoch"] for line in read_metrics(out / "metrics.jsonl")] == [1, 2]


def test_a_signal_in_the_midst_of_reading_is_not_the_videos_fault(config: PretrainConfig) -> None:
    """Without reading processes, a video is read in code that a stop may interrupt."""
    path = next(Path(config.data).rglob("*.mp4"))
    with pytest.raises(StopRequestedError), open_video(path):
        raise StopRequestedError


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_ends(
    pretrained: Path, config: PretrainConfig, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "stopped"
    process = start_and_wait_for_a_checkpoint(replace(config, epochs=1000), out)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert "resume with: v3s pretrain --out" in output
    assert "Traceback" not in output
    assert "ended by TrainingStoppedError: stopped in epoch" in (out / "train.log").read_text()
    run_command([sys.executable, "-m", "v3s", "pretrain", "--out", str(out), "--resume", "--epochs=2"])
    assert weights_of(out) == weights_of(pretrained)
    assert "epochs: 2\n" in (out / "config.yaml").read_text()  # what the next --resume goes by


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(
    pretrained: Path, config: PretrainConfig, tmp_path: Path
) -> None:
    """The newest checkpoint is of the first epoch's end, the one before of its last step."""
    out, told = tmp_path / "damaged", Console(file=io.StringIO())
    with pytest.raises(_StopError):
        pretrain(replace(config, out=str(out)), console=_StopAfter(2))
    last = out / "checkpoints/last.pt"
    pretrain(replace(config, out=str(out), resume=True, epochs=1), console=QUIET)
    last.write_bytes(last.read_bytes()[:-1])
    pretrain(replace(config, out=str(out), resume=True), console=told)
    assert weights_of(out) == weights_of(pretrained)
    assert [line["epoch"] for line in read_metrics(out / "metrics.jsonl")] == [1, 2]
    assert last.with_name("damaged.pt").exists()
    for text in (told.file.getvalue(), (out / "train.log").read_text()):  # type: ignore[attr-defined]
        assert "resuming from the previous checkpoint in epoch" in " ".join(text.split())


def test_stop_between_epochs_and_resume(pretrained: Path, config: PretrainConfig, tmp_path: Path) -> None:
    """Stop as an epoch ends, before its checkpoint, twice: the weights and the metrics are the same."""
    out = tmp_path / "steps"
    for stop_after in (1, 2):
        with pytest.raises(_StopError):
            pretrain(replace(config, out=str(out), resume=True), console=_StopAfter(stop_after))
    pretrain(replace(config, out=str(out), resume=True), console=QUIET)
    assert weights_of(out) == weights_of(pretrained)
    timeless = ("seconds", "clips_per_second", "waiting_share")
    for ours, theirs in zip(
        read_metrics(out / "metrics.jsonl"), read_metrics(pretrained / "metrics.jsonl"), strict=True
    ):
        assert {k: v for k, v in ours.items() if k not in timeless} == {
            k: v for k, v in theirs.items() if k not in timeless
        }


def test_a_schedule_continues_on_resume(config: PretrainConfig, tmp_path: Path) -> None:
    """A cosine ends with the last epoch, so that their number is part of the run."""
    given = replace(config, schedule="cosine", warmup=1, epochs=4, learning_rate=0.02)
    whole, stopped = replace(given, out=str(tmp_path / "whole")), replace(given, out=str(tmp_path / "stopped"))
    pretrain(whole, console=QUIET)
    with pytest.raises(_StopError):
        pretrain(stopped, console=_StopAfter(3))
    with pytest.raises(ValueError, match=r"other epochs \(4 before, 5 now\): the schedule cosine depends on them"):
        pretrain(replace(stopped, resume=True, epochs=5), console=QUIET)
    pretrain(replace(stopped, resume=True), console=QUIET)
    one, other = (load_checkpoint(tmp_path / name / "checkpoints/last.pt") for name in ("whole", "stopped"))
    assert fingerprint(one["model"]) == fingerprint(other["model"])
    rates = [line["learning_rate"] for line in read_metrics(tmp_path / "stopped/metrics.jsonl")]
    assert rates == pytest.approx([0.01, 0.02, 0.015, 0.005])


def test_it_stops_early_also_after_a_resume(config: PretrainConfig, tmp_path: Path) -> None:
    """Weights that do not move have one validation loss: the lowest is that of epoch 1, and 24 clips are 2 epochs."""
    still = replace(config, learning_rate=1e-12, batch_norm="frozen", epochs=9, stop_early=24, precision="fp32")
    whole, stopped = replace(still, out=str(tmp_path / "whole")), replace(still, out=str(tmp_path / "stopped"))
    told = Console(file=io.StringIO(), width=300)
    pretrain(whole, console=told)
    said = "stopped early after epoch 3: 24 training clips brought no lower validation loss than epoch 1 had"
    assert said in told.file.getvalue()  # type: ignore[attr-defined]
    with pytest.raises(_StopError):
        pretrain(stopped, console=_StopAfter(2))
    for _ in range(2):  # and a run that has stopped does not start again
        pretrain(replace(stopped, resume=True), console=QUIET)
        assert [line["epoch"] for line in read_metrics(tmp_path / "stopped/metrics.jsonl")] == [1, 2, 3]
        state = load_checkpoint(tmp_path / "stopped/checkpoints/last.pt")
        assert (state["epoch"], state["lowest_epoch"]) == (3, 1)
    pretrain(replace(stopped, resume=True, stop_early=36), console=QUIET)
    assert len(read_metrics(tmp_path / "stopped/metrics.jsonl")) == 4
    pretrain(replace(stopped, resume=True, stop_early=None, epochs=5), console=QUIET)
    assert len(read_metrics(tmp_path / "stopped/metrics.jsonl")) == 5


class _StopError(Exception):
    """Ends a run from within."""


class _StopAfter(Console):
    """A console that ends the run when an epoch's line is printed for the n-th time."""

    def __init__(self, lines: int) -> None:
        super().__init__(quiet=True)
        self.lines = lines

    def print(self, *objects: Any, **options: Any) -> None:
        if objects and str(objects[0]).startswith("epoch "):
            self.lines -= 1
            if self.lines == 0:
                raise _StopError


@pytest.mark.parametrize("parts", [1, 2])
def test_two_processes_train_as_one(config: PretrainConfig, parts: int, tmp_path: Path) -> None:
    """With batch norm frozen, the weights differ only by the rounding of a sum in another order: 3e-8, once 3e-5.

    Of two parts, each process holds the frames of one, and no others.
    """
    frozen = replace(config, batch_norm="frozen", epochs=2, precision="fp32", parts=parts)
    if parts == 2:
        prepare(PrepareConfig(data=config.data, out=str(tmp_path / "store"), workers=0), console=QUIET)
        frozen = replace(frozen, data=str(tmp_path / "store"), loading="resident")
    pretrain(replace(frozen, out=str(tmp_path / "one")), console=QUIET)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "v3s"]
    run_command(launch + command(frozen, tmp_path / "two")[3:])
    one = torch.load(tmp_path / "one/checkpoints/last.pt", weights_only=True)["model"]
    two = torch.load(tmp_path / "two/checkpoints/last.pt", weights_only=True)["model"]
    assert max(float((one[name].double() - two[name].double()).abs().max()) for name in one) < 1e-4
    assert one.keys() == two.keys()
    first, second = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    for ours, theirs in zip(first, second, strict=True):
        assert ours["train"] == pytest.approx(theirs["train"], abs=1e-4)
        assert ours["validation"] == pytest.approx(theirs["validation"], abs=1e-4)


def test_parts_that_cannot_be_shared_are_refused(config: PretrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_size is 4; it must be a multiple of parts \(3\)"):
        replace(config, parts=3)
    with pytest.raises(
        ValueError, match="parts is 2; more than 1 needs train_clips 1, clips_together 1 and short leave-out"
    ):
        replace(config, parts=2, train_clips=2)
    given, cpu = replace(config, parts=2, batch_size=8), Compute(torch.device("cpu"), bf16=False)
    with pytest.raises(ValueError, match=r"parts is 2; it must be a multiple of the number of processes \(4\)"):
        set_up_pretraining(given, compute=cpu, processes=Processes(1, 4), console=QUIET)
    with pytest.raises(ValueError, match=r"parts is 16; it must be at most the number of training videos \(12\)"):
        pretrain(replace(config, parts=16, batch_size=16, out=str(tmp_path)), console=QUIET)


def test_statistics_of_several_cpus_are_refused_before_anything_is_read(config: PretrainConfig) -> None:
    given, cpu = replace(config, batch_norm="sync", data="nowhere"), Compute(torch.device("cpu"), bf16=False)
    with pytest.raises(ValueError, match="batch_norm is sync, which torch supports only on GPUs"):
        set_up_pretraining(given, compute=cpu, processes=Processes(1, 4), console=QUIET)


def test_an_existing_run_is_refused_or_replaced(config: PretrainConfig, pretrained: Path, tmp_path: Path) -> None:
    given = replace(config, out=str(tmp_path / "run"), epochs=1)
    pretrain(given, console=QUIET)
    with pytest.raises(ValueError, match="already contains a run; resume it with --resume, or replace it with"):
        pretrain(replace(given, data="nowhere"), console=QUIET)  # before any video is looked for
    written = {file.name for file in (tmp_path / "run").rglob("*.safetensors")}
    (tmp_path / "run/classifier.safetensors").write_text("of the replaced run")
    (tmp_path / "run/teacher.safetensors").write_text("mine")
    pretrain(replace(given, overwrite=True, seed=5), console=QUIET)
    assert {file.name for file in (tmp_path / "run").rglob("*.safetensors")} == {*written, "teacher.safetensors"}
    assert written <= set(OF_RUN)
    assert json.loads((tmp_path / "run/manifest.json").read_text())["seed"] == 5


def test_a_folder_of_something_else_is_never_overwritten(config: PretrainConfig, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="contains no run"):
        pretrain(replace(config, out=str(tmp_path), overwrite=True), console=QUIET)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_finished_run_without_its_checkpoint_is_not_trained_again(tmp_path: Path) -> None:
    """To resume it began at the first epoch, over the weights."""
    for name in ("config.yaml", "result.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=r"is finished, and .*last\.pt is missing, so it cannot be resumed"):
        check_out(tmp_path, resume=True, overwrite=False)
    check_out(tmp_path, resume=False, overwrite=True)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.pt").touch()
    check_out(tmp_path, resume=True, overwrite=False)


def test_a_fine_tuning_run_is_never_replaced(config: PretrainConfig, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: videos\n")
    (tmp_path / "manifest.json").write_text('{"kind": "recognizer"}')
    with pytest.raises(ValueError, match="contains a fine-tuning run; choose another folder with --out"):
        pretrain(replace(config, out=str(tmp_path), overwrite=True), console=QUIET)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"restore the file, or write it again, or choose another folder with --out"):
        pretrain(replace(config, out=str(tmp_path), overwrite=True), console=QUIET)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_of_an_earlier_version_is_resumed(config: PretrainConfig, tmp_path: Path) -> None:
    """Before there were schedules and --keep: its config.yaml and its checkpoint lack them."""
    whole, old = tmp_path / "whole", tmp_path / "old"
    as_before = replace(config, keep="accuracy", statistics_clips=0)
    pretrain(replace(as_before, out=str(whole)), console=QUIET)
    pretrain(replace(as_before, out=str(old), epochs=1), console=QUIET)
    new = ("keep", "schedule", "warmup", "head_rate", "statistics_clips", "contrast", "heads", "clips_together")
    lines = (old / "config.yaml").read_text().splitlines(keepends=True)
    (old / "config.yaml").write_text("".join(line for line in lines if line.partition(":")[0] not in new))
    state = load_checkpoint(old / "checkpoints/last.pt")
    state["scheduler"], state["best_score"] = state.pop("schedule")["rule"], state["best_score"][0]
    save_checkpoint(old / "checkpoints/last.pt", state)
    shutil.rmtree(old / "last")
    run_command([sys.executable, "-m", "v3s", "pretrain", "--out", str(old), "--resume", "--epochs=2"])
    first, second = (load_checkpoint(run / "checkpoints/last.pt") for run in (whole, old))
    assert all(torch.equal(first["model"][name], second["model"][name]) for name in first["model"])


def test_a_finished_run_is_not_resumed_with_fewer_epochs_and_stays_as_it_is(
    config: PretrainConfig, tmp_path: Path
) -> None:
    given = replace(config, out=str(tmp_path / "run"))
    pretrain(given, console=QUIET)
    weights = (tmp_path / "run/backbone.safetensors").read_bytes()
    with pytest.raises(ValueError, match="run has 2 finished epochs, so it cannot be resumed with epochs 1"):
        pretrain(replace(given, epochs=1, resume=True), console=QUIET)
    console = Console(file=io.StringIO(), width=200)
    pretrain(replace(given, resume=True), console=console)
    assert isinstance(console.file, io.StringIO)
    assert "all 2 epochs are finished; give more --epochs to train longer" in console.file.getvalue()
    assert (tmp_path / "run/backbone.safetensors").read_bytes() == weights
    with pytest.raises(ValueError, match="--resume continues a run and --overwrite replaces it"):
        pretrain(replace(given, resume=True, overwrite=True), console=QUIET)
    (tmp_path / "run/videos.jsonl").write_text("[NaN, 3]")
    with pytest.raises(ValueError, match=r"videos.jsonl is damaged"):
        pretrain(replace(given, epochs=3, resume=True), console=QUIET)


def test_resume_refuses_other_options_and_other_files(config: PretrainConfig, tmp_path: Path) -> None:
    given = replace(config, out=str(tmp_path / "run"), epochs=1)
    pretrain(given, console=QUIET)
    with pytest.raises(ValueError, match=r"task was 'ts', now 'tp'"):
        pretrain(replace(given, task="tp", resume=True), console=QUIET)
    manifest = tmp_path / "run/manifest.json"
    manifest.write_text(manifest.read_text().replace('"files_sha256": "', '"files_sha256": "0'))
    with pytest.raises(
        ValueError,
        match=r"or their labels have changed since the run started \(.* videos then, .* now\); restore the list",
    ):
        pretrain(replace(given, resume=True), console=QUIET)


def test_users_own_network(config: PretrainConfig, tmp_path: Path) -> None:
    own = create_backbone("s3dg", 0.125)
    pretrain(replace(config, out=str(tmp_path / "own"), epochs=1), backbone=own, console=QUIET)
    trained = describe_trained(tmp_path / "own")
    assert trained.backbone == "v3s.backbones.contract:StagedBackbone"
    with pytest.raises(ValueError, match="a network of your own; give it"):
        load_backbone(tmp_path / "own")
    loaded = load_backbone(tmp_path / "own", backbone=create_backbone("s3dg", 0.125, seed=9))
    assert fingerprint(loaded.state_dict()) == trained.fingerprint


def test_weights_are_plain_safetensors(pretrained: Path) -> None:
    names = load_file(pretrained / "backbone.safetensors")
    assert isinstance(create_backbone("r3d", 0.125), nn.Module)
    assert names.keys() == create_backbone("r3d", 0.125).state_dict().keys()


def test_changed_contents_are_not_resumed(small_videos: Path, config: PretrainConfig, tmp_path: Path) -> None:
    data, out = shutil.copytree(small_videos, tmp_path / "data"), tmp_path / "run"
    changed = replace(config, data=str(data), out=str(out), epochs=1)
    pretrain(changed, console=QUIET)
    first, second = sorted(data.rglob("*.mp4"))[:2]
    kept = first.read_bytes()
    shutil.copy(second, first)
    second.write_bytes(kept)
    names = f"{first.relative_to(data)}, {second.relative_to(data)}"
    with pytest.raises(ValueError, match=rf"the contents of 2 videos changed since the run started: {names}; restore"):
        pretrain(replace(changed, resume=True, epochs=2), console=QUIET)
    (out / "videos.jsonl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"videos\.jsonl is damaged \(it is empty\); restore it"):
        pretrain(replace(changed, resume=True, epochs=2), console=QUIET)
    (out / "videos.jsonl").unlink()  # a run of an earlier version
    pretrain(replace(changed, resume=True, epochs=2), console=QUIET)


def test_a_change_that_restores_size_and_date_is_found_when_all_is_read_again(
    small_videos: Path, config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = shutil.copytree(small_videos, tmp_path / "data"), tmp_path / "run"
    changed = replace(config, data=str(data), out=str(out), epochs=1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "first"))
    pretrain(changed, console=QUIET)
    file = sorted(data.rglob("*.mp4"))[3]
    before, content = file.stat(), bytearray(file.read_bytes())
    with av.open(str(file)) as container:
        last = [packet for packet in container.demux(video=0) if packet.size][-1]
    assert last.pos is not None
    content[last.pos + last.size - 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = replace(changed, resume=True, epochs=2)
    pretrain(again, console=QUIET)  # what is known of the file still stands
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    name = re.escape(str(file.relative_to(data)))
    with pytest.raises(ValueError, match=f"the contents of 1 video changed since the run started: {name}; restore"):
        pretrain(replace(again, epochs=3), console=QUIET)
