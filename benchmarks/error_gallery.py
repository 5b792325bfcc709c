"""The most confidently wrong studies: contact sheet, table, and what wrong calls have in common.

    python -m benchmarks.error_gallery --cohort runs/shifted --keep runs/answers

Writes benchmarks/results/errors.json and from it docs/pictures/errors.png and docs/errors.md. What
a person wrote on that page, between the markers "by hand", stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from benchmarks.accuracy import answer, named
from benchmarks.cause_figures import subgroups
from benchmarks.outcome import Outcome
from export.cohort import Cohort
from export.provenance import made_here, write
from hipnet_edge.backends import choose_backend
from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import HipNetError
from hipnet_edge.evaluation.maps import DISEASED_CELL
from hipnet_edge.vocabulary import CAUSES, VIEWS, Cause

Array = NDArray[Any]

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "errors.json"
PICTURE = ROOT / "docs" / "pictures" / "errors.png"
PAGE = ROOT / "docs" / "errors.md"
SHOWN = 12
COLUMNS = 4
RARE = 0.01
"""A group is named as over-represented if chance makes it so less often than this."""
SHORT = {
    Cause.PJI: "infection",
    Cause.ASEPTIC_LOOSENING: "loosening",
    Cause.DISLOCATION: "dislocation",
    Cause.PERIPROSTHETIC_FRACTURE: "fracture",
    Cause.POLYETHYLENE_WEAR: "wear",
}
TILE = (333, 208)
"""Rows and columns of one view."""
TONES = 64
TRUTH, TRUE_PEAK, CALLED_PEAK = (60, 190, 255), (80, 220, 80), (80, 80, 255)
"""Colours (blue, green, red) of the truth's outline and of the two maps' peaks."""
BEGIN, END = "<!-- by hand -->", "<!-- end of by hand -->"


def worst(failed: Outcome, n: int = SHOWN) -> Array:
    """Indices of the wrong calls, the most confident first."""
    wrong = np.flatnonzero(~failed.correct)
    return np.asarray(
        wrong[np.argsort(-failed.probabilities[wrong].max(axis=1), kind="stable")][:n]
    )


def groups(failed: Outcome) -> dict[str, Array]:
    """What a study may have in common with others: its cause, its sign, its implant, its films."""
    causes, sizes = failed.causes, failed.numbers("sign_mm")
    quarter = np.full(len(failed), "no size", dtype="<U24")
    for k in np.unique(causes):
        own = (causes == k) & (sizes > 0)
        if own.any():
            limits = np.quantile(sizes[own], [0.25, 0.75])
            place = np.searchsorted(limits, sizes[own])
            quarter[own] = np.array(["smallest quarter", "middle half", "largest quarter"])[place]
    views = (failed.occupancy >= DISEASED_CELL).any(axis=(2, 3)).sum(axis=1)
    return {
        "true cause": np.array([SHORT[CAUSES[k]] for k in causes]),
        "size of the sign among its cause": quarter,
        "views that show the sign": views.astype(str),
        **subgroups(failed),
    }


def in_common(failed: Outcome) -> list[dict[str, Any]]:
    """Every group's share of the wrong calls beside its share of all, and how often chance does it.

    `p`: Fisher's exact test, two-sided, not corrected for the number of groups.
    """
    wrong = ~failed.correct
    rows = []
    for kind, words in groups(failed).items():
        for word in np.unique(words):
            inside = words == word
            table = [
                [int((inside & wrong).sum()), int((inside & ~wrong).sum())],
                [int((~inside & wrong).sum()), int((~inside & ~wrong).sum())],
            ]
            rows.append(
                {
                    "kind": kind,
                    "group": str(word),
                    "studies": int(inside.sum()),
                    "wrong": table[0][0],
                    "share_of_wrong": round(table[0][0] / max(int(wrong.sum()), 1), 4),
                    "share_of_all": round(float(inside.mean()), 4),
                    "p": float(f"{fisher_exact(table).pvalue:.2g}"),
                }
            )
    return rows


def entry(failed: Outcome, i: int) -> dict[str, Any]:
    """One wrong study in words and numbers."""
    probabilities = failed.probabilities[i]
    called = CAUSES[int(probabilities.argmax())]
    true = CAUSES[failed.causes[i]]
    words: dict[str, Any] = {
        name: str(failed.words(name)[i])
        for name in ("patient_id", "stem", "cup", "projection", "side")
        if name in failed.table
    }
    return {
        "true": true.value,
        "called": called.value,
        "p_called": round(float(probabilities.max()), 4),
        "p_true": round(float(probabilities[failed.causes[i]]), 4),
        "sign_mm": round(float(failed.numbers("sign_mm")[i]), 2),
        **words,
    }


def caption(number: int, one: dict[str, Any]) -> list[str]:
    """Two lines under a study's pictures."""
    true, called = SHORT[Cause(one["true"])], SHORT[Cause(one["called"])]
    facts = [
        f"{one['sign_mm']:.1f} mm",
        *(one[k] for k in ("stem", "cup", "projection") if k in one),
    ]
    return [f"{number}. {true}, called {called} {one['p_called']:.2f}", ", ".join(facts)]


