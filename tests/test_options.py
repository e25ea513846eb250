"""The values of options: their types from Python, their names on the command line, and files that are none."""

import os
import pickle
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import pytest

import v3s
from v3s.cli import load_command, main
from v3s.commands import COMMANDS
from v3s.options import as_typed


def required(kind: type[Any]) -> dict[str, Any]:
    """Values of the right types for what has no default."""
    hints = get_type_hints(kind)
    return {
        field.name: ("x",) if get_origin(hints[field.name]) is tuple else "x"
        for field in fields(kind)
        if field.default is MISSING
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_value_of_every_command_must_be_of_the_type_of_its_field(name: str) -> None:
    _, kind = load_command(name)
    for field in fields(kind):
        with pytest.raises(TypeError, match=rf"^{field.name} is <object .*>, of type object; it must be "):
            kind(**required(kind) | {field.name: object()})


@pytest.mark.parametrize("name", COMMANDS)
def test_a_seed_that_no_generator_takes_is_refused(name: str) -> None:
    _, kind = load_command(name)
    for seed in (-1, 2**32) if "seed" in {field.name for field in fields(kind)} else ():
        with pytest.raises(ValueError, match=rf"^seed is {seed}; it must be between 0 and 2\*\*32 - 1$"):
            kind(**required(kind) | {"seed": seed})


@pytest.mark.parametrize(
    ("name", "values", "error"),
    [
        ("pretrain", {"epochs": "12"}, TypeError("epochs is '12', of type str; it must be a whole number")),
        ("embed", {"stride": 1.5}, TypeError("stride is 1.5, of type float; it must be a whole number")),
        ("pretrain", {"epochs": True}, TypeError("epochs is True, of type bool; it must be a whole number")),
        ("pretrain", {"width": "1"}, TypeError("width is '1', of type str; it must be a number")),
        ("pretrain", {"flip": 1}, TypeError("flip is 1, of type int; it must be true or false")),
        ("pretrain", {"data": None}, TypeError("data is None, of type NoneType; it must be text")),
        ("pretrain", {"clip_frames": "16"}, TypeError(
            "clip_frames is '16', of type str; it must be a whole number or None"
        )),
        ("probe", {"few_labels": [1]}, TypeError(
            "few_labels is [1], of type list; it must be a tuple, each value a whole number"
        )),
        ("probe", {"few_labels": (1.0,)}, TypeError(
            "few_labels is (1.0,), of type tuple; it must be a tuple, each value a whole number"
        )),
        ("pretrain", {"short": "leave"}, ValueError("short is 'leave'; it must be one of leave-out, fit")),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(name: str, values: dict[str, Any], error: Exception) -> None:
    _, kind = load_command(name)
    with pytest.raises(type(error)) as raised:
        kind(**required(kind) | values)
    assert str(raised.value) == str(error)


def test_a_whole_number_is_a_number_and_none_is_kept() -> None:
    config = v3s.PretrainConfig(data="videos", out="run", width=1, clip_frames=None)
    assert (config.width, config.clip_frames) == (1, None)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_needs_its_own_options(name: str) -> None:
    verb = getattr(v3s, name)
    kind = f"{name.capitalize()}Config"
    with pytest.raises(TypeError) as raised:
        verb({"data": "videos"})
    assert str(raised.value) == f"v3s.{name} was given a dict; it needs its options: v3s.{name}(v3s.{kind}(...))"
    assert pickle.loads(pickle.dumps(verb)) is verb  # another process may call it


@pytest.mark.parametrize(
    ("out", "events", "data", "message"),
    [
        ("a.avi", None, "a.avi", r"out is a\.avi, which is also data and would be replaced"),
        ("link.csv", None, "list.csv", r"out is link\.csv, which is also data and would be replaced"),
        ("videos/b.avi", None, "videos", r"out is videos/b\.avi, which exists and is not a result"),
        (
            "new.csv",
            "recognizer/config.json",
            "a.avi",
            r"events is recognizer/config\.json, which exists and is not a result",
        ),
        ("new.csv", "videos/../new.csv", "a.avi", r"out and events are both new\.csv; give two files"),
        ("link.csv", "list.csv", "a.avi", r"out and events are both link\.csv; give two files"),
        ("videos/old.csv", "videos/new.csv", "videos", None),  # a result is replaced by the next one
        (
            "videos/labels/labels.csv",
            None,
            "videos",
            r"out is videos/labels/labels\.csv, which exists and is not a result",
        ),
        (
            "videos/labels/labels-2.csv",
            None,
            "videos",
            r"out is videos/labels/labels-2\.csv, which exists and is not a result",
        ),
        ("videos/index.json", None, "videos", r"out is videos/index\.json, which exists and is not a result"),
        ("videos/videos.3.jsonl", None, "videos", r"out is videos/videos\.3\.jsonl, which exists and is not a result"),
        ("videos/b.avi", None, "a.avi", r"out is videos/b\.avi, which exists and is not a result"),
        ("new.csv", "stack.TIF", "a.avi", r"events is stack\.TIF, which exists and is not a result"),
        ("film.csv", None, "a.avi", r"out is film\.csv, which exists and is not a result"),
        ("old.CSV", None, "a.avi", None),
        ("to_label.csv", None, "a.avi", r"out is to_label\.csv, which exists and is not a result"),
        ("run/result.json", None, "a.avi", r"out is run/result\.json, which exists and is not a result"),
        ("run/report.html", None, "a.avi", r"out is run/report\.html, which exists and is not a result"),
        ("result.jsonl", None, "a.avi", None),
        ("new.xlsx", None, "a.avi", r"out is new\.xlsx; its name must end in \.csv or \.jsonl: no other format is"),
        ("new.csv", "events", "a.avi", r"events is events; its name must end in \.csv or \.jsonl"),
        ("loop.csv", None, "a.avi", r"out is loop\.csv, which exists and is not a result"),
        ("pipe.csv", None, "a.avi", r"out is pipe\.csv, which exists and is not a result"),
        ("none.csv/", None, "a.avi", r"out is none\.csv/, which is a folder"),
    ],
)
def test_an_output_is_no_input(
    out: str, events: str | None, data: str, message: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    of_videos = ("b.avi", "old.csv", "labels/labels.csv", "labels/labels-2.csv", "index.json", "videos.3.jsonl")
    for name in ("a.avi", "list.csv", "recognizer/config.json", *(f"videos/{name}" for name in of_videos)):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        Path(name).write_text("precious")
    Path("run").mkdir()
    of_run = ("run/config.yaml", "run/result.json", "run/report.html")
    for name in ("stack.TIF", "old.CSV", "to_label.csv", "result.jsonl", *of_run):
        Path(name).write_text("precious")
    Path("loop.csv").symlink_to("loop.csv")
    os.mkfifo("pipe.csv")
    Path("link.csv").symlink_to("list.csv")
    Path("film.csv").symlink_to("videos/b.avi")
    expected = pytest.raises(ValueError, match=message) if message else nullcontext()
    with expected:
        v3s.PredictConfig(data=data, recognizer="recognizer", out=out, events=events)


def test_a_result_of_another_run_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "result.json").touch()
    v3s.EvaluateConfig(data="a.avi", backbone="run", out=str(tmp_path / "result.json"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pretrain a --out b --clips-together 9", "--batch-size is 32; it must be a multiple of --clips-together (9)"),
        ("pretrain a --out b --warmup 300", "--warmup is 300; it must be less than --epochs (300)"),
        ("pretrain a --out b --contrast 2", "--contrast is 2; it needs --clips-together 2 or more"),
        ("pretrain a --out b --clip-frames 1", "--clip-frames is 1; it must be 2 or more"),
        ("pretrain a --out b --grey 3", "--grey is 3.0; it must be from 0 to 1"),
        ("preview a --canvas-size 8 --clip-size 9", "--canvas-size is 8; it must be at least --clip-size (9)"),
        ("embed a --out b --backbone c --stride -1", "--stride is -1; it must be 0 or more"),
        ("probe a --backbone c --test-data d --splits e", "--test-data (d) and --splits (e) cannot be combined; give "
         "only one"),
        ("similarity a --backbone c --num-folds 1", "--num-folds is 1; it must be 2 or more: each is tested, the "
         "others train"),
        ("search  --in b", "--query is empty; give what it names"),
        ("search a --in b -k 0", "-k is 0; it must be more than 0"),
        ("pretrain a --out b --recipe ucf101-c3d --epochs 0", "--epochs is 0; it must be more than 0"),
    ],
)  # fmt: skip
def test_wrong_options_are_named_as_they_are_typed(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split(" ")) == 2
    assert capsys.readouterr().err.splitlines() == [f"error: {message}", f"See: v3s {line.split()[0]} --help"]


def test_what_was_given_keeps_its_name() -> None:
    names = {"clip_size": "--clip-size", "out": "--out"}
    for text in (
        "/clip_size/x is a folder",
        "'clip_size' (1)",
        "it is out of range",
        "--out is out.html",
        "a.clip_size",
    ):
        assert as_typed(text, names) == text


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Ends a test that waits for a pipe, or reads without end, by an error after ten seconds."""

    def stop(*_: object) -> None:
        raise AssertionError("waited for ten seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 10)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["pipe", "link", "/dev/zero"])
@pytest.mark.parametrize(
    "line",
    [
        "check {}", "preview {}", "prepare {} --out new", "pretrain {} --out new",
        "embed {} --out new --backbone random:c3d@0.125", "check videos --splits {}", "check videos --splits official",
        "check videos --config {}", "convert {} --out new",
        "similarity videos --pairs {} --backbone random:c3d@0.125",
    ],
)  # fmt: skip
def test_what_is_read_is_a_regular_file(
    line: str, name: str, tmp_path: Path, no_waiting: None, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for folder in ("videos", "official"):
        (tmp_path / folder).mkdir()
    os.mkfifo("pipe")
    os.symlink("pipe", "link")
    os.symlink(Path(name).absolute(), "official/a_test_split1.txt")
    assert main(line.replace("{}", name).split()) in (1, 2)
    error = capsys.readouterr().err.splitlines()[0]
    named = "official/a_test_split1.txt" if "official" in line else name
    assert error == f"error: {named} is a pipe or a device; give a regular file"
