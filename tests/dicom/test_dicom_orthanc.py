"""A real archive takes the objects into the radiographs' study and shows the right pixels."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import suppress

import cv2
import numpy as np
import pytest
from small_study import dicom_bytes

from hipnet_edge.dicom import KINDS


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    """Orthanc with an empty store of its own; gives a function that asks it."""
    program = shutil.which("Orthanc") or shutil.which("orthanc")
    if program is None:
        pytest.skip("Orthanc is not installed")
    folder = tmp_path_factory.mktemp("orthanc")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "orthanc.json").write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder / "store"),
                "IndexDirectory": str(folder / "store"),
                "HttpPort": port,
                "DicomServerEnabled": False,
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "Plugins": [],
            }
        )
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, folder / "orthanc.json"], stdout=log, stderr=log)

    def ask(path: str, content: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", content, 20) as answer:
            return answer.read()

    try:
        for _ in range(100):
            with suppress(OSError):
                ask("/system")
                break
            time.sleep(0.1)
        yield ask
    finally:
        server.terminate()
        server.wait(20)


def test_orthanc_files_and_shows_them(made, orthanc):
    radiographs = {"ap": dicom_bytes(made.ap), "lateral": dicom_bytes(made.lateral)}
    stored = {
        name: json.loads(orthanc("/instances", content))
        for name, content in (radiographs | dict(made.files)).items()
    }
    assert {answer["Status"] for answer in stored.values()} == {"Success"}
    assert len({answer["ParentStudy"] for answer in stored.values()}) == 1
    assert len({answer["ParentPatient"] for answer in stored.values()}) == 1
    for kind in KINDS:
        assert orthanc(f"/instances/{stored[kind]['ID']}/file") == made.files[kind]
    page = orthanc(f"/instances/{stored['capture']['ID']}/preview")
    shown = cv2.imdecode(np.frombuffer(page, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(cv2.cvtColor(shown, cv2.COLOR_BGR2RGB), made["capture"].pixel_array)
    for frame in (0, 4):
        answer = orthanc(f"/instances/{stored['segmentation_ap']['ID']}/frames/{frame}/image-uint8")
        shown = cv2.imdecode(np.frombuffer(answer, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(shown, made["segmentation_ap"].pixel_array[frame])
