"""URLs of folders and files: what may be shown and written of them, and the secrets that never are."""

import json
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from v3s.files.text import as_text

PROTOCOLS = {"s3": "s3fs", "gs": "gcsfs", "https": "aiohttp", "http": "aiohttp"}
"""The protocols of URLs, each with the package that fsspec needs for it."""

_WEB = frozenset({"http", "https"})
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_USER = r"[^/\s'\"?#]*@|[^/\s:@\[]*:(?!\d+(?:[/?#'\"\s]|$))\S*@"  # the second: a password with a slash, as those of S3
_URL_IN_TEXT = re.compile(rf"({_URL.pattern})(?:{_USER})?([^\s'\"?#]*)(?:[?#][^\s'\"]*)?")
_SECRETS = "V3S_URL_SECRETS"
"""The environment variable by which a process that v3s starts learns them. They are never written to a file."""


class RemoteError(OSError, ValueError):
    """A URL cannot be read; the message names it, without secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.strerror = message


class RemoteMissingError(RemoteError):
    """There is nothing at a URL."""


@dataclass(frozen=True, slots=True)
class Address:
    """A folder or a file at a URL, without secrets; ``str`` gives the URL.

    Attributes:
        protocol: A key of `PROTOCOLS`.
        host: The host, with its port, or the bucket.
        path: Below it, without percent codes, posix; ends with "/" if the URL did.
    """

    protocol: str
    host: str
    path: str

    def __str__(self) -> str:
        path = quote(self.path, safe="/!$&'()*+,;=:@~", errors="surrogateescape") if self.is_web else self.path
        return f"{self.protocol}://{self.host}/{path}"

    @property
    def is_web(self) -> bool:
        """Whether it is read by HTTP, so that its path has percent codes."""
        return self.protocol in _WEB

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    def child(self, name: str) -> "Address":
        """What lies below it."""
        return Address(self.protocol, self.host, f"{self.path.rstrip('/')}/{name}".lstrip("/"))

    @property
    def parent(self) -> "Address":
        """The folder that it lies in."""
        above = self.path.rstrip("/").rpartition("/")[0]
        return Address(self.protocol, self.host, above and f"{above}/")


def is_url(text: object) -> bool:
    """Whether a text is a URL and not a path.

    >>> is_url("s3://bucket/videos"), is_url("videos/a.mp4")
    (True, False)
    """
    return isinstance(text, str) and _URL.match(text) is not None


def absolute(place: str) -> str:
    """Return the absolute path of a file or folder; a URL is returned unchanged."""
    return place if is_url(place) else os.path.abspath(place)


def without_secrets(text: str) -> str:
    """A text in which no URL has a user, a password, a query or a fragment.

    >>> without_secrets("--data=https://user:password@host/a.mp4?signature=1 is no folder")
    '--data=https://host/a.mp4 is no folder'
    """
    return _URL_IN_TEXT.sub(r"\1\3", text)


def parse_address(url: str) -> Address:
    """Read a URL, and keep its secrets in this process and in those that it starts.

    Raises:
        RemoteError: v3s reads none of its protocol, or none on this system, or it has no host, or a name that no file
            can have.
    """
    if find_spec("fcntl") is None:
        raise RemoteError(
            f"{as_text(without_secrets(url))}: URLs are not read on Windows; copy the files, and give them"
        )
    shown, (protocol, _, rest) = as_text(without_secrets(url)), url.partition("://")
    if (protocol := protocol.lower()) not in PROTOCOLS:
        raise RemoteError(f"{shown}: {protocol}:// is not read; give a folder, a file, or {'://, '.join(PROTOCOLS)}://")
    if protocol not in _WEB:
        host, _, path = rest.partition("/")
        if "@" in host or ("@" in path and ":" in host and not host.startswith("arn:")):
            raise RemoteError(f"{shown}: credentials belong where {PROTOCOLS[protocol]} looks for them, not in the URL")
        address = Address(protocol, host, path)
    else:
        try:
            parts = urlsplit(url)
            user, port = (parts.username, parts.password or ""), parts.port
        except ValueError:
            raise RemoteError(f"{shown}: is not a URL") from None
        host = parts.hostname or ""
        host = f"{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"  # IPv6 has colons of its own
        if "%2f" in parts.path.lower():
            raise RemoteError(f"{shown}: has a name with a slash in it, which no file can have")
        address = Address(protocol, host, unquote(parts.path, errors="surrogateescape").removeprefix("/"))
        _keep(address, user if user[0] is not None else None, parts.query)
        shown = str(address)
    check_remote_name(address.host, shown)
    if address.path.strip("/"):
        check_remote_name(address.path.removesuffix("/"), shown)
    return address


def check_remote_name(name: str, shown: str) -> None:
    """Refuse a name that no file below a folder can have: with empty parts, "." or "..", or from the root on.

    Args:
        name: A path, posix.
        shown: What the message begins with.

    Raises:
        RemoteError: It is one.
    """
    parts = name.split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or "\0" in name:
        raise RemoteError(f"{shown}: {as_text(repr(name))} is not a name that a file in a folder can have")


def hide_secrets(config: Any, *names: str) -> None:
    """Replace URLs among options by what may be written of them; their secrets stay in the process.

    Raises:
        RemoteError: One is a URL that v3s does not read.
    """
    for name in names:
        if is_url(value := getattr(config, name)):
            object.__setattr__(config, name, str(parse_address(value)))


def _keep(address: Address, user: tuple[str | None, str] | None, query: str) -> None:
    if not user and not query:
        return
    kept = json.loads(os.environ.get(_SECRETS, "{}"))
    if user:
        kept[f"{address.protocol}://{address.host}"] = [unquote(user[0] or ""), unquote(user[1])]
    if query:
        kept[str(address)] = query
    os.environ[_SECRETS] = json.dumps(kept)


def user_of(address: Address) -> tuple[str, str] | None:
    """User and password of its host, if a URL had them."""
    kept = json.loads(os.environ.get(_SECRETS, "{}")).get(f"{address.protocol}://{address.host}")
    return (kept[0], kept[1]) if kept else None


def query_of(address: Address) -> str:
    """The query of its URL, with a question mark; empty if it had none."""
    query = json.loads(os.environ.get(_SECRETS, "{}")).get(str(address))
    return f"?{query}" if query else ""


def forget_query(address: Address) -> None:
    """Forget the query of its URL, which can then be given without one."""
    kept = json.loads(os.environ.get(_SECRETS, "{}"))
    kept.pop(str(address), None)
    os.environ[_SECRETS] = json.dumps(kept)
