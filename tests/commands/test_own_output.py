"""What commands write into the folder of videos never becomes a training video, and what is passed over is said."""

import shutil
from pathlib import Path

import pytest

from v3s.cli import main
from v3s.data.lists.splits import list_videos

SMALL = ["--task=ts", "--clip-frames=8", "--clip-size=32"]


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_outputs_inside_of_the_data_folder(
    small_videos: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in ("CLIPS_PER_EPOCH", "NUM_VALIDATION_CLIPS", "NUM_TEST_CLIPS"):
        monkeypatch.setattr(f"v3s.commands.demo.{name}", 16)
    data = tmp_path / "data"
    shutil.copytree(small_videos, data)
    before = list_videos(data)
    video, run, alone = str(data / before.paths[0]), str(pretrained), ["--workers=0", "--device=cpu"]
    inside = str(data / Path(before.paths[0]).parent)  # beside training videos
    ran(capsys, "explain", video, f"--backbone={run}", f"--out={data / 'why'}", "--device=cpu")
    for copied in (inside, data):  # by a person
        shutil.copytree(data / "why", copied, dirs_exist_ok=True)
    vectors = str(data / "vectors")
    ran(capsys, "embed", str(data), f"--backbone={run}", f"--out={vectors}", "--num-clips=1", "--export=csv", *alone)
    ran(capsys, "search", video, f"--in={vectors}", f"--page={data / 'search.html'}", f"--out={data / 'search.json'}")
    ran(capsys, "speediness", video, f"--backbone={run}", f"--out={data / 'speed.html'}")
    ran(capsys, "preview", str(data), f"--out={data / 'preview.html'}", *SMALL)
    pages = [f"--out={data / 'audit.json'}", f"--page={data / 'audit.html'}"]
    ran(capsys, "audit", str(data), f"--backbone={run}", "--clips=1", *pages, *alone)
    ran(capsys, "prepare", str(data), f"--out={data / 'store'}", "--workers=0")
    ran(capsys, "demo", str(data), f"--out={data / 'demo'}", "--epochs=1", *alone)
    report = f"--out={data / 'check.jsonl'}"
    shown = ran(capsys, "check", str(data), "--min-frames=8", "--workers=0", report)
    assert "16 videos in 8 classes; skipped: " in shown
    assert "7 outputs of v3s" in shown  # three times two films, and the folder of the demo
    small = ["--width=0.125", "--epochs=1", "--batch-size=4", "--statistics-clips=0", *SMALL, *alone]
    shown = ran(capsys, "pretrain", str(data), f"--out={data / 'run'}", *small)
    assert "7 outputs of v3s" in shown
    after = list_videos(data)
    assert (after.paths, after.labels) == (before.paths, before.labels)
    assert list_videos(data / "store").paths == before.paths
