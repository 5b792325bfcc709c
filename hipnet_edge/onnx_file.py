"""What must be known of an ONNX file before an engine sees it, without the onnx package.

An ONNX file may point to other files for its weights ("external data"). Such files would not be
covered by the digests in a bundle's manifest, and an engine would look for them in whatever
folder the process happens to stand in. So only files that hold everything themselves are used.
"""

from __future__ import annotations

# The messages of onnx.proto3 that can hold a tensor, and the numbers of the fields that lead there.
_NESTED: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_TENSOR_EXTERNAL_DATA = 13
_TENSOR_DATA_LOCATION = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def points_elsewhere(model: bytes) -> bool:
    """Whether any tensor of an ONNX file keeps its values in another file.

    Args:
        model: the file's bytes, a serialised ModelProto.

    Raises:
        ValueError: the bytes are no protocol buffer message, or hold no graph.
    """
    if len(model) == 0:
        raise ValueError("empty")
    has_graph = False
    pending = [("Model", 0, len(model))]
    while pending:
        message, position, end = pending.pop()
        nested = _NESTED[message]
        while position < end:
            tag, position = _varint(model, position, end)
            field, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                value, position = _varint(model, position, end)
                if message == "Tensor" and field == _TENSOR_DATA_LOCATION and value != 0:
                    return True
                continue
            if wire == _BYTES:
                length, position = _varint(model, position, end)
            elif wire in (_FIXED64, _FIXED32):
                length = 8 if wire == _FIXED64 else 4
            else:
                raise ValueError("not a protocol buffer message")
            if position + length > end:
                raise ValueError("cut short")
            if message == "Tensor" and field == _TENSOR_EXTERNAL_DATA:
                return True
            if wire == _BYTES and field in nested:
                has_graph = has_graph or nested[field] == "Graph"
                pending.append((nested[field], position, position + length))
            position += length
    if not has_graph:
        raise ValueError("no graph")
    return False


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """The base-128 number at `position` and the position after it."""
    value = shift = 0
    while position < end and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("not a protocol buffer message")
