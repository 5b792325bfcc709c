"""Ways to run the network, and the choice between them."""

from __future__ import annotations

from hipnet_edge.backends.backend import Backend, Identity, Outputs, Signature
from hipnet_edge.backends.choice import BACKENDS, Choice, choose_backend
from hipnet_edge.backends.cores import available_cores
from hipnet_edge.backends.onnxruntime_backend import OnnxRuntimeBackend
from hipnet_edge.backends.openvino_backend import OpenVinoBackend
from hipnet_edge.backends.tensorrt_backend import TensorRtBackend

__all__ = [
    "BACKENDS",
    "Backend",
    "Choice",
    "Identity",
    "OnnxRuntimeBackend",
    "OpenVinoBackend",
    "Outputs",
    "Signature",
    "TensorRtBackend",
    "available_cores",
    "choose_backend",
]
