"""The card says what files say, and nothing of another network."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="onnx (the tests' bundle needs it) is not installed")

from click.testing import CliRunner
from small_bundle import small_decision, small_manifest, small_model

from export.bundle import write_bundle
from export.model_card import main, model_card
from hipnet_edge.bundle import Bundle
from hipnet_edge.verdict import ShortcutVerdict, Verdict
from hipnet_edge.vocabulary import CAUSES


def fields(model: bytes, **changes: Any) -> dict[str, Any]:
    manifest = small_manifest(model)
    names = [backbone["name"] for backbone in manifest["backbones"]]
    validation = {
        "studies": 400,
        "macro_auc": 0.9123,
        "member_macro_auc": dict.fromkeys(names, 0.8111),
        "sound_studies": 60,
    }
    train = {"n": 1234, "sound": 185, "site": "development", "seed": 301}
    manifest["training"] = {
        "data": "simulated",
        "studies": 1234,
        "notes": ["Trained in a hurry."],
        "metrics": {"train": train, "validation": validation},
    }
    return {**manifest, "decision": small_decision(), **changes}


def interval(value: float) -> dict[str, Any]:
    return {"value": value, "ci95": [value - 0.01, value + 0.01]}


def accuracy(network: str) -> dict[str, Any]:
    confusion = [
        [90 if i == j else 2 + 3 * (i == 1 and j == 0) for j in range(5)] for i in range(5)
    ]
    return {
        "what": "simulated studies",
        "date": "2026-01-02",
        "bundle": {"name": "small", "network_sha256": network},
        "cohort": {"studies": 2000, "site": "shifted"},
        "figures": {
            "simulated_top1_accuracy": interval(0.8765),
            "simulated_auc_by_cause": {
                cause.value: interval(0.9 + k / 100) for k, cause in enumerate(CAUSES)
            },
            "simulated_smallest_sign": {
                "pji": {"smallest_found_mm": {"value": 2.5, "ci95": [2.1, None]}},
                "dislocation": {"smallest_found_mm": {"value": None, "ci95": [None, None]}},
            },
            "simulated_conformal": {"coverage": interval(0.8888)},
            "simulated_confusion_true_by_called": {"studies": confusion},
            "simulated_accuracy_by_subgroup": {
                "stem": {
                    "long": {"value": 0.7001, "wilson_95": [0.6, 0.8]},
                    "short": {"value": 0.9, "wilson_95": [0.8, 0.95]},
                }
            },
        },
    }


def test_every_figure_is_one_of_the_files() -> None:
    manifest, report = fields(small_model(novelty=True)), accuracy("0" * 64)
    card = model_card(manifest, report)
    assert "| Periprosthetic joint infection | 0.9 (0.89 to 0.91) |" in card
    assert "2.5 (2.1 to none)" in card
    assert "top1 accuracy | 0.8765" in card
    assert "Aseptic loosening: 5 of 101 studies are called periprosthetic joint infection" in card
    assert "Fewest right calls by stem: long, 0.7001 (0.6 to 0.8)" in card
    assert "an input of the simulation" in card
    assert "Trained in a hurry." in card
    assert "not for" in card.lower()
    numbers = re.findall(r"-?\d+\.\d+", json.dumps([manifest, report]))
    known = {float(number) for number in numbers} | {0.2}  # 0.2: one less the conformal threshold
    told = [float(number) for number in re.findall(r"(?<![\d.])\d\.\d{3,}", card)]
    assert len(told) > 10
    assert set(told) <= known


def test_a_variant_is_said_to_have_passed_only_where_the_gate_passed_it() -> None:
    verdict = Verdict("cpu-int8", "onnxruntime", "1.2.3", "cpu-vnni", True, 2360, "2026-01-02")
    manifest = fields(
        b"",
        variants={name: {"file": f"{name}.onnx"} for name in ("fp32", "cpu-int8", "trt-int8")},
        files={"fp32.onnx": {"bytes": 10_800_000}},
        gate={
            "verdicts": [
                verdict.to_dict(),
                replace(verdict, variant="trt-int8", passed=False).to_dict(),
            ],
            "shortcuts": [
                ShortcutVerdict("half", True, 2000, "2026-01-03").to_dict(),
                ShortcutVerdict("quarter", False, 2000, "2026-01-03").to_dict(),
            ],
        },
    )
    card = model_card(manifest)
    assert "| `fp32` | 10.8 MB | is what all others are compared with |" in card
    assert "| onnxruntime 1.2.3 on cpu-vnni (2,360 studies, 2026-01-02) |" in card
    assert "| `trt-int8` | - | nowhere yet |" in card
    assert "shortcut `half` in reading (2,000 studies, 2026-01-03)" in card
    assert "quarter" not in card


def test_what_was_not_measured_is_not_told() -> None:
    card = model_card(fields(b""))
    assert "Not measured on studies that nothing was fitted to" in card
    assert "How it fails" not in card
    own = model_card(fields(b"", simulated=False))
    assert "simulated radiographs only" not in own
    assert "CRP" not in own


def test_the_card_of_a_measured_bundle_is_written_again(tmp_path: Path) -> None:
    model = small_model(novelty=True)
    made = fields(model)
    files = {"fp32.onnx": model, "MODEL_CARD.md": model_card(made).encode()}
    bundle = write_bundle(tmp_path / "bundle", files, made)
    report = tmp_path / "accuracy.json"
    report.write_text(json.dumps(accuracy(bundle.network("fp32"))))
    arguments = ["--bundle", str(bundle.path), "--accuracy", str(report)]
    for _ in range(2):  # a second time, though the digest is another by then
        assert CliRunner().invoke(main, arguments).exit_code == 0
    again = Bundle.load(bundle.path)
    assert again.digest != bundle.digest
    assert "0.8765" in again.read("MODEL_CARD.md").decode()
    assert again.read("fp32.onnx") == model

    report.write_text(json.dumps(accuracy("f" * 64)))
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "the report is of network ffffffffffff" in refused.output
