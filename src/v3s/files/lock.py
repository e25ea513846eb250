"""Only one process at a time writes to a folder: a lock that ends with its owner and identifies it."""

import errno
import json
import os
import platform
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from v3s.files.writing import DESCRIPTION, NEXT, PART, SaveError

LOCK = ".lock"
_held: set[Path] = set()  # by this process: to open and close the file again would release the lock
_HAS_LOCKF = find_spec("fcntl") is not None  # of POSIX systems
_OWNER_SECONDS = 1.0  # time for a new owner to write its name


class FolderInUseError(ValueError):
    """Another process is writing to the folder; the message names it."""


def is_free(folder: Path, *besides: str) -> bool:
    """Whether a folder contains only its lock, partly written files of a killed process, and what has these names."""
    return all(file.name in (LOCK, *besides) or file.match(PART) or _is_incomplete(file) for file in folder.iterdir())


def _is_incomplete(file: Path) -> bool:
    """Whether this is a set of files of which a killed process had not written all."""
    return file.name == NEXT and not file.is_symlink() and not (file / DESCRIPTION).exists()


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the folder is created if it does not exist.

    The lock belongs to the process, not to its children, and the system releases it when the process ends for any
    reason: a lock file left after ``kill -9`` blocks nobody. Folders that were created and are still empty are removed.

    Raises:
        FolderInUseError: another process holds the lock.
        ValueError: ``folder`` is a file.
        SaveError: nothing can be written there.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder")
    if not _HAS_LOCKF:
        with _by_filelock(folder):
            yield
        return
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        descriptor = _acquire(folder)
    except OSError as error:
        raise SaveError(f"{error.filename or folder / LOCK} cannot be written: {error.strerror}") from error
    try:
        owner = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(owner).encode())
        except OSError as error:
            raise SaveError(f"{folder / LOCK} cannot be written: {error.strerror}") from error
        _held.add(folder.resolve())
        yield
    finally:
        _held.discard(folder.resolve())
        (folder / LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # what is not empty stays
            for each in made:
                each.rmdir()
        os.close(descriptor)


def is_written_elsewhere(folder: Path) -> bool:
    """Whether another process holds the lock of a folder; False where there are no locks of POSIX."""
    if not _HAS_LOCKF or folder.resolve() in _held:
        return False
    import fcntl

    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return (folder / LOCK).is_file()
    except OSError:
        return False
    return False


@contextmanager
def _by_filelock(folder: Path) -> Iterator[None]:
    """Hold a lock of the library filelock, which does not name its holder."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise FolderInUseError(f"{folder} is in use; wait until the other process ends, or choose another") from error


def _acquire(folder: Path) -> int:
    """Lock the lock file of the folder; try again if its last owner removed it in the meantime."""
    import fcntl

    path = folder / LOCK
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        except FileNotFoundError:  # the folder was just removed
            continue
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise ValueError(f"{path} is a link, which a lock never is; remove it") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ValueError(f"{path} is not a regular file, as a lock is; remove it")
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):  # a disk without locks
                os.close(descriptor)
                raise
            owner = _read_owner(descriptor)
            os.close(descriptor)
            message = f"{folder} is in use by {owner}; wait until it ends, or choose another folder"
            raise FolderInUseError(message) from error
        if path.exists() and os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
        os.close(descriptor)


def _read_owner(descriptor: int) -> str:
    deadline = time.monotonic() + _OWNER_SECONDS
    while not (text := os.pread(descriptor, 4096, 0)) and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        owner = json.loads(text)
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
