"""Results reach their destinations: in whatever state these are, whatever they take and answer."""

from __future__ import annotations

import hashlib
from io import BytesIO
from types import SimpleNamespace

import pytest
from flowing import Pacs, free_port
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from small_study import dicom_bytes, small_dicom

from hipnet_edge.cart.couriers import DicomCourier, FolderCourier, judged
from hipnet_edge.cart.deliver import MOST_REJECTIONS, Deliverer, Outcome
from hipnet_edge.cart.metrics import Levels, Metrics
from hipnet_edge.cart.queue import Queue
from hipnet_edge.cart.records import (
    Instance,
    NewCase,
    ResultObject,
    Settlement,
    State,
)
from hipnet_edge.cart.settings import Deliver, DicomDestination, FolderDestination
from hipnet_edge.cart.store import ObjectStore

START = 1_000_000.0
HOUR = 3600.0


class Bench:
    """A queue with one predicted case whose results are due, and a clock that is set by hand."""

    def __init__(self, folder, *destinations: str, compressed: bool = False) -> None:
        self.now = START
        data = folder / "data"
        self.store = ObjectStore(data / "objects")
        self.queue = Queue(data / "cart.sqlite3", pseudonym=str, clock=lambda: self.now)
        self.metrics = Metrics(lambda: Levels({}, 0, {}, 0, ready=True))
        for uid, view in (("1.1", "ap"), ("1.2", "lateral")):
            kept = self.store.keep(uid.encode())
            self.queue.admit(
                Instance(
                    *(uid, "1.5", "1.0", "p", ExplicitVRLittleEndian, kept.name, kept.sha256),
                    *(kept.size, view, "left", None, None, self.now, "upload"),
                )
            )
        (study,) = self.queue.waiting_studies()
        assert self.queue.settle(study, Settlement((NewCase("1.1", "1.2", "left"),)))
        case = self.queue.claim(self.now)
        assert case is not None
        self.case_id = case.id
        self.objects = [self._kept(n, compressed) for n in (1, 2)]
        prediction = self.store.keep(b"{}", ".json").name
        wanted = dict.fromkeys(destinations, ("report",))
        self.queue.predicted(case.id, prediction, self.objects, wanted)

    def _kept(self, seed: int, compressed: bool) -> ResultObject:
        dataset = small_dicom("ap", seed, rows=64, columns=48)
        if compressed:
            dataset.compress(RLELossless, generate_instance_uid=False)
        kept = self.store.keep(dicom_bytes(dataset))
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        uids = str(dataset.SOPInstanceUID), str(dataset.SOPClassUID)
        return ResultObject(*uids, syntax, "report", kept.name, kept.size)

    def deliverer(self, courier, name: str = "pacs", **timing: float) -> Deliverer:
        timing = {"first_retry_s": 10.0, "max_retry_s": 60.0, **timing}
        return Deliverer(
            *(name, courier, self.queue, self.store, Deliver(**timing), self.metrics),
            clock=lambda: self.now,
        )

    @property
    def state(self) -> State:
        return self.queue.case(self.case_id).state

    def reasons(self) -> set[str | None]:
        return {d.reason for d in self.queue.deliveries(self.case_id)}


def courier_to(pacs: Pacs, **more) -> DicomCourier:
    destination = DicomDestination(
        name="pacs", kind="dicom", host="127.0.0.1", port=pacs.port, ae_title="PACS", **more
    )
    return DicomCourier(destination, "HIPNET", 30.0)


def plain(seed: int) -> bytes:
    """The data set of a result object before it was compressed."""
    content = dicom_bytes(small_dicom("ap", seed, rows=64, columns=48))
    return content[144 + int.from_bytes(content[140:144], "little") :]


def test_the_kept_bytes_are_sent_over_one_association(tmp_path):
    bench, pacs = Bench(tmp_path, "pacs", compressed=True), Pacs()
    with pacs.open([RLELossless]):
        courier = courier_to(pacs)
        deliverer = bench.deliverer(courier, idle_release_s=30.0)
        assert deliverer.step() == 0.0
        association = courier._association
        assert bench.state is State.DELIVERED
        for item in bench.objects:
            content = bench.store.read(item.file)
            start = 144 + int.from_bytes(content[140:144], "little")
            assert pacs.contents[item.sop_instance_uid] == {
                hashlib.sha256(content[start:]).hexdigest()
            }
        bench.now += 29
        deliverer.step()
        assert association.is_established
        bench.now += 2
        deliverer.step()
        assert association.is_released


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_peer_that_takes_only_another_syntax_gets_the_same_decoded(tmp_path, syntax, compressed):
    bench, pacs = Bench(tmp_path, "pacs", compressed=compressed), Pacs(keep=True)
    with pacs.open([syntax]):
        courier = courier_to(pacs)
        bench.deliverer(courier).step()
        courier.release()
    assert bench.state is State.DELIVERED
    for item, seed in zip(bench.objects, (1, 2), strict=True):
        sent = BytesIO(pacs.kept[item.sop_instance_uid])
        implicit = syntax == ImplicitVRLittleEndian
        found = read_dataset(sent, is_implicit_VR=implicit, is_little_endian=True)
        assert found == read_dataset(BytesIO(plain(seed)), False, True)


