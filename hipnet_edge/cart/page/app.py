"""The page as a web application, and the server that runs it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from hipnet_edge.cart.configuration import ConfigurationInvalid
from hipnet_edge.cart.page.access import SHORTEST_TOKEN, Access, Guard, Problem
from hipnet_edge.cart.page.api import StudyApi
from hipnet_edge.cart.page.backend import PageBackend
from hipnet_edge.cart.page.stow import Stow
from hipnet_edge.cart.page.upload import Login, Uploads
from hipnet_edge.errors import HipNetError, InputRefused

if TYPE_CHECKING:
    import uvicorn
    from starlette.requests import Request

    from hipnet_edge.cart.settings import Page

__all__ = ["PageBackend", "make_app", "make_server"]

_STATIC = Path(__file__).parent / "static"
_MOST_CONNECTIONS = 64
_HEADERS_WITHIN_S = 10.0


def make_app(cart: PageBackend) -> Starlette:
    """The page for one cart.

    Raises:
        ConfigurationInvalid: the page needs a token and the file holds no usable one.
    """
    page = cart.configuration.page
    access = Access(page.host, _read_token(page), page.names)
    studies, uploads, login, health = StudyApi(cart), Uploads(cart), Login(access), _Health(cart)
    one = "/api/studies/{case:int}"
    return Starlette(
        routes=[
            Route("/", _index),
            Route("/healthz", health.alive),
            Route("/readyz", health.ready),
            Route("/metrics", health.metrics),
            Route("/api/login", login.login, methods=["POST"]),
            Route("/api/logout", login.logout, methods=["POST"]),
            Route("/api/about", studies.about),
            Route("/api/scale.png", studies.scale),
            Route("/api/studies", studies.studies),
            Route(one, studies.study),
            Route(one + "/views/{view}.png", studies.film),
            Route(one + "/maps/{view}/{cause}.png", studies.heat),
            Route(one + "/page.png", studies.result_page),
            Route(one + "/report", studies.report),
            Route(one + "/objects/{sop}.dcm", studies.dicom_object),
            Route(one + "/retry", studies.retry, methods=["POST"]),
            Route("/api/upload", uploads.upload, methods=["POST"]),
            Route("/dicom-web/studies", Stow(cart).store, methods=["POST"]),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={
            Problem: _problem,
            HipNetError: _package_error,
            HTTPException: _no_such_page,
        },
    )


def make_server(cart: PageBackend) -> uvicorn.Server:
    """A server bound as configured and hardened; `run()` it in a thread, `should_exit` ends it."""
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        """Closes a connection on which no request came: uvicorn waits for the first for ever."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.loop.call_later(_HEADERS_WITHIN_S, self._close_unused)

        def _close_unused(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    page = cart.configuration.page
    return uvicorn.Server(
        uvicorn.Config(
            make_app(cart),
            host=page.host,
            port=page.port,
            http=Impatient,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,  # URLs name studies; what matters is in the audit
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            h11_max_incomplete_event_size=16 * 1024,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=3,
        )
    )


class _Health:
    """For whoever watches over the cart."""

    def __init__(self, cart: PageBackend) -> None:
        self._cart = cart

    async def alive(self, request: Request) -> Response:
        """The process answers."""
        return PlainTextResponse("ok\n")

    def ready(self, request: Request) -> Response:
        """200 only when radiographs are received and read; else the parts that are not ready."""
        missing = list(self._cart.not_ready())
        return JSONResponse({"ready": not missing, "not_ready": missing}, 503 if missing else 200)

    def metrics(self, request: Request) -> Response:
        """Counters for Prometheus."""
        return Response(self._cart.metrics(), media_type="text/plain; version=0.0.4")


def _index(request: Request) -> Response:
    return FileResponse(_STATIC / "index.html", headers={"cache-control": "no-cache"})


def _problem(request: Request, error: Exception) -> Response:
    return cast(Problem, error).response()


def _package_error(request: Request, error: Exception) -> Response:
    """Messages of this package hold no patient data and are made for people."""
    status = 422 if isinstance(error, InputRefused) else 500
    return JSONResponse(cast(HipNetError, error).to_dict(), status)


def _no_such_page(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, or no such method for it."""
    status = cast(HTTPException, error).status_code
    code, message = {
        404: ("not_found", "There is nothing here."),
        405: ("wrong_method", "This cannot be asked for so."),
    }.get(status, ("bad_request", "The request cannot be understood."))
    return JSONResponse({"code": code, "message": message}, status)


def _read_token(page: Page) -> str | None:
    """The token in the file that the configuration names."""
    if page.token_file is None:
        return None
    try:
        token = page.token_file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationInvalid("page.token_file cannot be read.") from error
    if len(token) < SHORTEST_TOKEN:
        raise ConfigurationInvalid(
            f"page.token_file holds no token of at least {SHORTEST_TOKEN} characters."
        )
    return token
