"""A merged network cut into its four backbones and its tail, by the names of its tensors.

In a merged file everything of a backbone is called `<name>.…`, and the tail reads nothing of it
but `<name>.logits` and `<name>.features`. So the layout of five files needs no second copy of the
weights in a bundle: it is cut out of the merged one, of whatever variant, when it is wanted.
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
        By backbone's name, inputs `radiographs`, outputs `<name>.logits` and `<name>.features`;
        under "tail" what reads all of these and gives the merged network's outputs. A tensor has
        one name in all parts: an output feeds the input that is called like it.

    Raises:
        ValueError: the network was not merged by these names.
    """
    boundary = {name: [f"{name}.{output}" for output in OUTPUTS] for name in backbones}
    made = {output for node in model.graph.node for output in node.output}
    missing = [name for names in boundary.values() for name in names if name not in made]
    if missing:
        raise ValueError(f"the network has no tensor {missing[0]!r} to cut it at")
    # Shapes and types of the boundary must be known to become inputs and outputs.
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, data_prop=True)
    extractor = Extractor(inferred)
    parts = {name: extractor.extract_model([ENTRY], names) for name, names in boundary.items()}
    given = [name for names in boundary.values() for name in names]
    outputs = [value.name for value in model.graph.output]
    parts[TAIL] = extractor.extract_model(given, outputs)
    for part in parts.values():
        part.ir_version = model.ir_version
        part.graph.name = "hipnet"
        part.producer_name = model.producer_name
        onnx.checker.check_model(part, full_check=True)
    return parts
