"""STOW-RS reception (PS3.18 10.5): DICOM files in one multipart body, admitted like all others.

Each file is streamed to disk as it arrives and admitted before the next one begins, so that memory
does not grow with the request.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from hipnet_edge.cart.page.access import Problem
from hipnet_edge.cart.page.upload import MIB, body_within, disk_failed
from hipnet_edge.cart.receive import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, STATUSES

if TYPE_CHECKING:
    from starlette.requests import Request

    from hipnet_edge.cart.admission import Outcome
    from hipnet_edge.cart.page.backend import PageBackend

MOST_PARTS = 64
_LARGEST_PART_HEAD = 8192
_BOUNDARY = re.compile(r"[A-Za-z0-9'()+_,./:=? -]{0,69}[A-Za-z0-9'()+_,./:=?-]")
"""RFC 2046 5.1.1."""


@dataclass(frozen=True)
class _Begin:
    """A part begins; its headers are over."""

    media_type: str


@dataclass(frozen=True)
class _End:
    """A part is over."""


class Stow:
    """The Studies Service's Store transaction."""

    def __init__(self, cart: PageBackend) -> None:
        self._cart = cart

    async def store(self, request: Request) -> Response:
        """Admit every file of the request; 200 all of them, 202 some, 409 none."""
        boundary = boundary_of(request.headers.get("content-type", ""))
        limits = self._cart.configuration.receive
        largest = limits.max_object_mib * MIB
        body = body_within(request, MOST_PARTS * largest, limits.idle_timeout_s)
        outcomes: list[Outcome] = []
        file: BinaryIO | None = None
        path = self._new_file()
        written = 0
        try:
            async for piece in parts(body, boundary):
                if isinstance(piece, _Begin):
                    if piece.media_type != "application/dicom":
                        raise Problem(415, "wrong_type", "Every part must be application/dicom.")
                    if len(outcomes) == MOST_PARTS:
                        raise Problem(413, "too_large", f"At most {MOST_PARTS} files are taken.")
                    path, written = self._new_file(), 0
                    file = path.open("xb")
                elif isinstance(piece, bytes) and file:
                    written += len(piece)
                    if written > largest:
                        words = f"At most {limits.max_object_mib} MiB are taken."
                        raise Problem(413, "too_large", words)
                    file.write(piece)
                elif file:
                    file.close()
                    file = None
                    admit = self._cart.admission.admit
                    outcomes.append(await run_in_threadpool(admit, path, source="stow"))
        except OSError:
            raise disk_failed() from None
        finally:
            if file:
                file.close()
            path.unlink(missing_ok=True)
        if not outcomes:
            raise Problem(400, "empty", "The request holds no DICOM file.")
        return await run_in_threadpool(self._answer, outcomes)

    def _answer(self, outcomes: list[Outcome]) -> Response:
        """The response's data set (PS3.18 10.5.3.2, Table I.1-1)."""
        dataset: dict[str, dict[str, object]] = {}
        reasons = []
        for outcome in outcomes:
            item = self._reference(outcome)
            if outcome.accepted:
                sequence = "00081199"  # Referenced SOP Sequence
            else:
                # Failed SOP Sequence; Other Failures Sequence for what could not even be named
                sequence = "00081198" if item else "0008119A"
                reasons.append(STATUSES.get(outcome.reason or "", CANNOT_UNDERSTAND))
                item["00081197"] = {"vr": "US", "Value": [reasons[-1]]}
            found = dataset.setdefault(sequence, {"vr": "SQ", "Value": []})
            cast(list[object], found["Value"]).append(item)
        none = len(reasons) == len(outcomes)
        status = (409 if none else 202) if reasons else 200
        if none and set(reasons) == {OUT_OF_RESOURCES}:
            status = 503
        return JSONResponse(dataset, status, media_type="application/dicom+json")

    def _reference(self, outcome: Outcome) -> dict[str, object]:
        """SOP class, as far as it is known, and SOP instance."""
        uid = outcome.sop_instance_uid
        if not uid:
            return {}
        kept = self._cart.queue.instance(uid)
        named: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
        if kept:
            named["00081150"] = {"vr": "UI", "Value": [kept.sop_class_uid]}
        return named

    def _new_file(self) -> Path:
        return Path(self._cart.store.incoming) / f"stow-{secrets.token_hex(16)}"


def boundary_of(content_type: str) -> bytes:
    """What separates the parts of a multipart/related request (RFC 2387).

    Raises:
        Problem: 415, the request is none.
    """
    header = Message()
    header["content-type"] = content_type
    kind = header.get_param("type", "application/dicom")
    boundary = header.get_param("boundary", "")
    if (
        header.get_content_type() != "multipart/related"
        or str(kind).lower() != "application/dicom"
        or not (isinstance(boundary, str) and _BOUNDARY.fullmatch(boundary))
    ):
        raise Problem(
            415, "wrong_type", 'Files are taken as multipart/related; type="application/dicom".'
        )
    return boundary.encode("ascii")


async def parts(
    body: AsyncIterator[bytes], boundary: bytes
) -> AsyncIterator[_Begin | bytes | _End]:
    """The parts of a multipart body, piece by piece, holding back only what may be a boundary.

    Raises:
        Problem: 400, the body is cut short or its parts have no end to their headers.
    """
    delimiter = b"\r\n--" + boundary
    held = b"\r\n"  # the first delimiter may stand at the very beginning
    inside = False
    broken = Problem(400, "bad_request", "The multipart body is damaged or cut short.")
    async for chunk in body:
        held += chunk
        while True:
            at = held.find(delimiter)
            # What follows the delimiter decides: two dashes end it all, else headers come.
            after = held[at + len(delimiter) :] if at >= 0 else b""
            if at < 0 or len(after) < 2:
                break
            if inside:
                if at:
                    yield held[:at]
                yield _End()
                inside = False
            if after.startswith(b"--"):
                return
            head, end, rest = after.partition(b"\r\n\r\n")
            if not end:
                held = held[at:]
                if len(after) > _LARGEST_PART_HEAD:
                    raise broken
                break
            held, inside = rest, True
            yield _Begin(_media_type(head))
        if inside:
            safe = len(held) - len(delimiter) - 2
            if safe > 0:
                yield held[:safe]
                held = held[safe:]
        elif len(held) > _LARGEST_PART_HEAD + len(delimiter):
            held = held[-len(delimiter) - _LARGEST_PART_HEAD :]
    raise broken


def _media_type(head: bytes) -> str:
    """The media type that the headers of a part name, without parameters."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-type":
            return value.partition(b";")[0].strip().lower().decode("latin-1")
    return ""