def test_statuses():
    for status in (0x0000, 0xB000, 0xB006, 0xB007, 0x0111):
        assert judged(status).outcome is Outcome.DELIVERED
    assert judged(0xA700).outcome is Outcome.LATER
    for status in (0xA900, 0xC000, 0x0110, 0x0122, 0x0124):
        assert judged(status).outcome is Outcome.REJECTED
    assert judged(0xA700).reason == "status_a700"


def test_a_pacs_without_room_gets_everything_later(tmp_path):
    bench, pacs = Bench(tmp_path, "pacs"), Pacs()
    pacs.statuses = [0xA700, 0xA700]
    with pacs.open():
        deliverer = bench.deliverer(courier_to(pacs))
        assert 5.0 <= deliverer.step() <= 10.0
        assert bench.reasons() == {"status_a700", None}
        assert deliverer.step() > 0  # nothing is asked of it until then
        assert len(pacs.statuses) == 1
        bench.now += 10
        assert 10.0 <= deliverer.step() <= 20.0
        bench.now += 20
        assert deliverer.step() == 0.0
    assert bench.state is State.DELIVERED


def test_an_object_that_is_not_wanted_is_given_up_and_the_others_are_not(tmp_path):
    bench, pacs = Bench(tmp_path, "pacs"), Pacs()
    pacs.statuses = [0xC000, 0, *[0xC000] * (MOST_REJECTIONS - 1)]
    with pacs.open():
        deliverer = bench.deliverer(courier_to(pacs))
        for _ in range(MOST_REJECTIONS):
            assert bench.state is State.PREDICTED
            deliverer.step()
            bench.now += 60
        assert bench.state is State.FAILED
        assert bench.queue.case(bench.case_id).reason == "status_c000"
        assert len(pacs.received) == 1
        bench.queue.retry(bench.case_id)
        deliverer.step()
    assert bench.state is State.DELIVERED
    assert set(pacs.received.values()) == {1}


def test_a_pacs_that_is_away_is_tried_until_it_is_back_or_the_time_is_over(tmp_path):
    bench, pacs = Bench(tmp_path, "pacs"), Pacs()
    deliverer = bench.deliverer(courier_to(pacs), give_up_after_h=1.0)
    pauses = []
    for _ in range(5):
        pauses.append(deliverer.step())
        bench.now += pauses[-1]
    assert pauses[-1] > pauses[0]
    assert max(pauses) <= 60
    assert bench.reasons() == {"unreachable", None}  # one speaks for all that wait
    with pacs.open():
        bench.now += 60
        deliverer.step()
        assert bench.state is State.DELIVERED
    bench = Bench(tmp_path / "second", "pacs")
    deliverer = bench.deliverer(courier_to(pacs), give_up_after_h=1.0)
    bench.now += HOUR + 1
    deliverer.step()
    assert bench.state is State.FAILED
    assert bench.queue.case(bench.case_id).reason == "unreachable"


def test_a_damaged_result_is_given_up_and_the_next_one_sent(tmp_path):
    bench, pacs = Bench(tmp_path, "pacs"), Pacs()
    bench.store.path(bench.objects[0].file).write_bytes(b"damaged")
    with pacs.open():
        bench.deliverer(courier_to(pacs)).step()
    assert bench.state is State.FAILED
    assert bench.reasons() == {"result_damaged", None}
    assert list(pacs.received) == [bench.objects[1].sop_instance_uid]


def test_a_folder_gets_whole_files_named_by_a_hash_and_must_be_there(tmp_path):
    bench = Bench(tmp_path, "share")
    path = tmp_path / "share"
    courier = FolderCourier(FolderDestination(name="share", kind="folder", path=path))
    deliverer = bench.deliverer(courier, "share")
    deliverer.step()
    assert bench.reasons() == {"no_such_folder", None}
    assert not path.exists()
    path.mkdir()
    bench.now += 10
    deliverer.step()
    assert bench.state is State.DELIVERED
    found = sorted(file.read_bytes() for file in path.iterdir())
    assert found == sorted(bench.store.read(item.file) for item in bench.objects)
    assert {file.suffix for file in path.iterdir()} == {".dcm"}
    for item in bench.objects:  # once more: the same files
        courier.send(item, bench.store.path(item.file))
    assert len(list(path.iterdir())) == 2


def test_destinations_do_not_wait_for_each_other(tmp_path):
    bench, pacs = Bench(tmp_path, "away", "pacs"), Pacs()
    away = bench.deliverer(courier_to(SimpleNamespace(port=free_port())), "away")
    away.step()
    with pacs.open():
        bench.deliverer(courier_to(pacs)).step()
    states = {(d.destination, d.state) for d in bench.queue.deliveries(bench.case_id)}
    assert states == {("away", "waiting"), ("pacs", "sent")}
    assert bench.state is State.PREDICTED
