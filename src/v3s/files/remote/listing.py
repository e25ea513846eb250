"""What there is at a URL, by fsspec: names, sizes and versions, and the content of a file. Its errors become lines."""

import errno
import hashlib
import html
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from v3s.files.remote.address import (
    PROTOCOLS,
    Address,
    RemoteError,
    RemoteMissingError,
    check_remote_name,
    forget_query,
    query_of,
    user_of,
    without_secrets,
)
from v3s.files.text import as_text

_VERSIONS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "generation"),
    *("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "modified", "created"),
)
"""What file systems of fsspec say of a file that changes with its content; the first that they say counts."""
_AT_ONCE = 16  # requests for the sizes of files
_DEEPEST = 40  # folders below each other, of pages of links
_SILENT_SECONDS = 60  # after which a web server counts as dead
_OF_THIS_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_NO_LINK = re.compile(r"[?#]|[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its server describes it.

    Attributes:
        size: In bytes.
        version: A number that changes with the content, as far as the server states it; below 2**31.
    """

    size: int
    version: int


_UNREADABLE = RemoteFile(1, 0)  # an empty file would be said to be empty


def list_folder(address: Address) -> dict[str, RemoteFile]:
    """List the files below a folder at any depth, by their paths relative to it (posix).

    On a web server a folder is a page of links; those that lead below it are followed. A link to what cannot be read is
    listed, too: whoever fetches it learns why.

    Raises:
        RemoteError: It cannot be listed, is empty, nothing in it can be read, or it holds a name that no file can have.
            Or its URL has a query, which its files would need, too.
    """
    if query_of(address):
        forget_query(address)
        raise RemoteError(
            f"{address}: is a folder, and a query (from the question mark on) opens a single file; give the URL "
            "without it, or a list of the files' URLs, each with its own"
        )
    with _asking(address) as system:
        if address.is_web:
            names = list(_linked(system, address, "", 0))
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                answers = list(pool.map(lambda name: _answer(address.child(name)), names))
            errors = [answer for answer in answers if isinstance(answer, RemoteError)]
            if errors and len(errors) == len(answers):
                raise errors[0]
            found = {
                name: _UNREADABLE if isinstance(answer, RemoteError) else answer
                for name, answer in zip(names, answers, strict=True)
            }
        else:
            url = _url(address)
            below = f"{system._strip_protocol(url).rstrip('/')}/"
            entries = system.find(url, detail=True).items()
            files = [(name.removeprefix(below), entry) for name, entry in entries if entry["type"] == "file"]
            named = [(name, entry) for name, entry in files if name and not name.endswith("/")]  # marks of folders
            found = {name: _described(address.child(name), entry) for name, entry in named}
    if not found:
        raise RemoteError(f"{address}: contains no files; give a folder, or a file with an ending of videos or lists")
    for name in found:
        check_remote_name(name, str(address))
    folders = {name[: place.start()] for name in found for place in re.finditer("/", name)}
    if both := folders & found.keys():
        raise RemoteError(f"{address}: {as_text(min(both))} is a file and a folder, which no disk holds; give a list")
    return found


def ask_file(address: Address) -> RemoteFile:
    """Ask for the size and the version of one file.

    Raises:
        RemoteMissingError: There is none.
        RemoteError: Its size is unknown.
    """
    with _asking(address) as system:
        return _described(address, system.info(_url(address)))


def _answer(address: Address) -> RemoteFile | RemoteError:
    try:
        return ask_file(address)
    except RemoteError as error:
        return error


def download(address: Address, to: Path, most_bytes: int, progress: Callable[[], None]) -> None:
    """Write a file's content.

    Args:
        address: The file.
        to: Where it is written.
        most_bytes: More than these are not written.
        progress: Called with every part.

    Raises:
        RemoteError: It cannot be read to its end, or is longer.
        OSError: It cannot be written.
    """
    callbacks = import_module("fsspec.callbacks")

    class Watch(callbacks.Callback):  # type: ignore[misc, name-defined]
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            progress()
            if self.value > most_bytes:
                raise RemoteError(f"{address}: is longer than it was when it was listed; run the command again")

    with _asking(address) as system:
        system.get_file(_url(address), str(to), callback=Watch())


def _linked(system: Any, folder: Address, below: str, depth: int) -> Iterator[str]:
    """Yield the names of files that the pages of a folder link to: only links to what lies below a page."""
    if depth > _DEEPEST:
        raise RemoteError(f"{folder}: has folders below each other {_DEEPEST} times and more; give a list of URLs")
    page = str(folder.child(below)).rstrip("/") + "/"
    with _asking(folder.child(below)):
        links = [html.unescape(link).removeprefix(page) for link in system.ls(page, detail=False)]
    names = {link.removeprefix("./") for link in links}
    for link in sorted(names):
        if _NO_LINK.search(link) or not (name := link.rstrip("/")) or "/" in name or name in (".", ".."):
            continue  # other links of the page: to orders of the list, to other folders, of its decoration
        if "/" in (name := unquote(name, errors="surrogateescape")):
            raise RemoteError(f"{folder}: {as_text(repr(name))} is not a name that a file in a folder can have")
        check_remote_name(name, str(folder))
        if link.endswith("/"):
            yield from _linked(system, folder, f"{below}{name}/", depth + 1)
        else:
            yield f"{below}{name}"


def _described(address: Address, entry: dict[str, Any]) -> RemoteFile:
    if type(size := entry.get("size")) is not int or size < 0:
        raise RemoteError(f"{address}: its server does not say how large it is; download it, and give the file")
    version = next((entry[key] for key in _VERSIONS if entry.get(key)), "")
    text = str(version.timestamp() if isinstance(version, datetime) else version)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).digest()
    return RemoteFile(size, int.from_bytes(digest, "big") >> 1)


def _url(address: Address) -> str:
    return f"{address}{query_of(address)}"


@contextmanager
def _asking(address: Address) -> Iterator[Any]:
    """The file system of a URL; what it raises becomes one line. A full disk stays an error of this disk."""
    try:
        yield _system(address)
    except RemoteError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THIS_DISK:
            raise
        raise _as_line(address, error) from None


def _system(address: Address) -> Any:
    package, options = PROTOCOLS[address.protocol], dict[str, Any]()
    try:
        library = import_module(package)
    except ImportError:
        raise RemoteError(f"{address}: needs {package}, which is not installed: pip install {package}") from None
    if address.is_web:
        login = b64encode(":".join(user).encode()).decode() if (user := user_of(address)) else None
        options["client_kwargs"] = {
            "headers": {"Authorization": f"Basic {login}"} if login else {},
            "timeout": library.ClientTimeout(total=None, sock_connect=_SILENT_SECONDS, sock_read=_SILENT_SECONDS),
            "trust_env": True,
        }
    return import_module("fsspec").filesystem(address.protocol, use_listings_cache=False, **options)


def _as_line(address: Address, error: Exception) -> RemoteError:
    """Why a request failed, without secrets."""
    is_missing = type(error) is FileNotFoundError
    cause = error.__cause__ if is_missing and isinstance(error.__cause__, Exception) else error  # the web's errors
    status = getattr(cause, "status", None)
    if status == 404 or type(cause) is FileNotFoundError:
        return RemoteMissingError(f"{address}: does not exist")
    return RemoteError(f"{address}: {_reason(cause, status)}")


def _reason(cause: Exception, status: object) -> str:
    if status in (401, 403) or isinstance(cause, PermissionError):
        return f"permission denied{f' ({status})' if status else ''}; check the credentials"
    if type(cause).__name__ == "TooManyRedirects":
        return "the server redirects without end"
    if isinstance(status, int):
        return f"the server answers {status} {getattr(cause, 'message', '')}".rstrip()
    if hasattr(cause, "host") and hasattr(cause, "port"):
        return "the host does not exist, or cannot be reached"
    if type(cause).__name__ == "ClientPayloadError":
        return "ends before the length that its server states"
    if isinstance(cause, TimeoutError):
        return f"no answer within {_SILENT_SECONDS} seconds"
    text = as_text(" ".join(without_secrets(str(cause)).split()))[:200]
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__
