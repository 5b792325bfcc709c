"""A tiny bundle with a real network in it, for tests of the runtime; it knows nothing of hips.

The ONNX file keeps the contract (names and shapes) and its outputs depend on every part of its
input through fixed convolution weights: a wrong, late or exchanged input changes the answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hipnet_edge.vocabulary import CAUSES

ROWS, COLUMNS, STRIDE = 512, 320, 8


def small_model(
    *,
    rows: int = ROWS,
    columns: int = COLUMNS,
    dynamic_batch: bool = False,
    scale: float = 1.0,
    novelty: bool = False,
    change: Callable[[onnx.ModelProto], None] | None = None,
) -> bytes:
    """Two views through one convolution to maps; their means to four members and the ensemble.

    `novelty` is the largest of the means in 0 to 1: a bright, smooth study is a strange one.
    """
    batch: int | str = "batch" if dynamic_batch else 1
    h, w = rows // STRIDE, columns // STRIDE
    wave = np.sin(np.arange(5 * STRIDE * STRIDE, dtype=np.float64) * 0.7)
    weights = {
        "kernel": (scale * wave.reshape(5, 1, STRIDE, STRIDE) / STRIDE).astype(np.float32),
        "mix": np.cos(np.arange(10 * 20, dtype=np.float32).reshape(10, 20) * 1.3) * 6,
        "one_view": np.array([-1, 1, rows, columns], np.int64),
        "map_shape": np.array([-1, 2, 5, h, w], np.int64),
        "feature_shape": np.array([-1, 10], np.int64),
        "member_shape": np.array([-1, 4, 5], np.int64),
        "members": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["radiographs", "one_view"], ["view"]),
        helper.make_node("Conv", ["view", "kernel"], ["heat"], strides=[STRIDE, STRIDE]),
        helper.make_node("Sigmoid", ["heat"], ["glow"]),
        helper.make_node("Reshape", ["glow", "map_shape"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["glow"], ["mean"]),
        helper.make_node("Reshape", ["mean", "feature_shape"], ["features"]),
        helper.make_node("MatMul", ["features", "mix"], ["logits"]),
        helper.make_node("Reshape", ["logits", "member_shape"], ["member_logits"]),
        helper.make_node("Softmax", ["member_logits"], ["member_probabilities"], axis=-1),
        helper.make_node(
            "ReduceMean", ["member_probabilities", "members"], ["probabilities"], keepdims=0
        ),
    ]

    def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "small",
        [value("radiographs", batch, 2, rows, columns)],
        [
            value("probabilities", batch, 5),
            value("member_probabilities", batch, 4, 5),
            value("maps", batch, 2, 5, h, w),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    if novelty:
        graph.node.append(
            helper.make_node("ReduceMax", ["features", "members"], ["novelty"], keepdims=0)
        )
        graph.output.append(value("novelty", batch))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if change is not None:
        change(model)
    return model.SerializeToString()


def small_manifest(model: bytes) -> dict[str, Any]:
    """The manifest of a bundle whose only file is the model."""
    return {
        "schema": 1,
        "name": "small",
        "version": "1.0",
        "created": "2026-01-01T00:00:00Z",
        "causes": [
            "pji",
            "aseptic_loosening",
            "dislocation",
            "periprosthetic_fracture",
            "polyethylene_wear",
        ],
        "input": {
            "rows": ROWS,
            "columns": COLUMNS,
            "low_percentile": 1.0,
            "high_percentile": 99.0,
            "mean": 0.5,
            "std": 0.25,
        },
        "views": ["ap", "lateral"],
        "map_stride": STRIDE,
        "backbones": [
            {"name": name, "family": "test", "parameters": 50, "temperature": 1.0}
            for name in ("first", "second", "third", "fourth")
        ],
        "fusion": {"method": "mean of temperature-scaled softmax", "weights": [0.25] * 4},
        "variants": {"fp32": {"file": "fp32.onnx", "dynamic_batch": False}},
        "files": {"fp32.onnx": declared(model)},
        "training": {"data": "none", "studies": 0, "metrics": {}},
        "intended_use": "Tests of the runtime. Not for clinical use.",
        "simulated": True,
    }


def small_decision() -> dict[str, Any]:
    """A calibration for the manifest of a bundle whose model has the output `novelty`."""
    return {
        "thresholds": {cause.value: 0.4 for cause in CAUSES},
        "conformal": {"coverage": 0.9, "threshold": 0.8},
        "novelty": {"threshold": 1.0},
        "sign_of_failure": {"slope": 1.5, "intercept": -0.5, "threshold": 0.3},
    }


def declared(content: bytes) -> dict[str, Any]:
    """A file's entry in a manifest."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def write_bundle(
    folder: Path, model: bytes | None = None, manifest: dict[str, Any] | None = None
) -> Path:
    """Write a bundle; `manifest` is written as it is, the default one fits the model."""
    content = small_model() if model is None else model
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fp32.onnx").write_bytes(content)
    text = json.dumps(small_manifest(content) if manifest is None else manifest)
    (folder / "manifest.json").write_text(text)
    return folder
