"""Batch norm's statistics re-estimated: means over batches, of finished weights alone, and exact on resume."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from v3s import PretrainConfig, pretrain
from v3s.backbones.device import Compute
from v3s.features.saved import describe_trained
from v3s.files.weights import fingerprint
from v3s.train import fit
from v3s.train.checkpoint import load_checkpoint
from v3s.train.distributed import Processes
from v3s.train.run import read_metrics
from v3s.train.statistics import estimate_statistics

QUIET = Console(quiet=True)
PLAIN = Compute(torch.device("cpu"), bf16=False)


def draw_batches(number: int = 5) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shape = (4, 3, 2, 6, 6)
    return [(torch.randint(256, shape, dtype=torch.uint8, generator=generator), torch.empty(4)) for _ in range(number)]


def is_average(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def test_statistics_are_the_means_of_those_of_the_batches() -> None:
    """Whatever the running averages were, and of the second layer given the batch statistics of the first."""
    torch.manual_seed(0)
    first, second = nn.BatchNorm3d(3, momentum=0.3), nn.BatchNorm3d(4, momentum=None)
    model = nn.Sequential(first, nn.Conv3d(3, 4, 3, padding=1), second, nn.BatchNorm3d(4, track_running_stats=False))
    assert first.running_mean is not None
    first.running_mean.fill_(7)
    before = {name: value.clone() for name, value in model.state_dict().items() if not is_average(name)}
    batches = [*draw_batches(), (torch.empty(0), torch.empty(0))]  # of the last, every file is in quarantine
    estimate_statistics(model.eval(), batches, PLAIN, Processes())
    expected: list[list[Tensor]] = [[], [], [], []]
    with torch.no_grad():
        for clips, _ in batches[:-1]:
            inputs = PLAIN.clips(clips)
            fresh = nn.BatchNorm3d(3)
            outputs = model[1](fresh(inputs))
            for place, values in ((0, inputs), (2, outputs)):
                by_channel = values.transpose(0, 1).flatten(1)
                expected[place].append(by_channel.mean(dim=1))
                expected[place + 1].append(by_channel.var(dim=1))
    found = (first.running_mean, first.running_var, second.running_mean, second.running_var)
    for tensor, each in zip(found, expected, strict=True):
        assert tensor is not None
        torch.testing.assert_close(tensor, torch.stack(each).mean(dim=0), rtol=1e-4, atol=1e-5)
    assert (first.momentum, second.momentum, model.training) == (0.3, None, False)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def averages_of(run: Path) -> dict[str, Tensor]:
    return {name: value for name, value in load_file(run / "backbone.safetensors").items() if is_average(name)}


def test_saved_weights_get_new_statistics_and_checkpoints_do_not(pretrained: Path) -> None:
    state = load_checkpoint(pretrained / "checkpoints/last.pt")["model"]
    saved = load_file(pretrained / "last/backbone.safetensors")
    for name, value in saved.items():
        assert torch.equal(value, state[f"backbone.{name}"]) != is_average(name), name
    tracked = {int(value) for name, value in saved.items() if name.endswith("num_batches_tracked")}
    assert tracked == {3}  # one epoch of three batches
    results = describe_trained(pretrained).results
    logged = read_metrics(pretrained / "metrics.jsonl")[results["epoch"] - 1]["validation"]
    assert results["loss"] != logged["loss"]  # it was validated again
    assert (
        f"the kept weights, of epoch {results['epoch']}, with batch-norm statistics re-estimated on 12"
        in (pretrained / "train.log").read_text()
    )


def test_zero_keeps_the_running_averages(small_pretraining: PretrainConfig, pretrained: Path, tmp_path: Path) -> None:
    pretrain(replace(small_pretraining, out=str(tmp_path), statistics_clips=0), console=QUIET)
    ours, theirs = (load_checkpoint(run / "checkpoints/last.pt")["model"] for run in (tmp_path, pretrained))
    assert fingerprint(ours) == fingerprint(theirs)  # the training is the same
    kept, other = load_file(tmp_path / "last/backbone.safetensors"), load_file(pretrained / "last/backbone.safetensors")
    assert all(torch.equal(kept[name], other[name]) != is_average(name) for name in kept)
    assert all(torch.equal(value, ours[f"backbone.{name}"]) for name, value in kept.items())


def test_frozen_statistics_stay(small_pretraining: PretrainConfig, tmp_path: Path) -> None:
    pretrain(replace(small_pretraining, out=str(tmp_path), batch_norm="frozen", epochs=1), console=QUIET)
    assert all(set(value.flatten().tolist()) in ({0}, {1}) for value in averages_of(tmp_path).values())


@pytest.mark.parametrize("stopped_at", [1, 2])
def test_a_stop_within_is_repeated_on_resume(
    small_pretraining: PretrainConfig,
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped_at: int,
) -> None:
    """In the first or second estimation: of the kept weights, and of the last."""
    calls = iter(range(stopped_at - 1))

    def stopping(*arguments: object) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        estimate_statistics(*arguments)  # type: ignore[arg-type]

    accuracies = replace(small_pretraining, out=str(tmp_path / "whole"), keep="accuracy", learning_rate=0.05)
    pretrain(accuracies, console=QUIET)
    stopped = replace(accuracies, out=str(tmp_path / "stopped"))
    with monkeypatch.context() as patch:
        patch.setattr(fit, "estimate_statistics", stopping)
        with suppress(KeyboardInterrupt):  # there is no second one if the last weights are the kept ones
            pretrain(stopped, console=QUIET)
    for _ in range(2):  # a second resume changes nothing
        pretrain(replace(stopped, resume=True), console=QUIET)
        for name in ("backbone.safetensors", "config.json", "last/backbone.safetensors", "last/config.json"):
            assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_more_epochs_on_resume_end_as_if_they_had_been_wanted_at_first(
    small_pretraining: PretrainConfig, tmp_path: Path
) -> None:
    whole, resumed = (replace(small_pretraining, out=str(tmp_path / name), epochs=3) for name in ("whole", "resumed"))
    pretrain(whole, console=QUIET)
    pretrain(replace(resumed, epochs=1), console=QUIET)
    pretrain(replace(resumed, resume=True), console=QUIET)
    for name in ("backbone.safetensors", "last/backbone.safetensors", "config.json"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_negative_number_is_refused(small_pretraining: PretrainConfig) -> None:
    with pytest.raises(ValueError, match="statistics_clips is -1; it must be 0 or more"):
        replace(small_pretraining, statistics_clips=-1)
