"""Built plans: what is loaded, and what is refused before TensorRT sees a byte of it."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from hipnet_edge.backends.plan_cache import PlanCache, PlanKey, default_folder
from hipnet_edge.backends.private_folder import require_private
from hipnet_edge.errors import EngineUnusable, Reason
from hipnet_edge.verdict import Verdict

KEY = PlanKey(
    network="a" * 64,
    part="network",
    variant="trt-int8",
    flavour="tensorrt",
    version="10.3.0.30",
    device="Orin",
    compute_capability="8.7",
    options={"input": "float16 1x2x512x320", "max_aux_streams": None},
)
VERDICT = Verdict("trt-int8", "tensorrt", "10.3.0.30", "Orin (8.7)", True, 2000, "2026-11-23")
PLAN = b"a plan, for all that this folder knows" * 50


@pytest.fixture
def cache(tmp_path):
    return PlanCache(tmp_path / "plans")


def refused(cache: PlanCache, key: PlanKey = KEY) -> EngineUnusable:
    with pytest.raises(EngineUnusable) as caught:
        cache.load(key)
    return caught.value


def test_a_plan_comes_back_as_it_was_stored_and_its_folder_is_private(cache):
    assert refused(cache).code is Reason.PLAN_MISSING
    cache.store(KEY, PLAN, {"seconds": 1.5})
    plan = cache.load(KEY)
    assert plan.content == PLAN
    assert plan.key == KEY
    assert cache.entries()[KEY.name()].build == {"seconds": 1.5}
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in cache.folder.iterdir())
    cache.store(KEY, PLAN + b"2", {})
    assert cache.load(KEY).content == PLAN + b"2"


def test_one_flipped_byte_is_refused(cache):
    cache.store(KEY, PLAN, {})
    file = cache.folder / KEY.name()
    content = bytearray(PLAN)
    content[700] ^= 1
    file.write_bytes(content)
    assert refused(cache).code is Reason.PLAN_CORRUPT


@pytest.mark.parametrize("content", [PLAN[:-1], PLAN + b"x", b""])
def test_a_plan_of_another_length_is_refused(cache, content):
    cache.store(KEY, PLAN, {})
    (cache.folder / KEY.name()).write_bytes(content)
    assert refused(cache).code is Reason.PLAN_CORRUPT


def test_a_plan_that_is_gone_is_refused(cache):
    cache.store(KEY, PLAN, {})
    (cache.folder / KEY.name()).unlink()
    assert refused(cache).code is Reason.PLAN_CORRUPT


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": 2, "plans": {}}', '{"schema": 1}'])
def test_an_index_that_is_none_is_refused(cache, text):
    cache.store(KEY, PLAN, {})
    (cache.folder / "index.json").write_text(text)
    assert refused(cache).code is Reason.PLAN_CORRUPT


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"network": "b" * 64}, Reason.PLAN_FOREIGN, "another network"),
        ({"part": "resnet"}, Reason.PLAN_FOREIGN, "another part"),
        ({"variant": "trt-fp16"}, Reason.PLAN_FOREIGN, "another variant"),
        ({"device": "NVIDIA A10"}, Reason.PLAN_FOREIGN, "another device"),
        ({"compute_capability": "8.6"}, Reason.PLAN_FOREIGN, "compute capability"),
        ({"version": "10.3.0.26"}, Reason.PLAN_STALE, "expected 10.3.0.30, found 10.3.0.26"),
        ({"flavour": "tensorrt_rtx"}, Reason.PLAN_STALE, "flavour"),
        ({"options": {"max_aux_streams": 3}}, Reason.PLAN_STALE, "options"),
    ],
)
def test_a_plan_for_something_else_is_refused_with_what_is_different(cache, change, code, said):
    cache.store(replace(KEY, **change), PLAN, {})
    error = refused(cache)
    assert error.code is code
    assert said in error.message


def test_a_plan_under_another_ones_name_is_not_taken_for_it(cache):
    """Somebody renames a plan and its entry: the entry's own key still says what it is."""
    other = replace(KEY, network="b" * 64)
    cache.store(other, PLAN, {})
    index = json.loads((cache.folder / "index.json").read_text())
    index["plans"] = {KEY.name(): index["plans"][other.name()]}
    (cache.folder / "index.json").write_text(json.dumps(index))
    (cache.folder / other.name()).rename(cache.folder / KEY.name())
    assert refused(cache).code is Reason.PLAN_FOREIGN


