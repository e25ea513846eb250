"""The command line: one verb for each job, one dataclass of options for each verb.

Option names have dashes on the command line (``--batch-size``) and underscores in YAML and Python. The module of a
command is imported only when the command runs, so that the help appears at once.

====  ====================================================================================
exit  meaning
====  ====================================================================================
0     success
1     an error, or no usable video: one message on stderr says what failed and why
2     an option, or the command line, is wrong
130   stopped by SIGINT; a training run has saved what ``--resume`` needs
141   the reader of the output is gone, as after ``| head``
143   stopped by SIGTERM; otherwise the same as 130
====  ====================================================================================
"""

import errno
import importlib.metadata
import io
import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any, get_type_hints

from v3s import argv
from v3s.commands import COMMANDS
from v3s.commands.recipes import OWN, RECIPE_OPTION, RecipeError, options_of_recipe
from v3s.options import as_typed, closest
from v3s.train.stop import TrainingStoppedError, listen_for_stop

_STDOUT = 1
_EXIT_WITHOUT_READER = 141  # 128 + SIGPIPE, a signal that Windows does not have


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # it may be limited to ASCII
    if not os.environ.get("COLUMNS", "1").strip("0"):  # with zero columns, rich prints nothing
        del os.environ["COLUMNS"]
    try:
        os.getcwd()  # torch, and all names of files, need it
    except FileNotFoundError:
        return _print_error("the current folder does not exist any more; change to another one")
    try:
        with _exit_on_sigterm(), _no_imports_from_the_current_folder(), _plain_warnings():
            code = _run(list(sys.argv[1:] if arguments is None else arguments))
            print(end="", flush=True)
            return code
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _output_has_no_reader():
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)  # for the last flush by the interpreter
            return _EXIT_WITHOUT_READER
        if isinstance(error, OSError) and error.errno and error.filename is None and _output_is_full():
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)  # as above
            return _print_error(f"standard output cannot be written: {error.strerror}; send it elsewhere")
        if isinstance(error, OSError) and error.filename is not None:
            return _print_error(f"{os.fsdecode(error.filename)}: {error.strerror}")
        return _print_error(str(error))
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which may not be imported yet
            raise
        return _print_error(f"{str(error).split('. ')[0]}: choose a smaller --batch-size, or another --device")
    except TrainingStoppedError as stopped:
        return 128 + stopped.number
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _open_closed_streams() -> None:
    """Let what is printed on a closed stream go nowhere: the next file that is opened would have its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest free number: this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _run(words: Sequence[str]) -> int:
    if words and words[0] == "help":
        words = [*words[1:], "--help"]
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(importlib.metadata.version("v3s"))
        return 0
    name, *options = words
    if name not in COMMANDS:
        hint = "; the command comes before its options" if name.startswith("-") else closest(name, COMMANDS)
        return _print_error(f"unknown command {name!r}{hint}", see="v3s --help")
    job, kind = load_command(name)
    if not {"-h", "--help"}.isdisjoint(options):
        examples = [f"v3s {example}" for example in COMMANDS[name].examples]
        print(argv.help_text(f"v3s {name}", kind, [*options_of_command(name, kind), argv.HELP_OPTION], examples))
        return 0
    try:
        config = read_config(name, kind, options)
    except argv.UsageError as error:
        return _print_error(str(error), see=f"v3s {name} --help")
    except RecipeError:
        raise
    except ValueError as error:
        names = {option.field: option.names[0] for option in options_of_command(name, kind)}
        return _print_error(as_typed(str(error), names), see=f"v3s {name} --help")
    return _print_outputs(job(config), config)


def load_command(name: str) -> tuple[Callable[[Any], object], type[Any]]:
    """Import a command; returns its function and the dataclass of its options."""
    with listen_for_stop() as stop:  # the import of native code may swallow a KeyboardInterrupt
        job = getattr(import_module(COMMANDS[name].module), name)
    if stop.number == signal.SIGINT:
        raise KeyboardInterrupt
    if stop.number is not None:
        sys.exit(128 + stop.number)
    return job, next(iter(get_type_hints(job).values()))


def read_config(name: str, kind: type[Any], words: Sequence[str]) -> Any:
    """Read the configuration of a command; each source overrides those before it.

    The sources are the defaults, the run to resume, the recipe, ``--config`` files and the command line.

    Raises:
        argv.UsageError: the command line or an options file is wrong.
        ValueError: an option has an invalid value, or there is no run to resume.
    """
    options = options_of_command(name, kind)
    from_words = argv.parse_words(options, words)
    recipe = from_words.pop("recipe", None)
    values: dict[str, Any] = {}
    for file in from_words.pop("config", ()):
        values |= argv.read_file(argv.options_of(kind), _expand_home(file))
    values = {field: _expand_home(value) for field, value in (values | from_words).items()}
    of_run = _options_of_run(kind, values)
    if of_run and recipe == OWN:  # it chose when the run began
        recipe = None
        values.pop("minutes", None)
        from_words.pop("minutes", None)
    if recipe == OWN and "out" not in values:  # before the recipe reads the videos
        raise argv.UsageError("--out is required")
    minutes = (values if recipe == OWN else from_words).get("minutes")  # in a file, they may be those of a former plan
    if empty := [option.field for option in options if option.default != "" and values.get(option.field) == ""]:
        raise ValueError(f"{empty[0]} is empty; give what it names")  # as a path, it would be the current folder
    config = argv.build(kind, of_run | options_of_recipe(recipe, values, minutes) | values)
    if name == "pretrain" and ":" in config.backbone:
        raise ValueError(
            f"backbone {config.backbone!r} is your own code, which can be trained only from Python: "
            "v3s.pretrain(config, backbone=your_network())"
        )
    return config


def options_of_command(name: str, kind: type[Any]) -> list[argv.Option]:
    """All options of a command, in the order of the help."""
    options = [*argv.options_of(kind), *([RECIPE_OPTION] if name == "pretrain" else []), argv.CONFIG_OPTION]
    return sorted(options, key=lambda option: list(argv.GROUPS).index(option.group))


def _options_of_run(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """With ``--resume``, the options that the run was started with, so that ``--out RUN --resume`` is enough."""
    if not values.get("resume") or "out" not in values:
        return {}
    file = Path(values["out"]) / "config.yaml"
    if file.is_file():
        return argv.former_values(kind) | argv.read_file(argv.options_of(kind), str(file))
    if "data" not in values:
        raise ValueError(f"{values['out']} is not a run to resume: {file} is missing; to start a new run, give --data")
    return {}


def _expand_home(value: Any) -> Any:
    """Replace ``~/`` by the home folder if no shell has done so: in a file, and in ``--data=~/videos``."""
    if isinstance(value, tuple):
        return tuple(map(_expand_home, value))
    if not (isinstance(value, str) and value.startswith("~/")):
        return value
    try:
        return str(Path(value).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{value}: this user has no home folder; give the whole path") from error


def _print_outputs(result: object, config: Any) -> int:
    """Print the file that a command returns, or else its output files; returns the exit code."""
    requested = [Path(path) for name in ("out", "events", "page") if (path := getattr(config, name, None)) is not None]
    for path in [result] if isinstance(result, Path) else filter(Path.is_file, requested):
        _print_path(path)
    return 1 if getattr(result, "num_usable", None) == 0 else 0  # a scan without a usable video


def _print_path(path: Path) -> None:
    """Print the name of a file: as text on a terminal, byte by byte for another program."""
    from v3s.files.text import as_text

    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        print(as_text(str(path)))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")


def _print_error(message: str, *, see: str = "") -> int:
    """Print an error on one line, whatever bytes a file name in it contains; returns the exit code."""
    from v3s.files.remote.address import without_secrets
    from v3s.files.text import as_text

    print(f"error: {as_text(without_secrets(message))}" + (f"\nSee: {see}" if see else ""), file=sys.stderr)
    return 2 if see else 1


def _output_is_full() -> bool:
    """Whether nothing more can be printed, as where the disk is full; a line break is printed if it can."""
    try:
        os.write(_STDOUT, b"\n")
    except OSError as error:
        return error.errno != errno.EPIPE
    return False


def _output_has_no_reader() -> bool:
    """Whether the reader of this process's output is gone."""
    poll = select.poll()
    poll.register(_STDOUT, 0)
    return bool(poll.poll(0))


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Exit on SIGTERM as on Ctrl-C, with everything closed; a training run handles the signal itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _no_imports_from_the_current_folder() -> Iterator[None]:
    """Let no process that a command starts import from the current folder: ``python -c``, as used for that, would."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        os.environ.pop("PYTHONSAFEPATH")
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings of this package as one line each, without the place in the code."""
    before = warnings.formatwarning

    def shown(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        is_own = Path(filename).is_relative_to(Path(__file__).parent)
        return f"warning: {message}\n" if is_own else before(message, category, filename, lineno, line)

    warnings.formatwarning = shown
    try:
        yield
    finally:
        warnings.formatwarning = before


def _overview() -> str:
    lines = ["usage: v3s COMMAND [WHAT] [options]"]
    for group, commands in groupby(COMMANDS.items(), key=lambda item: item[1].group):
        lines += ["", f"{group}:", *(f"  {name:<12}{command.summary}" for name, command in commands)]
    lines += ["", "WHAT is the main input of the command, such as a folder of videos."]
    return "\n".join([*lines, "v3s COMMAND --help shows the options of a command, with examples."])
