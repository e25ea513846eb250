"""A file may have any name: every command works with it, and shows it as text in terminals, logs, tables and pages."""

import csv
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import v3s
from v3s import PretrainConfig, pretrain
from v3s.cli import main
from v3s.commands.demo import DemoConfig, demo
from v3s.data.lists.listfile import write_list
from v3s.data.lists.splits import list_videos

QUIET = Console(quiet=True)
NAMES = (
    b"bytes \xff\xfe.mp4", b"red \x1b[31m.mp4", b"[bold]x[red].mp4", b"=1+1.mp4", b"line\nbreak.mp4", b"return\r.mp4",
    b'quote", comma.mp4', b" space.mp4", b"-dash.mp4", b"<img src=x onerror=alert(1)>&amp;.mp4",
    "世界\u3000ä.mp4".encode(), b"a\\b .mp4",
)  # fmt: skip
FOLDERS = (b'@class\xff "\n,', b"=[b]\x1b<img src=x>")
FILMS = (Path(v3s.__file__).parent / "pages/static/films.js").read_text().splitlines()
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@pytest.fixture(scope="module")
def odd(small_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos with odd names, in two folders with odd names, and one that cannot be read."""
    root = tmp_path_factory.mktemp("odd")
    for number, (source, name) in enumerate(zip(sorted(small_videos.rglob("*.mp4")), NAMES, strict=False)):
        folder = root / os.fsdecode(FOLDERS[number % 2])
        folder.mkdir(exist_ok=True)
        shutil.copy(source, folder / os.fsdecode(name))
    (folder / os.fsdecode(b"bad \xfe\x1b\n.mp4")).write_text("not a video")
    return root


@pytest.fixture(scope="module")
def run(odd: Path, small_pretraining: PretrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    pretrain(replace(small_pretraining, data=str(odd), out=str(out), epochs=1), console=QUIET)
    return out


def ran(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints, which must be text."""
    assert main(words) == 0, capsys.readouterr().err
    shown = capsys.readouterr()
    printed = "\n".join(line for line in shown.out.splitlines() if not line.startswith("/")) + shown.err
    assert not CONTROLS.search(printed), printed
    return printed


def shown(page: Path) -> str:
    """A page, in which names are nothing but text: no other element, and no script but that of the films."""
    html = page.read_text()
    assert not CONTROLS.search(html)
    assert not re.search(r"<img src=[^\"]", html)
    scripts = re.findall("<script.*?>.*", html)
    assert scripts in ([], [f"<script>{FILMS[0]}"])
    return html


def test_a_run_on_odd_names(run: Path) -> None:
    log = (run / "train.log").read_text()
    assert not CONTROLS.search(log)


def test_lists_hold_any_name(odd: Path, tmp_path: Path) -> None:
    listed = list_videos(odd)
    assert len(listed) == len(NAMES) + 1
    videos = [(str(odd / path), label) for path, label in zip(listed.paths, listed.labels, strict=True)]
    write_list(tmp_path / "labelled.csv", videos)
    again = list_videos(tmp_path / "labelled.csv")
    assert list(zip(again.paths, again.labels, strict=True)) == videos
    write_list(tmp_path / "paths.txt", [(path, None) for path, _ in videos])
    assert list_videos(tmp_path / "paths.txt").paths == tuple(path for path, _ in videos)


def test_check_prepare_and_preview(odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = ran(["check", f"--data={odd}", f"--out={tmp_path / 'r.jsonl'}", "--workers=0", "--min-frames=8"], capsys)
    assert r"bad \xfe\x1b\n.mp4" in printed
    reports = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert {os.fsencode(Path(report["path"]).name) for report in reports} == {*NAMES, b"bad \xfe\x1b\n.mp4"}
    ran(["prepare", f"--data={odd}", f"--out={tmp_path / 'store'}", "--workers=0"], capsys)
    assert list_videos(tmp_path / "store").paths == list_videos(odd).paths
    page = tmp_path / "p.html"
    sizes = ["--task=ts", "--clip-frames=4", "--clip-size=16", "--num-videos=12"]
    ran(["preview", f"--data={odd}", f"--out={page}", *sizes], capsys)
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;amp;.mp4" in shown(page)


def test_search_explain_speediness(odd: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page, vectors = tmp_path / "s.json", tmp_path / "s.html", tmp_path / "vectors"
    embedding = ["embed", f"--data={odd}", f"--backbone={run}", f"--out={vectors}", "--workers=0", "--num-clips=1"]
    ran([*embedding, "--export=csv"], capsys)
    with (vectors / "vectors.csv").open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == len(NAMES)
    for row in rows:
        assert not CONTROLS.search(row["path"] + row["label"])
        assert row["path"][0] == row["label"][0] == "'"
    files = sorted(str(path) for path in odd.rglob("*.mp4") if "bad" not in path.name)
    for file in files[::3]:
        printed = ran(["search", f"--query={file}", f"--in={vectors}", f"--out={out}", f"--page={page}"], capsys)
        assert "1.0000" in printed
        best = json.loads(out.read_text())["hits"][0]["file"]
        assert os.fsencode(best) == os.fsencode(os.path.realpath(file))
        assert "&lt;img src=x" in shown(page)
        folder = tmp_path / f"explained {Path(file).name}"
        ran(["explain", f"--video={file}", f"--backbone={run}", f"--out={folder}"], capsys)
        assert json.loads((folder / "explain.json").read_text())["video"] == file
        shown(folder / "explain.html")
        ran(["speediness", f"--video={file}", f"--backbone={run}", f"--out={tmp_path / 'p.html'}"], capsys)
        shown(tmp_path / "p.html")
    ran(["explore", f"--in={vectors}", f"--out={tmp_path / 'explored'}"], capsys)
    assert "&lt;img src=x" in shown(tmp_path / "explored" / "index.html")


def test_audit_retrieve_finetune_and_compare(
    odd: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_run, audit, retrieved = f"--backbone={run}", tmp_path / "audit.html", tmp_path / "retrieve.html"
    ran(["audit", f"--data={odd}", of_run, f"--page={audit}", "--clips=1", "--workers=0"], capsys)
    ran(["retrieve", f"--data={odd}", of_run, f"--page={retrieved}", "--workers=0"], capsys)
    ran(["finetune", f"--data={odd}", of_run, f"--out={tmp_path / 'tuned'}", "--epochs=1", "--workers=0"], capsys)
    ran(["compare", f"--data={odd}", f"--backbones={run}", f"--out={tmp_path / 'both'}", "--workers=0"], capsys)
    shown(audit)
    shown(tmp_path / "both" / "compare.html")
    for page in (retrieved, tmp_path / "tuned" / "report.html", run / "report.html"):
        assert "&lt;img src=x" in shown(page), page


def test_the_demo(odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLIPS_PER_EPOCH", "NUM_VALIDATION_CLIPS", "NUM_TEST_CLIPS"):
        monkeypatch.setattr(f"v3s.commands.demo.{name}", 16)
    page = demo(DemoConfig(data=str(odd), out=str(tmp_path / "demo"), epochs=1, workers=0), console=QUIET)
    shown(page)
