"""A folder in the user's cache that looks like a remote one: names, sizes, versions, and no content until it is used.

A file of it is a placeholder of the right size without content, which takes no space and cannot be read, until
:func:`v3s.files.remote.fetch.held` puts the content in its place. Its time of change is its version. So all that
lists files, and all that remembers them by name, size and time, works as for a local folder.

::

    remote/https/host%3A8000/videos/a.mp4    in the cache folder of v3s
    remote/.part                             what is being written
    remote/.locks                            files that are being fetched
"""

import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote, unquote

from filelock import FileLock, Timeout

from v3s.files.cache import cache_folder
from v3s.files.remote.address import PROTOCOLS, Address, RemoteError, RemoteMissingError
from v3s.files.remote.listing import RemoteFile, ask_file, list_folder

_NUM_LOCKS = 256
_WAIT_SECONDS = 5.0


def mirror_root() -> Path:
    """The folder of all mirrors, without links in its path.

    Raises:
        RemoteError: The user has no home folder.
    """
    return _root(os.environ.get("XDG_CACHE_HOME"), os.environ.get("HOME"))


@cache
def _root(*variables: str | None) -> Path:
    try:
        return (cache_folder() / "remote").resolve()
    except RuntimeError as error:
        raise RemoteError(f"{error}: set XDG_CACHE_HOME to a folder for what is fetched") from error


def mirror_of(address: Address) -> Path:
    """Where a URL lies in the cache."""
    return mirror_root() / address.protocol / quote(address.host, safe="") / address.path.rstrip("/")


def address_of(path: str | Path) -> Address | None:
    """The URL of a path in the cache; ``None`` for any other path."""
    try:
        below = os.fspath(path).removeprefix(f"{mirror_root()}{os.sep}")
    except RemoteError:  # nothing was ever mirrored
        return None
    protocol, *parts = Path(below).parts if below != os.fspath(path) else ("",)
    if protocol not in PROTOCOLS or not parts:
        return None
    return Address(protocol, unquote(parts[0]), "/".join(parts[1:]))


def shown_place(path: Path) -> str:
    """What a path is called in messages: of a mirror it is the URL."""
    return str(address_of(path) or path)


def mirror_folder(address: Address) -> Path:
    """List a remote folder, and make its mirror equal to it.

    Returns:
        The mirror. Content that was fetched stays, if its file has the same size and version.

    Raises:
        RemoteError: The folder cannot be listed, or the mirror cannot be written.
    """
    files = list_folder(address)
    root = mirror_of(address)
    with _writing(address):
        _remove_others(root, files)
        for name, file in files.items():
            place(root / name, file)
    return root


def mirror_file(address: Address) -> Path:
    """Ask for a remote file, and put it into its mirror.

    Raises:
        RemoteMissingError: There is none; nor is there in the mirror.
        RemoteError: Its server does not answer, or the mirror cannot be written.
    """
    path = mirror_of(address)
    try:
        file = ask_file(address)
    except RemoteMissingError:
        path.unlink(missing_ok=True)
        raise
    with _writing(address):
        place(path, file)
    return path


def place(path: Path, file: RemoteFile) -> None:
    """Put a placeholder of a file at a path, unless it is there in this version, with content or without."""
    with suppress(FileNotFoundError, NotADirectoryError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and state_of(status) == file:
            return
        if stat.S_ISDIR(status.st_mode):  # it has become a file
            _remove_others(path, {})
    with temporary_file() as temporary:
        os.truncate(temporary, file.size)
        try:
            put(temporary, path, file.version, content=False)
        except (FileNotFoundError, NotADirectoryError):
            for folder in path.parents:
                if folder.is_file():
                    folder.unlink()  # it has become a folder
            path.parent.mkdir(parents=True, exist_ok=True)
            put(temporary, path, file.version, content=False)


def state_of(status: os.stat_result) -> RemoteFile:
    """What a file of a mirror stands for."""
    return RemoteFile(status.st_size, status.st_mtime_ns // 10**9)


def put(temporary: Path, path: Path, version: int, *, content: bool) -> None:
    """Let a file take its place in a mirror, as a placeholder or with content."""
    os.utime(temporary, (version, version))
    os.chmod(temporary, 0o600 if content else 0)
    temporary.replace(path)


def has_content(status: os.stat_result) -> bool:
    """Whether a file of a mirror has its content, and is no placeholder."""
    return bool(status.st_mode & stat.S_IWUSR)


@contextmanager
def temporary_file() -> Iterator[Path]:
    """A new file in the cache; deleted in the end, if it has not taken another place."""
    folder = mirror_root() / ".part"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / uuid.uuid4().hex
    try:
        path.touch(0o600)
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def only_fetcher(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Wait until no other process fetches a file, and keep others waiting; `waiting` is called meanwhile."""
    folder = mirror_root() / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    number = int.from_bytes(blake2b(os.fsencode(path), digest_size=2).digest(), "big") % _NUM_LOCKS
    lock = FileLock(folder / str(number))
    while not lock.is_locked:
        waiting()
        with suppress(Timeout):
            lock.acquire(timeout=_WAIT_SECONDS)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writing(address: Address) -> Iterator[None]:
    try:
        yield
    except RemoteError:
        raise
    except OSError as error:
        place = f"{mirror_root()}: {error.strerror or error}"
        raise RemoteError(f"{address}: its mirror cannot be written: {place}") from error


def _remove_others(folder: Path, files: dict[str, RemoteFile]) -> None:
    """Remove the files below a folder that are no longer listed, and folders without files."""
    for below, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(below, name)
            if path.relative_to(folder).as_posix() not in files:
                path.unlink(missing_ok=True)
        if not files or Path(below) != folder:
            with suppress(OSError):  # it has files
                os.rmdir(below)
