"""Files are written completely or not at all: to a temporary file, flushed to the disk, then renamed.

Files that belong together are replaced together.
"""

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from filecmp import cmp
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

from v3s.files.checksum import adler32

DESCRIPTION = "config.json"  # written last of a set of files, and read first
NEXT = ".next"  # contains a set of files until all of them are written
PART = ".*.part"  # a partly written file that a killed process may leave
_LONG_NAME = 200  # bytes; a file system allows 255
Writer = Callable[[Path], object]  # writes a file to the path that it is called with


class SaveError(OSError):
    """A file cannot be written, for example on a full disk; the message names the file and the reason."""


RESTORE = "restore the file, or write it again"
"""What to do about a damaged file, in messages."""


class CheckpointError(ValueError):
    """A file of weights is missing, damaged or from another network; the message names the file."""


def write_atomically(path: Path, write: Writer, *, keep: Path | None = None) -> None:
    """Write a temporary file next to ``path`` with ``write``, then rename it to ``path``.

    Args:
        path: the file.
        write: writes the file to the path that it is called with.
        keep: the path to move the previous file to; by default it is replaced.

    Raises:
        SaveError: the file cannot be written; the previous file is unchanged, and no new folder is left.
    """

    def move() -> None:
        if keep is not None and path.exists():
            path.replace(keep)

    write_set({path: write}, before=move)


def write_keeping(path: Path, write: Writer) -> Path | None:
    """Write a file as `write_atomically`; a previous one with another content is kept under the first free name.

    Returns:
        Where the previous file is now, if it was kept.

    Raises:
        SaveError: the file cannot be written; the previous file is unchanged.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    written: list[Path] = []
    kept: list[Path] = []

    def write_new(temporary: Path) -> None:
        written.append(temporary)
        write(temporary)

    def keep() -> None:
        if path.is_file() and not cmp(path, written[0], shallow=False):
            kept.append(free_name(path))
            path.replace(kept[0])

    write_set({path: write_new}, before=keep)
    return kept[0] if kept else None


def free_name(path: Path) -> Path:
    """The first of labels-1.csv, labels-2.csv, ... that does not exist, for labels.csv."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(1))
    return next(each for each in numbered if not os.path.lexists(each))


def write_set(files: Mapping[Path, Writer], *, before: Callable[[], object] = lambda: None) -> None:
    """Write files that belong together: none takes its place before all are written, so a full disk changes nothing.

    Args:
        files: what writes each file, in the order in which they take their places.
        before: called once all are written, before the first takes its place.

    Raises:
        SaveError: a file cannot be written; the previous files are unchanged, and no new folder is left.
    """
    written: dict[Path, Path] = {}
    made: list[Path] = []
    try:
        for path, write in files.items():
            place = Path(os.path.realpath(path)) if path.is_symlink() else path  # the link stays
            if place.is_symlink():
                raise SaveError(f"{path} is a link that leads back to itself; remove it")
            if place.exists() and not (place.is_file() or place.is_dir()):
                raise SaveError(f"{place} is a pipe or a device, which cannot be replaced by a file; give another name")
            made += _make_folder(place.parent)
            written[place] = temporary = partial_path(place, os.getpid())
            _remove_leftovers(place)
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        before()
        for path, temporary in written.items():
            temporary.replace(path)
            made.clear()
        for folder in {path.parent for path in written}:
            _flush_folder(folder)
    except SaveError:
        raise
    except OSError as error:
        intact = "; the file that was there before is intact" if os.path.lexists(path) else ""
        raise SaveError(f"{path} cannot be written: {error.strerror or error}{intact}") from error
    finally:
        for temporary in written.values():
            with suppress(OSError):
                temporary.unlink()
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()


