"""Write the generated pages: ``python docs/make_commands.py`` (``make docs`` runs it).

These are docs/commands.md, a page for each command in docs/commands/, and docs/llms.txt, the contents of the site for
language models.
"""

import re
from collections.abc import Sequence
from inspect import cleandoc, getdoc
from itertools import groupby
from pathlib import Path

from v3s import argv
from v3s.cli import load_command, options_of_command
from v3s.commands import COMMANDS

DOCS = Path(__file__).parent
_MOST_CHOICES = 4  # more of them would make the column of the options too wide
INTRODUCTION = """# Commands

This page and those of the commands are written by `python docs/make_commands.py`; `v3s COMMAND --help` prints the
same options.

- The first word after a command is its main input: `v3s check my_videos` means `v3s check --data my_videos`.
- A flag needs no value: `--resume`; `--no-resume` or `--resume=false` takes it back. A list is written with commas or
  spaces: `--few-labels 1,5`.
- `--config FILE` reads any of the options from a YAML file, with underscores in their names (`batch_size: 16`).
  Options on the command line override the file. Every training writes its own options to `config.yaml`.
- From Python, every command is a function of its configuration, with the same names:
  `v3s.check(v3s.CheckConfig(data="my_videos"))`.
"""
ERRORS = """An error is one line on stderr: what was given, what is needed, which file, and what to do. The
command ends with exit code 1, or 2 if an option is wrong. [Troubleshooting](../troubleshooting.md) lists messages.
"""


def generated_pages() -> dict[Path, str]:
    """The text of every generated file."""
    pages = {DOCS / "commands.md": _overview()}
    return pages | {DOCS / "commands" / f"{name}.md": _page(name) for name in COMMANDS} | {DOCS / "llms.txt": _llms()}


def _overview() -> str:
    lines = [INTRODUCTION.rstrip()]
    for group, commands in groupby(COMMANDS.items(), key=lambda item: item[1].group):
        lines += [f"\n**{group.capitalize()}**\n", "| command | what it does |", "|---|---|"]
        lines += [f"| [`v3s {name}`](commands/{name}.md) | {command.summary} |" for name, command in commands]
    contents = [f"commands/{name}" for name in COMMANDS]
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *contents, "```", ""])


def _page(name: str) -> str:
    job, kind = load_command(name)
    examples = "\n".join(f"v3s {example}" for example in COMMANDS[name].examples)
    lines = [f"# v3s {name}", "", *"\n\n".join(argv.summary_of(kind)).splitlines(), "", "```bash", examples, "```"]
    for title, options in groupby(options_of_command(name, kind), key=lambda option: argv.GROUPS[option.group]):
        table = [f"## {title.capitalize()}", "", "| option | default | meaning |", "|---|---|---|", *map(_row, options)]
        lines += ["", *table]
    lines += ["", "## Errors", "", ERRORS.rstrip(), "", *_raised(cleandoc(getdoc(job) or ""))]
    python = f"`v3s.{name}(v3s.{kind.__name__}(...))`; [Python](../api.md#commands) says what it returns."
    return "\n".join([*lines, "", "## From Python", "", python, ""])


def _row(option: argv.Option) -> str:
    names = ", ".join(f"`{name}`" for name in option.names)
    few = option.choices if len(option.choices) <= _MOST_CHOICES else ()
    value = "" if option.kind is bool else " " + (" / ".join(few) or option.metavar)
    meaning = option.help if few else " ".join([option.help, *_listed(option.choices)])
    return f"| {names}{value} | {option.default_text} | {_as_markdown(meaning)} |"


def _listed(choices: Sequence[str]) -> list[str]:
    return [f"One of {', '.join(choices[:-1])} and {choices[-1]}."] if choices else []


def _as_markdown(text: str) -> str:
    """Options and quoted patterns as code, so that Markdown changes neither dashes nor stars."""
    return re.sub(r"(?<![\w`])(--[a-z][a-z0-9-]*|'[^' ]+'|[a-z]+:[A-Z]+(?:\[@[A-Z]+\])?)", r"`\1`", text)


def _raised(docstring: str) -> list[str]:
    """The section Raises of a docstring, as a list."""
    section = re.search(r"^Raises:\n((?: .*\n?|\n)+)", docstring, re.MULTILINE)
    if section is None:
        return []
    items = re.split(r"^ {4}(?=\S)", section[1], flags=re.MULTILINE)[1:]
    pairs = [" ".join(item.split()).split(": ", 1) for item in items]
    return [f"- `{kind}`: {text}" for kind, text in pairs]


def _llms() -> str:
    """The title and the first sentence of every page."""
    lines = ["# v3s", "", "> Train a video backbone on any folder of videos, without labels.", "", "## Pages", ""]
    pages = [page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts]
    for page in pages:
        place = page.relative_to(DOCS).as_posix()
        name, text = place.removesuffix(".md"), page.read_text(encoding="utf-8")
        if page.parent.name == "commands":
            lines.append(f"- [v3s {page.stem}]({name}.html): {COMMANDS[page.stem].summary}")
        elif name != "index":
            title = text.split("\n", 1)[0].removeprefix("# ")
            lines.append(f"- [{title}]({name}.html): {_first_sentence(text)}")
    return "\n".join([*lines, ""])


def _first_sentence(text: str) -> str:
    """The first sentence of a page, without links and marks."""
    paragraph = next(part for part in text.split("\n\n")[1:] if re.match(r"(?!```)[A-Za-z*`_]", part))
    plain = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", " ".join(paragraph.split())).replace("`", "").replace("*", "")
    return re.split(r"(?<=[.:?!]) ", plain)[0].rstrip(":")


if __name__ == "__main__":
    (DOCS / "commands").mkdir(exist_ok=True)
    for file, text in generated_pages().items():
        file.write_text(text, encoding="utf-8")
