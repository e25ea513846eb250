"""Scores of a pre-trained model: counted by hand, and on real runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from v3s import EvaluateConfig, PretrainConfig, pretrain
from v3s.evaluate import evaluate, score_head

QUIET = Console(quiet=True)


def test_scores_by_hand() -> None:
    truth, answers, videos = (np.array(row) for row in ([0, 0, 1, 2], [0, 1, 1, 0], [0, 0, 1, 1]))
    scores = score_head(("a", "b", "c"), "class", truth, answers, videos)
    assert scores.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert scores.accuracy == 0.5
    assert scores.standard_error == 0  # both videos have one hit of two
    assert scores.chance == pytest.approx(1 / 3)


def test_same_clips_same_scores_and_none_is_lost(small_videos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = PretrainConfig(
        data=str(small_videos), out=str(run), backbone="r3d", width=0.125, task="ts", clip_frames=8, clip_size=32,
        epochs=1, batch_size=4, workers=0,
    )  # fmt: skip
    pretrain(config, console=QUIET)
    asked = EvaluateConfig(
        data=str(small_videos), backbone=str(run), clips=3, workers=0, batch_size=7, out=str(tmp_path / "scores.json")
    )
    first, second = evaluate(asked, console=QUIET), evaluate(asked, console=QUIET)
    assert (first.num_videos, first.num_clips, first.temporal.confusion.sum()) == (16, 48, 48)
    assert (first.temporal.confusion == second.temporal.confusion).all()
    assert json.loads((tmp_path / "scores.json").read_text())
