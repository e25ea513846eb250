"""A dataclass as the options of a command: on the command line, in a YAML file, and in the help.

Each field is an option: ``batch_size: int = 32`` is ``--batch-size N`` on the command line, ``batch_size`` in a file.
What a name and a type do not say stands in ``Annotated``, written as for argparse:

``Annotated[str, "VIDEO"]``
    words before the first option stand for this option
``Annotated[str, "--in"]``
    another name of the option; a field of one letter, such as ``k``, is also ``-k``

The docstring of the class, or of one that it inherits from, says what each option does. Its sections are the groups of
the help, see `GROUPS`.
"""

import re
import shutil
import textwrap
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from inspect import cleandoc
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from v3s.options import closest

_Config = TypeVar("_Config")
Given = list[tuple[str, str]]
"""What is given for an option: each time the name that it is called by, and a text."""

GROUPS = {"Attributes": "options", "More options": "more options", "For ablations": "for ablations"}
"""Sections of a docstring that describe options, in the order of the help, and their titles there."""

NEEDED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
NULL = "tag:yaml.org,2002:null"


class UsageError(ValueError):
    """The command line, or a file that it names, is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option of a command.

    Attributes:
        field: its name in Python and in files.
        names: its names on the command line, the best one first.
        kind: type of its value, or of each of its values: str, int, float or bool.
        choices: the only values, where they are few.
        many: it takes any number of values.
        commas: commas may stand between its values.
        optional: None is a value.
        default: its value where none is given; ``MISSING`` where one must be.
        word: the help's name for words before the first option, where they stand for it.
        metavar: the help's name for its value.
        group: the section of the docstring that describes it.
        help: what it does.
    """

    field: str
    names: tuple[str, ...]
    kind: type[Any] = str
    choices: tuple[str, ...] = ()
    many: bool = False
    commas: bool = False
    optional: bool = False
    default: Any = None
    word: str = ""
    metavar: str = ""
    group: str = "More options"
    help: str = ""

    @property
    def default_text(self) -> str:
        """Its default as the help shows it; empty where the help text itself says it, or where there is none."""
        if self.default is MISSING:
            return "required"
        if self.default is None or self.default is False or self.default in ("", ()):
            return ""
        return ",".join(map(str, self.default)) if isinstance(self.default, tuple) else str(self.default)


CONFIG_OPTION = Option(
    field="config",
    names=("--config",),
    many=True,
    metavar="FILE",
    help="A YAML file of options. The command line overrides it, and so does a later --config.",
)
HELP_OPTION = Option(field="help", names=("-h", "--help"), kind=bool, help="Show this and exit.")


def options_of(kind: type[Any]) -> list[Option]:
    """The options of a dataclass in the order of the help: in each group required ones first, inherited ones last."""
    hints, described = get_type_hints(kind, include_extras=True), _described(kind)
    found = [
        _option(field.name, hints[field.name], field.default, *described.get(field.name, ("Attributes", "")))
        for field in fields(kind)
    ]
    groups, order = list(GROUPS), [*described, *hints]

    def place(option: Option) -> tuple[int, bool, bool, int]:
        required = option.default is MISSING
        return groups.index(option.group), not option.word, not required, order.index(option.field)

    return sorted(found, key=place)


def _option(name: str, hint: Any, default: Any, group: str, text: str) -> Option:
    hint, *extra = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kind = next(each for each in kinds if each is not NoneType)
    many = get_origin(kind) is tuple
    kind = get_args(kind)[0] if many else kind
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    kind = str if choices else kind
    dashed = name.replace("_", "-")
    short = [word for word in extra if word.startswith("-")] + ([f"-{name}"] if len(name) == 1 else [])
    metavar = "NAME" if choices else {bool: "", int: "N", float: "X"}.get(kind, name.upper())
    return Option(
        field=name,
        names=(*short, f"--{dashed}"),
        kind=kind,
        choices=choices,
        many=many,
        commas=many,
        optional=NoneType in kinds,
        default=default,
        word=next((word for word in extra if not word.startswith("-")), ""),
        metavar=f"{metavar},..." if many else metavar,
        group=group,
        help=text,
    )


