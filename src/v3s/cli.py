"""The command line: one verb for each job, one dataclass of options for each verb.

Options are written with dashes (``--batch-size``); in YAML and Python the same names have underscores. A command's
module is imported when the command is called, so that the help answers at once.

====  ====================================================================================
exit  meaning
====  ====================================================================================
0     done
1     refused, failed or nothing usable found: one message on stderr says what and why
2     the command line is wrong
130   stopped by SIGINT; a training has saved what it needs for ``--resume``
141   nothing reads the output any more, as after ``| head``
143   stopped by SIGTERM; the same as 130
====  ====================================================================================
"""

import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any, get_type_hints

from v3s import argv
from v3s.commands.recipes import RECIPES
from v3s.options import closest
from v3s.train.stop import TrainingStoppedError, listen_for_stop

_STDOUT = 1


@dataclass(frozen=True, slots=True)
class Command:
    """A verb.

    Attributes:
        group: where it stands in the help.
        module: where it is: a function of the verb's name, whose first argument is the dataclass of its options.
        summary: its line in the help.
        examples: command lines, without ``v3s``.
    """

    group: str
    module: str
    summary: str
    examples: tuple[str, ...]


COMMANDS = {
    "demo": Command(
        "first steps",
        "v3s.commands.demo",
        "run the full pipeline in minutes, on generated clips or your own, with a report",
        ("demo", "demo my_videos --out demo"),
    ),
    "check": Command(
        "your videos",
        "v3s.commands.check",
        "read every video once and report which are usable",
        ("check my_videos", "check UCF-101 --splits ucfTrainTestlist --out report.jsonl"),
    ),
    "prepare": Command(
        "your videos",
        "v3s.commands.prepare",
        "decode every video once, so that training needs no decoding",
        ("prepare my_videos --out store", "prepare my_videos --out store --short-side 128 --pixel-format jpeg"),
    ),
    "preview": Command(
        "your videos",
        "v3s.commands.preview",
        "show clips of your videos under each transform, with labels",
        ("preview my_videos", "preview my_videos --task ts --num-videos 8 --out speeds.html"),
    ),
    "pretrain": Command(
        "pre-training",
        "v3s.commands.pretrain",
        "train a backbone on videos without labels",
        ("pretrain my_videos --out run", "pretrain --out run --resume"),
    ),
    "evaluate": Command(
        "pre-training",
        "v3s.commands.evaluate",
        "measure both heads of a pre-trained model on other videos",
        ("evaluate other_videos --backbone run", "evaluate other_videos --backbone run --out scores.json"),
    ),
    "audit": Command(
        "pre-training",
        "v3s.commands.audit",
        "measure how much of each label can be read without the content",
        ("audit my_videos", "audit other_videos --backbone run --page audit.html"),
    ),
    "replay": Command(
        "pre-training",
        "v3s.commands.replay",
        "run the batch that gave a NaN again and report where it arose",
        ("replay run", "replay run --device cpu"),
    ),
    "convert": Command(
        "pre-training",
        "v3s.commands.convert",
        "convert the weights of another project's network",
        ("convert vcop.pt --out converted", "convert r3d_18.pth --out converted"),
    ),
    "finetune": Command(
        "what the features are good for",
        "v3s.protocols.finetune",
        "train a backbone to recognise actions, then test it",
        (
            "finetune UCF-101 --splits ucfTrainTestlist --backbone run --out recognizer",
            "finetune UCF-101 --splits ucfTrainTestlist --backbone random:r3d --out scratch",
        ),
    ),
    "probe": Command(
        "what the features are good for",
        "v3s.protocols.probe",
        "classify frozen features: linear probe, neighbours, few labels",
        (
            "probe UCF-101 --splits ucfTrainTestlist --backbone run",
            "probe UCF-101 --splits ucfTrainTestlist --backbone run --few-labels 1,5 --out probe.json",
        ),
    ),
    "retrieve": Command(
        "what the features are good for",
        "v3s.protocols.retrieve",
        "find videos of the same class by nearest neighbours",
        (
            "retrieve UCF-101 --splits ucfTrainTestlist --backbone run",
            "retrieve UCF-101 --splits ucfTrainTestlist --backbone run --page neighbours.html",
        ),
    ),
    "similarity": Command(
        "what the features are good for",
        "v3s.protocols.similarity",
        "decide whether two videos show the same action",
        ("similarity UCF-101 --backbone run", "similarity ASLAN --pairs View2.mat --backbone run"),
    ),
    "explain": Command(
        "what the features are good for",
        "v3s.protocols.explain",
        "show where a network looks in a video (Grad-CAM)",
        ("explain a.mp4 --backbone run", "explain a.mp4 --backbone recognizer --target Archery --out archery"),
    ),
    "speediness": Command(
        "what the features are good for",
        "v3s.protocols.speediness",
        "draw how fast a video looks over its time",
        ("speediness a.mp4 --backbone run", "speediness a.mp4 --backbone run --stride 8 --out fast.html"),
    ),
    "embed": Command(
        "search",
        "v3s.vectors.embed",
        "turn every video into a vector",
        (
            "embed my_videos --backbone run --out vectors",
            "embed my_videos --backbone run --out part1 --shard 1/4",
        ),
    ),
    "merge": Command(
        "search",
        "v3s.vectors.merge",
        "join folders of vectors",
        ("merge part1 part2 part3 part4 --out vectors", "merge old new --out vectors --overwrite"),
    ),
    "index": Command(
        "search",
        "v3s.vectors.index",
        "build an approximate index over vectors (FAISS)",
        ("index vectors", "index vectors --recall-queries 1000 -k 20"),
    ),
    "search": Command(
        "search",
        "v3s.vectors.search",
        "find the videos most similar to one",
        ("search a.mp4 --in vectors", "search a.mp4 --in vectors -k 20 --page found.html"),
    ),
    "reproduce": Command(
        "the paper",
        "v3s.commands.reproduce",
        "run a table of the paper and print its numbers beside ours",
        (
            "reproduce table3 --data UCF-101 --splits ucfTrainTestlist --out tables",
            "reproduce table3 --data my_videos --scale tiny",
        ),
    ),
}