@pytest.mark.parametrize(
    ("capabilities", "fits"),
    [("8.6,8.7", True), ("8.0+", True), ("8.9+", False), ("8.6,8.9", False), ("10.0+", False)],
)
def test_a_plan_built_ahead_serves_the_capabilities_it_names(cache, capabilities, fits):
    cache.store(replace(KEY, device="any", compute_capability=capabilities), PLAN, {})
    if fits:
        assert cache.load(KEY).content == PLAN
    else:
        assert refused(cache).code is Reason.PLAN_FOREIGN


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_folder_that_others_can_write_is_refused(cache, mode):
    cache.store(KEY, PLAN, {})
    cache.folder.chmod(mode)
    assert refused(cache).code is Reason.PLAN_UNTRUSTED
    for attempt in (
        lambda: cache.store(KEY, PLAN, {}),
        lambda: cache.verdicts(KEY.network),
        lambda: cache.record(KEY.network, VERDICT),
    ):
        with pytest.raises(EngineUnusable) as caught:
            attempt()
        assert caught.value.code is Reason.PLAN_UNTRUSTED


def test_a_folder_under_one_that_all_can_write_is_refused(tmp_path):
    (tmp_path / "shared").mkdir(mode=0o700)
    folder = tmp_path / "shared" / "plans"
    folder.mkdir(mode=0o700)
    require_private(folder)
    (tmp_path / "shared").chmod(0o777)
    with pytest.raises(EngineUnusable, match="everybody can write"):
        require_private(folder)
    (tmp_path / "shared").chmod(0o1777)
    require_private(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
@pytest.mark.parametrize("whose", ["plans", "plans/index.json", "."])
def test_what_belongs_to_another_user_is_refused(tmp_path, whose):
    cache = PlanCache(tmp_path / "plans")
    cache.store(KEY, PLAN, {})
    os.chown(tmp_path / whose, 12345, 12345)
    error = refused(cache)
    assert error.code is Reason.PLAN_UNTRUSTED
    assert "another user" in error.message


def test_files_that_others_can_write_and_links_are_refused(cache, tmp_path):
    cache.store(KEY, PLAN, {})
    file = cache.folder / KEY.name()
    file.chmod(0o666)
    assert refused(cache).code is Reason.PLAN_UNTRUSTED
    file.unlink()
    (tmp_path / "elsewhere").write_bytes(PLAN)
    file.symlink_to(tmp_path / "elsewhere")
    assert refused(cache).code is Reason.PLAN_UNTRUSTED


def test_verdicts_belong_to_a_network_and_end_with_their_plan(cache):
    assert cache.verdicts(KEY.network) == ()
    on_the_cpu = replace(VERDICT, backend="onnxruntime", variant="cpu-int8", device="cpu-vnni")
    cache.record(KEY.network, replace(VERDICT, passed=False))
    cache.record(KEY.network, VERDICT)
    cache.record(KEY.network, on_the_cpu)
    cache.record("b" * 64, VERDICT)
    assert cache.verdicts(KEY.network) == (VERDICT, on_the_cpu)
    cache.store(KEY, PLAN, {})
    assert cache.verdicts(KEY.network) == (on_the_cpu,)
    assert cache.verdicts("b" * 64) == (VERDICT,)


def test_the_folder_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HIPNET_EDGE_PLANS", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("HIPNET_EDGE_PLANS")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(default_folder()) == "/somewhere/hipnet-edge/plans"


def test_other_files_of_the_folder_are_kept_privately(cache):
    assert cache.read("timing.cache") == b""
    cache.keep("timing.cache", b"1")
    assert cache.read("timing.cache") == b"1"
    (cache.folder / "timing.cache").chmod(0o646)
    with pytest.raises(EngineUnusable):
        cache.read("timing.cache")
