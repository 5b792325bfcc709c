"""Peers: the bundle's own ONNX files in ONNX Runtime and OpenVINO, with these engines' defaults."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import Loader, NotHere, Peer, require, versions
from hipnet_edge.backends import Outputs
from hipnet_edge.backends.openvino_runtime import import_openvino
from hipnet_edge.bundle import Bundle

FOUR_SESSIONS, ORT_FP32, ORT_INT8 = "ort-fp32-four-sessions", "ort-fp32", "ort-int8"
OPENVINO_FP32, OPENVINO_BF16, OPENVINO_INT8 = "openvino-fp32", "openvino-bf16", "openvino-int8"

Array = NDArray[Any]


def session_of(model: bytes, threads: int | None) -> Any:
    """ONNX Runtime on the CPU with its defaults; `threads` None leaves their number to it too."""
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Session:
    """The merged network in one session."""

    def __init__(self, model: bytes, threads: int | None) -> None:
        self._session = session_of(model, threads)
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, radiographs: Array) -> Outputs:
        """One inference."""
        found = self._session.run(None, {"radiographs": radiographs})
        return Outputs(**dict(zip(self._names, found, strict=True)))

    def close(self) -> None:
        """Release the session."""
        self._session = None


class FourSessions:
    """A session for each backbone, as four exported models are; one for what joins them."""

    def __init__(self, bundle: Bundle, threads: int | None) -> None:
        require("onnx")
        import onnx

        from export.parts import TAIL, cut

        names = [backbone.name for backbone in bundle.manifest.backbones]
        try:
            parts = cut(onnx.load_from_string(bundle.model("fp32")), names)
        except ValueError as error:
            raise NotHere(f"the network cannot be cut into its backbones: {error}") from error
        sessions = {
            name: session_of(part.SerializeToString(), threads) for name, part in parts.items()
        }
        self._tail = sessions.pop(TAIL)
        self._backbones = list(sessions.values())
        self._needed = [entry.name for entry in self._tail.get_inputs()]
        self._given = [[out.name for out in one.get_outputs()] for one in self._backbones]
        self._names = [output.name for output in self._tail.get_outputs()]

    def run(self, radiographs: Array) -> Outputs:
        """One backbone after the other, then the map head and the fusion."""
        between: dict[str, Array] = {}
        for session, names in zip(self._backbones, self._given, strict=True):
            found = session.run(None, {"radiographs": radiographs})
            between.update(zip(names, found, strict=True))
        found = self._tail.run(None, {name: between[name] for name in self._needed})
        return Outputs(**dict(zip(self._names, found, strict=True)))

    def close(self) -> None:
        """Release the sessions."""
        self._backbones, self._tail = [], None


class Compiled:
    """The merged network in OpenVINO on the CPU."""

    def __init__(self, model: bytes, threads: int | None, precision: str | None) -> None:
        require("openvino")
        core = import_openvino().Core()  # the plain import would report itself to a server
        if precision == "bf16" and "BF16" not in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise NotHere("this processor has no BF16 instructions")
        config: dict[str, Any] = {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
        if precision is not None:
            config["INFERENCE_PRECISION_HINT"] = precision
        self._compiled = core.compile_model(core.read_model(model), "CPU", config)
        self._names = [output.get_any_name() for output in self._compiled.outputs]

    def run(self, radiographs: Array) -> Outputs:
        """One inference."""
        found = self._compiled({"radiographs": radiographs})
        return Outputs(**{name: found[name] for name in self._names})

    def close(self) -> None:
        """Release the compiled model."""
        self._compiled = None


def _four_sessions(bundle: Bundle, threads: int | None) -> Peer:
    engine = FourSessions(bundle, threads)
    description = "a session for each backbone, defaults, one after the other; then the tail's"
    return _warm(FOUR_SESSIONS, description, "fp32", "onnxruntime", engine, bundle)


def _ort(name: str, variant: str, precision: str) -> Loader:
    def load(bundle: Bundle, threads: int | None) -> Peer:
        engine = Session(_model(bundle, variant), threads)
        description = f"the merged {variant} network in one session, defaults"
        return _warm(name, description, precision, "onnxruntime", engine, bundle)

    return load


def _openvino(name: str, variant: str, precision: str, hint: str | None) -> Loader:
    def load(bundle: Bundle, threads: int | None) -> Peer:
        engine = Compiled(_model(bundle, variant), threads, hint)
        told = "defaults" if hint is None else f"defaults but for INFERENCE_PRECISION_HINT={hint}"
        description = f"the merged {variant} network, {told}"
        return _warm(name, description, precision, "openvino", engine, bundle)

    return load


def _model(bundle: Bundle, variant: str) -> bytes:
    if variant not in bundle.manifest.variants:
        raise NotHere(f"the bundle has no variant {variant}")
    return bundle.model(variant)


def _warm(
    name: str, description: str, precision: str, package: str, engine: Any, bundle: Bundle
) -> Peer:
    engine.run(bundle.signature("fp32").test_pattern().astype(np.float32))
    return Peer(name, description, precision, versions(package), engine.run, engine.close)


PEERS: dict[str, Loader] = {
    FOUR_SESSIONS: _four_sessions,
    ORT_FP32: _ort(ORT_FP32, "fp32", "fp32"),
    ORT_INT8: _ort(ORT_INT8, "cpu-int8", "int8"),
    OPENVINO_FP32: _openvino(OPENVINO_FP32, "fp32", "fp32", "f32"),
    OPENVINO_BF16: _openvino(OPENVINO_BF16, "fp32", "bf16", "bf16"),
    OPENVINO_INT8: _openvino(OPENVINO_INT8, "cpu-int8", "int8", None),
}
"""By name, how each is loaded."""
