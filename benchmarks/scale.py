"""What a large cohort costs: processes, threads, Ray on one machine; a worker killed half way.

    python -m benchmarks.scale --out benchmarks/results/scale.json

Needs the extras `cpu`, `ray` and `bench`. Every way predicts the same simulated studies, in turns;
`docs/scale.md` shows the figures. Wall time depends on what else the machine does, so processor
time of all processes is measured beside it. What is not the reading of studies (the table, the
journal, the results, passing studies to workers) is measured with many rows and no networks.
"""

from __future__ import annotations

import filecmp
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import psutil

from benchmarks.latency_interleave import orders
from benchmarks.latency_made_here import installed
from export.provenance import made_here, write
from hipnet_edge import Predictor
from hipnet_edge.evaluation.run import radiograph, study_key
from hipnet_edge.evaluation.table import CohortRow, read_table
from hipnet_edge.scale.answers import Answer, Model
from hipnet_edge.scale.cluster import on_cluster
from hipnet_edge.scale.cohort import Where, predict_cohort
from hipnet_edge.scale.journal import Journal
from hipnet_edge.scale.processes import in_processes
from hipnet_edge.scale.results import write_results
from hipnet_edge.simulation.cohort import CohortSettings, write_cohort
from hipnet_edge.simulation.dimensions import Site
from hipnet_edge.vocabulary import VIEWS

PACKAGES = ("ray", "pyarrow", "openvino", "onnxruntime", "numpy", "opencv-python-headless")
WORKERS = 2
SPACING_MM = 0.3
SEED = 77
BOOKKEEPING_ROWS = 20_000
PASSED_ITEMS = 2_000
_SAMPLE_S = 0.2

Way = Callable[[], Iterator[object]]


