"""The description of the network's input in a manifest: it round-trips, or it is refused."""

from __future__ import annotations

import json

import pytest

from hipnet_edge.errors import BundleUnusable
from hipnet_edge.preprocessing import InputSpec

SPEC = InputSpec()


def test_input_spec_round_trips():
    assert InputSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 500},
        {"rows": 0},
        {"columns": 1 << 20},
        {"columns": 320.0},
        {"low_percentile": 99.5},
        {"high_percentile": 101.0},
        {"std": 0.0},
        {"mean": float("nan")},
        {"mean": "0.5"},
        {"mean": True},
        {"gamma": 1.0},
    ],
    ids=str,
)
def test_an_input_spec_that_makes_no_sense_is_refused(changes):
    with pytest.raises(BundleUnusable):
        InputSpec.from_dict({**SPEC.to_dict(), **changes})
    with pytest.raises(BundleUnusable):
        InputSpec.from_dict({"rows": 512})
