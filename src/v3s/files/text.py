"""Text for the terminal: names as text (a file name may contain any bytes), counts, tables and progress bars."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
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


def counted(number: int, noun: str) -> str:
    """A number and its noun.

    >>> counted(1, "video"), counted(2000, "class")
    ('1 video', '2,000 classes')
    """
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{plural * (number != 1)}"


def text_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]] = (), *, num_names: int = 1) -> Table:
    """A table for the terminal: the first columns contain names, left-aligned; the others numbers, right-aligned."""
    shown = Table(title=title, title_justify="left")
    for number, column in enumerate(header):
        shown.add_column(column, justify="left" if number < num_names else "right")
    for row in rows:
        shown.add_row(*row)
    return shown


def progress_bar(console: Console, *, transient: bool = True) -> Progress:
    """A progress bar: a description, the number of finished items, the remaining time; by default it vanishes."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=transient)
