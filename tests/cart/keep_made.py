"""Images and results for tests of the queue: bytes of no meaning, kept as the cart keeps them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hipnet_edge.cart.audit import AuditTrail, known_head, verify
from hipnet_edge.cart.queue import Instance, NewCase, Queue, ResultObject, Settlement, WaitingStudy
from hipnet_edge.cart.store import ObjectStore

KINDS = ("report", "capture")


class Kept:
    """Queue, store and audit trail of one data folder."""

    def __init__(self, data: Path, clock: Callable[[], float]) -> None:
        self.data, self.clock = data, clock
        self.store = ObjectStore(data / "objects")
        self.queue = Queue(data / "cart.sqlite3", pseudonym=lambda uid: f"~{uid}", clock=clock)
        self.trail = AuditTrail(self.queue.database, data / "audit.jsonl")

    def told(self) -> Counter[str]:
        """How often the audit file tells of each event, after it was held against the database.

        The chain verifies, and what it tells of cases leads, step by step, to the states they have.
        """
        self.trail.flush()
        path = self.data / "audit.jsonl"
        assert verify(path, known_head(self.queue.database)).problem is None
        told = Counter[str]()
        states: dict[int, str] = {}
        for line in path.read_text().splitlines():
            record = json.loads(line)
            told[record["event"]] += 1
            subject, _, after = record["event"].partition("_")
            if record["event"] == "refusal_undone":
                assert states.pop(record["case"]) == "refused"
            elif record["event"] == "purged":
                ended = {states.pop(case) for case in record["cases"]}
                assert ended <= {"delivered", "refused", "failed"}
            elif subject == "case":
                before = states.get(record["case"], "received")
                assert record["state_from"] == before
                states[record["case"]] = before if after == "postponed" else after
        assert states == {c.id: c.state.value for c in self.queue.cases(limit=-1)}
        return told

    def image(self, uid: str, view: str, study: str, content: bytes = b"") -> Instance:
        file = self.store.keep(uid.encode() + content)
        return Instance(
            sop_instance_uid=uid,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
            study_instance_uid=study,
            patient_key="patient",
            transfer_syntax="1.2.840.10008.1.2.1",
            file=file.name,
            sha256=file.sha256,
            size=file.size,
            view=view,
            laterality="left",
            acquired_at=None,
            refusal=None,
            received_at=self.clock(),
            source="dicom:MODALITY",
        )

    def results(self, case_id: int) -> tuple[str, list[ResultObject]]:
        """The prediction's file and the result objects of a case, the same ones each time."""
        prediction = self.store.keep(f"prediction {case_id}".encode(), ".json")
        objects = []
        for kind in KINDS:
            file = self.store.keep(f"{kind} {case_id}".encode())
            uid = f"9.{case_id}.{KINDS.index(kind)}"
            objects.append(ResultObject(uid, "1.2", "1.2.840", kind, file.name, file.size))
        return prediction.name, objects


def pair(study: WaitingStudy) -> Settlement:
    """The settlement of a study that has one image of each view; else none of it."""
    images = {i.view: i.sop_instance_uid for i in study.instances}
    if len(images) < 2:
        return Settlement()
    return Settlement(cases=(NewCase(images["ap"], images["lateral"], "left"),))
