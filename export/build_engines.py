"""Build TensorRT plans of a bundle, and see in the build's own log that they are as asked.

    python -m export.build_engines --bundle engines/reference --variant trt-int8
    python -m export.build_engines --bundle engines/reference --variant trt-int8 --layout parts
    python -m export.build_engines --bundle engines/reference --variant trt-fp16 \
      --compute-capability 8.6 --compute-capability 8.9 --plans factory/plans

Plans go to this user's cache, where `Predictor(backend="tensorrt")` finds them, or into a folder
that becomes one on another machine. `--keep-options` lets this device build with the same options
from now on. With TensorRT-RTX no GPU is needed for any of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import onnx
from tqdm import tqdm

from export.parts import cut
from export.provenance import made_here, write
from hipnet_edge.backends.build_log import PRECISION_OF_VARIANT
from hipnet_edge.backends.device import open_device
from hipnet_edge.backends.plan_cache import PlanCache, PlanKey
from hipnet_edge.backends.tensorrt_backend import keep_options, timing_file
from hipnet_edge.backends.tensorrt_build import HARDWARE, WHOLE, BuildOptions, Built, build_plan
from hipnet_edge.backends.tensorrt_flavour import Flavour, load_tensorrt
from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import HipNetError, UsageError

LAYOUTS = ("merged", "parts")


def build_engines(
    bundle: Bundle,
    variant: str,
    layout: str,
    options: BuildOptions,
    cache: PlanCache,
    flavour: Flavour | None = None,
) -> dict[str, Any]:
    """Build every part of a variant and keep the plans; gives a report.

    Args:
        bundle: the verified bundle.
        variant: "trt-int8" or "trt-fp16".
        layout: "merged", or "parts": a plan for each backbone and one for what joins them.
        options: for which GPUs and how.
        cache: where the plans go.
        flavour: the TensorRT that builds; None for the installed one.

    Raises:
        EngineUnusable: a part cannot be built, or not in the variant's precision.
        UsageError: the options are not possible here.
        ValueError: the network cannot be cut into parts.
    """
    flavour = load_tensorrt() if flavour is None else flavour
    device, capabilities = _target(options)
    report: dict[str, Any] = {
        "bundle": {"name": bundle.manifest.name, "digest": bundle.digest},
        "network": bundle.network(variant),
        "variant": variant,
        "layout": layout,
        "builder": f"{flavour.name} {flavour.version}",
        "device": device,
        "compute_capabilities": capabilities,
        "options": options.to_dict(),
        "parts": {},
    }
    for part, model in _parts(bundle, variant, layout):
        key = PlanKey(
            network=bundle.network(variant),
            part=part,
            variant=variant,
            flavour=flavour.name,
            version=flavour.version,
            device=device,
            compute_capability=capabilities,
            options=options.to_key(bundle.signature(variant)),
        )
        built = _build(model, part, variant, flavour, options, cache)
        plan = cache.store(key, built.plan, built.to_dict())
        report["parts"][part] = {
            "file": key.name(),
            "sha256": plan.sha256,
            **built.to_dict(),
            "layer_list": built.layer_list(),
        }
    return report


def precision_table(report: dict[str, Any]) -> str:
    """What was built, as lines for a person: every convolution with its type."""
    lines = []
    for part, built in report["parts"].items():
        types = built["convolutions"]
        lines.append(
            f"{part}: {len(types)} convolutions, {built['layers']} layers on {built['streams']} "
            f"streams, {built['signals_and_waits']} signals and waits, "
            f"{built['reformat_layers']} reformat layers, {built['bytes'] / 1e6:.1f} MB, "
            f"{built['seconds']:.1f} s"
        )
        kept = set(built["kept_float"])
        lines += [
            f"  {name:<48} {found or 'not in the log'}"
            f"{'  (the file keeps it in float)' if name in kept else ''}"
            for name, found in types.items()
        ]
    return "\n".join(lines)


def _target(options: BuildOptions) -> tuple[str, str]:
    """For which GPU and compute capabilities the plans are, as their keys say it."""
    if options.compute_capabilities:
        return "any", ",".join(options.compute_capabilities)
    device = open_device()
    try:
        capability = device.compute_capability
        if options.hardware == "ampere_plus":
            return "any", "8.0+"
        return ("any" if options.hardware != "none" else device.name), capability
    finally:
        device.close()


def _parts(bundle: Bundle, variant: str, layout: str) -> Iterator[tuple[str, bytes]]:
    model = bundle.model(variant)
    if layout == "merged":
        yield WHOLE, model
        return
    names = [backbone.name for backbone in bundle.manifest.backbones]
    for name, part in cut(onnx.load_from_string(model), names).items():
        yield name, part.SerializeToString()


def _build(
    model: bytes,
    part: str,
    variant: str,
    flavour: Flavour,
    options: BuildOptions,
    cache: PlanCache,
) -> Built:
    """One plan, with a line that says how far it is."""
    timing = timing_file(flavour)
    with tqdm(desc=f"{variant} {part}", bar_format="{desc} {postfix} [{elapsed}]") as bar:
        built = build_plan(
            model,
            variant,
            flavour,
            options,
            timing_cache=cache.read(timing),
            progress=bar.set_postfix_str,
            part=part,
        )
    if built.timing_cache:
        cache.keep(timing, built.timing_cache)
    return built


@click.command(help=__doc__)
@click.option("--bundle", "folder", type=click.Path(path_type=Path), required=True)
@click.option("--variant", type=click.Choice(list(PRECISION_OF_VARIANT)), required=True)
@click.option("--layout", type=click.Choice(LAYOUTS), default="merged", show_default=True)
@click.option("--plans", type=click.Path(path_type=Path), help="Folder; the user's cache if none.")
@click.option(
    "--compute-capability",
    "capabilities",
    multiple=True,
    metavar="X.Y",
    help="Build for this GPU without having it (TensorRT-RTX). May be repeated.",
)
@click.option("--workspace-mib", type=click.IntRange(min=1), help="Memory a layer may use.")
@click.option("--max-aux-streams", type=click.IntRange(0, 64), help="Streams beside the first.")
@click.option("--hardware", type=click.Choice(HARDWARE), default="none", show_default=True)
@click.option("--dla-core", type=click.IntRange(0, 1), help="Jetson AGX Orin.")
@click.option("--keep-options", is_flag=True, help="This device builds so from now on.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the report as JSON.")
def main(
    folder: Path, variant: str, layout: str, plans: Path | None, report: Path | None, **given: Any
) -> None:
    """Build the plans of a bundle."""
    options = BuildOptions(
        compute_capabilities=given["capabilities"],
        workspace_mib=given["workspace_mib"],
        max_aux_streams=given["max_aux_streams"],
        hardware=given["hardware"],
        dla_core=given["dla_core"],
    )
    cache = PlanCache(plans)
    try:
        bundle = Bundle.load(folder)
        if variant not in bundle.manifest.variants:
            raise UsageError(f"The bundle {bundle.manifest.name} has no variant {variant}.")
        made = build_engines(bundle, variant, layout, options, cache)
        if given["keep_options"]:
            keep_options(cache, options)
    except (HipNetError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if report is not None:
        write({**made, **made_here()}, report)
    print(precision_table(made))
    print(f"Plans: {cache.folder}")


if __name__ == "__main__":
    main()
