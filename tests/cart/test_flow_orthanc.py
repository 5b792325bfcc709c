"""A real PACS: dcmtk sends a simulated study to Orthanc and to the cart, the results come back."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from flowing import (
    Setup,
    dicom_destination,
    finished,
    report_probabilities,
    running,
    send,
    wait_for,
)
from pydicom import dcmread
from receiving import free_port, tool

from hipnet_edge.bundle import Bundle
from hipnet_edge.cart.records import State
from hipnet_edge.simulation import simulate_study, write_study
from hipnet_edge.vocabulary import CAUSES, Cause

ENGINE = ("--backend", "onnxruntime", "--precision", "fp32")


class Orthanc:
    """Asks a running Orthanc over its REST interface."""

    def __init__(self, http_port: int, dicom_port: int) -> None:
        self.dicom_port = dicom_port
        self.url = f"http://127.0.0.1:{http_port}"

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=20) as answer:
            return answer.read()

    def json(self, path: str):
        return json.loads(self.get(path))

    def answers(self) -> bool:
        try:
            return bool(self.get("/system"))
        except (urllib.error.URLError, OSError):
            return False

    def picture(self, instance: str, frame: int = 0) -> np.ndarray:
        """A frame as Orthanc renders it for a browser."""
        png = self.get(f"/instances/{instance}/frames/{frame}/preview")
        return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


@contextmanager
def orthanc(folder: Path, *plugins: str) -> Iterator[Orthanc]:
    program, ports = tool("Orthanc"), (free_port(), free_port())
    folder.mkdir()
    configuration = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": ports[0],
        "DicomPort": ports[1],
        "DicomAet": "PACS",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "Plugins": list(plugins),
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "orthanc.out").open("wb") as out:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=out, stderr=out)
    try:
        server = Orthanc(*ports)
        wait_for(server.answers)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.mark.slow
def test_results_arrive_in_orthanc_beside_the_images(tmp_path):
    sent = tmp_path / "sent"
    sent.mkdir()
    write_study(simulate_study(Cause.PJI, 5, pixel_spacing_mm=0.3), sent)
    pair = (sent / "ap.dcm", sent / "lateral.dcm")
    setup = Setup(tmp_path, Bundle.reference_path())
    with orthanc(tmp_path / "orthanc") as pacs:
        configuration = setup.configuration(dicom_destination("pacs", pacs.dicom_port), page=False)
        with running(setup, configuration) as cart:
            send(pacs.dicom_port, *pair, called="PACS")
            send(setup.port, *pair)
            wait_for(lambda: finished(cart.queue), 60)
            assert cart.queue.counts()[State.DELIVERED] == 1
        (study,) = pacs.json("/studies")
        instances = pacs.json(f"/studies/{study}/instances")
        by_class = {}
        for instance in instances:
            dataset = dcmread(BytesIO(pacs.get(f"/instances/{instance['ID']}/file")))
            by_class.setdefault(dataset.Modality, []).append((instance["ID"], dataset))
        assert {name: len(found) for name, found in by_class.items()} == {
            "DX": 2,
            "SR": 1,
            "SEG": 2,
            "OT": 1,
        }
        ((capture, picture),) = by_class["OT"]
        rendered = pacs.picture(capture)
        assert rendered.shape[:2] == (picture.Rows, picture.Columns)
        assert rendered.std() > 10
        for instance, maps in by_class["SEG"]:
            frames = [pacs.picture(instance, n) for n in range(int(maps.NumberOfFrames))]
            assert {frame.shape[:2] for frame in frames} == {(maps.Rows, maps.Columns)}
            assert max(int(frame.max()) for frame in frames) > 0
    said = subprocess.run(
        [sys.executable, "-m", "hipnet_edge", "predict", *map(str, pair), *ENGINE, "--json", "-"],
        capture_output=True,
        check=True,
    )
    probabilities = json.loads(said.stdout)["probabilities"]
    ((_, report),) = by_class["SR"]
    expected = [probabilities[cause.value] for cause in CAUSES]
    np.testing.assert_allclose(report_probabilities(report), expected, atol=1e-6)
