"""A cart under load: four senders, none lost, throughput against the bare predictor, memory.

    python benchmarks/cart_load.py --out benchmarks/results/cart_load.json

dcmtk's storescu sends simulated studies of full size, each image under UIDs of its own, as fast as
the cart takes them; dcmtk's storescp, which throws away what it gets, is the PACS. Everything runs
on this machine's cores: senders and PACS work against the cart. The bare predictor reads the same
files in a loop, before: alone, and with its result objects. After the flood a second load at half
the rate measures how long a study takes from its last image to its delivery. A study needs about
25 MB of disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from pydicom import dcmread

from hipnet_edge import Predictor, __version__
from hipnet_edge.cart.configuration import Pins, example
from hipnet_edge.dicom import result_objects
from hipnet_edge.machine import examine
from hipnet_edge.simulation import simulate_study, write_study
from hipnet_edge.vocabulary import Cause

DISTINCT = 4
"""Studies that are simulated; each is sent many times, every time as another study."""
WARM_UP = 20
"""Studies after which the level of memory is noted."""
_VERSIONS = ("pynetdicom", "pydicom", "highdicom", "onnxruntime", "openvino", "numpy")


class Template:
    """A simulated study whose UIDs are exchanged for others of the same length."""

    def __init__(self, folder: Path) -> None:
        self.paths = folder / "ap.dcm", folder / "lateral.dcm"
        self.contents = [path.read_bytes() for path in self.paths]
        self.pair = self.contents[0], self.contents[1]
        headers = [dcmread(path, stop_before_pixels=True) for path in self.paths]
        self._study = str(headers[0].StudyInstanceUID)
        self._images = [str(header.SOPInstanceUID) for header in headers]

    def written(self, number: int, folder: Path) -> list[Path]:
        """The two files of the study of this number."""
        paths = []
        for place, content in enumerate(self.contents):
            exchanged = content
            for uid in (self._study, self._images[place]):
                exchanged = exchanged.replace(uid.encode(), _renumbered(uid, number))
            path = folder / f"{threading.get_ident()}-{place}.dcm"
            path.write_bytes(exchanged)
            paths.append(path)
        return paths


def _renumbered(uid: str, number: int) -> bytes:
    return f"{uid[:-7]}{number:07}".encode()


class Cart:
    """A served cart, watched from outside: its database is read, its memory measured."""

    def __init__(self, folder: Path, pins: Pins, pacs_port: int) -> None:
        self.port = free_port()
        self.data = folder / "data"
        text = example(pins).replace('data = "data"', f'data = "{self.data}"')
        text = text.replace('calling_ae_titles = ["XRAY1"]', 'calling_ae_titles = ["LOAD"]')
        text = text.replace("# port = 11112", f"port = {self.port}")
        text += (
            '\n[[destination]]\nname = "pacs"\nkind = "dicom"\nhost = "127.0.0.1"\n'
            f'port = {pacs_port}\nae_title = "PACS"\n[page]\nport = {free_port()}\n'
        )
        config = folder / "cart.toml"
        config.write_text(text)
        command = [sys.executable, "-m", "hipnet_edge", "serve", "--config", str(config)]
        with (folder / "serve.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.memory = psutil.Process(self.process.pid)
        self.delivered: dict[int, tuple[float, float]] = {}
        """Of each delivered case: when its last image came, and when it was delivered."""
        wait_for(lambda: _listens(self.port), 120)
        self._database = sqlite3.connect(f"file:{self.data}/cart.sqlite3?mode=ro", uri=True)

    def look(self) -> int:
        """Note what was delivered since; returns how many in all."""
        rows = self._database.execute(
            "SELECT c.id, max(i.received_at), c.updated_at FROM cases c JOIN instances i "
            "ON i.sop_instance_uid IN (c.ap, c.lateral) WHERE c.state = 'delivered' "
            "AND c.id > ? GROUP BY c.id",
            (max(self.delivered, default=0) - 200,),
        )
        self.delivered.update((case, (came, left)) for case, came, left in rows)
        return len(self.delivered)

    def others(self) -> dict[str, int]:
        """How many cases ended in another way or did not end."""
        rows = self._database.execute(
            "SELECT state, count(*) FROM cases WHERE state != 'delivered' GROUP BY state"
        )
        return dict(rows.fetchall())

    def rss_mib(self) -> float:
        """Resident memory, MiB."""
        return round(float(self.memory.memory_info().rss) / 2**20, 1)

    def stop(self) -> None:
        """End it; it must end well."""
        self._database.close()
        self.process.terminate()
        if self.process.wait(30) != 0:
            raise RuntimeError("the cart did not end well")


class Flood:
    """Sends studies with several senders at once; each is sent again until it is taken."""

    def __init__(self, cart: Cart, templates: Sequence[Template], folder: Path) -> None:
        self._cart, self._templates, self._folder = cart, templates, folder
        self._numbers = iter(range(10**7))
        self.refused = 0

    def send(self, senders: int, each: int, interval_s: float = 0.0) -> list[threading.Thread]:
        """Start to send; `interval_s` is the time between two studies of one sender."""
        work = [[next(self._numbers) for _ in range(each)] for _ in range(senders)]
        threads = [threading.Thread(target=self._run, args=(w, interval_s)) for w in work]
        for thread in threads:
            thread.start()
        return threads

    def _run(self, numbers: Sequence[int], interval_s: float) -> None:
        command = [_tool("storescu"), "-aet", "LOAD", "-aec", "HIPNET", "127.0.0.1"]
        next_at = time.monotonic()
        for number in numbers:
            paths = self._templates[number % len(self._templates)].written(number, self._folder)
            sent = [*command, str(self._cart.port), *map(str, paths)]
            while subprocess.run(sent, capture_output=True, check=False).returncode != 0:
                self.refused += 1
                time.sleep(1.0)
            next_at += interval_s
            time.sleep(max(0.0, next_at - time.monotonic()))


def bare(predictor: Predictor, templates: Sequence[Template], count: int) -> dict[str, float]:
    """Studies a second of the predictor alone, in a stream, and with its result objects."""
    pairs = [templates[n % len(templates)].pair for n in range(count)]

    def rate(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return round(count / (time.perf_counter() - started), 3)

    def with_objects() -> None:
        for ap, lateral in pairs:
            prediction = predictor.predict(ap, lateral)
            for result in result_objects(prediction, ap, lateral):
                result.to_bytes()

    with_objects()
    return {
        "predict": rate(lambda: [predictor.predict(*pair) for pair in pairs]),
        "predict_stream": rate(lambda: list(predictor.predict_stream(pairs))),
        "predict_and_result_objects": rate(with_objects),
    }


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All of it."""
    templates = []
    for seed in range(DISTINCT):
        (folder / f"study{seed}").mkdir()
        study = simulate_study(list(Cause)[seed], seed, pixel_spacing_mm=arguments.spacing)
        write_study(study, folder / f"study{seed}")
        templates.append(Template(folder / f"study{seed}"))
    with Predictor.reference() as predictor:
        made_by = predictor.provenance
        alone = bare(predictor, templates, arguments.bare)
    pins = Pins(made_by.bundle_digest, made_by.backend, made_by.variant)
    total = arguments.senders * arguments.studies
    with _pacs() as pacs_port:
        cart = Cart(folder, pins, pacs_port)
        flood = Flood(cart, templates, folder)
        started, first_rss = time.monotonic(), cart.rss_mib()
        threads = flood.send(arguments.senders, arguments.studies)
        wait_for(lambda: cart.look() >= min(WARM_UP, total), 600)
        warm_rss = cart.rss_mib()
        wait_for(lambda: cart.look() >= total or bool(cart.others().get("failed")), 7200)
        seconds = time.monotonic() - started
        end_rss, flooded = cart.rss_mib(), dict(cart.delivered)
        rate = len(flooded) / seconds
        for thread in threads:
            thread.join()
        paced = _paced(cart, flood, arguments, rate / 2)
        lost = total + arguments.senders * arguments.paced - cart.look()
        others = cart.others()
        cart.stop()
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": examine().to_dict(),
        "versions": {"hipnet_edge": __version__, **{n: version(n) for n in _VERSIONS}},
        "pinned": vars(pins),
        "senders": arguments.senders,
        "studies": total,
        "distinct_studies": DISTINCT,
        "pixel_spacing_mm": arguments.spacing,
        "mib_a_study": round(sum(map(len, templates[0].contents)) / 2**20, 1),
        "lost": lost,
        "other_states": others,
        "refused_and_sent_again": flood.refused,
        "seconds": round(seconds, 1),
        "studies_a_second": {"cart": round(rate, 3), **alone},
        "ratio_to": {name: round(rate / value, 3) for name, value in alone.items()},
        "arrival_to_delivery_s": {
            "flooded": _percentiles(flooded.values()),
            "at_half_the_rate": paced,
        },
        "resident_mib": {
            "started": first_rss,
            "warm": warm_rss,
            "end": end_rss,
            "end_to_warm": round(end_rss / warm_rss, 3),
        },
    }


