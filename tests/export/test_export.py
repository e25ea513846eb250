"""``v3s export``: what it writes loads again with the same weights, gives the same values, and names no file."""

import copy
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from torch import nn

from v3s.backbones import BACKBONES, create_backbone
from v3s.backbones.device import Compute
from v3s.backbones.normalisation import KINETICS, Normalisation
from v3s.cli import main
from v3s.commands.pretrain import PretrainConfig, pretrain
from v3s.data.views import View
from v3s.export import graphs
from v3s.export.card import card
from v3s.export.export import ExportConfig, export
from v3s.export.graphs import onnx_bytes, program_bytes
from v3s.export.model import open_model
from v3s.export.record import HELD_OUT, read_record
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
from v3s.files.weights import fingerprint, weights_as_bytes
from v3s.files.writing import NEXT
from v3s.recognizers.classifier import Recognition, save_recognizer
from v3s.recognizers.recognizer import load_recognizer
from v3s.train.run import CONFIG

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
    torch.nn.init.normal_(layer.weight, std=1.0, generator=torch.Generator().manual_seed(3))
    source = Source(network, "", backbone, 0.125, "", view.clip_frames, view.clip_size)
    save_recognizer(
        folder,
        network,
        layer,
        source=source,
        classes=("walk", "run | jump", "grüßen"),
        recognition=Recognition(
            view=view, feature=feature, dimension=layer.in_features, **{"average": "probabilities", **values}
        ),
        results={},
    )
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


def test_an_export_that_was_killed_between_two_renames_is_whole(pretrained: Path, tmp_path: Path) -> None:
    folder = export(ExportConfig(run=str(pretrained), out=str(tmp_path / "model")), console=QUIET)
    (folder / NEXT).mkdir()
    for name in ("model.safetensors", "temporal_head.safetensors", "config.json"):
        (folder / name).rename(folder / NEXT / name)
    assert fingerprint(load_pretext_model(folder)[0].state_dict()) == fingerprint(
        load_pretext_model(pretrained)[0].state_dict()
    )


def test_the_card_counts_and_names_no_file(pretrained: Path, small_videos: Path, tmp_path: Path) -> None:
    folder = export(ExportConfig(run=str(pretrained), out=str(tmp_path / "model"), licence="cc-by-4.0"), console=QUIET)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-4.0" in text.split("---")[1]
    manifest = json.loads((pretrained / "manifest.json").read_text())
    for count in ("listed", "train", "validation"):
        assert f"| {manifest['videos'][count]} |" in text
    assert "| clips per step | 4 |" in text
    results, unread = describe_trained(pretrained).results, ("out", "workers", "batch_size", "checkpoint", "precision")
    assert not [name for name in unread if f"| {name} |" in text]
    assert f"those after epoch {results['epoch']}, that with the lowest validation loss." in text
    accuracy = results["accuracy_temporal"]
    error = json.loads((pretrained / "result.json").read_text())["standard_error_temporal"]
    shown = f" ± {error:.1%}" if error else ""  # on some CPUs no clip is right: then there is no error to show
    assert f"| temporal | {accuracy:.1%}{shown} |" in text
    assert "| spatial |" not in text  # its head has one label
    assert "by which the epoch was chosen" in text
    written = text + (folder / "config.json").read_text(encoding="utf-8")
    for path in [small_videos, pretrained, *small_videos.rglob("*.mp4")]:
        assert str(path) not in written
    for path in small_videos.rglob("*.mp4"):
        assert path.name not in written


@pytest.mark.parametrize(
    ("side", "frame"), [(56, "64 pixels high and 85.5 wide"), (224, "256 pixels high and 256 wide")]
)
def test_the_card_states_the_size_of_a_resized_frame(side: int, frame: str, tmp_path: Path) -> None:
    run = write_recognizer(tmp_path / "run", view=View(clip_frames=FRAMES, clip_size=side, num_clips=3))
    text = (export(ExportConfig(run=str(run), out=str(tmp_path / "model")), console=QUIET) / "README.md").read_text()
    assert f"A frame is resized to {frame}, and its centre, {side} x {side}, is cut out" in text


