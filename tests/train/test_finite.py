"""A NaN or an infinity in the input, the loss or the gradient: no update, a message that names the batch, a replay."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from v3s import PretrainConfig, ReplayConfig, pretrain, replay
from v3s.backbones import create_backbone
from v3s.backbones.contract import StagedBackbone
from v3s.backbones.device import Compute
from v3s.cli import main
from v3s.files.writing import CheckpointError
from v3s.protocols.finetune import FinetuneConfig, finetune
from v3s.train import fit
from v3s.train.checkpoint import load_checkpoint
from v3s.train.distributed import Processes
from v3s.train.finite import FiniteGuard, NonFiniteError
from v3s.train.run import read_metrics

QUIET = Console(quiet=True)
BAD = pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])


@BAD
@pytest.mark.parametrize("place", ["loss", "gradient"])
def test_no_update_is_made_from_the_first_bad_step_on(place: str, bad: float) -> None:
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, fused=True)
    guard = FiniteGuard(Processes(), torch.device("cpu"))
    weights = []
    for step in range(5):
        optimizer.zero_grad()
        loss = layer(torch.ones(1, 3)).sum()
        loss.backward()
        if step == 2 and place == "gradient":
            assert layer.weight.grad is not None
            layer.weight.grad[1, 2] = bad
        guard.step(optimizer, loss * bad if step == 2 and place == "loss" else loss)
        weights.append(layer.weight.detach().clone())
    assert not torch.equal(weights[0], weights[1])
    assert all(torch.equal(weights[1], later) for later in weights[2:])
    assert guard.num_skipped() == 3


class Poison(torch.autograd.Function):
    """The identity, with a gradient that is not finite."""

    @staticmethod
    def forward(context: Any, values: Tensor, bad: float) -> Tensor:  # noqa: D102
        context.bad = bad
        return values.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: D102
        return gradients[0] * context.bad, None


class Poisoned(StagedBackbone):
    """A backbone that corrupts the features of the second clip after some steps."""

    def __init__(self, place: str, bad: float, good_steps: int) -> None:
        inner = create_backbone("r3d", 0.125)
        super().__init__({name: (inner.get_submodule(name), number) for name, number in inner.stages.items()})
        self.place, self.bad, self.left = place, bad, good_steps

    def forward(self, clips: Tensor) -> Tensor:
        """Features; those of the second clip become wrong."""
        features = super().forward(clips).clone()
        if self.training and self.left == 0:
            wrong = Poison.apply(features[1], self.bad) if self.place == "gradient" else features[1] * self.bad  # type: ignore[no-untyped-call]
            features[1] = wrong
        self.left -= self.training and self.left > 0
        return features


@pytest.fixture
def config(small_pretraining: PretrainConfig, tmp_path: Path) -> PretrainConfig:
    return replace(small_pretraining, out=str(tmp_path / "run"), clip_frames=4, clip_size=16, epochs=3)


def is_finite(run: Path) -> bool:
    return all(bool(value.isfinite().all()) for value in load_checkpoint(run / "checkpoints/last.pt")["model"].values())


@BAD
@pytest.mark.parametrize("place", ["loss", "gradient"])
def test_training_stops_and_the_batch_is_replayed(config: PretrainConfig, place: str, bad: float) -> None:
    run, network = Path(config.out), Poisoned(place, bad, good_steps=4)
    with pytest.raises(NonFiniteError) as stopped:
        pretrain(config, backbone=network, console=QUIET)
    batch = json.loads((run / "nonfinite/batch.json").read_text())
    assert (batch["epoch"], batch["step"], batch["learning_rate"]) == (1, 1, 0.01)  # an epoch has three steps
    assert "epoch 2, step 2, learning rate 0.01" in str(stopped.value)
    assert len(batch["samples"]) == 4
    assert "\n" not in str(stopped.value)
    assert f"ended by NonFiniteError: {stopped.value}" in (run / "train.log").read_text()
    assert all(sample["video"] in str(stopped.value) for sample in batch["samples"])
    state = load_checkpoint(run / "checkpoints/last.pt")
    assert (state["epoch"], state["step"]) == (1, 1)
    assert is_finite(run)
    replayed = replay(ReplayConfig(run=str(run)), backbone=network, console=QUIET)
    assert [clip.first for clip in replayed.clips] == [None, "output" if place == "loss" else None, None, None]
    assert [clip.video for clip in replayed.clips] == [sample["video"] for sample in batch["samples"]]
    assert math.isfinite(replayed.loss) == (place == "gradient")
    assert replayed.bad_gradients
    with pytest.raises(ValueError, match="your own code, which can be replayed only from Python"):
        replay(ReplayConfig(run=str(run)), console=QUIET)


@pytest.mark.parametrize("lag", [1, 2])
def test_the_first_bad_step_is_named_even_if_it_is_noticed_later(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch, lag: int
) -> None:
    """As on a GPU: the second of three steps is bad, which is noticed after the third, or at the end of the epoch."""
    monkeypatch.setitem(fit.LAG, "cpu", lag)
    network = Poisoned("loss", math.nan, good_steps=4)
    with pytest.raises(NonFiniteError, match="epoch 2, step 2, learning rate"):
        pretrain(replace(config, checkpoint_seconds=300), backbone=network, console=QUIET)
    assert is_finite(Path(config.out))


def test_the_time_of_an_epoch_includes_its_last_step(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is far behind, and the host waits for it at the end."""
    num_skipped = FiniteGuard.num_skipped

    def late(guard: FiniteGuard) -> int:
        time.sleep(2)
        return num_skipped(guard)

    monkeypatch.setattr(FiniteGuard, "num_skipped", late)
    pretrain(replace(config, checkpoint_seconds=300, epochs=1), console=QUIET)
    (line,) = read_metrics(Path(config.out) / "metrics.jsonl")
    assert line["seconds"] > 2


