"""A command's processes: they import nothing from the current folder, and Ctrl-C ends all of them with one line."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SHADOWED = ("multiprocessing", "numpy", "torch", "av", "yaml", "rich", "json", "v3s", "select", "difflib")


SCRIPT = "import sys; del sys.path[0]; from v3s.cli import main; raise SystemExit(main())"
"""The script ``v3s``, which does not import from the current folder itself."""


def start(words: list[str], folder: Path) -> subprocess.Popen[str]:
    """A command as a terminal starts it: Ctrl-C is not ignored, also if these tests run in the background."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words], cwd=folder, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def children_of(pid: int) -> list[str]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += task.read_text().split()
        except OSError:
            continue
    return found


@pytest.mark.parametrize("words", [["prepare", "--workers=2"], ["check", "--workers=2"]], ids=" ".join)
def test_nothing_is_imported_from_the_current_folder(words: list[str], small_videos: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in SHADOWED[1:] if words[0] == "check" else SHADOWED:
        (here / f"{name}.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    command = start([*words, f"--data={small_videos}", f"--out={tmp_path / 'out.jsonl'}"], here)
    _, error = command.communicate(timeout=120)
    assert command.returncode in (0, 1), error
    assert "Traceback" not in error
    assert not (tmp_path / "ran").exists()


def test_the_module_imports_nothing_from_the_current_folder_before_it_leaves_it(tmp_path: Path) -> None:
    """``python -m v3s`` imports the package while the current folder is searched first."""
    for name in (*SHADOWED[:-3], "random", "selectors", "re", "enum", "typing", "email", "datetime", "pathlib"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)\n")
    command = [sys.executable, "-m", "v3s", "check", "nothing"]
    ended = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False, timeout=120)
    assert ended.returncode == 1, ended.stderr
    assert "nothing does not exist" in ended.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("seconds", [0.0, 1.0, 2.5])
def test_ctrl_c_in_prepare(seconds: float, small_videos: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in range(150):  # for longer than the longest wait
        shutil.copytree(small_videos, data / str(number), copy_function=os.link)
    command = start(["prepare", f"--data={data}", f"--out={tmp_path / 'store'}", "--workers=2"], tmp_path)
    while len(children_of(command.pid)) < 2 and command.poll() is None:
        time.sleep(0.01)
    time.sleep(seconds)
    os.killpg(command.pid, signal.SIGINT)
    _, error = command.communicate(timeout=60)
    assert (command.returncode, error) == (130, "interrupted\n")
    assert not list((tmp_path / "store/shards").glob("*.part"))


@pytest.mark.parametrize("seconds", [0.6, 1.2, 2.0])
def test_ctrl_c_in_imports(seconds: float, small_videos: Path, tmp_path: Path) -> None:
    """Or shortly after them: there is work for longer than the longest wait."""
    video = next(small_videos.rglob("*.mp4"))
    (tmp_path / "data").mkdir()
    for number in range(2000):
        (tmp_path / f"data/{number}.mp4").hardlink_to(video)
    command = start(["check", f"--data={tmp_path / 'data'}", "--workers=0"], tmp_path)
    time.sleep(seconds)
    command.send_signal(signal.SIGINT)
    _, error = command.communicate(timeout=60)
    assert (command.returncode, error) == (130, "interrupted\n")
