r"""Make the INT8 and FP16 variants of a bundle's network, as many layers in INT8 as the gate lets.

    python -m export.quantize --bundle my-bundle --calibration runs/calibration \
        --gate-cohort runs/validation --out my-bundle-int8 --report quantize.json

The cohorts come from `export.cohort`: simulated studies, or a CSV of your own films. The
calibration cohort says which values activations take; minmax, percentile and entropy are compared
and the best is taken, for each variant anew. The gate's cohort, which must be another, decides
which layers stay in single or half precision. Out comes a copy of the bundle with three more
variants: `cpu-int8` for ONNX Runtime, judged in the very engine, with its verdict; `trt-int8` and
`trt-fp16` for TensorRT, which only a device with TensorRT can judge (`python -m export.gate`): here
they are rehearsed in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from export import qdq, variants
from export.bias_correction import corrected
from export.bundle import add_variants
from export.cohort import Cohort
from export.gate import REHEARSAL, rounds_half, verdict_of
from export.onnx_graph import store_in_half
from export.provenance import made_here, write
from export.ranges import METHODS, Ranges, observe, ranges_by
from export.sensitivity import Found, Recipe, Trials, best_method, search
from hipnet_edge.backends import OnnxRuntimeBackend
from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import HipNetError
from hipnet_edge.verdict import REFERENCE, Gate, Limits

SETTLING_STUDIES = 32
"""How many of the calibration's studies the average novelty of a network is settled on."""


@dataclass(frozen=True)
class Made:
    """One variant, and what is reported of it."""

    model: onnx.ModelProto
    report: dict[str, Any]


def _studies(cohort: Cohort) -> Iterator[Any]:
    return (np.asarray(cohort.radiographs[i : i + 1], np.float32) for i in range(len(cohort)))


def _spread(cohort: Cohort, count: int) -> Cohort:
    """At most so many studies, evenly spread over the cohort."""
    return cohort.subset(np.unique(np.linspace(0, len(cohort) - 1, count).astype(int)))


def recipes(model: onnx.ModelProto, means: Mapping[str, Any]) -> tuple[Recipe, Recipe]:
    """How the two INT8 variants are made of a prepared network.

    Args:
        model: from `export.variants.prepare`.
        means: of the channels of what the convolutions read.

    The trials of the one for TensorRT run in single precision: half precision is slow on a CPU,
    and what INT8 loses is the same.
    """
    return (
        Recipe(
            variants.CPU_INT8,
            variants.cpu_layers(model),
            lambda ranges, layers: variants.cpu_int8(
                corrected(model, means, layers), ranges, layers
            ),
        ),
        Recipe(
            variants.TRT_INT8,
            qdq.convolutions(model),
            lambda ranges, layers: qdq.insert(corrected(model, means, layers), ranges, layers),
        ),
    )


def int8_variant(
    recipe: Recipe, by_method: Mapping[str, Ranges], trials: Trials
) -> tuple[Found, dict[str, Any]]:
    """The best ranges, the layers that bear them, and the report on both."""
    method, compared = best_method(recipe, by_method, trials)
    found = search(recipe, by_method[method], trials)
    return found, {
        "ranges": method,
        "disturbance_by_ranges": compared,
        "layers": len(recipe.layers),
        "restored_layers": found.restored,
        "gate": found.gate,
    }


