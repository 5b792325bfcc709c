"""The self-test: known studies give their stored answers, and a change does not pass unseen."""

from __future__ import annotations

import json

import pytest
from small_bundle import declared, small_manifest, small_model, write_bundle

from hipnet_edge import Bundle, BundleUnusable, Cause, EngineUnusable, Predictor, Reason
from hipnet_edge.selftest import (
    FAILED,
    NOT_COMPARABLE,
    PASSED,
    KnownStudy,
    selftest,
    write_selftest,
)

STUDIES = [KnownStudy(Cause.PJI, 7, 0.8), KnownStudy(None, 8, 0.8)]


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict:
    """The content of a self-test that was stored by the small network."""
    folder = write_bundle(tmp_path_factory.mktemp("bundle"))
    return json.loads(write_selftest(folder, STUDIES).read_bytes())


def bundle_with(folder, answers: dict, model: bytes | None = None):
    model = small_model() if model is None else model
    text = json.dumps(answers)
    manifest = small_manifest(model)
    manifest["files"]["selftest.json"] = declared(text.encode())
    write_bundle(folder, model, manifest)
    (folder / "selftest.json").write_text(text)
    return folder


def report_on(folder):
    with Predictor(folder, threads=1) as predictor:
        return selftest(predictor)


def outcomes(report) -> list[str]:
    return [check.outcome for check in report.checks]


def test_what_was_stored_is_what_is_found(tmp_path, answers):
    folder = bundle_with(tmp_path, answers)
    report = report_on(folder)
    assert outcomes(report) == [PASSED] * 4
    assert report.passed
    report.raise_for_failure()
    assert report.bundle_digest == Bundle.load(folder).digest
    names = [check.name for check in report.checks]
    assert names == ["pattern 0", "pattern 1", "study pji, seed 7", "study sound, seed 8"]
    assert max(check.largest_difference for check in report.checks) < 1e-5
    assert json.loads(json.dumps(report.to_dict()))["passed"] is True


def test_writing_lists_the_file_in_the_manifest(tmp_path):
    folder = write_bundle(tmp_path / "bundle")
    before = Bundle.load(folder).digest
    write_selftest(folder, STUDIES[:1])
    after = Bundle.load(folder)
    assert "selftest.json" in after.manifest.files
    assert after.digest != before
    write_selftest(folder, STUDIES[:1])
    assert Bundle.load(folder).digest == after.digest


def test_another_network_is_found_out(tmp_path, answers):
    one = json.loads(json.dumps(answers))
    del one["answers"]["fp32"]["studies"][1]
    report = report_on(bundle_with(tmp_path, one, small_model(scale=1.05)))
    assert outcomes(report) == [FAILED] * 3
    assert not report.passed
    with pytest.raises(EngineUnusable) as caught:
        report.raise_for_failure()
    assert caught.value.code is Reason.SELFTEST_FAILED
    assert "study pji, seed 7" in caught.value.message


def test_what_differs_is_told_apart(tmp_path, answers):
    changed = json.loads(json.dumps(answers))
    stored = changed["answers"]["fp32"]
    stored["patterns"] = []
    moved, other_input = stored["studies"]
    stored["studies"].append(other_pixels := json.loads(json.dumps(moved)))
    moved["peaks"]["lateral"]["dislocation"]["row"] += 20
    other_input["input_sha256"] = "0" * 64
    for study in (other_input, other_pixels):
        study["probabilities"]["pji"] = 1.0
    # Another version of NumPy that draws other random numbers is not held against the device.
    other_pixels["pixel_sha256"]["ap"] = "0" * 64
    report = report_on(bundle_with(tmp_path, changed))
    assert outcomes(report) == [FAILED, FAILED, NOT_COMPARABLE]
    assert "the network's input is the same" in report.checks[0].detail
    assert "the network's input differs" in report.checks[1].detail
    assert "other pixels" in report.checks[2].detail


def test_other_random_numbers_alone_do_not_fail_a_device(tmp_path, answers):
    changed = json.loads(json.dumps(answers))
    stored = changed["answers"]["fp32"]
    del stored["studies"][1]
    stored["studies"][0]["pixel_sha256"]["ap"] = "0" * 64
    stored["studies"][0]["probabilities"]["pji"] = 1.0
    report = report_on(bundle_with(tmp_path, changed))
    assert outcomes(report) == [PASSED, PASSED, NOT_COMPARABLE]
    assert report.passed


def test_a_bundle_without_answers_says_so(tmp_path, answers):
    with pytest.raises(BundleUnusable, match="no self-test"):
        report_on(write_bundle(tmp_path / "none"))
    other = {"schema": 1, "answers": {"cpu-int8": answers["answers"]["fp32"]}}
    with pytest.raises(BundleUnusable, match="fp32"):
        report_on(bundle_with(tmp_path / "other", other))


@pytest.mark.parametrize("content", [{}, {"schema": 2, "answers": {}}, [], {"schema": 1}])
def test_a_damaged_selftest_is_refused(tmp_path, content):
    with pytest.raises(BundleUnusable, match=r"selftest\.json"):
        report_on(bundle_with(tmp_path, content))


@pytest.mark.skipif(
    not Bundle.reference_path().is_dir(), reason="engines/reference is not in this checkout"
)
def test_the_reference_bundle_answers_as_when_it_was_made():
    with Predictor.reference() as predictor:
        report = selftest(predictor)
    assert set(outcomes(report)) == {PASSED}, report


@pytest.mark.skipif(
    not Bundle.reference_path().is_dir(), reason="engines/reference is not in this checkout"
)
def test_the_reference_bundle_answers_its_patterns_as_when_it_was_made():
    with Predictor.reference() as predictor:
        report = selftest(predictor)
    assert report.passed
    assert outcomes(report).count(PASSED) >= 2
