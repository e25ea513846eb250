"""Checks of option values: a wrong number, file or name is reported before any work starts."""

import difflib
import os
import re
from collections.abc import Iterable
from importlib import import_module
from math import inf
from pathlib import Path
from typing import Any

_LONGEST_NAME = 255  # bytes that a file system allows for one name


def require_files(config: Any, *names: str) -> None:
    """Check that output files can be made, before hours of work rather than after; None is allowed.

    Raises:
        ValueError: one of these options is a folder, or lies where no file can be made.
    """
    for name in names:
        if (value := getattr(config, name)) is not None:
            _require_place(name, Path(value))
            if Path(value).is_dir():
                raise ValueError(f"{name} is {value}, which is a folder; give a file name")


def require_folders(config: Any, *names: str) -> None:
    """Check that output folders can be made or written to, before hours of work rather than after; None is allowed.

    Raises:
        ValueError: one of these options is a file, or lies where no folder can be made.
    """
    for name in names:
        if (value := getattr(config, name)) is not None:
            _require_place(name, Path(value))
            if Path(value).exists() and not Path(value).is_dir():
                raise ValueError(f"{name} is {value}, which is a file; give a folder")


def _require_place(name: str, path: Path) -> None:
    """Check what lies above a path: a new file or folder can be made in the lowest folder that exists."""
    if too_long := [part for part in path.parts if len(os.fsencode(part)) > _LONGEST_NAME]:
        raise ValueError(f"{name} has a name of {len(os.fsencode(too_long[0]))} bytes; give at most {_LONGEST_NAME}")
    above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        raise ValueError(f"{name} is {path}, but {above} is not a folder; give another place")
    if not os.path.lexists(path) and not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"{name} is {path}, but nothing can be written in the folder {above}; give another place")


def require_positive(config: Any, *names: str) -> None:
    """Check that numbers are greater than 0 and finite; None is allowed.

    Raises:
        ValueError: one of these options is not.
    """
    for name in names:
        if (value := getattr(config, name)) is not None and not 0 < value < inf:
            raise ValueError(f"{name} is {value}; it must be {'finite' if value == inf else 'more than 0'}")


def require_not_negative(config: Any, *names: str) -> None:
    """Check that numbers are 0 or more and finite; None is allowed.

    Raises:
        ValueError: one of these options is not.
    """
    for name in names:
        if (value := getattr(config, name)) is not None and not 0 <= value < inf:
            raise ValueError(f"{name} is {value}; it must be {'finite' if value == inf else '0 or more'}")


_MAX_CLIP_FRAMES, _MAX_CLIP_SIZE, _MAX_CLIP_PIXELS = 10_000, 4096, 1 << 28


def check_clip(num_frames: int, size: int) -> None:
    """Refuse clips that would not fit into memory.

    Raises:
        ValueError: a clip has too many frames, is too large, or has too many pixels in all.
    """
    if num_frames > _MAX_CLIP_FRAMES or size > _MAX_CLIP_SIZE or num_frames * size * size > _MAX_CLIP_PIXELS:
        raise ValueError(
            f"a clip may have at most {_MAX_CLIP_FRAMES:,} frames, {_MAX_CLIP_SIZE:,} pixels per side and "
            f"{_MAX_CLIP_PIXELS:,} pixels in all; got {num_frames:,} frames of {size:,} x {size:,}"
        )


def closest(word: str, names: Iterable[str]) -> str:
    """A suggestion for a mistyped name: " (did you mean '--learning-rate'?)", or an empty string.

    It recognises initials (``--lr``), beginnings of parts (``--rate``), typing errors (``--learing-rate``) and missing
    letters (``--lrate``).
    """
    plain = {name.lstrip("-").replace("_", "-"): name for name in names}
    word = word.lstrip("-").replace("_", "-").lower()
    if not word:
        return ""
    matches = (
        [name for name in plain if word == "".join(part[:1] for part in name.split("-"))]
        or [name for name in plain if name.startswith(word)]
        or [name for name in plain if any(part.startswith(word) for part in name.split("-"))]
        or difflib.get_close_matches(word, plain, n=1, cutoff=0.5)
        or [name for name in plain if re.match(".*".join(map(re.escape, word)), name)]
    )
    hints = " or ".join(repr(plain[name]) for name in matches[:3])
    return f" (did you mean {hints}?)" if hints else ""


def import_extra(name: str, extra: str, purpose: str) -> Any:
    """Import an optional package.

    Raises:
        ValueError: it is not installed; the message says how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{purpose} needs {name.partition('.')[0]}, which is not installed ({error}): pip install 'v3s[{extra}]'"
        ) from error


def seed_problem(seed: int) -> str | None:
    """The error message for an invalid seed, or None if the seed is valid."""
    return None if 0 <= seed < 2**32 else f"seed is {seed}; it must be between 0 and 2**32 - 1"
