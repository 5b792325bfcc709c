"""Verdicts belong to one variant, engine, version and device; limits and verdicts in a manifest."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from small_bundle import small_manifest, small_model

from hipnet_edge.errors import BundleUnusable
from hipnet_edge.manifest import Manifest
from hipnet_edge.verdict import Gate, Limits, ShortcutVerdict, Verdict

PASSED = Verdict("cpu-int8", "onnxruntime", "1.23.2", "cpu-vnni", True, 2000, "2026-11-23")


def manifest(section: object) -> Manifest:
    fields = {**small_manifest(small_model(rows=32, columns=16)), "gate": section}
    return Manifest.from_json(json.dumps(fields).encode())


def test_a_manifest_gives_back_the_gate_that_was_written():
    failed = replace(PASSED, device="cpu-avx2", passed=False)
    gate = Gate(Limits(decision_flips=0.01), (PASSED, failed))
    assert manifest(gate.to_dict()).gate == gate


def test_a_shortcut_is_allowed_only_where_it_passed():
    gate = Gate().with_shortcut(ShortcutVerdict("half", True, 2000, "2026-11-27"))
    assert gate.allows("half")
    assert not gate.allows("quarter")
    refused = gate.with_shortcut(ShortcutVerdict("half", False, 2000, "2026-11-28"))
    assert not refused.allows("half")
    assert len(refused.shortcuts) == 1
    assert manifest(refused.to_dict()).gate == refused
    assert refused.with_verdict(PASSED).shortcuts == refused.shortcuts


def test_a_manifest_without_shortcuts_allows_none():
    section = Gate(verdicts=(PASSED,)).to_dict()
    del section["shortcuts"]
    gate = manifest(section).gate
    assert gate.verdicts == (PASSED,)
    assert not gate.allows("half")


def test_a_bundle_without_the_section_still_loads():
    fields = small_manifest(small_model(rows=32, columns=16))
    assert Manifest.from_json(json.dumps(fields).encode()).gate is None


@pytest.mark.parametrize(
    "other",
    [{"variant": "trt-int8"}, {"backend": "openvino"}, {"version": "1.23"}, {"device": "cpu"}],
    ids=lambda other: next(iter(other)),
)
def test_a_verdict_says_nothing_of_another_combination(other):
    gate = Gate(verdicts=(PASSED,))
    asked = {key: getattr(PASSED, key) for key in ("variant", "backend", "version", "device")}
    assert gate.verdict(**asked) == PASSED
    assert gate.verdict(**{**asked, **other}) is None


def test_a_later_verdict_takes_the_place_of_an_earlier_one():
    refused = replace(PASSED, passed=False)
    gate = Gate(verdicts=(PASSED, replace(PASSED, device="cpu"))).with_verdict(refused)
    assert len(gate.verdicts) == 2
    assert gate.verdict("cpu-int8", "onnxruntime", "1.23.2", "cpu-vnni") == refused


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"limits": {}}, "verdicts"),
        ({"limits": {"top_1": 0.1}, "verdicts": []}, "top_1"),
        ({"limits": {"decision_flips": 2}, "verdicts": []}, "decision_flips"),
        ({"limits": {}, "verdicts": [{**PASSED.to_dict(), "passed": "yes"}]}, "passed"),
        ({"limits": {}, "verdicts": [{**PASSED.to_dict(), "note": ""}]}, "note"),
    ],
)
def test_a_wrong_section_is_refused_and_the_field_named(section, named):
    with pytest.raises(BundleUnusable, match=named):
        manifest(section)


def test_tensorrts_variants_take_half_precision():
    fields = small_manifest(small_model(rows=32, columns=16))
    fields["variants"]["trt-int8"] = dict(fields["variants"]["fp32"])
    variants = Manifest.from_json(json.dumps(fields).encode()).variants
    assert variants["trt-int8"].input_type == "float16"
    assert variants["fp32"].input_type == "float32"
