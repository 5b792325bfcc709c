"""Connections before they are associations: many strangers cost little and shut nobody out.

One thread holds every connection that has not yet said who it is, shakes hands where TLS is asked
for, and reads its A-ASSOCIATE-RQ without ever waiting for it. Only a whole, well-formed request
from a known application entity gets threads of its own. When all places are taken the connection
that has waited longest gives way, so that a sender who speaks at once always comes through,
however many others connect and say nothing.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pynetdicom.pdu import A_ASSOCIATE_RQ

logger = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 256 * 1024
"""The longest A-ASSOCIATE-RQ that is read: 128 contexts with every transfer syntax need less."""

_HEADER_BYTES = 6
_ASSOCIATE_RQ = 0x01
_TICK_S = 0.25
_BACKLOG = 256
_ABORT = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02"
"""A-ABORT of the service provider (PS3.8 9.3.8), less its reason."""


@dataclass(frozen=True)
class Rejection:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4): the reason code for us, and what the peer is told."""

    reason: str
    result: int
    source: int
    diagnostic: int

    def encode(self) -> bytes:
        """The PDU."""
        return bytes((3, 0, 0, 0, 0, 4, 0, self.result, self.source, self.diagnostic))


WRONG_CALLED = Rejection("called_ae_title", result=1, source=1, diagnostic=7)
WRONG_CALLING = Rejection("calling_ae_title", result=1, source=1, diagnostic=3)
TOO_MANY = Rejection("too_many_associations", result=2, source=3, diagnostic=2)


@dataclass
class _Visitor:
    """A connection that has not said who it is."""

    socket: socket.socket
    host: str
    address: Any
    since: float
    shaken: bool
    request: bytearray = field(default_factory=bytearray)

    @property
    def missing(self) -> int:
        """How many bytes its request still lacks, as far as is known."""
        if len(self.request) < _HEADER_BYTES:
            return _HEADER_BYTES - len(self.request)
        return _HEADER_BYTES + int.from_bytes(self.request[2:6], "big") - len(self.request)


