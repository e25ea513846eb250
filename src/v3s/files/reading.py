"""Files that v3s reads back: regular files only, and every value is checked against the type of its field.

A file may have been edited, damaged or forged. `checked` is the one place that finds out; ranges are checked by the
dataclasses themselves.
"""

import json
import re
import sys
import types
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from v3s.files.writing import RESTORE, CheckpointError

_T = TypeVar("_T")
_MAX_JSON_BYTES = 1 << 26
_MAX_LINES, MAX_LINE = 5_000_000, 1 << 16  # lines of a list, and characters of one
_NO_TEXT = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
"""Zeros, which no name contains, and halves of characters; the other halves stand for bytes that are not UTF-8."""
_LARGEST = sys.float_info.max  # JSON has numbers of any number of digits
_NAMES = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}


def read_bytes(path: Path, *, max_bytes: int | None = None) -> bytes:
    """Read a regular file; a pipe or a device in its place is refused at once.

    Raises:
        CheckpointError: the file does not exist, is not a regular file, is too large, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: not a regular file; replace it by the file that v3s wrote")
        if max_bytes is not None and path.stat().st_size > max_bytes:
            raise CheckpointError(f"{path}: has {path.stat().st_size:,} bytes, more than the {max_bytes:,} allowed")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error


def read_text(path: Path, *, max_bytes: int | None = None) -> str:
    """Read a regular file of UTF-8 text.

    Raises:
        CheckpointError: see `read_bytes`, or the file is not text.
    """
    try:
        return read_bytes(path, max_bytes=max_bytes).decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 text; save it as UTF-8, or restore it") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: see `read_bytes`, or the file is not a JSON object.
    """
    text = read_text(path, max_bytes=_MAX_JSON_BYTES)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; {RESTORE}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object; {RESTORE}")
    return value


def read_as(kind: type[_T], values: object, source: object) -> _T:
    """A dataclass from the values that a file contains, each checked.

    Args:
        kind: the dataclass.
        values: what the file contains: a JSON object.
        source: the file, for messages.

    Raises:
        CheckpointError: a value is missing, unknown, or not of the type and range of its field.
    """
    try:
        found: _T = checked(kind, values, "")
        return found
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}; {RESTORE}") from error


def parse_as(kind: type[_T], text: str | bytes, source: object) -> _T:
    """A dataclass from a line of JSON, as `read_as`."""
    try:
        values = parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}; {RESTORE}") from error
    return read_as(kind, values, source)


def parse_json(text: str | bytes, *, max_values: int = 2_000_000) -> Any:
    """The value that a JSON text states.

    Raises:
        ValueError: it is not JSON, gives a name in an object twice, or has more values than allowed.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        if sum(map(text.count, "[{,")) > max_values:
            raise ValueError(f"more than {max_values:,} values")
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("not JSON (nested too deeply)") from error
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


def lines_of(text: str) -> Iterator[str]:
    """The lines of a text one by one, also of a text that is nothing but line breaks."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


BLANKS = " \t\r\n"
"""What separates words and lines of a list, as in `str.strip`; other white space may be part of a name."""


def read_lines(path: Path) -> Iterator[str]:
    """Read the lines of a list or a table one by one, as they are; bytes that are not UTF-8 are kept as in file names.

    Text in UTF-16 is known by its first two bytes: spreadsheets write it as "Unicode text".

    Raises:
        CheckpointError: a line is too long, there are too many, or one contains a zero, as only binary files do.
    """
    with path.open("rb") as begun:
        is_utf16 = begun.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE)
    with path.open(encoding="utf-16" if is_utf16 else "utf-8-sig", errors="surrogateescape", newline="") as opened:
        try:
            num_breaks = sum(piece.count("\n") for piece in iter(partial(opened.read, 1 << 20), ""))
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path}: is damaged UTF-16 text ({error.reason}); save it as UTF-8") from error
        if num_breaks > _MAX_LINES:
            raise CheckpointError(f"{path}: has {num_breaks:,} lines, more than the {_MAX_LINES:,} allowed")
        opened.seek(0)
        for number, line in enumerate(opened, start=1):
            if len(line) > MAX_LINE:
                raise CheckpointError(
                    f"{path}, line {number:,}: has {len(line):,} characters, more than the {MAX_LINE:,} allowed"
                )
            if "\0" in line:
                raise CheckpointError(
                    f"{path} is not a text file, so it cannot be a list, and it has no video's file extension; give "
                    "a video, a list or a folder"
                )
            yield line


