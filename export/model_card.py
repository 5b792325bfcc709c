"""The model card: what a bundle is, what it was measured on, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hipnet_edge.vocabulary import CAUSES

_CARD = """# Model card: {name} {version}

**Trained on simulated radiographs only. Never validated on patients. Not for clinical use.**

## What it is

Four convolutional backbones, a map head and a fusion in one ONNX file. Input: an AP and a lateral
radiograph of one hip with a failed arthroplasty, as `hipnet_edge.preprocessing` makes them
({rows} x {columns} pixels, cropped around the prosthesis). Output: the probabilities of five causes
of failure, those of each backbone, and a disease-probability map for each view and cause.
Probabilities are conditional on a failed prosthesis: a sound one was never shown, nor were two
causes at once.

The task is that of Hip-Net (Wu et al., JBJS 2025, doi 10.2106/JBJS.24.01601). That paper names
neither its backbones nor its input size, and its weights are not public: the backbones here are
this project's own choice, trained from random weights on data of its own making. None of its
figures apply here, and none of these there.

| Backbone | Family | Parameters | Temperature | Macro AUC alone |
|---|---|---|---|---|
{backbones}

## Data

{studies} simulated studies for training (seed {seed}, pixels of {pixel_spacing_mm} mm), the five
causes equally often, made by `hipnet_edge.simulation` and preprocessed by the runtime's own code.
Each has the truth mask of the diseased region, which the maps learned from. The simulation shows
the classical signs as its authors drew them: agreement with real films was not measured.
{notes}

## Measured on {held_out} other simulated studies

The temperatures were fitted on the same studies, so calibration error and NLL are a little
optimistic; the other figures do not depend on them much. The simulation is the one used for
training: this says that the network learned what it was shown, and nothing about patients.

| Figure | Value |
|---|---|
{figures}

`pointing`: part of the views in which the peak of the true cause's map lies on a diseased cell
(8 x 8 network pixels) or beside one; a peak at random would in {pointing_chance}.

## Known limits

- Real films hold what the simulation does not; expect figures to be far worse on them.
- No calibration for any real prevalence: the five causes were equally frequent.
- Maps are taught by masks of the simulation; they show where the network sees signs, not proof.
- No detection of unsuitable input beyond the rules of preprocessing.

## Intended use

Development, demonstration and measurement of edge inference. A person with data of patients trains
the same network on them (`export/README.md`) and validates the result before any use.
"""


def model_card(manifest_fields: Mapping[str, Any]) -> str:
    """The card, from what the manifest says.

    Args:
        manifest_fields: with `training.metrics` as `export.fit_head` writes them.
    """
    metrics = manifest_fields["training"]["metrics"]
    train, found = metrics["train"], metrics["validation"]
    figures = {
        "macro AUC, one against rest": found["macro_auc"],
        **{f"AUC, {cause.label.lower()}": found["auc_by_cause"][cause.value] for cause in CAUSES},
        "accuracy of the leading cause": found["accuracy"],
        "expected calibration error": found["calibration_error"],
        "negative log-likelihood": found["nll"],
        "maps: pointing": found["maps"]["pointing"],
        "maps: average precision over cells": found["maps"]["average_precision"],
    }
    backbones = [
        f"| {b['name']} | {b['family']} | {b['parameters']:,} | {b['temperature']} "
        f"| {found['member_macro_auc'][b['name']]} |"
        for b in manifest_fields["backbones"]
    ]
    return _CARD.format(
        name=manifest_fields["name"],
        version=manifest_fields["version"],
        rows=manifest_fields["input"]["rows"],
        columns=manifest_fields["input"]["columns"],
        backbones="\n".join(backbones),
        studies=f"{train['n']:,}",
        seed=train["seed"],
        pixel_spacing_mm=train["pixel_spacing_mm"],
        notes="".join(f"\n- {note}" for note in manifest_fields["training"].get("notes", ())),
        held_out=f"{found['studies']:,}",
        figures="\n".join(f"| {name} | {value} |" for name, value in figures.items()),
        pointing_chance=found["maps"]["pointing_chance"],
    )
