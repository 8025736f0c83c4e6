"""Who plays a scenario: the drivers' processes, the clients in them, the leases by name, and what is known of each.

Law: whatever is known of a lease was told by a driver; ids are one performance's own.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance import expectations
from conformance.driving import DeviationError, Driver, Mailbox
from conformance.scenario import Actor, Scenario
from conformance.stage import Stage

LOOK_SECONDS = 0.02
_TRANSCRIPT_LINES = 60


@dataclass
class PlayedLease:
    """A lease of the scenario."""

    driver: Driver
    actor: str
    # The command that is not answered yet.
    asked: int | None
    # Events that the scenario has spoken of, or passed by.
    seen: int = 0


@dataclass
class PlayedClient:
    """A client of the scenario."""

    driver: Driver
    client_id: str
    gone: bool = False


class Cast:
    """Everybody in one performance."""

    def __init__(self, scenario: Scenario, command: Sequence[str], stage: Stage) -> None:
        self._scenario = scenario
        self._command = command
        self._stage = stage
        self._drivers: list[Driver] = []
        self.mailbox = Mailbox()
        # Arbiters remember ids.
        self.nonce = uuid.uuid4().hex[:8]
        self.clients: dict[str, PlayedClient] = {}
        self.leases: dict[str, PlayedLease] = {}
        self.known: dict[str, dict[str, Any]] = {}

    # -- who plays --

    def enter(self) -> None:
        """Starts the drivers, and connects the clients."""
        common: Driver | None = None
        for name, actor in self._scenario.head.actors.items():
            if actor.own_process:
                driver = self._spawn()
            else:
                driver = common = common or self._spawn()
            self.clients[name] = PlayedClient(driver, f"{actor.identity or name}-{self.nonce}")
        for name, actor in self._scenario.head.actors.items():
            self._connect(name, actor)

    def _spawn(self) -> Driver:
        self._drivers.append(Driver(self._command, self._stage.env, self._stage.folder, self.mailbox))
        return self._drivers[-1]

    def _connect(self, name: str, actor: Actor) -> None:
        places = {
            "direct": lambda: self._stage.address,
            "socket": lambda: self._stage.socket,
            "proxy": lambda: self._stage.proxy.address,
            "nowhere": lambda: self._stage.nowhere,
        }
        client = self.clients[name]
        wishes: dict[str, Any] = {"address": places[actor.through](), "client_id": client.client_id}
        if actor.on_unavailable is not None:
            wishes["on_unavailable"] = actor.on_unavailable
        client.driver.ask("connect", actor=name, **wishes)

    def nothing_left(self) -> None:
        """Every answer and every event was expected."""
        for name, lease in self.leases.items():
            if self.clients[lease.actor].gone:
                continue
            if lease.asked is not None:
                raise DeviationError(f"the scenario does not say what comes of {name}")
            left = [event for event in self.events(name) if event["event"] != "queued"]
            if left:
                raise DeviationError(f"nobody expected of {name}: {expectations.shown(left[0])}")

    def events(self, name: str) -> list[dict[str, Any]]:
        """What its holder was told, from where the scenario is."""
        return self.mailbox.events.get(name, [])[self.leases[name].seen :]

    def transcript(self) -> str:
        """What was said at last, without the looking again and again."""
        said = [line for line in self.mailbox.said if '"facts"' not in line and '"snapshot"' not in line]
        return "\n".join(said[-_TRANSCRIPT_LINES:])

    def leave(self) -> None:
        """Has every driver end well that was not killed."""
        for driver in self._drivers:
            if not driver.killed:
                driver.end()

    def clear(self) -> None:
        """Ends whatever still runs."""
        for driver in self._drivers:
            driver.kill()

    # -- what is known of leases --

    def learn(self) -> None:
        """Takes in the ids that events have told."""
        for name, events in self.mailbox.events.items():
            for event in events:
                if "request_id" in event:
                    self.note(name, event)

    def note(self, name: str, told: Mapping[str, Any]) -> None:
        """Takes in the ids in what was told of a lease."""
        ids = {key: told[key] for key in ("request_id", "lease_id", "fencing_token") if key in told}
        self.known.setdefault(name, {}).update(ids)

    def compare(self, expected: expectations.Expect, answer: Mapping[str, Any]) -> None:
        """Raises a DeviationError when the answer is another one."""
        self.learn()
        found = expected.differences(answer, self.known)
        if found:
            raise DeviationError("; ".join(found))

    def poll(
        self, look: Callable[[], Mapping[str, Any]], wanted: expectations.Strict, within: float, what: str
    ) -> None:
        """Looks until it is as wanted; raises a DeviationError when it is not in time."""
        deadline = time.monotonic() + within
        while True:
            actual = look()
            self.learn()
            found = expectations.differences(wanted, actual, self.known)
            if not found:
                return
            if time.monotonic() > deadline:
                raise DeviationError(f"waited {within:g} s in vain for {what}: {'; '.join(found)}")
            time.sleep(LOOK_SECONDS)
