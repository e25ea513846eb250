"""Who may ask the server: windows of this page, on this machine, or with its token."""

import re
import secrets
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, quote, unquote_plus

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HTTP = 80
_PORT = re.compile(r":(\d+)$", re.ASCII)


def in_address(name: str) -> str:
    """A name or number of a machine in an address of the web."""
    return f"[{name}]" if ":" in name else name


def own_hosts(port: int) -> frozenset[str]:
    """The values of ``Host`` that lead to a port of this machine; browsers leave out the port of HTTP."""
    names = [in_address(name) for name in LOOPBACK]
    return frozenset([*(f"{name}:{port}" for name in names), *(names if port == _HTTP else ())])


class Guard:
    """Refuses requests of other pages and of other machines before the app sees them.

    A page of another site could send requests to this machine. It cannot read answers, but a name of its own that leads
    to this machine (DNS rebinding) would change that: so the name in ``Host`` must be one of ours. What changes
    something is a POST from this page's own origin, and of other sites only a click on a link is answered.

    Args:
        app: what answers.
        hosts: allowed values of ``Host``, with the port; None allows all, which needs a token.
        token: the secret that a window brings along once, in ``?token=``, and that is then taken out of its address;
            None asks for none.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str] | None, token: str | None) -> None:
        assert hosts is not None or token is not None
        self.app, self.hosts, self.token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        app = self._refusal(scope) or self.app
        await app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        """The answer to a request that is not allowed."""
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if self.hosts is not None and host not in self.hosts:
            names = ", ".join(sorted(self.hosts))
            return PlainTextResponse(f"this server is not {host!r}; open it as {names}", 421)
        port = _PORT.search(host)
        cookie = f"v3s-{port[1] if port else _HTTP}"  # browsers keep one jar for all ports
        if self.token is not None:
            query = scope["query_string"].decode("latin-1")
            given = parse_qs(query).get("token", [""])[0]
            if not (_same(given, self.token) or _same(_cookie(headers, cookie), self.token)):
                return PlainTextResponse("open the address that v3s serve has printed, with its token", 403)
            if (rest := _without_token(query)) != query:
                answer = RedirectResponse(_own_address(scope["path"], rest), 303)
                answer.set_cookie(cookie, self.token, httponly=True, samesite="lax")  # strict is not sent after a link
                return answer
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return PlainTextResponse("only the page itself may ask", 403)
        if scope["method"] not in ("GET", "HEAD"):
            if headers.get("origin", "").lower().partition("://")[2] != host:
                return PlainTextResponse("only the page itself may change something", 403)
            if headers.get("content-type", "").partition(";")[0] != "application/json":
                return PlainTextResponse("send JSON", 415)
        return None


def _without_token(query: str) -> str:
    return "&".join(pair for pair in query.split("&") if unquote_plus(pair.partition("=")[0]) != "token")


def _own_address(path: str, query: str) -> str:
    """An address of this server; one that begins with two slashes would be of another."""
    return quote("/" + path.lstrip("/")) + (f"?{query}" if query else "")


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(errors="replace"), token.encode())


def _cookie(headers: Headers, name: str) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    """Add to every answer what browsers must not do with it."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending
