"""The speediness curve: shares of probability, a network with known predictions, the crop, the page, and errors."""

import io
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import v3s.protocols.speediness as module
from v3s.backbones import create_backbone
from v3s.features.saved import Trained, save_trained
from v3s.pages.images import mp4
from v3s.pretext.model import PretextModel
from v3s.pretext.plan import Labels, Picture, PreResize, Sampling, middle_crop, plan_clip
from v3s.pretext.task import SAME_SIZE, TASKS, PretextTask, patterns, speeds
from v3s.protocols.speediness import (
    SpeedinessConfig,
    SpeedinessCurve,
    Windows,
    measure_speediness,
    speediness,
    temporal_shares,
)
from v3s.video.decode import read_frames
from v3s.video.index import VideoIndex, index_video

SAMPLING = Sampling(clip_frames=8, clip_size=24, canvas_size=48)
HEIGHT, WIDTH, FPS = 40, 64, 20


def quiet() -> Console:
    return Console(file=io.StringIO())


def film(path: Path, brightness: list[int]) -> VideoIndex:
    """Write a video of uniform grey frames."""
    frames = np.broadcast_to(np.array(brightness, np.uint8)[:, None, None, None], (len(brightness), HEIGHT, WIDTH, 3))
    path.write_bytes(mp4(frames, FPS))
    return index_video(path)


