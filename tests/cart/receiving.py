"""A receiver on this machine with a store and a queue of its own, and dcmtk's senders."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hipnet_edge.cart.admission import Admission
from hipnet_edge.cart.commitment import Commitment
from hipnet_edge.cart.identity import Pseudonyms
from hipnet_edge.cart.queue import Queue
from hipnet_edge.cart.receive import Receiver
from hipnet_edge.cart.records import Instance
from hipnet_edge.cart.settings import Configuration
from hipnet_edge.cart.store import ObjectStore


@dataclass
class Cart:
    """The parts of a cart that take images in."""

    data: Path
    store: ObjectStore
    queue: Queue
    admission: Admission
    receiver: Receiver
    events: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def instances(self) -> dict[str, Instance]:
        """All images that the queue holds, by SOP instance UID."""
        found = [i for study in self.queue.waiting_studies() for i in study.instances]
        return {instance.sop_instance_uid: instance for instance in found}

    def check_kept(self) -> None:
        """Every image of the queue is whole in the store, and nothing unfinished is left."""
        for instance in self.instances().values():
            assert len(self.store.read(instance.file)) == instance.size
        assert not list(self.store.incoming.iterdir())

    def reasons(self) -> list[str]:
        """The reasons of all refusals so far."""
        return [labels["reason"] for _, labels in self.events if "reason" in labels]


def settings(data: Path, **receive: object) -> Configuration:
    """A configuration of which only `[receive]` matters."""
    chosen = {"host": "127.0.0.1", "port": free_port(), "calling_ae_titles": ("XRAY1",)}
    return Configuration.model_validate(
        {
            "service": {"data": data},
            "predict": {"bundle_digest": "0" * 64, "backend": "none", "variant": "fp32"},
            "receive": {**chosen, "min_free_mib": 1, **receive},
        }
    )


@contextmanager
def cart(data: Path, **receive: object) -> Iterator[Cart]:
    """A receiver that listens until the end of the block."""
    configuration = settings(data, **receive)
    pseudonyms = Pseudonyms.load(data)
    store = ObjectStore(data / "objects")
    queue = Queue(data / "cart.sqlite3", pseudonym=pseudonyms)
    events: list[tuple[str, dict[str, str]]] = []
    admission = Admission(
        configuration,
        store,
        queue,
        pseudonyms,
        lambda event, /, **labels: events.append((event, labels)),
    )
    asked = configuration.receive.storage_commitment
    commitment = Commitment(store, queue, pseudonyms, admission) if asked else None
    receiver = Receiver(configuration.receive, admission, store.incoming, commitment)
    receiver.start()
    try:
        yield Cart(data, store, queue, admission, receiver, events)
    finally:
        receiver.stop(grace_s=2.0)
        queue.close()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tool(name: str) -> str:
    """The path of a program; the test is skipped where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def dcmtk(
    name: str, cart: Cart, *more: object, calling: str = "XRAY1", called: str = "HIPNET"
) -> subprocess.CompletedProcess[str]:
    """Run dcmtk's storescu or echoscu against the receiver; its words are in `stdout`."""
    command = [tool(name), "-v", "-aet", calling, "-aec", called, "127.0.0.1"]
    return subprocess.run(
        [*command, str(cart.receiver.port), *map(str, more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def echoes(cart: Cart, *options: object) -> bool:
    """Whether the receiver answers C-ECHO."""
    return dcmtk("echoscu", cart, *options).returncode == 0


def wait_until(condition: object, seconds: float = 5.0) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
