"""The words a person reads: what a flag means, and the line that marks every result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from hipnet_edge.vocabulary import CAUSES, Flag

if TYPE_CHECKING:
    from hipnet_edge.prediction import Prediction
    from hipnet_edge.selftest import SelftestReport

RESEARCH_USE = "Simulated / research use. Not for clinical use."
"""Stands on every picture and under every printed result."""

FLAG_WORDS: dict[Flag, str] = {
    Flag.NO_IMPLANT: "No hip prosthesis was found: the whole frame was read.",
    Flag.OUT_OF_DISTRIBUTION: "The radiographs are unlike those the model was fitted to.",
    Flag.NO_SIGN_OF_FAILURE: "No sign of failure was found; the causes assume that there is one.",
    Flag.BURNED_IN_ANNOTATION: "Text is burned into the pixels.",
    Flag.SATURATED: "A large part of the frame is at the end of its grey range.",
    Flag.COLLIMATION_CROPPED: "Collimation borders were left out.",
    Flag.ODD_ASPECT_RATIO: "The frame is unusually long or wide.",
    Flag.NO_PIXEL_SPACING: "No pixel spacing is stated: nothing can be said in millimetres.",
    Flag.CLIPPED_TO_SIDE: "Both hips are shown: the half of the named side was read.",
    Flag.OPERATOR_OVERRIDE: "The operator overruled or supplied what the header should say.",
    Flag.LOSSY_COMPRESSION: "The pixels went through lossy compression.",
    Flag.SIMULATED_INPUT: "The radiographs are simulated.",
    Flag.NOT_CALIBRATED: "The model lacks calibration: not every check of its answer was made.",
    Flag.MODEL_TRAINED_ON_SIMULATION: "The model was trained on simulated studies.",
    Flag.NOT_GATED: "This variant has not passed the gate on this engine and device.",
    Flag.CPU_FALLBACK: "The GPU could not be used: the CPU answered.",
    Flag.ENGINE_FALLBACK: "Another model or engine than the pinned one answered.",
    Flag.UNPROVEN_ENGINE: "This version's code for GPUs has not yet run on one.",
}
"""One short sentence for each flag; a test holds it complete."""


def in_words(probability: float) -> str:
    """A probability with two decimals that never reads as certain when it is not."""
    if 0.0 < probability < 0.005:
        return "< 0.01"
    return "> 0.99" if 0.995 <= probability < 1.0 else f"{probability:.2f}"


def result_table(prediction: Prediction) -> str:
    """A result as a few lines of plain ASCII for a terminal."""
    leading = prediction.leading_cause
    plausible = ", ".join(cause.value for cause in prediction.plausible_causes)
    width = max(len(cause.label) for cause in CAUSES)
    lines = [f"Leading cause: {leading.label} ({leading.value})", ""]
    for cause in CAUSES:
        probability = prediction.probabilities[cause]
        lines.append(
            f"  {cause.label:<{width}}  {probability:.3f}  {'#' * round(probability * 30)}"
        )
    lines += [
        "",
        f"  {'PJI risk':<{width}}  {prediction.pji_risk:.3f}",
        f"  {'Disagreement of the four':<{width}}  {prediction.disagreement:.3f}",
    ]
    if prediction.sign_of_failure is not None:
        lines.append(f"  {'Sign of failure':<{width}}  {prediction.sign_of_failure:.3f}")
    if prediction.novelty is not None:
        lines.append(f"  {'Novelty (usual: 1)':<{width}}  {prediction.novelty:.3f}")
    lines += [f"  {'Plausible causes':<{width}}  {plausible}", ""] if plausible else [""]
    lines += [f"  ! {FLAG_WORDS[flag]} [{flag.value}]" for flag in prediction.flags]
    made_by = prediction.provenance
    lines += [
        f"  Bundle {made_by.bundle_name} {made_by.bundle_version} ({made_by.bundle_digest[:12]}), "
        f"{made_by.variant}, {made_by.backend} {made_by.backend_version} on {made_by.device}, "
        f"{prediction.timings_ms['total']:.0f} ms",
        *(
            [f"  Calibrated here, overlay {made_by.overlay_digest[:12]}"]
            if made_by.overlay_digest
            else []
        ),
        RESEARCH_USE,
    ]
    return "\n".join(lines)


def selftest_table(report: SelftestReport) -> str:
    """The outcome of a self-test, one check a line."""
    lines = [f"  {check.outcome:<15} {check.name}: {check.detail}" for check in report.checks]
    outcome = "passed" if report.passed else "FAILED"
    return "\n".join(
        [
            *lines,
            f"Self-test {outcome}: bundle {report.bundle}, {report.variant}, {report.backend}.",
        ]
    )


def bundle_table(facts: Mapping[str, object]) -> str:
    """What a bundle is, one fact a line; nested facts are indented under their name."""
    return "\n".join(_lines(facts, ""))


def _lines(facts: Mapping[str, object], indent: str) -> Iterator[str]:
    for name, fact in facts.items():
        if isinstance(fact, Mapping):
            yield f"{indent}{name}"
            yield from _lines(fact, indent + "  ")
        elif isinstance(fact, list):
            yield f"{indent}{name}"
            for item in fact:
                words = item.values() if isinstance(item, Mapping) else [item]
                yield f"{indent}  {', '.join(map(str, words))}"
        else:
            yield f"{indent}{name:<{max(18 - len(indent), 1)}} {fact}"
