"""An association within limits: what a peer may make this process hold, write or wait for.

pynetdicom reads whatever length a PDU claims, keeps a data set in memory until it is whole, and
asks its sockets and queues a thousand times a second whether there is something to do. Here a PDU
has a largest size and must get on, a data set goes to a file as it arrives, and the threads of an
idle association sleep.
"""

from __future__ import annotations

import errno
import os
import queue
import select
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

if TYPE_CHECKING:
    from pynetdicom.association import Association

_RECEIVE_BYTES = 256 * 1024
_COMMAND_OR_LAST = 0b11
"""The bits of a message control header (PS3.8 E.2): a command; the last part."""
_MAX_COMMAND_BYTES = 64 * 1024
_MAX_OTHER_BYTES = 1024**2
"""The largest data set of a message that is no C-STORE; those of N-ACTION list a few UIDs."""
_MAX_WAITING_MESSAGES = 2
_PROGRESS_BYTES = 256 * 1024
_ANSWER_S = 0.2
_WAIT_MS = 10
"""How long a thread waits for something to read before it looks for something to send."""
_ABORT = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x06"
"""A-ABORT of the service provider, invalid PDU parameter value (PS3.8 9.3.8)."""


class Progress:
    """When an association last got on: a message was answered, or a part of an object came.

    One that sends a byte now and then does not get on, and gives way to others.
    """

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._bytes = 0
        self._working = False

    def received(self, count: int) -> None:
        """Count bytes that came."""
        self._bytes += count
        if self._bytes >= _PROGRESS_BYTES:
            self.mark()

    def mark(self) -> None:
        """It got on just now."""
        self._at, self._bytes = time.monotonic(), 0

    @contextmanager
    def working(self) -> Iterator[None]:
        """While a request is worked on only this side delays it."""
        self._working = True
        try:
            yield
        finally:
            self.mark()
            self._working = False

    @property
    def stale_s(self) -> float:
        """For how long it has not got on; 0 while this side works on a request."""
        return 0.0 if self._working else time.monotonic() - self._at


class GuardedSocket(AssociationSocket):
    """A connection of which no PDU is read that is too large or comes too slowly.

    Args:
        association: the association, not started.
        connection: blocking; what follows `request` is read from it.
        request: the A-ASSOCIATE-RQ that was read from it before.
        max_pdu_bytes: the most that a PDU's header may claim.
        patience_s: for how long it may get no further.
        progress: is told of what comes.
    """

    def __init__(
        self,
        association: Association,
        connection: socket.socket,
        request: bytes,
        *,
        max_pdu_bytes: int,
        patience_s: float,
        progress: Progress,
    ) -> None:
        super().__init__(association, client_socket=connection)
        connection.settimeout(patience_s)
        self._unread = memoryview(request)
        self._max_pdu_bytes, self._patience_s = max_pdu_bytes, patience_s
        self._progress = progress
        self._poll = select.poll()  # select() fails on descriptors beyond 1023
        self._poll.register(connection, select.POLLIN)

    @property
    def ready(self) -> bool:
        """Whether there is something to read; waits a moment for it, lest its thread spin."""
        connection = self.socket
        if connection is None or not self._is_connected:
            return False
        if self._unread or getattr(connection, "pending", int)():
            return True
        return bool(self._poll.poll(_WAIT_MS))

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes, fewer only if the connection ends before.

        Raises:
            OSError: they are too many for one PDU, or did not come in time.
        """
        connection = self.socket
        if connection is None:
            raise ConnectionError("closed")
        if nr_bytes > self._max_pdu_bytes:
            with suppress(OSError):
                connection.sendall(_ABORT)
            raise ConnectionAbortedError(errno.EMSGSIZE, "PDU too large")
        if self._unread:
            part = bytearray(self._unread[:nr_bytes])
            self._unread = self._unread[len(part) :]
            return part
        data = bytearray(nr_bytes)
        view, filled = memoryview(data), 0
        while filled < nr_bytes:
            count = connection.recv_into(view[filled : filled + _RECEIVE_BYTES])
            if count == 0:
                break
            filled += count
            self._progress.received(count)
            if filled < nr_bytes and self._progress.stale_s > self._patience_s:
                raise TimeoutError("PDU too slow")
        view.release()
        del data[filled:]
        return data

    def cut(self) -> None:
        """End the connection at once, from any thread; its own threads see it closed."""
        connection = self.socket
        if connection is not None:
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


class IncomingFile:
    """A data set on its way into a file, or into nothing once it cannot be kept.

    It stands where pynetdicom expects its own temporary file: `file`, `name`, `write` and `close`
    are what that calls.

    Args:
        folder: for the file, which gets a name of its own.
        head: what stands before the data set: preamble and file meta information.
        limit: the most bytes that the data set may have.
        refused: why nothing is to be kept of it, if that is known before it comes.

    Attributes:
        path: the file.
        error: why it is not whole; None if it is.
        too_large: the data set passed the limit.
    """

    def __init__(self, folder: Path, head: bytes, limit: int, refused: str | None = None) -> None:
        self.path = folder / f"{uuid.uuid4().hex}.part"
        self.name = str(self.path)
        self.file = self
        self.error: OSError | None = None
        self.size = 0
        self.too_large = False
        self.refused = refused
        self._limit = limit
        self._descriptor: int | None = None
        if refused is None:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._descriptor = os.open(self.path, flags, 0o600)
            except OSError as error:
                self.error = error
            self._put(head)

    def write(self, data: bytes) -> int:
        """Take a part; one too many, or one that the disk does not take, ends the file."""
        self.size += len(data)
        if self.size > self._limit:
            self.too_large = True
            self.discard()
        else:
            self._put(data)
        return len(data)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view and self._descriptor is not None:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self.error = error
            self.discard()

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """No more parts will come."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def discard(self) -> None:
        """Remove it."""
        self.close()
        self.path.unlink(missing_ok=True)


