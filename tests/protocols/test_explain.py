"""``v3s explain``: explanations of each head, the files that it writes, and the errors."""

import io
import json
from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from v3s.backbones import create_backbone
from v3s.data.synthetic import make_clips
from v3s.data.views import View
from v3s.features.encoder import Feature
from v3s.features.saved import Trained, load_pretext_model, save_trained
from v3s.features.source import open_source
from v3s.pretext.model import PretextModel
from v3s.pretext.plan import Sampling
from v3s.pretext.task import TASKS, PretextTask
from v3s.protocols.explain import (
    ExplainConfig,
    ExplainedHead,
    class_number,
    clip_frames,
    explain,
    explain_clip,
    open_subject,
)
from v3s.protocols.gradcam import grad_cam, overlay
from v3s.protocols.recognition import RecognitionModel
from v3s.recognizers.classifier import Recognition, save_recognizer
from v3s.video.decode import read_frames
from v3s.video.homography import crop_and_resize
from v3s.video.index import VideoIndex, index_video
from v3s.video.warp import warp

SAMPLING = Sampling(clip_frames=8, clip_size=40, canvas_size=80)
VIEW = View(clip_frames=8, clip_size=40)


def save_run(folder: Path, task: PretextTask, fps: float | None = None) -> Path:
    model = PretextModel(create_backbone("r3d", 0.125), task)
    trained = Trained(kind="pretrained", backbone="r3d", width=0.125, task=task, sampling=SAMPLING, results={}, fps=fps)
    save_trained(folder, model, trained)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run"), TASKS["v3s"])


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    (path,) = make_clips(tmp_path_factory.mktemp("video"), num_videos=1, num_frames=21, height=48, width=80)
    return index_video(path)


def read_png(path: Path) -> Tensor:
    """Read the pixels of an image, uint8 (H, W, 3)."""
    with av.open(str(path)) as container:
        return torch.from_numpy(next(container.decode(video=0)).to_ndarray(format="rgb24"))


def quiet() -> Console:
    return Console(file=io.StringIO())


@pytest.mark.parametrize(("head", "target"), [("temporal", None), ("spatial", "7"), ("temporal", "last")])
def test_the_heat_map_explains_the_requested_logit(run: Path, video: VideoIndex, head: str, target: str | None) -> None:
    model, trained = load_pretext_model(run)
    rows = getattr(trained.task, head)
    name = str(rows[-1]) if target == "last" else target
    explanation = explain_clip(open_subject(run), video, head=head, target=name, stage="conv4")
    to_clip = crop_and_resize(20, 12, 40, 24, 40, 40)  # the middle half of 80 x 48, squashed as in training
    clip = warp(read_frames(video, range(6, 14)), to_clip, 40, 40)  # 21 frames: 13 starts, the middle one is 6
    batch = clip[None].float() / 255
    logits = getattr(model, f"{head}_head")(model.backbone(batch))[0]
    number = {None: int(logits.argmax()), "7": 7, "last": len(rows) - 1}[target]
    assert explanation.frames == tuple(range(6, 14))
    assert explanation.places == (2, 5, 5)  # 8 x 40 x 40, halved in conv3 and conv4, and conv1 halves height and width
    assert (explanation.target, explanation.predicted) == (number, int(logits.argmax()))
    assert explanation.classes == tuple(map(str, rows))
    assert explanation.probabilities == pytest.approx(logits.softmax(dim=0).tolist(), abs=1e-5)
    expected = grad_cam(model.backbone, getattr(model, f"{head}_head"), batch, "conv4", number)  # type: ignore[arg-type]
    torch.testing.assert_close(explanation.heat, expected[0], atol=1e-5, rtol=0)
    assert torch.equal(explanation.clip, clip.permute(1, 2, 3, 0))


