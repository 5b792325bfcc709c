"""The tables and the picture of docs/performance.md, from the committed results alone.

    python -m benchmarks.performance_page

Of latency.json, the full run of `benchmarks/latency.py`: every aim and whether it was reached,
where the time goes, the roofline of each backbone, what a Jetson Orin could reach by arithmetic.
Of reading_choices.json: the alternatives behind the choices made for reading; of
engine_sweep.json: the engines' settings.
What no committed report holds is called not measured yet; the words around the tables stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.latency_alone import STAGES
from benchmarks.latency_plots import stacked_bars
from benchmarks.latency_ratios import BESIDE, RATIOS, Aim
from benchmarks.page_tables import RESULTS, ROOT, read_result, table, write_tables

PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "pictures" / "latency.png"
REPORT = "latency"
CHOICES = "reading_choices"
SWEEP = "engine_sweep"
NOTHING = "*Not measured yet.*"
READING = (
    *("imagecodecs", "pylibjpeg-rle", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pyjpegls"),
    "opencv-python-headless",
)
"""Distributions that shape the figures of reading."""

Report = Mapping[str, Any]


def machine(report: Report) -> str:
    """On what, with what and how quietly it was measured."""
    made, engine = report["machine"], report["configuration"]["backend"]
    present = made["instructions"]["value"] or {}
    noise = report["noise"]
    rows = [
        ("Machine", f"{made['processor']['value']}, {made['usable_cores']['value']} cores"),
        ("Instructions", ", ".join(name for name, there in present.items() if there)),
        (
            "Answers",
            f"{engine['name']} {engine['version']}, `{report['configuration']['variant']}`",
        ),
        ("Chosen", engine["reason"]),
        ("Radiographs", "two simulated, " + " x ".join(map(str, report["settings"]["size"]))),
        ("Bundle", f"`{report['bundle']['digest'][:16]}`"),
        ("Date", report["date"]),
        ("Quiet enough", "yes" if noise["quiet"] else f"**no**: {noise['reason']}"),
    ]
    return table(("", ""), rows)


def aims(report: Report) -> str:
    """Every figure with its aim."""
    return table(
        ("Figure", "Aim", "Value (95 % interval)", ""),
        [_aim(report, aim) for aim in (*RATIOS, *BESIDE)],
    )


def _aim(report: Report, aim: Aim) -> tuple[str, str, str, str]:
    goal = f"at {'least' if aim.at_least else 'most'} {aim.target:g}"
    value = report["ratios"].get(aim.key, report.get(aim.key))
    if value is None:
        return aim.words, goal, f"not measured: {report['not_measured'][aim.key]}", ""
    ends = report["details"][aim.key]["ci95"]
    shown = f"{value:.2f}" + (f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else "")
    return aim.words, goal, shown, "reached" if aim.reached(value) else "**missed**"


def inference(report: Report) -> str:
    """Every engine on the same network."""
    rows = sorted(report["inference"].items(), key=lambda item: float(item[1]["p50"]))
    return table(
        ("", "Precision", "p50, ms", "p90", "p99", "Written as"),
        [
            (
                f"`{name}`",
                found.get("precision", ""),
                *(f"{found[column]:.1f}" for column in ("p50", "p90", "p99")),
                found.get("description", ""),
            )
            for name, found in rows
        ],
    )


def equal_precision(report: Report) -> str:
    """Every peer against ours at its own precision."""
    if not report["equal_precision"]:
        return NOTHING
    return table(
        ("Peer", "Where", "Precision", "Peer / ours (95 % interval)"),
        [
            (
                f"`{row['numerator']}`",
                row["where"],
                row["precision"],
                f"{row['value']:.2f} ({row['ci95'][0]:.2f} to {row['ci95'][1]:.2f})",
            )
            for row in report["equal_precision"]
        ],
    )


def stages(report: Report) -> str:
    """Median milliseconds of each stage, by transfer syntax."""
    there = [name for name in STAGES if any(one.get(name) for one in report["stages"].values())]
    return table(
        ("Transfer syntax", *(name.replace("_", " ") for name in there)),
        [
            (syntax, *(f"{found[name]['p50']:.1f}" if found.get(name) else "" for name in there))
            for syntax, found in report["stages"].items()
        ],
    )


def throughput(report: Report) -> str:
    """Studies a second, by callers and as a stream."""
    found = report["throughput"]
    rows = [
        (
            f"callers at once, uncompressed: {one['callers']}",
            f"{one['studies_per_second']:.2f}",
            "",
            "",
        )
        for one in found["callers"]
    ]
    rows += [
        (
            f"stream, {syntax}",
            f"{one['studies_per_second']:.2f}",
            f"{one['bound_studies_per_second']:.2f}",
            f"{one['over_bound']:.3f}",
        )
        for syntax, one in found["stream"].items()
        if one is not None
    ]
    return table(("", "Studies a second", "The cores could do", "Part of it"), rows)


def cold_start(report: Report) -> str:
    """Seconds from the start of a process."""
    found = report["cold_start"]
    first, later = found["first_start_with_empty_caches"], found["later_starts"]
    reached = {
        "to_interpreter_s": "Python runs",
        "to_imported_s": "imported",
        "to_bundle_loaded_s": "bundle verified",
        "to_ready_s": "ready: engine loaded and warm",
        "to_first_result_s": "first result",
    }
    rows = [(words, f"{first[name]:.3f}", f"{later[name]:.3f}") for name, words in reached.items()]
    resident = [_mib(one["rss_mib"]) for one in (first, later)]
    return table(
        ("Seconds to", "first start, empty caches", f"median of {later['starts']} later starts"),
        [*rows, ("resident then, MiB", resident[0], resident[1])],
    )


def memory(report: Report) -> str:
    """Resident memory, and its growth."""
    rows = [
        (name.replace("_", " "), _mib(mib))
        for name, mib in report["memory"]["resident_mib"].items()
    ]
    if report["soak"] is not None:
        grown = _mib(report["soak"]["growth_mib"])
        rows.append((f"growth over {report['soak']['predictions']:,} predictions", grown))
    return table(("", "MiB"), rows)


def roofline(report: Report) -> str:
    """Operations, traffic and the shortest time of each backbone."""
    if report["roofline"] is None:
        return f"Not measured: {report['missing'].get('floor', 'no peaks')}."
    parts = report["roofline"]["backbones"]
    return table(
        ("", "GOP", "MB", "Operations a byte", "Arithmetic, ms", "Memory, ms", "Floor, ms"),
        [
            (
                f"`{name}`",
                f"{part['operations'] / 1e9:.2f}",
                f"{part['bytes'] / 1e6:.1f}",
                f"{part['operations'] / max(part['bytes'], 1):.0f}",
                *(f"{part[column]:.2f}" for column in ("arithmetic_ms", "memory_ms", "ms")),
            )
            for name, part in parts.items()
        ],
    )


def jetson(report: Report) -> str:
    """An estimate for each module, called so."""
    if report["roofline"] is None:
        return NOTHING
    estimated = report["roofline"]["jetson"]
    variants = list(next(iter(estimated["shortest_ms"].values())))
    return table(
        (
            "Estimate, not measured",
            "GPU, sparse INT8 TOPS (published)",
            "Memory, GB/s (published)",
            *(f"`{variant}`, ms at least" for variant in variants),
        ),
        [
            (
                module,
                f"{published['sparse_int8_tops_of_the_gpu']:g}",
                f"{published['memory_gbs']:g}",
                *(f"{estimated['shortest_ms'][module][variant]:.2f}" for variant in variants),
            )
            for module, published in estimated["published"].items()
        ],
    )


def choices(report: Report) -> str:
    """Every alternative for reading; what is used stands in bold."""
    made, versions = report["machine"], report["versions"]
    packages = [name for name in READING if name in versions]
    said = (
        f"Measured on {report['date']}: {made['processor']['value']}, "
        f"{made['usable_cores']['value']} cores; "
        f"{', '.join(f'{name} {versions[name]}' for name in packages)}; "
        f"views of {' x '.join(map(str, report['size']))}, medians of {report['rounds']}."
    )
    timed = table(
        ("What", "How; in bold as the package does", "Wall, ms", "Processor, ms"),
        [
            (
                row["what"],
                f"**{row['alternative']}**" if row["used"] else row["alternative"],
                f"{row['wall_ms']:.1f}",
                f"{row['processor_ms']:.1f}",
            )
            for row in report["rows"]
        ],
    )
    parts = [said, timed]
    if report["damage"] is not None:
        parts.append(_damage(report["damage"]))
    if report["missing"]:
        lacking = "; ".join(f"{name} ({why})" for name, why in report["missing"].items())
        parts.append(f"Not measured: {lacking}.")
    return "\n\n".join(parts)


def _damage(found: Report) -> str:
    return table(
        (
            f"Of {found['streams']} lossless HTJ2K streams with one damaged byte",
            *("refused", "other pixels", "the same pixels"),
        ),
        [
            (name, *(str(ends[end]) for end in ("refused", "other_pixels", "same_pixels")))
            for name, ends in found["readers"].items()
        ],
    )


TABLES: Mapping[str, Callable[[Report], str]] = {
    "machine": machine,
    "aims": aims,
    "inference": inference,
    "equal precision": equal_precision,
    "stages": stages,
    "throughput": throughput,
    "cold start": cold_start,
    "memory": memory,
    "roofline": roofline,
    "jetson": jetson,
}


def settings(report: Report) -> str:
    """Engines under other settings, the quickest first."""
    rows = []
    for way in sorted(report["ways"], key=lambda way: way["p50_ms"]):
        told = ", ".join(f"{name} {value}" for name, value in way["settings"].items()) or "defaults"
        callers = f"; {way['callers']} callers at once" if way["callers"] > 1 else ""
        rows.append(
            (
                way["engine"],
                f"`{way['variant']}`",
                told + callers,
                f"{way['p50_ms']:.1f}",
                f"{way['processor_ms']:.1f}",
            )
        )
    return table(("Engine", "Variant", "Settings", "Wall, ms", "Processor, ms"), rows)


def tables() -> dict[str, str]:
    """All tables by their markers."""
    made = dict.fromkeys((*TABLES, "picture", "choices", "settings"), NOTHING)
    if (RESULTS / f"{REPORT}.json").exists():
        report = read_result(REPORT)
        made.update((name, make(report)) for name, make in TABLES.items())
        made["picture"] = f"![Stages by transfer syntax](pictures/{PICTURE.name})"
    if (RESULTS / f"{CHOICES}.json").exists():
        made["choices"] = choices(read_result(CHOICES))
    if (RESULTS / f"{SWEEP}.json").exists():
        made["settings"] = settings(read_result(SWEEP))
    return made


def _mib(value: float | None) -> str:
    return "not known" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    made = tables()
    write_tables(PAGE, made)
    if (RESULTS / f"{REPORT}.json").exists():
        stacked_bars(read_result(REPORT), PICTURE)
    print(f"{PAGE}: {len(made)} places")
