"""The dashboard of the queue and the leases: who waits, who holds, and how it ends."""

from gpuarbiter_server.telemetry import catalogue as cat
from tools.dashboards import shared
from tools.dashboards.model import (
    BYTES,
    COUNT,
    NONE,
    PER_SECOND,
    RATIO,
    SECONDS,
    Bars,
    Dashboard,
    Gauge,
    Lines,
    Panel,
    Query,
    Row,
    Stat,
    Table,
    steps,
)
from tools.dashboards.queries import age, events, gauge, growth, quantile, rate, share

TASK = shared.TASK
_WELL = ("!released", "!yielded")


def _wait(which: float) -> Panel:
    return Panel(
        f"Wait p{which * 100:g}",
        f"{which * 100:g} of 100 granted requests waited no longer than this, by task.",
        "p50 is what callers feel; a p99 far above p95 means that a few are kept back: by their priority, a sequence "
        "or the memory that they want.",
        SECONDS,
        (Query(quantile(which, cat.QUEUE_WAIT, TASK, outcome="granted"), "{{task}}"),),
        Lines(logarithmic=True),
    )


def _hold(which: float, *more: Query) -> Panel:
    dashed = {0.95: " Dashed: what its policy aims at (`hold_objective`).", 0.99: " Dashed: its `max_hold`."}
    return Panel(
        f"Hold p{which * 100:g}",
        f"{which * 100:g} of 100 leases were held no longer than this, by task.{dashed.get(which, '')}",
        "The longest holds set the waits of all others: have that task work in smaller pieces, or yield.",
        SECONDS,
        (Query(quantile(which, cat.LEASE_HOLD, TASK), "{{task}}"), *more),
        Lines(logarithmic=True),
    )


