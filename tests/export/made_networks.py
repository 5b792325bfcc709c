"""Networks with random weights and statistics, as training and refitting leave them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from export.novelty import Distance, Novelty
from export.tail import Fusion, MapHead, Tail


def lived_in(module: nn.Module) -> nn.Module:
    """Batch normalisation as training leaves it: statistics and scales of its own."""
    torch.manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0.0, 0.2)
            layer.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.0, 0.2)
    return module.eval()


def make_tail(channels: Sequence[int]) -> Tail:
    """A tail for backbones of so many channels."""
    random = np.random.default_rng(0)
    distances = [Distance.fit(random.normal(size=(40, 4 * c))) for c in channels]
    tail = Tail(MapHead(channels), Fusion([0.8, 1.0, 1.5, 2.0], [0.25] * 4), Novelty(distances))
    return lived_in(tail)


def small_backbone(
    path: Path,
    rows: int,
    columns: int,
    channels: int = 6,
    seed: int = 0,
    batch: int | str = 1,
    opset: int = 17,
    outputs: tuple[str, str] = ("logits", "features"),
) -> Path:
    """A backbone that somebody brings: one convolution of stride 16, written with plain ONNX."""
    random = np.random.default_rng(seed)
    h, w = rows // 16, columns // 16
    weights = {
        "kernel": random.normal(size=(channels, 1, 16, 16)).astype(np.float32) / 8,
        "bias": random.normal(size=channels).astype(np.float32),
        "head": random.normal(size=(2 * channels, 5)).astype(np.float32),
        "one_view": np.array([-1, 1, rows, columns], np.int64),
        "by_view": np.array([-1, 2, channels, h, w], np.int64),
        "flat": np.array([-1, 2 * channels], np.int64),
    }
    logits, features = outputs
    nodes = [
        helper.make_node("Reshape", ["radiographs", "one_view"], ["views"]),
        helper.make_node("Conv", ["views", "kernel", "bias"], ["planes"], strides=[16, 16]),
        helper.make_node("Relu", ["planes"], ["active"], name="active"),
        helper.make_node("Reshape", ["active", "by_view"], [features]),
        helper.make_node("GlobalMaxPool", ["active"], ["peak"]),
        helper.make_node("Reshape", ["peak", "flat"], ["vector"]),
        helper.make_node("MatMul", ["vector", "head"], [logits]),
    ]

    def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "brought",
        [value("radiographs", batch, 2, rows, columns)],
        [value(logits, batch, 5), value(features, batch, 2, channels, h, w)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model.doc_string = str(path.parent)
    onnx.save(model, path)
    return path
