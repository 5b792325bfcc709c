"""Whoever connects, says or sends what: the receiver stays ready and writes nothing elsewhere."""

from __future__ import annotations

import random
import re
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from raw_peer import RawPeer, associate_request, data_pdu, pdu, store_command
from receiving import Cart, cart, dcmtk, echoes, wait_until
from small_study import dicom_bytes, pair, small_dicom

from hipnet_edge.cart import receive

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

CONFORMANCE = Path(__file__).parents[2] / "docs" / "conformance.md"

AP, LATERAL = pair(7)
DATA_SET = AP[AP.index(b"\x08\x00\x16\x00UI") :]
"""The AP image without preamble and file meta information, as C-STORE carries it."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cart]:
    """One receiver for all strangers of this module: what one does must not harm the next."""
    with cart(tmp_path_factory.mktemp("cart") / "data", idle_timeout_s=2.0) as running:
        yield running
        documented = set(re.findall(r"`(\w+)`", CONFORMANCE.read_text()))
        assert set(running.reasons()) <= documented | {"not_dicom"}
        assert len(set(running.reasons())) > 10


@pytest.fixture
def unharmed(shared: Cart, tmp_path: Path) -> Iterator[Cart]:
    """The receiver; at the end it must answer, have kept nothing new, and not have grown."""
    before, level = set(shared.data.parent.rglob("*")), _resident_mib()
    kept = set(shared.instances())
    yield shared
    with RawPeer(shared.receiver.port) as peer:
        peer.associate()
        assert peer.echo() == 0
    assert set(shared.instances()) == kept
    wait_until(lambda: not list(shared.store.incoming.iterdir()))
    assert set(shared.data.parent.rglob("*")) <= before | {
        shared.data / name for name in ("cart.sqlite3-wal", "cart.sqlite3-shm")
    }
    assert _resident_mib() - level < 48


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024**2


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [
        ("XRAY1", "OTHER", "Called AE Title Not Recognized"),
        ("XRAY2", "HIPNET", "Calling AE Title Not Recognized"),
        ("../../x", "HIPNET", "Calling AE Title Not Recognized"),
    ],
)
def test_unknown_titles_are_rejected(
    unharmed: Cart, calling: str, called: str, reason: str
) -> None:
    answer = dcmtk("echoscu", unharmed, calling=calling, called=called)
    assert answer.returncode != 0
    assert reason in answer.stdout


@pytest.mark.parametrize("title", [b"XRAY1\0", b"\0" * 16, b"\xff\xfe\x80XRAY1", b"XRAY1\nXRAY1"])
def test_titles_of_strange_bytes_are_rejected(unharmed: Cart, title: bytes) -> None:
    with RawPeer(unharmed.receiver.port) as peer:
        peer.send(associate_request(calling=title))
        assert peer.answer() in (3, 7)


def test_what_is_no_dicom_is_hung_up_on(unharmed: Cart) -> None:
    chance = random.Random(1)
    noise = [chance.randbytes(chance.randrange(1, 4000)) for _ in range(40)]
    for garbage in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\0\x01", *noise):
        with RawPeer(unharmed.receiver.port) as peer:
            peer.send(garbage)
            peer.finish()
            assert peer.answer() in (7, None)


@pytest.mark.parametrize("claimed", [2**32 - 1, 2**31, 300_000])
def test_a_request_that_claims_too_much_is_aborted(unharmed: Cart, claimed: int) -> None:
    with RawPeer(unharmed.receiver.port) as peer:
        peer.send(pdu(1, b"\0\1\0\0", claimed))
        assert peer.answer() == 7


@pytest.mark.parametrize("claimed", [2**32 - 1, 2**30, 1024**2 + 1])
def test_data_that_claims_too_much_is_aborted(unharmed: Cart, claimed: int) -> None:
    with RawPeer(unharmed.receiver.port) as peer:
        peer.associate()
        peer.send(pdu(4, b"\0" * 64, claimed))
        assert peer.answer() == 7
        assert peer.answer() is None


@pytest.mark.parametrize(
    "cut", ["request", "command", "data", "between"], ids=lambda name: f"cut in {name}"
)
def test_what_ends_in_the_middle_leaves_nothing(unharmed: Cart, cut: str) -> None:
    with RawPeer(unharmed.receiver.port) as peer:
        if cut == "request":
            peer.send(associate_request()[:100])
            return
        peer.associate()
        command = data_pdu(3, 3, store_command(b"1.2.3.7.1"))
        if cut == "command":
            peer.send(command[: len(command) // 2])
            return
        peer.send(command)
        part = data_pdu(3, 0, DATA_SET[:50_000])
        peer.send(part if cut == "between" else part[:20_000])


def test_mutated_requests(unharmed: Cart) -> None:
    """200 seeded mutations: accepted, rejected, aborted or closed, and nothing else happens."""
    chance = random.Random(2)
    answers = set()
    for _ in range(200):
        request = bytearray(associate_request())
        for _ in range(chance.randrange(1, 6)):
            request[chance.randrange(6, len(request))] = chance.randrange(256)
        with RawPeer(unharmed.receiver.port) as peer:
            peer.send(bytes(request))
            answers.add(peer.answer())
    assert {2, 3} <= answers <= {2, 3, 7, None}


def test_mutated_commands(unharmed: Cart) -> None:
    chance = random.Random(3)
    for _ in range(40):
        command = bytearray(store_command(b"1.2.3.7.1", data=False))
        for _ in range(chance.randrange(1, 6)):
            command[chance.randrange(len(command))] = chance.randrange(256)
        with RawPeer(unharmed.receiver.port) as peer:
            peer.associate()
            peer.send(data_pdu(chance.choice((1, 3, 3, 3, 255)), 3, bytes(command)))
            peer.finish()
            assert peer.answer() in (4, 7, None)


@pytest.mark.parametrize(
    "value", [b"", b"\1", b"\3", b"\0", b"\2" + b"x" * 1000], ids=["none", "1", "3", "0", "data"]
)
def test_values_without_sense_are_aborted(unharmed: Cart, value: bytes) -> None:
    with RawPeer(unharmed.receiver.port) as peer:
        peer.associate()
        peer.send(pdu(4, (len(value) + 1).to_bytes(4, "big") + b"\3" + value))
        peer.finish()
        assert peer.answer() in (7, None)


def test_endless_commands_and_requests_in_a_row_are_aborted(unharmed: Cart) -> None:
    with RawPeer(unharmed.receiver.port) as peer:
        peer.associate()
        for _ in range(12):
            peer.send(data_pdu(1, 1, b"\0" * 16_000))
        assert peer.answer() in (7, None)
    assert "message_too_large" in unharmed.reasons()
    with RawPeer(unharmed.receiver.port) as peer:
        peer.associate()
        one = data_pdu(3, 3, store_command(b"1.2.3.9.9")) + data_pdu(3, 2, b"nonsense")
        peer.send(one * 200)
        kinds = [peer.answer() for _ in range(200)]
        assert kinds[-1] is None


@pytest.mark.parametrize(
    "instance", [b"../../../tmp/escaped", b"/etc/passwd", b"1.2\0.3", b"1." * 40 + b"1", b"1.2.a"]
)
def test_a_uid_that_is_none_is_refused(unharmed: Cart, instance: bytes) -> None:
    data = DATA_SET.replace(b"1.2.3.7.1\0", instance[:10].ljust(10, b"\0"))
    with RawPeer(unharmed.receiver.port) as peer:
        peer.associate()
        assert peer.store(instance, data) in (receive.INVALID_INSTANCE, None)


def test_a_uid_that_is_none_inside_the_image_is_refused(unharmed: Cart) -> None:
    """The request is innocent, the image is not: neither of its UIDs becomes a path."""
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SOPClassUID"):
        image = small_dicom("ap", 7)
        image.file_meta.MediaStorageSOPInstanceUID = "1.2.3.7.1"
        image[keyword].value = "../../../../tmp/x"
        content = dicom_bytes(image)
        data = content[content.index(b"\x08\x00\x16\x00UI") :]
        with RawPeer(unharmed.receiver.port) as peer:
            peer.associate()
            assert peer.store(b"1.2.3.7.1", data) == receive.INVALID_INSTANCE


def test_a_request_for_another_class_or_instance_is_refused(unharmed: Cart) -> None:
    with RawPeer(unharmed.receiver.port) as peer:
        peer.associate()
        assert peer.store(b"1.2.3.7.5", DATA_SET) == receive.CLASS_MISMATCH
        computed = b"1.2.840.10008.5.1.4.1.1.1"
        assert peer.store(b"1.2.3.7.1", DATA_SET, computed) == receive.CLASS_NOT_SUPPORTED
        assert peer.store(b"1.2.3.7.1", b"nonsense" * 700) == receive.CANNOT_UNDERSTAND
        assert peer.store(b"1.2.3.7.1", DATA_SET[:-900]) == receive.CANNOT_UNDERSTAND


def test_a_thousand_idle_connections_shut_nobody_out(unharmed: Cart, tmp_path: Path) -> None:
    image = tmp_path / "echo.dcm"
    image.write_bytes(AP)
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(RawPeer(unharmed.receiver.port))
        started = time.monotonic()
        assert echoes(unharmed)
        assert time.monotonic() - started < 2.0
    assert "too_many_connections" in unharmed.reasons()


def test_a_thousand_idle_associations_shut_nobody_out(
    unharmed: Cart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "_GIVES_WAY_S", 0.5)
    answers = []
    with ExitStack() as stack:
        for _ in range(1000):
            peer = stack.enter_context(RawPeer(unharmed.receiver.port))
            peer.send(associate_request())
            answers.append(peer.answer())
        assert answers.count(2) >= 8
        assert set(answers) == {2, 3}
        time.sleep(0.6)
        assert echoes(unharmed)


def test_those_who_trickle_are_cut_off(unharmed: Cart) -> None:
    """A byte now and then, in a request or in data, buys no more than the idle timeout."""
    ended: list[float] = []

    def trickle(peer: RawPeer, data: bytes) -> None:
        started = time.monotonic()
        for byte in data:
            time.sleep(0.1)
            try:
                peer.socket.sendall(bytes((byte,)))
            except OSError:
                break
        ended.append(time.monotonic() - started)

    with RawPeer(unharmed.receiver.port) as first, RawPeer(unharmed.receiver.port) as second:
        second.associate()
        chunk = data_pdu(3, 3, store_command(b"1.2.3.7.1"))
        tricklers = [
            threading.Thread(target=trickle, args=(first, associate_request())),
            threading.Thread(target=trickle, args=(second, chunk)),
        ]
        for thread in tricklers:
            thread.start()
        assert echoes(unharmed)
        for thread in tricklers:
            thread.join()
    assert len(ended) == 2
    assert max(ended) < 6.0


def test_idle_associations_give_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "_GIVES_WAY_S", 0.4)
    with cart(tmp_path / "data", max_associations=2) as running, ExitStack() as stack:
        for _ in range(2):
            peer = stack.enter_context(RawPeer(running.receiver.port))
            peer.associate()
            peer.send(data_pdu(3, 3, store_command(b"1.2.3.7.1")))
            peer.send(data_pdu(3, 0, DATA_SET[:9000]))
        wait_until(lambda: len(list(running.store.incoming.iterdir())) == 2)
        busy = dcmtk("echoscu", running)
        assert "Local Limit Exceeded" in busy.stdout
        time.sleep(0.5)
        assert echoes(running)
        assert running.reasons() == ["too_many_associations", "gave_way"]
        wait_until(lambda: len(list(running.store.incoming.iterdir())) == 1)


def test_an_object_beyond_the_limit_is_aborted(tmp_path: Path) -> None:
    image = tmp_path / "large.dcm"
    image.write_bytes(dicom_bytes(small_dicom("ap", 8, rows=1400, columns=1000)))
    with cart(tmp_path / "data", max_object_mib=1) as running:
        assert dcmtk("storescu", running, image).returncode != 0
        assert "object_too_large" in running.reasons()
        assert not running.instances()
        wait_until(lambda: not list(running.store.incoming.iterdir()))
        assert echoes(running)


def test_a_full_queue_and_a_nearly_full_disk_refuse_and_recover(tmp_path: Path) -> None:
    for name, content in (("ap", AP), ("lateral", LATERAL), ("other", pair(8)[0])):
        (tmp_path / name).write_bytes(content)
    with cart(tmp_path / "data", max_waiting_studies=1) as running:
        assert dcmtk("storescu", running, tmp_path / "ap").returncode == 0
        full = dcmtk("storescu", running, "-d", tmp_path / "other")
        assert "0xa700" in full.stdout
        assert "queue_full" in full.stdout
        assert len(running.instances()) == 1
    with cart(tmp_path / "data", min_free_mib=10**9) as running:
        full = dcmtk("storescu", running, "-d", tmp_path / "lateral")
        assert "0xa700" in full.stdout
        assert "no_space" in full.stdout
        running.check_kept()
    with cart(tmp_path / "data") as running:
        assert dcmtk("storescu", running, tmp_path / "lateral").returncode == 0
        assert len(running.instances()) == 2


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A file system of 8 MiB; skipped where this user may not mount one."""
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if mount is None or subprocess.run([mount, *options], capture_output=True).returncode != 0:
        pytest.skip("mount is not permitted")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def _file_limit() -> Iterator[None]:
    """No file may grow beyond 1 MiB: the kernel fails the write, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024**2, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("how", ["small disk", "file limit"])
def test_a_disk_that_fills_while_an_image_comes(tmp_path: Path, how: str) -> None:
    large, small = tmp_path / "large.dcm", tmp_path / "small.dcm"
    large.write_bytes(dicom_bytes(small_dicom("ap", 8, rows=2400, columns=2000)))
    small.write_bytes(LATERAL)
    disk = tmp_path / "disk"
    with ExitStack() as stack:
        if how == "small disk":
            stack.enter_context(_small_disk(disk))
        running = stack.enter_context(cart(disk / "data"))
        limit = _file_limit() if how == "file limit" else ExitStack()
        with limit:
            failed = dcmtk("storescu", running, "-d", large)
        assert "0xa700" in failed.stdout
        assert "disk_failed" in failed.stdout
        assert not running.instances()
        assert not list(running.store.incoming.iterdir())
        assert dcmtk("storescu", running, small).returncode == 0
        running.check_kept()
