"""Command options from a dataclass: on the command line, in a YAML file and in the help.

Each field is an option: ``batch_size: int = 32`` is ``--batch-size N`` on the command line, ``batch_size`` in a file.
``Annotated`` adds what the name and the type do not say, written as for argparse:

``Annotated[str, "VIDEO"]``
    words before the first option are values of this option
``Annotated[str, "--in"]``
    another name for the option; a field whose name is one letter, such as ``k``, is also ``-k``

The docstring of the class, or of a class that it inherits from, describes each option. Its sections become the groups
of the help; see `GROUPS`.
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

from v3s.options import EXPECTED, closest, require_regular

_Config = TypeVar("_Config")
RawValues = list[tuple[str, str]]
"""The values of one option before conversion: (option name as typed, text) pairs."""

GROUPS = {"Attributes": "options", "More options": "more options", "For ablations": "for ablations"}
"""Docstring sections that describe options, in the order of the help, and their titles in the help."""

BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
NULL = "tag:yaml.org,2002:null"
_MAX_FILE_LENGTH = 100_000  # reading YAML takes a second for so much


class UsageError(ValueError):
    """The command line, or an options file named on it, is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option of a command.

    Attributes:
        field: its name in Python and in files.
        names: its names on the command line, the preferred name first.
        kind: type of its value, or of each of its values: str, int, float or bool.
        choices: the allowed values, if they are limited; else empty.
        many: it takes any number of values.
        commas: its values are separated by commas or spaces.
        optional: its value may be None.
        default: its default value; ``MISSING`` if the option is required.
        word: name in the help for words before the first option, if they are values of this option; else empty.
        metavar: name in the help for its value.
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
        """Its default as shown in the help; empty if there is none or the help text states it."""
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
    help="A YAML file of options. A later --config overrides it, and the command line overrides both.",
)
HELP_OPTION = Option(field="help", names=("-h", "--help"), kind=bool, help="Show this help and exit.")


def options_of(kind: type[Any]) -> list[Option]:
    """The options of a dataclass in the order of the help: in each group, required first and inherited last."""
    hints, described = get_type_hints(kind, include_extras=True), _described(kind)
    options = [
        _option(field.name, hints[field.name], field.default, *described.get(field.name, ("Attributes", "")))
        for field in fields(kind)
    ]
    groups, order = list(GROUPS), [*described, *hints]

    def place(option: Option) -> tuple[int, bool, bool, int]:
        required = option.default is MISSING
        return groups.index(option.group), not option.word, not required, order.index(option.field)

    return sorted(options, key=place)


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
    """Section and text of each option, from the docstrings of a class and the classes it inherits from."""
    described: dict[str, tuple[str, str]] = {}
    for each in kind.__mro__:
        _, *parts = _sections(each)
        for title, body in zip(parts[::2], parts[1::2], strict=True):
            for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", body, flags=re.MULTILINE):
                if title in GROUPS:
                    described.setdefault(name, (title, " ".join(text.split())))
    return described


def _sections(kind: type[Any]) -> list[str]:
    """A docstring in parts: the text before the first section, then title and body of each section."""
    return re.split(r"^(\S.*):$", cleandoc(kind.__doc__ or ""), flags=re.MULTILINE)


def parse_words(options: Sequence[Option], words: Sequence[str]) -> dict[str, Any]:
    """Read ``[WORD ...] [--name VALUE[,VALUE ...] | --name=VALUE | --flag | --no-flag] ... [-- WORD ...]``.

    Args:
        options: all options of the command.
        words: the command line after the name of the command.

    Returns:
        The values of the options on the command line, by field.

    Raises:
        UsageError: an option is unknown, given twice, has no value or an invalid one, or a word belongs to no option.
    """
    named = {name: option for option in options for name in option.names}
    flags = {name: (option, "true") for name, option in named.items() if option.kind is bool}
    flags |= {f"--no-{name[2:]}": (option, "false") for name, (option, _) in flags.items() if name.startswith("--")}
    end = words.index("--") if "--" in words else len(words)
    start = next((place for place, word in enumerate(words[:end]) if word.startswith("-")), end)
    raw: dict[str, RawValues] = {}
    main = next((option for option in options if option.word), None)
    for word in (*words[:start], *words[end + 1 :]):
        if main is None:
            raise UsageError(f"{word!r} does not belong to any option; put an option name before it")
        raw.setdefault(main.field, []).append((main.word, word))
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
                    raise UsageError(f"{name} needs a value; if the value begins with a dash, write {name}=VALUE")
                text = left.popleft()
                while option.commas and left and not left[0].startswith("-"):
                    text += f",{left.popleft()}"
        elif name.startswith("-"):
            hint = f"; the file is ./{word}" if Path(word).exists() else closest(name, named)
            raise UsageError(f"unknown option {name!r}{hint}")
        else:
            hint = f"; {main.word} comes before the first option" if main else ""
            raise UsageError(f"{word!r} does not belong to any option; put an option name before it{hint}")
        raw.setdefault(option.field, []).extend((name, part) for part in _parts(option, text))
    return {option.field: _value(option, raw[option.field]) for option in options if option.field in raw}


