"""Write docs/commands.md: every command with its options, from the docstrings of the configurations.

``python docs/make_commands.py``; ``make docs`` runs it first.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

PAGE = Path(__file__).with_name("commands.md")
ROOMS = {
    "commands": "From videos to a trained network",
    "protocols": "The evaluations of the paper",
    "vectors": "Collections of vectors",
}
"""The packages that hold commands, each command in a module of its name."""

INTRODUCTION = """# Commands

This page is generated from the source by `python docs/make_commands.py`; `v3s COMMAND --help` prints the same options.

- The first word after a command is its main input, so `v3s check my_videos` means `v3s check --data my_videos`.
- A flag needs no value: `--resume` means `--resume true`. A list is written with commas: `--few-labels 1,5`.
- `v3s search` has two short forms: `--in` for `--vectors` and `-k` for `--k`.
- `--config FILE` reads any of the options from a YAML file, with underscores in their names (`batch_size: 16`).
  Options on the command line override the file. Every training writes its own options to `config.yaml`.
- `v3s pretrain` also takes `--recipe NAME`: a named set of defaults, such as the paper's for one backbone.
- From Python, every command is a function of its configuration, with the same names:
  `v3s.check(v3s.CheckConfig(data="my_videos"))`.
"""

TYPES = {bool: "flag", int: "integer", float: "number", str: "text"}


def commands() -> dict[str, dict[str, type[Any]]]:
    """Package -> command -> configuration, as the modules of the package define them."""
    found: dict[str, dict[str, type[Any]]] = {room: {} for room in ROOMS}
    for room, configs in found.items():
        for module in pkgutil.iter_modules(importlib.import_module(f"v3s.{room}").__path__):
            name = f"{module.name.capitalize()}Config"
            config = getattr(importlib.import_module(f"v3s.{room}.{module.name}"), name, None)
            if isinstance(config, type) and is_dataclass(config):
                configs[module.name] = config
    return found


def commands_page() -> str:
    """The whole page."""
    contents, sections = [], []
    for room, configs in commands().items():
        contents += [f"\n**{ROOMS[room]}**\n", "| command | what it does |", "|---|---|"]
        for command, config in configs.items():
            contents.append(f"| [`v3s {command}`](#v3s-{command}) | {_cell(_summary(config))} |")
            sections.append(_section(command, config))
    return "\n".join([INTRODUCTION.rstrip(), *contents, "", *sections])


def _section(command: str, config: type[Any]) -> str:
    required = [field.name for field in fields(config) if field.default is field.default_factory is MISSING]
    usage = " ".join([f"v3s {command}", *(f"{_option(name)} {name.upper()}" for name in required)])
    lines = [f"## v3s {command}", "", *_prose(config), f"`{usage}`"]
    for owner, options in _by_owner(config):
        title = "Options" if owner is config else _summary(owner).removesuffix(".")
        lines += ["", f"*{title}*", "", "| option | value | default | meaning |", "|---|---|---|---|"]
        lines += [_row(field, owner, config) for field in options]
    return "\n".join([*lines, ""])


def _by_owner(config: type[Any]) -> Iterator[tuple[type[Any], list[Field[Any]]]]:
    """The options, grouped by the class that declares them: the command's own first, then those that it shares."""
    remaining = {field.name: field for field in fields(config)}
    for owner in config.__mro__:
        names = [name for name in remaining if name in inspect.get_annotations(owner)]
        if names:
            yield owner, [remaining.pop(name) for name in names]


def _row(field: Field[Any], owner: type[Any], config: type[Any]) -> str:
    meaning = next(text for kind in (owner, *config.__mro__) if (text := _meanings(kind).get(field.name)))
    names = {other.name for other in fields(config) if "_" in other.name}
    meaning = re.sub(r"\b[a-z]+(?:_[a-z0-9]+)+\b", lambda word: _named(word[0], names), meaning)
    return f"| `{_option(field.name)}` | {_values(field.type)} | {_default(field)} | {_cell(meaning)} |"


def _meanings(kind: type[Any]) -> dict[str, str]:
    """The entries of ``Attributes:`` in a docstring, each on one line."""
    _, _, attributes = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _summary(kind: type[Any]) -> str:
    return (inspect.getdoc(kind) or "").split("\n", 1)[0]


def _prose(kind: type[Any]) -> list[str]:
    """The docstring up to its attributes, as paragraphs."""
    text, _, _ = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    return [line for paragraph in text.strip().split("\n\n") for line in (" ".join(paragraph.split()), "")]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _named(word: str, names: set[str]) -> str:
    return f"`{_option(word)}`" if word in names else word


def _values(kind: Any) -> str:
    """What an option takes, in words."""
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return "list"
    if choices := [choice for choice in get_args(kind) if choice is not NoneType]:
        return ", ".join(map(_values, choices))
    return TYPES[kind]


def _default(field: Field[Any]) -> str:
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    if value is MISSING:
        return "required"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return "" if value in (None, "") else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(commands_page(), encoding="utf-8")
