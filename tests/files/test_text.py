"""Texts with hostile names reach a terminal unchanged, and nothing in them controls it."""

import io
import os

import pytest
from rich.console import Console

from v3s.files.text import as_text, say


def printed(text: str) -> str:
    """What is sent to a narrow UTF-8 terminal."""
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="utf-8"), force_terminal=True, width=20)
    say(console, text)
    console.file.flush()
    return raw.getvalue().decode()


@pytest.mark.parametrize("text", ["a [bold]name[/bold].mp4", "[/]", "12 of 345 'files'", "ä" * 50, "two\nlines"])
def test_plain_text_comes_out_as_it_went_in(text: str) -> None:
    assert printed(text) == f"{text}\n"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"red \x1b[31m.mp4", r"red \x1b[31m.mp4"),
        (b"bell\x07 back\x08 return\r.mp4", r"bell\x07 back\x08 return\x0d.mp4"),
        ("c1 \x9b31m.mp4".encode(), r"c1 \x9b31m.mp4"),
        (b"bytes \xff\xfe.mp4", r"bytes \udcff\udcfe.mp4"),
    ],
)
def test_a_hostile_name_is_shown_as_text(name: bytes, shown: str) -> None:
    assert printed(os.fsdecode(name)) == f"{shown}\n"
    assert as_text(shown) == shown
