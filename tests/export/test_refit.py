"""Four backbones that somebody brings, all the way to a bundle that the runtime loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch (the export extra) is not installed")
pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")
pytest.importorskip("onnx", reason="onnx (the export extra) is not installed")
pytest.importorskip("onnxscript", reason="onnxscript (the export extra) is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import onnx
import onnxruntime
import torch
from click.testing import CliRunner
from made_networks import small_backbone
from onnx import helper
from toy import save, toy_cohort

from export import onnx_graph, refit, to_onnx
from export.backbones import open_backbones
from export.features import Answers
from export.network import deploy
from export.tail import Tail
from hipnet_edge.backends import OnnxRuntimeBackend
from hipnet_edge.bundle import Bundle
from hipnet_edge.preprocessing import InputSpec

ROWS = COLUMNS = 64
SPEC = InputSpec(rows=ROWS, columns=COLUMNS)
NAMES = ("north", "east", "south", "west")


def bring(folder: Path, **options: Any) -> list[Path]:
    """Four backbones of different widths and opsets."""
    folder.mkdir(exist_ok=True)
    return [
        small_backbone(
            folder / f"{name}.onnx", ROWS, COLUMNS, 6 + i, seed=i, opset=13 + 2 * i, **options
        )
        for i, name in enumerate(NAMES)
    ]


def run(command: Any, *arguments: object) -> Any:
    torch.set_num_threads(1)
    return CliRunner().invoke(command, [str(part) for part in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with `refit` and `bundle`, and what was reported of the bundle."""
    folder = tmp_path_factory.mktemp("own")
    files = bring(folder / "brought")
    train = save(toy_cohort(80, 1, ROWS, COLUMNS, 16, 0.8, sound=16), folder / "train")
    held_out = save(toy_cohort(80, 2, ROWS, COLUMNS, 16, 0.8, sound=16), folder / "validation")
    data = ("--train", train, "--validation", held_out, "--threads", 1)
    fitted = run(refit.main, "--backbones", *files, *data, "--out", folder / "refit", "--steps", 30)
    assert fitted.exit_code == 0, fitted.output
    joined = run(to_onnx.main, "--refit", folder / "refit", "--out", folder / "bundle")
    assert joined.exit_code == 0, joined.output
    return folder, json.loads(joined.stdout[joined.stdout.index("{\n") :])


def test_the_bundle_answers_as_its_parts_do(made: tuple[Path, dict[str, Any]]) -> None:
    folder, report = made
    bundle = Bundle.load(folder / "bundle")
    assert bundle.digest == report["bundle"]
    assert [backbone.name for backbone in bundle.manifest.backbones] == list(NAMES)
    assert report["largest_difference_to_parts"] < 1e-4
    signature = bundle.signature("fp32")
    study = signature.test_pattern(4)
    outputs = OnnxRuntimeBackend(bundle.model("fp32"), signature, threads=1).infer(study)
    answers = [
        onnxruntime.InferenceSession(path).run(["logits", "features"], {"radiographs": study})
        for path in sorted((folder / "brought").iterdir(), key=lambda p: NAMES.index(p.stem))
    ]
    state = torch.load(folder / "refit" / refit.TAIL_FILE, weights_only=True)
    with torch.no_grad():
        expected = deploy(Tail.like(state))(
            *([torch.from_numpy(one[i]) for one in answers] for i in (0, 1))
        )
    for name, wanted in expected._asdict().items():
        np.testing.assert_allclose(getattr(outputs, name), wanted.numpy(), atol=1e-4, rtol=1e-4)


