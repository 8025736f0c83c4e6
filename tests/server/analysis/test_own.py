"""The node's own samples: what the sampler reads, averaged by step, and no more of it than the window."""

from gpuarbiter_server.analysis.model import Holder, Sample
from gpuarbiter_server.analysis.own import OwnSamples
from gpuarbiter_server.core.model import GpuReading, GpuSpec

SPECS = [GpuSpec("gpu:0", 0, 1000, name="A"), GpuSpec("gpu:1", 1, 1000, name="B", monitored=False)]
HOLDER = Holder("team-a", "trainer-0", "lease-1", 5.0)


class Node:
    """Own samples with a window of four steps of 10 s, and a clock that tests set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.samples = OwnSamples(
            SPECS,
            window=40.0,
            step=10.0,
            clock=lambda: self.now,
            hostname="node-1",
            holders=lambda: {"gpu:0": (HOLDER,)},
        )

    def note(self, at: float, utilization: float | None, **more: float) -> None:
        self.now = at
        self.samples.note("gpu:0", GpuReading(at, utilization_ratio=utilization, **more))  # type: ignore[arg-type]


async def test_readings_of_a_step_are_one_sample_with_its_highest():
    node = Node()
    node.note(1, 0.2, memory_used_bytes=100)
    node.note(5, 0.6, memory_used_bytes=300, power_watts=50.0)
    node.note(12, None, power_limit_watts=300.0)
    (gpu,) = await node.samples.windows()
    assert gpu.samples == (Sample(0.4, None, 200.0, 50.0, None, 0.6), Sample())
    assert (gpu.gpu_id, gpu.hostname, gpu.model_name, gpu.steps, gpu.step) == ("gpu:0", "node-1", "A", 4, 10.0)
    assert (gpu.memory_total_bytes, gpu.power_limit_watts, gpu.holders) == (1000, 300.0, (HOLDER,))


async def test_only_the_window_counts_and_only_that_is_kept():
    node = Node()
    for at in range(0, 1000, 10):
        node.note(at, at / 1000)
    (gpu,) = await node.samples.windows()
    assert [sample.utilization for sample in gpu.samples] == [0.96, 0.97, 0.98, 0.99]
    assert len(node.samples._taken["gpu:0"]) == 5
    # A GPU that is not read any more has nothing to say, rather than what was true once.
    node.now = 1039
    assert [gpu.gpu_id for gpu in await node.samples.windows()] == []
