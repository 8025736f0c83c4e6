"""When GPUs, the driver or its answers go missing: what is hit is marked, all else goes on, and it comes back."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from e2e.harness.client import Client
from e2e.harness.waiting import eventually
from fakes.nvml import FakeNvml
from gpuarbiter.v1 import snapshot_pb2
from support import soak
from support.messages import GIB
from support.process import Arbiterd
from support.refusals import Refusal

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]

OK, STALE, LOST = snapshot_pb2.GPU_HEALTH_OK, snapshot_pb2.GPU_HEALTH_STALE, snapshot_pb2.GPU_HEALTH_LOST
FAST = "sampler.interval=50ms"
# From asking for a lease to having given it back, on a machine that has other things to do.
PROMPT_SECONDS = 1.0
# A code of NVML: the library is there, the driver module is not.
DRIVER_NOT_LOADED = 9


@pytest.fixture
def fake(tmp_path: Path) -> FakeNvml:
    return FakeNvml(tmp_path, gpus=2)


async def test_a_lost_gpu_is_out_of_service_and_the_other_goes_on(arbiterd: Start, connect: Connect, fake: FakeNvml):
    client = connect(arbiterd("gpus=auto", FAST, more=fake.env))
    await healths(client, OK, OK)
    carried = client.acquire(client="carried", candidates=["gpu:0"], max_hold=0, ttl=60)
    lease = await carried.granted()
    waiting = client.acquire(client="waiting", candidates=["gpu:0"])
    await waiting.waits_for("GPU_BUSY")
    fake.lose(0)
    await healths(client, LOST, OK)
    await waiting.waits_for("GPU_UNHEALTHY")
    # Both together cannot be had now, one can, and a new request for the lost one alone learns that at once.
    both = client.acquire(client="both", count=2)
    await both.waits_for("GPU_UNHEALTHY")
    refused: Refusal = await client.acquire(candidates=["gpu:0"]).refusal()
    assert (refused.code.name, refused.reason) == ("UNAVAILABLE", "GPU_UNAVAILABLE")
    both.cancel()
    other = await client.acquire(client="other", candidates=["gpu:1"]).granted()
    assert other.gpus[0].key == "gpu:1"
    # The lease on the lost GPU is its holder's, as before.
    await client.renew(lease)
    lost = await client.happens("GPU_LOST")
    assert lost.gpus == ["gpu:0"]
    assert (await client.snapshot()).nvml_up
    fake.restore(0)
    await healths(client, OK, OK)
    assert (await client.happens("GPU_RESTORED")).gpus == ["gpu:0"]
    await client.release(lease)
    assert (await waiting.granted()).gpus[0].key == "gpu:0"


async def test_a_call_that_hangs_makes_its_gpu_stale_and_hinders_nobody(
    arbiterd: Start, connect: Connect, fake: FakeNvml
):
    client = connect(arbiterd("gpus=auto", FAST, more=fake.env))
    await healths(client, OK, OK)
    before = (await client.gpu("gpu:0")).sample.sample_time.ToDatetime()
    fake.hang(0, seconds=60)
    await healths(client, STALE, OK)
    stale, other = await client.gpu("gpu:0"), await client.gpu("gpu:1")
    age = other.sample.sample_time.ToDatetime() - stale.sample.sample_time.ToDatetime()
    assert age.total_seconds() >= 1.5
    # Each snapshot puts the monotonic time of a reading into the wall clock anew, to within some microseconds.
    assert stale.sample.sample_time.ToDatetime() >= before - timedelta(milliseconds=1)
    # By default declarations decide where nothing is seen.
    blind = await client.acquire(candidates=["gpu:0"], memory=4 * GIB, shared=True).granted()
    await client.acquire(candidates=["gpu:1"], memory=4 * GIB, shared=True).granted()
    await client.release(blind)
    fake.restore(0)
    await healths(client, OK, OK)


async def test_leases_go_on_for_as_long_as_a_call_hangs(
    arbiterd: Start, connect: Connect, fake: FakeNvml, capsys: pytest.CaptureFixture[str]
):
    client = connect(arbiterd("gpus=auto", FAST, more=fake.env))
    await healths(client, OK, OK)
    held = await client.acquire(client="held", candidates=["gpu:0"], shared=True, memory=GIB, max_hold=0).granted()
    fake.hang(0, seconds=600)
    await healths(client, STALE, OK)
    hangs_until, slowest, count = time.monotonic() + (30.0 if soak.wanted() else 1.0), 0.0, 0
    while time.monotonic() < hangs_until:
        for gpu in ("gpu:0", "gpu:1"):
            asked = time.monotonic()
            lease = await client.acquire(candidates=[gpu], shared=True, memory=GIB).granted()
            await client.renew(held)
            await client.release(lease)
            slowest, count = max(slowest, time.monotonic() - asked), count + 1
    with soak.figures(capsys):
        print(
            f"\n{count} leases while a call of the driver hung; the slowest, from asking to released, {slowest:.3f} s"
        )
    assert slowest < PROMPT_SECONDS
    assert [gpu.health for gpu in (await client.snapshot()).gpus] == [STALE, OK]
    # It returns in the end.
    fake.restore(0)
    await healths(client, OK, OK)
    assert not (await client.release(held)).already_ended


async def test_a_call_that_hangs_does_not_keep_the_arbiter_from_stopping(
    arbiterd: Start, connect: Connect, fake: FakeNvml
):
    arbiter = arbiterd("gpus=auto", FAST, "memory.stale_after=100ms", more=fake.env)
    fake.hang(0, seconds=600)
    await healths(connect(arbiter), STALE, OK)
    assert arbiter.stop() == 0


async def test_on_stale_refuse_nothing_is_granted_blindly(arbiterd: Start, connect: Connect, fake: FakeNvml):
    settings = ("gpus=auto", FAST, "memory.stale_after=300ms", "memory.on_stale=refuse")
    client = connect(arbiterd(*settings, more=fake.env))
    await healths(client, OK, OK)
    fake.hang(0, seconds=60)
    await healths(client, STALE, OK)
    waiting = client.acquire(candidates=["gpu:0"])
    await waiting.waits_for("NO_READING")
    fake.restore(0)
    await waiting.granted()


async def test_a_driver_that_goes_and_comes_back(arbiterd: Start, connect: Connect, fake: FakeNvml):
    client = connect(arbiterd("gpus=auto", FAST, more=fake.env))
    await healths(client, OK, OK)
    assert (await client.snapshot()).nvml_up
    lease = await client.acquire(client="holder", ttl=60).granted()
    fake.driver_gone()
    await nvml(client, up=False)
    await healths(client, LOST, LOST)
    assert (await client.acquire().refusal()).reason == "GPU_UNAVAILABLE"
    assert (await client.acquire(busy_policy="SKIP").next("declined")).reason == 10  # GPU_UNHEALTHY
    await client.renew(lease)
    assert (await client.release(lease)).held.ToNanoseconds() > 0
    fake.driver_back()
    await nvml(client, up=True)
    await healths(client, OK, OK)
    await client.acquire(count=2).granted()


async def test_what_a_gpu_does_not_report_is_absent(arbiterd: Start, connect: Connect, fake: FakeNvml):
    missing = {
        "nvmlDeviceGetPowerUsage": "power_watts",
        "nvmlDeviceGetTemperature": "temperature_celsius",
        "nvmlDeviceGetUtilizationRates": "utilization_ratio",
    }
    fake.unsupported(0, *missing)
    fake.allocate(0, 1, 2 * GIB)
    client = connect(arbiterd("gpus=auto", more=fake.env))
    await healths(client, OK, OK)
    lacking, whole = (await client.gpu("gpu:0")).sample, (await client.gpu("gpu:1")).sample
    for field in missing.values():
        assert not lacking.HasField(field)
        assert whole.HasField(field)
    # The rest of it is there, and decides.
    assert lacking.memory_used_bytes == 2 * GIB
    assert lacking.HasField("sm_clock_hertz")
    assert (await client.acquire(candidates=["gpu:0"]).granted()).gpus[0].key == "gpu:0"


def test_without_the_library_the_start_is_refused_with_advice(launch: Start, tmp_path: Path):
    # What is not a library stands in for none: on a machine that has one, it would be found otherwise.
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    refused = launch("gpus=auto", more={"LD_LIBRARY_PATH": str(tmp_path)})
    assert refused.wait() == 1
    assert "libnvidia-ml.so.1 was not found" in refused.output
    assert "no NVIDIA driver is installed" in refused.output
    assert "sim:1x24GiB" in refused.output
    assert "Traceback" not in refused.output


def test_without_the_driver_the_start_is_refused_with_advice(launch: Start, fake: FakeNvml):
    fake.driver_gone(DRIVER_NOT_LOADED)
    refused = launch("gpus=auto", more=fake.env)
    assert refused.wait() == 1
    assert "the NVIDIA driver is not loaded" in refused.output
    assert "sim:1x24GiB" in refused.output


async def test_configured_gpus_need_no_driver(arbiterd: Start, connect: Connect):
    listed = "gpus=[{key: 'gpu:0', memory: 24GiB}, {key: 'gpu:1', memory: 8GiB}]"
    client = connect(arbiterd(listed))
    gpus = (await client.snapshot()).gpus
    assert [gpu.health for gpu in gpus] == [snapshot_pb2.GPU_HEALTH_UNMONITORED] * 2
    assert not gpus[0].HasField("sample")
    lease = await client.acquire(memory=10 * GIB, shared=True).granted()
    # No UUID is known, so the place in PCI bus order has to do.
    assert (lease.gpus[0].key, lease.visible_devices) == ("gpu:0", "0")


async def healths(client: Client, *wanted: int) -> None:
    """Waits until the GPUs are in these states."""
    await _shows(client, lambda snapshot: [gpu.health for gpu in snapshot.gpus] == list(wanted), f"health {wanted}")


async def nvml(client: Client, *, up: bool) -> None:
    """Waits until NVML answers, or does not."""
    await _shows(client, lambda snapshot: snapshot.nvml_up == up, f"nvml_up {up}")


async def _shows(client: Client, condition: Callable[[snapshot_pb2.ArbiterSnapshot], bool], what: str) -> None:
    async def look() -> bool:
        return condition(await client.snapshot())

    await eventually(look, what)
