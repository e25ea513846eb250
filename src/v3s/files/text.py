"""Names as text: a file name may contain any bytes, but a terminal shows only some of them."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) != "\n"}


def as_text(text: str) -> str:
    r"""Replace control characters, and bytes of a name that are not UTF-8, by their codes; line breaks stay.

    >>> as_text("a\x1b[31m.mp4")
    'a\\x1b[31m.mp4'
    """
    return text.translate(_CONTROLS).encode(errors="backslashreplace").decode()


def say(console: Console, text: str) -> None:
    """Print text unchanged: without markup, highlighting or added line breaks, whatever names it contains."""
    console.print(as_text(text), markup=False, highlight=False, soft_wrap=True)


def text_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]] = (), *, num_names: int = 1) -> Table:
    """A table for the terminal: the first columns contain names, left-aligned; the others numbers, right-aligned."""
    shown = Table(title=title, title_justify="left")
    for number, column in enumerate(header):
        shown.add_column(column, justify="left" if number < num_names else "right")
    for row in rows:
        shown.add_row(*row)
    return shown
