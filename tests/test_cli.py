"""What a user sees of mistakes: one clear line, an exit code that is not 0, no traceback."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from v3s import cli
from v3s.argv import from_yaml, options_of, to_yaml
from v3s.cli import load_command, main, read_config
from v3s.commands import COMMANDS
from v3s.commands.pretrain import PretrainConfig
from v3s.commands.recipes import RECIPES
from v3s.protocols.finetune import FinetuneConfig
from v3s.protocols.probe import ProbeConfig


def run(arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and the error text of a command line."""
    try:
        code = main(arguments.split())
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, capsys.readouterr().err


def test_the_word_after_a_command_stands_for_what_it_works_on() -> None:
    others = {
        "convert": "weights", "replay": "run", "export": "run", "reproduce": "table", "merge": "parts",
        "search": "query", "index": "vectors", "explore": "vectors", "serve": "vectors",
        "explain": "video", "speediness": "video",
    }  # fmt: skip
    words = {
        name: next(option.field for option in options_of(load_command(name)[1]) if option.word) for name in COMMANDS
    }
    assert words == dict.fromkeys(COMMANDS, "data") | others
    config = read_config("pretrain", PretrainConfig, ["videos", "--out", "run", "--parts", "2"])
    assert (config.data, config.parts) == ("videos", 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("pretrian", "did you mean 'pretrain'?"),
        ("pretrain --data x --out y --batch-sise 3", "did you mean '--batch-size'?"),
        ("pretrain --data x --out y --batch-size many", "--batch-size is 'many'; it must be a whole number"),
        ("pretrain --data x --out y --workers many", "--workers is 'many'; it must be a whole number"),
        ("pretrain --data x --out y --zoom x", "--zoom is 'x'; it must be one of paper, even"),
        (
            "pretrain --config {tmp}/bad.yaml",
            "bad.yaml: unknown option 'batch-size' (did you mean 'batch_size'?)",
        ),
        ("pretrain --config {tmp}/text/notes.mp4", "notes.mp4 is not a valid options file"),
        ("pretrain --out {tmp}/run --resume", "is not a run to resume"),
        ("check --workers 1 x", "put an option name before it; DATA comes before the first option"),
        ("check --data x -k 3", "unknown option '-k'"),
        ("check {tmp}/text --splits=", "--splits is empty; give what it names"),
        ("check {tmp}/missing", "missing does not exist"),
        ("merge {tmp}/missing", "--out is required"),
        ("pretrain --data x --out y --batch-size 0", "--batch-size is 0; it must be more than 0"),
        ("pretrain --data x --out y --seed -1", "seed is -1"),
        ("pretrain --data x", "--out is required"),
        ("evaluate", "DATA and --backbone are required"),
        ("pretrain --data x --out y --recipe ucf", "--recipe is 'ucf'; it must be one of ucf101-c3d"),
        ("pretrain --data x --out y --task v3", "no pretext task is called 'v3' (did you mean 'v3s' or 'v3s-short'?)"),
        ("pretrain --data x --out y --backbone r3", "did you mean 'r3d' or 'r3d18'?"),
        ("pretrain --data x --out y --backbone os:getcwd", "is your own code"),
        ("pretrain --data x --out y --backbone random:s3dg@0.5", "such as --backbone s3dg --width 0.5: its weights"),
        ("pretrain --data x --out y --device tpu", "device is 'tpu'"),
        ("pretrain --data {tmp}/missing --out y", "does not exist"),
        ("pretrain --data {tmp}/empty --out y", "contains no videos"),
        (
            "pretrain --data {tmp}/text --out {tmp}/run",
            "no usable video: 0 too short, 0 partial, 1 unreadable",
        ),
        ("pretrain --data {tmp}/truncated --out {tmp}/run", "no usable video"),
        ("pretrain --data {tmp}/list.txt --out {tmp}/run", "missing"),
        ("check --data {tmp}/missing", "does not exist"),
        ("check --data {tmp}/half.list", "half.list is not a text file, so it cannot be a list"),
        (
            "check --data {tmp}/text --splits {tmp}/missing",
            "missing does not exist; give the folder of the official lists",
        ),
        ("pretrain --data x --out y --clip-size 0", "--clip-size is 0; it must be more than 0"),
        ("pretrain --data x --out y --learning-rate -1", "--learning-rate is -1.0; it must be more than 0"),
        ("finetune --data x --out y --backbone z --momentum -1", "--momentum is -1.0; it must be 0 or more"),
        ("prepare --data x --out y --workers -1", "--workers is -1; it must be 0 or more"),
        ("evaluate --data x --backbone y --out {tmp}", "which is a folder; give a file name"),
        ("replay --run {tmp}", "is not a training run (config.yaml is missing)"),
        ("explain --video x --backbone y --out {tmp}/list.txt", "a file; give a folder"),
        ("pretrain --data {tmp}/text --out {tmp}/list.txt/run", "list.txt/run cannot be written: Not a directory"),
        ("evaluate --data {tmp}/text --backbone {tmp}/nothing", "no such run folder or file of weights"),
    ],
)
def test_mistakes(
    arguments: str, message: str, tmp_path: Path, small_videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("empty", "text", "truncated"):
        (tmp_path / name).mkdir()
    (tmp_path / "text/notes.mp4").write_text("this is no video")
    whole = next(small_videos.rglob("*.mp4")).read_bytes()
    (tmp_path / "truncated/half.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "half.list").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "list.txt").write_text("missing/a.avi\n")
    (tmp_path / "bad.yaml").write_text("data: x\nout: y\nbatch-size: 3\n")
    code, error = run(arguments.format(tmp=tmp_path), capsys)
    assert code != 0
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_full_gpu_is_a_mistake_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(config: PretrainConfig) -> int:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 15"
        )

    monkeypatch.setattr(cli, "load_command", lambda name: (fail, PretrainConfig))
    code, error = run("pretrain --data x --out y", capsys)
    assert (code, error) == (1, "error: CUDA out of memory: choose a smaller --batch-size, or another --device\n")


def test_flags_recipes_and_files_make_one_configuration(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: videos\nout: run\nepochs: 7\nflip: true\n")
    options = ["--recipe", "ucf101-r3d", "--config", str(file), "--batch-size=16", "--trim-bars"]
    config = read_config("pretrain", PretrainConfig, options)
    assert (config.backbone, config.learning_rate, config.validation_videos) == ("r3d", 0.005, 800)
    assert (config.epochs, config.flip, config.batch_size, config.trim_bars) == (7, True, 16, True)


@pytest.mark.parametrize("given", ["--few-labels 1,2", "--few-labels=1,2"])
def test_a_list_needs_no_brackets(given: str) -> None:
    config = read_config("probe", ProbeConfig, ["--data", "x", "--backbone", "y", *given.split()])
    assert config.few_labels == (1, 2)


def test_home_is_found_where_no_shell_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = read_config("pretrain", PretrainConfig, ["--data=~/videos", "--out", "~run"])
    assert (config.data, config.out) == ("/home/me/videos", "~run")


def test_every_recipe_is_a_configuration() -> None:
    for values in RECIPES.values():
        PretrainConfig(data="videos", out="run", **values)


def test_resume_takes_the_runs_own_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"data: videos\nout: {tmp_path}\nepochs: 7\n")
    config = read_config("pretrain", PretrainConfig, ["--out", str(tmp_path), "--resume", "--epochs", "9"])
    assert (config.data, config.epochs, config.resume) == ("videos", 9, True)


def test_the_command_that_began_a_run_resumes_it(tmp_path: Path) -> None:
    """With --resume at its end; the recipe own chooses only once."""
    words = ["--data=videos", f"--out={tmp_path}", "--epochs=9"]
    contrast = read_config("pretrain", PretrainConfig, [*words, "--recipe=v3s-contrast"])
    (tmp_path / "config.yaml").write_text(to_yaml(contrast))
    assert read_config("pretrain", PretrainConfig, [*words, "--recipe=v3s-contrast", "--resume"]).contrast == 0.5
    resumed = read_config("pretrain", PretrainConfig, [*words, "--recipe=own", "--minutes=3", "--resume"])
    assert resumed == replace(contrast, resume=True)


def test_a_run_s_own_configuration_does_not_replace_it() -> None:
    given = PretrainConfig(data="videos", out="run", epochs=7, resume=True, overwrite=True)
    assert from_yaml(PretrainConfig, to_yaml(given, without=("resume", "overwrite"))) == replace(
        given, resume=False, overwrite=False
    )


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "pretrain" in capsys.readouterr().out
    assert main(["pretrain", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--batch-size" in shown
    assert "_size" not in shown.replace("BATCH_SIZE", "").replace("CLIP_SIZE", "").replace("CANVAS_SIZE", "")
    assert main(["--version"]) == 0


def test_finetune_is_resumed_as_its_message_says(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"data: videos\nout: {tmp_path}\nbackbone: random:r3d\nepochs: 7\n")
    config = read_config("finetune", FinetuneConfig, ["--out", str(tmp_path), "--resume"])
    assert (config.data, config.backbone, config.epochs, config.resume) == ("videos", "random:r3d", 7, True)
