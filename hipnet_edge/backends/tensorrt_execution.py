"""Plans on a GPU: deserialised, bound to fixed buffers, captured once, launched for each study.

A bundle's network is one plan, or one for each backbone and one that joins them. Tensors connect
plans by their names, so both are run the same way: every plan that reads the radiographs on a
stream of its own, forked from and joined to the first; then what reads their outputs. No GPU has
run this file yet: see `device.UNPROVEN`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.backends.backend import Signature
from hipnet_edge.backends.device import Buffer, Device
from hipnet_edge.backends.tensorrt_flavour import Flavour, make_logger
from hipnet_edge.errors import EngineUnusable, Reason

_LOG = logging.getLogger(__name__)
_INPUT = "radiographs"


@dataclass(frozen=True)
class _Loaded:
    """A plan ready to run."""

    name: str
    engine: Any
    context: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stream: int


class Execution:
    """The plans of one network on one device. One call at a time; the caller sees to that.

    Args:
        flavour: the TensorRT that built them.
        device: whose plans they are.
        plans: by part; one, or backbones and tail.
        signature: the shapes the network must have.
        use_graph: capture a CUDA graph where the device can.

    Raises:
        EngineUnusable: TensorRT refuses a plan, the shapes are others, or the GPU has its reasons.
    """

    def __init__(
        self,
        flavour: Flavour,
        device: Device,
        plans: Mapping[str, bytes],
        signature: Signature,
        use_graph: bool = True,
    ) -> None:
        self._trt, self._device = flavour.module, device
        self.signature = signature
        self._logger = make_logger(flavour)
        self._runtime = self._trt.Runtime(self._logger)
        self._buffers: dict[str, Buffer] = {}
        self._types: dict[str, np.dtype[Any]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._launch: Callable[[], None] | None = None
        self.graph = "off"
        with device.current():
            self._stream = device.stream()
            loaded = [self._load(name, plan, len(plans)) for name, plan in plans.items()]
            self._first = [plan for plan in loaded if plan.inputs == (_INPUT,)]
            self._then = [plan for plan in loaded if plan.inputs != (_INPUT,)]
            self._check_contract()
            self._bind(loaded)
            self._warm_up(use_graph)

    @property
    def plan_memory(self) -> int:
        """Bytes of device memory that the plans use while they run, weights not among them."""
        engines = [plan.engine for plan in (*self._first, *self._then)]
        return sum(int(engine.device_memory_size_v2) for engine in engines)

    @property
    def aux_streams(self) -> int:
        """Streams that TensorRT uses beside ours."""
        return sum(int(plan.engine.num_aux_streams) for plan in (*self._first, *self._then))

    def run(self, radiographs: NDArray[np.floating]) -> dict[str, NDArray[np.float32]]:
        """Send, run, fetch.

        Args:
            radiographs: of the signature's input type and shape.

        Returns:
            Each output, float32, owned by the caller.
        """
        given = self._host(_INPUT)
        np.copyto(given, radiographs, casting="no")
        with self._device.current():
            if self._launch is not None:
                self._launch()
            else:
                self._enqueue()
            self._device.synchronize(self._stream)
        return {
            name: self._host(name).astype(np.float32) for name in self.signature.output_shapes()
        }

    def close(self) -> None:
        """Let go of contexts and engines, then of the device's memory."""
        with self._device.current():
            self._launch = None
            self._first, self._then = [], []
            self._runtime = None
        self._device.close()

    def _load(self, name: str, plan: bytes, plans: int) -> _Loaded:
        runtime = self._runtime
        if hasattr(runtime, "get_engine_validity"):
            validity = runtime.get_engine_validity(plan[: runtime.engine_header_size])[0]
            if validity == self._trt.EngineValidity.INVALID:
                raise EngineUnusable(
                    f"TensorRT says that the plan {name} cannot run on {self._device.describe()}.",
                    Reason.PLAN_FOREIGN,
                )
        engine = runtime.deserialize_cuda_engine(plan)
        context = None if engine is None else engine.create_execution_context()
        if context is None:
            free = self._device.free_memory() >> 20
            raise EngineUnusable(
                f"TensorRT does not load the plan {name} ({free} MiB of the GPU are free)."
            )
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        for tensor in names:
            self._shapes[tensor] = tuple(engine.get_tensor_shape(tensor))
            self._types[tensor] = np.dtype(self._trt.nptype(engine.get_tensor_dtype(tensor)))
        mode = self._trt.TensorIOMode.INPUT
        inputs = tuple(t for t in names if engine.get_tensor_mode(t) == mode)
        outputs = tuple(t for t in names if t not in inputs)
        stream = self._device.stream() if plans > 1 else self._stream
        return _Loaded(name, engine, context, inputs, outputs, stream)

    def _check_contract(self) -> None:
        wanted = {_INPUT: self.signature.input_shape(), **self.signature.output_shapes()}
        for name, shape in wanted.items():
            if self._shapes.get(name) != shape:
                raise EngineUnusable(
                    f"The plan has {name} as {self._shapes.get(name)}; the manifest says {shape}."
                )

    def _bind(self, loaded: list[_Loaded]) -> None:
        """One buffer for each tensor, shared by the plans that make and read it."""
        outside = {_INPUT, *self.signature.output_shapes()}
        for name, shape in self._shapes.items():
            size = int(np.prod(shape)) * self._types[name].itemsize
            self._buffers[name] = self._device.allocate(size, host=name in outside)
        for plan in loaded:
            for name in (*plan.inputs, *plan.outputs):
                plan.context.set_tensor_address(name, self._buffers[name].pointer)

    def _warm_up(self, use_graph: bool) -> None:
        """Two runs outside a graph: TensorRT allocates in the first, which no graph may hold."""
        for _ in range(2):
            self._enqueue()
            self._device.synchronize(self._stream)
        if not use_graph or not self._device.graphs:
            return
        try:
            self._launch = self._device.capture(self._stream, self._enqueue)
        except EngineUnusable as error:
            if error.code is Reason.GPU_LOST:
                raise
            _LOG.warning("No CUDA graph: %s", error.message)
            self.graph = "failed"
        else:
            self.graph = "captured"

    def _enqueue(self) -> None:
        """Put one inference into the streams, copies and all."""
        self._device.upload(self._buffers[_INPUT], self._stream)
        sides = [plan.stream for plan in self._first if plan.stream != self._stream]
        self._device.fork(self._stream, sides)
        for plan in self._first:
            self._execute(plan, plan.stream)
        self._device.join(self._stream, sides)
        for plan in self._then:
            self._execute(plan, self._stream)
        for name in self.signature.output_shapes():
            self._device.download(self._buffers[name], self._stream)

    def _execute(self, plan: _Loaded, stream: int) -> None:
        if not plan.context.execute_async_v3(stream):
            raise EngineUnusable(f"TensorRT does not start the plan {plan.name}.")

    def _host(self, name: str) -> NDArray[Any]:
        """The pinned memory of a tensor as an array of its type and shape."""
        pinned = self._buffers[name].host
        assert pinned is not None  # what goes in and out has it
        return pinned.view(self._types[name]).reshape(self._shapes[name])
