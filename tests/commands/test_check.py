"""``check`` prints what a user must know before training, and writes down every file."""

import dataclasses
import io
import json
import re
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from rich.console import Console

from v3s.commands.check import CheckConfig, check
from v3s.commands.pretrain import PretrainConfig, pretrain
from v3s.data.lists.splits import VideoOptions
from v3s.data.synthetic import make_clips
from v3s.data.usable import usable_videos
from v3s.files.writing import SaveError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_settings_for_short_videos_are_shown_by_check_and_by_pretrain(tmp_path: Path) -> None:
    make_clips(tmp_path / "short", num_videos=2, num_frames=24, height=32, width=32)
    make_clips(tmp_path / "long", num_videos=1, num_frames=40, height=32, width=32)
    for chosen, run in (
        (
            "--task v3s --clip-frames 16",
            lambda console: check(CheckConfig(data=str(tmp_path), workers=0), console=console),
        ),
        (
            "these settings",
            lambda console: pretrain(PretrainConfig(data=str(tmp_path), out=str(tmp_path / "run")), console=console),
        ),
    ):
        console = Console(file=io.StringIO(), width=120)
        with suppress(ValueError):
            run(console)
        assert re.search(rf"{chosen} +│ +69 │ +0 of 3", printed(console))
        assert not re.search(r"│ +51 │", printed(console)), "clips of 12 frames would use no more"
        assert re.search(r"--clip-frames 8 +│ +33 │ +1 of 3", printed(console))
        assert re.search(r"--task v3s-short --clip-frames 8 +│ +22 │ +3 of 3", printed(console))
    with pytest.raises(ValueError, match="the task needs 69; the table shows which settings use more videos"):
        pretrain(PretrainConfig(data=str(tmp_path), out=str(tmp_path / "run")), console=Console(quiet=True))


def test_settings_that_would_use_no_more_videos_are_not_shown(tmp_path: Path, console: Console) -> None:
    make_clips(tmp_path / "short", num_videos=1, num_frames=8, height=32, width=32)
    make_clips(tmp_path / "long", num_videos=2, num_frames=69, height=32, width=32)
    check(CheckConfig(data=str(tmp_path), workers=0), console=console)
    listed = VideoOptions(data=str(tmp_path)).list_videos()
    found = usable_videos(listed, min_frames=69, console=console, shorter={"--clip-frames 8": 33})
    assert found.counts["too_short"] == 1
    assert "other settings" not in printed(console)
    assert "--recipe own" not in printed(console)


def test_check_of_a_mixed_folder(shared: Path, tmp_path: Path, console: Console) -> None:
    data = tmp_path / "data"
    (data / "bow [b]").mkdir(parents=True)
    for name in ("v_Archery_g01_c01.avi", "v_Archery_g05_c04.avi"):
        shutil.copy(shared / "data/UCF-101/Archery" / name, data / "bow [b]" / name)
    (data / "text.mp4").write_text("not a video")
    out = tmp_path / "new/report.jsonl"
    result = check(CheckConfig(data=str(data), out=str(out), workers=0), console=console)
    assert result.num_usable == 1
    text = printed(console)
    for expected in (
        "3 videos in 1 class",
        "usable 1 file,",
        "too short 1 file,",
        "unreadable 1 file classes",
        "classes 1",
        "sizes 176x132 (2)",
        "codecs h264 (2)",
        "shortest 51",
        "unreadable: text.mp4: is not a video",
        "too short: bow [b]/v_Archery_g05_c04.avi: 51 frames; the task needs 69",
    ):
        assert expected in " ".join(text.split()), expected
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines == [dataclasses.asdict(report) for report in result.reports]
    assert {"path", "verdict", "reason", "frames", "height", "width", "fps", "codec"} <= set(lines[0])
    assert [path.name for path in out.parent.iterdir()] == ["report.jsonl"]


def test_check_names_what_is_odd_and_usable(shared: Path, tmp_path: Path, console: Console) -> None:
    data = tmp_path / "data"
    data.mkdir()
    cases = shared / "data/cases"
    for case in ("12-vfr/pauses.mp4", "14-fps/black.mp4", "04-raw-avi/ffv1_12in16.mkv", "03-mirror/plain.mp4"):
        shutil.copy(cases / case, data)
    (data / "notes.txt").touch()
    check(CheckConfig(data=str(data), workers=0), console=console)
    text = printed(console)
    for expected in (
        "4 videos without labels; skipped: 1 file without a video's file extension (1 .txt)",
        "note: black.mp4: black throughout",
        "note: pauses.mp4: its rate varies: 1.949 frames per second on average",
        "note: ffv1_12in16.mkv: values from 4 to 4090 are shown as black to white",
    ):
        assert expected in " ".join(text.split()), expected
    assert "note: plain.mp4" not in text


def test_check_shows_twenty_bad_files_and_says_where_the_others_are(tmp_path: Path, console: Console) -> None:
    for number in range(23):
        (tmp_path / f"{number:02}.mp4").touch()
    assert check(CheckConfig(data=str(tmp_path), workers=0), console=console).num_usable == 0
    text = printed(console)
    assert text.count("unreadable: ") == 20
    assert "and 3 more; use --out report.jsonl to list all of them" in text


def test_check_of_an_incomplete_copy(shared: Path, tmp_path: Path, console: Console) -> None:
    archery = "Archery/v_Archery_g01_c01.avi"
    (tmp_path / "data/Archery").mkdir(parents=True)
    shutil.copy(shared / "data/UCF-101" / archery, tmp_path / "data" / archery)
    lists = shared / "data/splits/ucfTrainTestlist"
    config = CheckConfig(data=str(tmp_path / "data"), splits=str(lists), subset="test", workers=0)
    with pytest.raises(ValueError, match=r"3,782 of 3,783 .*--allow-missing to use the 1 that exist"):
        check(config, console=console)
    check(replace(config, allow_missing=True), console=console)
    assert "missing 3,782 listed files" in " ".join(printed(console).split())


def test_check_prints_names_that_are_not_text(tmp_path: Path, console: Console) -> None:
    (tmp_path / "b\udce4r.mp4").touch()
    check(CheckConfig(data=str(tmp_path), workers=0), console=console)
    assert "unreadable: b\\xe4r.mp4: is an empty file" in printed(console)


def test_report_cannot_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^out is .*, which is a folder; give a file name$"):
        CheckConfig(data=str(tmp_path), out=str(tmp_path))


def test_report_that_fails_leaves_the_old_one(
    small_videos: Path, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report.jsonl"
    out.write_text("old\n")
    full = Mock(dumps=Mock(side_effect=["{}", OSError("the disk is full")]))
    monkeypatch.setattr("v3s.commands.check.json", full)
    with pytest.raises(SaveError, match=r"report\.jsonl cannot be written: the disk is full"):
        check(CheckConfig(data=str(small_videos), out=str(out), workers=0), console=console)
    assert out.read_text() == "old\n"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.jsonl"]
