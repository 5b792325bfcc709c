"""The device layer as far as it goes without a GPU: what is missing, each error in its words."""

from __future__ import annotations

import pytest

from hipnet_edge.backends.device import cuda_error, open_device
from hipnet_edge.backends.tensorrt_flavour import require_driver
from hipnet_edge.errors import EngineUnusable, Reason


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        (2, Reason.GPU_OUT_OF_MEMORY, "too little free memory"),
        (35, Reason.DRIVER_TOO_OLD, "older than"),
        (46, Reason.GPU_LOST, "taken away"),
        (100, Reason.DRIVER_MISSING, "no GPU"),
        (700, Reason.GPU_LOST, "start the process again"),
        (719, Reason.GPU_LOST, "start the process again"),
        (1, Reason.ENGINE_FAILED, "CUDA reports an error"),
    ],
)
def test_each_error_of_cuda_has_a_code_and_a_sentence_of_its_own(code, reason, said):
    error = cuda_error(code, "while buffers were made")
    assert error.code is reason
    assert said in error.message
    assert f"while buffers were made; CUDA error {code}" in error.message


def has_driver() -> bool:
    try:
        require_driver()
    except EngineUnusable:
        return False
    return True


@pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
def test_without_a_driver_no_device_is_opened():
    for attempt in (require_driver, open_device):
        with pytest.raises(EngineUnusable) as caught:
            attempt()
        assert caught.value.code is Reason.DRIVER_MISSING


@pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
def test_cuda_python_itself_answers_with_an_error_of_ours():
    """The real library, where it is installed: without a driver its first answer is error 35."""
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    from hipnet_edge.backends.device_cuda import CudaPythonDevice

    with pytest.raises(EngineUnusable) as caught:
        CudaPythonDevice()
    assert caught.value.code in {Reason.DRIVER_TOO_OLD, Reason.DRIVER_MISSING}


@pytest.mark.gpu
def test_the_device_layer_computes_what_the_host_does():
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    try:
        open_device().close()
    except EngineUnusable as error:
        pytest.skip(error.message)
    from benchmarks.gpu_device import prove_device

    report = prove_device()
    assert report["plain_is_right"]
    assert report.get("graph_is_right", True)
