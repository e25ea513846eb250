"""The command line: one verb for each job, one dataclass for each verb.

Options are written with dashes (``--batch-size``); in YAML and Python the same names have underscores.

====  ====================================================================================
exit  meaning
====  ====================================================================================
0     done
1     refused, failed or nothing usable found: one message on stderr says what and why
2     the command line is wrong
130   stopped by SIGINT; a training has saved what it needs for ``--resume``
143   stopped by SIGTERM; the same
====  ====================================================================================
"""

import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import pairwise, takewhile, zip_longest
from pathlib import Path
from typing import Any, NoReturn, get_origin

import av.logging
import torch
from jsonargparse import ArgumentParser

from v3s.commands.audit import AuditConfig, audit
from v3s.commands.check import CheckConfig, check
from v3s.commands.convert import ConvertConfig, convert
from v3s.commands.demo import DemoConfig, demo
from v3s.commands.evaluate import EvaluateConfig, evaluate
from v3s.commands.prepare import PrepareConfig, prepare
from v3s.commands.pretrain import pretrain
from v3s.commands.pretrain_setup import PretrainConfig
from v3s.commands.preview import PreviewConfig, preview
from v3s.commands.recipes import RECIPES
from v3s.commands.replay import ReplayConfig, replay
from v3s.commands.reproduce import ReproduceConfig, reproduce
from v3s.options import closest
from v3s.protocols.explain import ExplainConfig, explain
from v3s.protocols.finetune import FinetuneConfig, finetune
from v3s.protocols.probe import ProbeConfig, probe
from v3s.protocols.retrieve import RetrieveConfig, retrieve
from v3s.protocols.similarity import SimilarityConfig, similarity
from v3s.protocols.speediness import SpeedinessConfig, speediness
from v3s.train.stop import TrainingStoppedError
from v3s.vectors.embed import EmbedConfig, embed
from v3s.vectors.index import IndexConfig, index
from v3s.vectors.merge import MergeConfig, merge
from v3s.vectors.search import SearchConfig, search


class Parser(ArgumentParser):
    """An argument parser whose options are shown and taken with dashes, and whose errors are one line."""

    files: str = ""
    """The ``--config`` files that it reads, for its errors."""

    def format_help(self, formatter: Any = None) -> str:
        """Help with dashes in the options' names, which says once what the command does."""
        again = f"\n{(self.description or '').removesuffix('.')}:\n"
        text = super().format_help(formatter).replace(again, "\n")
        return _dashed(text).replace(" {true,false}", "")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line, with the option that was probably meant, and exit with 2."""
        text = " ".join(str(message).split())
        if wrong := _WRONG_VALUE.match(text):
            name, kind, choices, value = wrong.groups()
            text = f"--{name} is {value}; it must be {_KINDS.get(kind, kind) or f'one of {choices}'}"
        elif unknown := re.match(r"Option '([\w.-]+)' is not accepted", text):
            names = [option.removeprefix("--") for option in self._option_string_actions]
            hint = closest(unknown[1].replace("-", "_"), names)
            text = f"{self.files}: {self.prog} has no option {unknown[1]!r}{hint}"
        elif unknown := re.match(r"[Uu]nrecognized arguments: (\S+)", text):
            is_name = unknown[1].startswith("-")
            text += closest(unknown[1], self._option_string_actions) if is_name else "; give an option's name before it"
        elif text.startswith("the following arguments are required: "):
            text = re.sub(r"(?<=[:,] )", "--", text)
        text = re.sub(r"^(?:Problems parsing|Unexpected) config:", f"{self.files} is no YAML file of options:", text)
        text = re.sub(r'Parser key "([\w.]+)":', r"--\1:", text)
        self.exit(2, f"error: {_dashed(text)}\nSee: {self.prog} --help\n")


_WRONG_VALUE = re.compile(
    r"""Parser key "(\w+)":.*?Expected an? (?:<class '(\w+)'>|typing\.Literal\[(.*?)\]).*(?:Got|Given) value: (.*)"""
)
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "tuple": "a list, such as [1,2]"}


def _dashed(text: str) -> str:
    return re.sub(r"(?<![\w/])--[a-z_0-9]+", lambda found: found[0].replace("_", "-"), text)


def _underscored(argument: str) -> str:
    return re.sub(r"^--[a-z0-9-]+", lambda found: "--" + found[0][2:].replace("-", "_"), argument)


@dataclass(frozen=True, slots=True)
class Command:
    """A verb: its configuration's type, what it runs, and its line in the help."""

    config: type[Any]
    run: Callable[[Any], int]
    summary: str


