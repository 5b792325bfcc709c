r"""Measure a bundle on simulated studies it has never seen, through the package's own engine.

    python -m benchmarks.accuracy --cohort runs/shifted --two-causes runs/two \
        --backbones runs/one/refit/backbones --validation runs/validation --keep runs/answers \
        --out benchmarks/results/accuracy.json

The cohort is what `preprocess_study` made, so every network input is the one that `Predictor`
would see. It holds failed and sound prostheses of the shifted site, at least 2,000 for a committed
result. Intervals are 95 % bootstrap percentiles over studies, drawn within each cause.
`--backbones` and `--validation` (the bundle's backbones one by one, and the studies it was
calibrated on) are for the comparison of views alone, which fits decisions anew and needs PyTorch.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import cause_figures, map_figures, risk_figures, smallest_sign
from benchmarks.outcome import Outcome, infer_cohort, outcome, remembered
from benchmarks.view_comparison import pooled_features, view_comparison
from export.cohort import SOUND, Cohort
from export.provenance import made_here, write
from hipnet_edge.backends import Choice, choose_backend
from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import HipNetError
from hipnet_edge.evaluation import bootstrap
from hipnet_edge.manifest import Manifest
from hipnet_edge.preprocessing import InputSpec
from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]

PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "smallest_sign.png"


def figures(measured: Outcome, manifest: Manifest) -> dict[str, Any]:
    """All figures that need nothing but answers and truth.

    Those about thresholds, plausible causes and sound prostheses are left out where the bundle
    has no calibration or the cohort no sound study.
    """
    counts = bootstrap.draw(measured.causes)
    is_failed = measured.causes != SOUND
    failed, drawn = measured.failed, counts[:, is_failed]
    names = [backbone.name for backbone in manifest.backbones]
    report: dict[str, Any] = {
        **cause_figures.told_apart(failed, drawn),
        "simulated_calibration_error": cause_figures.calibration(failed, drawn),
        "simulated_ensemble_against_single": cause_figures.against_single(failed, drawn, names),
        "simulated_smallest_sign": smallest_sign.smallest_signs(measured, counts),
        "simulated_maps": map_figures.map_figures(failed, drawn, manifest.map_stride),
        "simulated_pji_risk": risk_figures.pji_risk(measured, counts),
        "simulated_accuracy_by_subgroup": cause_figures.by_subgroup(failed),
    }
    decision = manifest.decision
    if decision is None:
        return report
    thresholds = np.array([decision.thresholds[cause] for cause in CAUSES])
    report["simulated_one_against_rest_accuracy"] = cause_figures.one_against_rest(
        failed, drawn, thresholds
    )
    report["simulated_conformal"] = cause_figures.conformal(
        failed, drawn, failed.plausible(decision)
    )
    curve = decision.sign_of_failure
    if curve is not None and not is_failed.all():
        sign = np.array([curve.probability(maps) for maps in measured.maps])
        report["simulated_no_sign_of_failure"] = risk_figures.sign_of_failure(
            measured, counts, sign, curve.threshold
        )
    return report


def named(bundle: Bundle, variant: str) -> dict[str, str]:
    """Which bundle, and which network: a new model card changes a bundle's digest, no answer."""
    manifest = bundle.manifest
    network = manifest.files[manifest.variants[variant].file]
    return {"name": manifest.name, "digest": bundle.digest, "network_sha256": network.sha256}


def answer(bundle: Bundle, choice: Choice, cohort: Cohort, kept: Path | None) -> Outcome:
    """A bundle's answers for a cohort, beside its truth; from `kept` if they are there."""
    network = named(bundle, choice.variant)["network_sha256"]
    key = {"network": network, "backend": choice.backend.name, "cohort": cohort.index}
    return outcome(remembered(kept, key, lambda: infer_cohort(choice.backend, cohort)), cohort)


