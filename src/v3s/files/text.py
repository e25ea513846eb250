"""Text for the terminal: names as text (a file name may contain any bytes), counts, tables and progress bars."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any
from unicodedata import category

from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

_LINE_SECONDS = 60.0  # least time between two lines that stand for a progress bar
_MOST_WIDTH = 10_000  # characters of a line that is not for a terminal
_JOINERS = "\u200c\u200d"  # some scripts, and emoji, need them
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What the text of a spreadsheet's cell begins with if it is a formula, also in full width."""


def as_text(text: str) -> str:
    r"""One line: replace control characters, line breaks and bytes that are not UTF-8 by their codes.

    All names are shown so: in a terminal, a log, a table, a page.

    >>> print(as_text("a\x1b[31m\n.mp4"))
    a\x1b[31m\n.mp4
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS or category(character) == "Zs":
        return character
    if "\udc80" <= character <= "\udcff":  # a byte of a file name, see PEP 383
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def as_cell(text: str) -> str:
    """Text for a table that a spreadsheet may open: what looks like a formula begins with an apostrophe."""
    shown = as_text(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def say(console: Console, *lines: str) -> None:
    """Print lines of text: without markup, highlighting or added line breaks, whatever names they contain."""
    for line in lines:
        console.print(as_text(line), markup=False, highlight=False, soft_wrap=True)


def counted(number: int, noun: str) -> str:
    """A number and its noun.

    >>> counted(1, "video"), counted(2000, "class"), counted(2, "query")
    ('1 video', '2,000 classes', '2 queries')
    """
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def verb(number: int, plural: str) -> str:
    """The form of "are" or "have" for a number of things.

    >>> verb(1, "are"), verb(2, "are"), verb(1, "have")
    ('is', 'are', 'has')
    """
    return {"are": "is", "have": "has"}[plural] if number == 1 else plural


def as_sentence(line: str) -> str:
    """What a line of a terminal says, as a sentence of a page.

    >>> as_sentence("the spatial head is above chance")
    'The spatial head is above chance.'
    """
    return f"{line[:1].upper()}{line[1:]}."


def error_text(error: float | None) -> str:
    """A standard error; "unknown" where none can be estimated: all are right, all are wrong, or one draw was made."""
    return f"{error:.1%}" if error else "unknown"


def share_text(share: float, error: float | None) -> str:
    """A share, and its standard error if there is one.

    >>> share_text(0.5, 0.02), share_text(1.0, 0.0)
    ('50.0% ± 2.0%', '100.0%')
    """
    return f"{share:.1%} ± {error_text(error)}" if error else f"{share:.1%}"


def short_repr(value: Any) -> str:
    """A dataclass in one short line, with tensors, arrays and all that is long by type and size.

    A dataclass that holds such values has ``__repr__ = short_repr``, so that ``print`` does not flood the terminal.
    Fields that begin with an underscore are not shown.
    """
    named = (field.name for field in fields(value) if not field.name.startswith("_"))
    return f"{type(value).__name__}({', '.join(f'{name}={_short(getattr(value, name))}' for name in named)})"


def _short(value: Any) -> str:
    if hasattr(value, "shape"):
        return f"<{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}>"
    if isinstance(value, bytes | str | tuple | list | dict) and len(value) > (200 if isinstance(value, str) else 8):
        return f"<{type(value).__name__} of {len(value):,}>"
    if type(value) in (tuple, list):
        shown = ", ".join(map(_short, value))
        return f"[{shown}]" if isinstance(value, list) else f"({shown}{',' * (len(value) == 1)})"
    return repr(value)


def size_text(num_bytes: float) -> str:
    """A number of bytes in the largest unit of which it has one.

    >>> size_text(999), size_text(48_000), size_text(2_500_000), size_text(64e9), size_text(3.2e12)
    ('999 bytes', '48.0 kB', '2.5 MB', '64.0 GB', '3,200.0 GB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= 0.99995 * size:  # 1.0 of it, once rounded
            return f"{num_bytes / size:,.1f} {unit}"
    return counted(round(num_bytes), "byte")


def text_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]] = (), *, num_names: int = 1) -> Table:
    """A table for the terminal: the first columns contain names, left-aligned; the others numbers, right-aligned."""
    shown = Table(title=Text(as_text(title)), title_justify="left")
    for number, column in enumerate(header):
        side: JustifyMethod = "left" if number < num_names else "right"
        shown.add_column(Text(as_text(column)), justify=side, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(as_text(cell)) for cell in row))
    return shown


def print_table(console: Console, table: Table, *, is_prose: bool = False) -> None:
    """Print a table: on a terminal within its width, elsewhere as wide as needed, so that no row is broken.

    A table with sentences in its cells, ``is_prose``, is within the console's width also elsewhere.
    """
    width = Measurement.get(console, console.options.update_width(_MOST_WIDTH), table).maximum
    if not is_prose and not console.is_terminal and width > console.width:
        table.width = width
    console.print(table, crop=False)


class _Bar(Progress):
    """A progress bar on a terminal; elsewhere a plain line a minute, so that short work has none."""

    def __init__(self, console: Console, *, transient: bool) -> None:
        whole = Column(no_wrap=True)
        columns = (
            TextColumn("{task.description}", table_column=Column()),
            MofNCompleteColumn(table_column=whole),
            TimeRemainingColumn(table_column=whole),
            BarColumn(table_column=Column(ratio=1)),
        )
        shown = console.is_interactive or console.is_jupyter
        super().__init__(
            *columns,
            console=console,
            auto_refresh=shown,
            speed_estimate_period=5 * _LINE_SECONDS,
            transient=transient,
            disable=not shown,
            expand=True,
        )
        self._last_line = time.monotonic()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._say(task_id)

    def update(self, task_id: TaskID, *args: Any, **values: Any) -> None:
        super().update(task_id, *args, **values)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        if not self.disable or (now := time.monotonic()) - self._last_line < _LINE_SECONDS:
            return
        self._last_line, task = now, self._tasks[task_id]
        left = f", about {max(task.time_remaining / 60, 1):.0f} min left" if task.time_remaining else ""
        say(self.console, f"{task.description}: {task.completed:,.0f} of {task.total or 0:,.0f}{left}")


def progress_bar(console: Console, *, transient: bool = True) -> Progress:
    """A progress bar; by default it vanishes. In a narrow terminal the bar becomes short, never its numbers.

    Without a terminal, it prints the progress as a line, at most once a minute.
    """
    return _Bar(console, transient=transient)
