"""ONNX Runtime: one merged graph in one session, on the CPU or through a provider for the GPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.backends.backend import Backend, Identity, Outputs, Progress, Signature
from hipnet_edge.backends.cores import available_cores
from hipnet_edge.errors import EngineUnusable, MissingExtra, Reason, UsageError
from hipnet_edge.machine import int8_device

if TYPE_CHECKING:
    from types import ModuleType

    import onnxruntime

    from hipnet_edge.bundle import Bundle

_FATAL_ONLY = 4
"""ONNX Runtime's log level: what goes wrong reaches us as an exception, not as a line on stderr."""

_TENSOR_TYPES = {"float32": "tensor(float)", "float16": "tensor(float16)"}
"""What ONNX Runtime calls the types of inputs."""


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime's CPU provider.

    Args:
        model: a bundle's merged ONNX file.
        signature: the shapes it must have.
        variant: which variant the file is; INT8 depends on the processor's instructions.
        threads: how many threads share one inference; None for all cores this process may use.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        EngineUnusable: it does not load here, or refuses the model (ENGINE_FAILED).
        UsageError: `threads` is not a positive number.
    """

    name: ClassVar = "onnxruntime"
    variants: ClassVar = {"int8": "cpu-int8", "fp32": "fp32"}
    distributions: ClassVar = ("onnxruntime", "onnxruntime-gpu")
    provider: ClassVar = "CPUExecutionProvider"

    def __init__(
        self,
        model: bytes,
        signature: Signature,
        *,
        variant: str = "fp32",
        threads: int | None = None,
    ) -> None:
        cores = available_cores()
        threads = cores if threads is None else threads
        if threads < 1:
            raise UsageError(f"threads must be at least 1, not {threads}.")
        runtime, identity = import_onnxruntime(), self.identify(variant)
        # More inferences at once than there are cores for them only take memory from each other.
        concurrent = max(1, cores // threads)
        super().__init__(
            signature,
            version=identity.version,
            device=identity.device,
            settings={
                "provider": self.provider,
                "threads": threads,
                "concurrent_inferences": concurrent,
                "execution": "sequential",
                "spinning": False,
                "graph_optimization": "all",
            },
        )
        self._turns = threading.BoundedSemaphore(concurrent)
        provider = (self.provider, self.provider_options())
        self._session: onnxruntime.InferenceSession | None = _open(
            runtime, model, threads, provider
        )
        _check_contract(self._session, signature)

    @classmethod
    def identify(cls, variant: str) -> Identity:
        """ONNX Runtime's version; for INT8 the device says which instructions compute it."""
        device = int8_device() if variant.endswith("int8") else "cpu"
        return Identity(import_onnxruntime().__version__, device)

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        variant: str,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> OnnxRuntimeBackend:
        """Load a variant of a bundle."""
        model, signature = bundle.model(variant), bundle.signature(variant)
        return cls(model, signature, variant=variant, threads=threads)

    @classmethod
    def provider_options(cls) -> Mapping[str, str]:
        """What the provider is told beside the session's own options."""
        return {}

    def infer_impl(self, radiographs: NDArray[np.floating]) -> Outputs:
        """Run the session; as many at once as there are cores for."""
        session = self._session
        if session is None:
            raise UsageError("The backend was closed.", Reason.CLOSED)
        names = list(self.signature.output_shapes())
        try:
            with self._turns:
                values = session.run(names, {"radiographs": radiographs})
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            raise EngineUnusable("ONNX Runtime failed to run the network.") from error
        # A copy: what a caller keeps must not hold on to the session's memory.
        return Outputs(**{name: np.array(value) for name, value in zip(names, values, strict=True)})

    def close(self) -> None:
        """Release the session once the last call that uses it has ended."""
        self._session = None


def import_onnxruntime() -> ModuleType:
    """ONNX Runtime, if it is installed and loads.

    Raises:
        MissingExtra: it is not installed.
        EngineUnusable: it does not load here (ENGINE_UNAVAILABLE).
    """
    try:
        return import_module("onnxruntime")
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise EngineUnusable(
                f"ONNX Runtime is installed, but its module {error.name} is missing.",
                Reason.ENGINE_UNAVAILABLE,
            ) from error
        raise MissingExtra("cpu", "The ONNX Runtime backend") from error
    except ImportError as error:
        raise EngineUnusable(
            "ONNX Runtime is installed but does not load on this machine.",
            Reason.ENGINE_UNAVAILABLE,
        ) from error


def _open(
    runtime: ModuleType, model: bytes, threads: int, provider: tuple[str, Mapping[str, str]]
) -> onnxruntime.InferenceSession:
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the cores from the integrator's own work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if provider[0] != "CPUExecutionProvider":
        # What the provider cannot run must be an error, not slow work on the CPU.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = runtime.InferenceSession(model, sess_options=options, providers=[provider])
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise EngineUnusable("ONNX Runtime refuses the bundle's network.") from error
    if provider[0] not in session.get_providers():
        raise EngineUnusable(
            f"ONNX Runtime's {provider[0]} does not load on this machine.",
            Reason.ENGINE_UNAVAILABLE,
        )
    return session


def _check_contract(session: onnxruntime.InferenceSession, signature: Signature) -> None:
    """Refuse a network whose inputs or outputs are not the contract's, before it runs."""
    expected = {"radiographs": signature.input_shape(), **signature.output_shapes()}
    found = {value.name: value for value in (*session.get_inputs(), *session.get_outputs())}
    if [value.name for value in session.get_inputs()] != ["radiographs"]:
        raise EngineUnusable("The bundle's network does not take radiographs as its one input.")
    for name, shape in expected.items():
        if name not in found:
            raise EngineUnusable(f"The bundle's network has no output {name}.")
        batch_fits = signature.dynamic_batch or found[name].shape[:1] == [1]
        kind = signature.input_type if name == "radiographs" else "float32"
        if (
            found[name].type != _TENSOR_TYPES[kind]
            or not batch_fits
            or (tuple(found[name].shape[1:]) != shape[1:])
        ):
            raise EngineUnusable(
                f"The bundle's network has {name} as {found[name].type} {found[name].shape}; "
                f"its manifest says {kind} {list(shape)}."
            )
