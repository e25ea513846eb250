"""The command line around the options: recipes, files and runs, exit codes, signals, and what it prints."""

import os
import signal
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest

from v3s import cli
from v3s.argv import UsageError, options_of, to_yaml
from v3s.commands import COMMANDS, Command


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train.

    Attributes:
        data: Videos.
        out: Folder of the run.
    """

    data: Annotated[str, "DATA"]
    out: str
    backbone: str = "r3d"
    epochs: int = 300
    batch_size: int = 32
    learning_rate: float | None = None
    validation_videos: int | None = None
    stages: tuple[str, ...] = ()
    k: int = 20
    keep: str = "loss"
    statistics_clips: int = 1024
    seconds: float = 300.0
    resume: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it must be more than 0")


def train(*words: str) -> Any:
    """The configuration that words ask for."""
    return cli.read_config("pretrain", Train, words)


def test_defaults_recipes_files_and_words_in_turn(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: videos\nout: run\nepochs: 7\nk: 7\n")
    (tmp_path / "b.yaml").write_text("epochs: 8\nbatch_size: 8\n")
    files = ("--config", str(tmp_path / "a.yaml"), f"--config={tmp_path}/b.yaml")
    config = train("--batch-size", "9", *files, "--recipe", "kinetics400-r2plus1d")
    assert (config.data, config.seconds, config.backbone) == ("videos", 300.0, "r2plus1d")
    assert (config.k, config.epochs, config.batch_size, config.keep) == (7, 8, 9, "accuracy")
    with pytest.raises(UsageError, match=r"^--recipe is 'ucf'; it must be one of ucf101-c3d, "):
        train("videos", "--recipe", "ucf")
    with pytest.raises(UsageError, match=r"missing.yaml: No such file or directory$"):
        train("videos", "--config", str(tmp_path / "missing.yaml"))


def test_a_run_is_resumed_with_its_own_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run to resume"):
        train("--out", str(tmp_path), "--resume")
    assert train("videos", "--out", str(tmp_path), "--resume").data == "videos"
    (tmp_path / "config.yaml").write_text(to_yaml(Train(data="videos", out="elsewhere", epochs=7, k=7)))
    again = train("--out", str(tmp_path), "--resume", "--recipe", "ucf101-c3d")
    assert (again.backbone, again.k) == ("c3d", 7)
    config = train("--out", str(tmp_path), "--resume", "-k", "8")
    assert (config.data, config.out, config.epochs, config.k) == ("videos", str(tmp_path), 7, 8)


def test_home_is_found_where_no_shell_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = train("--data=~/videos", "--out", "~run", "--stages=~/a,b")
    assert (config.data, config.out, config.stages) == ("/home/me/videos", "~run", ("/home/me/a", "b"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_described(name: str) -> None:
    job, kind = cli.load_command(name)
    options = options_of(kind)
    assert callable(job)
    assert all(option.help for option in options), [option.field for option in options if not option.help]
    assert len([option for option in options if option.word]) == 1
    for example in COMMANDS[name].examples:
        verb, *words = example.split()
        assert verb == name
        if "--resume" not in words:
            assert cli.read_config(name, kind, words)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A command ``little`` whose function a test may replace."""

    def run(config: Train) -> object:
        return None

    module = ModuleType("little")
    module.little = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "little", module)
    monkeypatch.setitem(COMMANDS, "little", Command("none", "little", "does little", ("little a --out b",)))
    return module


class NothingUsable:
    """A scan that found no usable video."""

    num_usable = 0


def test_what_a_command_gives_back(little: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "found").touch()
    for result, code, printed in (
        (None, 0, f"{tmp_path}/found\n"),
        (Path("page"), 0, "page\n"),
        (NothingUsable(), 1, f"{tmp_path}/found\n"),
    ):

        def run(config: Train, result: object = result) -> object:
            return result

        little.little = run  # type: ignore[attr-defined]
        assert cli.main(["little", "videos", "--out", str(tmp_path / "found")]) == code
        assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("words", "code", "lines"),
    [
        (["pretrian"], 2, ["error: unknown command 'pretrian' (did you mean 'pretrain'?)", "See: v3s --help"]),
        (["--data", "x"], 2, [
            "error: unknown command '--data'; the command comes before its options", "See: v3s --help",
        ]),
        (["little", "a"], 2, ["error: --out is required", "See: v3s little --help"]),
        (["little", "a", "--\x1b[31m\n"], 2, ["error: unknown option '--\\x1b[31m\\n'", "See: v3s little --help"]),
        (["little", "a", "--config=\x1b\udcff\n"], 2, [
            "error: \\x1b\\xff\\n: No such file or directory", "See: v3s little --help",
        ]),
        (["little", "a", "--out=b", "--batch-size=0"], 2, [
            "error: --batch-size is 0; it must be more than 0", "See: v3s little --help",
        ]),
    ],
)  # fmt: skip
def test_an_error_is_one_line(
    words: list[str], code: int, lines: list[str], little: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == code
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OSError(2, "No such file or directory", "\udcff\n"), 1, "error: \\xff\\n: No such file or directory"),
        (OSError(28, "No space left on device", b"\xff"), 1, "error: \\xff: No space left on device"),
        (ValueError("a\x1b[31m.mp4 is no video"), 1, "error: a\\x1b[31m.mp4 is no video"),
        (UsageError("from a run's own file"), 1, "error: from a run's own file"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(32, "Broken pipe"), 1, "error: [Errno 32] Broken pipe"),
    ],
)  # fmt: skip
def test_a_command_that_fails(
    error: BaseException, code: int, line: str, little: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: Train) -> None:
        raise error

    little.little = run  # type: ignore[attr-defined]
    assert cli.main(["little", "a", "--out", "b"]) == code
    assert capsys.readouterr().err == line + "\n"


