"""Gains over random weights against clips seen: numbers by hand, from files as the commands write them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.study_gain import draw_gains, gain_table, gains
from benchmarks.study_tables import clips_seen, group_runs
from v3s import PretrainConfig, pretrain

QUIET = Console(quiet=True)


def write_retrieval(run: Path, hits: list[bool]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    values = {"accuracy": {"1": sum(hits) / len(hits)}, "hits": hits}
    more = {"test_videos": ["a", "b", "c", "d"], "test_groups": [0, 0, 1, 2]}
    (run / "retrieve.json").write_text(json.dumps(values | more))


def test_gains_by_hand(small_pretraining: PretrainConfig, tmp_path: Path) -> None:
    """One random baseline serves all budgets; two clips of a video in an epoch count twice."""
    for number, (study, config) in enumerate(
        {
            "short": replace(small_pretraining, epochs=1),
            "long": replace(small_pretraining, epochs=2, clips_together=2, contrast=0.5),
        }.items()
    ):
        run = tmp_path / study / "r3d-v3s-0"
        pretrain(replace(config, out=str(run)), console=QUIET)
        write_retrieval(run, [True, True, bool(number), False])
    write_retrieval(tmp_path / "short" / "r3d-random-0", [False, True, False, False])
    found = gains([tmp_path / "long", tmp_path / "short"])
    assert [(gain.row, gain.clips, gain.num_seeds) for gain in found] == [("v3s", 12, 1), ("v3s", 48, 1)]
    assert [gain.leads["retrieval"][0] for gain in found] == pytest.approx([0.25, 0.5])
    # differences of the videos: 1, 0, 0, 0 with the mean 1/4; sums of the groups less it: 1/2, -1/4, -1/4
    assert found[0].leads["retrieval"][1] == pytest.approx((3 / 2 * (1 / 4 + 1 / 16 + 1 / 16)) ** 0.5 / 4)
    assert "| r3d | v3s | 48 |  | +50.0" in gain_table(found)
    (file,) = draw_gains(found, tmp_path)
    assert file.name == "gain-retrieval.svg"
    assert "retrieval: gain over random weights" in file.read_text()
    assert clips_seen(group_runs(tmp_path / "long")["r3d", "v3s"][0]) == 48


def test_without_random_weights_there_is_no_gain(tmp_path: Path) -> None:
    write_retrieval(tmp_path / "r3d-v3s-0", [True] * 4)
    with pytest.raises(ValueError, match="no trained run can be compared with random weights in"):
        gains([tmp_path])
