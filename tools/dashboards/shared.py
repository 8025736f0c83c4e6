"""Queries that more than one dashboard asks."""

from gpuarbiter_server.telemetry import catalogue as cat
from tools.dashboards.model import (
    BYTES,
    COUNT,
    GREEN,
    NONE,
    RATIO,
    RED,
    SECONDS,
    Gauge,
    Lines,
    Panel,
    Query,
    Stat,
    steps,
)
from tools.dashboards.queries import Expr, age, combine, gauge, quantile, rate, reachable, selector, share

MACHINE = ("instance",)
MACHINE_GPU = ("instance", "gpu")
GPU_NAME = "{{instance}} {{gpu}}"
TASK = ("task",)
FAILURES = ("failed", "out_of_memory")

QUEUE_LINES = steps(10, 50)


def failed_share(by: tuple[str, ...] = ()) -> Expr:
    """Of all work that came to an end of its own, what failed."""
    return share(rate(cat.WORK, by, result=FAILURES), rate(cat.WORK, by, result="!cancelled"))


def fallback_share(by: tuple[str, ...] = ()) -> Expr:
    """Of all requests that were not taken back, those that were sent to the CPU."""
    return share(rate(cat.ACQUIRE, by, outcome="fallback_cpu"), rate(cat.ACQUIRE, by, outcome="!cancelled"))


def memory_share() -> Expr:
    """Of a GPU's memory, what is in use."""
    return share(gauge(cat.GPU_USED, MACHINE_GPU), gauge(cat.GPU_TOTAL, MACHINE_GPU))


def queue_share() -> Expr:
    """Of the places in a GPU's queue, those that are taken, by those that wait for any GPU as well."""
    own, anywhere = gauge(cat.WAITERS, MACHINE_GPU, gpu="!any"), gauge(cat.WAITERS, MACHINE, gpu="any")
    limit = gauge(cat.QUEUE_LIMIT, MACHINE_GPU)
    text = f"({own.text} + on (instance) group_left () {anywhere.text}) / ({limit.text} > 0)"
    return combine(text, own, anywhere, limit)


def nvml_state() -> Expr:
    """1 when NVML answers, 0 when it does not, and 2 where there is no GPU that it should answer for."""
    up = gauge(cat.NVML_UP, MACHINE, "max")
    real, made_up = selector(cat.GPU_INFO, source="nvml"), gauge(cat.GPU_INFO, MACHINE, "max", source="!nvml")
    return combine(f"{up.text} and on (instance) {real} or 2 * {made_up.text}", up, made_up)


def availability(width: int, height: int) -> Panel:
    """Whether the arbiter is there."""
    return Panel(
        "Arbiter",
        "Whether Prometheus reaches the arbiter. While it is down nobody is granted a GPU; who holds a lease goes on.",
        "If it is down: see on the machine itself whether `gpu-arbiterd` runs, what its log says last, and whether "
        "`/healthz` answers.",
        NONE,
        (Query(reachable(), "{{instance}}"),),
        Stat(words=((0, "DOWN", RED), (1, "UP", GREEN)), no_value="no arbiter is scraped"),
        width,
        height,
    )


def failure_gauge(width: int, height: int) -> Panel:
    """The share of work that failed."""
    return Panel(
        "Failure rate",
        "Of the work that holders report, the share that failed or ran out of memory. 0 while nothing is reported.",
        "Above 1 % see *Failures by task* in Work: one task alone is its own fault; all tasks at once point to the GPU "
        "or its driver. For `out_of_memory` compare what is declared with the peaks in GPU and memory.",
        RATIO,
        (Query(failed_share(), "failed"),),
        Gauge(steps(0.01, 0.05)),
        width,
        height,
    )


def fallback_gauge(width: int, height: int) -> Panel:
    """The share of requests that were sent to the CPU."""
    return Panel(
        "CPU fallback rate",
        "Of all requests that were not taken back, the share that was told to fall back to the CPU because no GPU was "
        "to be had in time.",
        "Above 10 % the GPUs are too busy for their callers: see who holds them longest in Leases and queue, and "
        "raise `max_wait` of the task or give it a higher priority.",
        RATIO,
        (Query(fallback_share(), "fallback"),),
        Gauge(steps(0.10, 0.30)),
        width,
        height,
    )


def waiting_now(width: int, height: int) -> Panel:
    """How many requests wait."""
    return Panel(
        "Waiting",
        "Requests that wait now. One that names two of three GPUs counts at both.",
        "Above 10 see what keeps them back (*Waiting by reason*); above 50 callers should be slowed down.",
        COUNT,
        (Query(gauge(cat.WAITERS), "waiting"),),
        Stat(QUEUE_LINES),
        width,
        height,
    )


def longest_wait(width: int, height: int) -> Panel:
    """How long the first has waited."""
    return Panel(
        "Longest wait",
        "How long the request that has waited longest is waiting already, by machine. Empty while nobody waits.",
        "When it only grows, its turn does not come: see the reason in *Waiting by reason*, and in *Oldest lease* "
        "whether a holder hangs.",
        SECONDS,
        (Query(age(cat.OLDEST_WAITER, MACHINE), "{{instance}}"),),
        Stat(steps(10, 60), no_value="nobody waits"),
        width,
        height,
    )


def wait_p95(width: int, height: int) -> Panel:
    """The 95th percentile of the wait, and what it should be."""
    return Panel(
        "Wait p95",
        "95 of 100 granted requests waited no longer than this, by task. Dashed: what the task's policy aims at "
        "(`wait_objective`).",
        "A task above its dashed line: look for the longest holds beside it, then for its priority. "
        "All tasks above theirs: the GPUs are full.",
        SECONDS,
        (
            Query(quantile(0.95, cat.QUEUE_WAIT, TASK, outcome="granted"), "{{task}}"),
            Query(gauge(cat.WAIT_OBJECTIVE, TASK, "min"), "{{task}} objective", limit=True),
        ),
        Lines(logarithmic=True),
        width=width,
        height=height,
    )


def memory_gauge(width: int, height: int) -> Panel:
    """How full the GPUs are."""
    return Panel(
        "GPU memory in use",
        "Memory that the driver shows in use, of the whole, by GPU.",
        "Above 95 % the next allocation may fail: see in *Ledger* of GPU and memory whether leases or processes "
        "without a lease take it.",
        RATIO,
        (Query(memory_share(), GPU_NAME),),
        Gauge(steps(0.80, 0.95)),
        width,
        height,
    )


def gpu_memory(width: int, height: int) -> Panel:
    """Memory in use and promised, and how much there is."""
    return Panel(
        "GPU memory",
        "Memory in use as the driver sees it, and what is promised to leases, by GPU. Dashed: all that there is.",
        "In use far above promised: somebody runs without a lease, or uses more than declared. Promised far above in "
        "use: declarations are too large and keep others out.",
        BYTES,
        (
            Query(gauge(cat.GPU_USED, MACHINE_GPU), f"{GPU_NAME} in use"),
            Query(gauge(cat.COMMITTED, MACHINE_GPU), f"{GPU_NAME} promised"),
            Query(gauge(cat.GPU_TOTAL, MACHINE_GPU), f"{GPU_NAME} total", limit=True),
        ),
        width=width,
        height=height,
    )
