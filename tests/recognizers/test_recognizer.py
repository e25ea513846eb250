"""Recognizers read back from their folders: the same answers, and one line for whatever is wrong with the folder."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import v3s
from v3s.backbones.device import choose_compute
from v3s.data.lists.splits import list_videos
from v3s.data.scan import scan
from v3s.data.views import View, read_clips
from v3s.features.encoder import Feature
from v3s.features.saved import load_backbone
from v3s.features.source import open_source
from v3s.files.writing import CheckpointError
from v3s.recognizers.calibration import Calibration
from v3s.recognizers.classifier import Average, Recognition, load_classifier, save_answers, save_recognizer
from v3s.recognizers.recognizer import open_recognizer

CPU = choose_compute("cpu", "fp32")
VIEW = View(clip_frames=8, clip_size=32, num_clips=3)
CALIBRATION = Calibration(
    temperature=2.0, num_videos=9, loss_before=1.0, loss_after=0.5, error_before=0.2, error_after=0.1
)


def save(folder: Path, *, average: Average = "probabilities", calibration: Calibration | None = None) -> Path:
    source, layer = open_source("random:r3d@0.125"), nn.Linear(64, 4)
    nn.init.normal_(layer.weight, std=3.0, generator=torch.Generator().manual_seed(0))
    nn.init.zeros_(layer.bias)
    save_recognizer(
        folder,
        source.backbone,
        layer,
        source=source,
        classes=("a", "b b", "ü", "d"),
        recognition=Recognition(
            view=VIEW, feature=Feature("conv5"), dimension=64, average=average, calibration=calibration
        ),
        results={"epoch": 1},
    )
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("recognizer"))


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_answers_are_averaged_over_clips(average: Average, labelled_videos: Path, tmp_path: Path) -> None:
    recognizer = open_recognizer(save(tmp_path, average=average), CPU)
    table = scan(list_videos(labelled_videos, subset="test"), min_frames=1).usable_table
    found = torch.stack(list(recognizer.probabilities(table)))
    assert found.shape == (8, 4)
    network, layer = load_backbone(tmp_path), load_classifier(tmp_path).layer
    for video in (0, 5):
        with torch.no_grad():
            logits = layer(network(CPU.clips(read_clips(table, video, VIEW, VIEW.clips(20)))))
        by_hand = {
            "probabilities": F.softmax(logits, dim=1).mean(dim=0),
            "logits": F.softmax(logits.mean(dim=0), dim=0),
        }
        torch.testing.assert_close(found[video], by_hand[average], atol=1e-5, rtol=0)


def test_a_temperature_changes_probabilities_and_no_order(labelled_videos: Path, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "calibrated")
    save_answers(tmp_path / "calibrated", replace(load_classifier(saved).recognition, calibration=CALIBRATION))
    paths = sorted((labelled_videos / "test").rglob("*.mp4"))[:3]
    plain, calibrated = (v3s.load_recognizer(folder, device="cpu") for folder in (saved, tmp_path / "calibrated"))
    assert calibrated.classifier.recognition.calibration == CALIBRATION
    for before, after in zip(plain.predict(paths), calibrated.predict(paths), strict=True):
        assert (before.path, before.classes) == (after.path, after.classes)
        roots = torch.tensor(before.probabilities).sqrt()
        assert after.probabilities == pytest.approx((roots / roots.sum()).tolist(), abs=1e-5)


def test_videos_are_predicted_from_python(labelled_videos: Path, saved: Path) -> None:
    recognizer = v3s.load_recognizer(saved, device="cpu")
    paths = sorted((labelled_videos / "test").rglob("*.mp4"))[:2]
    first, second = recognizer.predict(paths)
    assert recognizer.classes == ("a", "b b", "ü", "d")
    assert (first.path, first.start) == (str(paths[0]), 0.0)
    assert first.end == pytest.approx(20 / 25)
    assert sorted(first.classes) == sorted(recognizer.classes)
    assert list(first.probabilities) == sorted(first.probabilities, reverse=True)
    assert sum(first.probabilities) == pytest.approx(1)
    assert recognizer.predict(str(paths[1])) == [second]
    assert recognizer.predict([]) == []
    assert recognizer.predict(paths, k=1)[0].classes == first.classes[:1]
    with pytest.raises(ValueError, match="k is 5; it must be from 1 to 4"):
        recognizer.predict(paths, k=5)
    with pytest.raises(ValueError, match=r"missing\.mp4"):
        recognizer.predict(["missing.mp4"])


def test_loading_draws_no_random_numbers(saved: Path) -> None:
    before = torch.random.get_rng_state()
    open_recognizer(saved, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)


def edit(folder: Path, **changes: Any) -> None:
    """Change values of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def recognition(folder: Path, **changes: Any) -> dict[str, Any]:
    return {**json.loads((folder / "config.json").read_text())["recognition"], **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": [1, 2, 3, 4]}, r"config\.json: classes\[0\] is 1; it must be text"),
        ({"classes": "abcd"}, r"classes is 'abcd'; it must be a list"),
        ({"classes": ["a", "b", "c"]}, r"classifier\.safetensors: weights of another network.*\(4,\).*\(3,\)"),
        ({"classes": ["a", "a", "c", "d"]}, "classes must be names that differ"),
        ({"classes": ["", "b", "c", "d"]}, "classes must be names that differ"),
        ({"classes": []}, "kind is recognizer, with 0 classes"),
        ({"recognition": 7}, "recognition is 7; it must be"),
        ({"recognition": {"average": "logits"}}, r"config\.json: view is missing"),
    ],
)
def test_forged_descriptions_are_one_line(copy: Path, changes: dict[str, Any], message: str) -> None:
    edit(copy, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_recognizer(copy, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"average": "median"}, "average is 'median'; it must be one of probabilities, logits"),
        ({"dimension": 65}, r"weights of another network.*\(4, 64\).*\(4, 65\)"),
        ({"dimension": -1}, "dimension is -1; it must be 1 or more"),
        ({"span_seconds": -1.0}, r"config\.json: span_seconds is -1.0; it must be more than 0"),
        ({"dimension": 10**15}, "weights of another network"),
        (
            {"feature": {"stage": "conv9"}},
            r"config\.json: the feature's stage is 'conv9', and the network's are conv1, ",
        ),
        ({"view": {"fps": 1e300}}, r"config\.json: fps is 1e\+300; it must be more than 0, and at most 10,000"),
        ({"view": {"num_clips": 10**300}}, r"config\.json: view\.num_clips is 1000.*; it must be a whole number"),
        ({"view": {"num_clips": 10**9}}, "num_clips is 1000000000 and stride 0; give at most 1,000,000"),
        ({"feature": {"stage": "conv4"}}, "takes 64 numbers, but the network gives 32"),
        ({"view": {"clip_frames": 10**9}}, "a clip may have at most"),
        ({"view": {"num_clips": 0}}, "a view needs positive sizes"),
        ({"calibration": {"temperature": 0}}, "num_videos is missing"),
        ({"calibration": {**asdict(CALIBRATION), "temperature": 1e-300}}, r"config\.json: temperature is 1e-300"),
        ({"hidden": 1}, "hidden is not known"),
    ],
)
def test_forged_answers_are_one_line(copy: Path, changes: dict[str, Any], message: str) -> None:
    edit(copy, recognition=recognition(copy, **changes), answers="")
    with pytest.raises(ValueError, match=message) as caught:
        open_recognizer(copy, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"view": {"num_clips": 3}},
        {"view": {"clip_frames": 4}},
        {"view": {"fps": 5.0}},
        {"average": "logits"},
        {"calibration": {**asdict(CALIBRATION), "temperature": 3.0}},
    ],
)
def test_answers_that_were_edited_are_noticed(copy: Path, changes: dict[str, Any]) -> None:
    forged = recognition(copy, **changes)
    edit(copy, recognition=forged)
    with pytest.raises(CheckpointError, match=r"config\.json: was edited: answers does not match recognition; restore"):
        load_classifier(copy)
    edit(copy, answers="")  # as in recognizers of earlier versions
    load_classifier(copy)