def _described(kind: type[Any]) -> dict[str, tuple[str, str]]:
    """Section and text of each option in the docstrings of a class and of those that it inherits from."""
    found: dict[str, tuple[str, str]] = {}
    for each in kind.__mro__:
        _, *parts = _sections(each)
        for title, body in zip(parts[::2], parts[1::2], strict=True):
            for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", body, flags=re.MULTILINE):
                if title in GROUPS:
                    found.setdefault(name, (title, " ".join(text.split())))
    return found


def _sections(kind: type[Any]) -> list[str]:
    """A docstring in parts: what stands before the first section, then title and body of each."""
    return re.split(r"^(\S.*):$", cleandoc(kind.__doc__ or ""), flags=re.MULTILINE)


def parse_words(options: Sequence[Option], words: Sequence[str]) -> dict[str, Any]:
    """Read ``[WORD ...] [--name VALUE | --name=VALUE | --flag | --no-flag] ... [-- WORD ...]``.

    Args:
        options: all that there are.
        words: the command line behind the command.

    Returns:
        The values of those that are given, by field.

    Raises:
        UsageError: an option is unknown, given twice, or has no value or a wrong one, or a word belongs to none.
    """
    named = {name: option for option in options for name in option.names}
    flags = {name: (option, "true") for name, option in named.items() if option.kind is bool}
    flags |= {f"--no-{name[2:]}": (option, "false") for name, (option, _) in flags.items() if name.startswith("--")}
    end = words.index("--") if "--" in words else len(words)
    start = next((place for place, word in enumerate(words[:end]) if word.startswith("-")), end)
    given: dict[str, Given] = {}
    for word in (*words[:start], *words[end + 1 :]):
        main = next((option for option in options if option.word), None)
        if main is None:
            raise UsageError(f"{word!r} belongs to no option; give an option's name before it")
        given.setdefault(main.field, []).append((main.word, word))
    left = deque(words[start:end])
    while left:
        word = left.popleft()
        name, equals, text = word.partition("=")
        name = name.replace("_", "-")
        if name in flags and not equals:
            option, text = flags[name]
        elif name in named:
            option = named[name]
            if not equals:
                if not left or left[0].startswith("--") or left[0].partition("=")[0] in named:
                    raise UsageError(f"{name} needs a value; one that begins with a dash is given as {name}=VALUE")
                text = left.popleft()
        elif name.startswith("-"):
            raise UsageError(f"no option is called {name!r}{closest(name, named)}")
        else:
            raise UsageError(f"{word!r} belongs to no option; give an option's name before it")
        given.setdefault(option.field, []).extend((name, part) for part in _parts(option, text))
    return {option.field: _value(option, given[option.field]) for option in options if option.field in given}


def read_file(options: Sequence[Option], file: str) -> dict[str, Any]:
    """Read a YAML file of options.

    Args:
        options: all that there are.
        file: the file.

    Returns:
        The values of those that it has, by field.

    Raises:
        UsageError: it cannot be read, or `parse_yaml` refuses it.
    """
    try:
        return parse_yaml(options, Path(file).read_text(encoding="utf-8"), file)
    except UnicodeDecodeError:
        raise UsageError(f"{file} is no YAML: it is no text") from None
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None


def parse_yaml(options: Sequence[Option], text: str, source: str) -> dict[str, Any]:
    """Read options from YAML. A value is text until its option's type is known: a folder called 2024 needs no quotes.

    Args:
        options: all that there are.
        text: the YAML.
        source: the file that it is from, for messages.

    Returns:
        The values of those that it has, by field.

    Raises:
        UsageError: it is no YAML, or an option is unknown, given twice, or has a wrong value.
    """
    known = {option.field: option for option in options}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{source} is no YAML{where}: {' '.join(problem.split())}") from None
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{source} is no YAML file of options, such as 'epochs: 3'")
    values: dict[str, Any] = {}
    for key, value in node.value:
        name = str(key.value)
        if name not in known:
            raise UsageError(f"{source}: no option is called {name!r}{closest(name, known)}")
        if name in values:
            raise UsageError(f"{source}: {name} is given twice")
        values[name] = _yaml_value(known[name], value, f"{source}: {name}")
    return values


def _yaml_value(option: Option, node: Any, name: str) -> Any:
    if node.tag == NULL and option.optional:
        return None
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not all(isinstance(each, yaml.ScalarNode) and each.tag != NULL for each in nodes) or not (nodes or option.many):
        raise UsageError(f"{name} must be {_needed(option)}")
    texts = [each.value for each in nodes] if nodes != [node] else _parts(option, node.value)
    return _value(option, [(name, text) for text in texts])


