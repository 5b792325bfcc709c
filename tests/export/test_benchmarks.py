"""The benchmarks from end to end on toy cohorts: a bundle or checkpoints in, a report out."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="torch (the export extra) is not installed")
pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")
pytest.importorskip("matplotlib", reason="matplotlib (the bench extra) is not installed")

import torch
from click.testing import CliRunner
from small_bundle import small_decision, small_manifest, small_model, write_bundle
from toy import save, toy_cohort

from benchmarks import accuracy, error_gallery, out_of_distribution, resolution
from benchmarks.strangers import MADE, WRONGLY_HELD
from export.backbones import export_member
from export.cohort import SOUND
from export.network import MEMBERS, Member
from hipnet_edge.preprocessing import InputSpec
from hipnet_edge.vocabulary import CAUSES


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def hips(n, seed, sound, rows=128, columns=96):
    """A toy cohort with everything that a simulated one's table has; the last ones are sound."""
    cohort = toy_cohort(n, seed, rows=rows, columns=columns)
    index = {**cohort.index, "input": InputSpec(rows=rows, columns=columns).to_dict()}
    causes = np.array([CAUSES[i % 5].value for i in range(n)], dtype="<U30")
    also = np.array([CAUSES[(i + 1) % 5].value for i in range(n)])
    causes[n - sound :] = ""
    numbers = {
        "severity": np.linspace(0, 1, n),
        "sign_mm": np.linspace(0.5, 4, n),
        "crp": np.linspace(5, 90, n),
        "esr": np.linspace(5, 60, n),
        "ap_mm_per_pixel": np.full(n, 0.5),
        "lateral_mm_per_pixel": np.full(n, 0.5),
    }
    words = {"cause": causes, "also": also, "side": np.array(["left", "right"] * n)[:n]}
    truth = np.where(causes == "", SOUND, cohort.causes)
    return replace(cohort, causes=truth, table={**words, **numbers}, index=index)


