"""Texts with hostile names reach a terminal unchanged, and nothing in them controls it."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from v3s.files.text import as_cell, as_text, print_table, progress_bar, say, short_repr, text_table


def printed(text: str) -> str:
    """What is sent to a narrow UTF-8 terminal."""
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="utf-8"), force_terminal=True, width=20)
    say(console, text)
    console.file.flush()
    return raw.getvalue().decode()


@pytest.mark.parametrize(
    "text", ["a [bold]name[/bold].mp4", "[/]", "12 of 345 'files'", "ä" * 50, "world \u3000 \u200d"]
)
def test_plain_text_comes_out_as_it_went_in(text: str) -> None:
    assert printed(text) == f"{text}\n"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"red \x1b[31m.mp4", r"red \x1b[31m.mp4"),
        (b"two\nlines.mp4", r"two\nlines.mp4"),
        ("bidi \u202e.mp4".encode(), r"bidi \u202e.mp4"),
        (b"bell\x07 back\x08 return\r.mp4", r"bell\x07 back\x08 return\r.mp4"),
        ("c1 \x9b31m.mp4".encode(), r"c1 \x9b31m.mp4"),
        (b"bytes \xff\xfe.mp4", r"bytes \xff\xfe.mp4"),
    ],
)
def test_a_hostile_name_is_shown_as_text(name: bytes, shown: str) -> None:
    assert printed(os.fsdecode(name)) == f"{shown}\n"
    assert as_text(shown) == shown


def test_several_lines_stay_lines() -> None:
    raw = io.StringIO()
    say(Console(file=raw, width=20), "one", "two\x1b")
    assert raw.getvalue() == "one\ntwo\\x1b\n"


@pytest.mark.parametrize(
    ("text", "cell"), [("=1+1", "'=1+1"), ("@x", "'@x"), ("\uff1d1", "'\uff1d1"), ("a=1", "a=1"), ("\t=1", r"\t=1")]
)
def test_a_cell_is_no_formula(text: str, cell: str) -> None:
    assert as_cell(text) == cell


def test_a_narrow_terminal_shows_the_whole_name() -> None:
    raw, name = io.StringIO(), "/data/a_folder/" + "".join(map(chr, range(97, 123))) * 3 + ".mp4"
    rows = [("0", name, "conv1.0.weight", "0.1234", "0.1234", "0.1234")]
    header = ("clip", "video", "first non-finite", "loss", "loss_spatial", "loss_temporal")
    Console(file=raw, width=80).print(text_table("batch", header, rows, num_names=3))
    cells = [line.split("\u2502")[2].strip() for line in raw.getvalue().splitlines() if line.startswith("\u2502")]
    assert "".join(cells) == name


def test_a_table_breaks_no_word_where_no_terminal_limits_it() -> None:
    header, row = (
        ("", *(f"measure number {number}" for number in range(8))),
        ("a_backbone_of_some_length", *["12.5%"] * 8),
    )
    for is_terminal in (False, True):
        raw = io.StringIO()
        print_table(Console(file=raw, width=80, force_terminal=is_terminal), text_table("", header, [row]))
        lines = raw.getvalue().splitlines()
        assert any("a_backbone_of_some_length" in line for line in lines) != is_terminal
        assert any("measure number 7" in line for line in lines) != is_terminal
        assert (len(lines[0]) <= 80) == is_terminal  # the border


def test_sentences_in_a_table_are_wrapped_at_words_also_in_a_file() -> None:
    raw, why = io.StringIO(), "one of the reasons of this choice, " * 5
    table = text_table("", ("option", "value", "why"), [("--validation-videos", "20", why)], num_names=3)
    print_table(Console(file=raw, width=80), table, is_prose=True)
    lines = raw.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split("\u2502")[1:4] for line in lines if line.startswith("\u2502")]
    assert [rows[0][0].strip(), rows[0][1].strip()] == ["--validation-videos", "20"]
    assert " ".join(row[2].strip() for row in rows) == why.strip()


def test_a_table_that_fits_is_no_wider() -> None:
    raw = [io.StringIO(), io.StringIO()]
    Console(file=raw[0], width=80).print(text_table("few", ("", "share"), [("one", "50%")]))
    print_table(Console(file=raw[1], width=80), text_table("few", ("", "share"), [("one", "50%")]))
    assert raw[0].getvalue() == raw[1].getvalue()


def test_markup_in_a_table_is_text() -> None:
    raw = io.StringIO()
    Console(file=raw, width=60).print(text_table("[b]t[/]", ("[red]h",), [("[/]x\x1b",)]))
    assert all(part in raw.getvalue() for part in ("[b]t[/]", "[red]h", "[/]x\\x1b"))


@dataclass(frozen=True, slots=True)
class Large:
    """Holds a value."""

    value: Any
    _hidden: int = 0
    __repr__ = short_repr


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (torch.zeros(1000, 512, dtype=torch.float16), "<float16 (1000, 512)>"),
        (np.zeros(3, np.int64), "<int64 (3,)>"),
        ((torch.zeros(2), torch.zeros(3)), "(<float32 (2,)>, <float32 (3,)>)"),
        ((Large(torch.zeros(2)),), "(Large(value=<float32 (2,)>),)"),
        (b"x" * 1000, "<bytes of 1,000>"),
        ((True,) * 20, "<tuple of 20>"),
        (dict.fromkeys(range(2000)), "<dict of 2,000>"),
        ([0.5, None], "[0.5, None]"),
        (Path("vectors"), f"{Path('vectors')!r}"),
        ("text", "'text'"),
    ],
)
def test_a_value_that_is_large_is_shown_by_its_size(value: Any, shown: str) -> None:
    assert repr(Large(value)) == f"Large(value={shown})"


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize(
    "text", ["videos", "epoch 3/100 loss 2.345 spatial 45.2% temporal 33.3% 123.4 clips/s, 10% waiting"]
)
def test_the_numbers_of_a_progress_bar_are_whole_in_a_narrow_terminal(width: int, text: str) -> None:
    console = Console(file=(raw := io.StringIO()), width=width, force_terminal=True, color_system=None)
    bar = progress_bar(console, transient=False)
    bar.add_task(text, total=24_000, completed=1_100)
    console.print(bar)
    assert " 1100/24000 -:--:-- " in raw.getvalue()


def test_without_a_terminal_a_line_a_minute_stands_for_the_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    console = Console(file=(raw := io.StringIO()), width=80, get_time=lambda: now[0])
    with progress_bar(console) as bar:
        for _ in bar.track(range(1_200), description="videos"):
            now[0] += 0.125
        task = bar.add_task("files")
        bar.update(task, completed=3, total=7)  # nothing in the first minute
    assert raw.getvalue() == "videos: 480 of 1,200, about 2 min left\nvideos: 960 of 1,200, about 1 min left\n"
