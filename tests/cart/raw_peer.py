"""A DICOM peer made of bytes, which can say what no library would say."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from types import TracebackType

VERIFICATION = "1.2.840.10008.1.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"


def _item(kind: int, body: bytes) -> bytes:
    return bytes((kind, 0)) + struct.pack(">H", len(body)) + body


def associate_request(called: bytes = b"HIPNET", calling: bytes = b"XRAY1") -> bytes:
    """An A-ASSOCIATE-RQ for Verification (context 1) and DX (context 3)."""
    contexts = b"".join(
        _item(
            0x20,
            bytes((number, 0, 0, 0))
            + _item(0x30, abstract.encode())
            + _item(0x40, EXPLICIT.encode()),
        )
        for number, abstract in ((1, VERIFICATION), (3, DX))
    )
    user = _item(0x51, struct.pack(">I", 16384)) + _item(0x52, b"1.2.3.4")
    titles = called.ljust(16)[:16] + calling.ljust(16)[:16]
    application = _item(0x10, b"1.2.840.10008.3.1.1.1")
    body = b"\0\1\0\0" + titles + bytes(32) + application + contexts + _item(0x50, user)
    return pdu(1, body)


def pdu(kind: int, body: bytes, claimed: int | None = None) -> bytes:
    """A PDU; `claimed` is the length that its header states."""
    return bytes((kind, 0)) + struct.pack(">I", len(body) if claimed is None else claimed) + body


def data_pdu(context: int, control: int, value: bytes) -> bytes:
    """A P-DATA-TF of one value; control 1 is a command, 2 the last part."""
    return pdu(4, struct.pack(">IBB", len(value) + 2, context, control) + value)


def store_command(instance: bytes, sop_class: bytes = DX.encode(), *, data: bool = True) -> bytes:
    """The command set of a C-STORE-RQ, whatever its UIDs hold."""
    return _command(
        {0x0002: sop_class, 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 0 if data else 0x0101}
        | {0x1000: instance}
    )


def _command(elements: dict[int, bytes | int]) -> bytes:
    """A command set (PS3.7 6.3.1), its group length in front."""
    encoded = b""
    for number, content in elements.items():
        value = struct.pack("<H", content) if isinstance(content, int) else content
        value += b"\0" * (len(value) % 2)
        encoded += struct.pack("<HHI", 0, number, len(value)) + value
    return struct.pack("<HHII", 0, 0, 4, len(encoded)) + encoded


class RawPeer:
    """A TCP connection to the receiver."""

    def __init__(self, port: int, *, timeout: float = 5.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes; that the receiver has hung up shows when the answer is read."""
        with suppress(ConnectionError):
            self.socket.sendall(data)

    def finish(self) -> None:
        """Say that nothing more will be sent."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def answer(self) -> int | None:
        """The kind of the PDU that comes, 2 accepted, 3 rejected, 7 aborted; None when closed."""
        received = self.answer_pdu()
        return received[0] if received else None

    def answer_pdu(self) -> bytes:
        """The PDU that comes, or nothing."""
        try:
            head = self._exactly(6)
            return head + self._exactly(struct.unpack(">I", head[2:])[0]) if head else b""
        except ConnectionError:
            return b""

    def associate(self) -> None:
        """Have an association accepted."""
        self.send(associate_request())
        assert self.answer() == 2

    def echo(self) -> int | None:
        """Send one C-ECHO; its status."""
        fields = {0x0002: VERIFICATION.encode(), 0x0100: 0x30, 0x0110: 5, 0x0800: 0x0101}
        self.send(data_pdu(1, 3, _command(fields)))
        return self.status()

    def store(self, instance: bytes, data: bytes, sop_class: bytes = DX.encode()) -> int | None:
        """Send one C-STORE; its status, or None if the association ended instead."""
        self.send(data_pdu(3, 3, store_command(instance, sop_class)))
        for start in range(0, len(data), 60_000):
            part = data[start : start + 60_000]
            self.send(data_pdu(3, 2 if start + 60_000 >= len(data) else 0, part))
        return self.status()

    def status(self) -> int | None:
        """The status of the next response."""
        response = self.answer_pdu()
        at = response.find(b"\x00\x00\x00\x09\x02\x00\x00\x00")
        if response[:1] != b"\x04" or at < 0:
            return None
        status: int = struct.unpack_from("<H", response, at + 8)[0]
        return status

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                return b""
            data += part
        return data
