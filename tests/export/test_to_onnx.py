from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch (the export extra) is not installed")
pytest.importorskip("onnx", reason="onnx (the export extra) is not installed")
pytest.importorskip("onnxscript", reason="onnxscript (the export extra) is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import onnx
import onnxruntime
import torch
from click.testing import CliRunner
from made_networks import lived_in, make_network

from export import to_onnx
from export.fit_head import load_network, save_network
from export.network import MEMBERS, Fusion, MapHead, Member, Network, deploy
from hipnet_edge.bundle import Bundle
from hipnet_edge.preprocessing import InputSpec
from hipnet_edge.vocabulary import CAUSES

METRICS: dict[str, Any] = {
    "train": {"n": 10, "seed": 3, "pixel_spacing_mm": 0.16},
    "validation": {
        "studies": 5,
        "macro_auc": 0.5123,
        "auc_by_cause": {cause.value: 0.5 for cause in CAUSES},
        "accuracy": 0.2,
        "nll": 1.6,
        "calibration_error": 0.1,
        "maps": {"pointing": 0.1, "pointing_chance": 0.1, "average_precision": 0.1, "views": 10},
        "member_macro_auc": dict.fromkeys(MEMBERS, 0.5),
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("run")
    save_network(make_network(), run, METRICS)
    return run


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("bundles") / "reference"
    result = CliRunner().invoke(to_onnx.main, ["--run", str(run), "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout[result.stdout.index("{\n") :])


def test_the_bundle_is_one_that_the_runtime_loads(
    exported: tuple[Path, dict[str, Any]], run: Path
) -> None:
    out, report = exported
    bundle = Bundle.load(out)
    assert bundle.digest == report["bundle"]
    assert sorted(bundle.manifest.files) == ["MODEL_CARD.md", "fp32.onnx"]
    assert [backbone.name for backbone in bundle.manifest.backbones] == list(MEMBERS)
    temperatures = [backbone.temperature for backbone in bundle.manifest.backbones]
    assert temperatures == pytest.approx([0.8, 1.0, 1.5, 2.0])
    assert bundle.manifest.simulated
    assert sum(entry.bytes for entry in bundle.manifest.files.values()) < 24e6
    card = bundle.read("MODEL_CARD.md").decode()
    assert "0.5123" in card
    assert "Not for clinical use" in card
    assert report["largest_difference_to_pytorch"] < 1e-4

    study = bundle.signature("fp32").test_pattern(4)
    session = onnxruntime.InferenceSession(bundle.model("fp32"))
    found = session.run(["probabilities", "member_probabilities", "maps"], {"radiographs": study})
    with torch.no_grad():
        expected = load_network(run)(torch.from_numpy(study))
    for wanted, given in zip(expected, found, strict=True):
        np.testing.assert_allclose(given, wanted.numpy(), atol=1e-4)


def test_the_graph_is_lean_named_and_says_nothing_of_its_maker(
    exported: tuple[Path, dict[str, Any]],
) -> None:
    content = (exported[0] / "fp32.onnx").read_bytes()
    model = onnx.load_from_string(content)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert "members.repvgg.trunk.1.0/Conv" in names
    assert not {node.op_type for node in model.graph.node} & {"BatchNormalization", "Identity"}
    assert model.opset_import[0].version == to_onnx.OPSET
    assert model.ir_version <= 10
    assert not [node for node in model.graph.node if node.metadata_props or node.doc_string]
    for trace in (str(Path.cwd()), str(Path(torch.__file__).parent), "site-packages"):
        assert trace.encode() not in content


def test_an_export_that_differs_is_refused(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    exported: tuple[Path, dict[str, Any]],
) -> None:
    model = onnx.load(exported[0] / "fp32.onnx")
    bias = next(t for t in model.graph.initializer if t.name.endswith("evidence.bias"))
    bias.raw_data = (onnx.numpy_helper.to_array(bias) + 1).astype(np.float32).tobytes()
    monkeypatch.setattr(to_onnx, "export_network", lambda *_: model)
    with pytest.raises(ValueError, match="differs from PyTorch"):
        to_onnx.export_bundle(load_network(run), tmp_path / "bundle", METRICS)
    assert not (tmp_path / "bundle").exists()


def test_any_number_of_studies_at_once() -> None:
    member = Member("mobilenet")
    network = Network([member], MapHead([member.channels]), Fusion([1.5], [1.0]))
    deployed = deploy(lived_in(network))
    spec = InputSpec(rows=96, columns=64)
    model = to_onnx.export_network(deployed, spec, dynamic_batch=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for batch in (1, 3):
        studies = torch.randn(batch, 2, 96, 64)
        found = session.run(None, {"radiographs": studies.numpy()})
        for wanted, given in zip(deployed(studies), found, strict=True):
            np.testing.assert_allclose(given, wanted.numpy(), atol=1e-5)


def test_a_folder_that_is_no_bundle_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    from export.bundle import write_bundle

    with pytest.raises(FileExistsError, match="thesis"):
        write_bundle(tmp_path, {}, {})
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
