"""The tables of docs/accuracy.md, from the committed results alone.

    python -m benchmarks.accuracy_page

Says of every aim whether it was reached, from accuracy.json, out_of_distribution.json, twins.json,
resolution.json and survey_change.json; the words around the tables stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.page_tables import ROOT, read_result, table, write_tables
from hipnet_edge.vocabulary import CAUSES

PAGE = ROOT / "docs" / "accuracy.md"

Figures = Mapping[str, Any]


def interval(figure: Figures, digits: int = 3) -> str:
    """A figure with its 95 % interval; what could not be reached is a dash."""
    value, low, high = (
        "-" if number is None else f"{number:.{digits}f}"
        for number in (figure["value"], *figure["ci95"])
    )
    return f"{value} ({low} to {high})"


def at_least(aim: float) -> tuple[str, Callable[[Figures], bool]]:
    """An aim from below, judged by the figure itself."""
    return f"at least {aim:g}", lambda figure: figure["value"] >= aim


def at_most(aim: float) -> tuple[str, Callable[[Figures], bool]]:
    """An aim from above, judged by the figure itself."""
    return f"at most {aim:g}", lambda figure: figure["value"] <= aim


BETTER = "above 0 with its interval", lambda figure: figure["ci95"][0] > 0


def aims(accuracy: Figures, strangers: Figures) -> str:
    """Every aim, what was reached, and whether that is enough."""
    maps, views = accuracy["simulated_maps"]["all"], accuracy["simulated_views"]
    single = accuracy["simulated_ensemble_against_single"]
    rows: list[tuple[str, Figures, tuple[str, Callable[[Figures], bool]]]] = [
        ("Leading cause right", accuracy["simulated_accuracy"], at_least(0.9)),
        (
            "One against rest, mean of five",
            accuracy["simulated_one_against_rest_accuracy"]["value"],
            at_least(0.96),
        ),
        ("Macro AUC", accuracy["simulated_macro_auc"], at_least(0.98)),
        (
            "Expected calibration error",
            accuracy["simulated_calibration_error"]["value"],
            at_most(0.03),
        ),
        (
            f"Ensemble less best single backbone ({single['best_single']}), macro AUC",
            single["macro_auc_difference"],
            BETTER,
        ),
        ("Both views less AP alone, macro AUC", views["both_less_ap"]["macro_auc"], BETTER),
        (
            "Both views less lateral alone, macro AUC",
            views["both_less_lateral"]["macro_auc"],
            BETTER,
        ),
        ("Map's peak within 5 mm of the sign", maps["pointing"], at_least(0.85)),
        (
            "PJI risk against severity within PJI, Spearman",
            accuracy["simulated_pji_risk"]["within_pji"],
            at_least(0.5),
        ),
        (
            "Sound told from failed prostheses, AUROC",
            accuracy["simulated_no_sign_of_failure"]["auroc"],
            at_least(0.95),
        ),
        (
            "Strangers told from hips by novelty, AUROC",
            strangers["simulated_all_strangers"]["auroc"],
            at_least(0.95),
        ),
        (
            "Hips of the shifted site taken for strangers",
            strangers["simulated_false_alarms"]["all"],
            at_most(0.05),
        ),
    ]
    return table(
        ("Figure", "Aim", "Reached (95 % interval)", ""),
        [
            (name, aim, interval(figure), "reached" if judge(figure) else "**missed**")
            for name, figure, (aim, judge) in rows
        ],
    )


def beside(accuracy: Figures) -> str:
    """Figures without an aim, which belong beside the others."""
    maps, risk = accuracy["simulated_maps"]["all"], accuracy["simulated_pji_risk"]
    conformal = accuracy["simulated_conformal"]
    rows: list[tuple[str, Figures]] = [
        ("Peak near the sign, had it been another study's map of the same cause",
         maps["pointing_by_another_study_of_the_cause"]),
        ("Pixel average precision of the maps", maps["pixel_average_precision"]),
        ("Ceiling of that at the maps' resolution", maps["pixel_average_precision_ceiling"]),
        ("PJI risk against severity over all failed studies, Spearman", risk["overall"]),
        ("Ceiling of that for who knows infected from not, and no severity",
         risk["overall_ceiling_without_severity"]),
        ("Plausible causes hold the true one (meant: 0.9)", conformal["coverage"]),
        ("Plausible causes, mean number", conformal["mean_size"]),
    ]  # fmt: skip
    return table(("Figure", "Value (95 % interval)"), [(n, interval(f)) for n, f in rows])


def by_cause(accuracy: Figures) -> str:
    """The smallest sign that is found, and how well each cause is told from the rest."""
    rows = []
    for cause in CAUSES:
        sign = accuracy["simulated_smallest_sign"][cause.value]
        found, aim = sign["smallest_found_mm"], sign["aim_mm"]
        reached = found["value"] is not None and (aim is None or found["value"] <= aim)
        rows.append(
            (
                cause.label,
                sign["size"],
                "any" if aim is None else f"{aim:g} mm",
                "every size simulated" if found["every_simulated_size"] else interval(found, 1),
                "reached" if reached else "**missed**",
                interval(sign["sensitivity_at_aim"], 2) if "sensitivity_at_aim" in sign else "",
                interval(accuracy["simulated_auc_by_cause"][cause.value]),
            )
        )
    return table(
        ("Cause", "Sign", "Aim", "Smallest found, mm", "", "Sensitivity at the aim", "AUC"), rows
    )


def twins(report: Figures) -> str:
    """How often a right call goes when the sign is erased from the film."""
    return table(
        ("Cause", "Right calls", "Call gone with the sign"),
        [
            (
                cause.label,
                str(report["causes"][cause.value]["simulated_call_gone"]["studies"]),
                interval(report["causes"][cause.value]["simulated_call_gone"], 2),
            )
            for cause in CAUSES
            if cause.value in report["causes"]
        ],
    )


def resolution(figures: Figures) -> str:
    """Macro AUC under four conditions, and what is lost against the first."""
    lost = figures["simulated_macro_auc_less_than_reference"]
    return table(
        ("The backbone sees", "mm a pixel", "Macro AUC", "Less than with the first"),
        [
            (
                label,
                f"{figures['mm_per_network_pixel'][name]:.2f}",
                interval(figures["simulated_macro_auc"][name]),
                interval(lost[name]) if name in lost else "",
            )
            for name, label in figures["conditions"].items()
        ],
    )


def survey(report: Figures) -> str:
    """The same studies with the box found on the earlier thumbnail and on the present one."""
    names = {
        "leading_cause_right": "Leading cause right",
        "macro_auc": "Macro AUC",
        "calibration_error": "Expected calibration error",
        "maps_pointing": "Map's peak at the disease",
        "no_implant": "Studies in which a view shows no prosthesis",
    }
    return table(
        ("", "Before", "Now"),
        [
            (label, f"{report['before'][name]:.4f}", f"{report['after'][name]:.4f}")
            for name, label in names.items()
        ],
    )


def tables() -> dict[str, str]:
    """All tables by their markers."""
    accuracy = read_result("accuracy")["figures"]
    return {
        "aims": aims(accuracy, read_result("out_of_distribution")["figures"]),
        "beside": beside(accuracy),
        "by cause": by_cause(accuracy),
        "twins": twins(read_result("twins")),
        "resolution": resolution(read_result("resolution")["figures"]),
        "survey": survey(read_result("survey_change")),
    }


if __name__ == "__main__":
    write_tables(PAGE, tables())
    print(f"{PAGE}: {len(tables())} tables")
