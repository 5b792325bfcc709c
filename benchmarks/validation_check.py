r"""Whether `hipnet-edge validate` gives the figures of `benchmarks.accuracy` on the same studies.

    hipnet-edge simulate --site shifted --n 2000 --seed 5 --pixel-spacing-mm 0.3 \
        --out runs/shifted-files
    hipnet-edge validate runs/shifted-files/cohort.csv --out runs/report \
        --backend onnxruntime --precision fp32
    python -m export.cohort --table runs/shifted-files/cohort.csv --out runs/shifted
    python -m benchmarks.accuracy --cohort runs/shifted --out runs/accuracy.json \
        --picture runs/smallest.png
    python -m benchmarks.validation_check --report runs/report/report.json \
        --accuracy runs/accuracy.json --out benchmarks/results/validation_check.json

One reads files and predicts as a hospital would, the other reads arrays that were preprocessed
before (as float16) and never makes a `Prediction`. Their statistics are one code, their ways to
the probabilities are not. A figure agrees within two units of its fourth digit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from export.provenance import made_here, write
from hipnet_edge.evaluation.figure import BOOTSTRAP
from hipnet_edge.vocabulary import CAUSES

TOLERANCE = 2e-4
MAPS = ("pointing", "cell_average_precision", "pixel_average_precision")


def pairs(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, figure of the report, figure of the benchmark."""
    for name, other in (
        ("accuracy", "simulated_accuracy"),
        ("balanced_accuracy", "simulated_accuracy_if_causes_were_equally_frequent"),
        ("macro_auc", "simulated_macro_auc"),
    ):
        yield name, ours[name], theirs[other]
    error = theirs["simulated_calibration_error"]["value"]
    yield "calibration_error", ours["calibration_error"], error
    once = theirs["simulated_one_against_rest_accuracy"]["by_cause"]
    for cause in (cause.value for cause in CAUSES):
        yield f"auc.{cause}", ours["auc"][cause], theirs["simulated_auc_by_cause"][cause]
        for name in ("sensitivity", "specificity"):
            yield f"{name}.{cause}", ours["at_thresholds"][cause][name], once[cause][name]
    for name in ("coverage", "mean_size"):
        yield f"conformal.{name}", ours["conformal"][name], theirs["simulated_conformal"][name]
    for name in MAPS:
        yield f"maps.{name}", ours["maps"]["all"][name], theirs["simulated_maps"]["all"][name]
    for marker in ("crp", "esr"):
        for part, other in (("all", "overall"), ("within_pji", "within_pji")):
            yield (
                f"{marker}.{part}",
                ours["risk"][marker][part]["spearman"],
                theirs["simulated_pji_risk"][marker][other],
            )
    if "sign_of_failure" in ours:
        flags = theirs["simulated_no_sign_of_failure"]
        for name, other in (("auc", "auroc"), ("sound_flagged", "sound_flagged")):
            yield f"sign_of_failure.{name}", ours["sign_of_failure"][name], flags[other]


def compared(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Every figure with its difference, and that of its bootstrap interval where both have one."""
    report: dict[str, Any] = {}
    for name, our, their in pairs(ours, theirs):
        if our["value"] is None or their["value"] is None:
            report[name] = {"validate": our["value"], "benchmark": their["value"]}
            continue
        ends = our["ci95"] if our["interval"] == BOOTSTRAP else our.get("also", {}).get(BOOTSTRAP)
        apart = [abs(our["value"] - their["value"])]
        if ends and their["ci95"]:
            apart += [abs(a - b) for a, b in zip(ends, their["ci95"], strict=True)]
        report[name] = {
            "validate": our["value"],
            "benchmark": their["value"],
            "largest_difference": round(max(apart), 6),
            "interval_compared": bool(ends),
        }
    counted = theirs["simulated_confusion_true_by_called"]["studies"]
    report["confusion"] = {"equal": ours["confusion"] == counted}
    return report


@click.command(help=__doc__)
@click.option("--report", type=click.Path(path_type=Path), required=True)
@click.option("--accuracy", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(report: Path, accuracy: Path, out: Path) -> None:
    """Compare the two."""
    ours = json.loads(report.read_text(encoding="utf-8"))
    theirs = json.loads(accuracy.read_text(encoding="utf-8"))
    figures = compared(ours["figures"], theirs["figures"])
    unlike = [
        name
        for name, one in figures.items()
        if one.get("largest_difference", 0.0) > TOLERANCE or one.get("equal") is False
    ]
    write(
        {
            "what": "figures of `hipnet-edge validate` beside those of benchmarks.accuracy",
            **made_here("numpy", "onnxruntime", "scipy"),
            "studies": ours["studies"],
            "tolerance": TOLERANCE,
            "unlike": unlike,
            "figures": figures,
        },
        out,
    )
    if unlike:
        raise click.ClickException(f"unlike: {', '.join(unlike)}")


if __name__ == "__main__":
    main()
