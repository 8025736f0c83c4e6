"""The steps of a scenario: each has one verb, and its body is one of these.

Law: `within` bounds how long the step may take; it is generous, and nothing waits for its end.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from conformance.expectations import (
    Expect,
    Facts,
    Lost,
    Queued,
    Seconds,
    State,
    Strict,
    Working,
    Yielding,
)


class Step(Strict):
    """What each step has."""

    verb: ClassVar[str]
    within: Seconds = 15.0


class Sequence(Strict):
    """A place in an order."""

    group: str
    index: int


class Options(Strict):
    """What is asked for, by the names of the contract; values go to the client library as they are written here."""

    memory: Any = None
    count: Any = None
    gpus: Any = None
    shared: Any = None
    priority: Any = None
    max_wait: Any = None
    max_hold: Any = None
    ttl: Any = None
    detached: Any = None
    busy_policy: Any = None
    placement: Any = None
    resident: Any = None
    sequence: Sequence | None = None
    request_id: str | None = None


class Asking(Step):
    """A request for a lease, which the scenario gives a name."""

    lease: str
    by: str
    task_type: str = "TASK"
    options: Options = Field(default_factory=Options)


class Acquire(Asking):
    """Asks for a lease and waits for the answer."""

    verb = "acquire"
    # As a program that asks again while the arbiter is out of reach: a client fails at once then.
    patient: bool = False
    expect: Expect


class Ask(Asking):
    """Asks for a lease in the background; `answer` tells what came of it."""

    verb = "ask"


class Block(Asking):
    """Work in a block that holds a lease (`with`, `await using`), until `finish`."""

    verb = "block"


class Run(Asking):
    """Work as a function that the library calls under a lease, until `finish`."""

    verb = "run"
    # There is a function for the CPU, too.
    cpu: bool = False


class Answer(Step):
    """The answer to what was begun in the background."""

    verb = "answer"
    lease: str
    expect: Expect


class Event(Step):
    """The next thing that the holder is told; reports of the place in the queue before it may be left out."""

    verb = "event"
    lease: str
    queued: Queued | None = None
    working: Working | None = None
    yielding: Yielding | None = None
    lost: Lost | None = None

    @model_validator(mode="after")
    def _one(self) -> "Event":
        if len(self.told()) != 1:
            raise ValueError("say one of queued, working, yielding, lost")
        return self

    def told(self) -> dict[str, Strict]:
        """The kind of the event, with what is expected of it."""
        kinds = {name: getattr(self, name) for name in ("queued", "working", "yielding", "lost")}
        return {name: body for name, body in kinds.items() if body is not None}


class Finish(Step):
    """Ends the work of a block or run, by an exception if it is to be so."""

    verb = "finish"
    lease: str
    raising: bool = False


class GiveUp(Step):
    """The caller gives up the wait."""

    verb = "give_up"
    lease: str


class See(Step):
    """What a lease says of itself, sooner or later."""

    verb = "see"
    lease: str
    facts: Facts


class Check(Step):
    """The check that a holder makes in its inner loop."""

    verb = "check"
    lease: str
    expect: Expect


class Release(Step):
    """The holder gives its lease back."""

    verb = "release"
    lease: str
    expect: Expect


class ReleaseById(Step):
    """Somebody ends a lease, or takes a request back, by its id alone."""

    verb = "release_by_id"
    by: str
    lease: str
    id: Literal["lease_id", "request_id"]
    # The fencing token of this lease is handed over.
    token_of: str | None = None
    expect: Expect


class Renew(Step):
    """The holder renews."""

    verb = "renew"
    lease: str
    extend_hold: Any = None
    expect: Expect


class Resize(Step):
    """The holder changes what is committed."""

    verb = "resize"
    lease: str
    memory: Any = None
    shared: Any = None
    expect: Expect


class CheckFence(Step):
    """Whatever a lease protects asks about its token."""

    verb = "check_fence"
    by: str
    gpu: str
    lease: str
    expect: Expect


class ReportWork(Step):
    """Tells of work that had no lease."""

    verb = "report_work"
    by: str
    task_type: str = "TASK"
    result: str = "OK"
    device: str = "CPU"
    expect: Expect


class Snapshot(Step):
    """What a client sees, sooner or later."""

    verb = "snapshot"
    by: str
    state: State


class Client(Step):
    """What becomes of a client. Only one with a process of its own can be killed or stalled."""

    verb = "client"
    actor: str
    becomes: Literal["closed", "killed", "stalled", "running"]


# -- what the runner itself does and sees --


class Await(Step):
    """What is so at the arbiter, sooner or later."""

    verb = "await"
    state: State


class History(Step):
    """An event in the arbiter's history, of a lease or of an actor, sooner or later."""

    verb = "history"
    type: str
    lease: str | None = None
    by: str | None = None
    # So often at least, and with a detail that begins so: of an end, why.
    count: int = 1
    detail: str = ""

    @model_validator(mode="after")
    def _one(self) -> "History":
        if (self.lease is None) == (self.by is None):
            raise ValueError("say either lease or by")
        return self


class Arbiter(Step):
    """What becomes of the arbiter: by SIGKILL, SIGTERM, SIGSTOP; and back, on its state or on none."""

    verb = "arbiter"
    becomes: Literal["killed", "stopped", "stalled", "running", "forgetful"]


class Network(Step):
    """What becomes of the line of the actors that go through the proxy, one after the other."""

    verb = "network"
    becomes: list[Literal["cut", "reset", "silent", "slow", "refused", "healed"]]
    # It is well again so long after all of that.
    healed_after: Seconds | None = None


class Drain(Step):
    """An operator drains GPUs."""

    verb = "drain"
    gpus: list[str]
    grace: Seconds | None = None


class Resume(Step):
    """An operator takes a drain back."""

    verb = "resume"
    gpus: list[str]


class Revoke(Step):
    """An operator revokes a lease."""

    verb = "revoke"
    lease: str
    grace: Seconds | None = None


# By the key that a step has in a scenario.
VERBS: dict[str, type[Step]] = {
    kind.verb: kind
    for kind in (
        Acquire,
        Ask,
        Block,
        Run,
        Answer,
        Event,
        Finish,
        GiveUp,
        See,
        Check,
        Release,
        ReleaseById,
        Renew,
        Resize,
        CheckFence,
        ReportWork,
        Snapshot,
        Client,
        Await,
        History,
        Arbiter,
        Network,
        Drain,
        Resume,
        Revoke,
    )
}
