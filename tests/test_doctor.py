"""The doctor tells the truth about this machine, and gets through on a broken one."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest
from small_bundle import write_bundle

from hipnet_edge import doctor, machine
from hipnet_edge.backends import BACKENDS, OnnxRuntimeBackend
from hipnet_edge.backends.device import UNPROVEN
from hipnet_edge.backends.race import Found, Memory
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
    assert {check.name.split()[0] for check in report.backends} == set(BACKENDS)
    by_name = {check.name: check for check in report.backends}
    assert by_name["onnxruntime fp32"].works
    assert all("ms a study" in check.detail for check in report.backends if check.works)
    # The small bundle has no file for TensorRT.
    assert "tensorrt does not run the bundle small" in by_name["tensorrt"].detail
    failed = [check for check in report.decoders if not check.works]
    # imagecodecs for Python 3.10 lacks HTJ2K; everything else decodes everywhere.
    assert [check.detail for check in failed] == []


def test_a_sample_that_decodes_to_other_values_is_found(with_small_bundle, monkeypatch):
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
    check = doctor.examine().backends[-1]
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


def test_what_a_gpu_needs_is_looked_for_piece_by_piece(with_small_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("HIPNET_EDGE_PLANS", str(tmp_path / "plans"))
    report = doctor.examine()
    by_name = {check.name: check for check in report.gpu}
    assert list(by_name) == [
        "NVIDIA driver",
        "device library",
        "TensorRT",
        "plans and verdicts",
        "GPU code proven",
    ]
    assert by_name["plans and verdicts"].detail.endswith("plans, 0 verdicts on their networks")
    if not by_name["NVIDIA driver"].works:
        assert "[driver_missing]" in by_name["NVIDIA driver"].detail
        assert "[driver_missing]" in by_name["device library"].detail
    (tmp_path / "plans").mkdir(exist_ok=True)  # OpenVINO has kept what it compiled there
    (tmp_path / "plans").chmod(0o777)
    shared = next(c for c in doctor.examine().gpu if c.name == "plans and verdicts")
    assert not shared.works
    assert "[plan_untrusted]" in shared.detail


def test_the_remembered_choice_is_shown(with_small_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("HIPNET_EDGE_PLANS", str(tmp_path / "plans"))
    assert doctor.examine().choice.detail.startswith("none yet")
    measured = {"openvino cpu-int8": 17.31, "onnxruntime cpu-int8": 28.4}
    found = Found("openvino", "cpu-int8", measured, "2026-11-27")
    Memory(Bundle.load(with_small_bundle), [], [], None).keep(found)
    report = doctor.examine()
    assert report.choice.works
    assert "openvino cpu-int8: the fastest of 2" in report.choice.detail
    assert "onnxruntime cpu-int8 28.4 ms" in report.choice.detail
    assert report.choice.detail in report.table()


def test_code_that_no_gpu_has_run_is_named_and_left_out_of_coverage(with_small_bundle):
    """The list in the code, what coverage leaves out, and the page for people are one list."""
    root = Path(doctor.__file__).parents[1]
    (check,) = [c for c in doctor.examine().gpu if c.name == "GPU code proven"]
    assert not check.works
    settings = (root / "pyproject.toml").read_text()
    omitted = re.search(r"^omit = \[(.*?)^\]", settings, re.MULTILINE | re.DOTALL)
    assert omitted is not None
    files = {Path(name).name for name in re.findall(r'"(.+?)"', omitted.group(1))}
    assert files == set(UNPROVEN)
    page = (root / "docs" / "deploy.md").read_text()
    for name in UNPROVEN:
        assert name in check.detail
        assert f"`{name}`" in page
    assert not any(kind.proven for kind in BACKENDS.values() if kind.on_gpu)
