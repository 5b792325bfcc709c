"""Killed at any moment, and with all that was not synced thrown away, a cart loses nothing."""

from __future__ import annotations

import pytest
from killing import run


def test_power_cuts_while_studies_flow_lose_and_double_nothing(tmp_path, bundle):
    figures = run(tmp_path, bundle, studies=200, kills=50, seed=1, power_cut=True)
    assert figures.delivered == 170
    assert figures.refused.keys() == {"missing_view", "not_a_hip", "different_patients"}
    assert figures.images_sent_again > 0


def test_kills_while_studies_flow_lose_and_double_nothing(tmp_path, bundle):
    figures = run(tmp_path, bundle, studies=40, kills=8, seed=2, power_cut=False)
    assert figures.delivered == 34


pytestmark = pytest.mark.slow