def test_a_fine_tuned_run_is_explained_by_its_classes(video: VideoIndex, tmp_path: Path) -> None:
    recognizer = RecognitionModel(create_backbone("r3d", 0.125), 3).eval()
    classes = ("Archery", "Diving", "Swing")
    save_recognizer(
        tmp_path, recognizer.backbone, recognizer.classifier, source=open_source("random:r3d@0.125"), classes=classes,
        recognition=Recognition(view=VIEW, feature=Feature("conv5"), dimension=64, average="probabilities"), results={},
    )  # fmt: skip
    subject = open_subject(tmp_path)
    explanation = explain_clip(subject, video, target="Swing", stage="conv3")
    assert (explanation.head, explanation.classes, explanation.target) == ("recognition", classes, 2)
    with torch.no_grad():
        logits = recognizer(explanation.clip.permute(3, 0, 1, 2)[None].float() / 255)
    assert explanation.probabilities == pytest.approx(logits[0].softmax(dim=0).tolist(), abs=1e-5)
    assert 0 <= explanation.heat.min() < explanation.heat.max() == 1
    with pytest.raises(ValueError, match=r"no temporal head with more than one class; available: recognition"):
        explain_clip(subject, video, head="temporal")
    with pytest.raises(ValueError, match=r"available: 0 Archery, 1 Diving, 2 Swing"):
        explain_clip(subject, video, target="Swinging")


def test_files_of_an_explanation(run: Path, video: VideoIndex, tmp_path: Path) -> None:
    console, out = quiet(), tmp_path / "deep" / "out"
    config = ExplainConfig(
        video=video.path, backbone=str(run), out=str(out), device="cpu", head="spatial", start="0.52"
    )
    page = explain(config, console=console)
    assert page == out / "explain.html"
    facts = json.loads((out / "explain.json").read_text())
    assert facts["frames"] == list(range(13, 21))  # at 25 frames per second
    assert facts["seconds"] == pytest.approx([0.52, 0.8])
    assert f"{video.path}: 0:00:00.5 to 0:00:00.8, frames 13 to 20." in console.file.getvalue()  # type: ignore[attr-defined]
    assert sum(facts["probabilities"].values()) == pytest.approx(1)
    assert facts["target"] == facts["predicted"] == max(facts["probabilities"], key=facts["probabilities"].get)
    for name in ("overlay.mp4", "overlay.gif"):
        written = index_video(out / name)
        assert (written.num_frames, written.height, written.width) == (8, 40, 40)
    assert read_png(out / "contact_sheet.png").shape == (2 * 40, 8 * 40, 3)
    html = " ".join(page.read_text().split())
    assert html.count("data:video/mp4") == 2
    assert html.count("data:image/png") == 1
    assert "conv5 has a resolution of 1 x 3 x 3 (time, height, width)" in html
    assert facts["predicted"] in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_folder_of_others_is_left_as_it_is(run: Path, video: VideoIndex, tmp_path: Path) -> None:
    config = ExplainConfig(video=video.path, backbone=str(run), out=str(tmp_path), device="cpu")
    explain(config, console=quiet())
    explain(config, console=quiet())  # its own files are replaced
    (tmp_path / "explain.json").write_text("{}")  # of another program
    (tmp_path / "overlay.mp4").write_text("precious")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"which contains something else than v3s explain writes; give a new or empty"):
        explain(config, console=quiet())
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_sheet_shows_frames_above_heat_maps(run: Path, video: VideoIndex, tmp_path: Path) -> None:
    config = ExplainConfig(
        video=video.path, backbone=str(run), out=str(tmp_path), device="cpu", precision="fp32", stage="conv3"
    )
    explain(config, console=quiet())
    explanation = explain_clip(open_subject(run), video, stage="conv3")
    sheet = read_png(tmp_path / "contact_sheet.png")
    assert torch.equal(sheet[:40, 80:120], explanation.clip[2])
    assert torch.equal(sheet[40:, 80:120], overlay(explanation.clip, explanation.heat)[2])


def test_a_head_of_one_row_is_not_offered(video: VideoIndex, tmp_path: Path) -> None:
    subject = open_subject(save_run(tmp_path / "spatial", TASKS["ss"]))
    assert list(subject.heads) == ["spatial"]
    assert explain_clip(subject, video).head == "spatial"
    with pytest.raises(ValueError, match=r"no temporal head with more than one class; available: spatial"):
        explain_clip(subject, video, head="temporal")
    assert list(open_subject(save_run(tmp_path / "both", TASKS["v3s"])).heads) == ["temporal", "spatial"]