def _finishing(job: Callable[[Any], object]) -> Callable[[Any], int]:
    """A job as a command: it prints the file that it returns, or those that it was asked to write, and exits with 0."""

    def run(config: Any) -> int:
        result = job(config)
        asked = [Path(path) for name in ("out", "page") if (path := getattr(config, name, None)) is not None]
        for path in [result] if isinstance(result, Path) else filter(Path.is_file, asked):
            print(path)
        return 0

    return run


def _pretrain(config: PretrainConfig) -> int:
    if ":" in config.backbone:
        raise ValueError(
            f"backbone {config.backbone!r} names code of your own, which is run from Python only: "
            "v3s.commands.pretrain(config, backbone=your_network())"
        )
    pretrain(config)
    return 0


def _check(config: CheckConfig) -> int:
    found = check(
        config.data,
        splits=config.splits,
        split=config.split,
        subset=config.subset,
        allow_missing=config.allow_missing,
        min_frames=config.min_frames,
        out=None if config.out is None else Path(config.out),
        workers=config.workers,
    )
    if config.out is not None:
        print(config.out)
    return 0 if found.num_usable else 1


COMMANDS = {
    "demo": Command(
        DemoConfig, _finishing(demo), "the whole road in minutes, on clips it makes or on yours, with a report"
    ),
    "check": Command(CheckConfig, _check, "read every video once and say which are usable"),
    "prepare": Command(PrepareConfig, _finishing(prepare), "decode every video once, to train without decoding"),
    "preview": Command(PreviewConfig, _finishing(preview), "show your videos under each transform, with labels"),
    "pretrain": Command(PretrainConfig, _pretrain, "train a backbone on videos without labels"),
    "evaluate": Command(EvaluateConfig, _finishing(evaluate), "measure both heads of a trained model on other videos"),
    "audit": Command(AuditConfig, _finishing(audit), "how much of each label can be read without looking at content"),
    "convert": Command(ConvertConfig, _finishing(convert), "take the weights of another project's network"),
    "replay": Command(ReplayConfig, _finishing(replay), "run the batch that gave a NaN again, and say where it arose"),
    "finetune": Command(FinetuneConfig, _finishing(finetune), "train a backbone to recognise actions, and test it"),
    "probe": Command(ProbeConfig, _finishing(probe), "classify frozen features: linear probe, neighbours, few labels"),
    "retrieve": Command(RetrieveConfig, _finishing(retrieve), "find videos of the same class by nearest neighbours"),
    "similarity": Command(SimilarityConfig, _finishing(similarity), "tell whether two videos show the same action"),
    "embed": Command(EmbedConfig, _finishing(embed), "turn every video into a vector"),
    "reproduce": Command(ReproduceConfig, _finishing(reproduce), "run a table of the paper, its numbers beside ours"),
    "merge": Command(MergeConfig, _finishing(merge), "put folders of vectors together: v3s merge A B --out ALL"),
    "search": Command(SearchConfig, _finishing(search), "find the videos most like one: v3s search a.mp4 --in VECTORS"),
    "index": Command(IndexConfig, _finishing(index), "build an approximate index over vectors (FAISS)"),
    "explain": Command(ExplainConfig, _finishing(explain), "show where a network looks in a video (Grad-CAM)"),
    "speediness": Command(SpeedinessConfig, _finishing(speediness), "draw how fast a video seems over its time"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    av.logging.set_level(None)
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_overview())
        return 0 if given else 2
    if given[0] == "--version":
        from importlib.metadata import version

        print(version("v3s"))
        return 0
    name, *options = given
    if name not in COMMANDS:
        print(f"error: no command is called {name!r}{closest(name, COMMANDS)}; see: v3s --help", file=sys.stderr)
        return 2
    command = COMMANDS[name]
    try:
        with _ended_by_sigterm():
            return command.run(read_config(name, command.config, options))
    except (ValueError, OSError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{error.filename}: {error.strerror}"
        print(f"error: {text.encode(errors='backslashreplace').decode()}", file=sys.stderr)  # names may hold any bytes
        return 1
    except torch.OutOfMemoryError as error:
        text = str(error).split(". ")[0]
        print(f"error: {text}: choose a smaller --batch-size, or another --device", file=sys.stderr)
        return 1
    except TrainingStoppedError as stopped:
        return 128 + stopped.number
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


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


def read_config(name: str, kind: type[Any], options: Sequence[str]) -> Any:
    """The configuration that options ask for: defaults, then the recipe, then ``--config`` files, then options."""
    parser = Parser(prog=f"v3s {name}", description=_first_line(kind))
    parser.add_argument("--config", action="config", help="A YAML file with any of these options.")
    parser.add_class_arguments(kind)
    given = _with_lists(kind, _with_flags(kind, [_underscored(option) for option in options]))
    given = _positional(kind, given)
    if "resume" in _names(kind):
        given = _resumed(given)
    if kind is PretrainConfig:
        parser.add_argument("--recipe", choices=sorted(RECIPES), help="Settings of that name as defaults.")
        for recipe in _values_of("--recipe", given)[-1:]:
            parser.set_defaults(RECIPES.get(recipe, {}))
    parser.files = " or ".join(_values_of("--config", given))
    values = parser.parse_args(given)
    return kind(
        **{name: _at_home(value) for name, value in values.as_dict().items() if name not in ("config", "recipe")}
    )


POSITIONAL = ("query", "study", "table", "video", "data", "parts", "run", "vectors", "weights")
"""Words before the first option stand for the first of these that a command has."""


def worked_on(kind: type[Any]) -> str:
    """The option that words before the first option stand for."""
    return next(name for name in POSITIONAL if name in _names(kind))


def _names(kind: type[Any]) -> set[str]:
    return {field.name for field in fields(kind)}


def _positional(kind: type[Any], given: list[str]) -> list[str]:
    """Let ``check DIR``, ``search QUERY --in VECTORS -k 10`` and ``merge A B --out ALL`` stand for their long forms."""
    name, names = worked_on(kind), _names(kind)
    short = {short: f"--{long}" for short, long in (("--in", "vectors"), ("-k", "k")) if long in names}
    words = list(takewhile(lambda word: not word.startswith("-"), given))
    options = [short.get(word, word) for word in given[len(words) :]]
    if not words:
        return options
    return [f"--{name}={json.dumps(words) if name == 'parts' else ' '.join(words)}", *options]


def _first_line(kind: type[Any]) -> str:
    return (kind.__doc__ or "").split("\n")[0]


def _with_flags(kind: type[Any], given: list[str]) -> list[str]:
    """Let ``--resume`` mean ``--resume=true``."""
    flags = {f"--{field.name}" for field in fields(kind) if field.type is bool}
    return [
        f"{option}=true" if option in flags and value not in ("true", "false") else option
        for option, value in zip_longest(given, given[1:])
    ]


def _with_lists(kind: type[Any], given: list[str]) -> list[str]:
    """Let ``--few-labels 1,5`` mean ``--few-labels [1,5]``."""
    lists = {f"--{field.name}" for field in fields(kind) if get_origin(field.type) is tuple}
    words = [part for word in given for part in (word.split("=", 1) if word.partition("=")[0] in lists else [word])]
    return [
        f"[{word}]" if before in lists and not word.startswith("[") else word
        for before, word in zip(["", *words], words, strict=False)
    ]


def _at_home(value: Any) -> Any:
    """Let ``~/`` mean the home folder where no shell has replaced it: in a file, and in ``--data=~/videos``."""
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~/") else value


def _resumed(given: list[str]) -> list[str]:
    """With ``--resume``, the run's own configuration comes first, so that ``--out RUN --resume`` is enough."""
    if "--resume=true" not in given or not (out := _values_of("--out", given)):
        return given
    file = Path(out[-1]) / "config.yaml"
    if not file.is_file():
        if not any(option.startswith(("--data", "--config")) for option in given):
            raise ValueError(f"{out[-1]} holds no run to go on with: {file} is missing; to begin one, give its --data")
        return given
    return ["--config", str(file), *given]


def _values_of(option: str, given: list[str]) -> list[str]:
    joined = [f"{name}={value}" for name, value in pairwise(given) if name == option]
    return [word.partition("=")[2] for word in (*joined, *given) if word.startswith(f"{option}=")]


def _overview() -> str:
    lines = [f"  {name:<12}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: v3s COMMAND [WHAT] [options]",
            "",
            "commands:",
            *lines,
            "",
            "WHAT stands for what the command works on: --data, or --video, --run, --study, --vectors, --weights.",
            "v3s COMMAND --help lists its options.",
        ]
    )
