"""The device layer alone on a GPU: pinned buffers, streams, a graph over a small kernel.

Needs cuda-python and a GPU, and no TensorRT: where TensorRT does not know the GPU, this much can be
proven there all the same.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from benchmarks.gpu_latency import latency
from hipnet_edge.backends.device import Buffer, Device, open_device

_SIZE = 1 << 16
_SOURCE = b"""
extern "C" __global__ void twice_and_one(const float *given, float *made, int count) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) made[i] = 2.0f * given[i] + 1.0f;
}
"""


def prove_device() -> dict[str, Any]:
    """Run a kernel through the device layer, plain, forked over two streams and as a graph.

    Raises:
        EngineUnusable: there is no device, or it fails.
        AssertionError: it computes something else than the host does.
    """
    device = open_device()
    try:
        with device.current():
            return _prove(device)
    finally:
        device.close()


def _prove(device: Device) -> dict[str, Any]:
    main, side = device.stream(), device.stream()
    given, made = (device.allocate(4 * _SIZE, host=True) for _ in range(2))
    between = device.allocate(4 * _SIZE, host=False)
    launch = _kernel()

    def work() -> None:
        device.upload(given, main)
        device.fork(main, [side])
        launch(given, between, side)
        device.join(main, [side])
        launch(between, made, main)
        device.download(made, main)

    def answers_right(run: Any) -> bool:
        for seed in range(3):
            values = np.random.default_rng(seed).random(_SIZE).astype(np.float32)
            _floats(given)[:] = values
            run()
            device.synchronize(main)
            if not np.array_equal(_floats(made), 4.0 * values + 3.0):
                return False
        return True

    def wait_after(run: Any) -> Any:
        def timed() -> None:
            run()
            device.synchronize(main)

        return timed

    report: dict[str, Any] = {
        "device": device.describe(),
        "driver": device.driver,
        "library": device.library,
        "shared_memory": device.integrated,
        "free_mib": device.free_memory() >> 20,
        "plain_is_right": answers_right(work),
        "plain": latency(wait_after(work)),
    }
    if device.graphs:
        graph = device.capture(main, work)
        report["graph_is_right"] = answers_right(graph)
        report["graph"] = latency(wait_after(graph))
    assert report["plain_is_right"], "the kernel computed something else"
    assert report.get("graph_is_right", True), "the graph computed something else"
    return report


def _floats(buffer: Buffer) -> Any:
    assert buffer.host is not None  # it was allocated with one
    return buffer.host.view(np.float32)


def _kernel() -> Any:
    """A function that puts the kernel into a stream."""
    from cuda.bindings import driver, nvrtc

    def checked(result: tuple[Any, ...]) -> Any:
        status, *values = result
        if int(status) != 0:
            raise RuntimeError(f"{type(status).__name__} {int(status)}")
        return values[0] if len(values) == 1 else None

    program = checked(nvrtc.nvrtcCreateProgram(_SOURCE, b"kernel.cu", 0, [], []))
    checked(nvrtc.nvrtcCompileProgram(program, 0, []))
    ptx = b" " * checked(nvrtc.nvrtcGetPTXSize(program))
    checked(nvrtc.nvrtcGetPTX(program, ptx))
    module = checked(driver.cuModuleLoadData(np.char.array(ptx)))
    function = checked(driver.cuModuleGetFunction(module, b"twice_and_one"))

    def launch(given: Buffer, made: Buffer, stream: int) -> None:
        values = (given.pointer, made.pointer, _SIZE)
        kinds = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
        grid, block = (_SIZE // 256, 1, 1), (256, 1, 1)
        started = driver.cuLaunchKernel(function, *grid, *block, 0, stream, (values, kinds), 0)
        checked(started)

    return launch
