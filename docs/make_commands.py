"""Write docs/commands.md, every command with its options: ``python docs/make_commands.py`` (``make docs`` runs it)."""

from itertools import groupby
from pathlib import Path

from v3s import argv
from v3s.cli import load_command, options_of_command
from v3s.commands import COMMANDS

PAGE = Path(__file__).with_name("commands.md")
INTRODUCTION = """# Commands

This page is written by `python docs/make_commands.py`; `v3s COMMAND --help` prints the same options.

- The first word after a command is its main input: `v3s check my_videos` means `v3s check --data my_videos`.
- A flag needs no value: `--resume`; `--no-resume` or `--resume=false` takes it back. A list is written with commas:
  `--few-labels 1,5`.
- `--config FILE` reads any of the options from a YAML file, with underscores in their names (`batch_size: 16`).
  Options on the command line override the file. Every training writes its own options to `config.yaml`.
- From Python, every command is a function of its configuration, with the same names:
  `v3s.check(v3s.CheckConfig(data="my_videos"))`.
"""


def commands_page() -> str:
    """The whole page."""
    contents = []
    for group, commands in groupby(COMMANDS.items(), key=lambda item: item[1].group):
        contents += [f"\n**{group.capitalize()}**\n", "| command | what it does |", "|---|---|"]
        contents += [f"| [`v3s {name}`](#v3s-{name}) | {command.summary} |" for name, command in commands]
    return "\n".join([INTRODUCTION.rstrip(), *contents, "", *map(_section, COMMANDS)])


def _section(name: str) -> str:
    _, kind = load_command(name)
    examples = "\n".join(f"v3s {example}" for example in COMMANDS[name].examples)
    lines = [f"## v3s {name}", "", *"\n\n".join(argv.summary_of(kind)).splitlines(), "", "```bash", examples, "```"]
    for title, options in groupby(options_of_command(name, kind), key=lambda option: argv.GROUPS[option.group]):
        lines += [
            "",
            f"*{title.capitalize()}*",
            "",
            "| option | default | meaning |",
            "|---|---|---|",
            *map(_row, options),
        ]
    return "\n".join([*lines, ""])


def _row(option: argv.Option) -> str:
    names = ", ".join(f"`{name}`" for name in option.names)
    value = "" if option.kind is bool else " " + (" / ".join(option.choices) or option.metavar)
    return f"| {names}{value} | {option.default_text} | {option.help} |"


if __name__ == "__main__":
    PAGE.write_text(commands_page(), encoding="utf-8")
