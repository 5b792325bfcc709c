"""A merged network cut where its backbones end: a network for each backbone, and the tail.

In a bundle's ONNX files every tensor of backbone `a` is called `a.…`; it ends in `a.logits` and
`a.features`, and the tail reads nothing else of it. So the layout of five files needs no second
copy of the weights: it is cut out of the merged file, of whatever variant, when it is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx.utils import Extractor

TAIL = "tail"
ENTRY = "radiographs"
OUTPUTS = ("logits", "features")
"""What a backbone gives; in the merged file `<name>.logits` and `<name>.features`."""


def cut(model: onnx.ModelProto, backbones: Sequence[str]) -> dict[str, onnx.ModelProto]:
    """The parts of a merged network, each a network of its own.

    Args:
        model: the merged network, of any variant.
        backbones: their names, in the order of the fusion.

    Returns:
        By name, the backbones and then `TAIL`. A tensor has one name in all parts: an output
        feeds the input that is called like it, and together they compute what the merged one does.

    Raises:
        ValueError: the network lacks the output of a backbone, or the tail reads more of a
            backbone than that.
    """
    ends = {name: [f"{name}.{output}" for output in OUTPUTS] for name in backbones}
    between = [name for names in ends.values() for name in names]
    made = {output for node in model.graph.node for output in node.output}
    for name in between:
        if name not in made:
            raise ValueError(f"the network has no tensor {name}")
    # Shapes and types where it is cut must be known: they are inputs and outputs then.
    extractor = Extractor(onnx.shape_inference.infer_shapes(model, check_type=True, data_prop=True))
    parts = {name: extractor.extract_model([ENTRY], names) for name, names in ends.items()}
    parts[TAIL] = extractor.extract_model(between, [value.name for value in model.graph.output])
    for name, part in parts.items():
        part.ir_version = model.ir_version
        part.graph.name, part.producer_name = model.graph.name, model.producer_name
        _check(name, part)
    return parts


def _check(name: str, part: onnx.ModelProto) -> None:
    """Refuse a part that reads anything but its inputs, such as another backbone's inside."""
    known = {value.name for value in part.graph.input}
    known |= {tensor.name for tensor in part.graph.initializer}
    known |= {output for node in part.graph.node for output in node.output}
    read = {given for node in part.graph.node for given in node.input if given}
    if missing := sorted(read - known):
        raise ValueError(f"the part {name} cannot be cut out: it also needs {missing[:3]}")
    onnx.checker.check_model(part, full_check=True)
