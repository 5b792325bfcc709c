"""A cart's data folder with studies in every state, filled without a network; its page served."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hipnet_edge import Prediction, Predictor
from hipnet_edge.cart.admission import Admission, Outcome
from hipnet_edge.cart.configuration import Configuration
from hipnet_edge.cart.identity import Pseudonyms
from hipnet_edge.cart.page.app import PageBackend, make_server
from hipnet_edge.cart.queue import Queue
from hipnet_edge.cart.records import NewCase, NewRefusal, ResultObject, Settlement, WaitingStudy
from hipnet_edge.cart.store import ObjectStore
from hipnet_edge.dicom.results import result_objects

PACS = {"kind": "dicom", "host": "127.0.0.1", "port": 104, "ae_title": "PACS"}


class CartFolder:
    """The cart without its network: what the page needs, and the steps that the service makes."""

    def __init__(
        self,
        data: Path,
        *,
        page: dict[str, Any] | None = None,
        receive: dict[str, Any] | None = None,
        destinations: Sequence[str] = ("PACS",),
        dicom: bool = False,
    ) -> None:
        """Where `dicom` is false a result's only object is a stand-in, which is quicker."""
        self._dicom = dicom
        self.now = time.time
        self.not_ready: list[str] = []
        pins = {"bundle_digest": "0" * 64, "backend": "onnxruntime", "variant": "fp32"}
        self.configuration = Configuration.model_validate(
            {
                "service": {"data": data},
                "predict": pins,
                "receive": {"any_caller": True, "min_free_mib": 1, **(receive or {})},
                "page": page or {},
                "destination": [{"name": name, **PACS} for name in destinations],
            }
        )
        self.store = ObjectStore(data / "objects")
        pseudonyms = Pseudonyms.load(data)
        self.queue = Queue(data / "cart.sqlite3", pseudonym=pseudonyms, clock=lambda: self.now())
        self.admission = Admission(self.configuration, self.store, self.queue, pseudonyms)
        self.backend = PageBackend(
            configuration=self.configuration,
            queue=self.queue,
            store=self.store,
            admission=self.admission,
            not_ready=lambda: self.not_ready,
            metrics=lambda: "hipnet_edge_studies_total 1\n",
        )

    def bring(self, *files: bytes) -> list[Outcome]:
        return [self.admission.admit(content, source="upload") for content in files]

    def settle(self, make: Callable[[WaitingStudy], Settlement]) -> int:
        """Settle the study that waits longest; the number of its newest case."""
        assert self.queue.settle(study := self.queue.waiting_studies()[0], make(study))
        return max(case.id for case in self.queue.cases())

    def assembled(self, ap: bytes, lateral: bytes) -> int:
        assert all(outcome.accepted for outcome in self.bring(ap, lateral))
        return self.settle(_one_pair)

    def predicted(
        self,
        predictor: Predictor,
        ap: bytes,
        lateral: bytes,
        *,
        change: Callable[[Prediction], Prediction] = lambda prediction: prediction,
    ) -> int:
        case_id = self.assembled(ap, lateral)
        claimed = self.queue.claim(self.now())
        assert claimed is not None
        assert claimed.id == case_id
        prediction = predictor.predict(ap, lateral)
        objects = self._objects(prediction, ap, lateral)
        stored = json.dumps(change(prediction).to_dict()).encode()
        kinds = {made.kind for made in objects}
        self.queue.predicted(
            case_id,
            self.store.keep(stored, ".json").name,
            objects,
            {destination.name: kinds for destination in self.configuration.destination},
        )
        return case_id

    def _objects(self, prediction: Prediction, ap: bytes, lateral: bytes) -> list[ResultObject]:
        if not self._dicom:
            kept = self.store.keep(b"a report")
            return [ResultObject("1.2.3.4", "1.2.3", "1.2.840", "report", kept.name, kept.size)]
        objects = []
        for made in result_objects(prediction, ap, lateral):
            kept, dataset = self.store.keep(made.to_bytes()), made.dataset
            uids = (
                dataset.SOPInstanceUID,
                dataset.SOPClassUID,
                dataset.file_meta.TransferSyntaxUID,
            )
            objects.append(ResultObject(*map(str, uids), made.kind, kept.name, kept.size))
        return objects

    def delivered(self, predictor: Predictor, ap: bytes, lateral: bytes) -> int:
        case_id = self.predicted(predictor, ap, lateral)
        for delivery in self.queue.deliveries(case_id):
            self.queue.sent(delivery)
        return case_id

    def undeliverable(self, predictor: Predictor, ap: bytes, lateral: bytes) -> int:
        case_id = self.predicted(predictor, ap, lateral)
        for delivery in self.queue.deliveries(case_id):
            self.queue.delivery_postponed(delivery, "no_association", None)
        return case_id

    def refused(self, *files: bytes, reason: str, message: str) -> int:
        self.bring(*files)
        return self.settle(lambda study: _refusal(study, reason, message))

    def failed(self, ap: bytes, lateral: bytes) -> int:
        case_id = self.assembled(ap, lateral)
        assert self.queue.claim(self.now()) is not None
        self.queue.postpone(case_id, "engine_failed", "The engine stopped while it ran.", None)
        return case_id


def _one_pair(study: WaitingStudy) -> Settlement:
    by_view = {image.view: image for image in study.instances}
    ap, lateral = by_view["ap"], by_view["lateral"]
    side = next((x.laterality for x in (lateral, ap) if x.laterality in ("left", "right")), None)
    return Settlement(cases=(NewCase(ap.sop_instance_uid, lateral.sop_instance_uid, side),))


def _refusal(study: WaitingStudy, reason: str, message: str) -> Settlement:
    uids = {image.view: image.sop_instance_uid for image in study.instances}
    side = study.instances[0].laterality
    one = NewRefusal(uids.get("ap"), uids.get("lateral"), side, reason, message)
    return Settlement(refused=(one,), unused=tuple((uid, reason) for uid in study.new))


@contextmanager
def served(cart: CartFolder) -> Iterator[str]:
    """The page on a free port, as the service runs it; gives its address."""
    server = make_server(cart.backend)
    server.config.port = 0
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)
