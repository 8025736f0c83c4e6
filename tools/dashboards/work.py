"""The dashboard of the work that holders report: how much, how fast, how well, and where."""

from gpuarbiter_server.telemetry import catalogue as cat
from tools.dashboards import shared
from tools.dashboards.model import (
    COUNT,
    PER_SECOND,
    RATIO,
    SECONDS,
    Bars,
    Dashboard,
    Lines,
    Panel,
    Pie,
    Query,
    Row,
    Stat,
    Table,
    steps,
)
from tools.dashboards.queries import gauge, growth, mean, rate

TASK = shared.TASK
_REPORTED = "Only what holders report counts: in the release of a lease, or by ReportWork."

_NOW = Row(
    "Now",
    (
        shared.availability(4, 6),
        shared.failure_gauge(4, 6),
        shared.fallback_gauge(4, 6),
        shared.waiting_now(4, 6),
        Panel(
            "Work done",
            f"Pieces of work in the time shown; below, how that figure moved. {_REPORTED}",
            "When it falls while requests still come in, see Throughput and Waiting for where it stands still.",
            COUNT,
            (Query(growth(cat.WORK), "work"),),
            Stat(trend=True),
            4,
            6,
        ),
        Panel(
            "Leases",
            "Live leases of all states; one on two GPUs counts at both.",
            "0 while requests wait: see *Waiting by reason* in Leases and queue for what keeps them back.",
            COUNT,
            (Query(gauge(cat.LEASES), "leases"),),
            Stat(),
            4,
            6,
        ),
    ),
)
_THROUGHPUT = Row(
    "Throughput and latency",
    (
        Panel(
            "Throughput, GPU and CPU",
            f"Pieces of work a second, by task and the device that did them. {_REPORTED}",
            "CPU lines that rise while GPU lines fall: callers fall back. Both fall: callers send less, or they hang.",
            PER_SECOND,
            (Query(rate(cat.WORK, ("task", "device")), "{{task}} {{device}}"),),
        ),
        Panel(
            "Latency, last and average",
            "How long a piece of work took, by task: the last one, and the average.",
            "Last far above average again and again: some pieces are much larger, see *Latency and size*; or the GPU "
            "is throttled, see its clock in GPU and memory.",
            SECONDS,
            (
                Query(gauge(cat.WORK_LAST, TASK, "max"), "{{task}} last"),
                Query(mean(cat.WORK_DURATION, TASK), "{{task}} average"),
            ),
        ),
        Panel(
            "Latency and size",
            "The average time of a piece of work and, dotted and at the right, its average number of items.",
            "Both rise together: the work has grown, batch it otherwise. Latency rises alone: the GPU has become "
            "slower.",
            SECONDS,
            (
                Query(mean(cat.WORK_DURATION, TASK), "{{task}} time"),
                Query(mean(cat.WORK_ITEMS, TASK), "{{task}} items", second_axis=COUNT),
            ),
        ),
        Panel(
            "GPU and CPU compared",
            "The average time of a piece of work by the device that did it.",
            "It is what a fallback costs. Where the CPU is hardly slower, let the task fall back sooner.",
            SECONDS,
            (Query(mean(cat.WORK_DURATION, ("task", "device")), "{{task}} {{device}}"),),
        ),
        Panel(
            "Failures by task",
            "Failed pieces of work a second, by task and result.",
            "`out_of_memory`: the task declares too little, see *Peak memory of leases*. `failed`: see the log of the "
            "holder. One task alone is its own fault.",
            PER_SECOND,
            (Query(rate(cat.WORK, ("task", "result"), result=shared.FAILURES), "{{task}} {{result}}"),),
        ),
        Panel(
            "Failure rate by task",
            "Of each task's work, the share that failed; the lines are at 1 % and 5 %.",
            "The task above 5 % is the one to look at first.",
            RATIO,
            (Query(shared.failed_share(TASK), "{{task}}"),),
            Lines(thresholds=steps(0.01, 0.05)),
        ),
    ),
)
_GPU = Row(
    "Queue and GPU",
    (
        Panel(
            "Queue depth",
            "Waiting requests by task, one on top of the other; the lines are at 10 and 50.",
            "Above 10 for long: too little GPU for what is asked. Above 50: slow the callers down, or queues only grow "
            "stale.",
            COUNT,
            (Query(gauge(cat.WAITERS, TASK), "{{task}}"),),
            Lines(stacked=True, thresholds=shared.QUEUE_LINES),
        ),
        shared.gpu_memory(8, 8),
        Panel(
            "Total execution time",
            "Time that GPUs were held by leases in the time shown, by task; a lease counts when it ends.",
            "A task with much time and little work holds its leases idle: see *Hold p95* in Leases and queue.",
            SECONDS,
            (Query(growth(cat.LEASE_SECONDS, TASK), "{{task}}"),),
            Bars(),
        ),
    ),
)
_TASKS = Row(
    "Tasks",
    (
        Panel(
            "Share of work by task",
            "Who did how much of the work in the time shown.",
            "It is for orientation. A task that should be there and is not has stopped.",
            COUNT,
            (Query(growth(cat.WORK, TASK), "{{task}}"),),
            Pie(),
        ),
        Panel(
            "Tasks at a glance",
            "For each task: work in the time shown, the share that failed, the last, shortest and longest piece since "
            "the arbiter started, its items, and who waits.",
            "Sort by the column in question; a longest far above the last was an outlier.",
            COUNT,
            (
                Query(growth(cat.WORK, TASK), "work", unit=COUNT),
                Query(shared.failed_share(TASK), "failed", unit=RATIO),
                Query(gauge(cat.WORK_LAST, TASK, "max"), "last", unit=SECONDS),
                Query(gauge(cat.WORK_MIN, TASK, "min"), "shortest", unit=SECONDS),
                Query(gauge(cat.WORK_MAX, TASK, "max"), "longest", unit=SECONDS),
                Query(gauge(cat.WORK_LAST_ITEMS, TASK, "max"), "last items", unit=COUNT),
                Query(gauge(cat.WAITERS, TASK), "waiting", unit=COUNT),
            ),
            Table(("task",)),
            16,
        ),
    ),
)

WORK = Dashboard(
    "gpu-arbiter-work",
    "GpuArbiter / Work",
    "Is the work being done: how much, how fast, how much of it fails, and how much of it had to go to the CPU?",
    (_NOW, _THROUGHPUT, _GPU, _TASKS),
)
