"""Pre-training with a contrast between videos: what it learns, what it saves, exact resume, several processes."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from colorsys import hsv_to_rgb
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from v3s import PretrainConfig, ReplayConfig, load_backbone, pretrain, replay
from v3s.backbones import create_backbone
from v3s.cli import main
from v3s.commands.prepare import PrepareConfig, prepare
from v3s.commands.recipes import RECIPES
from v3s.data.clips import PretextClips
from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.features.saved import describe_trained
from v3s.files.weights import fingerprint
from v3s.pages.images import mp4
from v3s.train.checkpoint import load_checkpoint
from v3s.train.finite import NonFiniteError
from v3s.train.run import read_metrics

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def config(small_pretraining: PretrainConfig) -> PretrainConfig:
    return replace(small_pretraining, **RECIPES["v3s-contrast"], clip_frames=4, batch_size=8)


@pytest.fixture(scope="module")
def finished(config: PretrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    out = tmp_path_factory.mktemp("runs") / "contrast"
    pretrain(replace(config, out=str(out)), console=QUIET)
    return out


def last_state(run: Path) -> dict[str, Any]:
    return load_checkpoint(run / "checkpoints/last.pt")


def test_the_recipe_trains_and_the_contrast_is_recorded(finished: Path) -> None:
    first, second = read_metrics(finished / "metrics.jsonl")
    assert first["train"].keys() - first["validation"].keys() == {"loss_contrast"}
    train = first["train"]
    assert train["loss"] == pytest.approx(train["loss_spatial"] + train["loss_temporal"] + train["loss_contrast"] / 2)
    assert 0 < train["loss_contrast"] < 2 * math.log(7)
    assert (first["learning_rate"], second["learning_rate"]) == (0.005, 0.0025)
    of_heads = train["loss_spatial"] + train["loss_temporal"]
    assert f"train loss {of_heads:.3f} contrast {train['loss_contrast']:.3f} " in (
        finished / "train.log"
    ).read_text().replace("\n", " ")
    assert "Loss of the contrast term" in (finished / "report.html").read_text()
    assert describe_trained(finished).results["epoch"] == 2
    assert describe_trained(finished).sampling.flip


def test_the_projector_is_in_the_checkpoint_and_not_in_the_backbone(finished: Path) -> None:
    assert {name for name in last_state(finished)["model"] if name.startswith("projector")} == {
        "projector.0.weight", "projector.0.bias", "projector.2.weight", "projector.2.bias"
    }  # fmt: skip
    for folder in (finished, finished / "last"):
        assert load_file(folder / "backbone.safetensors").keys() == create_backbone("r3d", 0.125).state_dict().keys()
        assert not list(folder.glob("*projector*"))


@pytest.mark.parametrize(("workers", "steps"), [(0, 1), (1, 4), (2, 2)])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_it_resumes_exactly(
    config: PretrainConfig,
    finished: Path,
    tmp_path: Path,
    killed_after: Callable[[int], AbstractContextManager[None]],
    workers: int,
    steps: int,
) -> None:
    given = replace(config, out=str(tmp_path), workers=workers)
    with killed_after(steps):
        pretrain(given, console=QUIET)
    pretrain(replace(given, resume=True), console=QUIET)
    ours, theirs = last_state(tmp_path), last_state(finished)
    assert fingerprint(ours["model"]) == fingerprint(theirs["model"])
    assert ours["schedule"] == theirs["schedule"]


def test_the_memory_gives_the_same_groups(config: PretrainConfig, tmp_path: Path) -> None:
    prepare(PrepareConfig(data=config.data, out=str(tmp_path / "store"), workers=0), console=QUIET)
    stored = replace(config, data=str(tmp_path / "store"), precision="fp32")
    lines = []
    for loading in ("resident", "workers"):
        pretrain(replace(stored, out=str(tmp_path / loading), loading=loading), console=QUIET)
        lines.append([line["train"] for line in read_metrics(tmp_path / loading / "metrics.jsonl")])
    for one, other in zip(*lines, strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_relative_speed_needs_no_projector(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(replace(config, out=str(tmp_path), contrast=0, relative=1, epochs=1), console=QUIET)
    train = read_metrics(tmp_path / "metrics.jsonl")[0]["train"]
    assert train["loss"] == pytest.approx(train["loss_spatial"] + train["loss_temporal"] + train["loss_relative"])
    assert 0 < train["loss_relative"] < 2 * math.log(2)
    assert not [name for name in last_state(tmp_path)["model"] if name.startswith("projector")]


def test_heads_without_weight_stay_as_they_began(config: PretrainConfig, tmp_path: Path) -> None:
    given = replace(config, out=str(tmp_path), heads=0, weight_decay=0, epochs=1)
    pretrain(given, console=QUIET)
    first = read_metrics(tmp_path / "metrics.jsonl")[0]["train"]
    assert first["loss"] == pytest.approx(first["loss_contrast"] / 2)


def test_short_videos_take_part(config: PretrainConfig, tmp_path: Path) -> None:
    given = replace(config, out=str(tmp_path), short="fit", clip_frames=14, epochs=1)
    pretrain(given, console=QUIET)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1


def test_two_processes_compare_their_own_clips(config: PretrainConfig, tmp_path: Path) -> None:
    """Each has two videos in a batch of eight: a clip has three candidates, which are as good as equal at first."""
    flags = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in {**vars(config), "out": str(tmp_path)}.items()
        if value is not None
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "v3s"]
    done = subprocess.run(
        [*launch, "pretrain", *flags], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "manifest.json").read_text())["processes"] == 2
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["train"]["loss_contrast"] < 1.5 * math.log(3)


def test_a_batch_that_diverges_is_replayed(config: PretrainConfig, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError):
        pretrain(replace(config, out=str(tmp_path), learning_rate=1e30), console=QUIET)
    replayed = replay(ReplayConfig(run=str(tmp_path)), console=QUIET)
    assert replayed.bad_gradients
    assert len(replayed.clips) == 8
    assert "loss_contrast" not in replayed.clips[0].terms  # which is no term of a single clip


def neighbours(network: torch.nn.Module, clips: PretextClips) -> float:
    """The share of clips whose nearest other clip is of the same video: two clips of each, warped and recoloured."""
    num_videos = len(clips)
    pixels = torch.stack([clips[1000, index][0] for index in range(2 * num_videos)])
    with torch.no_grad():
        features = torch.nn.functional.normalize(network.eval()(pixels.float() / 255), dim=1)
    similar: Tensor = features @ features.T
    similar.fill_diagonal_(-1)
    return float((similar.argmax(dim=1) % num_videos == torch.arange(2 * num_videos) % num_videos).float().mean())


def test_clips_of_a_video_become_neighbours(config: PretrainConfig, tmp_path: Path) -> None:
    """Videos of noise, each of its own hue: after 80 steps, a clip is found by its hue, whatever its brightness."""
    generator, folder = np.random.default_rng(0), tmp_path / "videos"
    folder.mkdir()
    for number in range(18):
        hue = 160 * np.array(hsv_to_rgb(number / 18, 0.8, 0.8))
        texture = (generator.integers(0, 90, (64, 80, 3)) + hue).astype(np.uint8)
        (folder / f"{number:02}.mp4").write_bytes(mp4(np.broadcast_to(texture, (20, 64, 80, 3)), 25))
    given = replace(config, data=str(folder), out=str(tmp_path / "run"), validation_videos=2, batch_size=32, grey=0)
    pretrain(replace(given, epochs=80, learning_rate=0.02, checkpoint_seconds=300), console=QUIET)
    clips = PretextClips(
        scan(list_videos(folder), min_frames=18).usable_table,
        describe_trained(tmp_path / "run").task,
        describe_trained(tmp_path / "run").sampling,
        seed=5,
        together=2,
    )
    before, after = neighbours(create_backbone("r3d", 0.125), clips), neighbours(load_backbone(tmp_path / "run"), clips)
    assert after > max(0.6, before + 0.2), (before, after)
    losses = [line["train"]["loss_contrast"] for line in read_metrics(tmp_path / "run/metrics.jsonl")]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips_together": 1}, "contrast is 0.5; it needs clips_together 2 or more"),
        ({"parts": 2}, "parts is 2; more than 1 needs train_clips 1, clips_together 1 and short leave-out"),
        ({"train_clips": 2}, "clips_together is 2; more than 1 needs train_clips 1 and label_prior class"),
        ({"label_prior": "family"}, "clips_together is 2; more than 1 needs train_clips 1 and label_prior class"),
        ({"batch_size": 9}, r"batch_size is 9; it must be a multiple of clips_together \(2\)"),
        ({"batch_size": 2}, "batch_size is 2; contrast needs two videos per process, at least 4"),
        ({"validation_videos": 15}, "clips_together is 2; it needs at least 2 training videos"),
    ],
)
def test_what_cannot_be_contrasted_is_refused(
    config: PretrainConfig, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pretrain(replace(config, out=str(tmp_path / "run"), **options), console=QUIET)
    assert not (tmp_path / "run").exists()


def test_any_option_overrides_the_recipe(
    config: PretrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--clips-together=3", "--batch-size=10", "--recipe=v3s-contrast", f"--data={config.data}"]
    assert main(["pretrain", *words, f"--out={tmp_path}/run"]) == 2
    assert "--batch-size is 10; it must be a multiple of --clips-together (3)" in capsys.readouterr().err
