"""A whole cart for tests: its configuration, small studies to send, a PACS that counts."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from receiving import free_port, tool
from small_study import dicom_bytes, small_dicom

from hipnet_edge.bundle import Bundle
from hipnet_edge.cart.configuration import load
from hipnet_edge.cart.logs import JsonLines
from hipnet_edge.cart.queue import Queue
from hipnet_edge.cart.records import State
from hipnet_edge.cart.service import CartService
from hipnet_edge.cart.settings import Configuration

DX = "1.2.840.10008.5.1.4.1.1.1.1"


@dataclass
class Setup:
    """Where a test's cart lies and how it is reached."""

    folder: Path
    bundle: Path
    port: int = field(default_factory=free_port)
    page_port: int = field(default_factory=free_port)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def write(
        self, destinations: str = "", *, page: bool = True, more: str = "", pinned: str = ""
    ) -> Path:
        """The configuration as a file; `pinned` is added to [predict]."""
        path = self.folder / "cart.toml"
        digest = Bundle.load(self.bundle).digest
        path.write_text(
            f'[service]\ndata = "{self.data}"\n'
            f'[predict]\nbundle = "{self.bundle}"\nbundle_digest = "{digest}"\n'
            'backend = "onnxruntime"\nvariant = "fp32"\nthreads = 1\n'
            f"{pinned}\n"
            f'[receive]\nhost = "127.0.0.1"\nport = {self.port}\n'
            'calling_ae_titles = ["XRAY1"]\nmin_free_mib = 1\nidle_timeout_s = 5\n'
            f"[page]\nenabled = {str(page).lower()}\nport = {self.page_port}\n"
            "[deliver]\nfirst_retry_s = 0.2\nmax_retry_s = 0.5\n"
            f'[log]\nlevel = "info"\n{more or FAST}\n{destinations}'
        )
        return path

    def configuration(self, destinations: str = "", **options: object) -> Configuration:
        return load(self.write(destinations, **options))  # type: ignore[arg-type]


FAST = "[assemble]\nsettle_s = 0.2\nlone_view_timeout_s = 2.0"


def dicom_destination(name: str, port: int) -> str:
    return (
        f'[[destination]]\nname = "{name}"\nkind = "dicom"\nhost = "127.0.0.1"\n'
        f'port = {port}\nae_title = "{name.upper()}"\n'
    )


def folder_destination(name: str, path: Path) -> str:
    path.mkdir(exist_ok=True)
    return f'[[destination]]\nname = "{name}"\nkind = "folder"\npath = "{path}"\n'


def study(seed: int, views: Sequence[str] = ("ap", "lateral"), **header: object) -> list[bytes]:
    """Small radiographs of one study as files; `header` changes attributes."""
    files = []
    for view in views:
        dataset = small_dicom(view, seed, rows=320, columns=240)
        for keyword, value in header.items():
            setattr(dataset, keyword, value)
        files.append(dicom_bytes(dataset))
    return files


@contextmanager
def running(setup: Setup, configuration: Configuration) -> Iterator[CartService]:
    """A cart in this process; what it logs and counts is left in files beside its data."""
    handler = logging.FileHandler(setup.folder / "cart.log")
    handler.setFormatter(JsonLines())
    root, ours = logging.getLogger(), logging.getLogger("hipnet_edge")
    root.addHandler(handler)
    level, _ = ours.level, ours.setLevel(logging.DEBUG)
    try:
        with CartService(configuration) as cart:
            yield cart
            (setup.folder / "metrics.txt").write_bytes(cart.metrics.text())
    finally:
        root.removeHandler(handler)
        ours.setLevel(level)
        handler.close()


def send(port: int, *files: Path, called: str = "HIPNET") -> None:
    """dcmtk's storescu sends files as XRAY1."""
    command = [tool("storescu"), "-aet", "XRAY1", "-aec", called, "127.0.0.1", str(port)]
    subprocess.run([*command, *map(str, files)], check=True, timeout=60)


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for what other threads and processes do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.03)


def finished(queue: Queue) -> bool:
    """Whether nothing waits and at least one case has ended."""
    counts = queue.counts()
    open_states = (State.RECEIVED, State.ASSEMBLED, State.PREDICTED)
    return not any(counts[s] for s in open_states) and any(counts.values())


class Pacs:
    """A PACS in this process: what it acknowledged is never lost, whatever happens to the cart."""

    def __init__(self, *, keep: bool = False) -> None:
        self.kept: dict[str, bytes] | None = {} if keep else None
        """The last data set of each UID, if wanted."""
        self.port = free_port()
        self.received: Counter[str] = Counter()
        self.contents: dict[str, set[str]] = {}
        """The sha256 of each different data set that came under a UID."""
        self.statuses: list[int] = []
        """Answered to the next objects instead of success, in this order."""

    def _store(self, event: evt.Event) -> int:
        request = event.request
        if self.statuses and (status := self.statuses.pop(0)):
            return status
        uid, content = str(request.AffectedSOPInstanceUID), request.DataSet.getvalue()
        self.received[uid] += 1
        self.contents.setdefault(uid, set()).add(hashlib.sha256(content).hexdigest())
        if self.kept is not None:
            self.kept[uid] = content
        return 0

    @contextmanager
    def open(self, syntaxes: Sequence[str] | None = None) -> Iterator[Pacs]:
        _config.LOG_HANDLER_LEVEL = "none"
        entity = AE("PACS")
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(
                str(context.abstract_syntax), list(syntaxes or ("1.2.840.10008.1.2.1",))
            )
        server = entity.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        try:
            yield self
        finally:
            assert server is not None
            server.shutdown()


def report_probabilities(report: Dataset) -> list[float]:
    """The probabilities of the causes in a report, in its order: those named 122157, DCM."""
    found: list[float] = []

    def search(items: Sequence[Dataset]) -> None:
        for item in items:
            name = item.get("ConceptNameCodeSequence", [Dataset()])[0].get("CodeValue")
            if item.ValueType == "NUM" and name == "122157":
                found.append(float(item.MeasuredValueSequence[0].NumericValue))
            search(item.get("ContentSequence", []))

    search(report.ContentSequence)
    return found


def audit_events(data: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (data / "audit.jsonl").read_text().splitlines()]


def get(setup: Setup, path: str) -> tuple[int, bytes]:
    """What the page answers: status and content."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{setup.page_port}{path}") as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def serve(setup: Setup, *options: str, **environment: str) -> subprocess.Popen[bytes]:
    """`hipnet-edge serve` as a process; what it says is in serve.log."""
    command = [sys.executable, "-m", "hipnet_edge", "serve", *options]
    with (setup.folder / "serve.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})
