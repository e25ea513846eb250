"""The recipe own: what it chooses for which videos, and that what is given stays."""

import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import v3s
from v3s.backbones.device import Compute
from v3s.cli import main, read_config
from v3s.commands import own
from v3s.commands.own import own_options
from v3s.commands.pretrain import PretrainConfig
from v3s.commands.recipes import RECIPES, RecipeError
from v3s.data.synthetic import make_clips
from v3s.pretext.task import TASKS

BASE = RECIPES["v3s-contrast"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "_SECONDS_MEASURED", 0.05)


def choose(given: Mapping[str, Any], minutes: float | None = None) -> tuple[dict[str, Any], str]:
    console = Console(file=StringIO(), width=200)
    chosen = own_options(BASE, {"device": "cpu", **given}, minutes=minutes, console=console)
    assert isinstance(console.file, StringIO)
    return chosen, console.file.getvalue()


def videos(folder: Path, *lengths: int, each: int = 10) -> str:
    for length in lengths:
        make_clips(folder / str(length), num_videos=each, num_frames=length, height=32, width=40, seed=length)
    return str(folder)


def set_speeds(monkeypatch: pytest.MonkeyPatch, bf16: float, reading: float, fp32: float = 0) -> None:
    """Set the clips per second that the recipe measures, on a CPU that has hardware for bf16."""
    monkeypatch.setattr(own, "choose_compute", lambda _, precision: Compute(torch.device("cpu"), precision != "fp32"))
    monkeypatch.setattr(own, "_training", lambda _batch, _config, compute: bf16 if compute.bf16 else fp32)
    monkeypatch.setattr(own, "_reading", lambda *_: (reading, 1, None))


@pytest.mark.parametrize(
    ("lengths", "task", "short"), [((40,), "v3s", None), ((25,), "v3s-short", None), ((16, 25), "v3s-short", "fit")]
)
def test_nearly_every_video_is_used(tmp_path: Path, lengths: tuple[int, ...], task: str, short: str | None) -> None:
    chosen, text = choose({"data": videos(tmp_path, *lengths)})
    assert (chosen["task"], chosen.get("short"), chosen["clip_frames"]) == (task, short, 8)
    assert chosen.items() >= BASE.items()
    assert (chosen["width"], chosen["clip_size"]) == (0.25, 56)  # on a CPU
    config = PretrainConfig(data="", out="", **chosen)
    num_train = 10 * len(lengths) - chosen["validation_videos"]
    assert 0 < chosen["validation_videos"] <= 0.2 * 10 * len(lengths)
    clips = config.epochs * 2 * num_train
    assert abs(clips - 200_000) <= 2 * num_train
    assert f"{clips:,} clips, about" in text
    assert "usable" not in text  # the training says it, once
    assert " s is not much video" in text


def test_what_is_given_stays_and_is_reckoned_with(tmp_path: Path) -> None:
    data = videos(tmp_path, 25)
    given: dict[str, Any] = {"data": data, "width": 0.125, "clip_frames": 4, "epochs": 3, "contrast": 0.25}
    chosen, text = choose(given)
    assert not given.keys() & chosen.keys()
    assert "--epochs" not in text
    assert "--width" not in text
    PretrainConfig(out="", **chosen, **given)


def test_the_shortest_clip_is_that_of_the_given_seam(tmp_path: Path) -> None:
    given = {"data": videos(tmp_path, 25, 40), "task": "tp", "clip_frames": 9, "seam": "second"}
    chosen, text = choose(given)
    assert chosen["short"] == "fit"
    assert f"of {TASKS['tp'].shortest_span(9, 'second')} frames or more" in text


@pytest.mark.parametrize(
    ("given", "lengths", "choice"),
    [
        ({"clip_frames": 16}, (60,), ("task", "v3s-short")),  # needs 46 frames, v3s 69
        ({"task": "v3s"}, (25, 40), ("short", "fit")),  # needs 33 frames
        ({"validation_videos": 4}, (40,), ("validation_clips", 1)),  # half as many as the others have, or one
    ],
)
def test_what_is_given_decides_on_the_rest(
    tmp_path: Path, given: dict[str, Any], lengths: tuple[int, ...], choice: tuple[str, Any]
) -> None:
    chosen, _ = choose({"data": videos(tmp_path, *lengths), **given})
    assert choice in chosen.items()


def test_the_time_limits_the_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_speeds(monkeypatch, 1000, 1200)
    data = videos(tmp_path, 40)
    epochs = [choose({"data": data, "width": 0.125, "clip_size": 16}, minutes)[0]["epochs"] for minutes in (0.5, 5)]
    assert 9.5 < epochs[1] / epochs[0] < 10.5
    assert choose({"data": data, "width": 0.125, "clip_size": 16}, 0.01)[0]["minutes"] == 0.01


@pytest.mark.parametrize(("length", "each"), [(25, 24), (25 * 61, 1)])  # a batch that is dropped; a gap in time
def test_the_training_has_the_clips_that_were_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, length: int, each: int
) -> None:
    monkeypatch.setattr(own, "_CLIPS", 70)
    words = ["--width=0.125", "--clip-size=16", "--workers=0", "--device=cpu", "--statistics-clips=0"]
    data = videos(tmp_path / "videos", length, each=each)
    assert main(["pretrain", data, "--recipe", "own", "--out", str(tmp_path / "run"), *words]) == 0
    text = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    planned, done = re.search(r"([\d,]+) clips, about", text), re.search(r"([\d,]+) training clips in all", text)
    assert planned is not None
    assert done is not None
    assert planned[1] == done[1]
    assert each == 1 or planned[1] == "64"  # twice 20 videos, in batches of 32


