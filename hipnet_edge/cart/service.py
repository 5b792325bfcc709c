"""The cart as one process: every part made, started in order, watched and stopped.

Start: the data folder's lock, store, database (what was begun and not ended goes on from there),
the page, the predictor until it is warm, and only then the receiver. A kill at any moment loses
nothing that was acknowledged; nothing here has to run for that.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hipnet_edge import __version__
from hipnet_edge.cart.admission import Admission
from hipnet_edge.cart.assembler import Assembler
from hipnet_edge.cart.audit import AuditTrail
from hipnet_edge.cart.couriers import courier_for
from hipnet_edge.cart.deliver import Deliverer
from hipnet_edge.cart.engine import Engine
from hipnet_edge.cart.housekeeping import Housekeeping
from hipnet_edge.cart.identity import Pseudonyms
from hipnet_edge.cart.metrics import Levels, Metrics
from hipnet_edge.cart.queue import Queue
from hipnet_edge.cart.schema import QueueUnusable
from hipnet_edge.cart.selfcheck import SelfCheck
from hipnet_edge.cart.store import ObjectStore, make_folder
from hipnet_edge.cart.systemd import notify, watchdog_s
from hipnet_edge.cart.threads import Repeating
from hipnet_edge.cart.watch import Watcher
from hipnet_edge.cart.work import Worker
from hipnet_edge.errors import UsageError

if TYPE_CHECKING:
    from types import TracebackType

    import uvicorn

    from hipnet_edge.cart.settings import Configuration
    from hipnet_edge.predictor import Predictor

logger = logging.getLogger(__name__)

_WORKERS = 2
"""The one predictor infers for one of them while the other writes its result objects."""
_STOP_S = 5.0
"""How long a part may take to end; what takes longer is begun again after the next start."""
_STUCK_S = 900.0
"""A step that takes longer hangs; systemd's watchdog is no longer told that all is well."""


