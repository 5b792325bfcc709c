"""From a pair of radiographs to a kept result: predict, write the objects, tell the queue.

Files are kept first, then one transaction names them: a power cut in between costs the work and
leaves files that nobody names, never a result that is half there.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hipnet_edge.cart.admission import allowed_modalities
from hipnet_edge.cart.records import ResultObject
from hipnet_edge.cart.schema import QueueUnusable
from hipnet_edge.errors import EngineUnusable, Fault, HipNetError, InputRefused, Reason

if TYPE_CHECKING:
    from hipnet_edge.cart.engine import Engine
    from hipnet_edge.cart.metrics import Metrics
    from hipnet_edge.cart.queue import Queue
    from hipnet_edge.cart.records import Case
    from hipnet_edge.cart.settings import Configuration
    from hipnet_edge.cart.store import ObjectStore

logger = logging.getLogger(__name__)

MOST_FAULTS = 8
"""How often a pair is read that ends in a fault."""
MOST_ATTEMPTS = 30
"""How often reading a pair is begun at all: it may end the process, but so may a power cut."""
MOST_ENGINE_FAILURES = 3
"""After how many engines that broke over one pair it is taken for the pair's fault."""

_IDLE_S = 1.0
_FIRST_RETRY_S, _LONGEST_RETRY_S = 2.0, 300.0
_ENGINE_RETRY_S = 1.0

KINDS = {
    "report": ("report",),
    "segmentation": ("segmentation_ap", "segmentation_lateral"),
    "capture": ("capture",),
}
"""What the configuration calls an object, and the kinds of object that it means."""


class Worker:
    """Reads the cases of a queue one after another.

    Args:
        queue: gives the cases.
        store: holds their images and keeps the results.
        engine: the predictor.
        configuration: says which destination wants which objects.
        metrics: is told how long the stages took.
        predicted: called when there is something to deliver.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        queue: Queue,
        store: ObjectStore,
        engine: Engine,
        configuration: Configuration,
        metrics: Metrics,
        predicted: Callable[[], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue, self._store, self._engine = queue, store, engine
        self._station = configuration.service.station_name
        self._wanted = {
            destination.name: [kind for name in destination.objects for kind in KINDS[name]]
            for destination in configuration.destination
        }
        self._modalities = allowed_modalities(configuration.receive)
        self._metrics, self._predicted, self._clock = metrics, predicted, clock
        self._in_hand: Case | None = None
        self._engine_failures = 0

    def step(self) -> float:
        """Read the next case; returns after how many seconds to look again.

        A case whose reading the disk, the database or the engine prevented stays in hand and is
        read when they work again: it is not the study's fault.
        """
        if not self._engine.ready:
            self._engine.load()
        if not self._engine.trusted:
            return _IDLE_S
        import highdicom  # noqa: F401 - takes long, and a case in hand would wait for it

        case = self._in_hand or self._queue.claim(self._clock())
        if case is None:
            return _IDLE_S
        self._in_hand = case
        if not self._read(case):
            return _ENGINE_RETRY_S
        self._in_hand, self._engine_failures = None, 0
        return 0.0

    def finish(self) -> None:
        """Give back what was begun."""
        if self._in_hand is not None:
            self._queue.release(self._in_hand.id)

    def _read(self, case: Case) -> bool:
        """Read one case; False if the engine does not work."""
        if case.attempts > MOST_ATTEMPTS:
            self._again(case, Fault("Reading the pair ended the process again and again."))
            return True
        try:
            self._to_result(case)
        except InputRefused as refusal:
            self._queue.refuse(case.id, refusal.code.value, refusal.message)
            logger.info("refused", extra={"case": case.id, "reason": refusal.code.value})
        except HipNetError as error:
            if isinstance(error, QueueUnusable):
                raise
            if self._is_the_engines(error):
                return False
            self._again(case, error)
        except OSError:
            raise
        except Exception as error:
            self._again(case, error)
        return True

    def _is_the_engines(self, error: HipNetError) -> bool:
        """Whether a failure is that of the engine, which is then loaded anew.

        One that a pair brings about each time is the pair's in the end, or it would stop the rest.
        """
        closed = error.code is Reason.CLOSED  # perhaps since the other worker found it broken
        if not (closed or isinstance(error, EngineUnusable)):
            return False
        works = self._engine.check()
        if (works and not closed) or self._engine_failures >= MOST_ENGINE_FAILURES:
            return False
        self._engine_failures += 1
        self._metrics.failure("engine")
        logger.error("engine failed", extra={"reason": error.code.value})
        return True

    def _again(self, case: Case, error: Exception) -> None:
        """Put a case off that cannot be read, for longer each time and at last for good."""
        self._metrics.failure("work")
        if not isinstance(error, HipNetError):
            cause, error = error, Fault(f"A fault of hipnet_edge ({type(error).__name__}).")
            error.__cause__ = cause
        code, message = error.code.value, error.message
        pause = min(_FIRST_RETRY_S * 2 ** (case.attempts - 1), _LONGEST_RETRY_S)
        next_at = None if case.attempts >= MOST_FAULTS else self._clock() + pause
        self._queue.postpone(case.id, code, message, next_at)
        logger.warning(
            "not read",
            extra={"case": case.id, "reason": code, "attempt": case.attempts},
            exc_info=error.__cause__ or error,
        )

    def _to_result(self, case: Case) -> None:
        from hipnet_edge.dicom import result_objects
        from hipnet_edge.evaluation.daily import Statistics

        with self._measured("load"):
            ap, lateral = (self._store.read(i.file) for i in self._queue.sources(case))
        with self._measured("predict"):
            prediction = self._engine.predict(ap, lateral, self._modalities)
        for stage, milliseconds in prediction.timings_ms.items():
            self._metrics.stage(f"predict_{stage}", milliseconds / 1e3)
        with self._measured("objects"):
            results = result_objects(prediction, ap, lateral, station_name=self._station)
            contents = [(result.kind, result.dataset, result.to_bytes()) for result in results]
        with self._measured("keep"):
            objects = [
                ResultObject(
                    sop_instance_uid=str(dataset.SOPInstanceUID),
                    sop_class_uid=str(dataset.SOPClassUID),
                    transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
                    kind=kind,
                    file=(kept := self._store.keep(content)).name,
                    size=kept.size,
                )
                for kind, dataset, content in contents
            ]
            text = json.dumps(prediction.to_dict())
            kept = self._store.keep(text.encode(), suffix=".json")
            answer = Statistics.over([prediction])
            self._queue.predicted(case.id, kept.name, objects, self._wanted, answer)
        self._metrics.stage("queued", self._clock() - case.created_at)
        logger.info("read", extra={"case": case.id, "count": len(objects)})
        self._predicted()

    @contextmanager
    def _measured(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._metrics.stage(stage, time.perf_counter() - started)