class Reception(DIMSEServiceProvider):
    """Messages of one association: at most one at a time, data sets of C-STORE in files.

    Args:
        association: the association, not started.
        open_file: begins the file for a C-STORE request with this head.
        progress: is told of complete messages.
        broken: is told why the association is aborted.
    """

    def __init__(
        self,
        association: Association,
        *,
        open_file: Callable[[Association, C_STORE_RQ], IncomingFile],
        progress: Progress,
        broken: Callable[[str], None],
    ) -> None:
        super().__init__(association)
        self._open_file, self.progress, self._broken = open_file, progress, broken
        self._command_bytes = self._other_bytes = 0
        self._file: IncomingFile | None = None
        self._unhandled: list[IncomingFile] = []
        self._over = False

    @property
    def receiving(self) -> bool:
        """Whether a message has begun to come in, or waits to be worked on."""
        return self.message is not None or not self.msg_queue.empty()

    def get_msg(self, block: bool = False) -> Any:
        """The next message; waits a moment for it, so that the thread that asks does not spin."""
        if block:
            return super().get_msg(block)
        try:
            return self.msg_queue.get(timeout=0.02)
        except queue.Empty:
            return None, None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take parts of messages, one by one.

        An association that breaks a limit or a rule is aborted; what was received of its object
        is removed.
        """
        for context_id, value in primitive.presentation_data_value_list:
            if self._over:
                return
            try:
                reason = self._excess(value) or self._take(context_id, value)
            except Exception:  # pynetdicom raises nearly anything on malformed commands
                reason = "malformed_message"
            if reason is not None:
                self._break(reason)

    def _excess(self, value: bytes) -> str | None:
        """Why a part is not taken."""
        if self.message is None:
            self._command_bytes = self._other_bytes = 0
            if self.msg_queue.qsize() >= _MAX_WAITING_MESSAGES:
                return "too_many_requests"
        if value[0] & 1:
            self._command_bytes += len(value)
        elif self._file is None:
            self._other_bytes += len(value)
        if self._command_bytes > _MAX_COMMAND_BYTES or self._other_bytes > _MAX_OTHER_BYTES:
            return "message_too_large"
        return None

    def _take(self, context_id: int, value: bytes) -> str | None:
        """Let pynetdicom add a part to its message; why that was one too many."""
        if self._file is not None and not value[0] & _COMMAND_OR_LAST:
            self._file.write(value[1:])
            return "object_too_large" if self._file.too_large else None
        part = P_DATA()
        part.presentation_data_value_list = []
        part.presentation_data_value_list.append((context_id, value))
        message = self.message = self.message or DIMSEMessage()
        super().receive_primitive(part)
        if self.message is None:  # it is complete, and the handler's from now on
            self._file = None
            self.progress.mark()
        elif self._file is None and isinstance(message, C_STORE_RQ):
            self._file = self._open_file(self.assoc, message)
            self._unhandled.append(self._file)
            message._data_set_file = self._file  # type: ignore[assignment]
            message._data_set_path = self._file.path
        return None

    def _break(self, reason: str) -> None:
        self._over = True
        if self._file is not None:
            self._file.discard()
        self._broken(reason)
        self.dul.event_queue.put("Evt19")  # as for an invalid PDU: A-ABORT, then closed

    def handled(self, file: IncomingFile) -> None:
        """An object that came in whole was kept or refused."""
        file.discard()
        self._unhandled.remove(file)

    def abandon(self) -> None:
        """Remove what came in and will not be handled any more; the association has ended."""
        for file in self._unhandled:
            file.discard()


class Watched:
    """An association of the receiver, seen from outside its threads."""

    def __init__(
        self,
        association: Association,
        guarded: GuardedSocket,
        reception: Reception,
        progress: Progress,
    ) -> None:
        self.association, self.progress = association, progress
        self.ended = False
        self._socket, self._reception = guarded, reception

    @property
    def resting(self) -> bool:
        """Whether no image is coming in, and the last answer had time to be sent."""
        return not self._reception.receiving and self.progress.stale_s > _ANSWER_S

    def end(self) -> None:
        """Cut its connection; its threads end a moment later."""
        self.ended = True
        self._socket.cut()

    def released(self) -> bool:
        """Whether it is over; what it held is released then."""
        if self.association.is_alive() or self.association.dul.is_alive():
            return False
        self._reception.abandon()
        self._socket._shutdown_socket()
        return True


def end_quietly(association: Association) -> None:
    """Let a peer that breaks the protocol end the association, and not one of its threads.

    An answer that is ready when the association has just been aborted finds no place in
    pynetdicom's state machine: it raises where nobody catches it.
    """
    act = association.dul.state_machine.do_action

    def do_action(event: str) -> None:
        try:
            act(event)
        except InvalidEventError:
            association.dul.kill_dul()

    association.dul.state_machine.do_action = do_action  # type: ignore[method-assign]


def wait_for(associations: list[Watched], seconds: float) -> None:
    """Wait until associations have ended, at most so long."""
    deadline = time.monotonic() + seconds
    for watched in associations:
        watched.association.join(max(0.0, deadline - time.monotonic()))
