"""The comparison of counterfactual twins counts what it says it counts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("scipy", reason="scipy (the export extra) is not installed")

from benchmarks.twins import differences, gone
from hipnet_edge.simulation import simulate_study
from hipnet_edge.simulation.study import erased
from hipnet_edge.vocabulary import Cause, Flag


def test_pixels_that_differ_far_from_the_disease_are_counted():
    study, sound = (simulate_study(c, 31, pixel_spacing_mm=0.8) for c in (Cause.PJI, None))
    twin = erased(study, sound)
    outside, inside = differences(study, twin)
    assert outside == 0
    assert inside > 0
    stored = twin.ap.stored.copy()
    stored[:2, :3] = study.ap.stored[:2, :3] + 1
    assert differences(study, replace(twin, ap=replace(twin.ap, stored=stored)))[0] == 6


def said(pji: float, *flags: Flag, leads: Cause = Cause.PJI) -> SimpleNamespace:
    return SimpleNamespace(probabilities={Cause.PJI: pji}, leading_cause=leads, flags=flags)


@pytest.mark.parametrize(
    ("after", "way"),
    [
        (said(0.3), "probability_halved"),
        (said(0.6, leads=Cause.DISLOCATION), "another_cause_leads"),
        (said(0.6, Flag.NO_SIGN_OF_FAILURE), "no_sign_of_failure"),
        (said(0.6), None),
    ],
)
def test_a_call_is_gone_in_one_of_three_ways(after, way):
    ways = gone(Cause.PJI, said(0.9), after)
    assert {name for name, is_so in ways.items() if is_so} == ({way, "call_gone"} if way else set())
