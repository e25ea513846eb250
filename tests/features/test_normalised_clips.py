"""Every command shows a network the clips that its weights expect: what reaches the first convolution is normalised."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from v3s.backbones import create_backbone
from v3s.backbones.normalisation import KINETICS, Normalisation
from v3s.cli import main
from v3s.data.views import View, read_clips
from v3s.features.encoder import Feature, Space, load_encoder
from v3s.features.saved import Trained, describe_trained, load_backbone, plain_sampling, write_trained
from v3s.features.source import open_source

SMALL = "--workers 0 --device cpu --precision fp32"
SIZES = "--clip-frames 8 --clip-size 32"


def write_converted(folder: Path, normalisation: Normalisation | None = KINETICS) -> Path:
    """A small network as v3s convert would write it."""
    network = create_backbone("r3d", 0.125, seed=3)
    network.normalisation = normalisation
    trained = Trained(
        kind="converted", backbone="r3d", width=0.125, sampling=plain_sampling(8, 32), results={}, converted_from="a.pt"
    )
    write_trained(folder, trained, network, {})
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted weights that expect normalised clips."""
    return write_converted(tmp_path_factory.mktemp("weights") / "kinetics")


@pytest.fixture(scope="module")
def folders(weights: Path, small_videos: Path, labelled_videos: Path, tmp_path_factory: Any) -> dict[str, Path]:
    """What the commands of the table need: a pre-training, a fine-tuning and vectors, each from `weights`."""
    out = tmp_path_factory.mktemp("out")
    videos, labelled = f"--data {small_videos}", f"--data {labelled_videos}"
    once = "--epochs 1 --batch-size 4 --validation-videos 4"
    run(f"pretrain {videos} --init {weights} --width 0.125 --task ts {SIZES} {once} {SMALL} --out {out / 'run'}")
    run(f"finetune {labelled} --backbone {weights} {once} --test-clips 1 {SMALL} --out {out / 'tuned'}")
    run(f"embed {videos} --backbone {weights} --num-clips 1 {SMALL} --out {out / 'vectors'}")
    return {name: out / name for name in ("run", "tuned", "vectors")}


def run(command: str) -> None:
    """Run a command, which shows its networks normalised clips and no others."""
    with first_inputs() as seen:
        assert main(command.split()) == 0
    assert seen, "the command ran no network"
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (KINETICS.mean, KINETICS.std))
    for clips in seen:
        pixels = (clips * std + mean) * 255
        assert float(pixels.min()) > -0.01
        assert float(pixels.max()) < 255.01
        assert torch.allclose(pixels, pixels.round(), atol=0.01)
        assert not torch.allclose(clips * 255, (clips * 255).round(), atol=0.01)


@contextmanager
def first_inputs() -> Iterator[list[Tensor]]:
    """Collect the inputs of all convolutions of three channels."""
    seen: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Conv3d) and module.in_channels == 3:
            seen.append(inputs[0].detach().clone())

    handle = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        yield seen
    finally:
        handle.remove()


COMMANDS = {
    "evaluate": "{videos} --backbone {run} --clips 1",
    "audit": "{videos} --backbone {run} --clips 3",
    "speediness": "{video} --backbone {run} --out {out}.html",
    "explain": "{video} --backbone {run} --out {out}",
    "explain tuned": "{video} --backbone {tuned} --out {out}",
    "probe": "{labelled} --backbone {weights} --num-clips 1",
    "retrieve": "{labelled} --backbone {last} --num-clips 1",
    "similarity": "{videos} --backbone {weights} --num-clips 1 --num-folds 2 --pairs-per-fold 4",
    "embed random": "{videos} --backbone random:{weights} --num-clips 1 --out {out}",
    "search": "{video} --in {vectors}",
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_normalises(
    command: str, folders: dict[str, Path], weights: Path, small_videos: Path, labelled_videos: Path, tmp_path: Path
) -> None:
    options = COMMANDS[command].format(
        **folders,
        videos=f"--data {small_videos}",
        video=next(small_videos.rglob("*.mp4")),
        labelled=f"--data {labelled_videos}",
        weights=weights,
        last=folders["run"] / "last",
        out=tmp_path / "out",
    )
    small = SMALL.replace("--workers 0 ", "") if command.startswith(("search", "speediness", "explain")) else SMALL
    run(f"{command.split()[0]} {options} {small}")


def test_every_description_names_it(folders: dict[str, Path], weights: Path) -> None:
    for folder in (weights, folders["run"], folders["run"] / "last", folders["tuned"]):
        assert describe_trained(folder).normalisation == KINETICS
        assert json.loads((folder / "config.json").read_text())["normalisation"]["mean"] == list(KINETICS.mean)
        assert open_source(str(folder)).backbone.normalisation == KINETICS


def test_vectors_of_the_same_weights_with_and_without_are_not_comparable(weights: Path, tmp_path: Path) -> None:
    plain = write_converted(tmp_path / "plain", None)
    assert "normalisation" not in json.loads((plain / "config.json").read_text())
    ours, theirs = (load_encoder(folder, device="cpu") for folder in (weights, plain))
    assert ours.source.fingerprint == theirs.source.fingerprint
    assert ours.fingerprint != theirs.fingerprint
    other = Normalisation(KINETICS.mean, (0.2, 0.2, 0.2))
    spaces = [Space("a", View(), Feature(), normalisation) for normalisation in (None, KINETICS, other)]
    assert len({space.fingerprint for space in spaces}) == 3
    assert spaces[0].fingerprint == "a4f5be417c2367124c271a0dc0b77883d6bc2662bae86842c200d81d4ab05f24"


def test_an_encoder_gives_the_features_of_normalised_clips(weights: Path, small_videos: Path, tmp_path: Path) -> None:
    encoder = load_encoder(weights, device="cpu", precision="fp32", num_clips=2)
    path = next(small_videos.rglob("*.mp4"))
    table = encoder.table_of([path])
    clips = read_clips(table, 0, encoder.view, encoder.view.clips(int(table.num_frames[0]))).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (KINETICS.mean, KINETICS.std))
    with torch.no_grad():
        expected = load_backbone(write_converted(tmp_path / "plain", None))((clips - mean) / std)
    vectors = encoder.encode_clips(path)
    torch.testing.assert_close(vectors, nn.functional.normalize(expected, dim=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"mean": [0.4, 0.4], "std": [0.2, 0.2, 0.2]}, "normalisation.mean is .* it must be a list of 3 values"),
        ({"mean": [0.4, 0.4, 0.4], "std": [0.2, 0, 0.2]}, "both must be finite, and std more than 0"),
        ({"mean": [0.4, 0.4, 0.4]}, "normalisation.std is missing"),
        ({"mean": [0.4, 0.4, "x"], "std": [1, 1, 1]}, r"normalisation.mean\[2\] is 'x'; it must be a finite number"),
        ([0.4, 0.4, 0.4], "normalisation is .* it must be an object"),
    ],
)
def test_a_damaged_normalisation_is_one_line(
    value: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], small_videos: Path
) -> None:
    file = write_converted(tmp_path / "weights") / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "normalisation": value}))
    command = f"embed --data {small_videos} --backbone {file.parent} --out {tmp_path / 'out'} {SMALL}"
    assert main(command.split()) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"error: {file}: ")
    with pytest.raises(ValueError, match=message):
        describe_trained(file.parent)