_RECIPE = argv.Option(
    field="recipe",
    names=("--recipe",),
    choices=tuple(RECIPES),
    metavar="NAME",
    group="Attributes",
    help="Settings of that name, which all other options override.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files may hold any bytes
    try:
        with _ended_by_sigterm():
            code = _run(list(sys.argv[1:] if arguments is None else arguments))
            print(end="", flush=True)
            return code
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)  # for the interpreter's own last flush
            return 128 + signal.SIGPIPE
        if isinstance(error, OSError) and error.filename is not None:
            return _refused(f"{os.fsdecode(error.filename)}: {error.strerror}")
        return _refused(str(error))
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which may not be imported yet
            raise
        return _refused(f"{str(error).split('. ')[0]}: choose a smaller --batch-size, or another --device")
    except TrainingStoppedError as stopped:
        return 128 + stopped.number
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("v3s"))
        return 0
    name, *options = words
    if name not in COMMANDS:
        hint = "; a command comes first" if name.startswith("-") else closest(name, COMMANDS)
        return _refused(f"no command is called {name!r}{hint}", see="v3s --help")
    job, kind = load_command(name)
    if not {"-h", "--help"}.isdisjoint(options):
        examples = [f"v3s {example}" for example in COMMANDS[name].examples]
        print(argv.help_text(f"v3s {name}", kind, [*options_of_command(name, kind), argv.HELP_OPTION], examples))
        return 0
    try:
        config = read_config(name, kind, options)
    except argv.UsageError as error:
        return _refused(str(error), see=f"v3s {name} --help")
    return _finish(job(config), config)


