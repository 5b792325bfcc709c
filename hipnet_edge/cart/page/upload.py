"""Taking a file from the browser: streamed to disk within limits, then admitted like any image."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from hipnet_edge.cart.admission import NO_SPACE, QUEUE_FULL
from hipnet_edge.cart.page.access import COOKIE_SECONDS, Access, Problem, cookie_header
from hipnet_edge.cart.page.advice import what_to_do

if TYPE_CHECKING:
    from starlette.requests import Request

    from hipnet_edge.cart.admission import Outcome
    from hipnet_edge.cart.page.backend import PageBackend

MIB = 1024**2
DISK_FAILED = Problem(
    503, "disk_failed", "The disk failed; nothing was kept. Tell the administrator."
)
_LOGIN_BYTES = 4096
_LONGEST_UPLOAD_S = 600.0
_WRONG_TOKEN_WAIT_S = 1.0
_FULL = frozenset({NO_SPACE, QUEUE_FULL})


async def body_within(request: Request, largest: int, idle_s: float) -> AsyncIterator[bytes]:
    """The body piece by piece, as long as it stays within a size and arrives in time.

    Raises:
        Problem: 413 too large, 408 too slow.
    """
    too_large = Problem(413, "too_large", f"At most {max(largest // MIB, 1)} MiB are taken.")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:15]) > largest:
        raise too_large
    seen, ends = 0, time.monotonic() + _LONGEST_UPLOAD_S
    pieces = request.stream()
    while True:
        try:
            left = min(idle_s, ends - time.monotonic())
            piece = await asyncio.wait_for(anext(pieces), max(left, 0.0))
        except StopAsyncIteration:
            return
        except (TimeoutError, asyncio.TimeoutError):
            raise Problem(408, "too_slow", "The file did not arrive in time.") from None
        seen += len(piece)
        if seen > largest:
            raise too_large
        yield piece


def disk_failed() -> Problem:
    """What is said when the disk fails; what the system says of it may name a file."""
    return Problem(503, "disk_failed", "The disk failed; nothing was kept. Tell the administrator.")


class Uploads:
    """Files that people bring by hand."""

    def __init__(self, cart: PageBackend) -> None:
        self._cart = cart

    async def upload(self, request: Request) -> Response:
        """One DICOM file as the raw body; answered once it is kept and queued, or refused."""
        limits = self._cart.configuration.receive
        folder = self._cart.store.incoming
        path = Path(folder) / f"upload-{secrets.token_hex(16)}"
        try:
            with path.open("xb") as file:
                async for piece in body_within(
                    request, limits.max_object_mib * MIB, limits.idle_timeout_s
                ):
                    file.write(piece)
            outcome = await run_in_threadpool(self._cart.admission.admit, path, source="upload")
        except OSError:
            raise disk_failed() from None
        finally:
            path.unlink(missing_ok=True)
        return JSONResponse(_told(outcome), _status(outcome))


class Login:
    """A person shows the token once; the browser keeps a cookie that ends by itself."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def login(self, request: Request) -> Response:
        """The token as the raw body, for a cookie."""
        given = b"".join([piece async for piece in body_within(request, _LOGIN_BYTES, 10.0)])
        if not self._access.is_token(given.decode("utf-8", "replace").strip()):
            await asyncio.sleep(_WRONG_TOKEN_WAIT_S)
            raise Problem(401, "wrong_token", "This is not the token of this page.")
        return self._with_cookie(request, self._access.new_cookie(), COOKIE_SECONDS)

    async def logout(self, request: Request) -> Response:
        """Take the cookie back."""
        return self._with_cookie(request, "", 0)

    @staticmethod
    def _with_cookie(request: Request, value: str, seconds: int) -> Response:
        response = JSONResponse({"ok": True})
        # The guard has checked that the Origin is ours, so it tells whether a proxy speaks TLS.
        secure = request.headers.get("origin", "").startswith("https://")
        response.set_cookie(**cookie_header(value, seconds=seconds, secure=secure))
        return response


def _told(outcome: Outcome) -> dict[str, object]:
    """What became of a file, in words."""
    reason, message = outcome.reason, outcome.message
    if outcome.accepted and reason:
        message += f" It can be no part of a study: {reason.replace('_', ' ')}."
    return {
        "accepted": outcome.accepted,
        "code": reason or "accepted",
        "message": message,
        "advice": what_to_do(reason) if reason else "",
    }


def _status(outcome: Outcome) -> int:
    if outcome.accepted:
        return 200
    return 503 if outcome.reason in _FULL else 422
