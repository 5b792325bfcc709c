"""`report.html`: one page that needs nothing beside itself, on a screen and on A4."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hipnet_edge.evaluation import causes, plots, risk
from hipnet_edge.evaluation.figure import Figure
from hipnet_edge.evaluation.gallery import Mistake, worst_mistakes
from hipnet_edge.evaluation.outcome import LEFT_OUT_WORDS
from hipnet_edge.evaluation.run import write_whole
from hipnet_edge.vocabulary import CAUSES
from hipnet_edge.wording import RESEARCH_USE, in_words

if TYPE_CHECKING:
    from hipnet_edge.evaluation.report import Report
    from hipnet_edge.predictor import Predictor

_MAIN = {
    "accuracy": "Leading cause right",
    "accuracy_if_left_out_are_wrong": "The same if every study left out were wrong",
    "balanced_accuracy": "Mean of the five causes' parts right",
    "macro_auc": "Macro AUC, one against rest",
    "brier": "Brier score (0 is perfect, 2 the worst)",
    "calibration_error": "Expected calibration error",
    "answered": "Part of the table that was answered",
}
_LINES_NAMED = 200


def write_page(path: Path, report: Report, predictor: Predictor) -> None:
    """Write the page, whole or not at all."""
    write_whole(path, page(report, worst_mistakes(report.cohort, predictor)))


def page(report: Report, mistakes: Sequence[Mistake]) -> str:
    """The page as HTML."""
    figures = report.figures
    parts = [_head(report), _tested(report), _studies(report)]
    if "accuracy" in figures:
        parts += [_main(report), _by_cause(report), _confusion(figures)]
        parts += [_thresholds(figures), _conformal(figures), _risk(report), _maps(figures)]
        parts += [_subgroups(figures), _gallery(mistakes)]
    elif "confusion" in figures:
        parts.append(_confusion(figures))
    parts.append(_left_out(report))
    return document("Validation of hipnet_edge", "".join(parts))


def document(title: str, body: str) -> str:
    """A whole HTML document with the report's style."""
    style = files("hipnet_edge.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f"<body><main>{body}</main></body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table; cells are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>\n'


def section(title: str, *parts: str) -> str:
    """A part of the page under a heading."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>\n"


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(words)}</p>'


def number(value: float | None) -> str:
    """Three decimals, never a negative nothing; a dash for what is not known."""
    return "&ndash;" if value is None else f"{round(value, 3) + 0.0:.3f}"


def with_interval(figure: Figure) -> str:
    """A value with its interval; why it has none where it has none."""
    if figure.value is None:
        return f'<span class="none">{escape(figure.note)}</span>'
    if figure.interval is None:
        return f'{number(figure.value)} <span class="none">{escape(figure.note)}</span>'
    low, high = figure.interval
    few = '<span class="few" title="few patients">*</span>' if figure.note else ""
    return f"{number(figure.value)}{few} <small>({number(low)} to {number(high)})</small>"


def _head(report: Report) -> str:
    verdict = report.verdict
    kind = {True: "accepted", False: "rejected", None: "open"}[verdict.accepted]
    criteria = ""
    if verdict.judged:
        rows = [
            (
                escape(str(one.criterion)),
                number(one.reached) + (f" <small>{escape(one.note)}</small>" if one.note else ""),
                "met" if one.met else "<b>not met</b>",
            )
            for one in verdict.judged
        ]
        criteria = table(("Criterion", "Reached", ""), rows, "criteria")
    notices = "".join(f"<li>{escape(said)}</li>" for said in report.notices)
    return (
        f'<p class="verdict {kind}">{escape(verdict.words)}</p>'
        f"<h1>Validation on local cases</h1>{paragraph(RESEARCH_USE, 'use')}{criteria}"
        + (f'<div class="notices"><ul>{notices}</ul></div>' if notices else "")
    )


def _tested(report: Report) -> str:
    tested = report.tested
    bundle, engine, here = tested["bundle"], tested["engine"], tested["machine"]
    memory = here["memory_mib"]
    rows = [
        ("Bundle", f"{bundle['name']} {bundle['version']}, digest {bundle['digest']}"),
        ("Intended use", tested["intended_use"]),
        ("Engine", f"{engine['name']} {engine['version']} on {engine['device']}"),
        ("Precision", tested["precision"] + (", every pixel decoded" if tested["exact"] else "")),
        ("Machine", f"{here['processor']}, {here['usable_cores']} cores, {here['system']}"),
        ("Memory", "not known" if memory is None else f"{memory / 1024:.1f} GiB"),
        ("Software", f"hipnet_edge {tested['hipnet_edge']}"),
        ("Date", tested["date"]),
        ("Table", f"sha256 {tested['table_sha256']}"),
        ("Criteria", f"sha256 {tested['criteria_sha256'] or 'none given'}"),
    ]
    if tested["criteria_sha256"] is None:
        rows[-1] = ("Criteria", "none given")
    return section("What was tested", table(("", ""), [(k, escape(v)) for k, v in rows], "facts"))


def _studies(report: Report) -> str:
    from hipnet_edge.evaluation.report import counted

    counts = counted(report.cohort)
    out = ", ".join(
        f"{n} {LEFT_OUT_WORDS[status]}" for status, n in counts["left_out"].items() if n
    )
    names = {**{cause.value: cause.label for cause in CAUSES}, "none": "Not failed"}
    rows = [(names[name], str(n)) for name, n in counts["by_cause"].items()]
    return section(
        "Studies",
        paragraph(
            f"{counts['in_table']} studies in the table; {counts['counted']} of "
            f"{counts['patients']} patients count. Left out: {out or 'none'}."
        ),
        table(("True cause", "Studies"), rows, "narrow"),
    )


def _main(report: Report) -> str:
    figures = report.figures
    rows = [
        (words, with_interval(figures[name]), escape(figures[name].method))
        for name, words in _MAIN.items()
        if name in figures
    ]
    sample = report.cohort.sample.failed
    pictures = plots.roc(sample), plots.reliability(figures["reliability"])
    captions = "ROC, one cause against the rest", "What the probabilities mean"
    return section(
        "Main figures",
        paragraph("Over studies with a cause of failure, but for the last. 95 % intervals."),
        table(("Figure", "Value (95 % interval)", "Interval by"), rows, "main"),
        paragraph("* few patients: the interval itself is uncertain.", "note"),
        '<div class="pair">'
        + "".join(
            f"<figure>{svg}<figcaption>{words}</figcaption></figure>"
            for svg, words in zip(pictures, captions, strict=True)
        )
        + "</div>",
        paragraph(f"Brier score: {causes.BRIER_DEFINITION}.", "note"),
        paragraph(f"Calibration error: {causes.CALIBRATION_DEFINITION}.", "note"),
    )


def _by_cause(report: Report) -> str:
    areas, recall = report.figures["auc"], report.figures["recall"]
    rows = [
        (
            cause.label,
            with_interval(areas[cause.value]),
            escape(areas[cause.value].method.partition(",")[0]),
            with_interval(recall[cause.value]),
        )
        for cause in CAUSES
    ]
    drawn = [
        (cause.label, areas[cause.value].value, areas[cause.value].interval)
        for cause in CAUSES
        if areas[cause.value].interval is not None
    ]
    return section(
        "By cause",
        table(("Cause", "AUC, against the rest", "by", "Part called rightly"), rows),
        f"<figure>{plots.intervals(drawn, 'auc')}<figcaption>AUC with its 95 % interval"
        "</figcaption></figure>"
        if drawn
        else "",
    )


def _confusion(figures: Mapping[str, Any]) -> str:
    counted = figures["confusion"]
    most = max(max(row) for row in counted) or 1
    rows = [
        (
            CAUSES[k].label,
            *(
                f'<span class="cell{" dark" if n > 0.6 * most else ""}" '
                f'style="--part:{n / most:.3f}">{n}</span>'
                for n in row
            ),
            str(sum(row)),
        )
        for k, row in enumerate(counted)
    ]
    head = ("True, down; called, across", *(cause.label for cause in CAUSES), "All")
    return section("Confusion", table(head, rows, "confusion"))


def _thresholds(figures: Mapping[str, Any]) -> str:
    at = figures.get("at_thresholds")
    if not at:
        return ""
    columns = {
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "positive_predictive_value": "Positive predictive value",
        "negative_predictive_value": "Negative predictive value",
        "f1": "F1",
    }
    rows = [
        (
            f"{cause.label} <small>from {at[cause.value]['threshold']:.3f}</small>",
            *(with_interval(at[cause.value][name]) for name in columns),
        )
        for cause in CAUSES
    ]
    return section(
        "Yes or no, at the bundle's thresholds",
        table(("Cause", *columns.values()), rows, "small"),
        paragraph("Predictive values hold for a place with this table's frequencies.", "note"),
    )


def _conformal(figures: Mapping[str, Any]) -> str:
    found = figures.get("conformal")
    if not found:
        return ""
    rows = [("All", with_interval(found["coverage"]))]
    rows += [(cause.label, with_interval(found["by_cause"][cause.value])) for cause in CAUSES]
    size = with_interval(found["mean_size"])
    parts = [
        table((f"True cause among the plausible (meant: {found['meant']:g})", ""), rows),
        f"<p>Plausible causes, mean number: {size}</p>",
    ]
    sign = figures.get("sign_of_failure")
    if sign:
        sign_rows = [
            ("Sound told from failed, AUC", with_interval(sign["auc"])),
            ("Sound ones flagged", with_interval(sign["sound_flagged"])),
            ("Failed ones flagged", with_interval(sign["failed_flagged"])),
        ]
        parts.append(table(("No sign of failure", ""), sign_rows))
    return section("What the bundle says of its own doubt", *parts)


def _risk(report: Report) -> str:
    found = report.figures.get("risk")
    if not found:
        return ""
    words = {"all": "all studies", "within_pji": "within PJI", "ceiling": "ceiling, all studies"}
    rows = [
        (
            f"{marker.upper()}, {words[part]}",
            with_interval(found[marker][part]["spearman"]),
            with_interval(found[marker][part]["pearson_log"]),
            str(found[marker][part]["spearman"].studies),
        )
        for marker in risk.MARKERS
        if marker in found
        for part in words
    ]
    head = ("PJI risk against", "Spearman", "Pearson, on log values", "Studies")
    svg = plots.markers(report.cohort.sample)
    return section(
        "PJI risk against the laboratory",
        table(head, rows),
        f"<figure>{svg}</figure>",
        paragraph(found["definition"], "note"),
    )


def _maps(figures: Mapping[str, Any]) -> str:
    found = figures.get("maps")
    if not found:
        return ""
    columns = {
        "pointing": "Peak within 5 mm",
        "pointing_on_mask": "Peak on it",
        "dice": "Dice",
        "pixel_average_precision": "Pixel average precision",
        "pixel_average_precision_ceiling": "its ceiling",
    }
    names = {"all": "All", **{cause.value: cause.label for cause in CAUSES}}
    rows = [
        (
            names[name],
            str(found[name]["views"]),
            *(with_interval(found[name][column]) for column in columns),
        )
        for name in names
        if name in found
    ]
    return section(
        "Maps against masks",
        table(("", "Views", *columns.values()), rows, "small"),
        paragraph(found["definition"], "note"),
    )


def _subgroups(figures: Mapping[str, Any]) -> str:
    found = figures.get("subgroups")
    if not found:
        return ""
    rows = []
    for kind, groups in found.items():
        for name, group in groups.items():
            few = ' <span class="none">few</span>' if "warning" in group else ""
            rows.append(
                (
                    f"{escape(kind)}: {escape(name)}",
                    f"{group['studies']}{few}",
                    str(group["patients"]),
                    *(with_interval(group[f]) for f in ("accuracy", "macro_auc", "pji_auc")),
                )
            )
    head = ("Group", "Studies", "Patients", "Leading cause right", "Macro AUC", "AUC of PJI")
    return section("Subgroups", table(head, rows, "small"))


def _gallery(mistakes: Sequence[Mistake]) -> str:
    if not mistakes:
        return section("Most confidently wrong", paragraph("No study was called wrongly."))
    cards = []
    for one in mistakes:
        images = "".join(
            f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
            for jpeg in one.pictures
        )
        cards.append(
            f'<figure class="card"><div>{images or escape(one.note)}</div><figcaption>'
            f"Line {one.line}: called <b>{escape(one.called.label)}</b> "
            f"({in_words(one.probability)}), is {escape(one.true.label.lower())} "
            f"({in_words(one.true_probability)})</figcaption></figure>"
        )
    return section(
        "Most confidently wrong",
        paragraph("The map is that of what was called; AP left, lateral right.", "note lead"),
        f'<div class="gallery">{"".join(cards)}</div>',
    )


def _left_out(report: Report) -> str:
    out = report.cohort.left_out
    if not out:
        return section("Studies left out", paragraph("None."))
    by_code: dict[tuple[str, str], list[str]] = {}
    for one in out:
        by_code.setdefault((one.status, one.code), []).append(str(one.line))
    rows = [
        (
            f"{escape(LEFT_OUT_WORDS[status])}: {escape(code)}",
            str(len(lines)),
            ", ".join(lines[:_LINES_NAMED]) + (" ..." if len(lines) > _LINES_NAMED else ""),
        )
        for (status, code), lines in sorted(by_code.items())
    ]
    return section("Studies left out", table(("Why", "Studies", "Lines of the table"), rows))
