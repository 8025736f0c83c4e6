"""The dashboard to open first."""

from gpuarbiter_server.telemetry import catalogue as cat
from tools.dashboards import shared
from tools.dashboards.model import (
    COUNT,
    GREEN,
    GREY,
    NONE,
    NONE_IS_GOOD,
    PER_SECOND,
    RATIO,
    RED,
    SECONDS,
    Dashboard,
    Lines,
    Panel,
    Query,
    Row,
    Stat,
    Table,
)
from tools.dashboards.queries import difference, events, gauge, quantile, rate

_GPUS_UP = gauge(cat.GPU_UP, how="count")

_NOW = Row(
    "Is it well?",
    (
        shared.availability(4, 5),
        Panel(
            "GPUs lost",
            "GPUs that do not answer any more. Nothing is granted on them; leases there are not ended for it.",
            "See which in *GPU in service* of GPU and memory, and the kernel's log on that machine for an Xid error. "
            "`gpu-arbiter drain` keeps one that comes and goes out of use.",
            COUNT,
            (Query(difference(_GPUS_UP, gauge(cat.GPU_UP)), "lost"),),
            Stat(NONE_IS_GOOD),
            4,
            5,
        ),
        Panel(
            "NVML",
            "Whether the driver's library answers. Simulated and configured GPUs do not need it.",
            "When it does not answer, run `nvidia-smi` on the machine. The arbiter starts NVML again by itself as "
            "soon as that works.",
            NONE,
            (Query(shared.nvml_state(), "{{instance}}"),),
            Stat(words=((0, "DOWN", RED), (1, "UP", GREEN), (2, "not in use", GREY)), no_value="no GPU"),
            4,
            5,
        ),
        shared.waiting_now(4, 5),
        shared.longest_wait(4, 5),
        Panel(
            "Memory overcommitted",
            "GPUs on which more is promised or used than there is, less the headroom. Nothing that declares memory is "
            "admitted there.",
            "See *Ledger* in GPU and memory: end what runs without a lease, or have holders declare what they really "
            "use.",
            COUNT,
            (Query(gauge(cat.OVERCOMMITTED), "GPUs"),),
            Stat(NONE_IS_GOOD),
            4,
            5,
        ),
    ),
)
_SERVICE = Row(
    "How well are callers served?",
    (
        shared.failure_gauge(4, 8),
        shared.fallback_gauge(4, 8),
        shared.wait_p95(8, 8),
        Panel(
            "Requests by outcome",
            "Requests a second by how they turned out. A lease on two GPUs counts at both.",
            "Anything but `granted` that grows: `timeout`, `skipped` and `fallback_cpu` mean too little GPU, "
            "`queue_full` too many callers, `no_memory` a declaration that fits no GPU, `error` is told in the log.",
            "reqps",
            (Query(rate(cat.ACQUIRE, ("outcome",)), "{{outcome}}"),),
            Lines(stacked=True),
        ),
        Panel(
            "Throughput",
            "Pieces of work a second that holders report, by task.",
            "A fall without a fall in requests: see Waiting, then Work.",
            PER_SECOND,
            (Query(rate(cat.WORK, shared.TASK), "{{task}}"),),
            Lines(stacked=True),
        ),
        Panel(
            "Waiting by reason",
            "Waiting requests by what keeps them back.",
            "`gpu_busy` and `queue_order` are load; `memory` a ledger that is full; `draining` a cordon that somebody "
            "forgot; `gpu_unhealthy` and `no_reading` a driver in trouble; `cooldown` holders that died.",
            COUNT,
            (Query(gauge(cat.WAITERS, ("reason",)).above_zero(), "{{reason}}"),),
            Lines(stacked=True, thresholds=shared.QUEUE_LINES),
        ),
        Panel(
            "Leases by task",
            "Live leases by task; one on two GPUs counts at both.",
            "A task that is never among them is starved or does not ask: see *Requests that got no GPU* in "
            "Leases and queue.",
            COUNT,
            (Query(gauge(cat.LEASES, shared.TASK), "{{task}}"),),
            Lines(stacked=True),
        ),
    ),
)
_GPUS = Row(
    "GPUs",
    (
        shared.memory_gauge(8, 8),
        shared.gpu_memory(8, 8),
        Panel(
            "GPU utilization",
            "Share of the time in which something ran on the GPU.",
            "Low while requests wait: a holder keeps its lease without working. See *Oldest lease* for which.",
            RATIO,
            (Query(gauge(cat.GPU_UTILIZATION, shared.MACHINE_GPU), shared.GPU_NAME),),
            Lines(most=1),
        ),
    ),
)
_ITSELF = Row(
    "The arbiter itself",
    (
        Panel(
            "Event loop lag p99",
            "How late a timer of the arbiter rings, for 99 of 100. Every answer is late by as much.",
            "Above 100 ms for long: the machine has no CPU to spare. Give the arbiter its own share of it.",
            SECONDS,
            (Query(quantile(0.99, cat.LOOP_LAG, shared.MACHINE), "{{instance}}"),),
        ),
        Panel(
            "Journal commit",
            "How long it takes to write a batch of grants to the disk; no grant is answered before. Nothing while "
            "there is nothing to write.",
            "A p99 above 100 ms: the disk is slow or shared. Move `journal.path`, or see `journal.durability`.",
            SECONDS,
            (
                Query(quantile(0.50, cat.JOURNAL_COMMIT, shared.MACHINE), "{{instance}} p50"),
                Query(quantile(0.99, cat.JOURNAL_COMMIT, shared.MACHINE), "{{instance}} p99"),
            ),
        ),
        Panel(
            "Errors",
            "Commits of the journal that failed or took too long, and spans that could not be exported.",
            "Journal errors stop grants: look at the disk that `journal.path` is on at once. Spans lost harm nothing "
            "but the traces.",
            COUNT,
            (
                Query(events(cat.JOURNAL_ERRORS, shared.MACHINE), "{{instance}} journal"),
                Query(events(cat.SPANS_DROPPED, shared.MACHINE), "{{instance}} spans lost"),
            ),
            Lines(bars=True, figures=("max",)),
        ),
        Panel(
            "Messages",
            "Messages of the contract a second, received (to the arbiter) and sent.",
            "A flood of one type is a client in a loop: see *Clients gone*, and the log for its client id.",
            "mps",
            (Query(rate(cat.RPC_MESSAGES, ("direction", "type")).above_zero(), "{{direction}} {{type}}"),),
        ),
        Panel(
            "Clients gone",
            "Clients a second that were gone while they waited or held, whose lease expired, or whose process died.",
            "`process_died` and `expired` leave a GPU in cooldown: find out why the holders crash.",
            PER_SECOND,
            (Query(rate(cat.DISCONNECTS, ("reason",)), "{{reason}}"),),
            Lines(stacked=True),
        ),
        Panel(
            "Versions",
            "Which version runs where.",
            "Different versions on machines of one fleet: an upgrade is under way, or was forgotten.",
            NONE,
            (Query(gauge(cat.BUILD_INFO, ("job", "instance", "version"), "max"), ""),),
            Table(("instance", "version")),
        ),
    ),
)

OVERVIEW = Dashboard(
    "gpu-arbiter-overview",
    "GpuArbiter / Overview",
    "Is anything wrong, and where do I look next?",
    (_NOW, _SERVICE, _GPUS, _ITSELF),
)
