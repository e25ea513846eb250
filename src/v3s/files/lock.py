"""One process at a time writes into a folder: a lock that dies with its owner, and tells who it is."""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from v3s.files.writing import PART

LOCK = ".lock"
_OWNER_SECONDS = 1.0  # within which a new owner has written its name


class FolderInUseError(ValueError):
    """Another process writes into the folder; the message names it."""


def is_free(folder: Path) -> bool:
    """Whether a folder holds nothing but its lock and what a kill left half written."""
    return all(file.name == LOCK or file.match(PART) for file in folder.iterdir())


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is not there.

    The lock belongs to the process, not to its children, and the system takes it back when the process ends, however
    that happens: a file left by ``kill -9`` blocks nobody. A folder that was made and is still empty is removed again.

    Raises:
        FolderInUseError: another process holds the lock.
        ValueError: ``folder`` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; a folder is needed")
    if os.name != "posix":  # no such lock there
        yield
        return
    is_new = not folder.exists()
    descriptor = _acquire(folder)
    try:
        owner = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(owner).encode())
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        if is_new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        os.close(descriptor)


def _acquire(folder: Path) -> int:
    """Lock the folder's file; one that its last owner removed meanwhile does not count."""
    import fcntl

    path = folder / LOCK
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the folder was removed just now
            continue
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _read_owner(descriptor)
            os.close(descriptor)
            raise FolderInUseError(f"{folder} is in use by {owner}: wait for it, or choose another folder") from error
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