def test_a_bad_input_is_found(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    clips, steps = Compute.clips, iter(range(1000))

    def spoiled(self: Compute, batch: Tensor) -> Tensor:
        moved = clips(self, batch)
        moved[1, 0, 0, 0, 0] = math.nan if next(steps) in (2, 3) else 0.5  # once in training, once in the replay
        return moved

    monkeypatch.setattr(Compute, "clips", spoiled)
    with pytest.raises(NonFiniteError, match="epoch 1, step 3, learning rate"):
        pretrain(config, console=QUIET)
    assert is_finite(Path(config.out))
    replayed = replay(ReplayConfig(run=config.out), console=QUIET)
    assert [clip.first for clip in replayed.clips] == [
        "conv1",
        "input",
        "conv1",
        "conv1",
    ]  # through batch normalisation


def test_too_high_a_rate_stops_with_one_message(config: PretrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """A divergence on the command line: exit code 1, then the replay, then the refusal of changed videos."""
    options = {name: value for name, value in vars(config).items() if value is not None and not isinstance(value, bool)}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in {**options, "learning_rate": 1e30}.items()]
    assert main(["pretrain", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: a loss or gradient is not finite (epoch 1, step 2, learning rate 1e+30)")
    assert "Traceback" not in error
    assert is_finite(Path(config.out))
    assert main(["replay", f"--run={config.out}"]) == 0
    assert "gradient not finite in" in capsys.readouterr().out
    file = Path(config.out) / "nonfinite/batch.json"
    batch = json.loads(file.read_text())
    batch["samples"][0]["frames"][0] += 1
    file.write_text(json.dumps(batch))
    assert main(["replay", f"--run={config.out}"]) == 1
    assert "the videos have changed" in capsys.readouterr().err


def test_a_fine_tuning_is_replayed_too(small_finetuning: FinetuneConfig, tmp_path: Path) -> None:
    config = replace(small_finetuning, out=str(tmp_path / "run"), learning_rate=1e30)
    with pytest.raises(NonFiniteError, match=r"epoch 1, step 2, learning rate 1e\+30"):
        finetune(config, console=QUIET)
    replayed = replay(ReplayConfig(run=config.out), console=QUIET)
    assert replayed.bad_gradients
    assert len(replayed.clips) == 4


@pytest.mark.parametrize(("compute", "order"), [("cuda:1 in bf16", [0, 1, 2, 3]), ("cpu in fp32", [0, 2, 1, 3])])
def test_clips_of_several_gpus_are_replayed_together(config: PretrainConfig, compute: str, order: list[int]) -> None:
    """On GPUs the statistics were those of all processes, wherever the batch is replayed; on CPUs each had its own."""
    run, network = Path(config.out), Poisoned("loss", math.nan, good_steps=1)
    with pytest.raises(NonFiniteError):
        pretrain(config, backbone=network, console=QUIET)
    for file, name, value in (("manifest.json", "compute", compute), ("nonfinite/batch.json", "num_processes", 2)):
        written = json.loads((run / file).read_text())
        (run / file).write_text(json.dumps({**written, name: value}))
    replayed = replay(ReplayConfig(run=str(run)), backbone=network, console=QUIET)
    assert [clip.video for clip in replayed.clips] == [str(replayed.batch.samples[number]["video"]) for number in order]


def test_replay_needs_a_bad_batch(config: PretrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a training run \(config\.yaml is missing\)"):
        replay(ReplayConfig(run=str(tmp_path)), console=QUIET)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ValueError, match="has no batch to replay"):
        replay(ReplayConfig(run=str(tmp_path)), console=QUIET)
    (tmp_path / "nonfinite").mkdir()
    pretrain(replace(config, epochs=1), console=QUIET)
    (Path(config.out) / "nonfinite").mkdir()
    with pytest.raises(CheckpointError, match=r"batch\.json: cannot be read"):
        replay(ReplayConfig(run=config.out), console=QUIET)
