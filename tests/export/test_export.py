"""``v3s export``: what it writes loads again with the same weights, gives the same values, and names no file."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from v3s.backbones import BACKBONES, create_backbone
from v3s.backbones.normalisation import KINETICS, Normalisation
from v3s.data.views import View
from v3s.export import graphs
from v3s.export.export import ExportConfig, export
from v3s.export.graphs import check_graph, onnx_bytes, program_bytes
from v3s.export.model import Model, open_model
from v3s.features.encoder import Feature
from v3s.features.saved import (
    InitialWeights,
    Trained,
    describe_trained,
    load_backbone,
    load_pretext_model,
    plain_sampling,
    write_trained,
)
from v3s.features.source import Source
from v3s.files.weights import fingerprint
from v3s.recognizers.classifier import save_recognizer

QUIET = Console(quiet=True)
SIZES = {"s3dg": 40}
FRAMES, SIZE = 8, 24


def write_converted(folder: Path, backbone: str = "r3d", normalisation: Normalisation | None = None) -> Path:
    """A small network with random weights, as v3s convert would write it."""
    network = create_backbone(backbone, 0.125, seed=1)
    network.normalisation = normalisation
    described = Trained(
        kind="converted", backbone=backbone, width=0.125, sampling=plain_sampling(FRAMES, SIZES.get(backbone, SIZE)),
        results={}, converted_from="secret-name.pth",
    )  # fmt: skip
    write_trained(folder, described, network, {})
    return folder


def write_recognizer(folder: Path, *, backbone: str = "r3d", view: View | None = None, **values: Any) -> Path:
    """A small recognizer with random weights, whose classes differ clearly."""
    network = create_backbone(backbone, 0.125, seed=2)
    network.normalisation = values.pop("normalisation", None)
    view = view or View(clip_frames=FRAMES, clip_size=SIZES.get(backbone, SIZE), num_clips=3)
    feature = values.pop("feature", Feature())
    with torch.inference_mode():
        stages = network.eval().forward_stages(torch.rand(1, 3, view.clip_frames, view.clip_size, view.clip_size))
    layer = nn.Linear(feature.extract(stages).shape[1], 3)
    torch.nn.init.normal_(layer.weight, std=3.0, generator=torch.Generator().manual_seed(3))
    source = Source(network, "", backbone, 0.125, "", view.clip_frames, view.clip_size)
    save_recognizer(
        folder, network, layer, source=source, classes=("walk", "run | jump", "grüßen"), view=view, feature=feature,
        average=values.pop("average", "probabilities"), results={}, **values,
    )  # fmt: skip
    return folder


def test_a_run_is_read_back_with_the_same_weights(pretrained: Path, tmp_path: Path) -> None:
    folder = export(ExportConfig(run=str(pretrained), out=str(tmp_path / "model"), licence="mit"), console=QUIET)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "spatial_head.safetensors", "temporal_head.safetensors",
    ]  # fmt: skip
    ours, theirs = load_backbone(pretrained), load_backbone(folder)
    assert fingerprint(ours.state_dict()) == fingerprint(theirs.state_dict()) == describe_trained(folder).fingerprint
    assert torch.equal(
        load_pretext_model(folder)[0].spatial_head.weight, load_pretext_model(pretrained)[0].spatial_head.weight
    )
    assert load_backbone(folder / "model.safetensors").stages == ours.stages
    again = export(ExportConfig(run=str(folder), out=str(tmp_path / "again")), console=QUIET)
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_the_card_counts_and_names_no_file(pretrained: Path, small_videos: Path, tmp_path: Path) -> None:
    folder = export(ExportConfig(run=str(pretrained), out=str(tmp_path / "model"), licence="cc-by-4.0"), console=QUIET)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-4.0" in text.split("---")[1]
    manifest = json.loads((pretrained / "manifest.json").read_text())
    for count in ("listed", "train", "validation"):
        assert f"| {manifest['videos'][count]} |" in text
    assert "| batch_size | 4 |" in text
    results = describe_trained(pretrained).results
    assert f"| spatial | {100 * results['accuracy_spatial']:.1f} % +- " in text
    written = text + (folder / "config.json").read_text(encoding="utf-8")
    for path in [small_videos, pretrained, *small_videos.rglob("*.mp4")]:
        assert str(path) not in written
    for path in small_videos.rglob("*.mp4"):
        assert path.name not in written


def test_the_start_of_a_training_is_a_hash_and_no_name(tmp_path: Path) -> None:
    start = write_converted(tmp_path / "start")
    model = open_model(start)
    assert model.trained.converted_from is None
    trained = replace(describe_trained(start), init=InitialWeights("/home/me/secret", "ab" * 32))
    network = load_backbone(start)
    write_trained(tmp_path / "run", trained, network, {})
    folder = export(ExportConfig(run=str(tmp_path / "run"), out=str(tmp_path / "model")), console=QUIET)
    written = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix in (".md", ".json"))
    assert "secret" not in written
    assert "ab" * 32 in written
    assert describe_trained(folder).kind == "converted"


@pytest.mark.parametrize("make", [onnx_bytes, program_bytes], ids=["onnx", "torch"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_graphs_of_every_network_with_and_without_heads(
    backbone: str, make: Callable[[Model], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is compared with the network in batches of 1 and 5 before it is returned."""
    compared: list[tuple[str, ...]] = []

    def look(graph: graphs.Graph, model: Model, name: str) -> float:
        compared.append(model.outputs)
        return check_graph(graph, model, name)

    monkeypatch.setattr(graphs, "check_graph", look)
    alone = open_model(write_converted(tmp_path / "alone", backbone, KINETICS))
    make(alone)
    make(open_model(write_recognizer(tmp_path / "with", backbone=backbone)))
    assert compared == [("features",), ("features", "logits")]
