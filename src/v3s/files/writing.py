"""Files are written whole or not at all: beside their place, flushed to the disk, then renamed.

Files that belong together are replaced together.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

DESCRIPTION = "config.json"  # written last of a set of files, and read first
NEXT = ".next"  # holds a set of files until all of them are written
PART = ".*.part"  # what a kill may leave of a file that was being written


class SaveError(OSError):
    """A file that could not be written, on a full disk for one; the message names it and says why."""


class CheckpointError(ValueError):
    """A file of weights that is missing, damaged or of another network; the message names the file."""


def write_atomically(path: Path, write: Callable[[Path], object], *, keep: Path | None = None) -> None:
    """Let ``write`` make a file beside ``path``, then put it in its place.

    Args:
        path: the file.
        write: makes it, given where.
        keep: where the file that was there is moved to; by default it is replaced.

    Raises:
        SaveError: it cannot be written; the file that was there is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        beside.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise SaveError(
            f"{path} cannot be written: {error.strerror or error}; what was saved before is whole"
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_together(folder: Path, files: dict[str, bytes]) -> None:
    """Replace several files of a folder as one: a kill leaves all of the old ones or all of the new ones.

    They are written into a folder of their own, the last one last. Once that one is there the new set counts
    (`current`), and the files are moved to their places, again the last one last.

    Args:
        folder: where the files are.
        files: name -> content; the last must be ``DESCRIPTION``.
    """
    assert list(files)[-1] == DESCRIPTION
    finish_together(folder)
    for name, content in files.items():
        write_whole(folder / NEXT / name, content)
    finish_together(folder)


def finish_together(folder: Path) -> None:
    """Move a set of files that a kill left complete to its place, and forget an incomplete one."""
    beside = folder / NEXT
    if (beside / DESCRIPTION).is_file():
        for file in sorted(beside.iterdir(), key=lambda file: file.name == DESCRIPTION):
            file.replace(folder / file.name)
        _flush_folder(folder)
    shutil.rmtree(beside, ignore_errors=True)


def current(folder: Path, name: str) -> Path:
    """Where the file of that name is that belongs to the newest complete set of a folder."""
    beside = folder / NEXT
    complete = (beside / DESCRIPTION).is_file() and (beside / name).is_file()
    return beside / name if complete else folder / name


def write_whole(path: Path, content: bytes) -> None:
    """Write a file with this content."""
    write_atomically(path, lambda beside: beside.write_bytes(content))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a value as readable JSON."""
    write_whole(path, json_as_bytes(value))


def json_as_bytes(value: dict[str, Any]) -> bytes:
    """A value as readable JSON."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: no such file, or no JSON object in it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds no JSON object")
    return value
