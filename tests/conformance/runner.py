"""Plays a scenario: the arbiter, the faults and the clock are the runner's, the leases are the client's.

Law: the runner knows no client library. Whatever it learns of leases, it learns from a driver or from the arbiter.
"""

import signal
import time
from collections.abc import Mapping, Sequence
from functools import singledispatchmethod
from typing import Any

from conformance import expectations, steps
from conformance.cast import LOOK_SECONDS, Cast, PlayedLease
from conformance.driving import DeviationError, Driver
from conformance.scenario import Scenario
from conformance.stage import Stage
from gpuarbiter.v1 import admin_pb2

# What is begun by these is answered by the lease's end, not at once.
_WORK = {"block", "run"}
_OUT_OF_REACH = "ArbiterUnavailable"


class Runner:
    """One performance of a scenario, by one kind of client."""

    def __init__(self, scenario: Scenario, command: Sequence[str], stage: Stage) -> None:
        self._scenario = scenario
        self._stage = stage
        self._cast = Cast(scenario, command, stage)

    def play(self) -> None:
        """Plays it to its end.

        Raises:
            DeviationError: something else happened than it says.
        """
        try:
            self._cast.enter()
            for number, step in enumerate(self._scenario.steps, start=1):
                try:
                    self._do(step)
                except DeviationError as error:
                    raise DeviationError(f"step {number}, {step.verb}: {error}") from None
            self._cast.nothing_left()
            self._cast.leave()
        except DeviationError as error:
            raise DeviationError(f"{self._scenario.name}: {error}\n{self._cast.transcript()}") from None
        finally:
            self._cast.clear()

    # -- the steps --

    @singledispatchmethod
    def _do(self, step: steps.Step) -> None:
        raise NotImplementedError(step.verb)

    @_do.register
    def _(self, step: steps.Asking) -> None:
        client = self._cast.clients[step.by]
        options: dict[str, Any] = {
            name: value.model_dump() if isinstance(value, expectations.Strict) else value
            for name, value in step.options.written().items()
        }
        if "request_id" in options:
            options["request_id"] += f"-{self._cast.nonce}"
        fields: dict[str, Any] = {"actor": step.by, "lease": step.lease, "task_type": step.task_type}
        if isinstance(step, steps.Run):
            fields["cpu"] = step.cpu
        if any(isinstance(each, steps.GiveUp) and each.lease == step.lease for each in self._scenario.steps):
            fields["interruptible"] = True
        op = step.verb if step.verb in _WORK else "acquire"
        deadline = time.monotonic() + step.within
        while True:
            asked = client.driver.send(op, **fields, options=options)
            self._cast.leases[step.lease] = PlayedLease(client.driver, step.by, asked)
            if not isinstance(step, steps.Acquire):
                return
            again = step.patient and time.monotonic() < deadline
            if not again or client.driver.answer(asked, step.within, step.lease).get("error") != _OUT_OF_REACH:
                break
            time.sleep(LOOK_SECONDS)
        self._answered(step.lease, step.expect, step.within)

    @_do.register
    def _(self, step: steps.Answer) -> None:
        self._answered(step.lease, step.expect, step.within)

    def _answered(self, name: str, expected: expectations.Expect, within: float) -> None:
        lease = self._cast.leases[name]
        if lease.asked is None:
            raise DeviationError(f"{name} was answered already")
        answer = lease.driver.answer(lease.asked, within, name)
        lease.asked = None
        if "request_id" in answer:
            self._cast.note(name, answer)
        self._cast.compare(expected, answer)

    @_do.register
    def _(self, step: steps.Event) -> None:
        ((kind, wanted),) = step.told().items()
        lease = self._cast.leases[step.lease]

        def look() -> dict[str, Any] | None:
            for offset, event in enumerate(self._cast.events(step.lease)):
                if event["event"] == kind and (kind != "queued" or not self._differs(wanted, event)):
                    lease.seen += offset + 1
                    return event
                if event["event"] != "queued":
                    return event
            return None

        event = self._cast.mailbox.wait(look, step.within, f"{step.lease}: {kind} {wanted.written()}")
        self._cast.learn()
        if event["event"] != kind:
            raise DeviationError(f"{step.lease}: {kind} was to come, got {expectations.shown(event)}")
        found = self._differs(wanted, event)
        if found:
            raise DeviationError("; ".join(found))

    def _differs(self, wanted: expectations.Strict, event: Mapping[str, Any]) -> list[str]:
        return expectations.differences(wanted, event, self._cast.known)

    @_do.register
    def _(self, step: steps.Finish) -> None:
        self._of(step.lease).ask("finish", step.within, lease=step.lease, raising=step.raising)

    @_do.register
    def _(self, step: steps.GiveUp) -> None:
        self._of(step.lease).ask("give_up", step.within, lease=step.lease)

    @_do.register
    def _(self, step: steps.See) -> None:
        driver = self._of(step.lease)
        self._cast.poll(
            lambda: driver.ask("facts", step.within, lease=step.lease),
            step.facts,
            step.within,
            f"{step.lease} to say so",
        )

    @_do.register
    def _(self, step: steps.Check) -> None:
        self._cast.compare(step.expect, self._of(step.lease).ask("check", step.within, lease=step.lease))

    @_do.register
    def _(self, step: steps.Release) -> None:
        self._cast.compare(step.expect, self._of(step.lease).ask("release", step.within, lease=step.lease))

    @_do.register
    def _(self, step: steps.ReleaseById) -> None:
        self._cast.learn()
        target: dict[str, Any] = {step.id: self._cast.known[step.lease][step.id]}
        if step.token_of is not None:
            target["fencing_token"] = self._cast.known[step.token_of]["fencing_token"]
        driver = self._cast.clients[step.by].driver
        self._cast.compare(step.expect, driver.ask("release_by_id", step.within, actor=step.by, **target))

    @_do.register
    def _(self, step: steps.Renew) -> None:
        wishes = {"extend_hold": step.extend_hold} if step.extend_hold is not None else {}
        self._cast.compare(step.expect, self._of(step.lease).ask("renew", step.within, lease=step.lease, **wishes))

    @_do.register
    def _(self, step: steps.Resize) -> None:
        wishes = {name: getattr(step, name) for name in ("memory", "shared") if getattr(step, name) is not None}
        self._cast.compare(step.expect, self._of(step.lease).ask("resize", step.within, lease=step.lease, **wishes))

    @_do.register
    def _(self, step: steps.CheckFence) -> None:
        token = self._cast.known[step.lease]["fencing_token"]
        driver = self._cast.clients[step.by].driver
        answer = driver.ask("check_fence", step.within, actor=step.by, gpu=step.gpu, fencing_token=token)
        self._cast.compare(step.expect, answer)

    @_do.register
    def _(self, step: steps.ReportWork) -> None:
        driver = self._cast.clients[step.by].driver
        report = {"result": step.result, "device": step.device}
        answer = driver.ask("report_work", step.within, actor=step.by, task_type=step.task_type, report=report)
        self._cast.compare(step.expect, answer)

    @_do.register
    def _(self, step: steps.Snapshot) -> None:
        driver = self._cast.clients[step.by].driver
        self._cast.poll(
            lambda: driver.ask("snapshot", step.within, actor=step.by), step.state, step.within, "the snapshot"
        )

    @_do.register
    def _(self, step: steps.Client) -> None:
        client = self._cast.clients[step.actor]
        if step.becomes == "closed":
            client.driver.ask("close", step.within, actor=step.actor)
            client.gone = True
        elif not self._scenario.head.actors[step.actor].own_process:
            raise DeviationError(f"{step.actor} has no process of its own")
        elif step.becomes == "killed":
            client.driver.kill()
            client.gone = True
        else:
            client.driver.process.send_signal(signal.SIGSTOP if step.becomes == "stalled" else signal.SIGCONT)

    def _of(self, name: str) -> Driver:
        return self._cast.leases[name].driver

    # -- the runner's own steps --

    @_do.register
    def _(self, step: steps.Await) -> None:
        with self._stage.state() as look:
            self._cast.poll(look, step.state, step.within, "the arbiter to be so")

    @_do.register
    def _(self, step: steps.History) -> None:
        self._cast.learn()
        lease = self._cast.known[step.lease]["request_id"] if step.lease is not None else None
        client_id = self._cast.clients[step.by].client_id if step.by is not None else None
        wanted = admin_pb2.EventType.Value(f"EVENT_TYPE_{step.type}")
        deadline = time.monotonic() + step.within
        with self._stage.admin() as admin:
            while True:
                seen = sum(
                    event.type == wanted
                    and (event.request_id == lease or event.holder.client_id == client_id)
                    and event.detail.startswith(step.detail)
                    for event in admin.ListEvents(admin_pb2.ListEventsRequest(), timeout=step.within)
                )
                if seen >= step.count:
                    return
                if time.monotonic() > deadline:
                    raise DeviationError(f"waited {step.within:g} s in vain for {step.type} in the history: {seen}")
                time.sleep(LOOK_SECONDS)

    @_do.register
    def _(self, step: steps.Arbiter) -> None:
        self._stage.become(step.becomes)

    @_do.register
    def _(self, step: steps.Network) -> None:
        for each in step.becomes:
            self._stage.disturb(each)
        if step.healed_after is not None:
            self._stage.proxy.heal(after=step.healed_after)

    @_do.register
    def _(self, step: steps.Drain) -> None:
        request = admin_pb2.DrainRequest(gpus=step.gpus)
        if step.grace is not None:
            request.grace.FromNanoseconds(round(step.grace * 1e9))
        with self._stage.admin() as admin:
            admin.Drain(request, wait_for_ready=True, timeout=step.within)

    @_do.register
    def _(self, step: steps.Resume) -> None:
        with self._stage.admin() as admin:
            admin.Resume(admin_pb2.ResumeRequest(gpus=step.gpus), wait_for_ready=True, timeout=step.within)

    @_do.register
    def _(self, step: steps.Revoke) -> None:
        request = admin_pb2.RevokeRequest(lease_id=self._cast.known[step.lease]["lease_id"])
        if step.grace is not None:
            request.grace.FromNanoseconds(round(step.grace * 1e9))
        with self._stage.admin() as admin:
            admin.Revoke(request, wait_for_ready=True, timeout=step.within)
