"""Descriptions of saved networks: each kind, files without a kind, and runs that have not saved a network yet."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from v3s.backbones import create_backbone
from v3s.data.views import View
from v3s.features.encoder import Feature
from v3s.features.saved import (
    Trained,
    describe_trained,
    kind_of_run,
    open_trained,
    plain_sampling,
    save_trained,
    write_trained,
)
from v3s.features.source import open_source
from v3s.files.lock import only_writer
from v3s.files.writing import CheckpointError
from v3s.pretext.model import PretextModel
from v3s.pretext.plan import Sampling
from v3s.pretext.task import get_task
from v3s.recognizers.classifier import Recognition, save_recognizer

HOLD = """
import sys
from pathlib import Path
from v3s.files.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""
NETWORK = "random:r3d@0.125"


def save(kind: str, folder: Path) -> Trained:
    """Write a network of one kind in the same way as its command."""
    network = create_backbone("r3d", 0.125)
    if kind == "pretrained":
        task = get_task("ts")
        sampling, results = Sampling(clip_frames=8, clip_size=32), {"epoch": 2}
        trained = Trained(kind="pretrained", backbone="r3d", width=0.125, task=task, sampling=sampling, results=results)
        return save_trained(folder, PretextModel(network, task), trained)
    if kind == "recognizer":
        view, feature = View(clip_frames=8, clip_size=32), Feature("conv5")
        answers = Recognition(view=view, feature=feature, dimension=64, average="probabilities")
        return save_recognizer(
            folder, network, nn.Linear(64, 2), source=open_source(NETWORK), classes=("a", "b"),
            recognition=answers, results={"epoch": 1},
        )  # fmt: skip
    trained = Trained(
        kind="converted", backbone="r3d", width=0.125, sampling=plain_sampling(8, 32), results={}, converted_from="a.pt"
    )
    return write_trained(folder, trained, network, {})


KINDS = {
    "pretrained": {"backbone.safetensors", "spatial_head.safetensors", "temporal_head.safetensors", "config.json"},
    "recognizer": {"backbone.safetensors", "classifier.safetensors", "config.json"},
    "converted": {"backbone.safetensors", "config.json"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_is_read_as_it_was_written(kind: str, tmp_path: Path) -> None:
    saved = save(kind, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == KINDS[kind]
    assert describe_trained(tmp_path) == describe_trained(tmp_path / "backbone.safetensors") == saved
    assert (saved.kind, len(saved.fingerprint)) == (kind, 64)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["kind"] == kind
    assert ("classes" in written) == (kind == "recognizer")
    assert ("converted_from" in written) == (kind == "converted")


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
@pytest.mark.parametrize("place", ["run", "run/last", "run/backbone.safetensors"])
def test_weights_of_a_run_that_is_training_are_said_to_change(place: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for folder in (run, run / "last"):
        save("pretrained", folder)
    (run / "config.yaml").write_text("epochs: 9\n")
    (run / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    open_trained(tmp_path / place)  # it was stopped
    with only_writer(run):  # its own process knows
        open_trained(tmp_path / place)
        assert subprocess.run([sys.executable, "-c", HOLD, run], capture_output=True).returncode == 1, "still locked"
    with subprocess.Popen([sys.executable, "-c", HOLD, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as training:
        assert training.stdout is not None
        assert training.stdout.readline() == b"held\n"
        with pytest.warns(
            UserWarning, match=r"run is still training \(2 of 9 epochs done\), so its weights will change"
        ):
            open_trained(tmp_path / place)
        training.communicate(b"\n")
    open_trained(tmp_path / place)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_files_without_one_is_inferred(kind: str, tmp_path: Path) -> None:
    saved = save(kind, tmp_path)
    edit(tmp_path / "config.json", kind=None)
    assert describe_trained(tmp_path) == saved
    assert open_source(str(tmp_path)).fingerprint == saved.fingerprint


def edit(path: Path, **changes: Any) -> None:
    """Change values of a JSON file; None removes a value."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def test_damaged_descriptions_are_reported(tmp_path: Path) -> None:
    save("converted", tmp_path)
    edit(tmp_path / "config.json", width=None)
    with pytest.raises(CheckpointError, match=r"config\.json: width is missing"):
        describe_trained(tmp_path)
    edit(tmp_path / "config.json", width=0.125, kind="quantised")
    message = "kind is 'quantised'; it must be one of pretrained, recognizer, converted"
    with pytest.raises(CheckpointError, match=message):
        describe_trained(tmp_path)
    edit(tmp_path / "config.json", format=9)
    with pytest.raises(CheckpointError, match="has format 9; this version of v3s reads format 1"):
        describe_trained(tmp_path)


@pytest.mark.parametrize(
    ("options", "manifest", "kind"),
    [
        ("data: x\ntask: v3s\n", None, "pretrained"),
        ("task: v3s\n", {"seed": 0}, "pretrained"),
        ("data: 'a task: b'\n", {"seed": 0}, "recognizer"),
        ("data: x\n", {"kind": "recognizer"}, "recognizer"),
        ("data: x\n", {"kind": "pretrained"}, "pretrained"),
        (None, None, None),
    ],
)
def test_the_kind_of_a_run_is_known_before_it_has_saved(
    options: str | None, manifest: dict[str, Any] | None, kind: str | None, tmp_path: Path
) -> None:
    if options is not None:
        (tmp_path / "config.yaml").write_text(options)
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert kind_of_run(tmp_path) == kind


def test_weights_without_a_description_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match=f"^{path}: not a file that v3s wrote .* convert weights of another"):
        describe_trained(path)