def load_command(name: str) -> tuple[Callable[[Any], object], type[Any]]:
    """Import a command: its function, and the dataclass of its options."""
    with listen_for_stop() as stop:  # native code that is imported may drop a KeyboardInterrupt
        job = getattr(import_module(COMMANDS[name].module), name)
    if stop.number == signal.SIGINT:
        raise KeyboardInterrupt
    if stop.number is not None:
        sys.exit(128 + stop.number)
    return job, next(iter(get_type_hints(job).values()))


def read_config(name: str, kind: type[Any], words: Sequence[str]) -> Any:
    """The configuration that words ask for: defaults, then the recipe, then ``--config`` files, then options.

    Raises:
        argv.UsageError: they are wrong.
        ValueError: a value is refused, or there is no run to resume.
    """
    options = options_of_command(name, kind)
    given = argv.parse_words(options, words)
    recipe = RECIPES.get(given.pop("recipe", ""), {})
    values: dict[str, Any] = {}
    for file in given.pop("config", ()):
        values |= argv.read_file(argv.options_of(kind), _at_home(file))
    values = {field: _at_home(value) for field, value in (values | given).items()}
    config = argv.build(kind, recipe | _begun(kind, values) | values)
    if name == "pretrain" and ":" in config.backbone:
        raise ValueError(
            f"backbone {config.backbone!r} names code of your own, which runs from Python only: "
            "v3s.pretrain(config, backbone=your_network())"
        )
    return config


def options_of_command(name: str, kind: type[Any]) -> list[argv.Option]:
    """All options of a command, in the order of its help."""
    options = [*argv.options_of(kind), *([_RECIPE] if name == "pretrain" else []), argv.CONFIG_OPTION]
    return sorted(options, key=lambda option: list(argv.GROUPS).index(option.group))


def _begun(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """With ``--resume``, the run's own configuration, so that ``--out RUN --resume`` is enough."""
    if not values.get("resume") or "out" not in values:
        return {}
    file = Path(values["out"]) / "config.yaml"
    if file.is_file():
        return argv.read_file(argv.options_of(kind), str(file))
    if "data" not in values:
        out = values["out"]
        raise ValueError(f"{out} holds no run to resume: {file} is missing; to start one, give its --data")
    return {}


def _at_home(value: Any) -> Any:
    """Let ``~/`` mean the home folder where no shell has replaced it: in a file, and in ``--data=~/videos``."""
    if isinstance(value, tuple):
        return tuple(map(_at_home, value))
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~/") else value


def _finish(result: object, config: Any) -> int:
    """Print the file that a command returns, or else those that it was asked to write; returns the exit code."""
    asked = [Path(path) for name in ("out", "page") if (path := getattr(config, name, None)) is not None]
    for path in [result] if isinstance(result, Path) else filter(Path.is_file, asked):
        print(path)
    return 1 if getattr(result, "num_usable", None) == 0 else 0  # a scan without a usable video


def _refused(message: str, *, see: str = "") -> int:
    """Say on one line what is wrong, whatever bytes a file's name in it has; returns the exit code."""
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in message)
    print(f"error: {shown}" + (f"\nSee: {see}" if see else ""), file=sys.stderr)
    return 2 if see else 1


def _is_unread() -> bool:
    """Whether nothing reads this process's output any more."""
    poll = select.poll()
    poll.register(_STDOUT, 0)
    return bool(poll.poll(0))


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End like after Ctrl-C, with everything closed, where training does not listen for the signal itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _overview() -> str:
    lines = ["usage: v3s COMMAND [WHAT] [options]"]
    for group, commands in groupby(COMMANDS.items(), key=lambda item: item[1].group):
        lines += ["", f"{group}:", *(f"  {name:<12}{command.summary}" for name, command in commands)]
    return "\n".join(
        [
            *lines,
            "",
            "WHAT is the main input of the command, such as a folder of videos.",
            "v3s COMMAND --help lists its options and has examples.",
        ]
    )