def test_the_card_and_the_report_give_the_same_errors(small_pretraining: PretrainConfig, tmp_path: Path) -> None:
    """Over groups of videos, not over clips, and the card names the rule; not those of other weights."""
    run, more = tmp_path / "run", {"validation_clips": 3, "task": "v3s-short", "validation_videos": 6}
    pretrain(replace(small_pretraining, out=str(run), **more), console=QUIET)  # type: ignore[arg-type]
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["noun"] == "video"
    page = (run / "report.html").read_text()
    cells = r"</t[dh]>\s*<td[^>]*>([^<]*)</td>\s*<td[^>]*>([^<]*)</td>"
    accuracies, errors = (re.findall(f">{row}{cells}", page)[0] for row in ("accuracy", "standard error"))
    text = (export(ExportConfig(run=str(run), out=str(tmp_path / "model")), console=QUIET) / "README.md").read_text()
    for head, accuracy, error in zip(("spatial", "temporal"), accuracies, errors, strict=True):
        assert f"| {head} | {accuracy}{f' ± {error}' if error != 'unknown' else ''} |" in text
    assert "± is the standard error over 6 videos, each counted by itself." in text  # each file is its own group
    scores = json.loads((run / "result.json").read_text())

    def card_with(name: str, **values: object) -> str:
        (run / "result.json").write_text(json.dumps(scores | values))
        return (export(ExportConfig(run=str(run), out=str(tmp_path / name)), console=QUIET) / "README.md").read_text()

    assert "±" not in card_with("other", fingerprint="of other weights")
    assert "error over 2 groups of 6 videos: videos of a group count as one." in card_with(
        "grouped", num_validation_groups=2
    )
    assert "each counted separately, although all belong to one group." in card_with("one", num_validation_groups=1)
    assert "how many there were is not recorded." in card_with("earlier", num_validation_groups=None)
    (run / "manifest.json").write_text(json.dumps(manifest | {"noun": "span"}))  # with --segment
    of_spans = card_with("spans")
    assert "| spans | number |" in of_spans
    assert "On 18 clips of 6 held-out spans" in of_spans
    assert "over 6 spans, each counted by itself." in of_spans


def test_the_numbers_of_videos_on_the_card_add_up(pretrained: Path, tmp_path: Path) -> None:
    """Each listed video is in one other row, whatever became of it."""
    run = shutil.copytree(pretrained, tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    counts = {"train": 44, "validation": 10, "too_short": 3, "unreadable": 2, "partial": 2, "missing": 1, "listed": 66}
    (run / "manifest.json").write_text(json.dumps(manifest | {"videos": counts}))
    text = (export(ExportConfig(run=str(run), out=str(tmp_path / "model")), console=QUIET) / "README.md").read_text()
    table = text.split("## What it was trained on\n\n")[1].split("\n\n")[0]
    rows = {words: int(number) for words, number in re.findall(r"\| ([^|\n]+) \| (\d+) \|", table)}
    assert rows.pop("listed") == sum(rows.values()) == 66
    assert rows["partial, not used"] == 2
    assert rows["too close to held-out ones, not used"] == 4


def test_the_card_of_weights_that_nothing_chose_and_of_a_share_without_an_error(
    pretrained: Path, tmp_path: Path
) -> None:
    """A run that kept the last epoch, whose temporal head was always wrong."""
    run = shutil.copytree(pretrained, tmp_path / "run")
    options = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(options | {"keep": "last"}))
    described = json.loads((run / "config.json").read_text())
    described["results"]["accuracy_temporal"] = 0.0
    (run / "config.json").write_text(json.dumps(described))
    (run / "result.json").unlink()  # an earlier version wrote none
    folder = export(ExportConfig(run=str(run), out=str(tmp_path / "model")), console=QUIET)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "the last one; validation chose nothing." in text
    assert "by which the epoch was chosen" not in text
    assert "| temporal | 0.0% | " in text


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


@pytest.mark.parametrize("backbone", BACKBONES)
def test_graphs_of_every_network(backbone: str, tmp_path: Path) -> None:
    """Both forms give every output in batches of 1 and of 5, or an error instead of a file."""
    model = open_model(write_recognizer(tmp_path / "run", backbone=backbone, normalisation=KINETICS))
    assert model.outputs == ("features", "logits")
    assert len(onnx_bytes(model)) > 100_000
    assert len(program_bytes(model)) > 100_000


