"""What the documents name exists: options, commands, tests, modules and links."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import v3s
from docs.make_commands import generated_pages
from v3s.cli import load_command
from v3s.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts
)
USERS = [page for page in PAGES if page.name != "log.md"]
CONFIGS = {command: load_command(command)[1] for command in COMMANDS}


def options_of(config: type[Any]) -> set[str]:
    return {f"--{field.name.replace('_', '-')}" for field in fields(config)}


def test_generated_pages_are_what_the_source_says() -> None:
    pages = generated_pages()
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run python docs/make_commands.py"
    assert set((ROOT / "docs/commands").iterdir()) <= set(pages)


@pytest.mark.parametrize("command", CONFIGS)
def test_every_option_is_on_the_page_of_its_command(command: str) -> None:
    page = (ROOT / f"docs/commands/{command}.md").read_text()
    assert options_of(CONFIGS[command]) <= set(re.findall(r"`(--[a-z0-9-]+)`", page))


def test_every_public_name_is_in_the_api() -> None:
    page = (ROOT / "docs/api.md").read_text()
    pages = page + "".join(path.read_text() for path in (ROOT / "docs/commands").iterdir())
    assert [name for name in v3s.__all__ if not re.search(rf"\bv3s\.{name}\b", pages)] == []


def test_every_page_is_in_the_contents() -> None:
    contents = "".join((ROOT / f"docs/{name}.md").read_text() for name in ("index", "commands")).splitlines()
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        assert name in (*contents, "index") or "_build" in page.parts, f"{name} is in no toctree"


@pytest.mark.parametrize("page", USERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_in_documents_exist(page: Path) -> None:
    text = page.read_text().replace("\\\n", " ")
    for command, rest in re.findall(r"v3s ([a-z]+)\b([^`\n#]*)", text):
        if command in CONFIGS:
            for option in re.findall(r"(?<!\S)(--[a-z0-9-]+)", rest.split("&&")[0]):
                known = options_of(CONFIGS[command]) | {"--config", "--recipe", "--minutes", "--in", "--help"}
                assert option in known, (command, option)
    for line in re.findall(r"^\$ (?:torchrun .*-m )?v3s ([a-z]+)", text, re.M):
        assert line in CONFIGS, line


@pytest.mark.parametrize("page", USERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_tests_and_modules_in_documents_exist(page: Path) -> None:
    text = page.read_text()
    names = set(re.findall(r"^def (test_\w+)", "\n".join(p.read_text() for p in (ROOT / "tests").rglob("*.py")), re.M))
    for path in re.findall(r"\btests/[\w/]+\.py", text):
        assert (ROOT / path).is_file(), path
    for name in re.findall(r"\b(test_\w+)\b(?!\.(?!py))(?!\.py)", text):
        assert name in names or list((ROOT / "tests").rglob(f"{name}.py")), name
    for module in re.findall(r"python -m (benchmarks[\w.]*)", text):
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module
    for path in re.findall(r"`((?:[a-z0-9_]+/)+[a-z0-9_]+\.py)", text):
        assert (ROOT / "src/v3s" / path).is_file() or (ROOT / path).is_file(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        goal = (page.parent / path) if path else page
        assert goal.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", goal.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, target


def test_entries_of_the_log_that_the_source_names_exist() -> None:
    log = (ROOT / "docs/log.md").read_text()
    for path in (ROOT / "src").rglob("*.py"):
        for title in re.findall(r'docs/log\.md, "([^"]+)"', " ".join(path.read_text().split())):
            assert re.search(rf"^### [\d-]+ {re.escape(title)}", log, re.M), f"{path}: {title}"


def test_readme_is_easy_to_read() -> None:
    text = (ROOT / "README.md").read_text()
    assert [line for line in text.splitlines() if len(line) > 120] == []
    prose = re.sub(r"^```.*?^```|`[^`]*`|^\|.*$|\]\([^)]*\)", "", text, flags=re.M | re.S)
    for sentence in re.split(r"(?<=[.:?!])\s", prose):
        assert len(re.findall(r"(?<![\w.])\d+", sentence)) <= 2, sentence
    results = (ROOT / "docs/results.md").read_text()
    for row in re.findall(r"^\| (?:linear|retrieval|fine).*\|$", text, re.M):
        assert row in results, row


def test_every_entry_of_the_log_has_a_verdict_and_a_row() -> None:
    log = (ROOT / "docs/log.md").read_text()
    index = log.split("\n## ")[0]
    for title, below in re.findall(r"^### (.*)\n\n(.*)", log, re.M):
        anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        assert f"](#{anchor})" in index, title
        assert below.startswith("*Verdict: "), title


UNCLEAR = r"\b(left out|goes on|go on|is no multiple|told|tells?(?!\()|less bars)\b"
"""Phrases that a reader has to read twice: skipped, continues, must be a multiple of, reported, shows, without bars."""


@pytest.mark.parametrize(
    "path", [*USERS, *sorted((ROOT / "src").rglob("*.py"))], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_texts_use_the_plain_word(path: Path) -> None:
    assert not re.findall(UNCLEAR, path.read_text())


def test_names_in_the_architecture_exist() -> None:
    source = "\n".join(path.read_text() for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])
    text = (ROOT / "docs/architecture.md").read_text()
    for name in re.findall(r"`(?:v3s\.)?([A-Z]\w*[a-z]\w*|_?[A-Z_]{4,}|[a-z]+(?:_[a-z0-9]+)+)(?:\([^`]*\))?`", text):
        assert re.search(rf"\b{name}\b", source), name


@pytest.mark.parametrize("page", USERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_public_names_in_documents_exist(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        assert set(re.findall(r"\bv3s\.(\w+)", block)) <= set(v3s.__all__)