def _parts(option: Option, text: str) -> list[str]:
    """The values in one text."""
    if not option.commas:
        return [text]
    return text.split(",") if text else []


def _value(option: Option, given: Given) -> Any:
    if option.many:
        return tuple(_one_value(option, name, text) for name, text in given)
    if len(given) > 1:
        names = " or ".join(dict.fromkeys(name for name, _ in given))
        texts = " and ".join(repr(text) for _, text in given)
        raise UsageError(f"{names} is given more than once, as {texts}")
    return _one_value(option, *given[0])


def _one_value(option: Option, name: str, text: str) -> Any:
    if text == "null" and option.optional and (option.choices or option.kind is not str):
        return None
    try:
        if option.choices and text not in option.choices:
            raise ValueError
        if option.kind is bool:
            return TRUTH[text.lower()]
        value = option.kind(text.replace(".inf", "inf") if option.kind is float else text)  # YAML's infinity is .inf
        if value != value:  # not a number
            raise ValueError
        return value
    except (KeyError, ValueError):
        raise UsageError(f"{name} {'has' if option.many else 'is'} {text!r}; it must be {_needed(option)}") from None


def _needed(option: Option) -> str:
    return f"one of {', '.join(option.choices)}" if option.choices else NEEDED[option.kind]


def build(kind: type[_Config], values: Mapping[str, Any]) -> _Config:
    """A dataclass from the values of its options.

    Raises:
        UsageError: a required one is missing.
    """
    missing = [option for option in options_of(kind) if option.default is MISSING and option.field not in values]
    if missing:
        raise UsageError(f"{' and '.join(option.word or option.names[0] for option in missing)} must be given")
    return kind(**values)


def to_yaml(config: Any, *, without: Collection[str] = ()) -> str:
    """A configuration as YAML that `from_yaml` reads back, less some options, and less None where it is the default."""
    values: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in without and (value is not None or field.default is not None):
            values[field.name] = list(value) if isinstance(value, tuple) else value
    return str(yaml.safe_dump(values, default_flow_style=False, allow_unicode=True, sort_keys=False))


def from_yaml(kind: type[_Config], text: str) -> _Config:
    """The inverse of `to_yaml`."""
    return build(kind, parse_yaml(options_of(kind), text, "the configuration"))


def summary_of(kind: type[Any]) -> list[str]:
    """The paragraphs of a dataclass that say what its command does."""
    return _sections(kind)[0].strip().split("\n\n")


def help_text(program: str, kind: type[Any], options: Sequence[Option], examples: Sequence[str]) -> str:
    """The help of a command.

    Args:
        program: the command as it is called.
        kind: its dataclass, whose docstring says what it does.
        options: all that there are, in order.
        examples: command lines.
    """
    width = min(shutil.get_terminal_size().columns, 100)
    required = [option for option in options if option.default is MISSING]
    usage = [
        f"{each.word}{' ...' * each.many}" if each.word else f"{each.names[0]} {each.metavar}" for each in required
    ]
    lines = [f"usage: {' '.join([program, *usage, '[options]'])}"]
    for paragraph in summary_of(kind):
        lines += ["", *textwrap.wrap(paragraph, width)]
    for section, title in GROUPS.items():
        of_group = [option for option in options if option.group == section]
        lines += ["", f"{title}:"] if of_group else []
        lines += [line for option in of_group for line in _help_lines(option, width)]
    if examples:
        lines += ["", "examples:", *(f"  {line}" for line in examples)]
    return "\n".join(lines)


def _help_lines(option: Option, width: int) -> list[str]:
    names = ", ".join([option.word, *option.names] if option.word else option.names)
    head = f"  {names} {option.metavar}".rstrip()
    notes = [f"one of {', '.join(option.choices)}"] if option.choices else []
    if shown := option.default_text:
        notes.append(shown if shown == "required" else f"default {shown}")
    text = f"{option.help} ({'; '.join(notes)})".lstrip() if notes else option.help
    told = textwrap.wrap(text, width - 26, break_on_hyphens=False, break_long_words=False) or [""]
    if len(head) <= 24:
        return [f"{head:<26}{told[0]}".rstrip(), *(" " * 26 + line for line in told[1:])]
    return [head, *(" " * 26 + line for line in told)]
