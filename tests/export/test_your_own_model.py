"""The first path of docs/your-own-model.md: a table of your files, all the way to an answer."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch (the export extra) is not installed")
pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")
pytest.importorskip("onnxscript", reason="onnxscript (the export extra) is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import torch
from click.testing import CliRunner

from export import cohort, refit, to_onnx, train
from hipnet_edge import Flag, Predictor
from hipnet_edge.cli import run

STUDIES = 12


def step(command: object, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(part) for part in arguments])  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def own_table(folder: Path) -> Path:
    """Radiographs in files, with a table as a person would write it: few columns, few masks."""
    causes = "pji,aseptic_loosening,dislocation,periprosthetic_fracture,polyethylene_wear,none"
    made = ("--n", STUDIES, "--seed", 3, "--causes", causes, "--pixel-spacing-mm", 0.8)
    arguments = ["simulate", *(str(part) for part in made), "--out", str(folder)]
    assert run([*arguments, "--workers", "1"]) == 0
    with (folder / "cohort.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = folder / "mine.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(
            file, ["ap", "lateral", "cause", "ap_mask", "lateral_mask"], extrasaction="ignore"
        )
        writer.writeheader()
        for number, row in enumerate(rows):
            if number % 2:  # nobody has drawn these
                row |= {"ap_mask": "", "lateral_mask": ""}
            writer.writerow(row)
    return table


def test_from_a_table_of_files_to_an_answer(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    table, data, out = own_table(tmp_path / "films"), tmp_path / "cohort", tmp_path / "one"
    step(cohort.main, "--table", table, "--out", data, "--workers", 1)
    both = ("--train", data, "--validation", data)
    settings = ("--epochs-windows", 1, "--epochs-full", 1, "--batch", 4, "--threads", 1)
    step(train.main, *both, "--out", out, *settings)
    fitted = ("--steps", 2, "--threads", 1)
    step(refit.main, "--run", out, *both, "--out", tmp_path / "refit", *fitted)
    parts = ("--parts", tmp_path / "parts", "--run", out)
    said = step(to_onnx.main, "--refit", tmp_path / "refit", "--out", tmp_path / "bundle", *parts)
    assert json.loads(said[said.index("{\n") :])["largest_difference_to_parts"] < 1e-4
    compared = json.loads((tmp_path / "parts" / to_onnx.PARTS_FILE).read_text())
    assert list(compared) == [*train.MEMBERS, "tail"]
    assert {part["compared_with"] for part in compared.values()} == {"PyTorch"}
    assert max(part["largest_relative_difference"] for part in compared.values()) < 1e-4

    with (tmp_path / "films" / "mine.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    with Predictor(tmp_path / "bundle", threads=1) as predictor:
        manifest = predictor.bundle.manifest
        answer = predictor.predict(table.parent / row["ap"], table.parent / row["lateral"])
    assert [backbone.name for backbone in manifest.backbones] == list(train.MEMBERS)
    assert manifest.training["studies"] == STUDIES
    assert answer.leading_cause in answer.plausible_causes
    assert answer.novelty is not None
    # After one epoch sound films may show the larger peaks: then there is no curve, and it says so.
    assert (answer.sign_of_failure is None) == (Flag.NOT_CALIBRATED in answer.flags)
    # Simulated radiographs in this test; but the table says nothing of where they come from.
    assert Flag.SIMULATED_INPUT in answer.flags
    assert Flag.MODEL_TRAINED_ON_SIMULATION not in answer.flags
