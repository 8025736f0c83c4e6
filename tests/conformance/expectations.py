"""What a scenario expects of an answer, an event or a state, and how it differs from what came.

Law: only what is written is compared; a key that does not exist is an error when the scenario is loaded, never a
comparison that is silently not made.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from gpuarbiter_server.config.units import parse_duration, parse_size

# What a client has told, by the name that the scenario gave the lease: its request_id, lease_id, fencing_token.
Known = Mapping[str, Mapping[str, Any]]

Seconds = Annotated[float, BeforeValidator(parse_duration)]
Bytes = Annotated[int, BeforeValidator(parse_size)]


class Strict(BaseModel):
    """A mapping of a scenario: its keys are all that there are."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def written(self) -> dict[str, Any]:
        """The keys that the scenario has, with their values."""
        return {name: getattr(self, name) for name in self.__class__.model_fields if name in self.model_fields_set}


class Between(Strict):
    """A figure in seconds; one of the two is enough."""

    at_least: Seconds = 0.0
    at_most: Seconds = float("inf")


class Facts(Strict):
    """What a lease says of itself."""

    # Keys of its GPUs, in any order.
    gpus: list[str] | None = None
    # How many GPUs it has.
    count: int | None = None
    task_type: str | None = None
    sharing: str | None = None
    priority: int | None = None
    # On each of its GPUs.
    committed: Bytes | None = None
    detached: bool | None = None
    unmanaged: bool | None = None
    queue_wait: Between | None = None
    hold_remaining: Between | None = None
    ttl_remaining: Between | None = None
    yield_requested: str | None = None
    uncertain: bool | None = None
    lost: bool | None = None
    lost_reason: str | list[str] | None = None
    # It is the very lease, or has a newer token than the lease, that another name stands for.
    same_as: str | None = None
    newer_than: str | None = None


class Declined(Strict):
    """A decline."""

    reason: str | None = None
    waited: Between | None = None
    # Leases in the way, in any order.
    blockers: list[str] | None = None


class Refused(Strict):
    """An error: its class in the client library, and the reason of the contract."""

    error: str | list[str] | None = None
    reason: str | None = None
    # The message, or a field violation, has this text.
    names: str | list[str] | None = None
    # It says when to try again.
    retry: bool | None = None


class Released(Strict):
    """The answer to a release."""

    reason: str | None = None
    already_ended: bool | None = None


class Done(Strict):
    """The end of work under a lease, or on the CPU."""

    device: str | None = None
    raised: bool | None = None
    # Why the lease ended.
    released: str | None = None


class Fence(Strict):
    """The answer to a fencing check."""

    current: bool | None = None
    # The lease whose token is the newest.
    newest: str | None = None


class State(Strict):
    """Who holds, in any order, who waits, in the order of the queue, and which GPUs are cordoned."""

    holding: list[str] | None = None
    waiting: list[str] | None = None
    cordoned: list[str] | None = None


class Nothing(Strict):
    """Nothing more is to be said."""


class Expect(Strict):
    """An answer: exactly one kind."""

    granted: Facts | None = None
    skipped: Declined | None = None
    fallback_cpu: Declined | None = None
    refused: Refused | None = None
    given_up: Nothing | None = None
    released: Released | None = None
    done: Done | None = None
    fence: Fence | None = None
    ok: Nothing | None = None

    @model_validator(mode="after")
    def _one(self) -> "Expect":
        if len(self.written()) != 1:
            raise ValueError(f"say one of {', '.join(type(self).model_fields)}")
        return self

    def differences(self, answer: Mapping[str, Any], known: Known) -> list[str]:
        """How the answer is not what was expected; empty when it is."""
        ((kind, body),) = self.written().items()
        if answer["kind"] != kind:
            return [f"expected {kind}, got {shown(answer)}"]
        return differences(body, answer, known)


class Queued(Strict):
    """Where a request stands."""

    position: int | None = None
    reason: str | None = None
    blockers: list[str] | None = None


class Working(Facts):
    """The work began, with its lease where there is one."""

    device: str | None = None


class Yielding(Strict):
    """The arbiter asks for the GPU."""

    reason: str | None = None
    # It says until when.
    grace: bool | None = None


class Lost(Strict):
    """The holder is told that its lease is over."""

    reason: str | list[str] | None = None


