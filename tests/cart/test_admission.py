"""Bytes on their way in: refused with a reason or kept, whatever they are."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from receiving import Cart, cart
from small_study import dicom_bytes, pair, small_dicom

from hipnet_edge.cart.records import Admitted

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

AP, LATERAL = pair(7)
START = AP.index(b"\x08\x00\x16\x00UI")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cart]:
    with cart(tmp_path / "data") as started:
        yield started
        started.check_kept()


def test_bytes_and_files_are_one(running: Cart) -> None:
    """An upload and a file of the store's folder; the hash names the data set, not its wrapping."""
    first = running.admission.admit(AP, source="upload")
    assert (first.accepted, first.admitted, first.reason) == (True, Admitted.NEW, None)
    assert (first.sop_instance_uid, first.study_instance_uid) == ("1.2.3.7.1", "1.2.3.7")
    other = small_dicom("ap", 7)
    other.file_meta.ImplementationVersionName = "ANOTHER"
    again = running.store.incoming / "again"
    again.write_bytes(dicom_bytes(other))
    assert running.admission.admit(again, source="watch").admitted is Admitted.DUPLICATE
    assert not again.exists()
    (kept,) = running.instances().values()
    content = running.store.read(kept.file)
    assert content.endswith(AP[START:])
    assert b"ANOTHER" not in content
    assert kept.sha256 == hashlib.sha256(content).hexdigest()


def test_any_bytes_get_an_outcome(running: Cart) -> None:
    """200 seeded mutations of header and length: never an exception, never half an image kept."""
    chance = random.Random(4)
    outcomes = set()
    for _ in range(200):
        image = bytearray(AP)
        for _ in range(chance.randrange(1, 8)):
            image[chance.randrange(128, START + 700)] = chance.randrange(256)
        if chance.random() < 0.3:
            del image[chance.randrange(len(image)) :]
        outcome = running.admission.admit(bytes(image), source="upload")
        outcomes.add(outcome.reason)
        if outcome.accepted:
            assert outcome.sop_instance_uid in running.instances()
        else:
            assert outcome.reason
            assert outcome.message
    assert {None, "not_dicom", "invalid_uid", "wrong_modality"} <= outcomes


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(132), bytes(128) + b"DICM", b"\x89PNG"])
def test_what_is_no_dicom_is_refused(running: Cart, content: bytes) -> None:
    outcome = running.admission.admit(content, source="upload")
    assert (outcome.accepted, outcome.reason) == (False, "not_dicom")
    assert not list(running.store.names())


def test_many_at_once(running: Cart) -> None:
    """The same image from eight at a time is one image; of different ones none is lost."""
    images = [AP] * 8 + [pair(seed)[0] for seed in range(20, 36)]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda i: running.admission.admit(i, source="upload"), images))
    assert all(outcome.accepted for outcome in outcomes)
    assert sum(outcome.admitted is Admitted.NEW for outcome in outcomes) == 17
    assert len(running.instances()) == 17


def test_repeated_refusals_do_not_flood_the_audit(running: Cart) -> None:
    for _ in range(500):
        running.admission.refusals.add("association_refused", "tls", source="dicom", peer="::1")
    running.admission.refusals.flush()
    lines = [row["line"] for row in running.queue.database.rows("SELECT line FROM audit")]
    told = [line for line in lines if "association_refused" in line]
    assert len(told) == 2
    assert '"count":1' in told[0].replace(" ", "")
    assert '"count":499' in told[1].replace(" ", "")
    assert running.reasons().count("tls") == 500