def quantize(
    bundle: Bundle,
    calibration: Cohort,
    gate_cohort: Cohort,
    *,
    limits: Limits,
    methods: Sequence[str] = METHODS,
    calibration_studies: int = 128,
    trial_studies: int = 48,
    threads: int | None = None,
) -> tuple[dict[str, Made], dict[str, Any]]:
    """The three variants, and what is said of the calibration they share.

    Args:
        bundle: with the reference.
        calibration: whose studies say which values activations take.
        gate_cohort: whose studies the gate asks.
        limits: of the gate.
        methods: out of `export.ranges.METHODS`.
        calibration_studies: at most so many, evenly spread.
        trial_studies: how many of the gate's studies compare methods and rank layers.
        threads: of an inference; None for all cores.

    Raises:
        ValueError: a cohort was made for another input, or the gate refuses every INT8 network.
    """
    manifest = bundle.manifest
    for cohort in (calibration, gate_cohort):
        if cohort.index["input"] != manifest.input.to_dict():
            raise ValueError("a cohort was made for another input than this bundle's")
    names = [backbone.name for backbone in manifest.backbones]
    reference = bundle.model(REFERENCE)
    prepared = variants.prepare(onnx.load_from_string(reference), names)
    chosen = _spread(calibration, calibration_studies)
    seen = observe(prepared, variants.tensors_to_observe(prepared), _studies(chosen), len(chosen))
    by_method = {method: ranges_by(method, seen) for method in methods}
    trials = Trials(
        reference,
        bundle.signature(REFERENCE),
        gate_cohort,
        _spread(chosen, SETTLING_STUDIES),
        limits,
        manifest.decision,
        trial_studies,
        threads,
    )
    means = {name: histogram.channel_means for name, histogram in seen.items()}
    for_cpu, for_tensorrt = recipes(prepared, means)
    cpu, cpu_report = int8_variant(for_cpu, by_method, trials)
    trt, trt_report = int8_variant(for_tensorrt, by_method, trials)
    trt_report[REHEARSAL] = trt_report.pop("gate")
    made = {
        variants.CPU_INT8: Made(cpu.model, cpu_report),
        variants.TRT_INT8: Made(variants.for_tensorrt(trt.model, names), trt_report),
        variants.TRT_FP16: Made(variants.for_tensorrt(prepared, names), {}),
    }
    made = {name: replace(one, model=store_in_half(one.model)) for name, one in made.items()}
    for name in (variants.TRT_INT8, variants.TRT_FP16):
        if name == variants.TRT_INT8 and not rounds_half():
            continue
        disturbance = trials.disturbance(made[name].model, "float16")
        if not np.isfinite(disturbance):
            raise ValueError(f"{name} gives no probabilities in half precision")
        made[name].report["disturbance_in_half_precision"] = disturbance
    about = {"studies": len(chosen), "cohort": calibration.index, "methods": list(methods)}
    return made, about


def quantize_bundle(
    source: Path, calibration: Cohort, gate_cohort: Cohort, out: Path, **options: Any
) -> dict[str, Any]:
    """Make the variants, write the bundle, give the report.

    Args:
        source: the bundle that has the reference.
        calibration: as `quantize` takes it.
        gate_cohort: as `quantize` takes it.
        out: the new bundle.
        options: the other arguments of `quantize`, but for `limits`: those are the bundle's.
    """
    bundle = Bundle.load(source)
    gate = bundle.manifest.gate or Gate()
    made, about = quantize(bundle, calibration, gate_cohort, limits=gate.limits, **options)
    files = {name: one.model.SerializeToString() for name, one in made.items()}
    engine, cpu = OnnxRuntimeBackend, made[variants.CPU_INT8].report
    identity = engine.identify(variants.CPU_INT8)
    gate = gate.with_verdict(verdict_of(cpu["gate"], variants.CPU_INT8, engine.name, identity))
    written = add_variants(source, out, files, gate)
    return {
        "source": bundle.digest,
        "bundle": written.digest,
        "calibration": about,
        "gate_cohort": gate_cohort.index,
        "variants": {
            name: {"bytes": len(files[name]), "nodes": len(one.model.graph.node), **one.report}
            for name, one in made.items()
        },
        **made_here("onnx", "onnxruntime"),
    }


@click.command(help=__doc__)
@click.option("--bundle", type=click.Path(path_type=Path), required=True)
@click.option("--calibration", type=click.Path(path_type=Path), required=True, help="Cohort.")
@click.option("--gate-cohort", type=click.Path(path_type=Path), required=True, help="Another.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new bundle.")
@click.option("--report", type=click.Path(path_type=Path), required=True, help="As JSON.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(METHODS),
    default=METHODS,
    help="Ways to read ranges; repeatable. Default: all are compared.",
)
@click.option("--calibration-studies", type=click.IntRange(1), default=128, show_default=True)
@click.option("--trial-studies", type=click.IntRange(1), default=48, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Default: all cores.")
def main(
    bundle: Path,
    calibration: Path,
    gate_cohort: Path,
    out: Path,
    report: Path,
    methods: tuple[str, ...],
    calibration_studies: int,
    trial_studies: int,
    threads: int | None,
) -> None:
    """Quantise a bundle."""
    if calibration.resolve() == gate_cohort.resolve():
        raise click.UsageError("the gate must ask other studies than those of the calibration")
    try:
        made = quantize_bundle(
            bundle,
            Cohort.load(calibration),
            Cohort.load(gate_cohort),
            out,
            methods=methods,
            calibration_studies=calibration_studies,
            trial_studies=trial_studies,
            threads=threads,
        )
    except (HipNetError, FileNotFoundError, FileExistsError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    write(made, report)
    for name, one in made["variants"].items():
        restored = one.get("restored_layers")
        said = "" if restored is None else f", restored: {', '.join(restored) or 'none'}"
        print(f"{name}: {one['bytes'] / 1e6:.1f} MB{said}")


if __name__ == "__main__":
    main()
