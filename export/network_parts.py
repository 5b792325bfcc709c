"""A merged network cut where its backbones end: a file for each backbone, and one that joins them.

In a bundle's ONNX files every tensor of backbone `a` is called `a.…`; it ends in `a.logits` and
`a.features`. So the layout "four engines and a map head" needs no second copy of the weights: it is
cut from the merged file by these names when plans are built.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, shape_inference

from hipnet_edge.backends.tensorrt_build import TAIL

ENTRY = "radiographs"
ENDS = ("logits", "features")


def cut(model: onnx.ModelProto, backbones: Sequence[str]) -> dict[str, onnx.ModelProto]:
    """The parts of a merged network, each a whole model.

    Args:
        model: of a bundle, with static shapes.
        backbones: their names.

    Returns:
        By name, the backbones and then `TAIL`; joined by tensors of the same name they compute
        what the merged network does.

    Raises:
        ValueError: the network lacks the output of a backbone, or the tail reads more of a
            backbone than that.
    """
    from polygraphy.backend.onnx import extract_subgraph
    from polygraphy.common import TensorMetadata

    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    tensors = {
        value.name: value
        for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    }

    def described(names: Sequence[str]) -> TensorMetadata:
        found = TensorMetadata()
        for name in names:
            if name not in tensors:
                raise ValueError(f"the network has no tensor {name}")
            kind = tensors[name].type.tensor_type
            shape = tuple(size.dim_value for size in kind.shape.dim)
            found.add(name, np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)), shape)
        return found

    between = [f"{name}.{end}" for name in backbones for end in ENDS]
    ends = {name: [f"{name}.{end}" for end in ENDS] for name in backbones}
    outputs = [value.name for value in model.graph.output]
    parts = {
        name: extract_subgraph(model, described([ENTRY]), described(ends[name]))
        for name in backbones
    }
    parts[TAIL] = extract_subgraph(model, described(between), described(outputs))
    for name, part in parts.items():
        _check(name, part, between if name == TAIL else [ENTRY])
    return parts


def _check(name: str, part: onnx.ModelProto, inputs: Sequence[str]) -> None:
    """Refuse a part that reads anything but its inputs, such as another backbone's inside."""
    found = [value.name for value in part.graph.input]
    made = {output for node in part.graph.node for output in node.output}
    made |= {tensor.name for tensor in part.graph.initializer} | set(inputs)
    read = {given for node in part.graph.node for given in node.input if given}
    if set(found) != set(inputs) or not read <= made:
        missing = sorted((read - made) | (set(found) ^ set(inputs)))
        raise ValueError(f"the part {name} cannot be cut out: it also needs {missing[:3]}")
    onnx.checker.check_model(part, full_check=True)
