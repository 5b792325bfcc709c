"""What a run of the latency benchmark measures and for how long."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
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
        block: timed calls of a contestant in a round, after one untimed.
        e2e_rounds: rounds of each comparison end to end, one timed call in each.
        predictions: from uncompressed files, for the tail; a tenth of them for each other syntax.
        soak: predictions of a study already read, for the growth of memory; 0 leaves it out.
        starts: fresh processes whose start is timed, beside the first.
        duration: seconds of each measurement of throughput.
        peers: names of the peers to measure; None for all that are there.
        leave_out: names of peers not to measure, where `peers` does not name them.
        seed: of the simulation, of the orders and of the bootstrap.
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
    predictions: int = 1000
    soak: int = 10000
    starts: int = 10
    duration: float = 10.0
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
        return cls(
            **{
                name: tuple(value) if isinstance(value, list) else value
                for name, value in values.items()
                if name in known
            }
        )

    def load_bundle(self) -> Bundle:
        """The model that is measured."""
        return Bundle.reference() if self.bundle is None else Bundle.load(self.bundle)

    def predictor(self, bundle: Bundle | None = None, *, exact: bool = False) -> Predictor:
        """A predictor in the one configuration that is measured.

        Args:
            bundle: the model, if it is loaded already.
            exact: without the shortcuts of decoding that the bundle's gate has passed.
        """
        return Predictor(
            bundle or self.load_bundle(),
            backend=self.backend,
            precision=self.precision,
            threads=self.threads,
            **_exactly(exact),
        )


QUICK: Mapping[str, Any] = {
    "rounds": 5,
    "block": 2,
    "e2e_rounds": 2,
    "predictions": 40,
    "soak": 0,
    "starts": 2,
    "duration": 1.0,
    "leave_out": ("torch-compile",),
}
"""What `--quick` changes, so that everything takes under 50 seconds."""


def _exactly(exact: bool) -> dict[str, Any]:
    # Until every reader decodes by shortcut, a predictor without the choice is exact.
    return {"exact": exact} if "exact" in inspect.signature(Predictor).parameters else {}


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
