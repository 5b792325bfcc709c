"""The GPU as this package uses it: one primary context, pinned buffers, streams, a graph.

Two libraries can stand behind it: cuda-python where it loads, PyCUDA otherwise (which JetPack 6
users build on the device, and which has no CUDA graphs). Both use the primary context, so that an
integrator's own CUDA code can live in the same process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.backends.tensorrt_flavour import require_driver
from hipnet_edge.errors import EngineUnusable, MissingExtra, Reason

UNPROVEN = ("device_cuda.py", "device_pycuda.py", "tensorrt_execution.py")
"""Files of this folder whose code needs a GPU, and which none has run yet."""


@dataclass(frozen=True)
class Buffer:
    """Memory of the device, and pinned memory of the host where its content comes and goes."""

    pointer: int
    """The device's address."""
    host: NDArray[np.uint8] | None
    """Pinned bytes of the same size; None for what never leaves the device."""
    mapped: bool = False
    """Whether both are one memory, as on a Jetson: nothing is copied then."""


class Device(ABC):
    """One GPU.

    Attributes:
        name: as the driver says it, such as "Orin".
        compute_capability: such as "8.7".
        library: what stands behind it, with its version.
        driver: the CUDA version that the driver supports, such as "12.6".
        integrated: whether GPU and host share one memory.
        graphs: whether work can be captured once and replayed.
    """

    name: str
    compute_capability: str
    library: str
    driver: str
    integrated: bool
    graphs: bool

    def describe(self) -> str:
        """How verdicts and results name it: "NVIDIA A10 (8.6)"."""
        return f"{self.name} ({self.compute_capability})"

    @abstractmethod
    def current(self) -> AbstractContextManager[None]:
        """Make the primary context this thread's own while the block runs."""

    @abstractmethod
    def allocate(self, size: int, host: bool) -> Buffer:
        """Memory for `size` bytes; with `host` pinned memory beside it."""

    @abstractmethod
    def stream(self) -> int:
        """A new stream, as the handle that TensorRT takes."""

    @abstractmethod
    def upload(self, buffer: Buffer, stream: int) -> None:
        """Copy from host to device, in the stream's order."""

    @abstractmethod
    def download(self, buffer: Buffer, stream: int) -> None:
        """Copy from device to host, in the stream's order."""

    @abstractmethod
    def fork(self, stream: int, others: Sequence[int]) -> None:
        """Let the other streams wait for all that was put into this one."""

    @abstractmethod
    def join(self, stream: int, others: Sequence[int]) -> None:
        """Let this stream wait for all that was put into the others."""

    @abstractmethod
    def synchronize(self, stream: int) -> None:
        """Wait until the stream has done everything."""

    @abstractmethod
    def capture(self, stream: int, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` puts into the stream as one graph; gives what launches it there."""

    @abstractmethod
    def free_memory(self) -> int:
        """Bytes of the device's memory that nobody uses."""

    @abstractmethod
    def close(self) -> None:
        """Give back every buffer, stream, event and graph."""


def open_device() -> Device:
    """The first GPU.

    Raises:
        EngineUnusable: DRIVER_MISSING, DRIVER_TOO_OLD, or the device does not answer.
        MissingExtra: neither cuda-python nor PyCUDA is installed.
    """
    require_driver()
    if _loads("cuda.bindings.runtime"):
        from hipnet_edge.backends.device_cuda import CudaPythonDevice

        return CudaPythonDevice()
    if _loads("pycuda.driver"):
        from hipnet_edge.backends.device_pycuda import PyCudaDevice

        return PyCudaDevice()
    raise MissingExtra("tensorrt", "A GPU")


def _loads(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False
    return True


_REASONS: dict[int, tuple[Reason, str]] = {
    2: (Reason.GPU_OUT_OF_MEMORY, "The GPU has too little free memory"),
    3: (Reason.DRIVER_MISSING, "The NVIDIA driver does not start"),
    35: (Reason.DRIVER_TOO_OLD, "The NVIDIA driver is older than this CUDA needs"),
    46: (Reason.GPU_LOST, "The GPU is busy or was taken away"),
    100: (Reason.DRIVER_MISSING, "The NVIDIA driver finds no GPU"),
    101: (Reason.DRIVER_MISSING, "The NVIDIA driver finds no such GPU"),
    803: (Reason.DRIVER_TOO_OLD, "The NVIDIA driver and its libraries are of two versions"),
    804: (Reason.DRIVER_TOO_OLD, "The NVIDIA driver is too old for this GPU's compatibility mode"),
}
_LOST = frozenset({214, 219, 220, 226, 304, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999})
"""Errors after which nothing in the process can use the GPU any more: memory that cannot be
corrected, illegal addresses, kernels that were stopped, a device that fell off the bus."""


def cuda_error(code: int, doing: str) -> EngineUnusable:
    """The error for a code of CUDA's; driver and runtime number these alike.

    Args:
        code: such as 2, out of memory.
        doing: what was tried, for the sentence: "while buffers were made".
    """
    reason, words = _REASONS.get(code, (Reason.ENGINE_FAILED, "CUDA reports an error"))
    if code in _LOST:
        reason, words = Reason.GPU_LOST, "The GPU failed; start the process again"
    return EngineUnusable(f"{words} ({doing}; CUDA error {code}).", reason)
