"""The paper's tables: their numbers, a row from videos to table, and that nothing finished is run again."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.study_tables import PAPER_RECOGNITION
from v3s.cli import read_config
from v3s.commands import reproduce as module
from v3s.commands.paper_tables import TABLES
from v3s.commands.reproduce import SCALES, ReproduceConfig, reproduce
from v3s.pretext.task import TASKS

QUIET = Console(quiet=True)


@pytest.fixture
def config(labelled_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReproduceConfig:
    """12 training and 6 test videos of 6 classes, 20 frames each: long enough for spatial tasks."""
    monkeypatch.setattr("v3s.data.scan.default_workers", lambda: 0)
    small = replace(SCALES["tiny"], pretrain_epochs=1, finetune_epochs=1, pairs_in_a_fold=8, clip_size=32)
    monkeypatch.setitem(SCALES, "tiny", small)
    return ReproduceConfig(
        table="table3", data=str(labelled_videos), out=str(tmp_path / "out"), scale="tiny", workers=0, device="cpu"
    )


def refuse_all_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("was run again")

    for name in ("pretrain", "finetune", "retrieve", "similarity"):
        monkeypatch.setattr(module, name, refuse)


def test_numbers_of_the_paper_are_the_same_everywhere() -> None:
    for table in ("table2", "table3"):
        for row in TABLES[table].rows:
            assert PAPER_RECOGNITION[row.backbone, row.task or "random"] == row.paper[0]
    best = {"ss": 73.2, "sp": 73.7, "ts": 76.4, "tp": 77.0}
    for name, score in best.items():
        same = [row.paper[0] for row in TABLES["table1"].rows if TASKS[row.task or ""] == TASKS[name]]
        assert same == [score]


def test_every_row_has_a_task_and_a_score_for_each_column() -> None:
    for table in TABLES.values():
        columns = len(module._score_names(table.trials))
        assert all(len(row.paper) == columns and (row.task is None or row.task in TASKS) for row in table.rows)


def test_a_row_is_run_once_and_tables_share_it(config: ReproduceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    given = replace(config, rows="ss+sp")
    path = reproduce(given, console=QUIET)
    written = json.loads(path.read_text())
    (row,) = written["rows"]
    assert (row["name"], row["paper"], written["scores"]) == ("ss+sp", [73.8], ["UCF101"])
    result = json.loads((path.parent / "finetune-ucf101/r2plus1d-ss+sp/result.json").read_text())
    assert row["ours"][0]["scores"] == [100 * result["top_1"]]
    assert row["ours"][0]["chance"] == [pytest.approx(100 / 6)]
    assert (result["num_train"] + result["num_validation"], result["num_test"]) == (12, 6)
    refuse_all_work(monkeypatch)
    console = Console(file=StringIO(), width=200)
    assert reproduce(given, console=console) == path
    assert json.loads(path.read_text()) == written
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert "pretrain epochs: 1; the paper: 300" in text
    assert "12 videos in 6 classes" in text
    with pytest.raises(ValueError, match="contains rows with other seed"):
        reproduce(replace(given, seed=1), console=QUIET)


def test_results_on_other_videos_are_refused(config: ReproduceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = replace(config, table="table6")
    listed = replace(drawn, aslan=config.data, aslan_pairs="lists")
    two_columns = replace(config, table="table2", hmdb51=config.data, hmdb51_splits="lists")
    refuse_all_work(monkeypatch)
    for given, other in ((drawn, listed), (two_columns, replace(two_columns, hmdb51_splits="other"))):
        module._open(given, QUIET)
        with pytest.raises(ValueError, match=f"contains rows with other {TABLES[given.table].trials[-1][1]}; choose"):
            reproduce(other, console=QUIET)
        module._open(replace(config, table="table2"), QUIET)  # its column is left out
        module._open(given, QUIET)
    monkeypatch.chdir(Path(config.data).parent)
    for same in (f"{config.data}/", Path(config.data).name):  # written in another way
        module._open(replace(two_columns, hmdb51=same), QUIET)


def test_tasks_of_one_table_are_rows_of_another(config: ReproduceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    reproduce(replace(config, table="table1", rows="ss-1.45"), console=QUIET)
    refuse_all_work(monkeypatch)
    monkeypatch.setitem(TABLES, "table3", replace(TABLES["table3"], rows=TABLES["table3"].rows[:1]))
    assert reproduce(config, console=QUIET).name == "table3.json"


def test_retrieval_and_similarity_of_untrained_and_trained(
    config: ReproduceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a spatial task in place of the paper's, which is too long for these videos."""
    for name in ("table4", "table6"):
        rows = tuple(replace(row, task=row.task and "ss") for row in TABLES[name].rows if row.backbone == "r3d")
        monkeypatch.setitem(TABLES, name, replace(TABLES[name], rows=rows))
    out = Path(config.out)
    table4 = json.loads(reproduce(replace(config, table="table4"), console=QUIET).read_text())
    assert [row["task"] for row in table4["rows"]] == [None, "ss"]
    assert all(len(row["ours"][0]["scores"]) == 5 for row in table4["rows"])
    table6 = json.loads(reproduce(replace(config, table="table6"), console=QUIET).read_text())
    assert "16 pairs of" in table6["rows"][0]["ours"][0]["videos"]
    assert [path.name for path in (out / "pretrain").iterdir()] == ["r3d-ss"]
    assert sorted(path.name for path in (out / "retrieve-ucf101").iterdir()) == ["r3d-random", "r3d-ss"]


def test_mistakes(config: ReproduceConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="table is 'table7'; it must be one of table1"):
        replace(config, table="table7")
    with pytest.raises(ValueError, match="table5 is on HMDB51"):
        replace(config, table="table5")
    with pytest.raises(ValueError, match=r"no row of table3 contains 'x'; its rows are: ss; sp"):
        replace(config, rows="x")
    with pytest.raises(ValueError, match="but its lists are missing"):
        reproduce(replace(config, table="table6", aslan=config.data), console=QUIET)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and does not contain a reproduction"):
        reproduce(replace(config, out=str(tmp_path / "mine")), console=QUIET)


def test_on_the_command_line() -> None:
    config = read_config("reproduce", ReproduceConfig, ["table3", "--data", "videos", "--scale", "tiny"])
    assert (config.table, config.scale) == ("table3", "tiny")
