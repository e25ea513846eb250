"""The demo on a tiny scale: the full pipeline, and what its page contains."""

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from v3s.commands.demo import DemoConfig, demo

QUIET = Console(quiet=True)


def test_own_videos_from_folder_to_report(small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLIPS_PER_EPOCH", "NUM_VALIDATION_CLIPS", "NUM_TEST_CLIPS"):
        monkeypatch.setattr(f"v3s.commands.demo.{name}", 24)
    report = demo(DemoConfig(data=str(small_videos), out=str(tmp_path / "demo"), epochs=1, workers=0), console=QUIET)
    html = report.read_text()
    assert html.count("data:video/mp4;base64,") >= 6
    headings = ("On held-out videos", "How it learned", "What it confuses", "What the network is shown")
    for heading in (*headings, "Nearest videos", "Where it looks", "How fast it seems to play"):
        assert heading in html
    assert html.count("data:image/png;base64,") >= 2
    trained, random = (
        json.loads((tmp_path / "demo" / f"{name}.json").read_text()) for name in ("retrieval", "retrieval_random")
    )
    assert (trained["num_gallery"], trained["num_queries"]) == (random["num_gallery"], random["num_queries"]) == (12, 4)
    assert trained["fingerprint"] != random["fingerprint"]
    lists = [(tmp_path / "demo" / name).read_text().splitlines() for name in ("train.txt", "test.txt")]
    train, test = ([line.rsplit(",", 1)[0] for line in lines] for lines in lists)
    assert (len(train), len(test), set(train) & set(test)) == (12, 4, set())
    with pytest.raises(ValueError, match="already contains a demo; use --overwrite to replace it"):
        demo(DemoConfig(data=str(small_videos), out=str(tmp_path / "demo")), console=QUIET)


def test_videos_without_classes_have_no_retrieval(
    small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CLIPS_PER_EPOCH", "NUM_VALIDATION_CLIPS", "NUM_TEST_CLIPS"):
        monkeypatch.setattr(f"v3s.commands.demo.{name}", 16)
    (tmp_path / "flat").mkdir()
    for number, path in enumerate(sorted(small_videos.rglob("*.mp4"))[:6]):
        shutil.copy(path, tmp_path / "flat" / f"a video, {number}.mp4")
    config = DemoConfig(data=str(tmp_path / "flat"), out=str(tmp_path / "demo"), epochs=1, workers=0)
    html = demo(config, console=QUIET).read_text()
    assert "Nearest videos" not in html
    assert "How fast it seems to play" in html


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="does not contain a demo"):
        demo(DemoConfig(out=str(tmp_path), overwrite=True), console=QUIET)
    assert (tmp_path / "notes.txt").exists()


def test_too_few_videos_are_an_error(small_videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 2 usable videos; a demo needs 6"):
        demo(DemoConfig(data=str(small_videos / "spin"), out=str(tmp_path / "demo"), workers=0), console=QUIET)
