"""Who may ask the server: a browser on this machine that was given the token."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Sent with every answer: nothing is loaded from elsewhere, nothing inline runs, nothing is kept or framed."""
_READS = ("GET", "HEAD")


class Guard:
    """Lets a request through to an application if it may be answered.

    Its ``Host`` must be the server's own, so that no name of a stranger's that leads to this machine is enough. What
    changes something must come from one of the server's own pages, by its ``Origin``. It must have the cookie, which a
    browser gets that opens the address with the token.

    Parameters
    ----------
    app
        What answers.
    hosts
        What ``Host`` may say, with the port.
    port
        The port, which is part of the cookie's name, since browsers give cookies to all ports of a host.
    token
        What opens the page; a new one where it is None.

    Attributes
    ----------
    token : str
        What opens the page, as ``/?token=...``. The cookie holds another secret.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], port: int, token: str | None = None) -> None:
        self.token = secrets.token_urlsafe(24) if token is None else token
        self._app, self._hosts = app, frozenset(hosts)
        self._name, self._cookie = f"alcore-{port}", secrets.token_urlsafe(24)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the application do it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = self._answer(scope)
        await (answer or self._app)(scope, receive, send_with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        """Return what to answer without asking the application; None where it is to be asked."""
        host = _only(scope, b"host")
        if host not in self._hosts:
            return PlainTextResponse(f"This server answers as {' or '.join(sorted(self._hosts))} alone.\n", 403)
        if scope["method"] not in _READS and _only(scope, b"origin") != f"http://{host}":
            return PlainTextResponse("What changes something must come from a page of this server.\n", 403)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if scope["method"] == "GET" and len(given) == 1 and _equal(given[0], self.token):
            opened = RedirectResponse("/", 303)  # so that the token is in no address that is kept or shared
            opened.set_cookie(self._name, self._cookie, httponly=True, samesite="strict", path="/")
            return opened
        if not any(_equal(cookie, self._cookie) for cookie in self._cookies(scope)):
            return PlainTextResponse("Open the address that `alcore dash` has printed: it has the token.\n", 403)
        return None

    def _cookies(self, scope: Scope) -> list[str]:
        pairs = [pair.partition("=") for pair in (_only(scope, b"cookie") or "").split(";")]
        return [value.strip() for name, _, value in pairs if name.strip() == self._name]


def _equal(given: str, expected: str) -> bool:
    return secrets.compare_digest(given.encode(), expected.encode())


def _only(scope: Scope, name: bytes) -> str | None:
    """Return the value of a header that a request has once; None where it has none, or several."""
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return values[0] if len(values) == 1 else None
