"""How often `hipnet-edge drift` gives a false alarm, and which shifts it sees.

    python -m benchmarks.drift_alarms --out benchmarks/results/drift_alarms.json

Scores are made up (logits of a normal distribution, exposure around its target, flags as often as
they may be), counted as a cart counts them, and compared with a baseline of 500 studies: once in
each repetition, the baseline drawn anew. Without a shift the alarms are false ones.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from hipnet_edge.evaluation.daily import EDGES, Model, Statistics
from hipnet_edge.evaluation.drift import ALPHA, Concern, compare
from hipnet_edge.evaluation.intervals import wilson
from hipnet_edge.vocabulary import CAUSES, VIEWS

MODEL = Model("0" * 64, "fp32", None)
BASELINE = 500
FLAGS = {
    "out_of_distribution": 0.015,
    "no_sign_of_failure": 0.4,
    "collimation_cropped": 0.5,
    "clipped_to_side": 0.2,
    "no_implant": 0.02,
    "saturated": 0.03,
}


@dataclass(frozen=True)
class Shift:
    """What is different from the acceptance.

    Attributes:
        exposure: factor of the dose at the detector.
        novelty: added to its logarithm.
        strange: part of the studies flagged as strangers.
        infected: added to the logit of infection.
        refused: part of the studies refused.
    """

    exposure: float = 1.0
    novelty: float = 0.0
    strange: float = 0.015
    infected: float = 0.0
    refused: float = 0.02


SHIFTS = {
    "none": Shift(),
    "dose halved": Shift(exposure=0.5),
    "dose a fifth lower": Shift(exposure=0.8),
    "strangers: novelty a tenth larger, 10 % flagged": Shift(novelty=0.1, strange=0.1),
    "infections stated more often (logit + 1)": Shift(infected=1.0),
    "a fifth of the studies refused": Shift(refused=0.2),
}


def drawn(random: np.random.Generator, studies: int, shift: Shift) -> Statistics:
    """The statistics of some made-up studies."""
    found = Statistics(MODEL, studies)
    logits = random.normal(0.0, 2.0, (studies, len(CAUSES)))
    logits[:, 0] += shift.infected
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    index = {view: 400.0 * np.exp(random.normal(0.0, 0.4, studies)) for view in VIEWS}
    values: dict[str, NDArray[Any]] = {
        **{f"p_{cause.value}": p[:, k] for k, cause in enumerate(CAUSES)},
        "highest_probability": p.max(axis=1),
        "disagreement": random.beta(1.0, 8.0, studies),
        "sign_of_failure": random.beta(0.5, 0.5, studies),
        "novelty": np.exp(random.normal(shift.novelty, 0.12, studies)),
    }
    for view in VIEWS:
        values[f"{view.value}_exposure_index"] = index[view] * shift.exposure
        values[f"{view.value}_deviation_index"] = np.round(
            10.0 * np.log10(index[view] * shift.exposure / 400.0), 1
        )
    for name, edges in EDGES.items():
        places = np.searchsorted(edges, values[name], side="right")
        found.bins[name] += np.bincount(places, minlength=len(edges) + 1)
    flags = {**FLAGS, "out_of_distribution": shift.strange}
    found.flags = Counter({flag: int(random.binomial(studies, q)) for flag, q in flags.items()})
    found.refused["not_a_hip"] = int(random.binomial(studies, shift.refused))
    return found


def alarms(shift: Shift, studies: int, repetitions: int, seed: int = 0) -> dict[str, Any]:
    """How often a comparison says to worry, or at least to watch, with 95 % intervals."""
    random = np.random.default_rng([seed, studies])
    said = Counter(
        compare(drawn(random, BASELINE, Shift()), drawn(random, studies, shift)).concern
        for _ in range(repetitions)
    )
    worry, any_alarm = said[Concern.WORRY], said[Concern.WORRY] + said[Concern.WATCH]
    return {
        name: {
            "part": round(count / repetitions, 4),
            "ci95": [round(end, 4) for end in wilson(count, repetitions)],
        }
        for name, count in (("worry", worry), ("worry_or_watch", any_alarm))
    }


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--repetitions", type=int, default=2000, show_default=True)
def main(out: Path, repetitions: int) -> None:
    """Measure and write."""
    report = {
        "baseline_studies": BASELINE,
        "alpha": ALPHA,
        "repetitions": repetitions,
        "by_shift_and_recent_studies": {
            name: {
                str(studies): alarms(shift, studies, repetitions) for studies in (30, 60, 150, 300)
            }
            for name, shift in SHIFTS.items()
        },
    }
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report["by_shift_and_recent_studies"], indent=1))


if __name__ == "__main__":
    main()
