"""The model card: what a bundle is, what it was measured on, and what it must not be used for.

    python -m export.model_card --bundle engines/reference \
        --accuracy benchmarks/results/accuracy.json \
        --out-of-distribution benchmarks/results/out_of_distribution.json

`export.to_onnx` writes a card with the figures of the fit. Once the bundle is measured, this
writes it again with the figures of the measurements; the network in the bundle stays what it is.
Every figure comes from the manifest or from the files named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import HipNetError
from hipnet_edge.verdict import REFERENCE
from hipnet_edge.vocabulary import CAUSES

CARD_FILE = "MODEL_CARD.md"

_CARD = """# Model card: {name} {version}

**{origin} Never validated on patients. Not for clinical use.**

## What it is

Four convolutional backbones, a map head, a fusion and a score of novelty in one ONNX file. Input:
an AP and a lateral radiograph of one hip with an arthroplasty, as `hipnet_edge.preprocessing` makes
them ({rows} x {columns} pixels, cropped around the prosthesis). Output: the probabilities of five
causes of failure, those of each backbone, a disease-probability map for each view and cause, and
how far the study is from those of the training. **Probabilities are conditional on a failed
prosthesis, and they sum to one**: a sound one gets some cause too (the flag `no_sign_of_failure`
is there for it), and of two causes at once at most one can exceed a half.

The task is that of Hip-Net (Wu et al., JBJS 2025, doi 10.2106/JBJS.24.01601). That paper names
neither its backbones nor its input size, and its weights are not public: the backbones here are
not its own. None of its figures apply here, and none of these there.

| Backbone | Family | Parameters | Temperature | Macro AUC alone, validation |
|---|---|---|---|---|
{backbones}

## Variants

{variants}

## Intended use

Development, demonstration and measurement of edge inference. Not for the care of any patient, not
as a comparison with readers, not as evidence about any implant. A person with data of patients
trains the same network, or refits to their own backbones, as `docs/your-own-model.md` says, and
validates the result before any use.

## Training data

{data}
{notes}

## Fitted on validation studies

Map head and novelty were fitted to training studies; the rest to {validation} failed and {sound}
sound validation studies of the same kind: one half set the temperatures, the other the thresholds
and the conformal set, all of them the limits of novelty and of the sign of failure. All of it
belongs to this set of backbones.

| Figure on validation | Value |
|---|---|
{fitted}

{measured}

{strangers}

## Known limits

- {films}
- No calibration for any real prevalence. The sign of failure is calibrated as if failed and sound
  prostheses were equally frequent.
- Maps are taught by masks; they show where the network sees signs, not proof.
- Novelty knows strangers that look strange to the backbones; a plausible picture of something else
  may pass. The rules of preprocessing (body part, view, side) come first.