def view_picture(
    grey: Array, truth: Array, true_map: Array, called_map: Array
) -> NDArray[np.uint8]:
    """What the network saw [*TILE, 3]: truth outlined, a cross on the peak of either map.

    Args:
        grey: [rows, columns], 0 to 1.
        truth: [h, w], diseased part of each cell of the maps.
        true_map: [h, w], the map of the true cause.
        called_map: likewise of the cause that was called.
    """
    rows, columns = TILE
    small = cv2.resize(np.clip(grey, 0, 1), (columns, rows), interpolation=cv2.INTER_AREA)
    level = np.round(small * (TONES - 1)) / (TONES - 1)
    picture = cv2.cvtColor((level * 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    cells = np.nan_to_num(truth).astype(np.float32)
    fine = cv2.resize(cells, (columns, rows), interpolation=cv2.INTER_NEAREST)
    edges, _ = cv2.findContours(
        (fine >= DISEASED_CELL).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(picture, edges, -1, TRUTH, 1)
    for one_map, colour, kind in (
        (called_map, CALLED_PEAK, cv2.MARKER_TILTED_CROSS),
        (true_map, TRUE_PEAK, cv2.MARKER_CROSS),
    ):
        row, column = np.unravel_index(int(one_map.argmax()), one_map.shape)
        x = round((float(column) + 0.5) * columns / one_map.shape[1])
        y = round((float(row) + 0.5) * rows / one_map.shape[0])
        cv2.drawMarker(picture, (x, y), colour, kind, 16, 2)
    return np.asarray(picture, np.uint8)


def sheet(failed: Outcome, radiographs: Array, spec: dict[str, Any], shown: Array) -> Array:
    """The contact sheet of the studies `shown`; `radiographs` [len(shown), 2, rows, columns]."""
    tiles = []
    for number, (i, films) in enumerate(zip(shown, radiographs, strict=True), start=1):
        called = int(failed.probabilities[i].argmax())
        views = [
            view_picture(
                films[v].astype(np.float32) * spec["std"] + spec["mean"],
                failed.occupancy[i, v],
                failed.maps[i, v, failed.causes[i]],
                failed.maps[i, v, called],
            )
            for v in range(len(VIEWS))
        ]
        foot = np.full((40, 2 * TILE[1], 3), 255, np.uint8)
        for line, text in enumerate(caption(number, entry(failed, int(i)))):
            where, ink = (4, 15 + 17 * line), (0, 0, 0)
            cv2.putText(foot, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.38, ink, 1, cv2.LINE_AA)
        tile = np.vstack([np.hstack(views), foot])
        tiles.append(cv2.copyMakeBorder(tile, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=(255,) * 3))
    empty = np.full_like(tiles[0], 255)
    tiles += [empty] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    return np.vstack(rows)


def page(report: dict[str, Any], by_hand: str) -> str:
    """The page in Markdown; every figure on it is the report's."""
    total, wrong = report["studies"], report["wrong"]
    table = [
        "| | True | Called | p | p(true) | Sign, mm | Stem | Cup | Lateral | Study |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    table += [
        f"| {i} | {SHORT[Cause(one['true'])]} | {SHORT[Cause(one['called'])]} "
        f"| {one['p_called']:.2f} | {one['p_true']:.2f} | {one['sign_mm']:.1f} "
        + "".join(f"| {one.get(k, '')} " for k in ("stem", "cup", "projection", "patient_id"))
        + "|"
        for i, one in enumerate(report["worst"], start=1)
    ]
    rare = [one for one in report["in_common"] if one["p"] < RARE]
    rare.sort(key=lambda one: one["share_of_all"] - one["share_of_wrong"])
    common = ["| | Group | Wrong of studies | Share of wrong | Share of all | p |"]
    common += ["|---|---|---|---|---|---|"]
    common += [
        f"| {one['kind']} | {one['group']} | {one['wrong']} of {one['studies']} "
        f"| {one['share_of_wrong']:.2f} | {one['share_of_all']:.2f} | {one['p']:g} |"
        for one in rare
    ]
    lines = [
        "# Where it goes wrong",
        "",
        f"Of {total} simulated studies of the shifted site with a cause of failure, the network "
        f"`{report['bundle']['network_sha256'][:12]}` calls {wrong} wrongly. These are the "
        f"{len(report['worst'])} it was most sure of. Orange outlines the truth; the green upright "
        "cross is the peak of the true cause's map, the red tilted one that of the cause called.",
        "",
        "![The most confidently wrong studies](pictures/errors.png)",
        "",
        *table,
        "",
        "## What the wrong calls have in common",
        "",
        f"All {wrong} wrong calls: the groups whose share of them differs from their share of the "
        f"cohort by more than chance would make it (Fisher's exact test, p below {RARE:g}, "
        f"{len(report['in_common'])} groups compared, no correction).",
        "",
        *common,
        "",
        BEGIN,
        by_hand.strip(),
        END,
        "",
        "Made by `python -m benchmarks.error_gallery` from `benchmarks/results/errors.json`.",
        "",
    ]
    return "\n".join(lines)


def written_by_hand(path: Path) -> str:
    """What a person wrote on the page, if there is one."""
    if not path.exists():
        return ""
    return path.read_text().partition(BEGIN)[2].partition(END)[0]


@click.command(help=__doc__)
@click.option("--bundle", type=click.Path(path_type=Path), help="Default: the reference bundle.")
@click.option("--cohort", "directory", type=click.Path(path_type=Path), required=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Where answers are kept.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULT, show_default=True)
@click.option("--picture", type=click.Path(path_type=Path), default=PICTURE, show_default=True)
@click.option("--page", "page_path", type=click.Path(path_type=Path), default=PAGE)
def main(
    bundle: Path | None,
    directory: Path,
    keep: Path | None,
    out: Path,
    picture: Path,
    page_path: Path,
) -> None:
    """Show a bundle's worst errors."""
    try:
        model = Bundle.load(bundle) if bundle else Bundle.reference()
        cohort = Cohort.load(directory)
        choice = choose_backend(model, "onnxruntime", "fp32")
        measured = answer(model, choice, cohort, keep and keep / "answers.npz")
        choice.backend.close()
    except (HipNetError, FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    failed, shown = measured.failed, worst(measured.failed)
    if shown.size == 0:
        raise click.ClickException("No study was called wrongly; there is nothing to show.")
    where = np.flatnonzero(measured.causes >= 0)[shown]
    report = {
        "what": "wrong calls on simulated studies of a site that took no part in training",
        **made_here("numpy", "scipy"),
        "bundle": named(model, choice.variant),
        "cohort": cohort.index,
        "studies": len(failed),
        "wrong": int((~failed.correct).sum()),
        "worst": [entry(failed, int(i)) for i in shown],
        "in_common": in_common(failed),
    }
    for path in (picture, page_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write(report, out)
    films = np.stack([cohort.radiographs[int(i)] for i in where])
    drawn = sheet(failed, films, cohort.index["input"], shown)
    cv2.imwrite(str(picture), drawn, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    page_path.write_text(page(report, written_by_hand(page_path)))
    print(f"{report['wrong']} of {report['studies']} wrong; see {page_path}")


if __name__ == "__main__":
    main()
