"""Scores of a pre-trained model: counted by hand, and on real runs."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from v3s import TASKS, EvaluateConfig, PretrainConfig, pretrain
from v3s.commands.evaluate import evaluate
from v3s.commands.scores import chance, score_head
from v3s.data.clips import PretextClips
from v3s.pages.images import mp4
from v3s.pretext.plan import draw_labels

QUIET = Console(quiet=True)


def test_scores_by_hand() -> None:
    truth, answers, videos = (np.array(row) for row in ([0, 0, 1, 2], [0, 1, 1, 0], [0, 0, 1, 1]))
    scores = score_head(("a", "b", "c"), "class", truth, answers, videos)
    assert scores.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert scores.accuracy == 0.5
    assert scores.standard_error == 0  # both videos have one hit of two
    assert scores.chance == pytest.approx(1 / 3)
    assert (scores.num_groups, scores.most_frequent_answer, scores.one_answer) == (2, 0.5, None)
    assert not scores.is_above_chance  # two videos show nothing


def test_clips_of_one_video_are_not_independent_draws() -> None:
    """Two videos, one always right and one never: the standard error is that of two draws, not of twenty."""
    truth, videos = np.zeros(20, int), np.repeat([0, 1], 10)
    answers = videos.copy()
    scores = score_head(("a", "b"), "class", truth, answers, videos)
    assert scores.accuracy == 0.5
    assert scores.standard_error == pytest.approx(0.5)
    alone = score_head(("a", "b"), "class", truth, answers, np.zeros(20, int))
    assert alone.standard_error == pytest.approx(np.sqrt(0.25 / 19))


def test_heads_at_chance_are_seldom_called_better() -> None:
    """At most at the level of the test, 1 %, also if clips of a video share their luck; a good head always."""
    generator, videos, called = np.random.default_rng(0), np.repeat(np.arange(12), 4), 0
    for _ in range(400):
        truth = generator.permutation(np.arange(48) % 6)
        favourites = generator.integers(6, size=12)[videos]  # one answer for each video
        answers = np.where(generator.random(48) < 0.5, favourites, generator.integers(6, size=48))
        called += score_head(tuple("abcdef"), "class", truth, answers, videos).is_above_chance
    assert called <= 10
    assert score_head(tuple("abcdef"), "class", truth, truth, videos).is_above_chance


def test_one_answer_to_everything_is_said(asked: EvaluateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def constant(model: Any, loader: Any, compute: Any) -> tuple[Any, Any]:
        truth = np.concatenate([labels[:, :2].numpy() for _, labels in loader])
        return np.ones_like(truth) * [0, 2], truth

    monkeypatch.setattr("v3s.commands.evaluate.predict_labels", constant)
    console = Console(file=io.StringIO(), width=200)
    scores = evaluate(asked, console=console)
    assert scores.temporal.accuracy == pytest.approx(1 / 3)  # 16 of 48 clips: labels are balanced
    assert scores.temporal.confusion.sum(axis=1).tolist() == [16, 16, 16]
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "temporal head: answers 'speed 3' to everything" in shown
    assert "spatial head: answers" not in shown  # it has one label


def test_groups_of_videos_are_the_unit(asked: EvaluateConfig) -> None:
    """Videos of a group are right and wrong together: the error grows, and fewer than four groups show nothing."""
    alone, grouped = (evaluate(replace(asked, group=group), console=QUIET).temporal for group in (None, "^."))
    assert (alone.confusion == grouped.confusion).all()
    assert alone.num_groups == 16
    assert grouped.num_groups == len({path.name[0] for path in Path(asked.data).iterdir() if path.is_dir()})
    truth = np.arange(48) % 6
    for num_groups, is_shown in ((3, False), (12, True)):
        head = score_head(tuple("abcdef"), "class", truth, truth, np.arange(48) % num_groups)
        assert (head.num_groups, head.is_above_chance) == (num_groups, is_shown)
    with pytest.raises(ValueError, match="group is 'xyz', which does not match 17 of 17 paths"):
        evaluate(replace(asked, group="xyz"), console=QUIET)


def test_the_most_frequent_row_to_everything_is_not_above_chance() -> None:
    truth = np.repeat([0, 1, 2], [80, 10, 10])
    head = score_head(tuple("abc"), "class", truth, np.zeros(100, int), np.arange(100))
    assert head.accuracy == 0.8
    assert not head.is_above_chance


def test_clips_of_a_few_groups_show_less_than_as_many_independent_ones() -> None:
    """Of eight groups, all clips of four are right: an accuracy of a half, against a sixth, can be luck."""
    truth = np.arange(480) % 6
    answers = np.where(np.arange(480) < 240, truth, (truth + 1) % 6)
    for groups, is_shown in ((np.arange(480) // 60, False), (np.arange(480), True)):
        assert score_head(tuple("abcdef"), "class", truth, answers, groups).is_above_chance == is_shown


def test_chance_is_the_share_of_the_most_frequent_row() -> None:
    task, generator = TASKS["v3s"], np.random.default_rng(0)
    drawn = [draw_labels(task, "family", generator) for _ in range(6000)]
    for head, rows in (("spatial", task.spatial), ("temporal", task.temporal)):
        most = np.bincount([getattr(labels, head) for labels in drawn]).max() / len(drawn)
        assert chance(rows, "family") == pytest.approx(most, abs=0.02)
        assert chance(rows, "class") == 1 / len(rows)


@pytest.fixture(scope="module")
def asked(small_videos: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluateConfig:
    """A small model, and a folder with one file that cannot be read."""
    folder = tmp_path_factory.mktemp("evaluate")
    shutil.copytree(small_videos, folder / "videos")
    (folder / "videos" / "empty.mp4").touch()
    return EvaluateConfig(
        data=str(folder / "videos"), backbone=str(pretrained), clips=3, workers=0, out=str(folder / "scores.json")
    )


def test_same_clips_same_scores_and_none_is_lost(asked: EvaluateConfig) -> None:
    first, second = (evaluate(replace(asked, batch_size=size), console=QUIET) for size in (7, 48))
    assert (first.num_videos, first.num_clips, first.temporal.confusion.sum()) == (16, 48, 48)
    assert (first.temporal.confusion == second.temporal.confusion).all()


def test_videos_that_the_network_was_trained_on_are_counted(asked: EvaluateConfig, tmp_path: Path) -> None:
    """By content: copies under other names count, and a new video does not."""

    def said(data: Path) -> str:
        printed = io.StringIO()
        evaluate(replace(asked, data=str(data), out=None), console=Console(file=printed, width=1000))
        return printed.getvalue()

    assert f"the run {asked.backbone} was trained or validated on 16 of the 16 videos, so" in said(Path(asked.data))
    seen = next(Path(asked.data).glob("*/*.mp4"))
    shutil.copy(seen, tmp_path / "copy.mp4")
    frames = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)
    (tmp_path / "new.mp4").write_bytes(mp4(torch.from_numpy(frames), 8))
    assert "was trained or validated on 1 of the 2 videos, so" in said(tmp_path)
    (tmp_path / "copy.mp4").unlink()
    assert "was trained" not in said(tmp_path)


def test_a_file_of_scores_contains_what_was_scored(asked: EvaluateConfig) -> None:
    scores = evaluate(asked, console=QUIET)
    stored = json.loads(Path(str(asked.out)).read_text())
    for name, head in (("spatial", scores.spatial), ("temporal", scores.temporal)):
        confusion = np.array(stored[name]["confusion"])
        assert (confusion == head.confusion).all()
        assert stored[name]["accuracy"] == np.trace(confusion) / confusion.sum()
        assert stored[name]["labels"] == list(head.labels)
    assert list(stored["left_out"]) == ["empty.mp4"]


def test_bars_are_trimmed_as_in_training(
    small_pretraining: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(4):
        film = np.random.default_rng(number).integers(40, 255, (12, 48, 64, 3), np.uint8)
        film[:, :8], film[:, -8:] = 0, 0
        (tmp_path / f"videos/{number}.mp4").write_bytes(mp4(film, 25))
    run = replace(
        small_pretraining, data=str(tmp_path / "videos"), out=str(tmp_path / "run"), task="ss", epochs=1, batch_size=2,
        validation_videos=1, trim_bars=True,
    )  # fmt: skip
    pretrain(run, console=QUIET)
    given = []

    def noted(*arguments: Any, **options: Any) -> PretextClips:
        given.append(PretextClips(*arguments, **options))
        return given[0]

    monkeypatch.setattr("v3s.commands.evaluate.PretextClips", noted)
    evaluate(EvaluateConfig(data=run.data, backbone=run.out, clips=1, workers=0), console=QUIET)
    bars = given[0].bars
    assert bars is not None
    assert (bars[:, [1, 3]] >= 8).all()
    assert (bars[:, [0, 2]] == 0).all()


@pytest.mark.parametrize("name", ["clips", "batch_size"])
def test_wrong_numbers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0"):
        EvaluateConfig(data="videos", backbone="run", **{name: 0})  # type: ignore[arg-type]
