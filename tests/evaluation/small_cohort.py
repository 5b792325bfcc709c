"""Cohorts of small films for tests: the small bundle answers them in a few milliseconds each."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
from onnx import helper, numpy_helper
from small_bundle import small_decision, small_manifest, small_model, write_bundle
from small_study import pair

from hipnet_edge import Predictor
from hipnet_edge.evaluation.sample import Sample
from hipnet_edge.vocabulary import CAUSES, VIEWS

COLUMNS = ("ap", "lateral", "cause", "patient_id", "crp", "esr", "site", "sex", "age", "side")


def telling_bundle(folder: Path, films: Path, n: int, *, fails: bool = False) -> Path:
    """A calibrated small bundle whose answers differ from film to film, unlike the plain one's.

    One that `fails` has no finite answer where a study's first feature is below the usual.
    """
    with Predictor(write_bundle(folder / "plain"), threads=1) as plain:
        answers = [plain.predict(films / f"ap{i}.dcm", films / f"lateral{i}.dcm") for i in range(n)]
    means = [np.concatenate([a.maps[v].mean(axis=(1, 2)) for v in VIEWS]) for a in answers]
    usual = np.mean(means, axis=0).astype(np.float32)[None]

    def tell_apart(model: onnx.ModelProto) -> None:
        graph = model.graph
        place = next(i for i, node in enumerate(graph.node) if node.op_type == "MatMul")
        graph.node[place].input[0] = "telling"
        graph.node.insert(place, helper.make_node("Mul", ["unusual", "gain"], ["telling"]))
        graph.node.insert(place, helper.make_node("Sub", ["features", "usual"], ["unusual"]))
        if fails:
            graph.node[place + 2].input[0] = "rooted"
            graph.node.insert(place + 2, helper.make_node("Mul", ["root", "telling"], ["rooted"]))
            graph.node.insert(place + 2, helper.make_node("Sqrt", ["one"], ["root"]))
            graph.node.insert(place + 2, helper.make_node("MatMul", ["unusual", "first"], ["one"]))
            first = np.eye(10, 1, dtype=np.float32)
            graph.initializer.append(numpy_helper.from_array(first, "first"))
        for name, value in (("usual", usual), ("gain", np.float32(20.0))):
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))

    model = small_model(novelty=True, change=tell_apart)
    manifest = {**small_manifest(model), "decision": small_decision()}
    return write_bundle(folder / "telling", model, manifest)


def write_films(folder: Path, n: int) -> list[dict[str, str]]:
    """n studies as DICOM and a row for each, causes in turn."""
    rows = []
    for i in range(n):
        row = {"cause": CAUSES[i % 5].value, "patient_id": f"P{i}"}
        for view, data in zip(("ap", "lateral"), pair(i, rows=240, columns=200), strict=True):
            (folder / f"{view}{i}.dcm").write_bytes(data)
            row[view] = f"{view}{i}.dcm"
        row.update(crp=str(3 + i), esr=str(10 + i), site="ab"[i % 2], sex="fm"[i % 3 == 0])
        rows.append({**row, "age": str(40 + i), "side": "left"})
    return rows


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows(rows)
    return path


def scored(n: int, seed: int, skill: float = 1.5, per_patient: int = 1) -> SimpleNamespace:
    """Synthetic probabilities of n studies, the same hardness within a patient."""
    random = np.random.default_rng(seed)
    patients = np.arange(n) // per_patient
    causes = (patients % 5).astype(int)
    logits = random.normal(size=(n, 5)) + random.normal(size=(patients.max() + 1, 5))[patients]
    logits[np.arange(n), causes] += skill
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return SimpleNamespace(p=p, causes=causes, patients=patients)


def sample_of(n: int, seed: int, **options) -> Sample:
    made = scored(n, seed, **options)
    return Sample.of(made.p, made.causes, made.patients, {})