def read_value(path: Path, name: str, kind: Any) -> Any:
    """One value of a JSON object in a file.

    Args:
        path: the file.
        name: of the value; one in another object has that one's name and a dot before its own.
        kind: the type, as annotated.

    Raises:
        CheckpointError: see `read_json`, or the value is missing or not of this type.
    """
    value: Any = read_json(path)
    try:
        for part in name.split("."):
            if not isinstance(value, dict) or part not in value:
                raise ValueError(f"{name} is missing")
            value = value[part]
        return checked(kind, value, name)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; {RESTORE}") from error


def checked(kind: Any, value: Any, name: str) -> Any:
    """A plain value as a value of a type: a number, text, a literal, a list, a dictionary, a dataclass, a union.

    Args:
        kind: the type, as annotated.
        value: from JSON.
        name: its name in the file, for messages.

    Raises:
        ValueError: the value is not of this type.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _dataclass(kind, value, name)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, name)
    if origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            raise ValueError(f"{name} is {_short(value)}; it must be one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        if len(kinds) == len(value):
            numbered = enumerate(zip(kinds, value, strict=True))
            return tuple(checked(each, item, f"{name}[{place}]") for place, (each, item) in numbered)
    elif origin is list and isinstance(value, list):
        return [checked(arguments[0], item, f"{name}[{place}]") for place, item in enumerate(value)]
    elif origin is dict and isinstance(value, dict):
        return {key: checked(arguments[1], item, f"{name}.{key}") for key, item in value.items()}
    elif kind is float:
        if type(value) in (int, float) and abs(value) <= _LARGEST:
            return value
    elif type(value) is kind is int:
        if abs(value) < 1 << 64:
            return value
    elif type(value) is kind and (kind is bool or (kind is str and is_text(value))):
        return value
    raise ValueError(f"{name} is {_short(value)}; it must be {_describe(kind)}")


def is_text(*texts: str) -> bool:
    """Whether texts consist of whole characters other than zero, and of bytes of names that are not UTF-8."""
    return not any(_NO_TEXT.search(text) for text in texts)


_hints = cache(get_type_hints)


def _dataclass(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{name or 'its content'} is {_short(value)}; it must be an object")
    hints, prefix = _hints(kind), f"{name}." if name else ""
    known = {field.name: field for field in fields(kind)}
    if unknown := [key for key in value if key not in known]:
        raise ValueError(f"{prefix}{unknown[0]} is not known")
    required = [each.name for each in known.values() if each.default is MISSING and each.default_factory is MISSING]
    if missing := [each for each in required if each not in value]:
        raise ValueError(f"{prefix}{missing[0]} is missing")
    return kind(**{key: checked(hints[key], item, f"{prefix}{key}") for key, item in value.items()})


def _one_of(kinds: Sequence[Any], value: Any, name: str) -> Any:
    """A value of a union: the alternatives are None and others, or dataclasses of which "kind" names one."""
    if value is None and types.NoneType in kinds:
        return None
    others = [kind for kind in kinds if kind is not types.NoneType]
    if len(others) > 1:
        by_name = {kind.__name__: kind for kind in others}
        tag = value.get("kind") if isinstance(value, dict) else None
        if not isinstance(tag, str) or tag not in by_name:
            raise ValueError(f"{name}.kind is {_short(tag)}; it must be one of {', '.join(by_name)}")
        others, value = [by_name[tag]], {key: item for key, item in value.items() if key != "kind"}
    return checked(others[0], value, name)


def _describe(kind: Any) -> str:
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        return "a list" if kinds[1:] == (...,) else f"a list of {len(kinds)} values"
    return _NAMES.get(kind, "an object")


def _short(value: object) -> str:
    shown = repr(value) if isinstance(value, str) else json.dumps(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
