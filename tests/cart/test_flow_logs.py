"""What may stand in a log line, and what never does."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys

from hipnet_edge.cart.logs import JsonLines


def lines(*calls) -> list[dict[str, object]]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name, call in calls:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        try:
            call(logger)
        finally:
            logger.removeHandler(handler)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


OURS = "hipnet_edge.cart.test"


def test_our_sentences_with_allowed_fields_and_nothing_else():
    extra = {
        "reason": "missing_view",
        "case": 7,
        "seconds": 0.5,
        "study": "0123456789abcdef",
        "patient_name": "Doe^Secret",
        "destination": "Doe^Secret",
        "calling_ae": "Doe^Secret",
    }
    (line,) = lines((OURS, lambda log: log.error("refused %s after %d", "x_ray", 3, extra=extra)))
    assert line.pop("time")
    assert line == {
        "level": "error",
        "logger": OURS,
        "message": "refused x_ray after 3",
        "reason": "missing_view",
        "case": 7,
        "seconds": 0.5,
        "study": "0123456789abcdef",
    }


def test_what_is_put_into_a_sentence_is_a_number_or_a_code():
    (line,) = lines((OURS, lambda log: log.error("%s came, %s", "Doe^Secret", ["Doe"])))
    assert line["message"] == "? came, ?"


def test_of_an_exception_only_its_class_and_place():
    def fail(log: logging.Logger) -> None:
        try:
            raise ValueError("Doe^Secret")
        except ValueError:
            log.exception("it failed")

    (line,) = lines((OURS, fail))
    assert line["exception"] == "ValueError"
    assert str(line["at"]).startswith("test_flow_logs.py:")
    assert "Doe" not in json.dumps(line)


def test_of_a_library_only_its_name_and_level():
    (line,) = lines(("urllib3.test", lambda log: log.error("got (0010,0010) Doe^Secret")))
    assert set(line) == {"time", "level", "logger"}
    assert line["logger"] == "urllib3.test"


def test_nothing_else_reaches_stderr():
    script = """
import threading, warnings
from hipnet_edge.cart import logs
logs.set_up("info")
warnings.warn("Doe^Secret")
thread = threading.Thread(target=lambda: {}["Doe^Secret"])
thread.start(); thread.join()
raise ValueError("Doe^Secret")
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    said = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line.get("exception") for line in said] == [None, "KeyError", "ValueError"]
    assert "Doe" not in ran.stderr + ran.stdout
