"""An overlay: exact, its own digest, refused where it does not belong, named by every result."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from made_answers import calibrated_bundle
from onnx import numpy_helper
from small_bundle import small_model
from small_study import pair

from hipnet_edge import (
    CAUSES,
    BundleUnusable,
    InputRefused,
    Overlay,
    OverlayUnusable,
    Prediction,
    Predictor,
    Radiograph,
    Reason,
    Study,
    UsageError,
)
from hipnet_edge.cli import run
from hipnet_edge.overlay import at_temperatures, image_names
from hipnet_edge.render import write_page
from hipnet_edge.wording import result_table

TEMPERATURES = {"first": 2.0, "second": 0.5, "third": 1.3, "fourth": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return calibrated_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def plain(folder) -> Prediction:
    with Predictor(folder, threads=1) as predictor:
        return predictor.predict(*pair(1))


def content(prediction: Prediction, **changes: object) -> dict[str, object]:
    made_by = prediction.provenance
    return {
        "bundle": {"name": "small", "version": "1.0", "digest": made_by.bundle_digest},
        "variant": "fp32",
        "engine": {"name": "onnxruntime", "version": "1", "device": "cpu"},
        "package_version": "0.1.0",
        "created": "2026-02-03",
        "intended_use": "Tests.",
        "temperatures": TEMPERATURES,
        "thresholds": {cause.value: 0.3 for cause in CAUSES},
        "conformal": {"coverage": 0.9, "threshold": 0.99},
        "fitted_on": {"salt": "salt", "images": []},
        "figures": {},
        "notices": [],
        **changes,
    }


@pytest.fixture
def file(plain, tmp_path) -> Path:
    Overlay.from_content(content(plain)).save(tmp_path / "site.overlay.json")
    return tmp_path / "site.overlay.json"


def test_another_temperature_needs_no_logits():
    random = np.random.default_rng(0)
    logits = random.normal(0, 4, (2000, 4, 5))
    temperatures = np.array([0.4, 1.0, 1.7, 3.0])

    def softmax(values: np.ndarray) -> np.ndarray:
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)

    found = at_temperatures(softmax(logits).astype(np.float32), temperatures)
    assert np.abs(found - softmax(logits / temperatures[:, None])).max() < 1e-6
    # Even where float32 has lost a probability, nothing that matters comes back from it.
    lost = at_temperatures(np.array([[1.0, 0.0, 0.0, 0.0, 0.0]]), np.array([2.0]))
    assert lost[0, 1:].max() < 1e-18
    assert np.isfinite(lost).all()


def test_an_overlay_answers_as_a_network_with_its_temperatures_inside(folder, plain, tmp_path):
    def divide_logits(model: onnx.ModelProto) -> None:
        (mix,) = (one for one in model.graph.initializer if one.name == "mix")
        divisors = np.repeat(list(TEMPERATURES.values()), 5)
        weights = numpy_helper.to_array(mix) / divisors
        mix.CopyFrom(numpy_helper.from_array(weights.astype(np.float32), "mix"))

    inside = calibrated_bundle(tmp_path / "b", small_model(novelty=True, change=divide_logits))
    overlay = Overlay.from_content(content(plain))
    with (
        Predictor(inside, threads=1) as expected,
        Predictor(folder, threads=1, overlay=overlay) as found,
    ):
        for seed in range(1, 4):
            one, two = expected.predict(*pair(seed)), found.predict(*pair(seed))
            for cause in CAUSES:
                assert two.probabilities[cause] == pytest.approx(one.probabilities[cause], abs=1e-6)
                for name, member in one.member_probabilities.items():
                    assert two.member_probabilities[name][cause] == pytest.approx(
                        member[cause], abs=1e-6
                    )
            assert np.array_equal(two.maps["ap"], one.maps["ap"])
            assert (two.novelty, two.sign_of_failure) == (one.novelty, one.sign_of_failure)
    assert two.probabilities != plain.probabilities


def test_results_name_the_overlay_and_follow_its_calibration(folder, plain, file, tmp_path, capsys):
    overlay = Overlay.load(file)
    study = Study(*map(Radiograph.from_dicom, pair(1)))
    with Predictor(folder, threads=1, overlay=file) as predictor:
        prediction = predictor.predict(study)
        assert predictor.info()["overlay"] == overlay.digest
        assert predictor.decision.thresholds == overlay.thresholds
        assert predictor.decision.novelty_threshold == 1.0  # the bundle's
    assert plain.provenance.overlay_digest is None
    assert prediction.provenance.overlay_digest == overlay.digest
    assert Prediction.from_dict(prediction.to_dict()) == prediction
    assert overlay.digest[:12] in result_table(prediction)
    assert overlay.digest[:12] not in result_table(plain)
    assert len(prediction.plausible_causes) >= 1
    assert len(prediction.plausible_causes) == sum(
        p >= min(1 - 0.99, max(prediction.probabilities.values()))
        for p in prediction.probabilities.values()
    )
    pages = [tmp_path / name for name in ("plain.png", "overlay.png")]
    for page, answer in zip(pages, (plain, prediction), strict=True):
        write_page(page, answer, study)
    assert pages[0].read_bytes() != pages[1].read_bytes()
    for name, data in zip(("a.dcm", "b.dcm"), pair(1), strict=True):
        (tmp_path / name).write_bytes(data)
    files = [str(tmp_path / name) for name in ("a.dcm", "b.dcm")]
    options = ["--bundle", str(folder), "--overlay", str(file), "--threads", "1", "--json", "-"]
    assert run(["predict", *files, *options]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["provenance"]["overlay_digest"] == overlay.digest
    assert said["probabilities"] == prediction.to_dict()["probabilities"]


def test_the_uids_of_results_depend_on_the_overlay(folder, plain, file):
    pytest.importorskip("highdicom", reason="highdicom (the dicom extra) is not installed")
    from hipnet_edge.dicom import result_objects

    with Predictor(folder, threads=1, overlay=file) as predictor:
        prediction = predictor.predict(*pair(1))
    made = [
        {one.kind: one.dataset for one in result_objects(answer, *pair(1))}
        for answer in (plain, prediction)
    ]
    assert made[0].keys() == made[1].keys()
    for kind in made[0]:
        assert made[0][kind].SOPInstanceUID != made[1][kind].SOPInstanceUID
    digest = prediction.provenance.overlay_digest
    assert digest in made[1]["report"].to_json()
    assert digest not in made[0]["report"].to_json()


def test_what_does_not_belong_is_refused_with_its_code(folder, plain, file, tmp_path):
    other = calibrated_bundle(tmp_path / "other", small_model(novelty=True, scale=2.0))
    whole = json.loads(file.read_text())
    damaged = copy.deepcopy(whole)
    damaged["overlay"]["thresholds"]["pji"] = 0.9
    of_old = {**whole, "schema": 0}
    lacking = {key: value for key, value in content(plain).items() if key != "temperatures"}
    cases: list[tuple[object, Path, Reason]] = [
        (whole, other, Reason.OVERLAY_MISMATCH),
        (damaged, folder, Reason.OVERLAY_DIGEST_MISMATCH),
        (of_old, folder, Reason.OVERLAY_INVALID),
        ([], folder, Reason.OVERLAY_INVALID),
    ]
    for value, bundle, code in cases:
        (tmp_path / "x.json").write_text(json.dumps(value))
        with pytest.raises(BundleUnusable) as refusal:
            Predictor(bundle, threads=1, overlay=tmp_path / "x.json")
        assert refusal.value.code is code
    for changes in ({"variant": "int8"}, {"temperatures": {"first": 2.0}}):
        with pytest.raises(OverlayUnusable) as refusal:
            Predictor(folder, threads=1, overlay=Overlay.from_content(content(plain, **changes)))
        assert refusal.value.code is Reason.OVERLAY_MISMATCH
    with pytest.raises(OverlayUnusable, match="temperatures"):
        Overlay.from_content(lacking)
    with pytest.raises(OverlayUnusable, match="first"):
        Overlay.from_content(content(plain, temperatures={"first": 0.0}))
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(OverlayUnusable) as refusal:
            Overlay.load(path)
        assert refusal.value.code is Reason.OVERLAY_INVALID
    assert run(["predict", "a", "b", "--overlay", str(tmp_path / "missing.json")]) == 4


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    private = Ed25519PrivateKey.generate()
    secret, public = folder / f"{name}.pem", folder / f"{name}.pub"
    secret.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return secret, public


def test_a_signature_says_whose_it_is(folder, plain, file, tmp_path):
    (secret, public), (_, of_others) = keys(tmp_path, "site"), keys(tmp_path, "other")
    overlay, signed = Overlay.load(file), tmp_path / "signed.json"
    overlay.save(signed, secret)
    assert Overlay.load(signed, public) == Overlay.load(signed) == overlay
    with Predictor(folder, threads=1, overlay=signed, overlay_key=public) as predictor:
        assert predictor.overlay == overlay
    moved = json.loads(signed.read_text())
    moved["overlay"] = content(plain, created="2027-01-01")
    moved["digest"] = Overlay.from_content(moved["overlay"]).digest
    (tmp_path / "moved.json").write_text(json.dumps(moved))
    for path, key in ((signed, of_others), (file, public), (tmp_path / "moved.json", public)):
        with pytest.raises(OverlayUnusable) as refusal:
            Overlay.load(path, key)
        assert refusal.value.code is Reason.OVERLAY_UNTRUSTED
    with pytest.raises(UsageError):
        Overlay.load(signed, secret)
    with pytest.raises(UsageError):
        overlay.save(signed, public)
    with pytest.raises(UsageError):
        Predictor(folder, threads=1, overlay_key=public)


def test_a_study_of_the_fit_is_known_again_however_it_is_named(folder, plain):
    record = plain.inputs["lateral"]
    names = list(image_names(record, "salt"))
    assert len(names) == 2
    assert not set(names) & set(image_names(record, "another"))
    with Predictor(folder, threads=1) as predictor:
        stranger = predictor.predict(*pair(2))
    for name in names:
        fitted_on = {"salt": "salt", "images": [name]}
        overlay = Overlay.from_content(content(plain, fitted_on=fitted_on))
        with pytest.raises(InputRefused) as refusal:
            overlay.require_unseen(plain)
        assert refusal.value.code is Reason.FITTED_ON
        overlay.require_unseen(stranger)


def test_the_self_test_asks_the_network_not_the_overlay(folder, plain, tmp_path):
    from hipnet_edge.selftest import write_selftest

    bundle = calibrated_bundle(tmp_path / "bundle")
    write_selftest(bundle, [], patterns=(0,))
    from hipnet_edge import Bundle
    from hipnet_edge.selftest import selftest

    digest = Bundle.load(bundle).digest
    of_it = content(plain, bundle={"name": "small", "version": "1.0", "digest": digest})
    with Predictor(bundle, threads=1, overlay=Overlay.from_content(of_it)) as predictor:
        assert selftest(predictor).passed
