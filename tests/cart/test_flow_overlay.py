"""A site's own calibration in the cart: exactly the pinned one, and named by every result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flowing import (
    Setup,
    audit_events,
    finished,
    folder_destination,
    get,
    running,
    serve,
    study,
    wait_for,
)
from pydicom import dcmread
from small_bundle import small_decision, small_manifest, small_model, write_bundle

from hipnet_edge import CAUSES, Bundle, Overlay, OverlayUnusable, Predictor, Reason
from hipnet_edge.cart.queue import State


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> Path:
    content = small_model(novelty=True)
    manifest = small_manifest(content) | {"decision": small_decision()}
    return write_bundle(tmp_path_factory.mktemp("calibrated") / "small", content, manifest)


def keys(folder: Path) -> tuple[Path, Path]:
    """The site's key to sign with, and the one that every device has."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / "site-key.pem", folder / "site-key.pub"
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, form))
    return private, public


def site_overlay(bundle: Path, variant: str = "fp32") -> Overlay:
    return Overlay.from_content(
        {
            "bundle": {"name": "small", "version": "1.0", "digest": Bundle.load(bundle).digest},
            "variant": variant,
            "engine": {"name": "onnxruntime", "version": "1", "device": "cpu"},
            "package_version": "0.1.0",
            "created": "2026-02-03",
            "intended_use": "Tests.",
            "temperatures": {"first": 2.0, "second": 0.5, "third": 1.3, "fourth": 1.0},
            "thresholds": {cause.value: 0.3 for cause in CAUSES},
            "conformal": {"coverage": 0.9, "threshold": 0.99},
            "fitted_on": {"salt": "salt", "images": []},
            "figures": {},
            "notices": [],
        }
    )


def pins(digest: str, *more: str) -> str:
    named = ('overlay = "site.overlay.json"', f'overlay_digest = "{digest}"', *more)
    return "\n".join(named)


def test_every_result_is_calibrated_and_names_the_overlay(tmp_path, calibrated):
    private, public = keys(tmp_path)
    overlay = site_overlay(calibrated)
    overlay.save(tmp_path / "site.overlay.json", private)
    setup = Setup(tmp_path, calibrated)
    pinned = pins(overlay.digest, f'overlay_key = "{public.name}"')
    share = folder_destination("share", tmp_path / "share")
    files = study(1)
    with running(setup, setup.configuration(share, pinned=pinned)) as cart:
        for file in files:
            assert cart.admission.admit(file, source="upload").accepted
        wait_for(lambda: finished(cart.queue))
        (case,) = cart.queue.cases(state=State.DELIVERED)
        stored = json.loads(cart.store.read(case.prediction))
        page = json.loads(get(setup, f"/api/studies/{case.id}")[1])
        metrics = get(setup, "/metrics")[1].decode()
    with Predictor(calibrated, threads=1, overlay=overlay) as predictor:
        expected = predictor.predict(*files).to_dict()
    assert stored["probabilities"] == expected["probabilities"]
    assert stored["provenance"]["overlay_digest"] == overlay.digest
    named = page["result"]["provenance"]["Calibration"]
    assert named == f"this site's, overlay {overlay.digest[:12]}"
    assert f'overlay="{overlay.digest}"' in metrics
    reports = [d for d in map(dcmread, (tmp_path / "share").iterdir()) if d.Modality == "SR"]
    assert [f"overlay sha256 {overlay.digest}" in str(report) for report in reports] == [True]
    assert audit_events(setup.data)[0]["overlay"] == overlay.digest


def test_another_overlay_than_the_pinned_one_is_never_used(tmp_path, calibrated):
    setup = Setup(tmp_path, calibrated)
    site_overlay(calibrated).save(tmp_path / "site.overlay.json")
    allowed = "allow_fallback = true"  # a fallback of engine or variant, not of calibration

    def refused(pinned: str) -> Reason:
        with (
            pytest.raises(OverlayUnusable) as caught,
            running(setup, setup.configuration(page=False, pinned=pinned)),
        ):
            pass
        return caught.value.code

    _, public = keys(tmp_path)
    digest = site_overlay(calibrated).digest
    assert refused(pins("0" * 64, allowed)) is Reason.OVERLAY_DIGEST_MISMATCH
    assert refused(pins(digest, f'overlay_key = "{public.name}"')) is Reason.OVERLAY_UNTRUSTED
    other = site_overlay(calibrated, variant="cpu-int8")
    other.save(tmp_path / "site.overlay.json")
    assert refused(pins(other.digest, allowed)) is Reason.OVERLAY_MISMATCH
    config = setup.write(page=False, pinned=pins(digest))
    assert serve(setup, "--check", "--config", str(config)).wait() == 2
    said = (tmp_path / "serve.log").read_text()
    assert f"predict: The overlay has the digest {other.digest}, but {digest} is pinned." in said