def test_a_calibrated_bundle_is_measured_from_cohort_to_json(tmp_path):
    model = small_model(novelty=True)
    manifest = {**small_manifest(model), "decision": small_decision()}
    bundle = write_bundle(tmp_path / "bundle", model, manifest)
    cohort = save(hips(36, 1, sound=6, rows=512, columns=320), tmp_path / "cohort")
    pairs = save(hips(10, 2, sound=0, rows=512, columns=320), tmp_path / "pairs")
    out, picture = tmp_path / "accuracy.json", tmp_path / "curves.png"
    options = {
        "--bundle": bundle,
        "--cohort": cohort,
        "--two-causes": pairs,
        "--keep": tmp_path / "kept",
        "--out": out,
        "--picture": picture,
    }
    arguments = [str(word) for option in options.items() for word in option]
    result = CliRunner().invoke(accuracy.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["bundle"]["network_sha256"] == manifest["files"]["fp32.onnx"]["sha256"]
    assert report["cohort"]["by_cause"]["sound"] == 6
    assert report["cohort"]["by_cause"]["pji"] == 6
    figures = report["figures"]
    assert all(name.startswith("simulated_") for name in figures)
    assert set(figures) == {
        "simulated_accuracy",
        "simulated_accuracy_if_causes_were_equally_frequent",
        "simulated_one_against_rest_accuracy",
        "simulated_macro_auc",
        "simulated_auc_by_cause",
        "simulated_confusion_true_by_called",
        "simulated_calibration_error",
        "simulated_ensemble_against_single",
        "simulated_smallest_sign",
        "simulated_maps",
        "simulated_pji_risk",
        "simulated_no_sign_of_failure",
        "simulated_conformal",
        "simulated_accuracy_by_subgroup",
        "simulated_two_causes",
    }
    assert np.sum(figures["simulated_confusion_true_by_called"]["studies"]) == 30
    assert figures["simulated_maps"]["all"]["views"] == 60
    assert figures["simulated_no_sign_of_failure"]["studies"] == {"sound": 6, "failed": 30}
    assert figures["simulated_two_causes"]["studies"] == 10
    assert picture.exists()
    # The kept answers give the same figures.
    assert CliRunner().invoke(accuracy.main, arguments).exit_code == 0
    assert json.loads(out.read_text())["figures"] == figures


def test_strangers_are_measured_from_cohort_to_json(tmp_path):
    model = small_model(novelty=True)
    manifest = {**small_manifest(model), "decision": small_decision()}
    bundle = write_bundle(tmp_path / "bundle", model, manifest)
    cohort = save(hips(12, 1, sound=2, rows=512, columns=320), tmp_path / "cohort")
    out = tmp_path / "strangers.json"
    words = ["--bundle", bundle, "--cohort", cohort, "--out", out, "--n", 2]
    words += ["--pixel-spacing-mm", 0.8]
    result = CliRunner().invoke(out_of_distribution.main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())["figures"]
    assert set(figures["simulated_by_kind"]) == {*MADE, *WRONGLY_HELD}
    assert figures["simulated_all_strangers"]["studies"] == 2 * len(figures["simulated_by_kind"])
    assert figures["simulated_false_alarms"]["all"]["studies"] == 12
    for kind in figures["simulated_by_kind"].values():
        refused = sum(kind["stated_to_be_a_hip"]["refused"].values())
        assert (kind.get("auroc") is None) == (refused == 2)
    words[1] = write_bundle(tmp_path / "uncalibrated")
    result = CliRunner().invoke(out_of_distribution.main, [str(word) for word in words])
    assert result.exit_code == 1
    assert "no calibration" in result.output


def test_an_uncalibrated_bundle_is_measured_without_what_it_lacks(tmp_path):
    bundle = write_bundle(tmp_path / "bundle")
    cohort = save(hips(15, 1, sound=5, rows=512, columns=320), tmp_path / "cohort")
    out = tmp_path / "accuracy.json"
    words = ["--bundle", bundle, "--cohort", cohort, "--out", out, "--picture", tmp_path / "p.png"]
    result = CliRunner().invoke(accuracy.main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())["figures"]
    assert "simulated_accuracy" in figures
    assert "simulated_conformal" not in figures


def checkpoints(directory):
    """A run of backbones that have learned nothing."""
    for name in MEMBERS:
        torch.manual_seed(0)
        (directory / name).mkdir(parents=True)
        torch.save({"model": Member(name).state_dict()}, directory / name / "checkpoint.pt")
        (directory / name / "metrics.jsonl").write_text('{"epoch": 1}\n')
    return directory


def test_views_are_compared_on_the_features_of_a_set_of_backbones(tmp_path):
    spec = InputSpec(rows=128, columns=96)
    for name in MEMBERS:
        onnx.save(export_member(Member(name).eval(), spec)[0], tmp_path / f"{name}.onnx")
    cohorts = hips(40, 1, sound=5), hips(30, 2, sound=5)
    report = accuracy.views(tmp_path, *cohorts, tmp_path / "kept")
    assert report["studies"] == {"fitted_on": 35, "measured": 25}
    for reader in ("ap", "lateral", "both"):
        assert 0.0 <= report[reader]["macro_auc"]["value"] <= 1.0
    kept = np.load(tmp_path / "kept" / "features-cohort.npz")
    assert all(kept[name].shape[:2] == (30, 2) for name in MEMBERS)


def test_a_backbone_is_measured_at_two_sizes_of_its_input(tmp_path):
    run = checkpoints(tmp_path / "run")
    cohort = save(hips(30, 1, sound=5), tmp_path / "cohort")
    out, picture = tmp_path / "resolution.json", tmp_path / "resolution.png"
    words = ["--cohort", cohort, "--member", MEMBERS[0], "--out", out, "--picture", picture]
    words += ["--run", f"crop_full={run}", "--run", f"crop_half={run}"]
    result = CliRunner().invoke(resolution.main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())["figures"]
    assert figures["mm_per_network_pixel"] == {"crop_full": 0.5, "crop_half": 1.0}
    full, half = figures["simulated_macro_auc"].values()
    assert full != half  # the same weights see something else
    assert picture.exists()
    wrong = CliRunner().invoke(resolution.main, [*map(str, words), "--run", f"other={run}"])
    assert wrong.exit_code == 1
    assert "crop_full" in wrong.output


def test_the_worst_errors_are_shown_and_what_a_person_wrote_stays(tmp_path):
    bundle = write_bundle(tmp_path / "bundle")
    cohort = save(hips(25, 1, sound=5, rows=512, columns=320), tmp_path / "cohort")
    out, picture, page = (tmp_path / name for name in ("errors.json", "errors.png", "errors.md"))
    words = ["--bundle", bundle, "--cohort", cohort, "--keep", tmp_path, "--out", out]
    words += ["--picture", picture, "--page", page]
    for _ in range(2):
        result = CliRunner().invoke(error_gallery.main, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        page.write_text(page.read_text().replace("<!-- by hand -->\n", "<!-- by hand -->\nSeen.\n"))
    report, text = json.loads(out.read_text()), page.read_text()
    assert report["studies"] == 20
    assert report["wrong"] >= len(report["worst"])
    sure = [one["p_called"] for one in report["worst"]]
    assert sure == sorted(sure, reverse=True)
    assert all(one["true"] != one["called"] for one in report["worst"])
    assert text.count("Seen.") == 2  # kept by the second run, written again after it
    assert text.count("\n| 1 | ") == 1
    assert cv2.imread(str(picture)).shape[1] > 1000
    one_cause = [one for one in report["in_common"] if one["kind"] == "true cause"]
    assert sum(one["studies"] for one in one_cause) == 20
    assert sum(one["wrong"] for one in one_cause) == report["wrong"]
