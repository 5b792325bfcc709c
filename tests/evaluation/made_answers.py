"""Answers with chosen probabilities, from one real prediction of the tiny bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from small_bundle import small_decision, small_manifest, small_model, write_bundle

from hipnet_edge import CAUSES, Prediction
from hipnet_edge.evaluation.recalibration import Answered
from hipnet_edge.overlay import at_temperatures

MEMBERS = ("first", "second", "third", "fourth")


def calibrated_bundle(folder: Path, model: bytes | None = None) -> Path:
    """A tiny bundle that has a calibration."""
    content = small_model(novelty=True) if model is None else model
    return write_bundle(folder, content, small_manifest(content) | {"decision": small_decision()})


def with_members(prediction: Prediction, members: np.ndarray, number: int) -> Prediction:
    """The prediction with other probabilities [4, 5], of other images."""
    by_cause = [dict(zip(CAUSES, map(float, member), strict=True)) for member in members]
    return replace(
        prediction,
        maps={},
        probabilities=dict(zip(CAUSES, map(float, members.mean(axis=0)), strict=True)),
        member_probabilities=dict(zip(MEMBERS, by_cause, strict=True)),
        inputs={
            view: replace(
                record,
                sop_instance_uid=f"1.2.9.{number}.{view.value == 'ap':d}",
                pixel_sha256=f"{2 * number + (view.value == 'ap'):064x}",
            )
            for view, record in prediction.inputs.items()
        },
    )


def answers(
    prediction: Prediction, n: int, temperature: float, seed: int, per_patient: int = 1
) -> list[Answered]:
    """N studies whose causes are drawn from probabilities that the bundle states too surely.

    What it states are the true probabilities at 1 / `temperature`; each member errs on its own.
    """
    random = np.random.default_rng(seed)
    logits = random.normal(0.0, 1.5, (n, 5))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    causes = np.array([random.choice(5, p=row) for row in p])
    noisy = logits[:, None, :] + random.normal(0.0, 0.2, (n, 4, 5))
    shared = np.exp(noisy) / np.exp(noisy).sum(axis=2, keepdims=True)
    stated = at_temperatures(shared, np.full(4, 1.0 / temperature))
    return [
        Answered(int(cause), k // per_patient, with_members(prediction, members, 1000 * seed + k))
        for k, (cause, members) in enumerate(zip(causes, stated, strict=True))
    ]