def views(folder: Path, validation: Cohort, cohort: Cohort, keep: Path | None) -> dict[str, Any]:
    """The comparison of views, with the backbones that a refit was made with."""
    # Imported here: what reads backbones needs PyTorch, no other figure does.
    from export.backbones import open_backbones

    paths = sorted(folder.glob("*.onnx"))
    backbones = open_backbones(paths, InputSpec.from_dict(cohort.index["input"]))
    digests = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    def features(name: str, studies: Cohort) -> dict[str, Array]:
        file = keep / f"features-{name}.npz" if keep else None
        key = {"backbones": digests, "cohort": studies.index, "studies": len(studies)}
        return remembered(file, key, lambda: pooled_features(backbones, studies))

    return view_comparison(
        features("validation", validation),
        validation.causes,
        features("cohort", cohort),
        cohort.causes,
    )


def about(bundle: Bundle, choice: Choice, cohort: Cohort) -> dict[str, Any]:
    """What was measured, with what, where and when."""
    engine = choice.backend
    return {
        "what": "simulated studies of a site that took no part in training, of the same renderer; "
        "no patient, no claim about any, and no external validation",
        **made_here("numpy", "onnxruntime", "scikit-learn", "scipy"),
        "bundle": named(bundle, choice.variant),
        "engine": {
            "backend": engine.name,
            "version": engine.version,
            "variant": choice.variant,
            "settings": dict(engine.settings),
        },
        "cohort": {
            "studies": len(cohort),
            "by_cause": {
                **{c.value: int((cohort.causes == k).sum()) for k, c in enumerate(CAUSES)},
                "sound": int((cohort.causes == SOUND).sum()),
            },
            **cohort.index,
        },
        "bootstrap_resamples": bootstrap.RESAMPLES,
    }


@click.command(help=__doc__)
@click.option("--bundle", type=click.Path(path_type=Path), help="Default: the reference bundle.")
@click.option("--cohort", "directory", type=click.Path(path_type=Path), required=True)
@click.option("--two-causes", type=click.Path(path_type=Path), help="Cohort with two at once.")
@click.option("--backbones", type=click.Path(path_type=Path), help="Of a refit, for the views.")
@click.option("--validation", type=click.Path(path_type=Path), help="Cohort, for the views.")
@click.option("--views-of", type=click.IntRange(1), help="The first so many studies; else all.")
@click.option("--keep", type=click.Path(path_type=Path), help="Where answers are kept.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--picture", type=click.Path(path_type=Path), default=PICTURE, show_default=True)
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--precision", default="fp32", show_default=True)
def main(
    bundle: Path | None,
    directory: Path,
    two_causes: Path | None,
    backbones: Path | None,
    validation: Path | None,
    views_of: int | None,
    keep: Path | None,
    out: Path,
    picture: Path,
    backend: str,
    precision: str,
) -> None:
    """Measure a bundle."""
    try:
        model = Bundle.load(bundle) if bundle else Bundle.reference()
        cohort = Cohort.load(directory)
        choice = choose_backend(model, backend, precision, None)
        measured = answer(model, choice, cohort, keep and keep / "answers.npz")
        report = about(model, choice, cohort)
        report["figures"] = figures(measured, model.manifest)
        if two_causes and model.manifest.decision is not None:
            pairs = Cohort.load(two_causes)
            both = answer(model, choice, pairs, keep and keep / "answers-two-causes.npz")
            report["figures"]["simulated_two_causes"] = cause_figures.two_causes(
                both, both.plausible(model.manifest.decision)
            )
        choice.backend.close()
        if backbones and validation:
            first = cohort.subset(np.arange(min(views_of or len(cohort), len(cohort))))
            report["figures"]["simulated_views"] = views(
                backbones, Cohort.load(validation), first, keep
            )
    except (HipNetError, FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    write(report, out)
    smallest_sign.plot(report["figures"]["simulated_smallest_sign"], picture)
    print(json.dumps(report["figures"], indent=1))


if __name__ == "__main__":
    main()
