"""The tables of docs/export.md, from the committed results alone.

    python -m benchmarks.export_page

What became of the reference bundle: how it was quantised (quantize.json), what the gate found
(gate-*.json) and what was built of it (engines-*.json); the words around the tables stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from benchmarks.page_tables import ROOT, read_result, table, write_tables

PAGE = ROOT / "docs" / "export.md"
TENSORRT = ("trt-int8", "trt-fp16")
JUDGED = ("cpu-int8", "openvino-int8-f32", "openvino-int8", "openvino-bf16", *TENSORRT)
"""The gate's reports, `gate-….json`."""

Report = Mapping[str, Any]


def quantised(report: Report) -> str:
    """How each variant was made."""
    return table(
        ("Variant", "File", "Ranges", "Layers that may be INT8", "Restored"),
        [
            (
                f"`{name}`",
                f"{made['bytes'] / 1e6:.1f} MB",
                made.get("ranges", ""),
                str(made.get("layers", "")),
                ", ".join(made["restored_layers"]) or "none" if "restored_layers" in made else "",
            )
            for name, made in report["variants"].items()
        ],
    )


def judged(reports: Mapping[str, Report]) -> str:
    """Every figure of the gate beside its limit; rehearsals are called so."""
    heads = [
        f"`{report['variant']['name']}`, "
        + (
            f"{report['engine']['backend']} on {report['engine']['device']}"
            if report["kind"] == "verdict"
            else report["kind"]
        )
        for report in reports.values()
    ]
    limits = next(iter(reports.values()))["limits"]
    rows = [
        (
            f"`{name}`",
            f"{limit:g}",
            *(_number(report["figures"][name]) for report in reports.values()),
        )
        for name, limit in limits.items()
    ]
    said = ("passed" if report["passed"] else "**refused**" for report in reports.values())
    return table(("Figure", "Limit", *heads), [*rows, ("", "", *said)])


def shortcut(report: Report) -> str:
    """The gate's figures of the shortcut in reading, with each engine."""
    judged = report["judged"]
    rows = [
        (f"`{name}`", f"{limit:g}", *(_number(found["figures"][name]) for found in judged.values()))
        for name, limit in report["limits"].items()
    ]
    said = ("passed" if found["passed"] else "**refused**" for found in judged.values())
    return table(("Figure", "Limit", *judged), [*rows, ("", "", *said)])


def built(reports: list[Report]) -> str:
    """What TensorRT made of each variant and layout."""
    return table(
        (
            *("Variant", "Layout", "Convolutions", "Layers", "Streams"),
            *("Reformat layers", "Plans", "Build"),
        ),
        [
            (
                f"`{report['variant']}`",
                report["layout"],
                _precisions(report),
                str(sum(part["layers"] for part in report["parts"].values())),
                str(max(part["streams"] for part in report["parts"].values())),
                str(sum(part["reformat_layers"] for part in report["parts"].values())),
                f"{sum(part['bytes'] for part in report['parts'].values()) / 1e6:.1f} MB",
                f"{sum(part['seconds'] for part in report['parts'].values()):.0f} s",
            )
            for report in reports
        ],
    )


def _precisions(report: Report) -> str:
    """How many convolutions run in which type."""
    count = Counter(
        found or "not in the log"
        for part in report["parts"].values()
        for found in part["convolutions"].values()
    )
    return ", ".join(f"{n} {precision}" for precision, n in count.most_common())


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


def tables() -> dict[str, str]:
    """All tables by their markers."""
    return {
        "quantised": quantised(read_result("quantize")),
        "judged": judged({name: read_result(f"gate-{name}") for name in JUDGED}),
        "shortcut": shortcut(read_result("shortcuts")),
        "built": built(
            [
                read_result(f"engines-{variant}-{layout}")
                for variant in TENSORRT
                for layout in ("merged", "parts")
            ]
        ),
    }


if __name__ == "__main__":
    write_tables(PAGE, tables())
    print(f"{PAGE}: {len(tables())} tables")