def _paced(cart: Cart, flood: Flood, arguments: argparse.Namespace, rate: float) -> dict[str, Any]:
    """Latencies of a load that leaves room: half of the studies a second that can be done."""
    before = set(cart.delivered)
    total = len(before) + arguments.senders * arguments.paced
    flood.send(arguments.senders, arguments.paced, arguments.senders / rate)
    wait_for(lambda: cart.look() >= total, 3600)
    times = [value for case, value in cart.delivered.items() if case not in before]
    return {"studies_a_second": round(rate, 3), **_percentiles(times)}


def _percentiles(times: Any) -> Mapping[str, float]:
    took = sorted(left - came for came, left in times)
    cuts = statistics.quantiles(took, n=20) if len(took) > 1 else took * 20
    return {
        "studies": len(took),
        "p50": round(statistics.median(took), 2),
        "p95": round(cuts[-1], 2),
    }


@contextmanager
def _pacs() -> Iterator[int]:
    """Dcmtk's storescp, which receives everything and keeps nothing."""
    port = free_port()
    command = [_tool("storescp"), "--ignore", "--promiscuous", "+xa", "-aet", "PACS", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} of dcmtk is needed.")
    return found


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until something is so; it is looked at twice a second."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen in time")
        time.sleep(0.5)


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--studies", type=int, default=250, help="of each sender")
    parser.add_argument("--paced", type=int, default=15, help="of each sender, at half the rate")
    parser.add_argument("--bare", type=int, default=40, help="studies of the bare predictor")
    parser.add_argument("--spacing", type=float, default=0.16, help="mm a pixel")
    parser.add_argument("--folder", type=Path, help="for data; a temporary one if not given")
    parser.add_argument("--out", type=Path, help="where the figures go; printed if not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cart_load", dir=arguments.folder) as folder:
        figures = json.dumps(measure(arguments, Path(folder)), indent=2)
    if arguments.out is None:
        print(figures)
    else:
        arguments.out.write_text(figures + "\n")


if __name__ == "__main__":
    main()
