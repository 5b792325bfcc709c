"""A real Ray cluster of this machine: what processes give, whatever actors die."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from cohorts import STUDIES, write_cohort
from mortal_workers import POISON, Mortal
from small_bundle import write_bundle

from hipnet_edge.errors import EngineUnusable, Reason
from hipnet_edge.scale.answers import Model
from hipnet_edge.scale.cluster import on_cluster
from hipnet_edge.scale.cohort import Where, predict_cohort
from hipnet_edge.scale.work import MOST_DEATHS

pytest.importorskip("psutil", reason="psutil is not installed")
if find_spec("ray") is None:  # not imported here: it reads the cluster's token when it is
    pytest.skip("ray is not installed", allow_module_level=True)

from benchmarks.scale import killed_half_way, ray_cluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address():
    with ray_cluster() as (running, _):
        yield running


def test_a_cohort_on_actors_one_killed_half_way_has_the_bytes_of_one_process(tmp_path, address):
    bundle = write_bundle(tmp_path / "bundle")
    model = Model.choose(bundle, "onnxruntime", "fp32", exact=False)
    (tmp_path / "cohort").mkdir()
    table = write_cohort(tmp_path / "cohort")
    alone = tmp_path / "alone.csv"
    predict_cohort(table, alone, model, Where(workers=1))
    found = killed_half_way(table, tmp_path, model, Where(2, address), "ray", alone)
    assert found == {"killed": 1, "rows": STUDIES, "answered": STUDIES - 2, "same_bytes": True}


def test_an_item_that_kills_its_actor_is_given_up_and_no_other_is_lost(tmp_path, address):
    items = ["a", "b", POISON, "c"]
    answers = sorted(on_cluster(Mortal(tmp_path), items, 1, address))
    assert answers == [(0, "A"), (1, "B"), (2, None), (3, "C")]
    assert MOST_DEATHS <= len(list(tmp_path.iterdir())) <= 2 * MOST_DEATHS


def test_no_cluster_is_said():
    with pytest.raises(EngineUnusable) as raised:
        list(on_cluster(str.upper, ["a"], 1, "127.0.0.1:9"))
    assert raised.value.code is Reason.ENGINE_UNAVAILABLE