def test_a_short_video_repeats_its_last_frame(run: Path, tmp_path: Path) -> None:
    (path,) = make_clips(tmp_path, num_videos=1, num_frames=5, height=48, width=80)
    short = index_video(path)
    explanation = explain_clip(open_subject(run), short)
    assert explanation.frames == (0, 1, 2, 3, 4, 4, 4, 4)
    assert torch.equal(explanation.clip[4], explanation.clip[7])
    config = ExplainConfig(video=str(path), backbone=str(run), out=str(tmp_path / "out"), device="cpu")
    page = explain(config, console=quiet())
    assert "the last frame is repeated 3 times" in page.read_text()
    message = r"start is 1; a clip of 8 frames in a video of 5 must start at frame 0 to 0"
    with pytest.raises(ValueError, match=message):
        clip_frames(short, VIEW, 1)


def test_class_names_take_precedence_over_numbers() -> None:
    assert class_number("3", ("0", "3", "1")) == 1
    assert class_number("2", ("a", "b", "c")) == 2
    for wrong in ("3", "-1", "B", "½"):
        with pytest.raises(ValueError, match=r"available: 0 a, 1 b, 2 c"):
            class_number(wrong, ("a", "b", "c"))
    with pytest.raises(ValueError, match=r"19 class 19 and 380 more$"):
        class_number("400", tuple(f"class {number}" for number in range(400)))
    with pytest.raises(ValueError, match="did you mean 'Archery'"):
        class_number("Archry", ("Archery", "Diving"))


def test_no_evidence_is_reported(video: VideoIndex, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Against(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return torch.stack([features.sum(dim=1), -features.sum(dim=1)], dim=1)

    subject = open_subject(run)
    stub = replace(subject, heads={"temporal": ExplainedHead(Against(), ("for", "against"))})
    monkeypatch.setattr("v3s.protocols.explain.open_subject", lambda *_: stub)
    config = ExplainConfig(video=video.path, backbone=str(run), out=str(tmp_path), device="cpu", target="against")
    page = explain(config, console=quiet())
    assert "conv5 has no positive evidence for this class: the heat map is all zeros" in page.read_text()
    assert json.loads((tmp_path / "explain.json").read_text())["no_evidence"] is True


def test_invalid_options_are_refused(run: Path, video: VideoIndex, tmp_path: Path) -> None:
    subject = open_subject(run)
    with pytest.raises(ValueError, match=r"no stage 'conv9'; it has: conv1, conv2, conv3, conv4, conv5"):
        explain_clip(subject, video, stage="conv9")
    with pytest.raises(ValueError, match=r"available: temporal, spatial"):
        explain_clip(subject, video, head="recognition")
    with pytest.raises(ValueError, match=r"start is 14; .* must start at frame 0 to 13"):
        explain_clip(subject, video, start=14)
    with pytest.raises(ValueError, match=r"start is -1; .* must start at frame 0 to 13"):
        explain_clip(subject, video, start=-1)
    late = ExplainConfig(video=video.path, backbone=str(run), out=str(tmp_path), device="cpu", start="0:01")
    with pytest.raises(ValueError, match=r"start is 0:00:01.0; a clip of 8 frames must start at 0:00:00.5 or before"):
        explain(late, console=quiet())
    with pytest.raises(ValueError, match="start is 'one', which is not a time"):
        ExplainConfig(video=video.path, backbone=str(run), start="one")
    with pytest.raises(ValueError, match="unknown class 'faster'"):
        explain_clip(subject, video, target="faster")
    with pytest.raises(ValueError, match="random:r3d: no such run"):
        open_subject("random:r3d")
    assert not list(tmp_path.iterdir())


def test_a_network_trained_at_a_rate_is_shown_clips_at_this_rate(video: VideoIndex, tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", TASKS["v3s"], fps=12.5)
    out = tmp_path / "out"
    explain(
        ExplainConfig(video=video.path, backbone=str(folder), out=str(out), device="cpu", start="0"), console=quiet()
    )
    facts = json.loads((out / "explain.json").read_text())
    assert facts["seconds"] == pytest.approx([0, 7 / 12.5])
