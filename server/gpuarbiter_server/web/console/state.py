"""The state of the arbiter as the console shows it: a few parts, each a JSON text.

Law: reads everything, changes nothing. So many rows and no more, however many there are; the parts count what they
leave out. Moments are seconds since 1970, so that a part of which nothing has changed is the same text again; what is
not known is null. Words are made of this in the browser.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from gpuarbiter_server.analysis.service import Analysis, Run
from gpuarbiter_server.core.census import Census
from gpuarbiter_server.core.model import GpuHealth, Holder, WorkContext
from gpuarbiter_server.core.views import GpuView, LeaseView, TicketView
from gpuarbiter_server.runtime.about import About

MOST_LEASES = 300
MOST_TICKETS = 300
# Of a fleet that a Prometheus tells of.
MOST_RESULTS = 500
# Rows that are made in one turn of the loop: a fifth of a millisecond.
_AT_ONCE = 10
# Who jumps the clock of the machine moves what is shown; who adjusts it by less does not.
_CLOCK_JUMP = 0.5

Moment = Callable[[float], float]


class WallTime:
    """Turns monotonic seconds into those since 1970, always the same for the same moment."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self._wall = wall
        self._offset = wall() - clock()

    def __call__(self, moment: float) -> float:
        """A monotonic moment in seconds since 1970."""
        return round(moment + self._offset, 2)

    def adjust(self) -> None:
        """Follows the clock of the machine where that has jumped."""
        offset = self._wall() - self._clock()
        if abs(offset - self._offset) > _CLOCK_JUMP:
            self._offset = offset


class State:
    """Renders the parts."""

    def __init__(
        self, census: Callable[[], Census], about: About, node: str, moment: Moment, analysis: Analysis | None
    ) -> None:
        self._census = census
        self._about = about
        self._node = node
        self._moment = moment
        self._analysis = analysis
        # Those of the last look.
        self.leases: list[LeaseView] = []

    def parts(self) -> Mapping[str, Iterator[str]]:
        """The text of each part, by its name, in pieces that are made as they are asked for: others go between."""
        return {
            "arbiter": iter([_text(self._arbiter())]),
            "gpus": _rows(_gpu(view, self._moment) for view in self._census().gpus()),
            "leases": self._leases(),
            "queue": self._queue(),
            "analysis": iter([_text(_analysed(self._analysis))]),
        }

    def _arbiter(self) -> Mapping[str, Any]:
        census = self._census()
        return {
            "node": self._node,
            "version": self._about.version,
            "instance": self._about.instance_id,
            "started": self._moment(self._about.started_at),
            "nvml_up": census.nvml_up,
            "stopping": census.shutting_down,
            "journal_fault": census.journal_fault,
        }

    def _leases(self) -> Iterator[str]:
        census = self._census()
        self.leases = []
        yield f'{{"total":{census.lease_count},"rows":'
        yield from _rows(_lease(view, census.now, self._moment) for view in self._noted(census))
        yield "}"

    def _noted(self, census: Census) -> Iterator[LeaseView]:
        for view in census.each_lease(MOST_LEASES):
            self.leases.append(view)
            yield view

    def _queue(self) -> Iterator[str]:
        census = self._census()
        yield f'{{"total":{census.queue_length},"rows":'
        yield from _rows(_ticket(view, self._moment) for view in census.each_ticket(MOST_TICKETS))
        yield "}"


