"""OpenVINO: the merged graph on the CPU, compiled once and kept for the next start."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.backends.backend import Backend, Identity, Outputs, Progress, Signature
from hipnet_edge.backends.cores import available_cores
from hipnet_edge.backends.openvino_runtime import (
    Setup,
    compile_network,
    export_network,
    import_network,
    import_openvino,
)
from hipnet_edge.backends.plan_cache import PlanCache, PlanKey
from hipnet_edge.errors import EngineUnusable, Reason, UsageError
from hipnet_edge.machine import bf16_instructions, cpu_signature, int8_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    import openvino

    from hipnet_edge.bundle import Bundle

_TYPES = {"float32": "f32", "float16": "f16"}
"""What OpenVINO calls the types of inputs."""

_LOG = logging.getLogger(__name__)


class OpenVinoBackend(Backend):
    """OpenVINO's CPU plugin.

    Args:
        compiled: the network, compiled under `setup`.
        setup: how it was compiled.
        signature: the shapes it must have.
        identity: as `identify` gives it.
        source: "compiled", or "cache" where an earlier start had compiled it.

    Raises:
        EngineUnusable: the network breaks the contract.
    """

    name: ClassVar = "openvino"
    variants: ClassVar = {"int8": "cpu-int8", "bf16": "cpu-bf16", "fp32": "fp32"}
    distributions: ClassVar = ("openvino",)

    def __init__(
        self,
        compiled: openvino.CompiledModel,
        setup: Setup,
        signature: Signature,
        identity: Identity,
        source: str = "compiled",
    ) -> None:
        super().__init__(
            signature,
            version=identity.version,
            device=identity.device,
            settings={
                "device": setup.device,
                "threads": setup.threads,
                "concurrent_inferences": setup.streams,
                "float_layers": setup.hint,
                "pinning": False,
                **setup.properties,
                "network_from": source,
            },
        )
        _check_contract(compiled, signature)
        self._ports = {name: port for port in compiled.outputs for name in port.get_names()}
        self._requests: SimpleQueue[openvino.InferRequest] | None = SimpleQueue()
        for _ in range(setup.streams):
            self._requests.put(compiled.create_infer_request())

    @classmethod
    def identify(cls, variant: str) -> Identity:
        """OpenVINO's version; the device says which instructions decide what is computed.

        Raises:
            EngineUnusable: BF16 is asked for where the processor has no instructions for it
                (ENGINE_UNAVAILABLE); MissingExtra if OpenVINO is not installed.
        """
        version = release_of(import_openvino().get_version())
        return Identity(version, _cpu_device(variant))

    @classmethod
    def setup(cls, variant: str, threads: int | None) -> Setup:
        """How a variant is run; more inferences at once than cores only take each other's time."""
        cores = available_cores()
        threads = cores if threads is None else threads
        if threads < 1:
            raise UsageError(f"threads must be at least 1, not {threads}.")
        return Setup("CPU", _hint(variant), threads, max(1, cores // threads))

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        variant: str,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> OpenVinoBackend:
        """Take the compiled network from the cache, or compile the bundle's file and keep that."""
        setup, identity = cls.setup(variant, threads), cls.identify(variant)
        key = _key(bundle, variant, setup, identity)
        compiled, source = _from_cache(key, setup), "cache"
        if compiled is None:
            compiled, source = compile_network(bundle.model(variant), setup), "compiled"
            _keep(key, compiled)
        return cls(compiled, setup, bundle.signature(variant), identity, source)

    def infer_impl(self, radiographs: NDArray[np.floating]) -> Outputs:
        """Run a request that nobody else uses meanwhile; as many at once as there are streams."""
        requests = self._requests
        if requests is None:
            raise UsageError("The backend was closed.", Reason.CLOSED)
        # OpenVINO reads the caller's array where it lies; one that is read-only it must copy.
        shared = radiographs.flags.writeable
        tensor = import_openvino().Tensor(radiographs, shared_memory=shared)
        with _taken(requests) as request:
            try:
                request.set_input_tensor(tensor)
                request.infer()
                # Copies: the request's own memory is overwritten by its next inference.
                return Outputs(
                    **{
                        name: np.array(request.get_tensor(self._ports[name]).data)
                        for name in self.signature.output_shapes()
                    }
                )
            except Exception as error:  # OpenVINO's exceptions share no base but Exception
                raise EngineUnusable("OpenVINO failed to run the network.") from error

    def close(self) -> None:
        """Release the network once the last call that uses it has ended."""
        self._requests = None


@contextmanager
def _taken(requests: SimpleQueue[openvino.InferRequest]) -> Iterator[openvino.InferRequest]:
    request = requests.get()
    try:
        yield request
    finally:
        requests.put(request)


def _hint(variant: str) -> str:
    """The type in which what is not INT8 in a variant is computed here."""
    if variant == "cpu-bf16":
        return "bf16"
    if variant.endswith("int8") and bf16_instructions():
        # The first convolutions, which read the radiographs, are a sixth of the time in FP32.
        return "bf16"
    return "f32"


def _cpu_device(variant: str) -> str:
    """The CPU as verdicts on a variant name it: with every instruction that decides the answer."""
    bf16 = bf16_instructions()
    if variant == "cpu-bf16":
        if bf16 is None:
            raise EngineUnusable(
                "This processor has no instructions for BF16 (AVX512-BF16 or AMX-BF16).",
                Reason.ENGINE_UNAVAILABLE,
            )
        return f"cpu-{bf16}-bf16"
    if not variant.endswith("int8"):
        return "cpu"
    return f"{int8_device()}, rest {bf16}-bf16" if bf16 else int8_device()


def release_of(build: str) -> str:
    """Release and build number out of "2026.4.1-22982-e213a147257-releases/2026/4"."""
    return "-".join(build.split("-")[:2])


def _key(bundle: Bundle, variant: str, setup: Setup, identity: Identity) -> PlanKey:
    """Everything on which a compiled network depends."""
    cpu = cpu_signature()
    return PlanKey(
        network=bundle.network(variant),
        part="network",
        variant=variant,
        flavour="openvino",
        version=import_openvino().get_version(),
        device=f"{cpu['processor']}, {identity.device}",
        compute_capability=setup.device,
        options={"properties": setup.to_openvino(), "instructions": cpu["instructions"]},
    )


def _from_cache(key: PlanKey, setup: Setup) -> openvino.CompiledModel | None:
    """The network that an earlier start compiled under the same key; None if there is none."""
    try:
        return import_network(PlanCache().load(key).content, setup)
    except EngineUnusable as error:
        _LOG.info("No compiled network is taken from the cache: %s", error.code.value)
        return None


def _keep(key: PlanKey, compiled: openvino.CompiledModel) -> None:
    """Keep a compiled network for the next start; where that fails, the next compiles again."""
    try:
        PlanCache().store(key, export_network(compiled), {})
    except Exception as error:  # OpenVINO's exceptions share no base but Exception
        _LOG.info("The compiled network is not kept: %s", error)


def _check_contract(compiled: openvino.CompiledModel, signature: Signature) -> None:
    """Refuse a network whose inputs or outputs are not the contract's, before it runs."""
    expected = {"radiographs": signature.input_shape(), **signature.output_shapes()}
    ports = [*compiled.inputs, *compiled.outputs]
    found = {name: port for port in ports for name in port.get_names()}
    if len(compiled.inputs) != 1 or "radiographs" not in compiled.inputs[0].get_names():
        raise EngineUnusable("The bundle's network does not take radiographs as its one input.")
    for name, shape in expected.items():
        if name not in found:
            raise EngineUnusable(f"The bundle's network has no output {name}.")
        port, kind = found[name], signature.input_type if name == "radiographs" else "float32"
        given = port.get_partial_shape()
        sizes = [size.get_length() if size.is_static else None for size in given]
        batch_fits = signature.dynamic_batch or sizes[:1] == [1]
        if (
            port.get_element_type().get_type_name() != _TYPES[kind]
            or not batch_fits
            or tuple(sizes[1:]) != shape[1:]
        ):
            raise EngineUnusable(
                f"The bundle's network has {name} as {port.get_element_type()} {given}; "
                f"its manifest says {kind} {list(shape)}."
            )