def test_the_minutes_that_it_names_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_speeds(monkeypatch, 100, 120)
    data = videos(tmp_path, 40)
    _, text = choose({"data": data}, 3)
    found = re.search(r"60,000 are needed to rise above chance; give --minutes (\d+)", re.sub(r"[│\s]+", " ", text))
    assert found is not None
    assert 10 <= int(found[1]) <= 15  # 60,000 clips at 100 a second, and validation
    assert "to rise above chance" not in choose({"data": data}, float(found[1]))[1]


@pytest.mark.parametrize(
    ("fp32", "given", "chosen"), [(150, {}, "fp32"), (105, {}, None), (150, {"precision": "bf16"}, None)]
)
def test_a_cpu_that_is_faster_in_fp32_trains_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fp32: float, given: dict[str, Any], chosen: str | None
) -> None:
    set_speeds(monkeypatch, 100, 1000, fp32)
    found, text = choose({"data": videos(tmp_path, 40), **given}, 5)
    assert found.get("precision") == chosen
    assert f"{150 if chosen else 100:,} clips/s here, limited by the network" in re.sub(r"[│\s]+", " ", text)


def test_recordings_are_cut_into_segments_that_overlap_where_they_are_few(tmp_path: Path) -> None:
    data = videos(tmp_path, 25 * 61, each=1)
    chosen, text = choose({"data": data})
    assert chosen["segment"] == 4
    assert 0.5 <= chosen["segment_stride"] < 4
    assert "half of the time is in videos of 0:01:01.0 or more" in text
    assert "--segment-stride" in text
    chosen, text = choose({"data": data, "segment": 2.0, "segment_stride": 0.5})
    assert "segment_stride" not in chosen
    assert "1.0 min is not much video" in text, "what overlaps counts once"


def test_recordings_among_many_short_videos_are_cut(tmp_path: Path) -> None:
    videos(tmp_path, 25 * 61, each=1)
    data = videos(tmp_path, 40, each=4)  # more of them, but most of the time is in the others
    assert choose({"data": data})[0]["segment"] == 4


def test_videos_that_do_not_do_end_with_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = videos(tmp_path / "one", 40, each=1)
    assert main(["pretrain", data, "--recipe", "own", "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err.startswith("error: 1 video of 1 that can be read has the ")
    assert main(["pretrain", str(tmp_path / "none"), "--recipe", "own", "--out", str(tmp_path / "run")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_wrong_words(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    data = videos(tmp_path, 40, each=2)
    for words, message in (
        (["--minutes", "5"], "error: --minutes is 5; it needs --recipe own\n"),
        (["--recipe", "own", "--minutes", "0"], "error: --minutes is 0; it must be more than 0\n"),
        (["--recipe", "v3s-plus", "--minutes", "5"], "needs --recipe own"),
    ):
        assert main(["pretrain", data, "--out", "run", *words]) == 2
        assert message in capsys.readouterr().err
    assert main(["pretrain", "--recipe", "own", "--out", "run"]) == 2
    assert "--data" in capsys.readouterr().err
    assert main(["pretrain", data, "--recipe", "own"]) == 2
    assert "--out is required" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="run it once without torchrun"):
        read_config("pretrain", PretrainConfig, [data, "--recipe", "own", "--out", "run"])


def test_a_folder_that_is_taken_is_refused_before_a_video_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("the videos were read")

    monkeypatch.setattr(own, "_scan", read)
    words = ["pretrain", videos(tmp_path / "videos", 40, each=2), "--recipe", "own", "--out", str(tmp_path / "run")]
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("task: v3s\nepochs: 3\n")
    assert main(words) == 1
    assert "already contains a run; resume it with --resume" in capsys.readouterr().err
    with pytest.raises(AssertionError, match="the videos were read"):
        main([*words, "--overwrite"])
    (tmp_path / "run/config.yaml").rename(tmp_path / "run/notes")
    assert main([*words, "--overwrite"]) == 1
    assert "is not empty and contains no run" in capsys.readouterr().err


def test_a_run_by_this_recipe_resumes_with_its_own_options(tmp_path: Path) -> None:
    data, run = videos(tmp_path, 25), tmp_path / "run"
    words = ["pretrain", data, "--recipe", "own", "--out", str(run), "--width", "0.125", "--clip-size", "16"]
    assert main([*words, "--epochs", "2", "--workers", "0", "--device", "cpu"]) == 0
    before = (run / "config.yaml").read_text()
    assert "task: v3s-short" in before
    assert main(["pretrain", "--out", str(run), "--resume"]) == 0
    assert main([*words, "--resume"]) == 0  # nothing is chosen anew
    assert (run / "config.yaml").read_text() == before


def test_recipes_from_python(tmp_path: Path) -> None:
    options = v3s.recipe("own", data=videos(tmp_path, 25), out="run", width=0.125, device="cpu")
    config = v3s.PretrainConfig(**options)
    assert (config.width, config.task, config.contrast) == (0.125, "v3s-short", 0.5)
    assert v3s.recipe("ucf101-c3d", epochs=7) == RECIPES["ucf101-c3d"] | {"epochs": 7}
    with pytest.raises(TypeError, match="minutes is '2', of type str; it must be a number or None"):
        v3s.recipe("own", data="videos", minutes="2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no recipe is called 'owm' \(did you mean 'own'\?\); available: ucf101-c3d"):
        v3s.recipe("owm")