def differences(expected: Strict, actual: Mapping[str, Any], known: Known) -> list[str]:
    """How `actual` is not what was expected, key by key."""
    found = []
    for name, wanted in expected.written().items():
        compare = _COMPARISONS.get(name, _equal)
        if not compare(wanted, actual, name, known):
            found.append(f"{name} is to be {wanted!r}, but got {shown(actual)}")
    return found


def shown(message: Mapping[str, Any]) -> str:
    """A message of a driver, for people."""
    return ", ".join(f"{name}={value!r}" for name, value in message.items() if name not in {"id", "kind"})


Comparison = Callable[[Any, Mapping[str, Any], str, Known], bool]


def _equal(wanted: Any, actual: Mapping[str, Any], name: str, _known: Known) -> bool:
    value = actual.get(name)
    # A list of texts stands for any of them.
    return value in wanted if isinstance(wanted, list) else bool(value == wanted)


def _keys(wanted: list[str], actual: Mapping[str, Any], _name: str, _known: Known) -> bool:
    return sorted(gpu["key"] for gpu in actual["gpus"]) == sorted(wanted)


def _count(wanted: int, actual: Mapping[str, Any], _name: str, _known: Known) -> bool:
    return len({gpu["key"] for gpu in actual["gpus"]}) == len(actual["gpus"]) == wanted


def _committed(wanted: int, actual: Mapping[str, Any], _name: str, _known: Known) -> bool:
    return {gpu["committed_bytes"] for gpu in actual["gpus"]} == {wanted}


def _between(wanted: Between, actual: Mapping[str, Any], name: str, _known: Known) -> bool:
    seconds = actual.get(f"{name}_seconds")
    return seconds is not None and wanted.at_least <= seconds <= wanted.at_most


def _same(wanted: str, actual: Mapping[str, Any], _name: str, known: Known) -> bool:
    other = known[wanted]
    return all(actual[fact] == other[fact] for fact in ("lease_id", "fencing_token", "request_id"))


def _newer(wanted: str, actual: Mapping[str, Any], _name: str, known: Known) -> bool:
    return int(actual["fencing_token"]) > int(known[wanted]["fencing_token"])


def _newest(wanted: str, actual: Mapping[str, Any], _name: str, known: Known) -> bool:
    return bool(actual["newest_token"] == known[wanted]["fencing_token"])


def _blockers(wanted: list[str], actual: Mapping[str, Any], _name: str, known: Known) -> bool:
    return sorted(actual["blockers"]) == sorted(known[each]["lease_id"] for each in wanted)


def _names(wanted: str | list[str], actual: Mapping[str, Any], _name: str, _known: Known) -> bool:
    said = " ".join([actual["message"], *actual["fields"]])
    return any(each in said for each in ([wanted] if isinstance(wanted, str) else wanted))


def _retry(wanted: bool, actual: Mapping[str, Any], _name: str, _known: Known) -> bool:
    return (actual["retry_after_seconds"] is not None) == wanted


def _grace(wanted: bool, actual: Mapping[str, Any], _name: str, _known: Known) -> bool:
    return (actual["grace_seconds"] is not None) == wanted


def _holding(wanted: list[str], actual: Mapping[str, Any], _name: str, known: Known) -> bool:
    return sorted(actual["holding"]) == sorted(_requests(wanted, known))


def _waiting(wanted: list[str], actual: Mapping[str, Any], _name: str, known: Known) -> bool:
    return list(actual["waiting"]) == _requests(wanted, known)


def _cordoned(wanted: list[str], actual: Mapping[str, Any], _name: str, _known: Known) -> bool:
    return sorted(actual["cordoned"]) == sorted(wanted)


def _requests(names: list[str], known: Known) -> list[str]:
    """Their request_ids; a request that nothing was heard of yet is nowhere."""
    return [known.get(name, {}).get("request_id", f"{name}, of which nothing was heard") for name in names]


_COMPARISONS: dict[str, Comparison] = {
    "gpus": _keys,
    "count": _count,
    "committed": _committed,
    "queue_wait": _between,
    "hold_remaining": _between,
    "ttl_remaining": _between,
    "waited": _between,
    "same_as": _same,
    "newer_than": _newer,
    "newest": _newest,
    "blockers": _blockers,
    "names": _names,
    "retry": _retry,
    "grace": _grace,
    "holding": _holding,
    "waiting": _waiting,
    "cordoned": _cordoned,
}