- A conformal set keeps its coverage only on studies like those that set it.
"""

_SIMULATED = """{studies} simulated studies ({sound} of them sound prostheses), made by
`hipnet_edge.simulation` and preprocessed by the runtime's own code; {facts}. Each has the truth
mask of the diseased region, which the maps learned from. All come from the site `development`; the
site `shifted` (other implants, detectors, habits) took no part. It is the same renderer: figures on
it are no external validation. A latent severity of infection drives the signs of PJI and also the
simulated CRP and ESR: **that PJI risk goes along with CRP and ESR is an input of the simulation,
not a finding.** What is unlike real films stands in `docs/simulation.md`."""

_BROUGHT = """{studies} studies ({sound} of them sound prostheses) that the maker of this bundle
brought; {facts}."""


def model_card(
    manifest: Mapping[str, Any],
    accuracy: Mapping[str, Any] | None = None,
    strangers: Mapping[str, Any] | None = None,
) -> str:
    """The card.

    Args:
        manifest: with `training.metrics` as `export.refit` writes them.
        accuracy: what `benchmarks.accuracy` wrote of this network.
        strangers: what `benchmarks.out_of_distribution` wrote of this network.
    """
    training, simulated = manifest["training"], manifest["simulated"]
    train, found = training["metrics"]["train"], training["metrics"]["validation"]
    facts = {key: value for key, value in train.items() if key not in ("n", "sound")}
    return _CARD.format(
        name=manifest["name"],
        version=manifest["version"],
        origin="Trained on simulated radiographs only." if simulated else "Research use only.",
        rows=manifest["input"]["rows"],
        columns=manifest["input"]["columns"],
        backbones="\n".join(
            f"| {b['name']} | {b['family']} | {b['parameters']:,} | {b['temperature']} "
            f"| {found['member_macro_auc'][b['name']]} |"
            for b in manifest["backbones"]
        ),
        variants=_variants(manifest),
        data=(_SIMULATED if simulated else _BROUGHT).format(
            studies=f"{train['n']:,}",
            sound=f"{train['sound']:,}",
            facts=", ".join(f"{_words(key)} {value}" for key, value in facts.items()) or "no more",
        ),
        notes="".join(f"\n- {note}" for note in training.get("notes", ())),
        validation=f"{found['studies']:,}",
        sound=f"{found['sound_studies']:,}",
        fitted="\n".join(f"| {name} | {value} |" for name, value in _numbers(found)),
        measured=_measured(accuracy),
        strangers=_strangers(manifest, strangers),
        films="Real films hold what the simulation does not; expect figures to be far worse there."
        if simulated
        else "It does not know other hospitals, detectors and implants than those of the training.",
    )


def _variants(manifest: Mapping[str, Any]) -> str:
    """Every form of the network, how large its file is, and where the gate has passed it."""
    passed: dict[str, list[str]] = {}
    for verdict in manifest.get("gate", {}).get("verdicts", ()):
        if verdict["passed"]:
            passed.setdefault(verdict["variant"], []).append(
                f"{verdict['backend']} {verdict['version']} on {verdict['device']} "
                f"({verdict['studies']:,} studies, {verdict['date']})"
            )
    sizes = {name: file["bytes"] for name, file in manifest.get("files", {}).items()}
    rows = []
    for name, variant in manifest["variants"].items():
        size = sizes.get(variant["file"])
        where = "is what all others are compared with" if name == REFERENCE else "nowhere yet"
        rows.append(
            f"| `{name}` | {'-' if size is None else f'{size / 1e6:.1f} MB'} "
            f"| {'; '.join(passed.get(name, [where]))} |"
        )
    shortcuts = [
        f"\nThe gate has passed the shortcut `{verdict['shortcut']}` in reading "
        f"({verdict['studies']:,} studies, {verdict['date']}); `exact=True` turns it off."
        for verdict in manifest.get("gate", {}).get("shortcuts", ())
        if verdict["passed"]
    ]
    header = ["| Variant | File | The gate has passed it on |", "|---|---|---|"]
    return "\n".join([*header, *rows, *shortcuts])


def _words(key: str) -> str:
    return key.removeprefix("simulated_").replace("_", " ")


def _numbers(found: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number in nested figures with the words on the way to it."""
    for key, value in found.items():
        name = f"{path}, {_words(key)}" if path else _words(key)
        if isinstance(value, Mapping):
            yield from _numbers(value, name)
        elif isinstance(value, int | float):
            yield name, value


def _value(figure: Any) -> str:
    """A figure with its interval, if it is one."""
    if not isinstance(figure, Mapping) or figure.get("value") is None:
        return "-"
    interval = figure.get("ci95") or figure.get("wilson_95")
    if not interval:
        return str(figure["value"])
    low, high = ("none" if edge is None else edge for edge in interval)
    return f"{figure['value']} ({low} to {high})"


def _dig(figures: Any, *path: str) -> Any:
    for key in path:
        figures = figures.get(key) if isinstance(figures, Mapping) else None
    return figures


_BY_CAUSE = {
    "AUC": ("simulated_auc_by_cause", "{}"),
    "Sensitivity at threshold": (
        "simulated_one_against_rest_accuracy", "by_cause", "{}", "sensitivity",
    ),
    "Specificity": ("simulated_one_against_rest_accuracy", "by_cause", "{}", "specificity"),
    "Smallest sign found, mm": ("simulated_smallest_sign", "{}", "smallest_found_mm"),
    "Map peak at the sign": ("simulated_maps", "by_cause", "{}", "pointing"),
    "In the conformal set": ("simulated_conformal", "by_cause", "{}", "coverage"),
}  # fmt: skip
"""Columns of the table by cause: where in the accuracy report a figure stands."""


def _measured(accuracy: Mapping[str, Any] | None) -> str:
    """Everything that `benchmarks.accuracy` found."""
    if accuracy is None:
        return "## Measured\n\nNot measured on studies that nothing was fitted to."
    figures, cohort = accuracy["figures"], accuracy["cohort"]
    rows = [
        f"| {cause.label} | "
        + " | ".join(
            _value(_dig(figures, *(key.format(cause.value) for key in path)))
            for path in _BY_CAUSE.values()
        )
        + " |"
        for cause in CAUSES
    ]
    others = [f"| {name} | {text} |" for name, text in _figures(figures)]
    return "\n".join(
        [
            "## Measured on studies that nothing was fitted to",
            "",
            f"{cohort['studies']:,} studies of the site `{cohort.get('site', 'unknown')}`, "
            f"{accuracy['date']}: {accuracy['what']}. In brackets 95 % intervals (bootstrap).",
            "",
            "| Cause | " + " | ".join(_BY_CAUSE) + " |",
            "|---" * (len(_BY_CAUSE) + 1) + "|",
            *rows,
            "",
            "| Figure | Value |",
            "|---|---|",
            *others,
            "",
            "### How it fails",
            "",
            *_failures(figures),
        ]
    )


