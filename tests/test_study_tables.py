"""Tables of a study: numbers by hand, from files as the commands write them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.study_tables import group_runs, spread, study_table
from v3s import PretrainConfig, pretrain

QUIET = Console(quiet=True)


def table(study: Path, name: str, charts: Path | None = None) -> list[list[str]]:
    """The cells of a table, its header first."""
    header, _, *lines = (
        line for line in study_table(study, name, charts or study).splitlines() if line.startswith("| ")
    )
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in (header, *lines)]


def write_retrieval(run: Path, top_1: float) -> None:
    shares = {str(k): top_1 for k in (1, 5, 10, 20, 50)}
    run.mkdir(exist_ok=True)
    values = {"accuracy": shares, "chance": dict.fromkeys(shares, 0.05)}
    values |= {"mean_average_precision": 0.2, "chance_precision": 0.06}  # type: ignore[dict-item]
    (run / "retrieve.json").write_text(json.dumps(values))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for name, top_1 in {
        "r3d-random-0": 0.1,
        "r3d-random-1": 0.14,
        "r3d-v3s-0": 0.2,
        "r3d-v3s-1": 0.3,
        "r3d-v3s-plus-0": 0.4,
    }.items():
        write_retrieval(tmp_path / name, top_1)
    (tmp_path / "r3d-v3s-plus-1").mkdir()
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_groups_are_in_the_papers_order_and_rows_may_have_dashes(study: Path) -> None:
    groups = group_runs(study)
    assert list(groups) == [("r3d", "random"), ("r3d", "v3s"), ("r3d", "v3s-plus")]
    assert [run.seed for run in groups["r3d", "v3s-plus"]] == [0, 1]


def test_retrieval_by_hand(study: Path) -> None:
    header, random, v3s, plus, chance = table(study, "retrieval")
    assert header[:3] == ["network", "row", "top 1"]
    assert header[-3:] == ["over random", "paper (all of UCF101)", "seeds"]
    assert random[2] == "12.0 ± 2.8 %"
    assert random[-3:] == ["", "9.9", "2"]
    assert v3s[2] == "25.0 ± 7.1 %"
    assert v3s[-3:] == ["+13.0", "28.3", "2"]
    assert plus[2] == "40.0 %"
    assert plus[-3:] == ["+28.0", "", "1"]
    assert chance[1:4] == ["chance", "5.0%", "5.0%"]


def test_a_lead_has_an_error_over_groups_of_paired_videos_and_over_seeds(tmp_path: Path) -> None:
    videos, groups = ["a1", "a2", "b1", "c1"], [0, 0, 1, 2]
    hits = {
        "r3d-random-0": [False, False, True, False],
        "r3d-v3s-0": [True, True, True, False],
        "r3d-v3s-1": [True, True, False, True],
    }
    for name, own in hits.items():
        write_retrieval(tmp_path / name, sum(own) / 4)
        file = tmp_path / name / "retrieve.json"
        values = json.loads(file.read_text()) | {"hits": own, "test_videos": videos, "test_groups": groups}
        file.write_text(json.dumps(values))
    _, _, v3s, _ = table(tmp_path, "retrieval")
    # differences of the videos, both seeds averaged: 1, 1, -0.5, 0.5; their mean 0.5; sums of the groups 1, -1, 0
    assert v3s[-3] == f"+50.0 ± {100 * (3 / 2 * 2) ** 0.5 / 4:.1f}"
    other = json.loads((tmp_path / "r3d-random-0" / "retrieve.json").read_text()) | {"test_videos": ["x", *videos[1:]]}
    (tmp_path / "r3d-random-0" / "retrieve.json").write_text(json.dumps(other))
    assert table(tmp_path, "retrieval")[2][-3] == "+50.0"  # other videos: not paired


def test_runs_without_the_file_are_named(study: Path) -> None:
    text = study_table(study, "retrieval")
    assert text.endswith("Without retrieve.json so far: r3d-v3s-plus-1.")


def test_spread_is_the_sample_deviation_over_seeds() -> None:
    assert spread([0.1, 0.2, 0.3]) == "20.0 ± 10.0 %"
    assert spread([0.1234]) == "12.3 %"
    assert spread([float("nan"), 0.5]) == "-"


def test_heads_of_random_weights_or_of_one_label_are_not_evaluated(study: Path) -> None:
    spatial, temporal = {"accuracy": 1.0, "chance": 1.0}, {"accuracy": 0.5, "chance": 0.25}
    for seed in (0, 1):
        folder = study / f"r3d-v3s-{seed}"
        (folder / "evaluate.json").write_text(json.dumps({"spatial": spatial, "temporal": temporal}))
    _, row = table(study, "pretext")
    assert row == ["r3d", "v3s", "-", "-", "50.0 ± 0.0 %", "25.0 %", "2"]
    (study / "r3d-random-default-0").mkdir()
    text = study_table(study, "pretext")
    assert text.endswith("Without evaluate.json so far: r3d-v3s-plus-0, r3d-v3s-plus-1.")


def test_top_5_of_few_classes_is_a_dash(tmp_path: Path) -> None:
    (tmp_path / "r3d-v3s-0/finetune").mkdir(parents=True)
    result = {"top_1": 0.5, "top_5": None, "chance": 0.25}
    (tmp_path / "r3d-v3s-0/finetune/result.json").write_text(json.dumps(result))
    assert table(tmp_path, "recognition")[1][:4] == ["r3d", "v3s", "50.0 %", "-"]


@pytest.mark.parametrize("name", ["probe", "recognition", "budget", "curves", "pixels"])
def test_missing_results_are_reported(study: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"no run of the study has|pixels\.json does not exist"):
        table(study, name)


def test_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not contain runs"):
        table(tmp_path / "absent", "retrieval")


def test_budget_and_curves_of_real_runs(small_pretraining: PretrainConfig, tmp_path: Path) -> None:
    study = tmp_path / "study"
    for seed in (0, 1):
        pretrain(replace(small_pretraining, out=str(study / f"r3d-ts-{seed}"), seed=seed), console=QUIET)
    _, row = table(study, "budget")
    assert row[:9] == ["r3d", "ts", "0.125", "8x32x32", "2", "4", "0.005", "12", "24"]
    assert row[-1] == "0, 1"
    shown = study_table(study, "curves", tmp_path / "charts")
    assert shown.endswith("(r3d-temporal.svg)")  # the spatial head has one row: nothing to draw
    assert [file.name for file in (tmp_path / "charts").iterdir()] == ["r3d-temporal.svg"]
