r"""Judge a variant against the reference over a cohort, in the engine that will run it.

    python -m export.gate --bundle my-bundle --variant cpu-int8 --cohort runs/shifted \
        --out gate.json --page gate.png
    python -m export.gate --bundle my-bundle --variant cpu-int8 --backend openvino \
        --cohort runs/shifted --out gate.json --record bundle
    python -m export.gate --bundle my-bundle --variant trt-int8 --backend tensorrt --simulate 200 \
        --out gate.json --record device

Fails, with exit status 1, where the answers are further from the reference's than the bundle's
limits allow, or where the engine gives none. A verdict belongs to variant, engine, version and
device: `--record` keeps it, in the bundle's manifest or in this device's plan cache. Needs neither
PyTorch nor the onnx package: it runs where the engine runs.

`--rehearse` runs a TensorRT variant in ONNX Runtime instead. That shows what its numbers lose, and
says nothing about TensorRT: a rehearsal is never a verdict.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from export.bundle import write_gate
from export.cohort import SOUND, Cohort, build
from export.cohort_studies import SimulatedSource
from export.gate_figures import (
    Answers,
    auroc_drops,
    compare,
    exact_interval,
    exceeded,
    flipped,
)
from export.provenance import made_here, today, write
from hipnet_edge.backends import (
    Backend,
    Choice,
    Identity,
    OnnxRuntimeBackend,
    OpenVinoBackend,
    TensorRtBackend,
    choose_backend,
)
from hipnet_edge.backends.plan_cache import PlanCache
from hipnet_edge.bundle import Bundle
from hipnet_edge.decision import Decision
from hipnet_edge.errors import EngineUnusable, HipNetError
from hipnet_edge.verdict import REFERENCE, Gate, Limits, Verdict
from hipnet_edge.vocabulary import CAUSES

REHEARSAL = "rehearsal"
ROUNDS_HALF = (1, 30)
"""The first ONNX Runtime seen to round where half precision is quantised: 1.23 to 1.28 cut off."""
_MADE_FOR: dict[str, type[Backend]] = {"trt-": TensorRtBackend, "cpu-bf16": OpenVinoBackend}
"""The engines of variants that are not made for ONNX Runtime on the CPU."""
_SIMULATED_SEED = 77_000
_SIMULATED_SPACING_MM = 0.3


def answers_of(backend: Backend, cohort: Cohort, what: str = "") -> Answers:
    """A backend's answers for every study; `what` stands beside a progress bar, if there is one.

    Raises:
        EngineUnusable: the engine failed, or gave what is no number or no probability.
    """
    probabilities, maps, novelty = [], [], []
    bar = tqdm(range(len(cohort)), desc=what, unit="study", mininterval=5, disable=not what)
    for i in bar:
        outputs = backend.infer(np.asarray(cohort.radiographs[i : i + 1], np.float32))
        probabilities.append(outputs.probabilities)
        maps.append(outputs.maps)
        if outputs.novelty is not None:
            novelty.append(outputs.novelty)
    return Answers(
        np.concatenate(probabilities),
        np.concatenate(maps),
        np.concatenate(novelty) if novelty else None,
    )


def judge(
    reference: Answers,
    candidate: Answers | EngineUnusable,
    cohort: Cohort,
    limits: Limits,
    decision: Decision | None,
) -> dict[str, Any]:
    """The gate itself: figures, limits, and which of them are not kept.

    Args:
        reference: the reference's answers for the cohort.
        candidate: those of what is judged, or why its engine gave none.
        cohort: with the truth.
        limits: the bundle's.
        decision: the bundle's calibration.

    Returns:
        `passed`, `failed` (names of limits, or the engine's reason code), `not_measured` (what
        this cohort cannot show), `limits`, `figures` and, of the flips, the exact interval.
    """
    report: dict[str, Any] = {"studies": len(cohort), "limits": limits.to_dict()}
    if isinstance(candidate, EngineUnusable):
        why = {"failed": [candidate.code.value], "engine": candidate.message}
        return {"passed": False, **why, **report}
    causes, occupancy = np.asarray(cohort.causes), np.asarray(cohort.occupancy)
    figures = compare(reference, candidate, causes, occupancy, decision)
    failed = exceeded(figures, limits)
    flips = int(flipped(reference, candidate).sum())
    return {
        "passed": not failed,
        "failed": failed,
        "not_measured": [name for name, value in figures.items() if value is None],
        **report,
        "figures": figures,
        "auroc_drop_by_cause": auroc_drops(reference, candidate, causes),
        "decision_flips": {"studies": flips, "ci95": exact_interval(flips, len(cohort))},
    }


def ask(backend: Backend, cohort: Cohort, what: str = "") -> Answers | EngineUnusable:
    """The answers of what is judged, or why there are none."""
    try:
        return answers_of(backend, cohort, what)
    except EngineUnusable as error:
        return error


def rounds_half() -> bool:
    """Whether this ONNX Runtime quantises half precision as the standard and TensorRT do."""
    major, minor = OnnxRuntimeBackend.identify(REFERENCE).version.split(".")[:2]
    return (int(major), int(minor)) >= ROUNDS_HALF


def open_candidate(
    bundle: Bundle,
    variant: str,
    backend: str | None = None,
    *,
    rehearse: bool = False,
    threads: int | None = None,
) -> Choice:
    """The engine to judge, loaded.

    Args:
        bundle: that has the variant.
        variant: its name.
        backend: None for the one that the variant is made for.
        rehearse: run a variant for TensorRT in ONNX Runtime.
        threads: of an inference; None for all cores.

    Raises:
        EngineUnusable: it does not run this variant here, or not rightly.
    """
    if rehearse:
        if variant.endswith("int8") and not rounds_half():
            raise EngineUnusable(
                f"This ONNX Runtime cuts off where half precision is quantised: a rehearsal of "
                f"{variant} needs {'.'.join(map(str, ROUNDS_HALF))} or newer."
            )
        model, signature = bundle.model(variant), bundle.signature(variant)
        loaded = OnnxRuntimeBackend(model, signature, variant=variant, threads=threads)
        return Choice(loaded, variant, "rehearsal of a TensorRT variant in ONNX Runtime")
    made_for = next(
        (kind for prefix, kind in _MADE_FOR.items() if variant.startswith(prefix)),
        OnnxRuntimeBackend,
    )
    # A variant is called after its engine and its precision; engines ask for the precision.
    precision = variant.rpartition("-")[2]
    choice = choose_backend(bundle, backend or made_for.name, precision, threads)
    if choice.variant != variant:
        raise EngineUnusable(
            f"{choice.backend.name} runs {choice.variant} at {precision}, not {variant}."
        )
    return choice


def simulated_cohort(n: int, folder: Path) -> Cohort:
    """Studies of the shifted site, made on the spot; a folder keeps them."""
    from hipnet_edge.simulation.cohort import plan
    from hipnet_edge.simulation.dimensions import Site

    site, spacing = Site.SHIFTED, _SIMULATED_SPACING_MM
    made_of = {"site": site.value, "seed": _SIMULATED_SEED, "pixel_spacing_mm": spacing}
    return build(folder, SimulatedSource(plan(site, n, _SIMULATED_SEED), spacing), made_of)


def verdict_of(report: dict[str, Any], variant: str, backend: str, engine: Identity) -> Verdict:
    """The verdict that a report amounts to."""
    return Verdict(
        variant=variant,
        backend=backend,
        version=engine.version,
        device=engine.device,
        passed=report["passed"],
        studies=report["studies"],
        date=today(),
    )


def run_gate(
    bundle: Bundle,
    choice: Choice,
    cohort: Cohort,
    *,
    rehearsal: bool = False,
    threads: int | None = None,
) -> tuple[dict[str, Any], Answers, Answers | EngineUnusable]:
    """Ask both networks and judge.

    Args:
        bundle: holds the reference, the limits and the calibration.
        choice: what is judged.
        cohort: what both are asked.
        rehearsal: the report says that this engine is not the one that the variant is for.
        threads: of the reference.

    Returns:
        The whole report, and both answers, for the page.
    """
    manifest, engine = bundle.manifest, choice.backend
    limits = (manifest.gate or Gate()).limits
    reference_engine = choose_backend(bundle, "onnxruntime", REFERENCE, threads).backend
    reference = answers_of(reference_engine, cohort, f"reference {REFERENCE}")
    reference_engine.close()
    candidate = ask(engine, cohort, choice.variant)
    found = judge(reference, candidate, cohort, limits, manifest.decision)
    report = {
        "kind": REHEARSAL if rehearsal else "verdict",
        **found,
        "bundle": {"name": manifest.name, "digest": bundle.digest},
        "variant": {"name": choice.variant, "network_sha256": bundle.network(choice.variant)},
        "engine": {
            "backend": engine.name,
            "version": engine.version,
            "device": engine.device,
            "settings": dict(engine.settings),
        },
        "reference": {
            "variant": REFERENCE,
            "backend": reference_engine.name,
            "version": reference_engine.version,
        },
        "cohort": {**cohort.index, "by_cause": _by_cause(cohort)},
        **made_here(),
    }
    return report, reference, candidate


def _by_cause(cohort: Cohort) -> dict[str, int]:
    known = {cause.value: int((cohort.causes == k).sum()) for k, cause in enumerate(CAUSES)}
    return {**known, "sound": int((cohort.causes == SOUND).sum())}


def _record(where: str, bundle: Bundle, report: dict[str, Any], choice: Choice) -> None:
    """Keep a verdict in the bundle's manifest, or beside this device's plans."""
    engine = choice.backend
    identity = Identity(engine.version, engine.device)
    verdict = verdict_of(report, choice.variant, engine.name, identity)
    if where == "bundle":
        write_gate(bundle.path, (bundle.manifest.gate or Gate()).with_verdict(verdict))
    else:
        PlanCache().record(bundle.network(choice.variant), verdict)


@click.command(help=__doc__)
@click.option("--bundle", type=click.Path(path_type=Path), help="Default: the reference bundle.")
@click.option("--variant", required=True, help="Such as cpu-int8.")
@click.option("--backend", help="Default: the one that the variant is made for.")
@click.option("--rehearse", is_flag=True, help="A TensorRT variant in ONNX Runtime; no verdict.")
@click.option("--cohort", "directory", type=click.Path(path_type=Path), help="From export.cohort.")
@click.option("--simulate", type=click.IntRange(1), help="So many studies, made on the spot.")
@click.option("--studies", type=click.IntRange(1), help="Only the first so many of the cohort.")
@click.option("--threads", type=click.IntRange(1), help="Default: all cores.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Report as JSON.")
@click.option("--page", type=click.Path(path_type=Path), help="One page of plots (matplotlib).")
@click.option(
    "--record",
    type=click.Choice(["bundle", "device"]),
    help="Keep the verdict: in the bundle's manifest, or in this device's plan cache.",
)
def main(
    bundle: Path | None,
    variant: str,
    backend: str | None,
    rehearse: bool,
    directory: Path | None,
    simulate: int | None,
    studies: int | None,
    threads: int | None,
    out: Path,
    page: Path | None,
    record: str | None,
) -> None:
    """Judge a variant."""
    if (directory is None) == (simulate is None):
        raise click.UsageError("name either --cohort or --simulate")
    if record and rehearse:
        raise click.UsageError("a rehearsal is no verdict: nothing to --record")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            model = Bundle.load(bundle) if bundle else Bundle.reference()
            choice = open_candidate(model, variant, backend, rehearse=rehearse, threads=threads)
            cohort = (
                Cohort.load(directory)
                if directory
                else simulated_cohort(simulate or 0, Path(scratch))
            )
            if studies is not None:
                cohort = cohort.subset(np.arange(min(studies, len(cohort))))
            report, reference, candidate = run_gate(
                model, choice, cohort, rehearsal=rehearse, threads=threads
            )
            choice.backend.close()
    except (HipNetError, FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    write(report, out)
    if page is not None:
        from export.gate_page import draw

        draw(report, reference, candidate, page)
    if record:
        _record(record, model, report, choice)
    print(json.dumps({key: report.get(key) for key in ("passed", "failed", "figures")}, indent=1))
    sys.exit(0 if report["passed"] else 1)


if __name__ == "__main__":
    main()