def _figures(figures: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Figures with an interval that are not told by cause or subgroup."""
    causes = {cause.value for cause in CAUSES}
    for key, value in figures.items():
        name = f"{path}, {_words(key)}" if path else _words(key)
        if not isinstance(value, Mapping) or causes & set(value) or key.endswith("by_subgroup"):
            continue
        if value.get("ci95"):
            yield name, _value(value)
        else:
            yield from _figures(value, name)


def _failures(figures: Mapping[str, Any]) -> list[str]:
    """Which cause is called what most often, and where the calls are worst."""
    lines = []
    confusion = figures.get("simulated_confusion_true_by_called", {}).get("studies", [])
    for cause, row in zip(CAUSES, confusion, strict=False):
        called = max((k for k in range(len(row)) if CAUSES[k] is not cause), key=row.__getitem__)
        if row[called]:
            lines.append(
                f"- {cause.label}: {row[called]} of {sum(row)} studies are called "
                f"{CAUSES[called].label.lower()}, more than any other wrong cause."
            )
    for kind, groups in figures.get("simulated_accuracy_by_subgroup", {}).items():
        known = {name: group for name, group in groups.items() if group.get("value") is not None}
        if len(known) > 1:
            worst = min(known, key=lambda name: known[name]["value"])
            lines.append(
                f"- Fewest right calls by {_words(kind)}: {worst}, {_value(known[worst])}."
            )
    return lines or ["No confusion is in the report."]


def _strangers(manifest: Mapping[str, Any], strangers: Mapping[str, Any] | None) -> str:
    """Out-of-distribution and conformal calibration, and what strangers got."""
    decision = manifest["decision"]
    lines = [
        "## Strangers",
        "",
        f"A study whose novelty exceeds {decision['novelty']['threshold']:.3f} is flagged "
        "`out_of_distribution`; half of the training studies have less than 1.",
    ]
    if strangers is not None:
        figures = strangers["figures"]
        lines += [
            "",
            "| Kind | AUROC of novelty | Refused or flagged, if stated to be a hip |",
            "|---|---|---|",
            *(
                f"| {_words(kind)} | {_value(found.get('auroc'))} | "
                f"{_value(_dig(found, 'stated_to_be_a_hip', 'refused_or_flagged'))} |"
                for kind, found in {
                    "all kinds": figures["simulated_all_strangers"],
                    **figures["simulated_by_kind"],
                }.items()
            ),
            "",
            "False alarms on studies of hips: "
            f"{_value(_dig(figures, 'simulated_false_alarms', 'all'))}.",
        ]
    conformal, sign = decision["conformal"], decision["sign_of_failure"]
    lines += [
        "",
        f"Plausible causes: those with a probability of at least {1 - conformal['threshold']:.4f}, "
        f"meant to hold the true cause in {conformal['coverage']:.0%} of the studies.",
        "",
        "No sound prostheses were at hand: the sign of failure is not calibrated."
        if sign is None
        else f"`no_sign_of_failure` is raised below a probability of {sign['threshold']:.3f}.",
    ]
    return "\n".join(lines)


def rewrite(bundle: Bundle, accuracy: Mapping[str, Any], strangers: Mapping[str, Any]) -> Bundle:
    """Write the card of a bundle again, with measurements of its reference; none if empty.

    Raises:
        ValueError: a report is of another network.
    """
    path = bundle.path / "manifest.json"
    manifest = json.loads(path.read_text())
    for report in (accuracy, strangers):
        if report and report["bundle"]["network_sha256"] != bundle.network(REFERENCE):
            raise ValueError(f"the report is of network {report['bundle']['network_sha256'][:12]}")
    card = model_card(manifest, accuracy or None, strangers or None).encode()
    (bundle.path / CARD_FILE).write_bytes(card)
    manifest["files"][CARD_FILE] = {
        "sha256": hashlib.sha256(card).hexdigest(),
        "bytes": len(card),
    }
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    return Bundle.load(bundle.path)


def _read(paths: Sequence[Path | None]) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) if path is not None else {} for path in paths]


@click.command(help=__doc__)
@click.option("--bundle", type=click.Path(path_type=Path), required=True)
@click.option("--accuracy", type=click.Path(path_type=Path, exists=True))
@click.option("--out-of-distribution", "strangers", type=click.Path(path_type=Path, exists=True))
def main(bundle: Path, accuracy: Path | None, strangers: Path | None) -> None:
    """Write the card of a measured bundle."""
    try:
        written = rewrite(Bundle.load(bundle), *_read((accuracy, strangers)))
    except (HipNetError, KeyError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    print(f"{written.path / CARD_FILE}: bundle {written.digest}")


if __name__ == "__main__":
    main()
