"""A page is well formed, self-contained, escaped, and written atomically; HTML is written in templates only."""

import ast
import errno
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import Environment, nodes

import v3s
from tests.pages.conftest import sample_page
from v3s.files.writing import SaveError
from v3s.pages.charts import line_chart
from v3s.pages.templates import _environment, write_page

ROOT = Path(v3s.__file__).parent
TEMPLATES = sorted(ROOT.glob("*/templates/*.html"))
EVIL = "<script>alert('x')</script> & \"quotes\""
GIF = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
MP4 = "data:video/mp4;base64,AAAA"
VOID = {"meta", "img", "input"}


class Checker(HTMLParser):
    """Tracks open tags; records the attributes of all tags and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a tag."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost tag, which must have this name."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect text."""
        self.text += data


def check(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker


def full_page(evil: str = EVIL) -> str:
    chart = line_chart({evil: [(0, 1), (1, 2)]}, title=evil, x_label="x", y_label="y")
    return sample_page(evil, charts=[(chart, evil)], films=[(GIF, evil), (MP4, evil), (MP4, evil, f"{evil}.mp4")])


def test_tags_are_balanced_and_text_is_preserved() -> None:
    checker = check(full_page())
    tags = [tag for tag, _ in checker.tags]
    assert checker.text.count(EVIL) >= 10
    assert [tags.count(tag) for tag in ("img", "video", "svg", "script")] == [1, 2, 1, 1]
    assert [attributes["alt"] for tag, attributes in checker.tags if tag == "img"] == [EVIL]
    assert [attributes["href"] for tag, attributes in checker.tags if tag == "a"] == [f"{EVIL}.mp4"] * 2
    assert not any(name.startswith("on") or name == "controls" for _, found in checker.tags for name in found)


def test_a_page_loads_no_external_resources() -> None:
    html = full_page()
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?\s*(https?:)?//""", html)
    assert re.findall(r"https?://[^\"' ]+", html) == ["http://www.w3.org/2000/svg"]  # a namespace, never loaded
    assert "content=\"default-src 'none'; img-src data:; media-src data:; " in html


def test_the_head_sets_language_charset_viewport_and_colour_scheme() -> None:
    html = full_page()
    assert html.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert '<meta charset="utf-8">' in html
    assert 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html


def test_a_page_without_films_has_no_script() -> None:
    assert "<script" in sample_page("a", films=[(MP4, "b")])
    assert "<script" not in sample_page("<video", films=[(GIF, "b")])


def test_a_ragged_table_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        sample_page("a", scores=(["a", "b"], [["x"]]))


def test_write_page_replaces_the_file_and_leaves_no_other_file(tmp_path: Path) -> None:
    target = tmp_path / "new" / "report.html"
    write_page(target, "first")
    write_page(target, "später")
    assert target.read_text(encoding="utf-8") == "später"
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", full_page("name \udcff\0<\x9b\n.mp4"))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count(r"name \xff\x00&lt;\x9b\n.mp4") >= 10


def test_a_failed_write_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.html"
    write_page(target, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SaveError, match=r"report\.html cannot be written: No space left"):
        write_page(target, "new")
    assert target.read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_trusts_a_value(path: Path) -> None:
    """Nothing turns escaping off, so that all that is not markup of our own is text."""
    parsed = Environment().parse(path.read_text())
    assert not {each.name for each in parsed.find_all(nodes.Filter)} & {"safe", "forceescape"}
    assert not list(parsed.find_all((nodes.MarkSafe, nodes.ScopedEvalContextModifier)))


def test_html_is_written_in_templates_only() -> None:
    """And markup that is not escaped only by charts."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(r"</?(p|div|h\d|table|t[rdh]|figure|img|video|html)\b", node.value), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Markup":
                assert path.parent.name == "pages", path


@pytest.mark.parametrize("num_sections", [3, 4])
def test_contents_are_the_sections_of_a_document_in_their_order(num_sections: int) -> None:
    """Names with markup are text, and names may be alike; a page of three sections needs no contents."""
    names = ["a b.mp4", "<h2>Two</h2>", "Tom & Ada", "A-b.mp4"][:num_sections]
    page = _environment().from_string(
        '{% extends "document.html" %}{% from "components.html" import section with context %}{% set title = "T" %}'
        "{% block lead %}<p>Lead.</p>{% endblock %}"
        "{% block main %}{% for name in names %}{{ section(name) }}<p>Text.</p>{% endfor %}{% endblock %}"
    )
    html = page.render(names=names, sections=[])
    headings = re.findall(r'<h2 id="([^"]*)">(.*?)</h2>', html)
    assert [unescape(name) for _, name in headings] == names
    assert len({anchor for anchor, _ in headings}) == num_sections
    links = re.findall(r'<a href="#([^"]*)">(.*?)</a>', html)
    assert links == (headings if num_sections > 3 else [])
    assert html.index("Lead.") < html.index("<h2") < html.index("Text.")