@pytest.mark.parametrize("name", ["backbone.safetensors", "classifier.safetensors"])
def test_missing_weights_are_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: this file of weights does not exist"):
        open_recognizer(copy, CPU)


def test_another_network_in_the_folder_is_noticed(copy: Path) -> None:
    weights = load_file(copy / "backbone.safetensors")
    next(iter(weights.values())).add_(1)
    save_file(weights, copy / "backbone.safetensors")
    with pytest.raises(CheckpointError, match="damaged, or not the weights described by"):
        open_recognizer(copy, CPU)


def exchange(folder: Path) -> None:
    """Exchange two rows of the classifier."""
    weights = load_file(folder / "classifier.safetensors")
    save_file({name: value[[1, 0, 2, 3]] for name, value in weights.items()}, folder / "classifier.safetensors")


def test_another_classifier_or_other_classes_are_noticed(copy: Path) -> None:
    edit(copy, classes=["b b", "a", "ü", "d"])
    with pytest.raises(CheckpointError, match=r"not the weights and classes described by the config\.json next to it"):
        load_classifier(copy)
    exchange(copy)
    with pytest.raises(CheckpointError, match="not the weights and classes described by"):
        load_classifier(copy)


def test_a_classifier_of_an_earlier_version_is_not_compared(copy: Path, saved: Path) -> None:
    edit(copy, heads={})
    exchange(copy)
    assert torch.equal(load_classifier(copy).layer.weight, load_classifier(saved).layer.weight[[1, 0, 2, 3]])


