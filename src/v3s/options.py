"""What the options of commands are held against: a wrong number, file or name is refused before any work."""

import difflib
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


def closest(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str:
    """A hint for a mistyped name: ", did you mean 'v3s'?", or nothing where none is as alike as ``cutoff`` (0..1)."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)
    return f", did you mean {found[0]!r}?" if found else ""


def seed_problem(seed: int) -> str | None:
    """Why a number cannot be a seed, or None."""
    return None if 0 <= seed < 2**32 else f"seed is {seed}; it must be in 0 .. 2**32 - 1"
