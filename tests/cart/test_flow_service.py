"""A whole cart: radiographs come by dcmtk, results go to dcmtk and into a folder."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from flowing import (
    FAST,
    Setup,
    audit_events,
    dicom_destination,
    finished,
    folder_destination,
    free_port,
    get,
    running,
    send,
    serve,
    study,
    tool,
    wait_for,
)
from leaks import leaks
from pydicom import dcmread

from hipnet_edge.cart.audit import verify
from hipnet_edge.cart.records import State
from hipnet_edge.cart.service import CartService
from hipnet_edge.errors import BundleUnusable, EngineUnusable, UsageError
from hipnet_edge.prediction import Prediction
from hipnet_edge.predictor import Predictor
from hipnet_edge.vocabulary import Flag


def written(folder: Path, *contents: bytes) -> list[Path]:
    """Files to send."""
    folder.mkdir(exist_ok=True)
    paths = []
    for content in contents:
        path = folder / f"{len(list(folder.iterdir()))}.dcm"
        path.write_bytes(content)
        paths.append(path)
    return paths


def test_a_study_comes_in_and_its_results_go_out(tmp_path, bundle):
    setup, port = Setup(tmp_path, bundle), free_port()
    received = tmp_path / "received"
    received.mkdir()
    command = [tool("storescp"), "-aet", "PACS", "+xa", "-od", str(received), str(port)]
    peer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    destinations = dicom_destination("pacs", port)
    destinations += folder_destination("share", tmp_path / "share")
    ap, lateral = study(1)
    lone, chest = study(2, ["ap"]), study(3, BodyPartExamined="CHEST")
    try:
        with running(setup, setup.configuration(destinations)) as cart:
            assert cart.ready()
            assert get(setup, "/readyz")[0] == 200
            assert get(setup, "/healthz")[0] == 200
            send(setup.port, *written(tmp_path / "sent", ap, lateral, *lone, *chest))
            wait_for(lambda: finished(cart.queue))
            counts = cart.queue.counts()
            (case,) = cart.queue.cases(state=State.DELIVERED)
            refused = {c.reason for c in cart.queue.cases(state=State.REFUSED)}
            objects = cart.queue.objects(case.id)
            stored = json.loads(cart.store.read(case.prediction))
            kept = {o.sop_instance_uid: cart.store.path(o.file) for o in objects}
            metrics = get(setup, "/metrics")[1].decode()
    finally:
        peer.terminate()
        peer.wait()
    assert (counts[State.DELIVERED], counts[State.REFUSED]) == (1, 2)
    assert refused == {"missing_view", "not_a_hip"}
    assert [o.kind for o in objects] == [
        *("report", "segmentation_ap", "segmentation_lateral", "capture")
    ]
    with Predictor(bundle, backend="onnxruntime", precision="fp32", threads=1) as predictor:
        expected = predictor.predict(ap, lateral)
    assert Prediction.from_dict(stored) == expected
    for folder in (received, tmp_path / "share"):
        there = {str((d := dcmread(path)).SOPInstanceUID): d for path in folder.iterdir()}
        assert there.keys() == kept.keys()
        for uid, dataset in there.items():
            assert dataset == dcmread(kept[uid])
            assert dataset.StudyInstanceUID == dcmread(setup.folder / "sent/0.dcm").StudyInstanceUID
    for line in (
        'hipnet_cases{state="delivered"} 1.0',
        'hipnet_store_requests_total{status="0x0000"} 5.0',
        'hipnet_deliveries_total{destination="pacs",outcome="delivered"} 4.0',
        "hipnet_ready 1.0",
    ):
        assert line in metrics
    assert verify(setup.data / "audit.jsonl").problem is None
    events = [e["event"] for e in audit_events(setup.data)]
    assert (events[0], events[-1]) == ("started", "stopped")
    assert '"message": "delivered"' in (tmp_path / "cart.log").read_text()


def test_the_search_for_leaks_finds_what_is_planted(tmp_path):
    data = tmp_path / "data"
    (data / "objects").mkdir(parents=True)
    (data / "cart.sqlite3").write_bytes(b"SECRET-4711")
    (data / "objects" / "x").write_bytes(b"SECRET-4711")
    assert leaks(tmp_path) == []
    for planted in (data / "audit.jsonl", tmp_path / "cart.log", tmp_path / "metrics.txt"):
        planted.write_text("... doe^secret ...")
        assert leaks(tmp_path) == [str(planted)]
        planted.unlink()


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("bundle_digest", "0" * 64, BundleUnusable),
        ("variant", "trt-fp16", EngineUnusable),
        ("backend", "tensorrt", EngineUnusable),
    ],
)
def test_another_model_or_engine_than_the_pinned_one_is_refused_unless_allowed(
    tmp_path, bundle, key, value, error
):
    setup = Setup(tmp_path, bundle)
    lines = setup.write(page=False).read_text().splitlines()
    pinned = [f'{key} = "{value}"' if line.startswith(f"{key} =") else line for line in lines]
    path = tmp_path / "other.toml"
    path.write_text("\n".join(pinned))
    from hipnet_edge.cart.configuration import load

    with pytest.raises(error), running(setup, load(path)):
        pass
    allowed = "\n".join(pinned).replace("threads = 1", "threads = 1\nallow_fallback = true")
    path.write_text(allowed)
    with running(setup, load(path)) as cart:
        send(setup.port, *written(tmp_path / "sent", *study(1)))
        wait_for(lambda: finished(cart.queue))
        (case,) = cart.queue.cases(state=State.DELIVERED)
        flags = json.loads(cart.store.read(case.prediction))["flags"]
    assert Flag.ENGINE_FALLBACK.value in flags
    assert "not the pinned predictor" in (tmp_path / "cart.log").read_text()


def test_a_second_instance_on_the_same_data_is_refused(tmp_path, bundle):
    setup = Setup(tmp_path, bundle)
    configuration = setup.configuration(page=False)
    with running(setup, configuration):
        with pytest.raises(UsageError, match="Another instance"):
            CartService(configuration)
        # What the running one was writing is not swept away by the other.
        assert (setup.data / "objects" / "incoming").is_dir()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_tells_systemd_and_stops_on_a_signal(tmp_path, bundle, signal_number):
    setup = Setup(tmp_path, bundle)
    config = setup.write(page=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        process = serve(
            setup,
            *("--config", str(config)),
            NOTIFY_SOCKET=str(tmp_path / "notify"),
            WATCHDOG_USEC="200000",
        )
        try:
            assert systemd.recv(100) == b"READY=1"
            socket.create_connection(("127.0.0.1", setup.port)).close()
            assert systemd.recv(100) == b"WATCHDOG=1"
            process.send_signal(signal_number)
            started = time.monotonic()
            assert process.wait(timeout=10) == 0
            assert time.monotonic() - started < 8
        finally:
            process.kill()
    log = (tmp_path / "serve.log").read_text()
    assert [json.loads(line)["message"] for line in log.splitlines()][-1] == "stopped"


def test_check_says_what_would_keep_it_from_starting(tmp_path, bundle):
    setup = Setup(tmp_path, bundle)
    config = setup.write(folder_destination("share", tmp_path / "share"), page=False)
    assert serve(setup, "--check", "--config", str(config)).wait() == 0
    (tmp_path / "share").rmdir()
    with socket.create_server(("127.0.0.1", setup.port)):
        assert serve(setup, "--check", "--config", str(config)).wait() == 2
    said = (tmp_path / "serve.log").read_text()
    assert "destination share" in said
    assert f"127.0.0.1:{setup.port} cannot be listened on" in said


def test_a_lone_view_can_be_held(tmp_path, bundle):
    setup = Setup(tmp_path, bundle)
    more = FAST.replace("2.0", "0.2") + '\nlone_view = "hold"'
    with running(setup, setup.configuration(page=False, more=more)) as cart:
        ap, lateral = study(1)
        send(setup.port, *written(tmp_path / "sent", ap))
        time.sleep(1.0)
        assert cart.queue.counts()[State.RECEIVED] == 1
        send(setup.port, *written(tmp_path / "sent", lateral))
        wait_for(lambda: finished(cart.queue))
        assert cart.queue.counts()[State.DELIVERED] == 1