def test_nan_is_never_an_answer(copy: Path, labelled_videos: Path) -> None:
    """Finite numbers of which logits overflow."""
    weights = load_file(copy / "classifier.safetensors")
    save_file({name: torch.full_like(value, 3e38) for name, value in weights.items()}, copy / "classifier.safetensors")
    edit(copy, heads={})
    path = next((labelled_videos / "test").rglob("*.mp4"))
    with pytest.raises(ValueError, match=rf"{path.name}: the recognizer gives NaN for it"):
        open_recognizer(copy, CPU).predict(path)


def test_a_classifier_of_nan_is_refused(copy: Path) -> None:
    weights = load_file(copy / "classifier.safetensors")
    weights["bias"][2] = torch.nan
    save_file(weights, copy / "classifier.safetensors")
    edit(copy, heads={})
    with pytest.raises(CheckpointError, match=r"classifier\.safetensors: contains NaN or infinity"):
        open_recognizer(copy, CPU)


def test_a_run_without_a_classifier_is_not_a_recognizer(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="contains a pretrained network without classes; give a v3s finetune run"):
        v3s.load_recognizer(pretrained)
    with pytest.raises(CheckpointError, match="contains no trained backbone"):
        v3s.load_recognizer(tmp_path)
    with pytest.raises(CheckpointError, match="no such recognizer; v3s finetune makes one, and v3s probe --save"):
        v3s.load_recognizer(tmp_path / "nowhere")


def test_a_recognizer_of_an_earlier_version_answers_as_it_was_tested(copy: Path, saved: Path) -> None:
    """Its config.json states no answers; its clips are those of its result.json, or the paper's ten."""
    values = json.loads((copy / "config.json").read_text())
    del values["recognition"], values["answers"], values["kind"]
    (copy / "config.json").write_text(json.dumps(values))
    found = load_classifier(copy)
    assert (found.recognition.view, found.recognition.average, found.recognition.calibration) == (
        replace(VIEW, num_clips=10),
        "probabilities",
        None,
    )
    view = {"clip_frames": 8, "clip_size": 32, "num_clips": 3, "stride": 0}
    (copy / "result.json").write_text(json.dumps({"view": view, "average": "logits"}))
    found = load_classifier(copy)
    assert (found.space, found.recognition.average) == (load_classifier(saved).space, "logits")


def test_the_recognizer_of_version_3fcbae0(shared: Path) -> None:
    """Two videos, as `v3s predict` printed them when all 620 gave the confusion matrix of the run's result.json."""
    recognizer = v3s.load_recognizer(shared / "data/run-r3d-300/finetune", device="cpu", precision="fp32")
    assert recognizer.encoder.view == View(clip_frames=8, clip_size=56, num_clips=4)
    videos = shared / "data/UCF-101"
    names = ["Diving/v_Diving_g01_c02.avi", "Archery/v_Archery_g01_c01.avi"]
    found = recognizer.predict([videos / name for name in names], k=1)
    assert [each.classes for each in found] == [("Diving",), ("PushUps",)]
