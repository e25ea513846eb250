"""``hf:`` from a folder or from the hub: the files that are read, and those that are missing, damaged or pickled."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from v3s.backbones.normalisation import Normalisation
from v3s.cli import main
from v3s.data.views import Resize, View
from v3s.features.foundation_folder import open_foundation
from v3s.features.preprocessing import Preprocessing, read_preprocessing
from v3s.files.weights import fingerprint

SMALL = ["--workers", "0", "--device", "cpu", "--precision", "fp32", "--num-clips", "1"]


@pytest.fixture
def folder(foundations: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a small image model, to damage."""
    return Path(shutil.copytree(foundations["vit"], tmp_path / "model"))


def test_a_folder_gives_network_fingerprint_and_licence(folder: Path) -> None:
    found = open_foundation(str(folder))
    assert found.fingerprint == fingerprint(load_file(folder / "model.safetensors"))
    assert (found.architecture, found.licence) == ("vit", "apache-2.0")


def test_weights_in_parts_are_the_same_weights(folder: Path) -> None:
    tensors, whole = load_file(folder / "model.safetensors"), open_foundation(str(folder))
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for part, own in parts.items():
        save_file({name: tensors[name] for name in own}, folder / part)
    index = {"weight_map": {name: part for part, own in parts.items() for name in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = open_foundation(str(folder))
    assert found.fingerprint == whole.fingerprint
    clips = torch.rand(1, 3, 2, 32, 32)
    assert torch.equal(found.backbone(clips), whole.backbone(clips))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors: there is no such file of weights"):
        open_foundation(str(folder))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(ValueError, match="weight_map must give the name of a safetensors file in this folder"):
        open_foundation(str(folder))


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch run'\ntR.")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json: not a JSON object"),
    "config is binary": (lambda folder: (folder / "config.json").write_bytes(b"\xff\0"), "config.json: not UTF-8"),
    "deep config": (lambda folder: (folder / "config.json").write_text("[" * 10**6), "config.json: not JSON"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no weights; bring model.safetensors"),
    "pickled": (pickle_weights, "has only pickled weights .pytorch_model.bin., which can run code"),
    "cut": (lambda folder: (folder / "model.safetensors").write_bytes(b"abc"), "not a readable safetensors file"),
    "no preprocessor": (
        lambda folder: (folder / "preprocessor_config.json").unlink(),
        "has no preprocessor_config.json, so it is unknown how clips are resized and normalised",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_folder_is_one_line(
    case: str, folder: Path, labelled_videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = DAMAGE[case]
    damage(folder)
    assert main(["probe", str(labelled_videos), "--backbone", f"hf:{folder}", *SMALL]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(folder) in error
    with pytest.raises(ValueError, match=message):
        open_foundation(str(folder))


PREPROCESSORS: dict[str, tuple[dict[str, Any], str]] = {
    "no mean": ({"image_mean": None}, "image_mean"),
    "two channels": ({"image_mean": [0.5, 0.5]}, "image_mean is .* must be a list of 3 values"),
    "zero deviation": ({"image_std": [0.1, 0, 0.1]}, "std more than 0"),
    "not square": ({"crop_size": {"height": 32, "width": 16}}, "crop_size is .*equal height and width"),
    "longest side": ({"size": {"longest_edge": 64}}, "size is .*it must be a shortest_edge"),
    "no size": ({"size": None}, "size is None"),
    "small": ({"size": {"shortest_edge": 8}}, "resized to 8 pixels, less than the 32"),
    "negative": ({"size": -4}, "size is -4"),
    "scale": ({"rescale_factor": 1.0}, "rescale_factor is 1.0"),
    "no resize": ({"do_resize": False}, "do_resize is false"),
    "flag": ({"do_center_crop": "yes"}, "do_center_crop is 'yes'"),
    "frames": ({"num_frames": 0}, "num_frames is 0"),
    "rate": ({"fps": -1}, "fps -1"),
}


@pytest.mark.parametrize("case", PREPROCESSORS)
def test_a_forged_preprocessor_is_one_error(case: str, folder: Path) -> None:
    change, message = PREPROCESSORS[case]
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=f"preprocessor_config.json: .*{message}"):
        read_preprocessing(folder)


USUAL = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        (  # facebook/vjepa2
            "video_preprocessor_config.json",
            {**USUAL, "size": {"shortest_edge": 292}, "crop_size": {"height": 256, "width": 256}, "fps": 4},
            Preprocessing(256, Resize(292, True), HALF, None, 4),
        ),
        (  # google/vit, and its older form
            "preprocessor_config.json",
            {**USUAL, "size": {"height": 224, "width": 224}, "do_resize": True},
            Preprocessing(224, Resize(224, False), HALF, None, None),
        ),
        ("preprocessor_config.json", {**USUAL, "size": 224}, Preprocessing(224, Resize(224, False), HALF, None, None)),
        (  # openai/clip in its older form
            "preprocessor_config.json",
            {**USUAL, "size": 224, "crop_size": 224, "do_center_crop": True, "do_normalize": True},
            Preprocessing(224, Resize(224, True), HALF, None, None),
        ),
        (  # as transformers 5 writes a processor
            "processor_config.json",
            {"image_processor": {"size": {"shortest_edge": 256}, "crop_size": 224, "do_normalize": False}},
            Preprocessing(224, Resize(256, True), None, None, None),
        ),
        (
            "video_preprocessor_config.json",
            {**USUAL, "size": {"shortest_edge": 224, "longest_edge": None}, "num_frames": 16, "do_center_crop": False},
            Preprocessing(224, Resize(224, True), HALF, 16, None),
        ),
    ],
)
def test_preprocessors_as_they_are_written(
    name: str, values: dict[str, Any], expected: Preprocessing, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(json.dumps(values))
    assert read_preprocessing(tmp_path) == expected


@pytest.mark.parametrize("keeps_shape", [True, False])
def test_frames_are_resized_and_cropped_as_the_model_expects(keeps_shape: bool) -> None:
    """Of a frame of 320 x 240 pixels, the centre; its corners, as the preprocessors of transformers place them."""
    to_clip = View(clip_size=32, resize=Resize(36, keeps_shape)).to_clip(320, 240)
    corners = np.array([[0.0, 0.0], [320.0, 240.0], [160.0, 120.0]])
    scale = np.array([36 / 240, 36 / 240] if keeps_shape else [36 / 320, 36 / 240])
    expected = (corners - (160, 120)) * scale + 16
    np.testing.assert_allclose(to_clip(corners), expected, atol=1e-9)


CARDS = {
    "---\nlicense: mit\n---\n": "mit",
    "---\ntags: [a]\nlicense: other\nlicense_name: meta-2\n---\n": "meta-2",
    "---\r\nlicense: cc-by-nc-4.0\r\n---\r\nText": "cc-by-nc-4.0",
    "---\nlicense:\n- mit\n- apache-2.0\n---\n": None,
    "---\nlicense: [unclosed\n---\n": None,
    "license: mit\n": None,
    "---\nlicense: mit\n": None,
    "": None,
    "---\nlicense: !!python/object/apply:os.system ['touch run']\n---\n": None,
}


@pytest.mark.parametrize("card", CARDS)
def test_the_licence_is_what_the_card_states(card: str, folder: Path) -> None:
    (folder / "README.md").write_text(card, newline="")
    assert open_foundation(str(folder)).licence == CARDS[card]


def test_a_hub_that_is_offline_is_one_line_that_says_how_to_bring_the_files(
    labelled_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    def offline(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", offline)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the hub's tries, which it reports
    assert main(["probe", str(labelled_videos), "--backbone", "hf:facebook/dinov2-small", *SMALL]) == 1
    *tries, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: hf:facebook/dinov2-small: ")
    assert not any("error:" in line or "Traceback" in line for line in tries)
    assert "run: hf download facebook/dinov2-small --local-dir DIR, bring DIR here, and give hf:DIR" in error


@pytest.mark.parametrize("name", ["/no/folder", "./model", "../a", "a/b/c", "", "a\nb", "-x", "a b", "x" * 5000 + "/"])
def test_what_is_no_name_of_the_hub_asks_for_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **b: pytest.fail("the hub was asked"))
    with pytest.raises(ValueError, match="no folder with a model; give hf:FOLDER"):
        open_foundation(name)


def test_a_folder_with_an_odd_name_asks_the_hub_for_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **b: pytest.fail("the hub was asked"))
    odd = folder.rename(tmp_path / "ein Mödel: 'x' \n, hf:[0]")
    assert open_foundation(str(odd)).architecture == "vit"


def test_without_transformers_the_message_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ValueError, match=r"needs transformers, which is not installed .* pip install 'v3s\[hf\]'"):
        open_foundation(str(folder))


@pytest.mark.parametrize(
    "command",
    [
        "finetune {data} --backbone {model} --out {out}",
        "pretrain {data} --backbone {model} --out {out}",
        "pretrain {data} --init {model} --out {out}",
        "evaluate {data} --backbone {model}",
        "speediness {data}/a.mp4 --backbone {model}",
    ],
)
def test_what_trains_or_needs_heads_refuses_it(
    command: str, folder: Path, small_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.format(data=small_videos, model=f"hf:{folder}", out=tmp_path / "out").split()
    assert main(words) in (1, 2)
    assert "another model of Hugging Face gives vectors (embed, probe" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_embed_probe_retrieve_and_search_take_it(
    foundations: dict[str, Path], labelled_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, vectors = foundations["videomae"], tmp_path / "vectors"
    data, backbone = str(labelled_videos), ["--backbone", f"hf:{model.name}"]
    monkeypatch.chdir(model.parent)
    assert main(["embed", data, *backbone, *SMALL, "--out", str(vectors)]) == 0
    assert main(["probe", data, *backbone, *SMALL, "--few-labels", "1", "--out", str(tmp_path / "probe.json")]) == 0
    assert main(["retrieve", data, *backbone, *SMALL, "--out", str(tmp_path / "retrieve.json")]) == 0
    monkeypatch.chdir(tmp_path)  # a folder is remembered as an absolute path
    video = next(labelled_videos.rglob("*.mp4"))
    assert main(["search", str(video), "--in", str(vectors), "--out", str(tmp_path / "hits.json")]) == 0
    hits = json.loads((tmp_path / "hits.json").read_text())
    assert hits["backbone"] == f"hf:{model}"
    assert hits["hits"][0]["score"] > 0.999
    probed, retrieved = (json.loads((tmp_path / name).read_text()) for name in ("probe.json", "retrieve.json"))
    weights = fingerprint(load_file(model / "model.safetensors"))
    assert probed["fingerprint"] == retrieved["fingerprint"] == weights
    assert (probed["stage"], probed["dimension"], retrieved["dimension"]) == ("pooled", 24, 24)
    assert probed["view"]["resize"] == {"side": 36, "keeps_shape": True}