class CartService:
    """One cart; `start` it or use it as a context manager.

    Args:
        configuration: all that it must know.

    Raises:
        UsageError: another instance uses the data folder, or a certificate cannot be used.
        QueueUnusable: the database cannot be opened.

    Attributes:
        queue, store, admission, metrics: its parts, for the page and for tests.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        data = configuration.service.data
        make_folder(data)
        self._lock = _locked(data)
        try:
            self._make_parts(data)
        except BaseException:
            self._lock.close()
            raise

    def _make_parts(self, data: Path) -> None:
        from hipnet_edge.cart.commitment import Commitment
        from hipnet_edge.cart.receive import Receiver

        configuration = self._configuration
        pseudonyms = Pseudonyms.load(data)
        self.store = ObjectStore(data / "objects")
        self.queue = Queue(data / "cart.sqlite3", pseudonym=pseudonyms)
        self.metrics = Metrics(self._levels)
        self.admission = Admission(
            configuration, self.store, self.queue, pseudonyms, self._on_event
        )
        self.engine = Engine(configuration.predict, self._loaded)
        watch, receive = configuration.watch, configuration.receive
        commitment = (
            Commitment(self.store, self.queue, pseudonyms, self.admission)
            if receive.storage_commitment
            else None
        )
        self.receiver = Receiver(receive, self.admission, self.store.incoming, commitment)
        self._watcher = (
            Watcher(watch, receive, self.admission, self.store.incoming) if watch else None
        )
        self._housekeeping = Housekeeping(
            self.queue,
            self.store,
            AuditTrail(self.queue.database, data / "audit.jsonl"),
            configuration,
        )
        workers = [
            Worker(
                *(self.queue, self.store, self.engine, configuration, self.metrics),
                self._wake_deliverers,
            )
            for _ in range(_WORKERS)
        ]
        every_h = configuration.selftest.every_h
        selfcheck = SelfCheck(self.engine, self.queue, self.metrics, every_h)
        assembler = Assembler(self.queue, configuration.assemble, self._wake_worker)
        self._deliverers = [
            Deliverer(
                destination.name,
                courier_for(destination, configuration),
                *(self.queue, self.store, configuration.deliver, self.metrics),
            )
            for destination in configuration.destination
        ]
        self._assembling = self._repeating("assemble", assembler.step)
        self._working = [
            self._repeating(f"work_{place}", worker.step, worker.finish)
            for place, worker in enumerate(workers, start=1)
        ]
        self._testing = [self._repeating("selftest", selfcheck.step)] if every_h else []
        self._delivering = [
            self._repeating(f"deliver_{place}", deliverer.step, deliverer.courier.release)
            for place, deliverer in enumerate(self._deliverers, start=1)
        ]
        self._keeping = self._repeating(
            "housekeeping", self._housekeeping.step, self._housekeeping.finish
        )
        self._page: uvicorn.Server | None = None
        self._page_thread: threading.Thread | None = None

    @property
    def predictor(self) -> Predictor:
        """The warm predictor."""
        return self.engine.predictor

    def start(self) -> None:
        """Start everything; returns when images are received and can be read.

        Raises:
            BundleUnusable, EngineUnusable, MissingExtra: what is pinned cannot be had.
            UsageError: an address cannot be listened on.
        """
        predict = self._configuration.predict
        self.queue.note(
            "started",
            version=__version__,
            configuration=self._configuration.digest,
            bundle=predict.bundle_digest,
            overlay=predict.overlay_digest,
            backend=predict.backend,
            variant=predict.variant,
        )
        self._keeping.start()
        if self._configuration.page.enabled:
            self._start_page()
        self.engine.load()
        for part in self._parts():
            part.start()
        try:
            self.receiver.start()
        except OSError as error:
            receive = self._configuration.receive
            raise UsageError(
                f"{receive.host}:{receive.port} cannot be listened on: {error.strerror}."
            ) from error
        if self._watcher is not None:
            self._watcher.start()
        logger.info("ready", extra={"port": self.receiver.port})

    def _start_page(self) -> None:
        from hipnet_edge.cart.page.app import PageBackend, make_server

        page = self._configuration.page
        backend = PageBackend(
            *(self._configuration, self.queue, self.store, self.admission),
            not_ready=self.not_ready,
            metrics=self.metrics.text,
        )
        self._page = server = make_server(backend)
        self._page_thread = thread = threading.Thread(
            target=server.run, name="cart-page", daemon=True
        )
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        if not server.started:
            raise UsageError(f"{page.host}:{page.port} cannot be listened on for the page.")

    def not_ready(self) -> list[str]:
        """The parts that keep the cart from taking and reading images; empty when it is ready."""
        states = {
            "predictor": self.engine.ready,
            "receiver": self.receiver.listening,
            "database": self._housekeeping.database_works,
            "worker": all(part.alive for part in self._working),
            "selftest": self.engine.trusted,
        }
        return [part for part, works in states.items() if not works]

    def ready(self) -> bool:
        """Whether images are taken and read."""
        return not self.not_ready()

    def hangs(self) -> bool:
        """Whether a part is dead or takes so long that only a new start helps."""
        parts = (*self._parts(), self._keeping)
        return any(not part.alive or part.busy_s > _STUCK_S for part in parts)

    def _parts(self) -> tuple[Repeating, ...]:
        """The threads that run from when the predictor is warm."""
        return (self._assembling, *self._working, *self._testing, *self._delivering)

    def stop(self) -> None:
        """Stop receiving, end what is under way, close; a few seconds at most."""
        if self._watcher is not None:
            self._watcher.stop()
        self.receiver.stop(grace_s=2.0)
        if self._page is not None:
            self._page.should_exit = True
        for deliverer in self._deliverers:
            deliverer.stop()
        parts = self._parts()
        for part in parts:
            part.stop()
        deadline = time.monotonic() + _STOP_S
        late = [part for part in parts if not part.join(deadline - time.monotonic())]
        ended = not late
        for deliverer in self._deliverers:
            deliverer.courier.interrupt()  # whose peer does not answer
        if self._page_thread is not None:
            self._page_thread.join(max(0.0, deadline - time.monotonic()))
        try:
            self.queue.note("stopped", clean=ended)
        except QueueUnusable as error:
            logger.warning("the stop is not on record", exc_info=error)
        self._keeping.stop()
        self._keeping.join(_STOP_S)
        if ended:
            self.engine.close()
            self.queue.close()
        self._lock.close()
        logger.info("stopped")

    def __enter__(self) -> CartService:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _repeating(
        self, name: str, step: Callable[[], float], finish: Callable[[], None] | None = None
    ) -> Repeating:
        return Repeating(name, step, finish, failed=self.metrics.failure)

    def _loaded(self, predictor: Predictor) -> None:
        from hipnet_edge.evaluation.daily import Model

        self.queue.model = Model.of(predictor.provenance)
        self.metrics.runs(predictor.provenance)

    def _wake_worker(self) -> None:
        for part in self._working:
            part.wake()

    def _wake_deliverers(self) -> None:
        for part in self._delivering:
            part.wake()

    def _on_event(self, event: str, /, **labels: str) -> None:
        """What reception tells: counted, with the C-STORE status that the sender was given."""
        from hipnet_edge.cart.receive import CANNOT_UNDERSTAND, STATUSES, SUCCESS

        reason, source = labels.get("reason", ""), labels.get("source", "")
        self.metrics.event(event, reason, source)
        if source == "dicom" and event in ("image_accepted", "image_refused"):
            refused = STATUSES.get(reason, CANNOT_UNDERSTAND)
            self.metrics.stored(SUCCESS if event == "image_accepted" else refused)
        if event == "image_accepted":
            self._assembling.wake()

    def _levels(self) -> Levels:
        counts = self.queue.counts()
        waiting: dict[str, int] = defaultdict(int, self.queue.waiting_deliveries())
        return Levels(
            cases={state.value: count for state, count in counts.items()},
            backlog=self.queue.backlog(),
            waiting={d.name: waiting[d.name] for d in self._deliverers},
            free_bytes=self.store.free_bytes(),
            ready=self.ready(),
        )


def serve(configuration: Configuration) -> None:
    """Run a cart until SIGTERM or SIGINT, and tell systemd how it is.

    Raises:
        HipNetError: it cannot be started.
    """
    with _signals() as asked_to_stop, CartService(configuration) as cart:
        notify("READY=1")
        interval = (watchdog_s() or 20.0) / 2
        while not asked_to_stop.wait(interval):
            if not cart.hangs():
                notify("WATCHDOG=1")
        notify("STOPPING=1")


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set."""
    asked = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: asked.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _locked(data: Path) -> IO[bytes]:
    """The data folder for this process alone, for as long as the file is open."""
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    file = os.fdopen(descriptor, "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise UsageError(f"Another instance uses the data folder {data}.") from error
    return file
