"""Measure a bundle on held-out simulated studies, through the package's own engine. No PyTorch.

    python -m export.cohort --n 1000 --seed 900 --out runs/held-out
    python -m benchmarks.accuracy --cohort runs/held-out --out benchmarks/results/accuracy.json

The cohort is what `preprocess_study` made, so every network input is the one that `Predictor`
would see. Intervals are 95 % bootstrap percentiles, studies drawn within each cause.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import hipnet_edge
from export import evaluate
from export.cohort import Cohort
from hipnet_edge.backends import Backend, choose_backend
from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import HipNetError
from hipnet_edge.machine import examine
from hipnet_edge.manifest import Manifest
from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]
RESAMPLES = 1000


def infer_cohort(backend: Backend, cohort: Cohort) -> dict[str, Array]:
    """A backend's outputs for every study, as arrays by name."""
    outputs = [
        backend.infer(cohort.radiographs[i : i + 1])
        for i in tqdm(range(len(cohort)), desc="studies", unit="study", mininterval=5)
    ]
    return {
        name: np.concatenate([getattr(one, name) for one in outputs])
        for name in ("probabilities", "member_probabilities", "maps")
    }


def figures(outputs: dict[str, Array], cohort: Cohort, manifest: Manifest) -> dict[str, Any]:
    """All figures with their intervals."""
    probabilities, causes = outputs["probabilities"], cohort.causes

    def one_cause(k: int) -> Callable[[Array, Array], float]:
        return lambda p, c: evaluate.auc(p, c, k)

    def with_interval(figure: Callable[[Array, Array], float], p: Array) -> dict[str, Any]:
        low, high = evaluate.bootstrap_interval(figure, p, causes, RESAMPLES)
        return {"value": round(figure(p, causes), 4), "ci95": [round(low, 4), round(high, 4)]}

    confusion = np.zeros((len(CAUSES), len(CAUSES)), int)
    np.add.at(confusion, (causes, probabilities.argmax(axis=1)), 1)
    return {
        "simulated_macro_auc": with_interval(evaluate.macro_auc, probabilities),
        "simulated_auc_by_cause": {
            cause.value: with_interval(one_cause(k), probabilities)
            for k, cause in enumerate(CAUSES)
        },
        "simulated_accuracy": with_interval(evaluate.accuracy, probabilities),
        "simulated_calibration_error": round(evaluate.calibration_error(probabilities, causes), 4),
        "simulated_confusion_true_by_called": confusion.tolist(),
        "simulated_macro_auc_by_backbone": {
            backbone.name: with_interval(
                evaluate.macro_auc, outputs["member_probabilities"][:, index]
            )
            for index, backbone in enumerate(manifest.backbones)
        },
        "simulated_maps": {
            name: round(value, 4)
            for name, value in evaluate.map_metrics(
                outputs["maps"], cohort.occupancy, causes
            ).items()
        },
    }


def measure(bundle: Bundle, cohort: Cohort, backend: str, precision: str) -> dict[str, Any]:
    """Run a bundle over a cohort; gives the report."""
    choice = choose_backend(bundle, backend, precision, None)
    engine = choice.backend
    try:
        outputs = infer_cohort(engine, cohort)
    finally:
        engine.close()
    return {
        "what": "simulated held-out studies; no patient, no claim about any",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "bundle": {"name": bundle.manifest.name, "digest": bundle.digest},
        "engine": {
            "backend": engine.name,
            "version": engine.version,
            "variant": choice.variant,
            "settings": dict(engine.settings),
        },
        "cohort": {"studies": len(cohort), **cohort.index},
        "bootstrap_resamples": RESAMPLES,
        "figures": figures(outputs, cohort, bundle.manifest),
        "versions": {
            "hipnet-edge": hipnet_edge.__version__,
            **{name: version(name) for name in ("numpy", "onnxruntime", "scikit-learn")},
        },
        "machine": examine().to_dict(),
    }


@click.command(help=__doc__)
@click.option("--bundle", type=click.Path(path_type=Path), help="Default: the reference bundle.")
@click.option("--cohort", "directory", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--backend", default="auto", show_default=True)
@click.option("--precision", default="auto", show_default=True)
def main(bundle: Path | None, directory: Path, out: Path, backend: str, precision: str) -> None:
    """Measure a bundle."""
    try:
        model = Bundle.load(bundle) if bundle else Bundle.reference()
        report = measure(model, Cohort.load(directory), backend, precision)
    except (HipNetError, FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["figures"], indent=1))


if __name__ == "__main__":
    main()
