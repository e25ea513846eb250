"""Content of remote files: fetched when it is opened, kept within a bound, never removed while it is read."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from v3s.files.remote.address import PROTOCOLS, Address, RemoteError
from v3s.files.remote.listing import RemoteFile, ask_file, download
from v3s.files.remote.mirror import (
    address_of,
    has_content,
    mirror_root,
    only_fetcher,
    put,
    state_of,
    temporary_file,
)
from v3s.files.text import size_text

BOUND = "V3S_REMOTE_GB"
"""The environment variable with the bound of all content in the cache, in GB (10**9 bytes)."""
_DEFAULT_GB = "20"
_FULL, _KEPT = 0.9, 0.75  # of the bound: room is made from the first on, down to the second
_STEP = 0.01  # of the bound, that a process fetches before it looks again how much there is
_ABANDONED_SECONDS = 86400  # since a file was written that never took its place

_progress: Callable[[], None] | None = None
_unmeasured: int | None = None  # bytes that this process has fetched since it looked; None if it has not


def on_progress(call: Callable[[], None]) -> None:
    """Have a function called again and again while this process fetches, or waits for a process that does."""
    global _progress
    _progress = call


@contextmanager
def held(path: str | Path) -> Iterator[None]:
    """Fetch a file of a mirror if it has no content, and keep it from being removed; nothing for any other path.

    Raises:
        RemoteError: It cannot be fetched.
    """
    address = address_of(path)
    if address is None or not os.path.isfile(path):
        yield
        return
    while (file := _open_held(address, Path(path))) is None:
        pass  # it was removed in this moment
    with file:
        yield


def bytes_to_fetch(path: Path) -> int:
    """How many bytes of a file, or of the files in a folder, have to be fetched before it can be read."""
    if address_of(path) is None:
        return 0
    try:
        files = list(path.iterdir()) if path.is_dir() else [path]
        return sum(status.st_size for status in map(os.stat, files) if not has_content(status))
    except OSError:
        return 0


def _open_held(address: Address, path: Path) -> BinaryIO | None:
    """A file with its content, open and locked; ``None`` if it lost its content in between."""
    import fcntl

    _fetch(address, path)
    try:
        file = path.open("rb")
    except PermissionError:
        if has_content(path.stat()):
            raise
        return None
    fcntl.flock(file, fcntl.LOCK_SH)
    status = os.fstat(file.fileno())
    if not has_content(status) or not os.path.samestat(status, path.stat()):
        file.close()
        return None
    os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))  # the time of access is that of its last use
    return file


def _fetch(address: Address, path: Path) -> None:
    """Put the content of a file into its place, unless it is there."""
    if has_content(path.stat()):
        return
    with only_fetcher(path, _wait):
        if has_content(status := path.stat()):
            return
        wanted = state_of(status)
        try:
            _make_room(address, wanted.size)
            with temporary_file() as temporary:
                _fetch_whole(address, temporary, wanted)
                put(temporary, path, wanted.version, content=True)
        except RemoteError:
            raise
        except OSError as error:
            raise RemoteError(
                f"{address}: cannot be kept in {mirror_root()}: {error.strerror}; free some space, set {BOUND} lower, "
                "or set XDG_CACHE_HOME to a folder with more"
            ) from error


def _wait() -> None:
    if _progress:
        _progress()


def _fetch_whole(address: Address, temporary: Path, wanted: RemoteFile) -> None:
    """Fetch a file that is as it was listed; what ends early, or fails, is fetched once more."""
    for is_last in (False, True):
        problem = None
        try:
            download(address, temporary, wanted.size, _wait)
        except RemoteError as error:
            problem = error
        num_bytes = temporary.stat().st_size
        if (problem is None or num_bytes) and ask_file(address) != wanted:
            raise RemoteError(f"{address}: has changed since it was listed; run the command again")
        if problem is None and num_bytes == wanted.size:
            return
        if is_last:
            raise problem or RemoteError(f"{address}: ends after {num_bytes:,} of {wanted.size:,} bytes, twice")


def _bound() -> int:
    text = os.environ.get(BOUND) or _DEFAULT_GB
    try:
        bound = float(text)
    except ValueError:
        bound = 0.0
    if not 0 < bound < 1e9:
        raise RemoteError(f"{BOUND} is {text!r}; it must be a number of GB, more than 0")
    return int(bound * 1e9)


def _make_room(address: Address, num_bytes: int) -> None:
    """Take the content of the files that were not used for longest, if the cache becomes full."""
    global _unmeasured
    if num_bytes > (bound := _bound()):
        raise RemoteError(
            f"{address}: has {size_text(num_bytes)}, but the cache keeps {size_text(bound)}; set {BOUND} higher"
        )
    if _unmeasured is not None and _unmeasured + num_bytes < _STEP * bound:
        _unmeasured += num_bytes
        return
    _unmeasured = 0
    kept = [entry for protocol in PROTOCOLS for entry in _with_content(mirror_root() / protocol)]
    total = num_bytes + sum(status.st_size for _, status in kept)
    if total > _FULL * bound:
        kept.sort(key=lambda entry: entry[1].st_atime_ns, reverse=True)
        while kept and total > _KEPT * bound:
            path, status = kept.pop()
            total -= status.st_size * _take_content(path)
    for part in (mirror_root() / ".part").glob("*"):
        with suppress(OSError):
            if time.time() - part.stat().st_ctime > _ABANDONED_SECONDS:
                part.unlink()


def _with_content(folder: str | Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files below a folder that have content."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _with_content(entry.path)
            elif has_content(status := entry.stat(follow_symlinks=False)):
                yield entry.path, status


def _take_content(path: str) -> bool:
    """Make a placeholder of a file again, unless it is being read; returns whether it is one now."""
    import fcntl

    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            was = state_of(os.fstat(file.fileno()))
            with temporary_file() as temporary:
                os.truncate(temporary, was.size)
                put(temporary, Path(path), was.version, content=False)
        return True
    except OSError:
        return False
