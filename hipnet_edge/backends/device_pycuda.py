"""The device layer over PyCUDA. No GPU has run this file yet: see `device.UNPROVEN`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from hipnet_edge.backends.device import Buffer, Device, cuda_error
from hipnet_edge.errors import EngineUnusable, Reason

_OUT_OF_MEMORY, _UNKNOWN = 2, 999


class PyCudaDevice(Device):
    """A GPU through the driver's primary context, which is pushed and popped around each use."""

    graphs = False

    def __init__(self) -> None:
        self._cuda = import_module("pycuda.driver")
        with self._our_errors("while the GPU was examined"):
            self._cuda.init()
            device = self._cuda.Device(0)
            self._context = device.retain_primary_context()
            self.name = device.name()
            self.compute_capability = ".".join(map(str, device.compute_capability()))
            attribute = self._cuda.device_attribute.INTEGRATED
            self.integrated = bool(device.get_attribute(attribute))
        number = self._cuda.get_driver_version()
        self.driver = f"{number // 1000}.{number % 1000 // 10}"
        self.library = f"PyCUDA {import_module('pycuda').VERSION_TEXT}"
        self._kept: list[Any] = []
        self._streams: dict[int, Any] = {}
        self._events: dict[tuple[int, int], Any] = {}

    @contextmanager
    def current(self) -> Iterator[None]:
        """Push the primary context, and pop it whatever happens."""
        with self._our_errors("while the context was made"):
            self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def allocate(self, size: int, host: bool) -> Buffer:
        """Pinned memory is mapped where host and device share it: nothing is copied then."""
        with self._our_errors("while buffers were made"):
            if not host:
                return Buffer(self._device_memory(size), None)
            flags = self._cuda.host_alloc_flags.DEVICEMAP if self.integrated else 0
            pinned = self._cuda.pagelocked_empty(size, np.uint8, mem_flags=flags)
            self._kept.append(pinned)
            if not self.integrated:
                return Buffer(self._device_memory(size), pinned)
            return Buffer(int(pinned.base.get_device_pointer()), pinned, mapped=True)

    def stream(self) -> int:
        """A stream of this context."""
        with self._our_errors("while a stream was made"):
            made = self._cuda.Stream()
        self._streams[int(made.handle)] = made
        return int(made.handle)

    def upload(self, buffer: Buffer, stream: int) -> None:
        """Host to device; nothing where they share one memory."""
        if buffer.host is not None and not buffer.mapped:
            with self._our_errors("while the radiographs were sent"):
                self._cuda.memcpy_htod_async(buffer.pointer, buffer.host, self._streams[stream])

    def download(self, buffer: Buffer, stream: int) -> None:
        """Device to host; nothing where they share one memory."""
        if buffer.host is not None and not buffer.mapped:
            with self._our_errors("while the answer was fetched"):
                self._cuda.memcpy_dtoh_async(buffer.host, buffer.pointer, self._streams[stream])

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
        with self._our_errors("while the network ran"):
            self._streams[stream].synchronize()

    def capture(self, stream: int, work: Callable[[], None]) -> Callable[[], None]:
        """Not possible with PyCUDA.

        Raises:
            EngineUnusable: always.
        """
        raise EngineUnusable("PyCUDA has no CUDA graphs.", Reason.ENGINE_UNAVAILABLE)

    def free_memory(self) -> int:
        """Free bytes of the device, whoever uses the rest."""
        with self._our_errors("while memory was counted"):
            return int(self._cuda.mem_get_info()[0])

    def close(self) -> None:
        """Let go of everything while its context is current, then of the context."""
        with self.current():
            self._kept.clear()
            self._events.clear()
            self._streams.clear()
        self._context.detach()

    def _device_memory(self, size: int) -> int:
        memory = self._cuda.mem_alloc(size)
        self._kept.append(memory)
        return int(memory)

    def _wait(self, waiting: int, awaited: int) -> None:
        with self._our_errors("while streams were joined"):
            if (waiting, awaited) not in self._events:
                made = self._cuda.Event(self._cuda.event_flags.DISABLE_TIMING)
                self._events[waiting, awaited] = made
            event = self._events[waiting, awaited]
            event.record(self._streams[awaited])
            self._streams[waiting].wait_for_event(event)

    @contextmanager
    def _our_errors(self, doing: str) -> Iterator[None]:
        """PyCUDA's exceptions say by their class whether memory ran out."""
        try:
            yield
        except self._cuda.MemoryError as error:
            raise cuda_error(_OUT_OF_MEMORY, doing) from error
        except self._cuda.Error as error:
            raise cuda_error(_UNKNOWN, doing) from error
