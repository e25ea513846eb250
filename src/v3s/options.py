"""What the options of commands are held against: a wrong number, file or name is refused before any work."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def require_files(config: Any, *names: str) -> None:
    """Refuse folders where files are to be written, before hours of work rather than after.

    Raises:
        ValueError: one of these options names a folder.
    """
    for name in names:
        if (value := getattr(config, name)) is not None and Path(value).is_dir():
            raise ValueError(f"{name} is {value}, a folder; give the name of a file in it")


def require_positive(config: Any, *names: str) -> None:
    """Refuse numbers that are not above 0; one that was left out is fine.

    Raises:
        ValueError: one of these options is 0 or less.
    """
    for name in names:
        if (value := getattr(config, name)) is not None and value <= 0:
            raise ValueError(f"{name} is {value}; it must be more than 0")


def require_not_negative(config: Any, *names: str) -> None:
    """Refuse numbers below 0; one that was left out is fine.

    Raises:
        ValueError: one of these options is below 0.
    """
    for name in names:
        if (value := getattr(config, name)) is not None and value < 0:
            raise ValueError(f"{name} is {value}; it must be 0 or more")


def closest(word: str, names: Iterable[str]) -> str:
    """A hint at what was meant: ", did you mean '--learning-rate'?", or nothing.

    It finds initials (``--lr``), beginnings of parts (``--rate``), slips (``--learing-rate``), and names that lack
    letters (``--lrate``).
    """
    plain = {name.lstrip("-").replace("_", "-"): name for name in names}
    word = word.lstrip("-").replace("_", "-").lower()
    if not word:
        return ""
    found = (
        [name for name in plain if word == "".join(part[:1] for part in name.split("-"))]
        or [name for name in plain if name.startswith(word)]
        or [name for name in plain if any(part.startswith(word) for part in name.split("-"))]
        or difflib.get_close_matches(word, plain, n=1)
        or [name for name in plain if re.match(".*".join(map(re.escape, word)), name)]
    )
    hints = " or ".join(repr(plain[name]) for name in found[:3])
    return f", did you mean {hints}?" if hints else ""


def seed_problem(seed: int) -> str | None:
    """Why a number cannot be a seed, or None."""
    return None if 0 <= seed < 2**32 else f"seed is {seed}; it must be in 0 .. 2**32 - 1"