class ChangeOfBrightness(nn.Module):
    """One feature: the mean change between consecutive frames, in grey levels."""

    num_features = 1

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips in [0, 1], shape (B, 3, T, H, W), to features (B, 1)."""
        return 255 * clips.diff(dim=2).abs().mean(dim=(1, 2, 3, 4))[:, None]


def model_with_logits(task: PretextTask, weight: list[float], bias: list[float]) -> PretextModel:
    """A network whose temporal logits are ``weight * change of brightness + bias``."""
    model = PretextModel(ChangeOfBrightness(), task)
    with torch.no_grad():
        model.temporal_head.weight.copy_(torch.tensor(weight)[:, None])
        model.temporal_head.bias.copy_(torch.tensor(bias))
    return model.eval()


def trained_on(task: PretextTask, sampling: Sampling = SAMPLING) -> Trained:
    return Trained(kind="pretrained", backbone="mine:network", width=1.0, task=task, sampling=sampling, results={})


def run_folder(folder: Path, task: PretextTask, sampling: Sampling = SAMPLING) -> Path:
    model = PretextModel(create_backbone("r3d", 0.125), task)
    save_trained(folder, model, replace(trained_on(task, sampling), backbone="r3d", width=0.125))
    return folder


def test_shares_are_sums_of_the_softmax() -> None:
    rows = TASKS["v3s"].temporal  # speeds 1, 2, 3, then four rising and four falling patterns
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0)) * 4
    p = logits.double().softmax(dim=1)
    shares = temporal_shares(rows)
    torch.testing.assert_close(shares["speediness"](logits), 1 - p[:, 0] / p[:, :3].sum(dim=1))
    torch.testing.assert_close(shares["acceleration"](logits), p[:, 3:7].sum(dim=1) / p[:, 3:].sum(dim=1))


def test_shares_of_one_family_are_independent_of_the_other_and_stay_in_range() -> None:
    shares = temporal_shares(TASKS["v3s"].temporal)
    logits = torch.zeros(1, 11)
    assert (
        shares["speediness"](logits).item() == pytest.approx(2 / 3) == pytest.approx(shares["speediness"].uniform_guess)
    )
    assert shares["acceleration"](logits).item() == pytest.approx(0.5) == shares["acceleration"].uniform_guess
    logits[0, 3:7] = 900.0  # outside the range of exp
    assert shares["speediness"](logits).item() == pytest.approx(2 / 3)
    assert shares["acceleration"](logits).item() == 1
    logits[0, 0] = 900.0
    assert shares["speediness"](logits).item() == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ts", {"speediness"}), ("tp", {"acceleration"}), ("ts+tp", {"speediness", "acceleration"}), ("ss", None)],
)
def test_shares_that_each_task_supports(name: str, expected: set[str] | None) -> None:
    if expected is not None:
        assert set(temporal_shares(TASKS[name].temporal)) == expected
        return
    with pytest.raises(ValueError, match=r"distinguishes only speed 1; a speediness curve needs .* --task ts, tp"):
        temporal_shares(TASKS[name].temporal)


def test_a_single_speed_or_direction_supports_no_share() -> None:
    assert set(temporal_shares(speeds(1) + patterns((1, 2), (2, 1)))) == {"acceleration"}
    with pytest.raises(ValueError, match="needs speed 1"):
        temporal_shares(speeds(2, 3) + patterns((1, 2), (2, 3)))


def test_the_curve_is_the_network_s_prediction_for_each_window(tmp_path: Path) -> None:
    """Brightness changes by 1 per frame, then by 4: speediness = sigmoid(change - 2.5) rises when the speed does."""
    slow, fast = list(range(20, 50)), list(range(50, 190, 4))
    video = film(tmp_path / "ramp.mp4", slow + fast)
    task = PretextTask(SAME_SIZE, speeds(1, 2))
    model = model_with_logits(task, [0.0, 1.0], [0.0, -2.5])
    curve = measure_speediness(model, trained_on(task), video, Windows(stride=3, batch_size=4), console=quiet())
    grey = read_frames(video, range(video.num_frames)).rgb().double().mean(dim=(1, 2, 3))
    change = grey.diff().abs()
    starts = range(0, video.num_frames - 7, 3)
    expected = torch.stack([change[start : start + 7].mean() for start in starts]).sub(2.5).sigmoid()
    assert curve.speediness is not None
    assert curve.acceleration is None
    torch.testing.assert_close(torch.tensor(curve.speediness, dtype=torch.float64), expected, atol=0.02, rtol=0)
    assert curve.speediness[0] < 0.3 < 0.7 < curve.speediness[-1]
    rise = curve.frames[curve.moments()["steepest rise"]]
    assert rise == pytest.approx(len(slow), abs=5), "where the speed changes"


def test_windows_are_located_at_their_middle(tmp_path: Path) -> None:
    video = film(tmp_path / "grey.mp4", [90] * 21)
    task = TASKS["ts+tp"]
    model = model_with_logits(task, [0.0] * 11, [0.0] * 11)
    curve = measure_speediness(model, trained_on(task), video, Windows(stride=5), console=quiet())
    assert curve.frames == (3.5, 8.5, 13.5)  # windows 0..7, 5..12, 10..17; the next would end at frame 22
    assert curve.seconds == pytest.approx([3.5 / FPS, 8.5 / FPS, 13.5 / FPS])
    assert curve.speediness == pytest.approx([2 / 3] * 3)
    assert curve.acceleration == pytest.approx([0.5] * 3)
    odd = replace(SAMPLING, clip_frames=9)
    assert measure_speediness(model, trained_on(task, odd), video, Windows(stride=99), console=quiet()).frames == (4.0,)


def test_batches_and_parts_of_the_video_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    video = film(tmp_path / "flicker.mp4", generator.integers(0, 255, 60).tolist())
    task = TASKS["ts"]
    model = model_with_logits(task, [-0.02, 0.0, 0.0], [1.5, 0.0, 0.0])
    whole = measure_speediness(model, trained_on(task), video, Windows(batch_size=100), console=quiet())
    monkeypatch.setattr(module, "_READ_BYTES", 17 * 3 * HEIGHT * WIDTH)
    parts = measure_speediness(model, trained_on(task), video, Windows(batch_size=1), console=quiet())
    assert parts.speediness == pytest.approx(whole.speediness, abs=1e-5)
    assert np.ptp(whole.speediness or ()) > 0.1


def test_moments() -> None:
    seconds = frames = tuple(range(6))
    curve = SpeedinessCurve(frames, seconds, (0.4, 0.3, 0.35, 0.9, 0.95, 0.5), None)
    assert curve.moments() == {"lowest": 1, "highest": 4, "steepest rise": 3}
    falling = SpeedinessCurve(frames[:2], seconds[:2], None, (0.9, 0.1))
    assert falling.moments() == {"lowest": 1, "highest": 0}
    assert SpeedinessCurve((3.5,), (0.1,), (0.5,), None).moments() == {"lowest": 0, "highest": 0}


@pytest.mark.parametrize("pre_resize", ["squash", "short-side"])
def test_the_crop_is_the_mean_of_the_training_crops(pre_resize: PreResize) -> None:
    sampling = replace(SAMPLING, pre_resize=pre_resize)
    to_clip = middle_crop(Picture(WIDTH, HEIGHT), sampling)
    assert to_clip([WIDTH / 2, HEIGHT / 2]) == pytest.approx([12, 12])
    task, generator = PretextTask(SAME_SIZE, speeds(1)), np.random.default_rng(0)
    shifts = []
    for _ in range(50):
        plan = plan_clip(
            task,
            Labels(0, 0),
            num_frames=8,
            picture=Picture(WIDTH, HEIGHT),
            sampling=sampling,
            generator=generator,
        )
        np.testing.assert_allclose(plan.to_clip.matrix[:2, :2], to_clip.matrix[:2, :2])  # the same scale
        shifts.append(plan.to_clip.matrix[:2, 2] - to_clip.matrix[:2, 2])
    assert np.abs(shifts).max() <= 12
    assert np.abs(np.mean(shifts, axis=0)).max() < 4


def test_page_and_numbers(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    video = film(tmp_path / "flicker <1>.mp4", generator.integers(0, 255, 30).tolist())
    run = run_folder(tmp_path / "run", TASKS["v3s"])
    out = tmp_path / "deep" / "curve.html"
    console = quiet()
    curve = speediness(
        SpeedinessConfig(video=video.path, backbone=str(run), out=str(out), device="cpu", stride=4), console=console
    )
    html, facts = out.read_text(), json.loads(out.with_suffix(".json").read_text())
    assert facts["speediness"] == list(curve.speediness or ())
    assert facts["acceleration"] == list(curve.acceleration or ())
    assert facts["frames"] == [3.5, 7.5, 11.5, 15.5, 19.5, 23.5]
    assert facts["even_guess"] == {"speediness": 2 / 3, "acceleration": 0.5}
    assert facts["fingerprint"]
    assert html.count("data:image/jpeg") == len(curve.moments())
    for name in ("speediness", "acceleration", *curve.moments()):
        assert name in html
    assert "flicker <1>" not in html
    assert "lowest: speediness" in console.file.getvalue()  # type: ignore[attr-defined]


def test_invalid_input_is_refused(tmp_path: Path) -> None:
    video = film(tmp_path / "short.mp4", [80] * 7)
    fine, still = run_folder(tmp_path / "run", TASKS["ts"]), run_folder(tmp_path / "still", TASKS["sp"])
    with pytest.raises(ValueError, match=r"short\.mp4: has 7 frames; a window needs at least 8"):
        speediness(SpeedinessConfig(video=video.path, backbone=str(fine)), console=quiet())
    with pytest.raises(ValueError, match=r"still: the temporal head distinguishes only speed 1"):
        speediness(SpeedinessConfig(video=video.path, backbone=str(still)), console=quiet())
    with pytest.raises(ValueError, match=r"nothing\.mp4"):
        speediness(SpeedinessConfig(video=str(tmp_path / "nothing.mp4"), backbone=str(fine)), console=quiet())
    for wrong in ({"stride": 0}, {"batch_size": 0}, {"out": "curve.json"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SpeedinessConfig(video="v", backbone="b", **wrong)


def test_the_file_of_numbers_replaces_no_file_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("precious")
    with pytest.raises(ValueError, match=r"config\.json, which is written with it, exists and is not a result"):
        SpeedinessConfig(video="a.mp4", backbone="run", out=str(tmp_path / "config.html"))


def test_every_frame_of_the_video_is_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = film(tmp_path / "ramp.mp4", list(range(10, 70)))
    monkeypatch.setattr(module, "_READ_BYTES", 1)
    small = module._read_small(video, SAMPLING, quiet())
    assert small.shape == (3, 60, 24, 24)
    assert all(later > earlier - 2 for earlier, later in pairwise(small.double().mean(dim=(0, 2, 3)).tolist()))
    assert small[:, -1].double().mean() - small[:, 0].double().mean() == pytest.approx(59, abs=3)