def test_a_warning_is_one_plain_line(little: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def run(config: Train) -> None:
        for file in (cli.__file__, "/other.py"):
            print(warnings.formatwarning("run is still training", UserWarning, file, 1, ""), file=sys.stderr)

    little.little = run  # type: ignore[attr-defined]
    assert cli.main(["little", "a", "--out", "b"]) == 0
    assert list(filter(None, capsys.readouterr().err.splitlines())) == [
        "warning: run is still training",
        "/other.py:1: UserWarning: run is still training",
    ]


def test_help_is_shown_whatever_the_other_words_are(little: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["-h"], ["little", "--help"], ["little", "--wrong", "-h"]):
        assert cli.main(words) == 0
        assert capsys.readouterr().out.startswith("usage: v3s ")
    assert cli.main([]) == 2


@pytest.mark.skipif(os.name != "posix", reason="streams are closed as on POSIX")
@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_streams(closed: tuple[int, ...], tmp_path: Path) -> None:
    """What is printed goes nowhere, and not into a file that has got the number of the stream."""
    script = (
        "import os\nfrom v3s.cli import main\nimport v3s.commands.check as check\n"
        f"for number in {closed}: os.close(number)\n"
        "def job(config):\n"
        "    with open(config.out, 'w') as file:\n"
        "        os.write(1, b'printed'), os.write(2, b'printed'), file.write('written')\n"
        "job.__annotations__ = check.check.__annotations__\ncheck.check = job\n"
        f"raise SystemExit(main(['check', 'videos', '--out', {str(tmp_path / 'a.jsonl')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "a.jsonl").read_text()) == (0, "written"), done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_behind_standard_output() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "v3s", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, text=True)
    line = "error: standard output cannot be written: No space left on device; send it elsewhere\n"
    assert (done.returncode, done.stderr) == (1, line)


def test_help_is_also_a_word(little: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    for word, option in ((["help"], ["--help"]), (["help", "little"], ["little", "--help"])):
        assert cli.main(word) == cli.main(option) == 0
        printed = capsys.readouterr().out
        assert printed[: len(printed) // 2] == printed[len(printed) // 2 :]
    assert cli.main(["help", "litle"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown command 'litle' (did you mean 'little'?)\n")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["pretrian"]])
def test_help_needs_no_torch_and_little_time(words: list[str]) -> None:
    """0.2 s of a core; importing torch alone takes 2 s."""
    script = (
        "import sys, time; from v3s.cli import main; main(sys.argv[1:]); "
        "print('torch' in sys.modules, time.process_time() < 1)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False True"


def test_a_reader_that_is_gone_leaves_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "v3s", "--help"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_path_of_any_bytes_is_printed_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("from pathlib import Path\ndef odd(config: dict): return Path('\\udcff')\n")
    script = (
        "import sys; from v3s import cli; from v3s.commands import COMMANDS, Command; "
        "COMMANDS['odd'] = Command('none', 'odd', '', ()); "
        "cli.read_config = lambda *_: None; sys.exit(cli.main(['odd']))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"\xff\n")


SLOW = """\
import time
print("importing", flush=True)
time.sleep(0.5)
def slow(config: dict) -> None: ...
"""


@pytest.mark.parametrize(("number", "printed"), [(signal.SIGINT, "interrupted\n"), (signal.SIGTERM, "")])
def test_a_signal_while_a_command_is_imported(number: signal.Signals, printed: str, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    script = (
        "import sys; from v3s.cli import main; from v3s.commands import COMMANDS, Command; "
        "COMMANDS['slow'] = Command('none', 'slow', '', ()); sys.exit(main(['slow']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    assert (process.communicate()[1], process.returncode) == (printed, 128 + number)


@pytest.mark.parametrize("columns", ["0", "00", "", "1"])
def test_a_terminal_without_columns_shows_everything(columns: str, small_videos: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "v3s", "check", str(small_videos), "--workers", "0"]
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(words, env=os.environ | cache | {"COLUMNS": columns}, capture_output=True, text=True)
    assert "16 videos in 8 classes" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="the current folder cannot be removed")
def test_a_current_folder_that_was_removed_is_said(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    line = 'cd "$1" && rmdir "$1" && exec "$2" -m v3s explore vectors'
    words = ["sh", "-c", line, "sh", str(tmp_path / "gone"), sys.executable]
    path = str(Path(cli.__file__).parents[1])
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    message = "error: the current folder does not exist any more; change to another one\n"
    assert (done.returncode, done.stderr) == (1, message)
