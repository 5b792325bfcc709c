from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tiny_bundle import Quantised


@pytest.fixture(scope="session")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Quantised:
    """Made once, by the command itself; tests that change it copy it first."""
    for package in ("onnx", "onnxruntime", "tqdm"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    from click.testing import CliRunner
    from tiny_bundle import Quantised, striped_cohort, write_tiny_bundle
    from toy import save

    from export import quantize

    folder = tmp_path_factory.mktemp("quantised")
    made = Quantised(
        write_tiny_bundle(folder / "source"),
        folder / "bundle",
        save(striped_cohort(20, seed=2), folder / "calibration"),
        save(striped_cohort(50, seed=3), folder / "gate"),
        {},
    )
    arguments = {
        "--bundle": made.source,
        "--calibration": made.calibration,
        "--gate-cohort": made.gate_cohort,
        "--out": made.bundle,
        "--report": folder / "report.json",
        "--trial-studies": 5,
        "--threads": 1,
    }
    words = [str(word) for pair in arguments.items() for word in pair]
    result = CliRunner().invoke(quantize.main, words)
    assert result.exit_code == 0, result.output
    return made._replace(report=json.loads((folder / "report.json").read_text()))
