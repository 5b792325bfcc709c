"""The doctor tells the truth about this machine, and gets through on a broken one."""

from __future__ import annotations

import json
import os
import stat

import numpy as np
import pytest
from small_bundle import write_bundle

from hipnet_edge import doctor, machine
from hipnet_edge.backends import BACKENDS, OnnxRuntimeBackend
from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import MissingExtra


@pytest.fixture
def with_small_bundle(tmp_path, monkeypatch):
    folder = write_bundle(tmp_path / "small")
    monkeypatch.setattr(Bundle, "reference_path", staticmethod(lambda: folder))
    return folder


def test_every_engine_and_decoder_is_really_tried(with_small_bundle):
    report = doctor.examine()
    assert report.can_predict
    assert report.bundle.detail.startswith("small 1.0, sha256 ")
    assert [check.name for check in report.backends] == list(BACKENDS)
    assert all("ms a study" in check.detail for check in report.backends)
    failed = [check for check in report.decoders if not check.works]
    # imagecodecs for Python 3.10 lacks HTJ2K; everything else decodes everywhere.
    assert [check.detail for check in failed] == []


def test_a_sample_that_decodes_to_other_values_is_found(monkeypatch):
    monkeypatch.setattr(doctor, "sample_pixels", lambda bits: np.zeros((64, 64), "uint16"))
    report = doctor.examine()
    assert not any(check.works for check in report.decoders)
    assert "away from the right ones" in report.decoders[0].detail


def test_a_changed_bundle_cannot_predict_and_says_why(with_small_bundle):
    with (with_small_bundle / "fp32.onnx").open("r+b") as file:
        file.write(b"x")
    report = doctor.examine()
    assert not report.can_predict
    assert "bundle_digest_mismatch" in report.bundle.detail
    assert "CANNOT" in report.table()


def test_a_missing_engine_names_the_extra(with_small_bundle, monkeypatch):
    def missing(*_args, **_kwargs):
        raise MissingExtra("cpu", "The ONNX Runtime backend")

    monkeypatch.setattr(OnnxRuntimeBackend, "__init__", missing)
    check = doctor.examine().backends[0]
    assert not check.works
    assert check.remedy == 'pip install "hipnet-edge[cpu]"'


def test_what_is_not_known_is_null_with_a_reason(with_small_bundle, monkeypatch):
    monkeypatch.setenv("PATH", "")
    report = json.loads(json.dumps(doctor.examine().to_dict()))
    assert report["machine"]["gpus"] == {"value": None, "reason": "nvidia-smi is not installed"}
    unknown = [fact for fact in report["machine"].values() if isinstance(fact, dict)]
    assert all(fact["value"] is not None or fact["reason"] for fact in unknown)
    assert report["packages"]["pycuda"]["value"] is None


def nvidia_smi(folder, monkeypatch, script):
    """Put a program named nvidia-smi where it is found first."""
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder) + os.pathsep + os.environ["PATH"])


def test_a_value_that_the_driver_does_not_support_is_unknown_not_zero(tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, "echo 'Orin, [N/A], 540.4.0, 8.7'")
    gpus = machine.examine().gpus.value
    assert gpus == [
        {"name": "Orin", "memory.total": None, "driver_version": "540.4.0", "compute_cap": "8.7"}
    ]


def test_a_driver_that_fails_is_a_reason(tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, "echo 'Failed to initialize NVML'; exit 9")
    fact = machine.examine().gpus
    assert fact.value is None
    assert "Failed to initialize NVML" in fact.reason