def test_a_graph_without_heads_normalises_its_clips(tmp_path: Path) -> None:
    import onnxruntime

    model = open_model(write_converted(tmp_path / "run", normalisation=KINETICS))
    content = onnx_bytes(model)
    clips = torch.rand(3, *model.clip_shape, generator=torch.Generator().manual_seed(7))
    (found,) = onnxruntime.InferenceSession(content).run(None, {"clips": clips.numpy()})
    plain = load_backbone(write_converted(tmp_path / "plain"))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (KINETICS.mean, KINETICS.std))
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), plain((clips - mean) / std), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["onnx", "torch"])
@pytest.mark.parametrize("write", [write_converted, write_recognizer])
def test_the_code_of_a_card_gives_each_output(
    form: Any, write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path / "run")
    folder = export(ExportConfig(run=str(run), out=str(tmp_path / "model"), format=form), console=QUIET)
    code = (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(folder)
    model = open_model(run)
    clips = torch.rand(2, *model.clip_shape)
    names: dict[str, Any] = {"clips": clips.numpy() if form == "onnx" else clips}
    exec(code, names)
    assert all(names[output].shape[0] == 2 for output in model.outputs)


def test_no_form_of_a_device_is_in_a_graph(tmp_path: Path) -> None:
    """Neither bf16 nor channels last, nor padded convolutions."""
    import onnx

    run = write_recognizer(tmp_path / "run")
    with Compute(torch.device("cpu"), bf16=True).autocast():
        graph = onnx.load_from_string(onnx_bytes(open_model(run))).graph
    assert {node.op_type for node in graph.node} == {"Conv", "Relu", "Add", "ReduceMean", "Gemm"}
    assert {value.data_type for value in graph.initializer} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    assert [axis.dim_param or axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim] == [
        "batch", 3, FRAMES, SIZE, SIZE,
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_a_graph_that_differs_leaves_nothing(form: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(network: nn.Module) -> nn.Module:
        folded = copy.deepcopy(network)
        for parameter in folded.parameters():
            parameter.data *= 1.001
        return folded

    monkeypatch.setattr(graphs, "fold", wrong)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"gives other values than the network: .* nothing was written"):
        export(ExportConfig(run=str(write_recognizer(tmp_path / "run")), out=str(out), format=form), console=QUIET)
    assert not out.exists()


def test_a_network_too_large_for_onnx_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="more than the 2 GB of an ONNX file"):
        onnx_bytes(open_model(write_converted(tmp_path / "run")))


def damaged(folder: Path, name: str) -> None:
    """Exchange the network under a classifier: that of another seed."""
    network = create_backbone("r3d", 0.125, seed=9)
    (folder / name).write_bytes(weights_as_bytes(network))


def cases(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """Folders that cannot be given away, and what is said of each."""
    none, own, changed, damaged_weights = (tmp_path / name for name in ("none", "own", "changed", "damaged"))
    none.mkdir()
    (none / "config.yaml").write_text("epochs: 1\n")
    write_converted(own)
    description = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(description | {"backbone": "mine:network"}))
    damaged(write_recognizer(changed), "backbone.safetensors")
    other = write_recognizer(damaged_weights) / "config.json"
    values = json.loads(other.read_text())
    values["recognition"]["feature"]["stage"] = "conv2"
    del values["answers"]  # as of an earlier version
    other.write_text(json.dumps(values))
    return {
        "no weights": (none, "contains no trained backbone"),
        "own network": (own, "a network of your own, whose code v3s does not have"),
        "another backbone": (changed, "damaged, or not the weights described"),
        "another feature": (damaged_weights, "its classifier takes 64 numbers, but the network gives 8"),
        "nothing": (tmp_path / "nowhere", "no such run folder"),
    }


@pytest.mark.parametrize("case", ["no weights", "own network", "another backbone", "another feature", "nothing"])
def test_what_cannot_be_given_away_is_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, message = cases(tmp_path)[case]
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_converted(tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 1
    assert "is not empty; choose another folder with --out" in capsys.readouterr().err
    assert main(["export", str(run), "--out", str(tmp_path / "out" / "mine.txt")]) == 2
    assert main(["export", str(run), "--out", str(tmp_path / "new"), "--licence", "my own: [x]"]) == 2
    assert "give an identifier of the Hugging Face hub" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_onnx_is_asked_for_before_any_work(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=rf"needs {name}, which is not installed .*: pip install 'v3s\[onnx\]'"):
        export(ExportConfig(run=str(tmp_path / "nowhere"), out=str(tmp_path / "out"), format="onnx"), console=QUIET)


def test_converted_weights_keep_the_licence_of_their_project(tmp_path: Path) -> None:
    run = write_converted(tmp_path / "run", normalisation=KINETICS)
    folder = export(ExportConfig(run=str(run), out=str(tmp_path / "model")), console=QUIET)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "the licence of the project that trained these weights applies" in text
    assert "secret-name" not in text + (folder / "config.json").read_text()
    assert describe_trained(folder).normalisation == KINETICS
    assert torch.equal(*(load_backbone(each)(torch.ones(1, 3, 8, 24, 24)) for each in (run, folder)))


def test_a_recognizer_is_read_back(tmp_path: Path, small_videos: Path) -> None:
    run = write_recognizer(tmp_path / "run", average="logits", feature=Feature("conv4", "max"))
    folder = export(ExportConfig(run=str(run), out=str(tmp_path / "model")), console=QUIET)
    ours, theirs = (load_recognizer(each, device="cpu") for each in (run, folder))
    video = min(small_videos.rglob("*.mp4"))
    assert ours.predict(video) == theirs.predict(video)
    assert "v3s.load_recognizer" in (folder / "README.md").read_text()


def test_a_recognizer_whose_description_has_fewer_fields_is_exported(tmp_path: Path) -> None:
    """As one of an earlier version: the model describes how it answers anew."""
    run = write_recognizer(tmp_path / "run")
    description = json.loads((run / "config.json").read_text())
    del description["recognition"]["span_seconds"]
    values = json.dumps(description["recognition"], sort_keys=True).encode()
    (run / "config.json").write_text(json.dumps(description | {"answers": sha256(values).hexdigest()}))
    model = export(ExportConfig(run=str(run), out=str(tmp_path / "model")), console=QUIET)
    assert load_recognizer(model, device="cpu").classes == load_recognizer(run, device="cpu").classes


def test_the_card_calls_spans_spans(tmp_path: Path) -> None:
    run = write_recognizer(tmp_path / "run", average="logits", feature=Feature("conv4", "max"))
    description = json.loads((run / "config.json").read_text())
    description["results"] |= {"num_train": 29, "noun": "span"}
    (run / "config.json").write_text(json.dumps(description))
    text = (export(ExportConfig(run=str(run), out=str(tmp_path / "model")), console=QUIET) / "README.md").read_text()
    assert "| spans | number |" in text.split("## What it was trained on")[1]


def test_the_card_says_which_heads_are_at_chance_and_counts_clips_that_are_together(
    pretrained: Path, tmp_path: Path
) -> None:
    trained = replace(describe_trained(pretrained), results={"accuracy_temporal": 0.0})
    run = Path(shutil.copytree(pretrained, tmp_path / "run"))
    (run / CONFIG).write_text("train_clips: 1\nclips_together: 2\nkeep: loss\nvalidation_clips: 2\n")
    record = replace(read_record(run), videos={HELD_OUT: 3}, result={})
    text = card(replace(open_model(pretrained), trained=trained), record, licence=None, form="safetensors")
    assert "The temporal head is not clearly above chance: 0.0% of 6 clips" in text
    assert "it may have learned nothing." in text
    assert "| clips per training video and epoch | 2 |" in text


def test_a_card_of_files_that_lie(tmp_path: Path) -> None:
    """What a run's files say is shown only where it is of the right kind."""
    run = write_recognizer(tmp_path / "run")
    (run / "manifest.json").write_text(json.dumps({"videos": {"train": "/secret", "test": 7, "listed": True}}))
    (run / "config.yaml").write_text("task: /secret/x\nfreeze: [conv1, ../secret]\nepochs: 9\nsplits: secret\n")
    result = {"fingerprint": describe_trained(run).fingerprint, "top_1": "secret", "standard_error": 0.0123, "top_5": 1}
    (run / "result.json").write_text(json.dumps(result))
    folder = export(ExportConfig(run=str(run), out=str(tmp_path / "model")), console=QUIET)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "secret" not in text
    assert "| for testing | 7 |" in text
    assert "| epochs | 9 |" in text
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"config\.yaml: not a file of options"):
        export(ExportConfig(run=str(run), out=str(tmp_path / "other")), console=QUIET)