_NOW = Row(
    "Now",
    (
        shared.waiting_now(4, 6),
        shared.longest_wait(4, 6),
        Panel(
            "Oldest lease",
            "How long the lease that is held longest is held already, by machine. Empty while there is none.",
            "Far above `max_hold` while others wait: its holder hangs. `gpu-arbiter top` names it, "
            "`gpu-arbiter revoke` ends the lease.",
            SECONDS,
            (Query(age(cat.OLDEST_LEASE, shared.MACHINE), "{{instance}}"),),
            Stat(no_value="no lease"),
            4,
            6,
        ),
        Panel(
            "Queue in use",
            "Of the places that a GPU's queue has (`queue_limit`), those that are taken; at 100 % requests are "
            "refused.",
            "Above 80 %: slow the callers down, or raise `queue_limit` where waiting longer is of use to them.",
            RATIO,
            (Query(shared.queue_share(), shared.GPU_NAME),),
            Gauge(steps(0.5, 0.8)),
            6,
            6,
        ),
        Panel(
            "Leases by state",
            "Live leases: `held`, `yielding` (asked to give way), `detached` (the stream is gone), `recovering` "
            "(after a restart).",
            "`yielding` or `detached` for long: holders that do not listen, or are gone.",
            COUNT,
            (Query(gauge(cat.LEASES, ("state",)), "{{state}}"),),
            Stat(),
            6,
            6,
        ),
    ),
)
_QUEUE = Row(
    "Queue",
    (
        Panel(
            "Waiting by task",
            "Waiting requests by task; the lines are at 10 and 50.",
            "One task alone: it asks for more than it gets, see its priority. All tasks: the GPUs are full.",
            COUNT,
            (Query(gauge(cat.WAITERS, TASK), "{{task}}"),),
            Lines(stacked=True, thresholds=shared.QUEUE_LINES),
        ),
        Panel(
            "Waiting by reason and task",
            "Waiting requests by task and what keeps them back.",
            "`sequence` and `concurrency_limit` are the task's own doing; `memory` needs smaller declarations or an "
            "end of what runs without a lease; `draining` an operator.",
            COUNT,
            (
                Query(
                    gauge(cat.WAITERS, ("task", "reason")).above_zero(),
                    "{{task}} {{reason}}",
                ),
            ),
            Lines(stacked=True, figures=("max",)),
        ),
        Panel(
            "Longest wait by GPU",
            "How long the request that has waited longest for a GPU is waiting already.",
            "A line that climbs without a fall is a request whose turn does not come.",
            SECONDS,
            (Query(age(cat.OLDEST_WAITER, shared.MACHINE_GPU), shared.GPU_NAME),),
            Lines(figures=("max",)),
        ),
    ),
)
_WAITS = Row("How long do requests wait?", (_wait(0.50), shared.wait_p95(8, 8), _wait(0.99)))
_OUTCOMES = Row(
    "How do requests turn out?",
    (
        Panel(
            "Requests that got no GPU",
            "Requests a second that got no GPU, by task and how they turned out. Empty while all are granted.",
            "`timeout` and `skipped`: the task waits too short for the load. `queue_full`: too many callers. "
            "`no_memory`: it fits no GPU. `error`: see the log.",
            "reqps",
            (Query(rate(cat.ACQUIRE, ("task", "outcome"), outcome="!granted").above_zero(), "{{task}} {{outcome}}"),),
            Lines(stacked=True),
        ),
        Panel(
            "Granted",
            "Of each task's requests, the share that got a GPU.",
            "Compare the tasks: a low one has too low a priority, or too short a `max_wait`.",
            RATIO,
            (Query(share(rate(cat.ACQUIRE, TASK, outcome="granted"), rate(cat.ACQUIRE, TASK)), "{{task}}"),),
            Lines(most=1),
        ),
        Panel(
            "Waited in vain p95",
            "How long requests waited that got no GPU in the end, by task.",
            "Time that callers lost. Where it is long, let them skip or fall back sooner.",
            SECONDS,
            (Query(quantile(0.95, cat.QUEUE_WAIT, TASK, outcome="abandoned"), "{{task}}"),),
            Lines(logarithmic=True),
        ),
    ),
)
_HOLDS = Row(
    "How long are leases held?",
    (
        _hold(0.50),
        _hold(0.95, Query(gauge(cat.HOLD_OBJECTIVE, TASK, "min"), "{{task}} objective", limit=True)),
        _hold(0.99, Query(gauge(cat.HOLD_LIMIT, TASK, "min"), "{{task}} max_hold", limit=True)),
    ),
)
_ENDS = Row(
    "How do leases end?",
    (
        Panel(
            "Leases that ended",
            "Ended leases a second by how they ended.",
            "`released` and `yielded` are well; for all others see the next panel.",
            PER_SECOND,
            (Query(rate(cat.LEASE_ENDS, ("end",)), "{{end}}"),),
            Lines(stacked=True),
        ),
        Panel(
            "Ended otherwise than by their holder",
            "Leases that their holder did not give back itself, by task and how they ended.",
            "`holder_died` and `disconnected`: holders crash. `ttl_expired`: they hang. `max_hold` and `revoked`: they "
            "overstay. `gpu_lost`: see GPU and memory.",
            COUNT,
            (Query(events(cat.LEASE_ENDS, ("task", "end"), end=_WELL).above_zero(), "{{task}} {{end}}"),),
            Lines(bars=True, figures=("max",)),
        ),
        Panel(
            "GPU time by namespace",
            "Time that GPUs were held in the time shown, by the holder's namespace; those that `telemetry.namespaces` "
            "does not list count as `other`.",
            "It says who pays. A namespace with much more than its share: talk to its owner.",
            SECONDS,
            (Query(growth(cat.LEASE_SECONDS, ("holder_namespace",)), "{{holder_namespace}}"),),
            Bars(),
        ),
    ),
)
_YIELDS = Row(
    "Who is asked to give way?",
    (
        Panel(
            "Yield requests",
            "Holders that were asked to give way, by task and reason.",
            "`max_hold`: the task holds longer than its policy allows. `preempted`: somebody more important waited.",
            COUNT,
            (Query(events(cat.YIELDS, ("task", "reason")).above_zero(), "{{task}} {{reason}}"),),
            Lines(bars=True, figures=("max",)),
        ),
        Panel(
            "Answer to a yield request p95",
            "From the first yield request to the end of the lease, by task.",
            "As long as the policy's `grace`: the task does not listen. Have it look at `lease.yield_requested`.",
            SECONDS,
            (Query(quantile(0.95, cat.YIELD_RESPONSE, TASK), "{{task}}"),),
            Lines(logarithmic=True),
        ),
        Panel(
            "Watchdog",
            "What the watchdog did about leases past `max_hold`.",
            "`revoke` means that a holder was cut off while it may still have been running: make `max_hold` longer, "
            "or its pieces of work shorter.",
            COUNT,
            (Query(events(cat.WATCHDOG, ("task", "action")).above_zero(), "{{task}} {{action}}"),),
            Lines(bars=True, figures=("max",)),
        ),
    ),
)
_EACH = Row(
    "Each lease",
    (
        Panel(
            "Live leases",
            "Every live lease by its id, with its holder and the memory that the driver shows for it. Empty unless "
            "`telemetry.lease_info` is on.",
            "It names who is in the way: `gpu-arbiter revoke` with the lease's id ends it.",
            NONE,
            (
                Query(gauge(cat.LEASE_INFO, ("instance", *cat.LEASE_INFO.label_names), "max"), ""),
                Query(gauge(cat.LEASE_USED, ("instance", *cat.LEASE_USED.label_names), "max"), "memory", unit=BYTES),
            ),
            Table(("instance", "gpu", "task", "client_id", "lease_id", "holder_namespace", "holder_pod", "host_pid")),
            24,
        ),
    ),
)

LEASES = Dashboard(
    "gpu-arbiter-leases",
    "GpuArbiter / Leases and queue",
    "Who waits for what and for how long, who holds, and how do requests and leases end?",
    (_NOW, _QUEUE, _WAITS, _OUTCOMES, _HOLDS, _ENDS, _YIELDS, _EACH),
)
