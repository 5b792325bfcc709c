"""The page as a web application, and the server that runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette

from hipnet_edge.cart.page.backend import PageBackend

if TYPE_CHECKING:
    import uvicorn

__all__ = ["PageBackend", "make_app", "make_server"]


def make_app(cart: PageBackend) -> Starlette:
    """The page for one cart.

    Raises:
        ConfigurationInvalid: the page is bound wider than this machine and has no usable token.
    """
    raise NotImplementedError


def make_server(cart: PageBackend) -> uvicorn.Server:
    """A server bound as configured and hardened; `run()` it in a thread, `should_exit` ends it."""
    raise NotImplementedError
