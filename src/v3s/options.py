"""Checks of option values: a wrong number, file or name is reported before any work starts."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from math import inf
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "None"}
"""Types in words."""


@dataclass(frozen=True, kw_only=True)
class CheckedOptions:
    """What all configurations of commands inherit from: each value is of the type of its field.

    Raises:
        TypeError: a value is of another type.
        ValueError: it is none of the words that its field takes.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, hint in _hints(kind).items():
            if not _fits(value := getattr(self, name), hint):
                shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
                if isinstance(value, str) and _choices(hint):
                    raise ValueError(f"{name} is {shown}; it must be {_expected(hint)}")
                raise TypeError(f"{name} is {shown}, of type {type(value).__name__}; it must be {_expected(hint)}")


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a type."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _choices(hint: Any) -> tuple[Any, ...]:
    return next((get_args(kind) for kind in _kinds(hint) if get_origin(kind) is Literal), ())


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type: a plain one, None, words, a tuple of any length, or one of several."""
    if len(kinds := _kinds(hint)) > 1:
        return any(_fits(value, kind) for kind in kinds)
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(each, get_args(hint)[0]) for each in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _expected(hint: Any) -> str:
    if len(kinds := _kinds(hint)) > 1:
        return " or ".join(map(_expected, kinds))
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) is tuple:
        return f"a tuple, each value {_expected(get_args(hint)[0])}"
    return EXPECTED[hint]


def as_typed(message: str, names: Mapping[str, str]) -> str:
    """A message about fields for the command line, on which they have other names.

    Args:
        message: names fields before " is ", before their value in brackets, or, if they have an underscore, anywhere.
        names: of each field, on the command line.

    >>> as_typed("warmup is 9; it needs fewer than epochs (3) and batch_size 2", {"epochs": "--epochs", "warmup": "-w"})
    '-w is 9; it needs fewer than --epochs (3) and batch_size 2'
    """

    def name(found: re.Match[str]) -> str:
        word = found[1]
        is_field = word in names and ("_" in word or found[2])
        return f"{names[word]}{found[2]}" if is_field else found[0]

    return re.sub(r"(?<![\w/.\\'\"-])(\w+)(?![\w/.'\"-])( is | \(|)", name, message)


_LONGEST_NAME = 255  # bytes that a file system allows for one name


_RESULTS = (".json", ".jsonl", ".csv", ".html")
_NO_RESULTS = re.compile(
    r"(config|manifest|vectors|store|index|job|explain|cutouts|demo|compare)\.json"
    r"|(metrics|quarantine|marks|videos(\.\d+)?|\d{5,})\.jsonl"
    r"|(labels|to_label|train|test|val|rows|vectors)(-\d+)?\.csv"
)
"""Files of runs, stores and collections, and labels by hand, which have the endings of results."""
_OF_RUN = ("result.json", "report.html")
"""Files that are a run's beside this one, and results elsewhere."""
_RUN = "config.yaml"


def require_files(config: Any, beside: str = "", **endings: str) -> None:
    """Check that output files can be made, before hours of work rather than after; None is allowed.

    Only a result is replaced, by its name: never a video, weights, a run's own files, or labels by hand. The ending
    of a name must be that of a format that is written.

    Args:
        config: the options.
        beside: the ending of a file of the same name that is written beside each, such as ".json".
        endings: by the options that are output files, the endings of the formats that are written: ".csv .jsonl".

    Raises:
        ValueError: one of these options is a folder, lies where no file can be made, would replace what is no result,
            what the command reads or another of its files, or has the ending of no format that is written.
    """
    for name, formats in endings.items():
        if (value := getattr(config, name)) is not None:
            _require_place(name, Path(value))
            if Path(value).is_dir() or value.endswith(("/", os.sep)):
                raise ValueError(f"{name} is {value}, which is a folder; give a file name")
            others = {field.name: getattr(config, field.name) for field in fields(config) if field.name != name}
            for other, given in others.items():
                if isinstance(given, str) and given:
                    _require_apart(name, value, other, given, both_written=other in endings)
            for path in (value, str(Path(value).with_suffix(beside))) if beside else (value,):
                if os.path.lexists(path) and not _is_result(path):
                    what = "which" if path == value else f"but {path}, which is written with it,"
                    raise ValueError(f"{name} is {value}, {what} exists and is not a result; give another file")
            if Path(value).suffix.lower() not in formats.split():
                written = formats.replace(" ", " or ")
                raise ValueError(f"{name} is {value}; its name must end in {written}: no other format is written")


def _is_result(path: str) -> bool:
    """Whether what exists may be replaced: by its name, and by that of the file to which a link leads."""
    place = os.path.realpath(path)
    if os.path.lexists(place) and not os.path.isfile(place):  # a pipe, a device, or a link to itself
        return False
    return all(map(_names_result, (path, place)))


def _names_result(path: str) -> bool:
    name = os.path.basename(path).lower()
    is_of_run = name in _OF_RUN and os.path.isfile(os.path.join(os.path.dirname(path), _RUN))
    return name.endswith(_RESULTS) and not _NO_RESULTS.fullmatch(name) and not is_of_run


def _require_apart(name: str, path: str, other: str, given: str, *, both_written: bool) -> None:
    """Refuse an output that is another output, or an input."""
    place = os.path.realpath(path)
    if both_written and place == os.path.realpath(given):
        raise ValueError(f"{name} and {other} are both {path}; give two files")
    if both_written or not os.path.exists(path) or not os.path.exists(given):
        return
    if os.path.samefile(path, given):
        raise ValueError(f"{name} is {path}, which is also {other} and would be replaced; give another file")


