"""One run of the latency benchmark, from simulated radiographs to the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers_end_to_end, peers_engines, peers_torch
from benchmarks.latency_alone import STAGES
from benchmarks.latency_cold import StartFailed, cold_start
from benchmarks.latency_inputs import SYNTAXES, Missing, encoded, simulated_pair
from benchmarks.latency_interleave import Contestant, interleaved, timer
from benchmarks.latency_jetson import as_report
from benchmarks.latency_made_here import provenance
from benchmarks.latency_noise import Watch
from benchmarks.latency_ratios import (
    OURS,
    OURS_EXACT,
    Measured,
    equal_precision,
    figures,
)
from benchmarks.latency_settings import CHEAPEST, Settings, child_environment, read_json
from benchmarks.latency_statistics import Times, summary
from benchmarks.peers import MissingPeer, Peer, end_to_end_peers, inference_peers, yardstick
from benchmarks.peers_yardstick import NAME as YARDSTICK
from benchmarks.peers_yardstick import SHAPE
from benchmarks.roofline import Floor, Peaks, floor, peaks
from hipnet_edge import Bundle, Predictor, Radiograph, Study
from hipnet_edge.backends.cores import available_cores
from hipnet_edge.errors import HipNetError
from hipnet_edge.preprocessing import preprocess_study

SCHEMA = 1
"""Of the report, `latency.schema.json`."""

SCALABLE = ("j2k", "htj2k")
"""Transfer syntaxes that can be decoded at less than full resolution, where `exact` matters."""

PRECISIONS = ("fp32", "bf16", "int8")

INFERENCE = (*peers_torch.PEERS, *peers_engines.PEERS)
END_TO_END = tuple(peers_end_to_end.PEERS)
PEERS = (*INFERENCE, *END_TO_END, YARDSTICK)
"""The names of all peers."""

Load = Callable[[Bundle, "int | None", list[str]], list[Peer | MissingPeer]]
"""Loads those peers that are wanted by name, for so many threads."""


class Run:
    """Collects the report's parts. Use as a context: what was loaded is closed at the end.

    Args:
        settings: what is measured.
        say: told in one line what is being measured.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.settings, self._say = settings, say
        self.bundle: Bundle = settings.load_bundle()
        self.missing: dict[str, str] = {}
        self.precision: dict[str, str] = {}
        self.descriptions: dict[str, Any] = {}
        self.watch = Watch()
        self.seconds: dict[str, float] = {}
        self._closing = ExitStack()

    def __enter__(self) -> Run:
        folder = Path(self._closing.enter_context(tempfile.TemporaryDirectory()))
        self.files, self.caches = folder / "files", folder / "caches"
        self.files.mkdir()
        self.caches.mkdir(mode=0o700)
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.close()

    def report(self) -> dict[str, Any]:
        """Measure everything."""
        with self._part("simulating radiographs"):
            files = self._inputs()
        with self._part("cold start"):
            cheapest = files[CHEAPEST if CHEAPEST in files else next(iter(files))]
            cold = cold_start(self.settings, cheapest, self.caches)
        with self._part("the package alone"):
            alone = self._alone()
        with self._our_caches():
            with self._part("loading"):
                ours = self._ours(exact=False)
                self._must_be_one_configuration(ours, alone)
            with self._part("inference beside the peers"):
                inference, bound = self._inference(ours, files)
            with self._part("end to end beside the peers"):
                end_to_end = self._end_to_end(ours, files)
        measured = Measured(
            inference=inference,
            precision=self.precision,
            end_to_end=end_to_end,
            alone=alone,
            cold=cold,
            floor_ms=None if bound is None else bound[1].ms,
            missing=self.missing,
            seed=self.settings.seed,
        )
        found = figures(measured)
        found["not_measured"] |= self._absent_stages(alone["stages"], ours)
        return {
            "schema": SCHEMA,
            "what": "latency of hipnet_edge on two simulated radiographs; milliseconds",
            **provenance(self.bundle),
            "configuration": alone["configuration"],
            "settings": self.settings.to_dict(),
            "seconds": self.seconds,
            "noise": self.watch.report(),
            "timer": timer(),
            **found,
            "equal_precision": equal_precision(measured),
            "inference": _described(inference, self.descriptions),
            "end_to_end": {
                syntax: _described(times, self.descriptions) for syntax, times in end_to_end.items()
            },
            **{
                name: alone[name]
                for name in ("stages", "totals", "tail", "throughput", "memory", "soak")
            },
            "cold_start": cold,
            "roofline": None if bound is None else self._roofline(*bound),
            "missing": self.missing,
        }

    def _absent_stages(self, stages: Mapping[str, Any], ours: Predictor) -> dict[str, str]:
        """Why a stage has no times, by its name."""
        nothing_moves = (
            "the engine computes in the host's memory" if not ours.backend.on_gpu else ""
        )
        return {
            f"stages.{stage}": nothing_moves or "the engine does not time it apart"
            if stage.startswith("transfer")
            else "the predictor does not time it apart"
            for stage in STAGES
            if all(found.get(stage) is None for found in stages.values())
        }

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        self._say(name)
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 1)

    @contextmanager
    def _our_caches(self) -> Iterator[None]:
        """The package keeps its things where the first cold start left them; peers do not care."""
        before = os.environ.copy()
        os.environ.update(XDG_CACHE_HOME=str(self.caches))
        for name in [name for name in os.environ if name.startswith("HIPNET_EDGE")]:
            del os.environ[name]
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def _inputs(self) -> dict[str, tuple[Path, Path]]:
        """AP and lateral as files, by transfer syntax; what has no encoder here is missing."""
        pair = simulated_pair(self.settings.size)
        found = {}
        for syntax in SYNTAXES:
            if syntax not in self.settings.syntaxes:
                continue
            try:
                contents = encoded(pair, syntax)
            except Missing as reason:
                self.missing[syntax] = str(reason)
                continue
            folder = self.files / syntax
            folder.mkdir()
            found[syntax] = (folder / "ap.dcm", folder / "lateral.dcm")
            for path, content in zip(found[syntax], contents, strict=True):
                path.write_bytes(content)
        return found

    def _alone(self) -> dict[str, Any]:
        """What `latency_alone` measures in a process that no peer is in."""
        settings, out = self.files / "settings.json", self.files / "alone.json"
        settings.write_text(json.dumps(self.settings.to_dict()))
        ran = subprocess.run(
            [sys.executable, "-m", "benchmarks.latency_alone", settings, self.files, out],
            env=child_environment(self.caches),
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise StartFailed((ran.stderr.strip().splitlines() or ["no message"])[-1])
        return dict(read_json(out))

    def _must_be_one_configuration(self, ours: Predictor, alone: Mapping[str, Any]) -> None:
        """All figures are of one variant in one engine, in whichever process they were taken."""
        here, there = ours.info(), alone["configuration"]
        if (here["variant"], ours.backend.name) != (there["variant"], there["backend"]["name"]):
            raise StartFailed("two processes with the same caches chose different engines")

    def _ours(self, *, exact: bool, precision: str | None = None) -> Predictor:
        """One of our own predictors, closed at the end."""
        chosen = self.settings.predictor(self.bundle, exact=exact, precision=precision)
        return self._closing.enter_context(chosen)

    def _peers(self, found: Sequence[Peer | MissingPeer]) -> list[Peer]:
        """Those that are there; why the others are not is noted."""
        here = []
        for peer in found:
            if isinstance(peer, MissingPeer):
                self.missing[peer.name] = peer.reason
                continue
            self._closing.callback(peer.close)
            self.precision[peer.name] = peer.precision
            self.descriptions[peer.name] = {
                "description": peer.description,
                "precision": peer.precision,
                "versions": dict(peer.versions),
            }
            here.append(peer)
        return here

    def _inference(
        self, ours: Predictor, files: Mapping[str, tuple[Path, Path]]
    ) -> tuple[dict[str, Times], tuple[Peaks, Floor] | None]:
        """The network alone, ours and the peers', and the floor measured in the same minutes."""
        study = Study(*map(Radiograph.from_dicom, next(iter(files.values()))))
        given = preprocess_study(study, self.bundle.manifest.input).radiographs[np.newaxis].copy()
        contestants = [
            Contestant(name, partial(one.backend.infer, given))
            for name, one in self._at_every_precision(OURS, ours, exact=False).items()
        ]
        settings = self.settings
        pattern = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
        contestants += [
            Contestant(peer.name, partial(peer.run, value))
            for load, names, value in (
                (inference_peers, INFERENCE, given),
                (_yardstick, (YARDSTICK,), pattern),
            )
            for peer in self._peers(self._wanted(load, names))
        ]
        times = interleaved(
            contestants,
            settings.rounds,
            block=settings.block,
            seed=settings.seed,
            watch=self.watch,
            warm_up=settings.warm_up,
            longest_s=settings.longest_s,
        )
        return times, self._floor(ours)

    def _wanted(self, load: Load, names: Sequence[str]) -> list[Peer | MissingPeer]:
        """Those of the peers that `load` knows by name for which the settings ask."""
        settings = self.settings
        wanted = settings.wanted(names)
        self.missing |= {name: "left out of this run" for name in names if name not in wanted}
        return load(self.bundle, settings.threads, wanted) if wanted else []

    def _at_every_precision(
        self, name: str, ours: Predictor, *, exact: bool
    ) -> dict[str, Predictor]:
        """Ours as chosen, and at each other precision that passed the gate here."""
        chosen = ours.provenance.variant.rpartition("-")[2]
        found = {name: ours}
        for precision in PRECISIONS if self.settings.equal_precision else ():
            if precision == chosen:
                continue
            other = f"{name}-{precision}"
            try:
                found[other] = self._ours(exact=exact, precision=precision)
            except HipNetError as reason:
                self.missing[other] = reason.message
        for each, one in found.items():
            self.precision[each] = one.provenance.variant.rpartition("-")[2]
            self.descriptions[each] = {
                "description": f"hipnet_edge, {one.provenance.variant} in {one.backend.name}",
                "precision": self.precision[each],
                "versions": {one.backend.name: one.backend.version},
            }
        return found

    def _floor(self, ours: Predictor) -> tuple[Peaks, Floor] | None:
        if not self.settings.floor:
            self.missing["floor"] = "left out of this run"
            return None
        if ours.backend.on_gpu:
            self.missing["floor"] = "the peaks of a GPU are measured by benchmarks/gpu_check.py"
            return None
        try:
            reached = peaks(self.settings.threads or available_cores())
            model = self.bundle.model(ours.provenance.variant)
            return reached, floor(model, reached, self.precision[OURS])
        except ImportError as error:
            self.missing["floor"] = f"{error.name} is not installed"
        except ValueError as reason:
            self.missing["floor"] = str(reason)
        return None

    def _roofline(self, reached: Peaks, bound: Floor) -> dict[str, Any]:
        return {
            "peaks": reached.to_dict(),
            "precision": bound.precision,
            **bound.sums(),
            "backbones": {name: part.sums() for name, part in bound.backbones().items()},
            "jetson": as_report(self.bundle),
        }

    def _end_to_end(
        self, ours: Predictor, files: Mapping[str, tuple[Path, Path]]
    ) -> dict[str, dict[str, Times]]:
        """From bytes to the result, by transfer syntax."""
        settings = self.settings
        exact = self._at_every_precision(OURS_EXACT, self._ours(exact=True), exact=True)
        peers = self._peers(self._wanted(end_to_end_peers, END_TO_END))
        found = {}
        for syntax, pair in files.items():
            contents = (pair[0].read_bytes(), pair[1].read_bytes())
            mine = {**exact, OURS: ours} if syntax in SCALABLE else exact
            found[syntax] = interleaved(
                [
                    *(Contestant(n, partial(one.predict, *contents)) for n, one in mine.items()),
                    *(Contestant(peer.name, partial(peer.run, contents)) for peer in peers),
                ],
                settings.e2e_rounds,
                seed=settings.seed,
                watch=self.watch,
                warm_up=settings.warm_up if settings.e2e_untimed else 0,
                untimed=settings.e2e_untimed,
                longest_s=settings.longest_s and settings.longest_s / len(files),
            )
        return found


def _yardstick(_bundle: Bundle, threads: int | None, _only: object) -> list[Peer | MissingPeer]:
    """The yardstick, as other peers are loaded."""
    return [yardstick(threads)]


def _described(times: Mapping[str, Times], descriptions: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {**summary(taken), **descriptions.get(name, {})} for name, taken in times.items()}
