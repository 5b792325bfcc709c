"""A DICOMweb server as a destination: STOW-RS (PS3.18 10.5), one object a request."""

from __future__ import annotations

import http.client
import json
import logging
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hipnet_edge.cart.couriers import DELIVERED, judged
from hipnet_edge.cart.deliver import Answer, Outcome
from hipnet_edge.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from hipnet_edge.cart.records import ResultObject
    from hipnet_edge.cart.settings import DicomwebDestination

logger = logging.getLogger(__name__)

_TIMEOUT_S = 60.0
_LARGEST_ANSWER = 1 << 20
_FAILED, _REASON = "00081198", "00081197"
"""Failed SOP Sequence and Failure Reason of a store response (PS3.18 table 10.5.3-1)."""
NOT_STORED = "not_stored"
"""The server said yes and named nothing that it stored."""
_PASSING = frozenset((401, 403, 408, 425, 429))
"""Refusals that concern us or the moment, not the object: a token that ran out, too many calls."""


class DicomwebCourier:
    """Sends the kept bytes over one connection that is used again.

    Raises:
        UsageError: the token cannot be read.
    """

    def __init__(self, destination: DicomwebDestination) -> None:
        url = urlsplit(destination.url)
        self._secure = url.scheme == "https"
        self._host, self._port = url.hostname or "", url.port
        self._path = f"{url.path.rstrip('/')}/studies"
        self._headers = {"Accept": "application/dicom+json"}
        if destination.token_file is not None:
            try:
                token = destination.token_file.read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{destination.token_file} holds no token.") from error
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection: http.client.HTTPConnection | None = None

    def prepare(self, objects: Sequence[ResultObject]) -> Answer:
        """Whether the server can be reached."""
        if self._connection is not None:
            return DELIVERED
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            connection.connect()
        except OSError as error:
            logger.warning("DICOMweb server not reached", exc_info=error)
            return Answer(Outcome.LATER, "unreachable")
        self._connection = connection
        return DELIVERED

    def send(self, item: ResultObject, path: Path) -> Answer:
        """Store one object and judge the answer."""
        connection = self._connection
        if connection is None:
            return Answer(Outcome.LATER, "unreachable")
        boundary = uuid.uuid4().hex
        # Without its transfer syntax, which the file says: Orthanc ignores a part that names it.
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = head + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        try:
            connection.request(
                "POST", self._path, body=body, headers={**self._headers, "Content-Type": kind}
            )
            response = connection.getresponse()
            text = response.read(_LARGEST_ANSWER)
            if response.will_close or not response.isclosed():
                self.release()
        except (OSError, http.client.HTTPException) as error:
            logger.warning("DICOMweb server lost", exc_info=error)
            self.release()
            return Answer(Outcome.LATER, "connection_lost")
        return _judged(response.status, text, item.sop_instance_uid)

    def release(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def interrupt(self) -> None:
        """Cut the connection; what is under way fails."""
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(2)


def _judged(status: int, text: bytes, uid: str) -> Answer:
    """What a status and a store response mean (PS3.18 tables 10.5.3-1 and 10.5.3-2).

    200 alone is no proof: Orthanc answers so to what it has ignored. The response must name the
    object, as JSON among those referenced, or in whatever form.
    """
    reason = f"http_{status}"
    if status in (200, 202, 409) and (failure := _failure(text)) is not None:
        return judged(failure)
    if status in (200, 202):
        named = uid.encode() in text
        return Answer(Outcome.DELIVERED, reason) if named else Answer(Outcome.REJECTED, NOT_STORED)
    if status >= 500 or status in _PASSING:
        return Answer(Outcome.LATER, reason)
    return Answer(Outcome.REJECTED, reason)


def _failure(text: bytes) -> int | None:
    """Why the object was not stored, as a C-STORE status; None if the answer does not say."""
    try:
        answer = json.loads(text)
        items = (answer[0] if isinstance(answer, list) else answer)[_FAILED]["Value"]
        return int(items[0][_REASON]["Value"][0])
    except (ValueError, KeyError, IndexError, TypeError):
        return None