class Meter:
    """Processor seconds of this process and all that descend from it, the dead ones included.

    Args:
        apart: the process with whose descendants nothing is to do, such as an idle cluster.
    """

    def __init__(self, apart: int | None = None) -> None:
        self._apart = apart
        self._seen: dict[tuple[int, float], float] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            self.seconds()

    def seconds(self) -> float:
        """What was spent until now, since the processes began."""
        me = psutil.Process()
        tree = {process.pid: process for process in (me, *me.children(recursive=True))}
        if self._apart is not None:
            head = psutil.Process(self._apart)
            for process in (head, *head.children(recursive=True)):
                tree.pop(process.pid, None)
        with self._lock:
            for process in tree.values():
                try:
                    spent, begun = process.cpu_times(), process.create_time()
                except psutil.Error:
                    continue
                self._seen[process.pid, begun] = spent.user + spent.system
            return sum(self._seen.values())

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def ray_cluster() -> Iterator[tuple[str, int]]:
    """The address of a cluster of this machine alone, and the process that holds it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    command += [f"--port={port}", f"--num-cpus={WORKERS}", "--include-dashboard=false"]
    command.append("--disable-usage-stats")
    # Ray lets nobody in without a token of the cluster; this one is as old as the measurement.
    os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    here = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "RAY_raylet_start_wait_time_s": "180",  # of a machine that does other things
    }
    head = subprocess.Popen(command, env=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"127.0.0.1:{port}"
        _wait_for(address, head)
        yield address, head.pid
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait()


def _wait_for(address: str, head: subprocess.Popen[bytes], limit_s: float = 240.0) -> None:
    """Until the cluster has its cores."""
    ask = f"import ray; ray.init('{address}', log_to_driver=False); ray.cluster_resources()['CPU']"
    end = time.monotonic() + limit_s
    while subprocess.run([sys.executable, "-c", ask], capture_output=True, check=False).returncode:
        if head.poll() is not None or time.monotonic() > end:
            raise TimeoutError("The Ray cluster does not answer.")
        time.sleep(1.0)


def in_threads(model: Model, rows: Sequence[CohortRow]) -> Iterator[object]:
    """One predictor whose threads share an engine."""
    with Predictor(
        model.bundle or Predictor.reference().bundle,
        backend=model.backend,
        precision=model.precision,
        threads=WORKERS,
    ) as predictor:
        pairs = [(radiograph(row, VIEWS[0]), radiograph(row, VIEWS[1])) for row in rows]
        yield from predictor.predict_stream(pairs)


def timed(way: Way, studies: int, apart: int | None) -> dict[str, float]:
    """What the start costs, and what a study costs once every worker has started.

    The first quarter of the answers is taken for the start of those that come late.
    """
    with Meter(apart) as meter:
        before, started = meter.seconds(), time.perf_counter()
        answers = way()
        next(answers)
        first = time.perf_counter()
        late = studies // 4
        count = 1 + sum(1 for _ in islice(answers, late - 1))
        warm, spent = time.perf_counter(), meter.seconds()
        count += sum(1 for _ in answers)
        last, end = time.perf_counter(), meter.seconds()
    if count != studies:
        raise ValueError(f"{count} answers to {studies} studies")
    processor_s = (end - spent) / (studies - late)
    return {
        "first_answer_s": first - started,
        "wall_ms_a_study": 1e3 * (last - warm) / (studies - late),
        "processor_ms_a_study": 1e3 * processor_s,
        "start_processor_s": end - before - studies * processor_s,
    }


def in_turns(
    ways: dict[str, Way], studies: int, rounds: int, cluster: int
) -> dict[str, dict[str, float]]:
    """The median of each figure of each way, in an order drawn anew for each round.

    Args:
        ways: by name.
        studies: how many each answers for.
        rounds: runs of each.
        cluster: the process of the Ray cluster, which is idle but where it is the way.
    """
    names = list(ways)
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for order in orders(len(names), rounds, seed=0):
        for chosen in order:
            name = names[chosen]
            apart = None if name == "ray" else cluster
            taken[name].append(timed(ways[name], studies, apart))
    return {
        name: {figure: round(median(run[figure] for run in runs), 2) for figure in runs[0]}
        for name, runs in taken.items()
    }


def killed_half_way(
    table: Path, folder: Path, model: Model, where: Where, name: str, truth: Path
) -> dict[str, Any]:
    """Kill a worker when half of the studies are answered, and compare with what is true."""
    killed: list[int] = []

    def kill(done: int, of: int) -> None:
        if not killed and done >= of // 2:
            victim = next(p for p in _workers(where) if p.pid not in killed)
            victim.kill()
            killed.append(victim.pid)

    out = folder / f"{name}.csv"
    summary = predict_cohort(table, out, model, where, progress=kill)
    return {
        "killed": len(killed),
        "rows": summary.studies,
        "answered": summary.statuses["answered"],
        "same_bytes": filecmp.cmp(out, truth, shallow=False),
    }


def _workers(where: Where) -> Iterator[psutil.Process]:
    """The processes that read studies."""
    for process in psutil.Process().children(recursive=True):
        words = " ".join(process.cmdline())
        if ("MapWorker" in words) if where.ray else ("spawn_main" in words):
            yield process


def echo() -> Callable[[Answer], Answer]:
    """A worker function without work: it shows what passing studies costs."""
    return _same


def _same(answer: Answer) -> Answer:
    return answer


def passing(address: str, answer: Answer) -> dict[str, float]:
    """Milliseconds to pass an item to a worker and its answer back, when nothing is worked."""
    items = [answer] * PASSED_ITEMS
    ways: dict[str, Way] = {
        "processes": lambda: in_processes(echo, items, WORKERS),
        "ray": lambda: on_cluster(echo, items, WORKERS, address),
    }
    return {
        name: round(timed(way, PASSED_ITEMS, None)["wall_ms_a_study"], 3)
        for name, way in ways.items()
    }


def bookkeeping(folder: Path, answer: Answer, model: Model) -> dict[str, float]:
    """What the one who asks does for every row, and what remains on disk and in memory."""
    count, me = BOOKKEEPING_ROWS, psutil.Process()
    for i in range(count):
        for view in VIEWS:
            (folder / f"{i}-{view.value}.dcm").touch()
    table = folder / "table.csv"
    lines = (f"{i}-ap.dcm,{i}-lateral.dcm,left\n" for i in range(count))
    table.write_text("ap,lateral,side\n" + "".join(lines))
    clocks, before = [time.perf_counter()], me.memory_info().rss
    rows = read_table(table, labelled=False).rows
    keys = [str(study_key(row)) for row in rows]
    clocks.append(time.perf_counter())
    with Journal(folder / "journal", model.to_dict()) as journal:
        for key, other in zip(keys, _unlike(answer, count), strict=True):
            journal.add(key, other)
        clocks.append(time.perf_counter())
        memory = me.memory_info().rss - before
        sizes = {}
        for suffix in ("csv", "parquet"):
            out = folder / f"results.{suffix}"
            found = (
                {"line": row.line, **journal[key]} for row, key in zip(rows, keys, strict=True)
            )
            write_results(out, found, timings=False)
            sizes[f"{suffix}_bytes_a_study"] = round(out.stat().st_size / count, 1)
            clocks.append(time.perf_counter())
    steps = ("table_ms_a_study", "journal_ms_a_study", "csv_ms_a_study", "parquet_ms_a_study")
    return {
        "rows": count,
        **{
            step: round(1e3 * (after - earlier) / count, 4)
            for step, earlier, after in zip(steps, clocks, clocks[1:], strict=False)
        },
        "journal_bytes_a_study": round((folder / "journal").stat().st_size / count, 1),
        **sizes,
        "memory_bytes_a_study": round(memory / count),
    }


def _unlike(answer: Answer, count: int) -> Iterator[Answer]:
    """Answers with the length of a real one, no two alike, as a table of results compresses."""
    draw = np.random.default_rng(0)
    numbers = [name for name, value in answer.items() if isinstance(value, float)]
    for _ in range(count):
        images = {f"{view.value}_image": draw.bytes(32).hex() for view in VIEWS}
        yield {**answer, **dict(zip(numbers, draw.random(len(numbers)), strict=True)), **images}


def measure(folder: Path, studies: int, rounds: int) -> dict[str, Any]:
    """All of the report but its provenance."""
    settings = CohortSettings(Site.DEVELOPMENT, studies, SEED, pixel_spacing_mm=SPACING_MM)
    write_cohort(folder / "cohort", settings, WORKERS)
    table = folder / "cohort" / "cohort.csv"
    rows = read_table(table, labelled=False).rows
    chosen = Model.choose(None, "auto", "auto", exact=False)
    model = next(in_processes(chosen.open_chooser, [chosen], 1))[1]
    assert model is not None
    truth = folder / "one.csv"
    predict_cohort(table, truth, model, Where(workers=1))
    answer = next(in_processes(model.open, rows[:1], 1))[1]
    assert answer is not None
    with ray_cluster() as (address, cluster):
        ways: dict[str, Way] = {
            "one_process": lambda: in_processes(model.open, rows, 1),
            "processes": lambda: in_processes(model.open, rows, WORKERS),
            "threads": lambda: in_threads(model, rows),
            "ray": lambda: on_cluster(model.open, rows, WORKERS, address),
        }
        figures = in_turns(ways, studies, rounds, cluster)
        passed = passing(address, answer)
        killed = {
            name: killed_half_way(table, folder, model, where, name, truth)
            for name, where in (
                ("processes", Where(WORKERS)),
                ("ray", Where(WORKERS, address)),
            )
        }
    (folder / "many").mkdir()
    return {
        "studies": studies,
        "pixel_spacing_mm": SPACING_MM,
        "file_bytes": rows[0].files[VIEWS[0]].stat().st_size,
        "engine": f"{answer['engine']}, {answer['variant']}",
        "workers": WORKERS,
        "rounds": rounds,
        "ways": figures,
        "passing_ms_a_study": passed,
        "killed": killed,
        "bookkeeping": bookkeeping(folder / "many", answer, model),
        "load_average": [round(load, 1) for load in os.getloadavg()],
    }


@click.command(help=__doc__)
@click.option("--studies", type=click.IntRange(10, 200), default=120, help="Simulated ones.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="Runs of each way.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Report as JSON.")
def main(studies: int, rounds: int, out: Path) -> None:
    """Measure and write."""
    with tempfile.TemporaryDirectory() as folder:
        report = {
            **measure(Path(folder), studies, rounds),
            **made_here(*filter(installed, PACKAGES)),
        }
    write(report, out)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
