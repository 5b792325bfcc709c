"""Which layers lose the most when they are quantised, and how few must be left alone.

All layers are quantised first. If the gate refuses that, each is quantised alone and ranked by how
far the answers move; then the fewest of the worst are restored with which the gate passes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

from export.cohort import Cohort
from export.gate import answers_of, ask, judge
from export.gate_figures import Answers
from export.ranges import Ranges
from hipnet_edge.backends import OnnxRuntimeBackend, Signature
from hipnet_edge.decision import Decision
from hipnet_edge.errors import EngineUnusable
from hipnet_edge.verdict import Limits


@dataclass(frozen=True)
class Recipe:
    """An INT8 variant in the making."""

    variant: str
    layers: Sequence[str]
    """The names of all that may be quantised."""
    build: Callable[[Ranges, Collection[str]], onnx.ModelProto]
    """The network with some of its layers quantised, in a form that ONNX Runtime runs in the
    reference's input type."""


class Trials:
    """Networks tried in ONNX Runtime on one cohort, against the reference's answers for it.

    Args:
        reference: the bundle's reference, serialised.
        signature: its.
        cohort: with the truth.
        limits: of the gate.
        decision: the bundle's calibration.
        few: how many studies, evenly spread, serve the ranking.
        threads: of an inference; None for all cores.
    """

    def __init__(
        self,
        reference: bytes,
        signature: Signature,
        cohort: Cohort,
        limits: Limits,
        decision: Decision | None,
        few: int,
        threads: int | None = None,
    ) -> None:
        self._signature, self._cohort, self._threads = signature, cohort, threads
        self._limits, self._decision = limits, decision
        self._reference = answers_of(self._open(reference), cohort, "reference")
        spread = np.linspace(0, len(cohort) - 1, min(few, len(cohort)))
        self._few = np.unique(spread.astype(int))

    def gate(self, model: onnx.ModelProto, what: str) -> dict[str, Any]:
        """The gate's report on a network over the whole cohort."""
        answers = ask(self._open(model.SerializeToString()), self._cohort, what)
        return judge(self._reference, answers, self._cohort, self._limits, self._decision)

    def disturbance(self, model: onnx.ModelProto, input_type: str = "float32") -> float:
        """How far a network moves the answers for a few studies; infinite if it gives none."""
        few = self._cohort.subset(self._few)
        signature = replace(self._signature, input_type=input_type)
        engine = OnnxRuntimeBackend(model.SerializeToString(), signature, threads=self._threads)
        answers = ask(engine, few)
        if isinstance(answers, EngineUnusable):
            return float("inf")
        return disturbance(self._reference.subset(self._few), answers)

    def _open(self, model: bytes) -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend(model, self._signature, threads=self._threads)


def disturbance(reference: Answers, candidate: Answers) -> float:
    """One number for how far answers lie apart: 0 for the same.

    The root mean square change of the probabilities, of the maps and of the novelty, the last two
    in units of their own size, added up. Unlike the gate's figures it is smooth: a few studies
    tell two layers apart.
    """
    change = _rms(candidate.probabilities - reference.probabilities)
    change += _rms(candidate.maps - reference.maps) / max(_rms(reference.maps), 1e-6)
    if reference.novelty is not None and candidate.novelty is not None:
        moved = candidate.novelty - reference.novelty
        change += _rms(moved) / max(_rms(reference.novelty), 1e-6)
    return change


def _rms(values: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def best_method(
    recipe: Recipe, by_method: Mapping[str, Ranges], trials: Trials
) -> tuple[str, dict[str, float]]:
    """The way to read ranges that disturbs the answers least, and the disturbance of each."""
    found = {
        method: trials.disturbance(recipe.build(ranges, recipe.layers))
        for method, ranges in by_method.items()
    }
    return min(found, key=found.__getitem__), found


def rank(recipe: Recipe, ranges: Ranges, trials: Trials) -> dict[str, float]:
    """The disturbance of each layer quantised alone, the worst first."""
    alone = {
        layer: trials.disturbance(recipe.build(ranges, [layer]))
        for layer in tqdm(recipe.layers, desc=f"{recipe.variant}: each layer alone", mininterval=5)
    }
    return dict(sorted(alone.items(), key=lambda entry: -entry[1]))


@dataclass(frozen=True)
class Found:
    """What the search ended with."""

    model: onnx.ModelProto
    quantised: list[str]
    restored: dict[str, float]
    """Layers left alone, with their disturbance, the worst first."""
    gate: dict[str, Any]
    """The report of the network that passed."""


def search(recipe: Recipe, ranges: Ranges, trials: Trials) -> Found:
    """Quantise all; if the gate refuses that, restore the fewest of the worst layers.

    Raises:
        ValueError: the gate refuses the network even with one layer quantised.
    """
    whole = _attempt(recipe, ranges, trials, {})
    if whole.gate["passed"]:
        return whole
    ranking = list(rank(recipe, ranges, trials).items())
    # Restoring more is taken to make nothing worse, so halving finds the fewest.
    too_few, enough = 0, len(ranking)
    last, best = whole, None
    while enough - too_few > 1:
        count = (too_few + enough) // 2
        last = _attempt(recipe, ranges, trials, dict(ranking[:count]))
        if last.gate["passed"]:
            enough, best = count, last
        else:
            too_few = count
    if best is None:
        raise ValueError(
            f"the gate refuses {recipe.variant} with {len(last.restored)} of its {len(ranking)} "
            f"layers restored: {', '.join(last.gate['failed'])}"
        )
    return best


def _attempt(recipe: Recipe, ranges: Ranges, trials: Trials, restored: dict[str, float]) -> Found:
    quantised = [layer for layer in recipe.layers if layer not in restored]
    model = recipe.build(ranges, quantised)
    what = f"{recipe.variant}, {len(restored)} of {len(recipe.layers)} layers restored"
    return Found(model, quantised, restored, trials.gate(model, what))
