"""The dashboard of the GPUs: memory by ledger and by driver, load, and how they are read."""

from gpuarbiter_server.telemetry import catalogue as cat
from tools.dashboards import shared
from tools.dashboards.model import (
    BYTES,
    CELSIUS,
    COUNT,
    GREEN,
    HERTZ,
    NONE,
    PER_SECOND,
    RATIO,
    RED,
    SECONDS,
    WATTS,
    Dashboard,
    Lines,
    Panel,
    Query,
    Row,
    Stat,
    Table,
    steps,
)
from tools.dashboards.queries import events, gauge, mean, quantile, rate

GPU = shared.MACHINE_GPU
NAME = shared.GPU_NAME

_NOW = Row(
    "Now",
    (
        Panel(
            "GPU in service",
            "Whether the GPU is there. A reading that is late is not held against it.",
            "LOST: see `nvidia-smi`, and the kernel's log for an Xid error. End or restart what holds leases there.",
            NONE,
            (Query(gauge(cat.GPU_UP, GPU, "min"), NAME),),
            Stat(words=((0, "LOST", RED), (1, "OK", GREEN)), no_value="no GPU"),
            6,
            6,
        ),
        shared.memory_gauge(6, 6),
        Panel(
            "Memory overcommitted",
            "Whether more is promised or used than there is, less the headroom. Nothing that declares memory is "
            "admitted then.",
            "See *Ledger* below: end what runs without a lease, or have holders declare what they really use.",
            NONE,
            (Query(gauge(cat.OVERCOMMITTED, GPU, "max"), NAME),),
            Stat(words=((0, "no", GREEN), (1, "YES", RED))),
            6,
            6,
        ),
        Panel(
            "Memory without a lease",
            "Memory that processes use which hold no lease.",
            "`nvidia-smi` lists them: have them ask for leases, or end them. What is left over from a holder that "
            "died goes away with its processes.",
            BYTES,
            (Query(gauge(cat.UNLEASED, GPU), NAME),),
            Stat(),
            6,
            6,
        ),
    ),
)
_LEDGER = Row(
    "Memory",
    (
        Panel(
            "Ledger of $gpu",
            "One on top of the other: what is promised to leases, what is used without one, and what a new lease could "
            "still declare. Dashed: the total less the headroom, the total, and what the driver shows in use.",
            "No room to declare while little is in use: declarations are too large. In use above promised and "
            "unleased: readings are stale, or a holder uses more than it declared.",
            BYTES,
            (
                Query(gauge(cat.COMMITTED), "promised"),
                Query(gauge(cat.UNLEASED), "without a lease"),
                Query(gauge(cat.ADMISSIBLE), "admissible"),
                Query(gauge(cat.LIMIT), "limit", limit=True),
                Query(gauge(cat.GPU_TOTAL), "total", limit=True),
                Query(gauge(cat.GPU_USED), "in use", limit=True),
            ),
            Lines(stacked=True),
            24,
            9,
            repeat="gpu",
        ),
        Panel(
            "Memory of leases",
            "Memory of live leases by task: as the driver shows it (`nvml`), or as they declared it where the driver "
            "cannot tell (`reported`).",
            "`reported` where `nvml` is expected: the holder's pid is not proved, see the documentation of GPUs.",
            BYTES,
            (Query(gauge(cat.LEASE_MEMORY_USED, ("task", "source")), "{{task}} {{source}}"),),
            Lines(stacked=True),
        ),
        Panel(
            "Peak memory of leases p95",
            "95 of 100 leases used no more than this at their peak, by task.",
            "It is what the task should declare: give its policy a `memory` of about this.",
            BYTES,
            (Query(quantile(0.95, cat.LEASE_MEMORY_PEAK, shared.TASK), "{{task}}"),),
        ),
        Panel(
            "Used more than declared",
            "Leases that were seen above what they had declared, by task.",
            "Have the task declare its peak; until then others on the same GPU may run out of memory.",
            COUNT,
            (Query(events(cat.OVERUSE, shared.TASK), "{{task}}"),),
            Lines(bars=True, figures=("max",)),
        ),
        Panel(
            "Free memory",
            "Memory that the driver shows as free.",
            "Less than *Admissible*: the driver knows of users that the ledger does not.",
            BYTES,
            (Query(gauge(cat.GPU_FREE, GPU), NAME),),
        ),
        Panel(
            "Admissible",
            "What a new lease could declare now.",
            "At 0 nothing with memory is granted. See *Ledger* for who takes it.",
            BYTES,
            (Query(gauge(cat.ADMISSIBLE, GPU), NAME),),
        ),
        Panel(
            "Memory recovery p95",
            "From the end of a lease until its memory was seen to be free, where a request waited for it.",
            "Seconds rather than fractions: holders release before their frameworks give memory back, or die slowly.",
            SECONDS,
            (Query(quantile(0.95, cat.MEMORY_RECOVERY, shared.MACHINE), "{{instance}}"),),
        ),
    ),
)
_LOAD = Row(
    "Load",
    (
        Panel(
            "Utilization",
            "Share of the time in which something ran on the GPU.",
            "Low while requests wait: a holder keeps its lease without working.",
            RATIO,
            (Query(gauge(cat.GPU_UTILIZATION, GPU), NAME),),
            Lines(most=1),
        ),
        Panel(
            "Memory bandwidth",
            "Share of the time in which memory was read or written.",
            "High with low utilization: the work is bound by memory, larger batches will not help.",
            RATIO,
            (Query(gauge(cat.GPU_BANDWIDTH, GPU), NAME),),
            Lines(most=1),
        ),
        Panel(
            "Processes",
            "Processes on the GPU, with and without a lease.",
            "Those without a lease take memory that nobody planned for: see `nvidia-smi`.",
            COUNT,
            (Query(gauge(cat.GPU_PROCESSES, (*GPU, "leased")), f"{NAME} leased={{{{leased}}}}"),),
            Lines(stacked=True),
        ),
        Panel(
            "Power",
            "Power draw; dashed: the limit in force.",
            "At the limit for long the clock falls: see *Clock*. A limit below the card's own was set by somebody.",
            WATTS,
            (
                Query(gauge(cat.GPU_POWER, GPU), NAME),
                Query(gauge(cat.GPU_POWER_LIMIT, GPU), f"{NAME} limit", limit=True),
            ),
        ),
        Panel(
            "Temperature",
            "Temperature of the GPU; the lines are at 80 and 90 °C.",
            "Above 80 °C it will throttle: see to fans and air.",
            CELSIUS,
            (Query(gauge(cat.GPU_TEMPERATURE, GPU, "max"), NAME),),
            Lines(thresholds=steps(80, 90)),
        ),
        Panel(
            "Clock",
            "Clock of the streaming multiprocessors.",
            "Low under load: throttled by power or temperature. Low without load is how it should be.",
            HERTZ,
            (Query(gauge(cat.GPU_CLOCK, GPU, "max"), NAME),),
        ),
    ),
)
_DRIVER = Row(
    "Driver",
    (
        Panel(
            "NVML errors",
            "Calls of NVML that failed, by call and error; queries that a GPU does not support are among them.",
            "`NotSupported` is harmless. `GpuIsLost`, `Timeout` or `Unknown`: see the kernel's log for an Xid error.",
            COUNT,
            (Query(events(cat.NVML_ERRORS, ("call", "error")), "{{call}} {{error}}"),),
            Lines(bars=True, figures=("max",)),
        ),
        Panel(
            "Time of a look at a GPU",
            "How long it takes to read one GPU.",
            "A p99 near a second: the driver is slow to answer, readings grow stale. `nvidia-smi` will be slow as "
            "well.",
            SECONDS,
            (
                Query(quantile(0.50, cat.NVML_POLL, shared.MACHINE), "{{instance}} p50"),
                Query(quantile(0.99, cat.NVML_POLL, shared.MACHINE), "{{instance}} p99"),
            ),
        ),
        Panel(
            "GPUs",
            "Which GPU is which: its key here, its UUID, its name and its driver.",
            "For what speaks in UUIDs, such as Xid messages and `nvidia-smi -L`.",
            NONE,
            (Query(gauge(cat.GPU_INFO, ("instance", *cat.GPU_INFO.label_names), "max"), ""),),
            Table(("instance", "gpu", "gpu_name", "gpu_uuid")),
        ),
    ),
)
_ANALYSED = (*GPU, "namespace", "pod")
_HELD_BY = f"{NAME} {{{{namespace}}}} {{{{pod}}}}"
_ANALYSIS = Row(
    "Utilization analysis",
    (
        Panel(
            "Utilization score",
            "How much of the GPU was used over the window of the analysis, 0 to 100, by GPU and who has it; the lines "
            "are at 10 and 20.",
            "Below 20 with somebody's name: a GPU is held and hardly used. See *Judgement* for what to think of it.",
            COUNT,
            (Query(gauge(cat.UTILIZATION_SCORE, _ANALYSED, "max"), _HELD_BY),),
            Lines(most=100, thresholds=steps(10, 20)),
        ),
        Panel(
            "Score of what matters now",
            "The score if only what matters now counted, 0 to 100.",
            "Far above the score: it was idle for most of the window and works now; far below: it has stopped.",
            COUNT,
            (Query(gauge(cat.ANALYSIS_ADJUSTED, _ANALYSED, "max"), _HELD_BY),),
            Lines(most=100),
        ),
        Panel(
            "GPUs by status",
            "How many GPUs the analysis calls idle, low, normal and high.",
            "`idle` and `low` that grow while requests wait: somebody holds GPUs that others could use.",
            COUNT,
            (Query(gauge(cat.UTILIZATION_STATUS, ("status",)), "{{status}}"),),
            Lines(stacked=True),
        ),
        Panel(
            "Judgement",
            "What the analysis thinks of each GPU, and how sure it is.",
            "`suspicious`: memory is held without work, or power is drawn without use. docs/analysis.md says by which "
            "rules.",
            RATIO,
            (Query(gauge(cat.ANALYSIS_CONFIDENCE, (*GPU, "judgement"), "max"), f"{NAME} {{{{judgement}}}}"),),
            Lines(most=1),
            width=6,
        ),
        Panel(
            "Runs of the analysis",
            "Runs a second, by how they went.",
            "`failed`: the Prometheus that it asks does not answer, see `/health` and the log. Neither: it is off.",
            PER_SECOND,
            (Query(rate(cat.ANALYSIS_RUNS, ("result",)), "{{result}}"),),
            width=6,
        ),
        Panel(
            "Time of a run",
            "How long a run of the analysis takes, on average.",
            "Near the interval: ask for fewer GPUs, a shorter window or larger steps.",
            SECONDS,
            (Query(mean(cat.ANALYSIS_DURATION, ("instance",)), "{{instance}}"),),
            width=6,
        ),
        Panel(
            "Judgements by a model",
            "GPUs that a model was to judge, a second, by what became of it.",
            "`ok`, `cached`: it judged; `unsure`: less surely than `analysis.ai.threshold` says. The rules judge the "
            "others: `refused` by a limit of the arbiter's, and `/health` says why. Nothing: no model is asked.",
            PER_SECOND,
            (Query(rate(cat.MODEL_REQUESTS, ("result",)), "{{result}}"),),
            width=6,
        ),
        Panel(
            "Actions of the analysis",
            "What it did about GPUs that are held and hardly used, a second: yield requests, deliveries to the control "
            "webhook, notifications.",
            "`failed` of the webhook: see dead-letters.jsonl in the state directory; of notifications: the log says "
            "which service.",
            PER_SECOND,
            (Query(rate(cat.ANALYSIS_ACTIONS, ("action", "result")), "{{action}} {{result}}"),),
            width=24,
        ),
    ),
)

GPUS = Dashboard(
    "gpu-arbiter-gpus",
    "GpuArbiter / GPU and memory",
    "Where is the memory, who has it, and are the GPUs well?",
    (_NOW, _LEDGER, _LOAD, _ANALYSIS, _DRIVER),
)