def read_file(options: Sequence[Option], file: str) -> dict[str, Any]:
    """Read a YAML file of options.

    Args:
        options: all options that the file may set.
        file: the file.

    Returns:
        The values of the options in the file, by field.

    Raises:
        UsageError: the file cannot be read, or `parse_yaml` reports an error in it.
        ValueError: it is not a regular file.
    """
    require_regular(file)
    try:
        with Path(file).open(encoding="utf-8") as opened:
            return parse_yaml(options, opened.read(_MAX_FILE_LENGTH + 1), file)
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not valid YAML: it is not UTF-8 text") from None
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None


class _Loader(yaml.SafeLoader):
    """Refuses early what is nested deeper than a list in a mapping: the time to read it grows with the square."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > 4:
            raise yaml.YAMLError("nested too deeply; an option is one value or a list of values")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse_yaml(options: Sequence[Option], text: str, source: str) -> dict[str, Any]:
    """Read options from YAML. A value is text until its option's type is known: a folder called 2024 needs no quotes.

    Args:
        options: all options that the text may set.
        text: the YAML.
        source: the file that the text is from, for messages.

    Returns:
        The values of the options in the text, by field.

    Raises:
        UsageError: the text is not valid YAML, or an option is unknown, given twice, or has an invalid value.
    """
    known = {option.field: option for option in options}
    if len(text) > _MAX_FILE_LENGTH:
        raise UsageError(f"{source} is not a valid options file: it has more than {_MAX_FILE_LENGTH:,} characters")
    try:
        node = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        place = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{source} is not valid YAML{place}: {' '.join(problem.split())}") from None
    if not isinstance(node, yaml.MappingNode | None):
        raise UsageError(f"{source} is not a valid options file; it must contain lines such as 'epochs: 3'")
    values: dict[str, Any] = {}
    for key, value in node.value if node else ():
        name = str(key.value)
        if name not in known:
            raise UsageError(f"{source}: unknown option {name!r}{closest(name, known)}")
        if name in values:
            raise UsageError(f"{source}: {name} is given twice")
        values[name] = _yaml_value(known[name], value, f"{source}: {name}")
    return values


def _yaml_value(option: Option, node: Any, name: str) -> Any:
    if node.tag == NULL and option.optional:
        return None
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not all(isinstance(each, yaml.ScalarNode) and each.tag != NULL for each in nodes) or not (nodes or option.many):
        raise UsageError(f"{name} must be {_expected(option)}")
    texts = [each.value for each in nodes] if nodes != [node] else _parts(option, node.value)
    return _value(option, [(name, text) for text in texts])


def _parts(option: Option, text: str) -> list[str]:
    """The values in one text."""
    return [part for part in text.split(",") if text] if option.commas else [text]


def _value(option: Option, raw: RawValues) -> Any:
    if option.many:
        return tuple(_one_value(option, name, text) for name, text in raw)
    if len(raw) > 1:
        names, texts = " or ".join(dict.fromkeys(name for name, _ in raw)), [text for _, text in raw]
        hint = f"; {option.word} is what comes before the first option" if option.word in dict(raw) else ""
        hint = f"; write one pattern, '{{{','.join(texts)}}}'" if option.word == "DATA" else hint
        raise UsageError(f"{names} is given more than once: {' and '.join(map(repr, texts))}{hint}")
    return _one_value(option, *raw[0])


def _one_value(option: Option, name: str, text: str) -> Any:
    if text == "null" and option.optional and (option.choices or option.kind is not str):
        return None
    try:
        if option.choices and text not in option.choices:
            raise ValueError
        if option.kind is bool:
            return BOOLEANS[text.lower()]
        value = option.kind(text.replace(".inf", "inf") if option.kind is float else text)  # YAML's infinity is .inf
        if value != value:  # not a number
            raise ValueError
        return value
    except (KeyError, ValueError):
        problem = f"contains {text!r}; each value" if option.many else f"is {text!r}; it"
        raise UsageError(f"{name} {problem} must be {_expected(option)}") from None


def _expected(option: Option) -> str:
    return f"one of {', '.join(option.choices)}" if option.choices else EXPECTED[option.kind]


def build(kind: type[_Config], values: Mapping[str, Any], source: str = "") -> _Config:
    """Create a configuration from the values of its options.

    Raises:
        UsageError: a required option is missing.
    """
    missing = [option for option in options_of(kind) if option.default is MISSING and option.field not in values]
    if missing:
        names = " and ".join(option.word or option.names[0] for option in missing)
        raise UsageError(f"{source}{names} {'is' if len(missing) == 1 else 'are'} required")
    return kind(**values)


def to_yaml(config: Any, *, without: Collection[str] = ()) -> str:
    """A configuration as YAML for `from_yaml`, without the given options and without defaults that are None."""
    values: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in without and (value is not None or field.default is not None):
            values[field.name] = list(value) if isinstance(value, tuple) else value
    return str(yaml.safe_dump(values, default_flow_style=False, allow_unicode=True, sort_keys=False))


def from_yaml(kind: type[_Config], text: str, source: str = "the configuration") -> _Config:
    """The inverse of `to_yaml`, also for text that an earlier version wrote; messages name the source."""
    return build(kind, former_values(kind) | parse_yaml(options_of(kind), text, source), f"{source}: ")


def former_values(kind: type[Any]) -> dict[str, Any]:
    """The values of options for a run that was started before these existed: what was done then, ``kind.former``."""
    known = {field.name for field in fields(kind)}
    return {name: value for name, value in getattr(kind, "former", {}).items() if name in known}


def summary_of(kind: type[Any]) -> list[str]:
    """The paragraphs of a dataclass's docstring that describe its command."""
    return _sections(kind)[0].strip().split("\n\n")


