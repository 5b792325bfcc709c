"""The four backbones as ONNX files that keep one contract, wherever they come from.

The contract: input `radiographs` float32 [B, 2, H, W], AP first; outputs `logits` [B, 5] in the
order of `CAUSES` and `features` [B, 2, C, H/16, W/16], of any C. B is 1 or free. Standard
operators only. Metadata `family` may say in words what it is. A trained `Member` is brought to
the same form, so that there is one way from here on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export import onnx_graph
from export.network import FAMILIES, FEATURE_STRIDE, Member, deploy
from export.parts import OUTPUTS
from hipnet_edge.backends.backend import MEMBERS as COUNT
from hipnet_edge.preprocessing import InputSpec
from hipnet_edge.vocabulary import CAUSES, VIEWS

_FAMILY = "family"


class DeployedMember(nn.Module):
    """A member without the evidence map, which only training needs."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.member = deploy(member)

    def forward(self, radiographs: Tensor) -> tuple[Tensor, Tensor]:
        """`logits` and `features` of `radiographs`."""
        outputs = self.member(radiographs)
        return outputs.logits, outputs.features


def export_member(
    member: Member, spec: InputSpec, dynamic_batch: bool = False
) -> tuple[onnx.ModelProto, float]:
    """A trained member as an ONNX backbone: re-parameterised, batch normalisation folded.

    Returns:
        The model, and its largest difference from PyTorch relative to the largest value.
    """
    deployed = DeployedMember(member).eval()
    model, difference = export_module(deployed, FAMILIES[member.name], spec, dynamic_batch)
    onnx_graph.rename(model.graph, lambda name: name.removeprefix("member."))
    return model, difference


def export_module(
    module: nn.Module, family: str, spec: InputSpec, dynamic_batch: bool = False
) -> tuple[onnx.ModelProto, float]:
    """A PyTorch network that keeps the contract as an ONNX backbone.

    Args:
        module: for inference; `radiographs` to `logits` and `features`.
        family: what it is, in words.
        spec: the input's size.
        dynamic_batch: let it take any number of studies.

    Returns:
        The model, and its largest difference from PyTorch relative to the largest value.
    """
    example = torch.zeros(2 if dynamic_batch else 1, len(VIEWS), spec.rows, spec.columns)
    model = onnx_graph.from_torch(module, (example,), ["radiographs"], OUTPUTS, dynamic_batch)
    entry = model.metadata_props.add()
    entry.key, entry.value = _FAMILY, family
    studies = like_a_radiograph(spec, seed=0)
    with torch.no_grad():
        expected = module(torch.from_numpy(studies))
    found = open_session(model).run(list(OUTPUTS), {"radiographs": studies})
    return model, relative_difference([wanted.numpy() for wanted in expected], found)


def relative_difference(
    expected: Sequence[NDArray[np.float32]], found: Sequence[NDArray[np.float32]]
) -> float:
    """The largest difference of any output, relative to that output's largest value."""
    return max(
        float(np.abs(given - wanted).max() / max(float(np.abs(wanted).max()), 1e-6))
        for wanted, given in zip(expected, found, strict=True)
    )


def like_a_radiograph(spec: InputSpec, seed: int) -> NDArray[np.float32]:
    """Random input [1, 2, H, W], smooth and rough at once: noise alone leaves features quiet."""
    random = np.random.default_rng(seed)
    shape = (1, len(VIEWS), spec.rows, spec.columns)
    coarse = random.normal(size=(1, len(VIEWS), spec.rows // 16, spec.columns // 16))
    studies = np.kron(coarse, np.ones((16, 16))) + 0.3 * random.normal(size=shape)
    return studies.astype(np.float32)


@dataclass(frozen=True)
class Backbone:
    """One backbone of a set, checked against the contract."""

    name: str
    model: onnx.ModelProto
    channels: int
    family: str
    parameters: int
    dynamic_batch: bool


def open_backbones(paths: Sequence[Path], spec: InputSpec) -> list[Backbone]:
    """Read four ONNX files; a file's name without suffix becomes the backbone's.

    Raises:
        ValueError: they are not four of different names, or one breaks the contract.
    """
    names = {path.stem for path in paths}
    if len(paths) != COUNT or len(names) != COUNT:
        raise ValueError(f"an ensemble needs {COUNT} backbones of different names, not {names}")
    return [_open(path, spec) for path in paths]


def _open(path: Path, spec: InputSpec) -> Backbone:
    model = onnx.load(path)
    rows, columns = spec.rows // FEATURE_STRIDE, spec.columns // FEATURE_STRIDE
    values = {value.name: _shape(value) for value in (*model.graph.input, *model.graph.output)}
    inputs = [value.name for value in model.graph.input]
    channels = values.get("features", [0, 0, 0])[2]
    expected = {
        "radiographs": [len(VIEWS), spec.rows, spec.columns],
        "logits": [len(CAUSES)],
        "features": [len(VIEWS), channels, rows, columns],
    }
    found = {name: shape[1:] for name, shape in values.items() if name in expected}
    if inputs != ["radiographs"] or found != expected or channels < 1:
        raise ValueError(
            f"{path} breaks the contract of a backbone: it has {values}, and needs "
            f"radiographs [B, 2, {spec.rows}, {spec.columns}], logits [B, {len(CAUSES)}] and "
            f"features [B, 2, C, {rows}, {columns}]"
        )
    family = next((p.value for p in model.metadata_props if p.key == _FAMILY), "brought as ONNX")
    return Backbone(
        name=path.stem,
        model=model,
        channels=channels,
        family=family,
        parameters=onnx_graph.parameter_count(model),
        dynamic_batch=values["radiographs"][0] == 0,
    )


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    """The sides of a tensor; 0 where one is free."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def open_session(model: onnx.ModelProto, threads: int = 0) -> Any:
    """ONNX Runtime on the CPU; `threads` 0 is all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
