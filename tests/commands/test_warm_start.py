"""``--init``: the first weights are the source's, the run names it and needs it no more; or one line says why."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from v3s import FinetuneConfig, PretrainConfig, ReplayConfig, finetune, pretrain, replay
from v3s.backbones import StagedBackbone, create_backbone
from v3s.backbones.device import Compute
from v3s.backbones.normalisation import KINETICS
from v3s.cli import main
from v3s.commands.pretrain import set_up_pretraining
from v3s.features.saved import Trained, describe_trained, plain_sampling, write_trained
from v3s.files.weights import fingerprint
from v3s.train.checkpoint import load_checkpoint
from v3s.train.distributed import Processes
from v3s.train.finite import NonFiniteError

QUIET = Console(quiet=True)
PLAIN = Compute(torch.device("cpu"), bf16=False)
Killed = Callable[[int], AbstractContextManager[None]]


def write_weights(folder: Path, *, seed: int = 7, name: str = "r3d", width: float = 0.125) -> Path:
    """What v3s convert writes, of a small network whose weights expect normalised clips."""
    network = create_backbone(name, width, seed=seed)
    network.normalisation = KINETICS
    described = Trained(
        kind="converted", backbone=name, width=width, sampling=plain_sampling(8, 32), results={}, converted_from="a.pt"
    )
    write_trained(folder, described, network, {})
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "weights")


@pytest.fixture
def config(small_pretraining: PretrainConfig, weights: Path, tmp_path: Path) -> PretrainConfig:
    """A pre-training that starts from `weights`."""
    return replace(small_pretraining, out=str(tmp_path / "run"), init=str(weights))


def backbone_of(run: Path) -> dict[str, torch.Tensor]:
    model = load_checkpoint(run / "checkpoints/last.pt")["model"]
    return {name.removeprefix("backbone."): each for name, each in model.items() if name.startswith("backbone.")}


def test_the_network_is_the_source_before_the_first_step(config: PretrainConfig, weights: Path) -> None:
    network = set_up_pretraining(config, compute=PLAIN, processes=Processes(), console=QUIET).network
    source = create_backbone("r3d", 0.125, seed=7).eval()
    clips = torch.rand((2, 3, 8, 32, 32), generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (KINETICS.mean, KINETICS.std))
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(clips), source((clips - mean) / std), rtol=1e-5, atol=1e-5)
    assert fingerprint(network.state_dict()) == describe_trained(weights).fingerprint


def test_a_run_killed_before_its_first_step_has_the_weights(
    config: PretrainConfig, weights: Path, killed_after: Killed
) -> None:
    with killed_after(0):
        pretrain(replace(config, checkpoint_seconds=300), console=QUIET)
    state = load_checkpoint(Path(config.out) / "checkpoints/last.pt")
    assert (state["epoch"], state["step"]) == (0, 0)
    assert fingerprint(backbone_of(Path(config.out))) == describe_trained(weights).fingerprint


def test_the_run_names_its_source_and_other_runs_do_not(
    config: PretrainConfig, weights: Path, pretrained: Path
) -> None:
    pretrain(config, console=QUIET)
    expected = {"weights": str(weights), "fingerprint": describe_trained(weights).fingerprint}
    normalisation = {"mean": list(KINETICS.mean), "std": list(KINETICS.std)}
    for file in ("manifest.json", "config.json", "last/config.json"):
        written = json.loads((Path(config.out) / file).read_text())
        assert (written["init"], written["normalisation"]) == (expected, normalisation), file
        assert not {"init", "normalisation"} & json.loads((pretrained / file).read_text()).keys(), file
    assert "init" not in (pretrained / "config.yaml").read_text()
    assert (
        load_checkpoint(pretrained / "checkpoints/last.pt").keys()
        == load_checkpoint(Path(config.out) / "checkpoints/last.pt").keys()
    )


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_resuming_is_exact_without_the_source(
    steps: int, config: PretrainConfig, weights: Path, tmp_path: Path, killed_after: Killed
) -> None:
    whole = replace(config, out=str(tmp_path / "whole"), freeze=("conv1",))
    killed = replace(whole, out=str(tmp_path / "killed"), checkpoint_seconds=300)
    pretrain(replace(whole, checkpoint_seconds=300), console=QUIET)
    with killed_after(steps):
        pretrain(killed, console=QUIET)
    shutil.rmtree(weights)
    pretrain(replace(killed, resume=True), console=QUIET)
    for name in ("backbone.safetensors", "last/backbone.safetensors", "config.json", "last/config.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert describe_trained(tmp_path / "killed").normalisation == KINETICS


def test_a_run_without_a_checkpoint_starts_again_from_the_same_weights(
    config: PretrainConfig, weights: Path, killed_after: Killed
) -> None:
    with killed_after(0):
        pretrain(config, console=QUIET)
    shutil.rmtree(Path(config.out) / "checkpoints")
    shutil.rmtree(weights)
    write_weights(weights, seed=8)
    with pytest.raises(ValueError, match=r"its weights changed since .*run started from them \(\w{8} then, \w{8} now"):
        pretrain(replace(config, resume=True), console=QUIET)
    shutil.rmtree(weights)
    write_weights(weights)
    pretrain(replace(config, resume=True), console=QUIET)


def test_replaying_needs_no_source(config: PretrainConfig, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError):
        pretrain(replace(config, learning_rate=1e30), console=QUIET)
    shutil.rmtree(weights)
    moved = Path(config.out).rename(tmp_path / "moved")
    assert replay(ReplayConfig(run=str(moved)), console=QUIET).bad_gradients


SOURCES = {
    "run": "(pretrained, weights {hash}): all 72 tensors of its r3d are loaded, the heads of its pretext task are not",
    "last": "(pretrained, weights {hash}): all 72 tensors of its r3d are loaded, the heads of its pretext task are not",
    "file": "(converted, weights {hash}): all 72 tensors of its r3d are loaded, it has no heads: the heads of this run",
    "tuned": "(recognizer, weights {hash}): all 72 tensors of its r3d are loaded, its classifier of 8 classes is not",
}


@pytest.mark.parametrize("source", SOURCES)
def test_one_line_says_what_was_loaded(
    source: str,
    config: PretrainConfig,
    weights: Path,
    pretrained: Path,
    small_finetuning: FinetuneConfig,
    tmp_path: Path,
) -> None:
    given = {"run": pretrained, "last": pretrained / "last", "file": weights / "backbone.safetensors"}
    if source == "tuned":
        finetune(replace(small_finetuning, out=str(tmp_path / "tuned"), epochs=1, test_clips=1), console=QUIET)
    path, printed = given.get(source, tmp_path / "tuned"), StringIO()
    console = Console(file=printed, width=80)
    job = set_up_pretraining(replace(config, init=str(path)), compute=PLAIN, processes=Processes(), console=console)
    expected = SOURCES[source].format(hash=describe_trained(path).fingerprint[:8])
    (line,) = (line for line in printed.getvalue().splitlines() if "started from" in line)
    assert line.startswith(f"started from {path} {expected}")
    assert ("; clips are normalised (mean 0.43216, 0.394666, 0.37645; std 0.22803" in line) == (source == "file")
    assert fingerprint(job.network.state_dict()) == describe_trained(path).fingerprint
    assert isinstance(job.network, StagedBackbone)
    assert job.network.normalisation == describe_trained(path).normalisation


GIVE = "give --backbone r3d --width 0.125, or other weights"
NO_STAGE = "the backbone has no stage {}; it has: conv1, conv2, conv3, conv4, conv5"
WRONG = {
    "--init {weights} --backbone r2plus1d":
        "{weights}: contains r3d of width 0.125, and this run trains r2plus1d of width 0.125; " + GIVE,
    "--init {weights} --width 0.25":
        "{weights}: contains r3d of width 0.125, and this run trains r3d of width 0.25; " + GIVE,
    "--init {nowhere}": "{nowhere}: no such run folder or file of weights",
    "--init {folder}": "{folder}: contains no trained backbone (config.json is missing); a run saves it after its",
    "--init {pth}":
        "{pth}: not a file that v3s wrote (backbone.safetensors); convert weights of another project with v3s convert",
    "--init random:r3d": "random:r3d: no such run folder or file of weights",
    "--init {damaged}": "{damaged}/backbone.safetensors: damaged, or not the weights described by the config.json",
    "--init {cut}": "{cut}/backbone.safetensors: not a readable safetensors file",
    "--init {renamed}": "{renamed}/backbone.safetensors: weights of another network: ",
    "--init": "--init needs a value",
    "--freeze conv9": NO_STAGE.format("'conv9'") + " (did you mean 'conv5'?)",
    "--freeze conv1,Conv_2": NO_STAGE.format("'Conv_2'") + " (did you mean 'conv2'?)",
    "--freeze conv1,,conv2": NO_STAGE.format("''"),
    "--freeze stem --init {weights}": NO_STAGE.format("'stem'"),
    "--freeze": "--freeze needs a value",
}  # fmt: skip


@pytest.mark.parametrize("options", WRONG)
def test_wrong_inputs_are_one_line(
    options: str, config: PretrainConfig, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {name: tmp_path / name for name in ("damaged", "cut", "renamed", "folder", "nowhere", "out")}
    places["folder"].mkdir()
    places["pth"] = tmp_path / "r3d_18.pth"
    torch.save({"stem.0.weight": torch.zeros(1)}, places["pth"])
    for name in ("damaged", "cut"):
        write_weights(places[name])
    file = write_weights(places["damaged"]) / "backbone.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x77")
    file = places["cut"] / "backbone.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    described = write_weights(places["renamed"], name="c3d") / "config.json"
    described.write_text(described.read_text().replace('"c3d"', '"r3d"'))
    base = f"--data {config.data} --out {places['out']} --backbone r3d --width 0.125 --task ts --workers 0".split()
    given = options.format(weights=weights, **places).split()
    kept = [word for pair in zip(base[::2], base[1::2], strict=True) if pair[0] not in given for word in pair]
    assert main(["pretrain", *kept, *given]) in (1, 2)
    error = capsys.readouterr().err
    expected = WRONG[options].format(weights=weights, **places)
    assert error.startswith(f"error: {expected}"), error
    assert error.removesuffix("See: v3s pretrain --help\n").count("\n") == 1
    assert not (places["out"] / "config.yaml").exists()


@pytest.mark.parametrize("options", ["--freeze conv9", "--freeze stem,conv1"])
def test_a_fine_tuning_refuses_unknown_stages_too(
    options: str, small_finetuning: FinetuneConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"finetune --data {small_finetuning.data} --backbone random:r3d@0.125 --out {tmp_path / 'out'} {options}"
    assert main(command.split()) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the backbone has no stage '")
    assert error.count("\n") == 1


def test_a_network_of_your_own_starts_from_its_own_run(
    small_pretraining: PretrainConfig, weights: Path, tmp_path: Path
) -> None:
    """Of two networks without a name in v3s, the tensors decide; freezing works by the names of their modules."""
    own, out = create_backbone("r3d", 0.125, seed=9), tmp_path / "first"
    pretrain(replace(small_pretraining, out=str(out), epochs=1), backbone=own, console=QUIET)
    again = replace(small_pretraining, out=str(tmp_path / "again"), epochs=1, init=str(out), freeze=("conv1",))
    pretrain(again, backbone=create_backbone("r3d", 0.125), console=QUIET)
    start, end = (load_file(Path(run) / "backbone.safetensors") for run in (out, again.out))
    changed = {name.partition(".")[0] for name, each in end.items() if not torch.equal(each, start[name])}
    assert changed == {"conv2", "conv3", "conv4", "conv5"}
    with pytest.raises(ValueError, match=r"weights of another network: \d+ tensors differ"):
        pretrain(replace(again, overwrite=True), backbone=create_backbone("c3d", 0.125), console=QUIET)
    with pytest.raises(ValueError, match=r"contains r3d of width 0\.125, and this run trains v3s\.backbones"):
        pretrain(replace(again, overwrite=True, init=str(weights)), backbone=own, console=QUIET)


def test_other_weights_are_refused_on_resume(config: PretrainConfig, pretrained: Path) -> None:
    pretrain(replace(config, epochs=1), console=QUIET)
    with pytest.raises(ValueError, match=r"cannot be resumed with other options: init was '.*weights', now None"):
        pretrain(replace(config, resume=True, init=None), console=QUIET)
    with pytest.raises(ValueError, match=r"cannot be resumed with other options: init was '.*weights', now '.*last'"):
        pretrain(replace(config, resume=True, init=str(pretrained / "last")), console=QUIET)


def run_two(arguments: list[str]) -> str:
    """Run a command in two processes; returns what they printed."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "v3s"]
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_processes_start_from_them_and_freeze(config: PretrainConfig, weights: Path) -> None:
    options: dict[str, Any] = {
        "data": config.data, "out": config.out, "init": weights, "freeze": "conv1,conv2", "backbone": "r3d",
        "width": 0.125, "task": "ts", "clip-frames": 8, "clip-size": 32, "epochs": 1, "batch-size": 4,
        "validation-videos": 4, "workers": 0, "device": "cpu",
    }  # fmt: skip
    printed = run_two(["pretrain", *(f"--{name}={value}" for name, value in options.items())])
    assert printed.count("started from ") == 1
    assert "frozen: conv1, conv2; " in printed
    start = load_file(weights / "backbone.safetensors")
    for trained in (load_file(Path(config.out) / "last/backbone.safetensors"), backbone_of(Path(config.out))):
        changed = {name.partition(".")[0] for name, each in trained.items() if not torch.equal(each, start[name])}
        assert changed == {"conv3", "conv4", "conv5"}
    assert describe_trained(config.out).normalisation == KINETICS
