"""What a run of the latency benchmark measures and for how long."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.latency_inputs import SYNTAXES
from hipnet_edge import Bundle, Predictor

ROOT = Path(__file__).resolve().parent.parent
"""The checkout, from which child processes import."""

CHEAPEST = "raw"
"""The transfer syntax with the least decoding: cold start, tail and memory are measured on it."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run. The defaults are the full run of the committed report.

    Attributes:
        bundle: folder of the model; None for the reference bundle.
        backend, precision, threads: as `Predictor` takes them; one configuration for all rows.
        batch: studies handed over at once to `predict_batch`; 1 leaves that out.
        syntaxes: transfer syntaxes measured end to end.
        size: rows and columns of each view.
        rounds: rounds of the comparison of inference, `block` timed calls in each.
        block: timed calls of a contestant in a turn.
        e2e_rounds: rounds of each comparison end to end, one timed call in each.
        e2e_untimed: untimed calls before it, as inference always has one.
        warm_up: untimed calls of whatever is timed, before all others.
        predictions: from uncompressed files, for the tail; a tenth of them for the stages of each
            transfer syntax.
        soak: predictions of a study already read, for the growth of memory; 0 leaves it out.
        starts: fresh processes whose start is timed, beside the first.
        duration: seconds of each measurement of throughput.
        longest_s: seconds after which inference begins no further round, and all transfer
            syntaxes together none; None for no limit.
        streams: transfer syntaxes of which a stream is measured.
        equal_precision: whether our other precisions take part, for ratios at equal precision.
        floor: whether the machine's peaks are measured, for the shortest time it could need.
        peers: names of the peers to measure; None for all that are there.
        leave_out: names of peers not to measure, where `peers` does not name them.
        seed: of the orders and of the bootstrap.
    """

    bundle: str | None = None
    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    batch: int = 1
    syntaxes: tuple[str, ...] = SYNTAXES
    size: tuple[int, int] = (3000, 2500)
    rounds: int = 40
    block: int = 3
    e2e_rounds: int = 15
    e2e_untimed: int = 1
    warm_up: int = 3
    predictions: int = 1000
    soak: int = 10000
    starts: int = 10
    duration: float = 10.0
    longest_s: float | None = None
    streams: tuple[str, ...] = ("raw", "j2k")
    equal_precision: bool = True
    floor: bool = True
    peers: tuple[str, ...] | None = None
    leave_out: tuple[str, ...] = ()
    seed: int = 7

    def to_dict(self) -> dict[str, Any]:
        """The settings as a JSON object."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The settings from what `to_dict` gave; names it does not know are ignored."""
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name in known
        }
        return cls(**given)

    def wanted(self, names: Iterable[str]) -> list[str]:
        """Those of the peers' names that the run should measure."""
        if self.peers is not None:
            return [name for name in names if name in self.peers]
        return [name for name in names if name not in self.leave_out]

    def load_bundle(self) -> Bundle:
        """The model that is measured."""
        return Bundle.reference() if self.bundle is None else Bundle.load(self.bundle)

    def predictor(
        self, bundle: Bundle | None = None, *, exact: bool = False, precision: str | None = None
    ) -> Predictor:
        """A predictor in the one configuration that is measured.

        Args:
            bundle: the model, if it is loaded already.
            exact: without the shortcuts of decoding that the bundle's gate has passed.
            precision: another than the settings', for a ratio at equal precision.
        """
        return Predictor(
            bundle or self.load_bundle(),
            backend=self.backend,
            precision=precision or self.precision,
            threads=self.threads,
            exact=exact,
        )


QUICK: Mapping[str, Any] = {
    "rounds": 4,
    "block": 1,
    "e2e_rounds": 2,
    "e2e_untimed": 0,
    "warm_up": 1,
    "predictions": 15,
    "soak": 0,
    "starts": 2,
    "duration": 0.5,
    "longest_s": 12.0,
    "streams": ("raw",),
    "equal_precision": False,
    "leave_out": ("pytorch-compile", "openvino-fp32", "openvino-bf16", "pydicom-imagecodecs"),
}
"""What `--quick` changes, so that everything takes under 50 seconds."""


def child_environment(caches: Path) -> dict[str, str]:
    """This process's environment for a child with caches of its own, and no setting of the user's.

    Args:
        caches: a private folder; what the package keeps from start to start lies there.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HIPNET_EDGE")}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**kept, "XDG_CACHE_HOME": str(caches), "PYTHONPATH": path}


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
