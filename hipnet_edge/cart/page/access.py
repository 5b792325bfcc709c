"""Who may ask the page for what, and what every answer says to the browser.

On 127.0.0.1 whoever sits at the cart may look. Bound wider, or wherever a token file is named, the
token is needed: programs send it as `Authorization: Bearer`, people type it once and get a cookie
that does not hold it. A page of another site must not reach this one through the browser of the
person at the cart: the Host header is checked (DNS rebinding), what changes something needs our
own Origin (request forgery), and no other page may frame, embed or read ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from hipnet_edge.cart.settings import is_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

COOKIE = "hipnet_edge"
COOKIE_SECONDS = 12 * 3600
SHORTEST_TOKEN = 16

_OPEN = frozenset({"/", "/healthz", "/readyz", "/api/login"})
"""What needs no token: the page without any study on it, and whether the cart is well."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SLOWEST_READER_S = 60.0
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Problem(Exception):
    """A request that is answered with an error: a code for programs, a sentence for people."""

    def __init__(self, status: int, code: str, message: str, **more: object) -> None:
        self.status, self.code, self.message, self.more = status, code, message, more
        super().__init__(code)

    def response(self) -> JSONResponse:
        """The error as JSON."""
        body = {"code": self.code, "message": self.message, **self.more}
        headers = {"www-authenticate": "Bearer"} if self.status == 401 else None
        return JSONResponse(body, self.status, headers)


class Access:
    """The rules of one page.

    Args:
        host: the address that the page is bound to.
        token: what must be shown; None where the page is for this machine alone.
        names: the names under which others reach the page, such as that of a reverse proxy.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        host: str,
        token: str | None,
        names: Collection[str] = (),
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._token, self._clock = token, clock
        self._wide = not is_loopback(host)
        own = (host, socket.gethostname()) if self._wide else ()
        self._names = {name.lower() for name in ("localhost", *names, *own)}

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Let a request pass.

        Raises:
            Problem: it may not; 421 wrong host, 401 without token, 403 from another origin.
        """
        host = headers.get("host", "").lower()
        if not self._is_ours(host_name(host)):
            raise Problem(421, "wrong_host", "The page is not known under this name.")
        by_program = self._bearer(headers.get("authorization", ""))
        if not (self._is_open(path) or by_program or self._cookie_holds(headers)):
            raise Problem(401, "token_needed", "The page needs its token.")
        if method not in _SAFE_METHODS and not by_program:
            origin = headers.get("origin", "")
            if not host or urlsplit(origin).netloc.lower() != host:
                raise Problem(403, "wrong_origin", "Only the page itself may ask for this.")

    def is_token(self, given: str) -> bool:
        """Whether this is the token; takes as long for a nearly right one as for a wrong one."""
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    def new_cookie(self) -> str:
        """What a browser keeps in place of the token: when it ends, signed with the token."""
        ends = str(int(self._clock()) + COOKIE_SECONDS)
        return f"{ends}.{self._signed(ends)}"

    def _is_open(self, path: str) -> bool:
        return self._token is None or path in _OPEN or path.startswith("/static/")

    def _bearer(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        return scheme.lower() == "bearer" and self.is_token(given.strip())

    def _cookie_holds(self, headers: Mapping[str, str]) -> bool:
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            ends, _, signature = value.partition(".")
            if name != COOKIE or not (ends.isascii() and ends.isdecimal() and len(ends) < 16):
                continue
            signed = hmac.compare_digest(signature.encode(), self._signed(ends).encode())
            return signed and self._clock() < int(ends)
        return False

    def _signed(self, ends: str) -> str:
        if self._token is None:
            raise Problem(404, "no_token", "This page has no token.")
        text = f"hipnet_edge page cookie {ends}"
        return hmac.new(self._token.encode(), text.encode(), hashlib.sha256).hexdigest()

    def _is_ours(self, name: str) -> bool:
        """Whether a Host header names this machine; an address cannot be rebound by a stranger."""
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return self._wide or address.is_loopback or name in self._names


class Guard:
    """ASGI middleware: the rules before every request, the headers on every answer, no raw error.

    What a handler raises unforeseen is answered as our own fault and logged by its class alone: its
    text could hold a patient's name.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                _add_headers(message)
            await asyncio.wait_for(send(message), _SLOWEST_READER_S)

        try:
            self._access.check(scope["method"], scope["path"], Headers(scope=scope))
            await self._app(scope, receive, answer)
        except Problem as problem:
            await problem.response()(scope, receive, answer)
        except (ClientDisconnect, TimeoutError, asyncio.TimeoutError):
            logger.info("page: a client went away or was too slow")
        except Exception as error:
            logger.error("page: fault: %s", type(error).__name__)
            if not begun:
                await FAULT.response()(scope, receive, answer)


FAULT = Problem(500, "internal", "A fault of hipnet_edge; please report it.")


def _add_headers(message: Message) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in _HEADERS.items():
        headers[name] = value
    headers.setdefault("cache-control", "no-store")


def host_name(host: str) -> str:
    """The name or address in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def cookie_header(value: str, *, seconds: int, secure: bool) -> dict[str, Any]:
    """The arguments of `Response.set_cookie`: never readable by scripts nor sent by other sites."""
    return {
        "key": COOKIE,
        "value": value,
        "max_age": seconds,
        "httponly": True,
        "samesite": "strict",
        "secure": secure,
    }
