"""A report as lines of text: every figure with its aim, then what it was made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.latency_ratios import BESIDE, RATIOS

Report = Mapping[str, Any]


def text(report: Report) -> str:
    """The whole report for a terminal."""
    parts = (_head, _aims, _inference, _end_to_end, _stages, _cold_start, _load, _missing)
    return "\n".join(line for part in parts for line in ("", *part(report)))


def _head(report: Report) -> Iterator[str]:
    machine, configured = report["machine"], report["configuration"]
    engine, noise, timer = configured["backend"], report["noise"], report["timer"]
    yield f"{machine['processor']['value']}, {machine['usable_cores']['value']} cores to use"
    yield (
        f"{engine['name']} {engine['version']}, {configured['variant']} on {engine['device']} "
        f"({engine['reason']})"
    )
    yield f"bundle {report['bundle']['name']} {report['bundle']['digest'][:12]}"
    yield (
        f"timer {timer['overhead_ns']:.0f} ns a call; untimed calls of everything first: "
        f"{report['settings']['warm_up']}; compared things take turns in a drawn order"
    )
    if noise["quiet"]:
        yield "the machine was quiet"
    else:
        yield f"TOO NOISY TO COMPARE: {noise['reason']}"


def _aims(report: Report) -> Iterator[str]:
    yield f"{'':<68}{'value':>10}  {'95 % interval':<18}{'aim':>9}"
    for aim in (*RATIOS, *BESIDE):
        value = report["ratios"].get(aim.key, report.get(aim.key))
        goal = f"{'>=' if aim.at_least else '<='} {aim.target:g}"
        if value is None:
            yield f"{aim.words:<68}{'-':>10}  {'':<18}{goal:>9}"
            yield f"    not measured: {report['not_measured'][aim.key]}"
            continue
        ends = report["details"][aim.key]["ci95"]
        shown = f"{ends[0]:.3g} to {ends[1]:.3g}" if ends else ""
        missed = "" if aim.reached(value) else "  missed"
        yield f"{aim.words:<68}{value:>10.3f}  {shown:<18}{goal:>9}{missed}"


def _inference(report: Report) -> Iterator[str]:
    yield from _table("Inference, ms", report["inference"])
    for row in report["equal_precision"]:
        low, high = row["ci95"]
        yield (
            f"  at equal precision ({row['precision']}), {row['where']}: {row['numerator']} / "
            f"{row['denominator']} = {row['value']:.2f} ({low:.2f} to {high:.2f})"
        )


def _end_to_end(report: Report) -> Iterator[str]:
    for syntax, contestants in report["end_to_end"].items():
        yield from _table(f"End to end, {syntax}, ms", contestants)


def _stages(report: Report) -> Iterator[str]:
    stages = report["stages"]
    names = list(dict.fromkeys(stage for found in stages.values() for stage in found))
    yield f"{'Stages, median ms':<24}" + "".join(f"{name:>13}" for name in names)
    for syntax, found in stages.items():
        medians = [(found.get(name) or {}).get("p50") for name in names]
        shown = ["-" if value is None else f"{value:.2f}" for value in medians]
        yield f"{syntax:<24}" + "".join(f"{value:>13}" for value in shown)


def _cold_start(report: Report) -> Iterator[str]:
    yield "Seconds from the start of the process"
    for name, found in report["cold_start"].items():
        if isinstance(found, Mapping):
            reached = ", ".join(
                f"{stage[3:-2].replace('_', ' ')} {found[stage]:.3f}"
                for stage in found
                if stage.startswith("to_") and stage.endswith("_s") and "all" not in stage
            )
            yield f"  {name.replace('_', ' ')}: {reached}"


def _load(report: Report) -> Iterator[str]:
    throughput, memory, soak = report["throughput"], report["memory"], report["soak"]
    for found in throughput["callers"]:
        rate = f"{found['studies_per_second']:.2f} studies a second"
        yield f"  callers at once: {found['callers']}, {rate}"
    if throughput["batch"] is not None:
        found = throughput["batch"]
        yield f"  batches of {found['batch']}: {found['studies_per_second']:.2f} studies a second"
    for syntax, found in throughput["stream"].items():
        if found is not None:
            bound, busy = found["bound_studies_per_second"], found["cores_kept_busy"]
            yield (
                f"  stream, {syntax}: {found['studies_per_second']:.2f} studies a second, "
                f"bound {bound:.2f}; cores busy {busy:.0%}"
            )
    resident = ", ".join(f"{name} {mib}" for name, mib in memory["resident_mib"].items())
    yield f"  resident MiB: {resident}"
    if soak is not None:
        yield f"  over {soak['predictions']:,} predictions memory grew by {soak['growth_mib']} MiB"


def _missing(report: Report) -> Iterator[str]:
    for name, reason in report["missing"].items():
        yield f"not measured: {name}: {reason}"


def _table(title: str, contestants: Mapping[str, Any]) -> Iterator[str]:
    columns = ("p50", "p90", "p95", "p99", "max", "cv")
    yield f"{title:<40}" + "".join(f"{name:>10}" for name in columns)
    for name, found in contestants.items():
        shown = ["-" if found[column] is None else f"{found[column]:.2f}" for column in columns]
        yield f"  {name:<38}" + "".join(f"{value:>10}" for value in shown)