def help_text(program: str, kind: type[Any], options: Sequence[Option], examples: Sequence[str]) -> str:
    """The help of a command.

    Args:
        program: the command as the user types it.
        kind: its dataclass, whose docstring describes the command.
        options: all options of the command, in order.
        examples: command lines.
    """
    width = min(max(shutil.get_terminal_size().columns, 40), 100)
    required = [each for each in options if each.default is MISSING]
    usage = [f"{one.word}{' ...' * one.many}" if one.word else f"{one.names[0]} {one.metavar}" for one in required]
    lines = [f"usage: {' '.join([program, *usage, '[options]'])}"]
    for paragraph in summary_of(kind):
        lines += ["", *textwrap.wrap(paragraph, width, break_on_hyphens=False)]
    for section, title in GROUPS.items():
        of_group = [option for option in options if option.group == section]
        lines += ["", f"{title}:"] if of_group else []
        lines += [line for option in of_group for line in _help_lines(option, width)]
    lines += ["", "examples:", *(f"  {line}" for line in examples)] if examples else []
    return "\n".join(lines)


def _help_lines(option: Option, width: int) -> list[str]:
    names = ", ".join([option.word, *option.names] if option.word else option.names)
    head = f"  {names} {option.metavar}".rstrip()
    notes = [f"one of {', '.join(option.choices)}"] if option.choices else []
    if shown := option.default_text:
        notes.append(shown if shown == "required" else f"default {shown}")
    text = f"{option.help} ({'; '.join(notes)})".lstrip() if notes else option.help
    wrapped = textwrap.wrap(text, width - 26, break_on_hyphens=False, break_long_words=False) or [""]
    if len(head) <= 24:
        return [f"{head:<26}{wrapped[0]}".rstrip(), *(" " * 26 + line for line in wrapped[1:])]
    return [head, *(" " * 26 + line for line in wrapped)]
