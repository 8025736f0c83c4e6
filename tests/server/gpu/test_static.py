import pytest

from gpuarbiter_server.core.model import GpuSpec
from gpuarbiter_server.gpu.backend import GpuLostError
from gpuarbiter_server.gpu.static import StaticBackend


def test_configured_gpus_are_there_and_give_no_readings():
    backend = StaticBackend([GpuSpec("gpu:0", 0, 8 * 2**30), GpuSpec("left", 1, 2**30, uuid="GPU-x")])
    first, second = backend.open()
    assert first == GpuSpec("gpu:0", 0, 8 * 2**30, monitored=False, source="configured")
    assert second == GpuSpec("left", 1, 2**30, uuid="GPU-x", monitored=False, source="configured")
    with pytest.raises(GpuLostError, match="gpu:0 is known from the configuration alone and gives no readings"):
        backend.read(first)
    backend.close()
