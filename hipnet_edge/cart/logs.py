"""Logs as JSON lines that cannot hold patient data.

A line is made of what is allowed and nothing else: the level, the logger, one of our own constant
sentences, and fields that are listed here with the form that their values have. Whatever a library
logs, and whatever an exception says, may quote a header: of those only the names of logger and
class, and the place in the code, are written.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TextIO

_OURS = "hipnet_edge"
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEX = re.compile(r"[0-9a-f]{12,64}")
_AE_TITLE = re.compile(r"[A-Z0-9_. -]{1,16}")

FIELDS: dict[str, re.Pattern[str] | tuple[type, ...]] = {
    **dict.fromkeys(("study", "patient", "image"), _HEX),
    **dict.fromkeys(("bundle", "overlay", "configuration", "salt"), _HEX),
    **dict.fromkeys(("event", "reason", "state", "stage", "part", "outcome", "kind"), _CODE),
    **dict.fromkeys(("destination", "backend", "variant", "version"), _NAME),
    **dict.fromkeys(("calling_ae", "called_ae"), _AE_TITLE),
    **dict.fromkeys(("case", "count", "attempt", "status", "bytes", "port"), (int,)),
    "seconds": (int, float),
}
"""The fields a line may have, and the form that their values must have to be written.

Identifiers are pseudonyms or digests, in hex digits. An AE title of other characters than capital
letters, digits and the like is left out: it comes from outside and may be anything.
"""


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The allowed part of a record."""
        ours = record.name == _OURS or record.name.startswith(f"{_OURS}.")
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name if _NAME.fullmatch(record.name) else "?",
        }
        if ours:
            line["message"] = _sentence(record)
            line.update(
                (name, vars(record)[name])
                for name, form in FIELDS.items()
                if name in vars(record) and _fits(vars(record)[name], form)
            )
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["at"] = _place(record.exc_info[2])
        return json.dumps(line)


def _sentence(record: logging.LogRecord) -> object:
    """The sentence of one of our loggers; of what is put into it only numbers and codes."""
    if not isinstance(record.msg, str):
        return "?"
    if not record.args:
        return record.msg
    given = record.args if isinstance(record.args, tuple) else (record.args,)
    allowed = tuple(
        value
        if isinstance(value, (int, float)) or (isinstance(value, str) and _NAME.fullmatch(value))
        else "?"
        for value in given
    )
    try:
        return record.msg % allowed
    except (TypeError, ValueError):
        return record.msg


def _fits(value: object, form: re.Pattern[str] | tuple[type, ...]) -> bool:
    if isinstance(form, tuple):
        return isinstance(value, form)
    return isinstance(value, str) and form.fullmatch(value) is not None


def _place(traceback: TracebackType | None) -> str:
    """Where it happened: file and line of the innermost frame."""
    if traceback is None:
        return "?"
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"


class _Handler(logging.Handler):
    """Writes lines; what cannot be written is dropped, never printed with its arguments."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            self._stream.write(self.format(record) + "\n")
            self._stream.flush()
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Nothing: a log that cannot be written must not stop the cart."""


def set_up(level: str, stream: TextIO | None = None) -> None:
    """Send all logs of this process, and what nobody caught, as JSON lines to a stream.

    Args:
        level: of our own loggers; libraries are heard from WARNING on.
        stream: stderr if not given.
    """
    handler = _Handler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(level.upper())
    for name in ("pynetdicom", "pydicom", "highdicom", "uvicorn", "asyncio"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.ERROR)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(
        args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback
    )


def _uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """An error that nobody caught: its class and place, where Python would print its text."""
    logging.getLogger(f"{_OURS}.cart").error("uncaught", exc_info=(kind, error, traceback))