def partial_path(path: Path, process: int) -> Path:
    """Where a process of this machine writes a file until it is complete."""
    return path.with_name(f"{_partial_name(path)}{process}.part")


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A new folder for what is needed until ``path`` is written; what killed processes have left of theirs is removed.

    Raises:
        SaveError: it cannot be made.
    """
    folder = partial_path(path.absolute(), os.getpid())
    try:
        made = _make_folder(folder.parent)
        _remove_leftovers(path.absolute())
        shutil.rmtree(folder, ignore_errors=True)  # of a killed process with the same number
        folder.mkdir()
    except OSError as error:
        raise SaveError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for each in reversed(made):
            with suppress(OSError):  # it is not empty
                each.rmdir()


def _partial_name(path: Path) -> str:
    """How the names of partly written forms of a file begin, if processes of this machine write them."""
    name = path.name
    if len(os.fsencode(name)) > _LONG_NAME:  # with the ending it would be too long for the file system
        name = sha256(os.fsencode(name)).hexdigest()
    return f".{name}.{adler32(platform.node().encode()):08x}-"


def _remove_leftovers(path: Path) -> None:
    """Remove what processes of this machine that were killed have left of a file."""
    begins = _partial_name(path)
    with suppress(OSError):  # a folder that cannot be listed may still be written to
        for name in os.listdir(path.parent):
            if name.startswith(begins) and not _is_running(name[len(begins) :].removesuffix(".part")):
                left = path.parent / name
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left)
                else:
                    left.unlink()


def _is_running(process: str) -> bool:
    """Whether a process may still run; where that cannot be asked, it may."""
    if os.name != "posix" or not (process.isascii() and process.isdecimal()):
        return True
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns the new ones, the topmost first."""
    missing = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def append_line(path: Path, line: str) -> None:
    """Append a line to a file in a single write, so that several processes may share the file, and flush it.

    Raises:
        SaveError: the file cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            content = f"{line}\n".encode()
            while content:  # a full disk takes a part, then nothing
                content = content[os.write(descriptor, content) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SaveError(f"{path} cannot be written: {error.strerror or error}") from error


def cut_torn_line(path: Path) -> int:
    """Cut off a last line that a killed process has left without its end; returns how many bytes that were.

    Raises:
        SaveError: the file cannot be written.
    """
    try:
        with path.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            start = end
            while start:
                step = min(start, 1 << 16)
                file.seek(start - step)
                if (found := file.read(step).rfind(b"\n")) >= 0:
                    start += found + 1 - step
                    break
                start -= step
            if start < end:
                file.truncate(start)
                os.fsync(file.fileno())
            return end - start
    except OSError as error:
        raise SaveError(f"{path} cannot be written: {error.strerror or error}") from error


def refuse_links(folder: Path, *, depth: int = 1) -> None:
    """Refuse links, pipes and devices among the files of a folder that v3s writes: they lead elsewhere.

    Args:
        folder: a folder whose files are all v3s's own; it may itself be a link.
        depth: how many levels of folders below it are searched, too.

    Raises:
        ValueError: there is one; the message names it.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                kind = "a link" if entry.is_symlink() else "neither a file nor a folder"
                raise ValueError(f"{entry.path} is {kind}; v3s writes only files of its own there: remove it")
            if depth and entry.is_dir():
                refuse_links(Path(entry.path), depth=depth - 1)


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_together(folder: Path, files: dict[str, bytes]) -> None:
    """Replace several files of a folder together: after a kill, either all are old or all are new.

    They are written to a temporary folder in the given order. Once the last one exists, the new set counts (`current`),
    and the files are moved to their places, again with the last one last.

    Args:
        folder: the folder of the files.
        files: name -> content; the last must be ``DESCRIPTION``.
    """
    assert list(files)[-1] == DESCRIPTION
    finish_together(folder)
    try:
        for name, content in files.items():
            write_whole(folder / NEXT / name, content)
    finally:
        finish_together(folder)


def finish_together(folder: Path) -> None:
    """After a kill, move a complete set of files to its place, or delete an incomplete one."""
    new = folder / NEXT
    if (new / DESCRIPTION).is_file():
        for file in sorted(new.iterdir(), key=lambda file: file.name == DESCRIPTION):
            file.replace(folder / file.name)
        _flush_folder(folder)
    shutil.rmtree(new, ignore_errors=True)


def current(folder: Path, name: str) -> Path:
    """The path of a file in the newest complete set of a folder."""
    new = folder / NEXT
    complete = (new / DESCRIPTION).is_file() and (new / name).is_file()
    return new / name if complete else folder / name


def write_whole(path: Path, content: bytes) -> None:
    """Write a file with this content."""
    write_files({path: content})


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files with these contents, as `write_set`."""
    write_set({path: _writer_of(content) for path, content in contents.items()})


def _writer_of(content: bytes) -> Writer:
    return lambda path: path.write_bytes(content)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a value as readable JSON."""
    write_whole(path, json_as_bytes(value))


def json_as_bytes(value: dict[str, Any]) -> bytes:
    """A value as readable JSON; bytes of a name that are not UTF-8 are escaped, so that they are read as they were."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
