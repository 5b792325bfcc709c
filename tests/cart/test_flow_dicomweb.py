"""STOW-RS: to Orthanc's own DICOMweb, and the answers of servers that do not take an object."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from receiving import free_port
from test_flow_deliver import Bench
from test_flow_orthanc import orthanc

from hipnet_edge.cart.dicomweb import DicomwebCourier
from hipnet_edge.cart.records import State
from hipnet_edge.cart.settings import DicomwebDestination

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def courier_to(url: str, token: Path | None = None) -> DicomwebCourier:
    return DicomwebCourier(
        DicomwebDestination(name="web", kind="dicomweb", url=url, token_file=token)
    )


def test_orthanc_takes_the_kept_bytes(tmp_path):
    if not PLUGIN.exists():
        pytest.skip("Orthanc's DICOMweb plugin (orthanc-dicomweb) is not installed")
    bench = Bench(tmp_path, "web", compressed=True)
    with orthanc(tmp_path / "orthanc", str(PLUGIN)) as pacs:
        courier = courier_to(f"{pacs.url}/dicom-web")
        assert bench.deliverer(courier, "web").step() == 0.0
        courier.release()
        assert bench.state is State.DELIVERED
        there = {
            dcmread(BytesIO(content)).SOPInstanceUID: content
            for i in pacs.json("/instances")
            if (content := pacs.get(f"/instances/{i}/file"))
        }
    assert there == {o.sop_instance_uid: bench.store.read(o.file) for o in bench.objects}


@contextmanager
def server(*answers: tuple[int, object]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that gives these answers one after another, and 200 from then on."""
    left, seen = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append({**self.headers, "path": self.path})
            stored = dcmread(BytesIO(request.partition(b"\r\n\r\n")[2])).SOPInstanceUID
            status, body = left.pop(0) if left else (200, referenced(stored))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}/dicom", seen
    finally:
        listening.shutdown()
        listening.server_close()


def referenced(uid: str) -> dict[str, object]:
    item = {"00081155": {"vr": "UI", "Value": [uid]}}
    return {"00081199": {"vr": "SQ", "Value": [item]}}


def failed(reason: int) -> dict[str, object]:
    item = {"00081197": {"vr": "US", "Value": [reason]}}
    return {"00081198": {"vr": "SQ", "Value": [item]}}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((503, {}), "http_503"),
        ((401, {}), "http_401"),
        ((202, failed(0xA700)), "status_a700"),
    ],
)
def test_what_passes_is_tried_again(tmp_path, answer, reason):
    bench = Bench(tmp_path, "web")
    token = tmp_path / "token"
    token.write_text("the-token\n")
    with server(answer) as (url, seen):
        deliverer = bench.deliverer(courier_to(url, token), "web")
        assert deliverer.step() > 0
        assert reason in bench.reasons()
        bench.now += 60
        deliverer.step()
    assert bench.state is State.DELIVERED
    assert {request["path"] for request in seen} == {"/dicom/studies"}
    assert {request["Authorization"] for request in seen} == {"Bearer the-token"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((400, {}), "http_400"),
        ((409, failed(0xC000)), "status_c000"),
        ((200, {"00081199": {"vr": "SQ"}}), "not_stored"),
    ],
)
def test_what_is_not_wanted_is_given_up_after_a_while(tmp_path, answer, reason):
    bench = Bench(tmp_path, "web")
    taken = (200, referenced(bench.objects[1].sop_instance_uid))
    with server(answer, taken, *[answer] * 9) as (url, _):
        deliverer = bench.deliverer(courier_to(url), "web")
        while bench.state is State.PREDICTED:
            deliverer.step()
            bench.now += 60
    assert bench.state is State.FAILED
    assert bench.reasons() == {reason, None}


def test_an_object_that_was_there_before_is_delivered(tmp_path):
    bench = Bench(tmp_path, "web")
    with server((409, failed(0x0111))) as (url, _):
        bench.deliverer(courier_to(url), "web").step()
    assert bench.state is State.DELIVERED


def test_a_server_that_is_away_is_tried_later(tmp_path):
    bench = Bench(tmp_path, "web")
    courier = courier_to(f"http://127.0.0.1:{free_port()}/dicom")
    assert bench.deliverer(courier, "web").step() > 0
    assert "unreachable" in bench.reasons()
