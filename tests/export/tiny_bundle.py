"""A bundle whose network was merged from four tiny backbones that have learned a toy task.

The cause of a study is the direction of its stripes. Each backbone is a stack of random
convolutions (with a shortcut and a depthwise one) whose linear decision is fitted in closed form,
so that the network is sure of what it says and quantising it is worth judging.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from export import onnx_graph
from export.bundle import write_bundle
from export.cohort import Cohort
from hipnet_edge.preprocessing import InputSpec
from hipnet_edge.vocabulary import CAUSES

NAMES = ("north", "east", "south", "west")
SIDE, CHANNELS = 64, 8
CELLS = SIDE // 16
SPEC = InputSpec(rows=SIDE, columns=SIDE)
CONVOLUTIONS = ("stem", "widen", "body", "deep", "depthwise")


class Quantised(NamedTuple):
    """A tiny bundle and what `python -m export.quantize` made of it."""

    source: Path
    bundle: Path
    calibration: Path
    gate_cohort: Path
    report: dict[str, Any]


def striped_cohort(n: int, seed: int) -> Cohort:
    """Stripes over noise; nobody has drawn where the disease is."""
    random = np.random.default_rng(seed)
    causes = np.arange(n, dtype=np.int64) % 5
    y, x = np.mgrid[:SIDE, :SIDE]
    radiographs = np.empty((n, 2, SIDE, SIDE), np.float16)
    for i, cause in enumerate(causes):
        angle = np.pi * cause / 5
        along = 1.1 * (x * np.cos(angle) + y * np.sin(angle))
        for view in range(2):
            stripes = random.uniform(0.6, 1.0) * np.sin(along + random.uniform(0, 2 * np.pi))
            radiographs[i, view] = stripes + 0.2 * random.standard_normal((SIDE, SIDE))
    return Cohort(
        radiographs=radiographs,
        occupancy=np.full((n, 2, SIDE // 8, SIDE // 8), np.nan, np.float16),
        causes=causes,
        table={"cause": np.array([CAUSES[cause].value for cause in causes])},
        index={"n": n, "seed": seed, "input": SPEC.to_dict()},
    )


class _Graph:
    """Nodes and weights of a network in the making."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def reshape(self, source: str, output: str, *shape: int) -> str:
        return self.add(
            "Reshape",
            [source, self.constant(f"{output}_shape", np.array(shape, np.int64))],
            output,
        )

    def conv(self, source: str, name: str, shape: tuple[int, ...], **attributes: Any) -> str:
        kernel = self.random.normal(size=shape) * np.sqrt(2.0 / np.prod(shape[1:]))
        bias = self.random.normal(size=shape[0]) * 0.1
        weights = [
            self.constant(f"{name}_kernel", kernel.astype(np.float32)),
            self.constant(f"{name}_bias", bias.astype(np.float32)),
        ]
        pads = {"pads": [shape[2] // 2] * 4} if shape[2] == 3 else {}
        return self.add("Conv", [source, *weights], name, **pads, **attributes)

    def model(
        self, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]
    ) -> onnx.ModelProto:
        def values(named: dict[str, tuple[int, ...]]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in named.items()
            ]

        graph = helper.make_graph(self.nodes, "tiny", values(inputs), values(outputs), self.weights)
        opsets = [helper.make_opsetid("", onnx_graph.OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=onnx_graph.IR_VERSION)


FEATURES = (1, 2, CHANNELS, CELLS, CELLS)


def tiny_backbone(seed: int, studies: Cohort) -> onnx.ModelProto:
    """Stem, a residual block, stride, a depthwise convolution; the decision fitted to studies."""
    g, c = _Graph(seed), CHANNELS
    g.reshape("radiographs", "views", -1, 1, SIDE, SIDE)
    g.add("Relu", [g.conv("views", "stem", (c, 1, 4, 4), strides=[4, 4])], "stem_active")
    g.add("Relu", [g.conv("stem_active", "widen", (c, c, 3, 3))], "wide")
    g.add("Add", ["stem_active", g.conv("wide", "body", (c, c, 3, 3))], "sum")
    g.add("Relu", ["sum"], "sum_active")
    g.add("Relu", [g.conv("sum_active", "deep", (c, c, 4, 4), strides=[4, 4])], "deep_active")
    g.add("Relu", [g.conv("deep_active", "depthwise", (c, 1, 3, 3), group=c)], "planes")
    g.reshape("planes", "features", *FEATURES)
    g.add("GlobalAveragePool", ["sum_active"], "pooled")
    g.reshape("pooled", "vector", -1, 2 * c)
    found = _run(g.model({"radiographs": (1, 2, SIDE, SIDE)}, {"vector": (1, 2 * c)}), studies)
    seen = np.concatenate([found, np.ones((len(found), 1))], axis=1)
    wanted = 8.0 * np.eye(5)[studies.causes] - 4.0
    head = np.linalg.lstsq(seen, wanted, rcond=None)[0].astype(np.float32)
    matrix, offset = g.constant("head", head[:-1]), g.constant("offset", head[-1])
    g.add("Gemm", ["vector", matrix, offset], "logits")
    return g.model({"radiographs": (1, 2, SIDE, SIDE)}, {"logits": (1, 5), "features": FEATURES})


def _run(model: onnx.ModelProto, studies: Cohort) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    given = np.asarray(studies.radiographs, np.float32)
    return np.concatenate([session.run(None, {"radiographs": one[np.newaxis]})[0] for one in given])


def tiny_tail() -> onnx.ModelProto:
    """Map head, fusion and a novelty, as `export.tail` has them."""
    g = _Graph(99)
    reduced = []
    for name in NAMES:
        flat = g.reshape(f"{name}.features", f"{name}_flat", -1, CHANNELS, CELLS, CELLS)
        reduced.append(
            g.add("Relu", [g.conv(flat, f"{name}_reduce", (4, CHANNELS, 1, 1))], f"{name}_r")
        )
    g.add(
        "Relu", [g.conv(g.add("Concat", reduced, "joined", axis=1), "mix", (16, 16, 3, 3))], "mixed"
    )
    g.add("DepthToSpace", [g.conv("mixed", "cells", (20, 16, 1, 1))], "fine", blocksize=2)
    g.add("Sigmoid", [g.reshape("fine", "by_view", 1, 2, 5, 2 * CELLS, 2 * CELLS)], "maps")
    axis = g.constant("axis", np.array([1], np.int64))
    members = [g.add("Unsqueeze", [f"{name}.logits", axis], f"{name}_member") for name in NAMES]
    g.add("Concat", members, "member_logits", axis=1)
    g.add("Softmax", ["member_logits"], "member_probabilities", axis=-1)
    g.add("ReduceMean", ["member_probabilities", axis], "probabilities", keepdims=0)
    everything = g.constant("everything", np.array([1, 2, 3, 4], np.int64))
    squares = [g.add("Mul", [f"{name}.features"] * 2, f"{name}_squares") for name in NAMES]
    g.add("Sum", squares, "squares")
    g.add("ReduceMean", ["squares", everything], "novelty", keepdims=0)
    inputs = {
        **{f"{name}.logits": (1, 5) for name in NAMES},
        **{f"{name}.features": FEATURES for name in NAMES},
    }
    return g.model(
        inputs,
        {
            "probabilities": (1, 5),
            "member_probabilities": (1, 4, 5),
            "maps": (1, 2, 5, 2 * CELLS, 2 * CELLS),
            "novelty": (1,),
        },
    )


def tiny_network() -> onnx.ModelProto:
    """The four merged with their tail, as `export.to_onnx` merges them."""
    studies = striped_cohort(60, seed=1)
    backbones = {name: tiny_backbone(i, studies) for i, name in enumerate(NAMES)}
    return onnx_graph.join(backbones, tiny_tail(), "radiographs")


def write_tiny_bundle(folder: Path, limits: dict[str, float] | None = None) -> Path:
    """The reference alone, calibrated, with limits of a gate."""
    fields: dict[str, Any] = {
        "name": "tiny",
        "version": "1",
        "created": "2026-01-01",
        "input": SPEC.to_dict(),
        "map_stride": 8,
        "backbones": [
            {"name": name, "family": "test", "parameters": 1000, "temperature": 1.0}
            for name in NAMES
        ],
        "fusion": {"method": "mean", "weights": [0.25] * 4},
        "decision": {
            "thresholds": {cause.value: 0.5 for cause in CAUSES},
            "conformal": {"coverage": 0.9, "threshold": 0.8},
            "novelty": {"threshold": 1e3},
            "sign_of_failure": {"slope": 1.0, "intercept": 0.0, "threshold": 0.01},
        },
        "variants": {"fp32": {"file": "fp32.onnx", "dynamic_batch": False}},
        "gate": {"limits": limits or {}, "verdicts": []},
        "training": {},
        "simulated": True,
    }
    write_bundle(folder, {"fp32.onnx": tiny_network().SerializeToString()}, fields)
    return folder
