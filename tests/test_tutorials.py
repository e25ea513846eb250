"""The commands of README, the quick start and the tutorials run in order and print what the page quotes.

A page's ``console`` and ``python`` blocks are run in a temporary folder with small made videos, unless a comment above
says why not. What is quoted must be printed, in this order; numbers may differ, and ``...`` stands for lines left away.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
import tifffile

from v3s.cli import main
from v3s.data.synthetic import make_clips

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs/quickstart.md", *sorted((ROOT / "docs/tutorials").glob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+) -->\n)?^```(?P<kind>console|python)\n(?P<text>.*?)^```", re.M | re.S
)
SMALLER = (
    (r"--minutes \S+", "--minutes 0.001"),
    (r"epochs=\d+", "epochs=1, clip_frames=8, clip_size=32, batch_size=4, validation_videos=4, workers=0"),
    (r"--epochs \d+", "--epochs 1 --clip-frames 8 --clip-size 32 --batch-size 4 --validation-videos 4 --workers 0"),
    (r"--nproc-per-node \d+", "--nproc-per-node 2"),
    (r"16, 112, 112", "8, 32, 32"),
    (r"(v3s serve.*)", r"\1 --port 0"),
)
"""What a test changes in a page, so that it takes seconds on any machine."""


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """The kind and the text of each block that is run."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [(block["kind"], block["text"]) for block in found if block["reason"] is None]


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that are quoted below it."""
    commands: list[tuple[str, list[str]]] = []
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        elif line.strip():
            commands[-1][1].append(line)
    return commands


def plain(text: str) -> str:
    """A line without what differs between machines: numbers, units of time, the width of tables, places of folders."""
    text = re.sub(r"[┃│┏┓┗┛┡┩┳┻╇┴─━└┘\s]+", " ", text.replace(os.getcwd() + "/", ""))
    text = re.sub(r"[+-]?\d[\d,.:]*", "#", text).strip()
    return re.sub(r"# (s|min|h)$", "# of time", text)


def require_printed(quoted: list[str], printed: str, command: str) -> None:
    """Every quoted line was printed, in this order."""
    lines = iter([plain(line) for line in printed.splitlines()])
    for line in quoted:
        if line.strip() != "...":
            assert plain(line) in lines, f"{command}\nquotes: {line}\nprinted:\n{printed}"


def small(text: str) -> str:
    for before, after in SMALLER:
        text = re.sub(before, after, text)
    return text


def serve_and_label(command: str) -> str:
    """Run ``v3s serve``, label the first spans of every folder through its page's requests, and stop it."""
    words = [sys.executable, "-m", *shlex.split(command)]
    printed = ""
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            while "http://" not in printed:
                line = process.stdout.readline()
                assert line, printed
                printed += line
            address = re.findall(r"http://\S+?(?=/)", printed)[-1]
            with httpx.Client(base_url=address, headers={"Origin": address}, timeout=60) as page:
                spans = page.get("/api/spans", params={"limit": 100}).raise_for_status().json()["spans"]
                for folder in sorted({span["name"].partition("/")[0] for span in spans}):
                    rows = [span["row"] for span in spans if span["name"].startswith(f"{folder}/")]
                    page.post("/api/classes", json={"name": folder}).raise_for_status()
                    page.post("/api/labels", json={"rows": rows, "label": folder}).raise_for_status()
        finally:
            process.send_signal(signal.SIGINT)
    return printed


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders ``train`` and ``test`` with 16 and 8 clips of 8 classes, long enough for the paper's task."""
    folder = tmp_path_factory.mktemp("clips")
    for part, num_videos, seed in (("train", 16, 1), ("test", 8, 2)):
        make_clips(folder / part, num_videos=num_videos, num_frames=72, height=48, width=64, seed=seed)
    return folder


@pytest.fixture
def made(tmp_path: Path, clips: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages speak of: clips, recordings with labels, stacks, and a run on the clips."""
    shutil.copytree(clips / "train", tmp_path / "my_videos")
    shutil.copytree(clips, tmp_path / "divided")
    shutil.copytree(pretrained, tmp_path / "first_run")
    rng = np.random.default_rng(0)
    (tmp_path / "cages").mkdir()
    films = make_clips(tmp_path / "made", num_videos=8, num_frames=160, height=48, width=64, fps=10)
    for number, film in enumerate(films, start=1):
        film.rename(tmp_path / f"cages/mouse{number}_day1.mp4")
    rows = ["path,start,end,label"]
    for film in sorted((tmp_path / "cages").iterdir()):
        rows += [
            f"cages/{film.name},{start},{start + 4},{('rest', 'groom')[start // 4 % 2]}" for start in range(0, 16, 4)
        ]
    (tmp_path / "labels.csv").write_text("\n".join([*rows, ""]))
    (tmp_path / "stacks").mkdir()
    for number in range(8):
        stack = rng.integers(200, 3000, (40, 48, 64)).astype(np.uint16)
        time = {"axes": "TYX", "finterval": 0.5}
        tifffile.imwrite(tmp_path / f"stacks/cell_{number}.tif", stack, imagej=True, metadata=time)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return tmp_path


def run_command(command: str, read: Callable[[], str]) -> str:
    """Run a line of a console block; returns what it printed."""
    if command.startswith("v3s serve"):
        return serve_and_label(command)
    if command.startswith("v3s ") and not re.search(r"[|<>]", command):
        code, printed = main(shlex.split(command, comments=True)[1:]), read()
    else:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        code, printed = done.returncode, done.stdout + done.stderr
    assert code == 0, f"{command}\n{printed}"
    return printed


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_commands_of_a_page_run_and_print_what_it_quotes(
    page: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def read() -> str:
        captured = capsys.readouterr()
        return captured.out + captured.err

    names: dict[str, object] = {}
    for kind, text in blocks_of(page):
        if kind == "python":
            exec(compile(small(text), str(page), "exec"), names)
            continue
        for command, quoted in commands_of(text):
            printed = run_command(small(command), read)
            if os.environ.get("SHOW"):
                with capsys.disabled():
                    print(f"\n$ {command}\n{printed}")
            require_printed(quoted, printed, command)
    for output in re.findall(r"^<!-- written: (.+) -->$", page.read_text(), re.M):
        assert all(Path(made / path).exists() for path in output.split()), output


def test_what_is_quoted_must_be_printed() -> None:
    require_printed(["48 videos in 8 classes", "..."], "folder\n16 videos in  2 classes\n", "check")
    with pytest.raises(AssertionError):
        require_printed(["48 films"], "16 videos\n", "check")