def test_the_calibration_is_in_the_manifest(made: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = made
    manifest = Bundle.load(folder / "bundle").manifest
    fitted = json.loads((folder / "refit" / refit.REPORT_FILE).read_text())
    decision = manifest.decision
    assert decision is not None
    assert decision.conformal_threshold == fitted["decision"]["conformal"]["threshold"]
    assert decision.sign_of_failure is not None
    assert not manifest.simulated  # nothing says that the toy cohort is
    found = fitted["metrics"]["validation"]
    assert found["studies"] == 64
    assert found["sound_studies"] == 16
    assert found["conformal"]["coverage"] > 0.6
    assert found["novelty_false_alarms"] < 0.05
    card = (folder / "bundle" / "MODEL_CARD.md").read_text()
    assert f"{found['macro_auc']}" in card
    assert "Not for clinical use" in card
    assert "simulated" not in manifest.intended_use


def test_the_graph_is_lean_named_and_says_nothing_of_its_maker(
    made: tuple[Path, dict[str, Any]],
) -> None:
    content = (made[0] / "bundle" / "fp32.onnx").read_bytes()
    model = onnx.load_from_string(content)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert "north.active" in names
    assert "tail.map_head.mix.1/Conv" in names
    assert not {node.op_type for node in model.graph.node} & {"BatchNormalization", "Identity"}
    constants = [(tuple(t.dims), t.data_type, t.raw_data) for t in model.graph.initializer]
    assert len(set(constants)) == len(constants)
    assert (model.opset_import[0].version, model.ir_version) == (20, 10)
    for trace in (str(Path.cwd()), str(made[0]), "site-packages"):
        assert trace.encode() not in content


def test_another_backbone_makes_another_bundle(made: tuple[Path, dict[str, Any]]) -> None:
    folder = made[0]
    spec = InputSpec.from_dict(json.loads((folder / "refit/refit.json").read_text())["input"])
    kept = sorted((folder / "refit" / "backbones").glob("*.onnx"))
    tail = Tail.like(torch.load(folder / "refit" / refit.TAIL_FILE, weights_only=True))
    backbones = open_backbones(kept, spec)
    by_name = {backbone.name: backbone for backbone in backbones}
    right = [by_name[name] for name in NAMES]
    assert to_onnx.largest_difference(to_onnx.merge(right, tail, spec), right, tail, spec) < 1e-4
    exchanged = [right[0], right[1], right[2], right[2]]
    with pytest.raises((RuntimeError, ValueError)):
        to_onnx.merge(exchanged, tail, spec)  # the tail was fitted to other channels


def test_any_number_of_studies_if_every_backbone_takes_them(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    tail = Tail.like(torch.load(made[0] / "refit" / refit.TAIL_FILE, weights_only=True))
    model = to_onnx.merge(open_backbones(bring(tmp_path, batch="n"), SPEC), tail, SPEC)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    studies = np.random.default_rng(0).normal(size=(3, 2, ROWS, COLUMNS)).astype(np.float32)
    together = session.run(None, {"radiographs": studies})
    for i in range(3):
        alone = session.run(None, {"radiographs": studies[i : i + 1]})
        for whole, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(whole[i], one[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "broken", [{"outputs": ("scores", "features")}, {"outputs": ("logits", "planes")}]
)
def test_a_backbone_that_breaks_the_contract_is_refused(
    tmp_path: Path, broken: dict[str, Any]
) -> None:
    files = bring(tmp_path)
    small_backbone(files[2], ROWS, COLUMNS, **broken)
    with pytest.raises(ValueError, match=r"south\.onnx breaks the contract"):
        open_backbones(files, SPEC)


def test_a_backbone_of_another_size_or_a_set_of_three_is_refused(tmp_path: Path) -> None:
    files = bring(tmp_path)
    with pytest.raises(ValueError, match="needs 4 backbones"):
        open_backbones(files[:3], SPEC)
    small_backbone(files[0], ROWS, COLUMNS + 32)
    with pytest.raises(ValueError, match="breaks the contract"):
        open_backbones(files, SPEC)


def test_operators_outside_the_standard_are_refused(tmp_path: Path) -> None:
    model = onnx.load(bring(tmp_path)[0])
    model.graph.node[2].domain = "com.somebody"
    tail = helper.make_model(helper.make_graph([], "tail", [], []))
    with pytest.raises(ValueError, match="standard operators"):
        onnx_graph.join({"a": model}, tail, "radiographs")


def lit(n: int, masks: bool) -> Answers:
    """Features in which channel k lights up at the one place of cause k, and nothing else does."""
    random = np.random.default_rng(0)
    causes = np.arange(n, dtype=np.int64) % 5
    features = random.random((n, 2, 6, 8, 8), dtype=np.float32) * 0.1
    occupancy = np.zeros((n, 2, 16, 16), np.float32)
    for i, cause in enumerate(causes):
        for view in range(2):
            row, column = random.integers(8, size=2)
            features[i, view, cause, row, column] = 3.0
            occupancy[i, view, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1.0
    four = [features.astype(np.float16) for _ in range(4)]
    truth = occupancy if masks else np.full_like(occupancy, np.nan)
    return Answers(np.zeros((4, n, 5), np.float32), four, truth, causes)


@pytest.mark.parametrize(("masks", "cells"), [(True, 1.5), (False, 4.5)], ids=["masks", "causes"])
def test_maps_point_at_the_sign_with_and_without_masks(masks: bool, cells: float) -> None:
    torch.set_num_threads(1)
    head = deploy(refit.fit_map_head(lit(80, masks), steps=120))
    asked = lit(40, masks=True)
    with torch.no_grad():
        maps = torch.sigmoid(head(asked.read(np.arange(40))[1])).numpy()
    true_maps = maps[np.arange(40), :, asked.causes].reshape(80, -1)
    peaks = np.stack(np.unravel_index(true_maps.argmax(axis=1), (16, 16)), axis=1)
    truth = asked.occupancy.reshape(80, 16, 16)
    centres = np.array([np.argwhere(one).mean(axis=0) for one in truth])
    # From causes alone a cell beside the sign's own is as good to the head as that one.
    assert (np.abs(peaks - centres).max(axis=1) < cells).mean() > 0.9
