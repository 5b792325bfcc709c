"""The device layer over cuda-python. No GPU has run this file yet: see `device.UNPROVEN`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

from hipnet_edge.backends.device import Buffer, Device, cuda_error

_FIRST = 0
"""The GPU that is used; CUDA_VISIBLE_DEVICES says which one that is."""


class CudaPythonDevice(Device):
    """A GPU through the CUDA runtime, whose context is the primary one by design."""

    graphs = True

    def __init__(self) -> None:
        self._cuda = import_module("cuda.bindings.runtime")
        properties = _checked(
            self._cuda.cudaGetDeviceProperties(_FIRST), "while the GPU was examined"
        )
        self.name = properties.name.decode().strip("\0 ")
        self.compute_capability = f"{properties.major}.{properties.minor}"
        self.integrated = bool(properties.integrated)
        self.library = f"cuda-python {version('cuda-bindings')}"
        number = _checked(self._cuda.cudaDriverGetVersion(), "while the driver was examined")
        self.driver = f"{number // 1000}.{number % 1000 // 10}"
        self._free: list[Callable[[], object]] = []
        self._events: dict[tuple[int, int], Any] = {}

    @contextmanager
    def current(self) -> Iterator[None]:
        """The runtime's context is each thread's own once the device is set."""
        _checked(self._cuda.cudaSetDevice(_FIRST), "while the context was made")
        yield

    def allocate(self, size: int, host: bool) -> Buffer:
        """Pinned memory is mapped where host and device share it: nothing is copied then."""
        doing = "while buffers were made"
        if not host:
            return Buffer(self._device_memory(size), None)
        flags = (
            self._cuda.cudaHostAllocMapped if self.integrated else self._cuda.cudaHostAllocDefault
        )
        address = int(_checked(self._cuda.cudaHostAlloc(size, flags), doing))
        self._free.append(lambda: self._cuda.cudaFreeHost(address))
        pinned = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        if not self.integrated:
            return Buffer(self._device_memory(size), pinned)
        pointer = int(_checked(self._cuda.cudaHostGetDevicePointer(address, 0), doing))
        return Buffer(pointer, pinned, mapped=True)

    def stream(self) -> int:
        """Not the legacy default stream, which waits for all others."""
        made = _checked(
            self._cuda.cudaStreamCreateWithFlags(self._cuda.cudaStreamNonBlocking),
            "while a stream was made",
        )
        self._free.append(lambda: self._cuda.cudaStreamDestroy(made))
        return int(made)

    def upload(self, buffer: Buffer, stream: int) -> None:
        """Host to device; nothing where they share one memory."""
        if buffer.host is not None and not buffer.mapped:
            kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
            source, size = buffer.host.ctypes.data, buffer.host.nbytes
            copied = self._cuda.cudaMemcpyAsync(buffer.pointer, source, size, kind, stream)
            _checked(copied, "while the radiographs were sent")

    def download(self, buffer: Buffer, stream: int) -> None:
        """Device to host; nothing where they share one memory."""
        if buffer.host is not None and not buffer.mapped:
            kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
            target, size = buffer.host.ctypes.data, buffer.host.nbytes
            copied = self._cuda.cudaMemcpyAsync(target, buffer.pointer, size, kind, stream)
            _checked(copied, "while the answer was fetched")

    def fork(self, stream: int, others: Sequence[int]) -> None:
        """One event of the first stream, for which all others wait."""
        for other in others:
            self._wait(other, stream)

    def join(self, stream: int, others: Sequence[int]) -> None:
        """One event of each other stream, for which the first waits."""
        for other in others:
            self._wait(stream, other)

    def synchronize(self, stream: int) -> None:
        """Wait for the stream; what went wrong in it comes to light here."""
        _checked(self._cuda.cudaStreamSynchronize(stream), "while the network ran")

    def capture(self, stream: int, work: Callable[[], None]) -> Callable[[], None]:
        """Other threads may use CUDA meanwhile: the capture is this thread's own."""
        doing = "while the graph was captured"
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _checked(self._cuda.cudaStreamBeginCapture(stream, mode), doing)
        try:
            work()
        finally:
            # A capture that is not ended would leave the stream unusable.
            ended = self._cuda.cudaStreamEndCapture(stream)
        graph = _checked(ended, doing)
        executable = _checked(self._cuda.cudaGraphInstantiate(graph, 0), doing)
        self._free.append(lambda: self._cuda.cudaGraphExecDestroy(executable))
        _checked(self._cuda.cudaGraphDestroy(graph), doing)

        def launch() -> None:
            _checked(
                self._cuda.cudaGraphLaunch(executable, stream), "while the network was started"
            )

        return launch

    def free_memory(self) -> int:
        """Free bytes of the device, whoever uses the rest."""
        free, _ = _checked(self._cuda.cudaMemGetInfo(), "while memory was counted")
        return int(free)

    def close(self) -> None:
        """Everything goes in the reverse order; errors at the end change nothing any more."""
        while self._free:
            self._free.pop()()

    def _device_memory(self, size: int) -> int:
        pointer = int(_checked(self._cuda.cudaMalloc(size), "while buffers were made"))
        self._free.append(lambda: self._cuda.cudaFree(pointer))
        return pointer

    def _wait(self, waiting: int, awaited: int) -> None:
        doing = "while streams were joined"
        if (waiting, awaited) not in self._events:
            flags = self._cuda.cudaEventDisableTiming
            made = _checked(self._cuda.cudaEventCreateWithFlags(flags), doing)
            self._free.append(lambda: self._cuda.cudaEventDestroy(made))
            self._events[waiting, awaited] = made
        event = self._events[waiting, awaited]
        _checked(self._cuda.cudaEventRecord(event, awaited), doing)
        _checked(self._cuda.cudaStreamWaitEvent(waiting, event, 0), doing)


def _checked(result: tuple[Any, ...], doing: str) -> Any:
    """What a call of cuda-python gives beside its status; a bad status is our error."""
    status, *values = result
    if int(status) != 0:
        raise cuda_error(int(status), doing)
    return values[0] if len(values) == 1 else tuple(values)
