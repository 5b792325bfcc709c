"""The merged network as five files: written, compared with their origin, put together again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch (the export extra) is not installed")
pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")
pytest.importorskip("onnx", reason="onnx (the export extra) is not installed")
pytest.importorskip("onnxscript", reason="onnxscript (the export extra) is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import numpy as np
import onnx
import onnxruntime
import torch
from made_networks import make_tail, small_backbone

from export import to_onnx
from export.backbones import Backbone, like_a_radiograph, open_backbones
from export.tail import Tail
from hipnet_edge.preprocessing import InputSpec

SPEC = InputSpec(rows=64, columns=64)
NAMES = ("north", "east", "south", "west")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Backbone], Tail, onnx.ModelProto]:
    """Four brought backbones, their tail, and the merged network."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("brought")
    files = [small_backbone(folder / f"{n}.onnx", 64, 64, 6 + i, i) for i, n in enumerate(NAMES)]
    backbones = open_backbones(files, SPEC)
    tail = make_tail([backbone.channels for backbone in backbones])
    return backbones, tail, to_onnx.merge(backbones, tail, SPEC)


def test_five_files_answer_like_the_merged_one(
    parts: tuple[list[Backbone], Tail, onnx.ModelProto], tmp_path: Path
) -> None:
    backbones, tail, merged = parts
    report = to_onnx.write_parts(tmp_path, merged, backbones, tail, SPEC)
    assert json.loads((tmp_path / to_onnx.PARTS_FILE).read_text()) == report
    assert list(report) == [*NAMES, "tail"]
    known = {"radiographs": like_a_radiograph(SPEC, seed=3)}
    for part in report.values():
        content = (tmp_path / part["file"]).read_bytes()
        assert part["sha256"] == hashlib.sha256(content).hexdigest()
        assert part["largest_relative_difference"] < to_onnx.TOLERANCE
        session = onnxruntime.InferenceSession(content)
        asked = {value.name: known[value.name] for value in session.get_inputs()}
        names = [value.name for value in session.get_outputs()]
        known.update(zip(names, session.run(names, asked), strict=True))
    whole = onnxruntime.InferenceSession(merged.SerializeToString())
    expected = whole.run(None, {"radiographs": known["radiographs"]})
    for value, wanted in zip(whole.get_outputs(), expected, strict=True):
        np.testing.assert_allclose(known[value.name], wanted, atol=1e-5, rtol=1e-4)


def test_a_part_that_differs_from_its_origin_is_not_written(
    parts: tuple[list[Backbone], Tail, onnx.ModelProto], tmp_path: Path
) -> None:
    backbones, tail, merged = parts
    changed = onnx.ModelProto.FromString(merged.SerializeToString())
    for tensor in changed.graph.initializer:
        if tensor.name == "north.head":
            doubled = 2.0 * onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(doubled, tensor.name))
    with pytest.raises(ValueError, match="the part north differs"):
        to_onnx.write_parts(tmp_path, changed, backbones, tail, SPEC)
    assert not list(tmp_path.glob("*.onnx"))