def _rows(rows: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    """A list, some rows at a time."""
    yield "["
    between = ""
    while some := list(islice(rows, _AT_ONCE)):
        yield between + _text(some)[1:-1]
        between = ","
    yield "]"


def _text(part: object) -> str:
    return json.dumps(part, separators=(",", ":"))


def _gpu(view: GpuView, moment: Moment) -> Mapping[str, Any]:
    spec = view.spec
    # What is no longer so is not known.
    reading = view.reading if view.health is GpuHealth.OK else None
    return {
        "key": spec.key,
        "name": spec.name,
        "uuid": spec.uuid,
        "source": spec.source,
        "monitored": spec.monitored,
        "health": view.health.name,
        "drained": view.cordoned,
        "why": view.out_of_service,
        "total": spec.total_bytes,
        "headroom": view.headroom_bytes,
        "committed": view.committed_bytes,
        "unleased": view.unleased_bytes,
        "admissible": view.admissible_bytes,
        "cooldown": view.cooldown_remaining and round(view.cooldown_remaining, 1),
        "leases": len(view.lease_ids),
        "waiting": view.queue_length,
        "waiting_limit": view.queue_limit,
        "granted": view.stats.granted,
        "wait_p95": view.stats.queue_wait_p95,
        "hold_p95": view.stats.hold_p95,
        "read": reading and moment(reading.time),
        "used": reading and reading.memory_used_bytes,
        "utilization": reading and reading.utilization_ratio,
        "power": reading and reading.power_watts,
        "power_limit": reading and reading.power_limit_watts,
        "temperature": reading and reading.temperature_celsius,
        "clock": reading and reading.sm_clock_hertz,
    }


def _lease(view: LeaseView, now: float, moment: Moment) -> Mapping[str, Any]:
    return {
        "id": view.lease_id,
        "request": view.request_id,
        "token": view.fencing_token,
        "task": view.task_type,
        **_who(view.holder),
        "gpus": [
            {
                "key": grant.spec.key,
                "declared": grant.declared_bytes,
                "committed": grant.committed_bytes,
                "observed": grant.observed_bytes,
            }
            for grant in view.gpus
        ],
        "sharing": view.sharing.name,
        "priority": view.priority,
        "state": view.state.name,
        "waited": round(view.queue_wait, 2),
        "granted": moment(view.granted_at),
        "hold_until": None if view.hold_remaining is None else moment(now + view.hold_remaining),
        "ttl_until": None if view.ttl_remaining is None else moment(now + view.ttl_remaining),
        "about": _context(view.context),
    }


def _ticket(view: TicketView, moment: Moment) -> Mapping[str, Any]:
    return {
        "id": view.request_id,
        "task": view.task_type,
        **_who(view.holder),
        "priority": view.priority,
        "position": view.position,
        "reason": view.reason.name,
        "since": moment(view.enqueued_at),
        "until": None if view.wait_deadline_at is None else moment(view.wait_deadline_at),
        "memory": view.memory_bytes,
        "sharing": view.sharing.name,
        "candidates": view.candidates,
        "count": view.count,
        "about": _context(view.context),
    }


def _who(holder: Holder) -> Mapping[str, Any]:
    return {"client": holder.client_id, "namespace": holder.namespace, "pod": holder.pod, "pid": holder.pid}


def _context(context: WorkContext) -> Mapping[str, str]:
    said = {"job": context.job_id, "session": context.session_id, "stage": context.stage}
    return {name: text for name, text in said.items() if text}


def _analysed(analysis: Analysis | None) -> Mapping[str, Any] | None:
    if analysis is None:
        return None
    run = analysis.latest
    return {
        "source": analysis.source.name,
        "interval": analysis.settings.interval,
        "stale": analysis.stale,
        "fault": analysis.fault,
        "at": run and round(run.at, 2),
        "thresholds": (run.thresholds if run else analysis.settings.thresholds)._asdict(),
        "rows": _results(run) if run else [],
    }


def _results(run: Run) -> list[Mapping[str, Any]]:
    return [
        {
            "gpu": each.gpu.gpu_id,
            "host": each.gpu.hostname,
            "model": each.gpu.model_name,
            "namespace": each.holder.namespace,
            "pod": each.holder.pod,
            "client": each.holder.client_id,
            "score": round(each.score, 1),
            "status": each.status.value,
            "utilization": each.means.utilization,
            "memory": each.means.memory_used_bytes,
            "power": each.means.power_watts,
            "by_model": each.opinion is not None,
            "verdict": each.shown.verdict.value,
            "confidence": each.shown.confidence,
            "reason": each.shown.reason,
            "recommendation": each.shown.recommendation,
            "adjusted": round(each.shown.adjusted_score, 1),
        }
        for each in run.results[:MOST_RESULTS]
    ]