def require_folders(config: Any, *names: str) -> None:
    """Check that output folders can be made or written to, before hours of work rather than after; None is allowed.

    Raises:
        ValueError: one of these options is a file, or lies where no folder can be made.
    """
    for name in names:
        if (value := getattr(config, name)) is not None:
            _require_place(name, Path(value))
            if Path(value).exists() and not Path(value).is_dir():
                raise ValueError(f"{name} is {value}, which is a file; give a folder")


def _require_place(name: str, path: Path) -> None:
    """Check what lies above a path: a new file or folder can be made in the lowest folder that exists."""
    if too_long := [part for part in path.parts if len(os.fsencode(part)) > _LONGEST_NAME]:
        raise ValueError(f"{name} has a name of {len(os.fsencode(too_long[0]))} bytes; give at most {_LONGEST_NAME}")
    above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        raise ValueError(f"{name} is {path}, but {above} is not a folder; give another place")
    if not os.path.lexists(path) and not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"{name} is {path}, but nothing can be written in the folder {above}; give another place")


def require_regular(path: str | Path) -> None:
    """Refuse pipes, devices and folders in place of a file: reading one may wait for ever, or fill the memory.

    A link is followed. What does not exist passes: opening it says so.

    Raises:
        ValueError: the path is of something else than a file.
    """
    if not os.path.isfile(path) and os.path.exists(path):
        kind = "a folder" if os.path.isdir(path) else "a pipe or a device"
        raise ValueError(f"{path} is {kind}; give a regular file")


def absence(path: str | Path) -> str:
    """What to say of a path where nothing is: it may be a link, which a listing shows."""
    return "is a link that leads to no file" if os.path.islink(path) else "does not exist"


def require_positive(config: Any, *names: str) -> None:
    """Check that numbers are greater than 0 and finite; None is allowed.

    Raises:
        ValueError: one of these options is not.
    """
    for name in names:
        if (value := getattr(config, name)) is not None and not 0 < value < inf:
            raise ValueError(f"{name} is {value}; it must be {'finite' if value == inf else 'more than 0'}")


def require_not_negative(config: Any, *names: str) -> None:
    """Check that numbers are 0 or more and finite; None is allowed.

    Raises:
        ValueError: one of these options is not.
    """
    for name in names:
        if (value := getattr(config, name)) is not None and not 0 <= value < inf:
            raise ValueError(f"{name} is {value}; it must be {'finite' if value == inf else '0 or more'}")


_MOST_FPS = 10_000.0


def check_rate(fps: float | None) -> None:
    """Refuse frame rates at which no video is sampled; None is allowed.

    Raises:
        ValueError: the rate is not more than 0, or too large.
    """
    if fps is not None and not 0 < fps <= _MOST_FPS:
        raise ValueError(f"fps is {fps:g}; it must be more than 0, and at most {_MOST_FPS:,.0f}")


_MAX_CLIP_FRAMES, _MAX_CLIP_SIZE, _MAX_CLIP_PIXELS = 10_000, 4096, 1 << 28


def check_clip(num_frames: int, size: int) -> None:
    """Refuse clips that would not fit into memory.

    Raises:
        ValueError: a clip has too many frames, is too large, or has too many pixels in all.
    """
    if num_frames > _MAX_CLIP_FRAMES or size > _MAX_CLIP_SIZE or num_frames * size * size > _MAX_CLIP_PIXELS:
        raise ValueError(
            f"a clip may have at most {_MAX_CLIP_FRAMES:,} frames, {_MAX_CLIP_SIZE:,} pixels per side and "
            f"{_MAX_CLIP_PIXELS:,} pixels in all; got {num_frames:,} frames of {size:,} x {size:,}"
        )


def closest(word: str, names: Iterable[str]) -> str:
    """A suggestion for a mistyped name: " (did you mean '--learning-rate'?)", or an empty string.

    It recognises initials (``--lr``), beginnings of parts (``--rate``), typing errors (``--learing-rate``) and missing
    letters (``--lrate``).
    """
    plain = {name.lstrip("-").replace("_", "-"): name for name in names}
    word = word.lstrip("-").replace("_", "-").lower()
    if not word:
        return ""
    matches = (
        [name for name in plain if word == "".join(part[:1] for part in name.split("-"))]
        or [name for name in plain if name.startswith(word)]
        or [name for name in plain if any(part.startswith(word) for part in name.split("-"))]
        or difflib.get_close_matches(word, plain, n=1, cutoff=0.5)
        or [name for name in plain if re.match(".*".join(map(re.escape, word)), name)]
    )
    hints = " or ".join(repr(plain[name]) for name in matches[:3])
    return f" (did you mean {hints}?)" if hints else ""


class MissingPackageError(ValueError):
    """An optional package is not installed; the message says how to install it."""


def import_extra(name: str, extra: str, purpose: str) -> Any:
    """Import an optional package.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"{purpose} needs {name.partition('.')[0]}, which is not installed ({error}): pip install 'v3s[{extra}]'"
        ) from error


def require_seed(config: Any) -> None:
    """Check the option ``seed``.

    Raises:
        ValueError: no generator takes it.
    """
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"seed is {config.seed}; it must be between 0 and 2**32 - 1")