class Door(threading.Thread):
    """Accepts connections and hands over those that ask for an association as they should.

    Args:
        address: host and port to listen on; port 0 takes any free one.
        tls: for connections that must be encrypted.
        max_visitors: how many may wait to be heard.
        patience_s: how long each may take for its whole request.
        judge: says of a called and a calling AE title why they are rejected, or None.
        welcome: takes a connection over with the request that was read from it.
        refused: is told of each connection that is not let in: reason, host, calling AE title.
        tick: is called a few times a second.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(
        self,
        address: tuple[str, int],
        tls: ssl.SSLContext | None,
        *,
        max_visitors: int,
        patience_s: float,
        judge: Callable[[str, str], Rejection | None],
        welcome: Callable[[socket.socket, Any, bytes], None],
        refused: Callable[[str, str, str], None],
        tick: Callable[[], None],
    ) -> None:
        super().__init__(name="dicom-door", daemon=True)
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listener = socket.create_server(address, family=family, backlog=_BACKLOG)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._tls = tls
        self._max_visitors, self._patience_s = max_visitors, patience_s
        self._judge, self._welcome = judge, welcome
        self._refused, self._tick = refused, tick
        self._visitors: dict[int, _Visitor] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._closing = threading.Event()

    def close(self) -> None:
        """Let nobody in any more; returns when the port is free."""
        self._closing.set()
        if self.is_alive():
            self.join()
        else:
            self._shut()

    def run(self) -> None:
        """Until closed: whatever a stranger does, the door stays open for the others."""
        while not self._closing.is_set():
            try:
                self._round()
            except Exception as error:  # noqa: PERF203 - nobody may close it but its owner
                logger.error("door: %s", type(error).__name__)
                time.sleep(_TICK_S)
        self._shut()

    def _round(self) -> None:
        for key, _ in self._selector.select(_TICK_S):
            if key.fileobj is self._listener:
                self._accept()
            elif (visitor := self._visitors.get(key.fd)) is not None:
                self._hear(visitor)
        now = time.monotonic()
        for visitor in [v for v in self._visitors.values() if now - v.since > self._patience_s]:
            self._turn_away(visitor, "no_request_in_time")
        self._tick()

    def _shut(self) -> None:
        for visitor in list(self._visitors.values()):
            self._forget(visitor)
            visitor.socket.close()
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        try:
            connection, address = self._listener.accept()
        except (BlockingIOError, ConnectionError):  # it went away again
            return
        except OSError:  # this process has no descriptor left
            if self._visitors:
                self._turn_away(next(iter(self._visitors.values())), "too_many_connections")
            time.sleep(_TICK_S)
            return
        if len(self._visitors) >= self._max_visitors:
            self._turn_away(next(iter(self._visitors.values())), "too_many_connections")
        connection.setblocking(False)
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            try:
                connection = self._tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            except OSError:  # it is gone already
                connection.close()
                return
        visitor = _Visitor(
            connection, address[0], address, time.monotonic(), shaken=self._tls is None
        )
        self._visitors[connection.fileno()] = visitor
        self._selector.register(connection, selectors.EVENT_READ)
        self._hear(visitor)

    def _hear(self, visitor: _Visitor) -> None:
        """Go on with the handshake and the request as far as there is something to read."""
        try:
            if not visitor.shaken and isinstance(visitor.socket, ssl.SSLSocket):
                visitor.socket.do_handshake()
                visitor.shaken = True
                self._selector.modify(visitor.socket, selectors.EVENT_READ)
            while visitor.missing > 0:
                part = visitor.socket.recv(visitor.missing)
                if not part:
                    self._turn_away(visitor, "closed_before_request")
                    return
                visitor.request += part
                if visitor.request[0] != _ASSOCIATE_RQ or visitor.missing > MAX_REQUEST_BYTES:
                    self._turn_away(visitor, "malformed_request", _ABORT + b"\x01")
                    return
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except ssl.SSLWantWriteError:
            self._selector.modify(visitor.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
            return
        except OSError as error:
            reason = "tls" if isinstance(error, ssl.SSLError) else "connection_lost"
            self._turn_away(visitor, reason)
            return
        self._decide(visitor)

    def _decide(self, visitor: _Visitor) -> None:
        """A whole request: reject it, or hand it over."""
        request = bytes(visitor.request)
        if not _well_formed(request):
            self._turn_away(visitor, "malformed_request", _ABORT + b"\x06")
            return
        called, calling = _title(request[10:26]), _title(request[26:42])
        rejection = self._judge(called, calling)
        if rejection is not None:
            self._turn_away(visitor, rejection.reason, rejection.encode(), calling)
            return
        self._forget(visitor)
        try:
            visitor.socket.setblocking(True)
            self._welcome(visitor.socket, visitor.address, request)
        except Exception as error:  # no thread, no descriptor: the next one may have more luck
            logger.error("association not started: %s", type(error).__name__)
            visitor.socket.close()

    def _turn_away(
        self, visitor: _Visitor, reason: str, answer: bytes = b"", calling: str = ""
    ) -> None:
        self._forget(visitor)
        with suppress(OSError):
            if answer:
                visitor.socket.send(answer)
            visitor.socket.shutdown(socket.SHUT_WR)
        visitor.socket.close()
        self._refused(reason, visitor.host, calling)

    def _forget(self, visitor: _Visitor) -> None:
        self._visitors.pop(visitor.socket.fileno(), None)
        with suppress(KeyError, ValueError):
            self._selector.unregister(visitor.socket)


def _well_formed(request: bytes) -> bool:
    """Whether pynetdicom reads the request: one that it trips over never reaches an association."""
    try:
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(request)
        pdu.to_primitive()
    except Exception:  # it raises nearly anything on malformed items
        return False
    return True


def _title(field: bytes) -> str:
    """An AE title of a request: printable ASCII without padding, anything else made visible."""
    title = field.decode("ascii", "replace").strip(" ")
    return "".join(c if " " <= c <= "~" else "?" for c in title)
