"""A page is well formed, self-contained, escaped, and written atomically."""

import errno
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from v3s.files.writing import SaveError
from v3s.pages.charts import line_chart
from v3s.pages.page import figure, page, paragraph, section, strip, table, video, write_page

EVIL = "<script>alert('x')</script> & \"quotes\""
GIF = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
MP4 = "data:video/mp4;base64,AAAA"
VOID = {"meta", "img"}


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


def full_page() -> str:
    chart = line_chart({EVIL: [(0, 1), (1, 2)]}, title=EVIL, x_label="x", y_label="y")
    blocks = [
        paragraph(EVIL),
        figure(GIF, EVIL, alt=EVIL),
        figure(chart, EVIL),
        video(MP4, EVIL),
        strip([(EVIL, GIF), (EVIL, MP4)]),
        table(["name", EVIL], [["a", EVIL], ["b", 0.5]]),
    ]
    return page(EVIL, [section(EVIL, *blocks)], lead=EVIL)


def test_tags_are_balanced_and_text_is_preserved() -> None:
    checker = check(full_page())
    tags = [tag for tag, _ in checker.tags]
    assert "script" not in tags
    assert checker.text.count(EVIL) >= 10
    assert (tags.count("img"), tags.count("video"), tags.count("svg")) == (2, 2, 1)
    assert all(attributes["alt"] == EVIL for tag, attributes in checker.tags if tag == "img")


def test_a_page_loads_no_external_resources() -> None:
    html = full_page()
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?\s*(https?:)?//""", html)
    assert re.findall(r"https?://[^\"' ]+", html) == ["http://www.w3.org/2000/svg"]  # a namespace, never loaded


def test_the_head_sets_language_charset_viewport_and_colour_scheme() -> None:
    html = full_page()
    assert html.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert '<meta charset="utf-8">' in html
    assert 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html


@pytest.mark.parametrize("uri", ["https://example.org/a.png", "//example.org/a.png", "/a.png", "file:a.png"])
def test_external_media_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="data URI or a relative path"):
        figure(uri, "caption")
    with pytest.raises(ValueError, match="data URI or a relative path"):
        video(uri, "caption")


def test_a_relative_path_is_escaped() -> None:
    attributes = dict(check(video('clips/a"b & c.mp4', "caption")).tags)["video"]
    assert attributes["src"] == 'clips/a"b & c.mp4'


def test_a_ragged_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2 columns .* has 1"):
        table(["a", "b"], [["x"]])


def test_write_page_replaces_the_file_and_leaves_no_other_file(tmp_path: Path) -> None:
    target = tmp_path / "new" / "report.html"
    write_page(target, "first")
    write_page(target, "später")
    assert target.read_text(encoding="utf-8") == "später"
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", page("t\x1b", [paragraph("name \udcff\0<.mp4"), table(("a\n",), [("\x9b",)])]))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(part in text for part in (r"t\x1b", r"name \xff\x00&lt;.mp4", r"a\n<", r"\x9b<"))


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
