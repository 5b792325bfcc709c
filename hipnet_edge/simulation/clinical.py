"""C-reactive protein and sedimentation rate of a simulated patient.

Log-normal about medians of textbook order, rounded by us. That they rise with the severity of an
infection is an input of the simulation, and no finding about patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..vocabulary import Cause
from .dimensions import Draws


@dataclass(frozen=True)
class LogNormal:
    """A log-normal quantity: median at severity 0 and at severity 1, spread of its logarithm."""

    median: float
    median_if_severe: float
    sd_of_log: float


CRP_MG_L: dict[Cause | None, LogNormal] = {
    Cause.PJI: LogNormal(15.0, 120.0, 0.7),
    Cause.PERIPROSTHETIC_FRACTURE: LogNormal(9.0, 9.0, 0.8),
    Cause.DISLOCATION: LogNormal(9.0, 9.0, 0.8),
    None: LogNormal(4.0, 4.0, 0.8),
}
"""C-reactive protein, mg/L, by cause; None: every other, and none."""

ESR_MM_H: dict[Cause | None, LogNormal] = {
    Cause.PJI: LogNormal(28.0, 75.0, 0.45),
    None: LogNormal(14.0, 14.0, 0.5),
}
"""Erythrocyte sedimentation rate, mm/h, by cause; None: every other, and none."""


def _value(row: LogNormal, severity: float, draws: Draws) -> float:
    low, high = np.log([row.median, row.median_if_severe])
    scatter = row.sd_of_log * draws.rng.standard_normal()
    return float(np.exp(low + severity * (high - low) + scatter))


def blood_tests(severities: dict[Cause, float], draws: Draws) -> tuple[float, float]:
    """CRP in mg/L and ESR in mm/h of a patient with these causes, infection before any other.

    The same stream gives the same scatter whatever the cause.
    """
    order = (Cause.PJI, Cause.PERIPROSTHETIC_FRACTURE, Cause.DISLOCATION)
    cause = next((c for c in order if c in severities), None)
    severity = severities[cause] if cause else 0.0
    crp = _value(CRP_MG_L.get(cause, CRP_MG_L[None]), severity, draws)
    esr = _value(ESR_MM_H.get(cause, ESR_MM_H[None]), severity, draws)
    return crp, esr
