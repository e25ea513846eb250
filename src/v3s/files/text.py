"""Names as text: a file name may hold any bytes, a terminal shows only some of them."""

from rich.console import Console

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) != "\n"}


def as_text(text: str) -> str:
    r"""Show control characters, and the bytes of a name that are not UTF-8, as their codes; line breaks stay.

    >>> as_text("a\x1b[31m.mp4")
    'a\\x1b[31m.mp4'
    """
    return text.translate(_CONTROLS).encode(errors="backslashreplace").decode()


def say(console: Console, text: str) -> None:
    """Print a text as it is: without markup, colours or line breaks of its own, whatever names are in it."""
    console.print(as_text(text), markup=False, highlight=False, soft_wrap=True)
