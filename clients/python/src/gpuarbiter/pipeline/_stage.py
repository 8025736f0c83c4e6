"""What a pipeline is made of.

Law: what is wrong with a stage is an error where it is written, not when the first job comes to it.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from gpuarbiter import _convert
from gpuarbiter._aio.options import AsyncLeaseOptions
from gpuarbiter._options import refuse_unknown
from gpuarbiter._units import Duration, parse_duration
from gpuarbiter.pipeline._values import check_functions, checked_number

if TYPE_CHECKING:
    from gpuarbiter._aio.lease import AsyncLease

OnTrouble = Literal["fail", "skip"]

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
# What the pipeline itself says about each lease.
_OWN = ("context", "request_id", "sequence")


@dataclass(frozen=True, slots=True)
class StageRun:
    """What the work of a stage is told, beside its input.

    Attributes:
        stage: the stage's name.
        lease: the lease that it runs under; None on the CPU, and in a stage without a GPU.
    """

    session_id: str
    utterance_index: int
    stage: str
    lease: "AsyncLease | None"

    @property
    def job_id(self) -> str:
        """Session and utterance, as the arbiter's logs and traces have it."""
        return f"{self.session_id}/{self.utterance_index}"


# The work of a stage: what it is given, and where it runs; what it returns goes into the next stage.
Work = Callable[[Any, StageRun], Awaitable[Any]]


@dataclass(frozen=True)
class Stage:
    """A stage that every job goes through.

    Args:
        name: such as "ASR"; letters, digits and `_ . -`, at most 64.
        work: an async function of the input and a StageRun. What it returns is the input of the next stage.
        task_type: of its leases; the name unless told.
        gpu: False: it needs no GPU, and no lease is asked for.
        lease: keywords of `AsyncArbiter.lease`, but for context, request_id and sequence.
        cpu: the work without a GPU, for when the arbiter answers FALLBACK_CPU.
        concurrency: how many jobs are in it at once, those that wait for a lease included. The sum over all stages
            is to stay below what the arbiter's queue_limit has room for.
        timeout: how long a job may be in it, the wait for the lease included; None: no limit. The work is cancelled
            then, and its place is free once it has ended.
        on_failure: when the work raises, or the lease cannot be had or is lost: "fail" the job, or "skip" the stage,
            which passes its input on.
        on_timeout: the same when it takes too long; as on_failure unless told.
        on_decline: the same when the arbiter answers SKIP, or FALLBACK_CPU to a stage without `cpu`.
        sequenced: the lower utterance of a session gets its lease first, and the next one once that is given back.
            False: utterances of one session may be at work in this stage side by side.

    Raises:
        ValueError, TypeError: naming what is wrong.
    """

    name: str
    work: Work
    task_type: str = field(default="", kw_only=True)
    gpu: bool = field(default=True, kw_only=True)
    lease: AsyncLeaseOptions = field(default_factory=AsyncLeaseOptions, kw_only=True)
    cpu: Work | None = field(default=None, kw_only=True)
    concurrency: int = field(default=2, kw_only=True)
    timeout: Duration | None = field(default=None, kw_only=True)
    on_failure: OnTrouble = field(default="fail", kw_only=True)
    on_timeout: OnTrouble | None = field(default=None, kw_only=True)
    on_decline: OnTrouble = field(default="skip", kw_only=True)
    sequenced: bool = field(default=True, kw_only=True)
    timeout_seconds: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a stage; letters, digits and _ . - are, at most 64")
        work: object = self.work
        check_functions({f"work of {self.name}": "nothing" if work is None else work, f"cpu of {self.name}": self.cpu})
        checked_number(f"concurrency of {self.name}:", self.concurrency, 1)
        for name, policy in (
            ("on_failure", self.on_failure),
            ("on_timeout", self.on_timeout or self.on_failure),
            ("on_decline", self.on_decline),
        ):
            if policy not in get_args(OnTrouble):
                raise ValueError(f'{name} of {self.name}: {policy!r} is not allowed; write "fail" or "skip"')
        refuse_unknown(self.lease, AsyncLeaseOptions)
        own = [name for name in _OWN if name in self.lease]
        if own:
            raise ValueError(f"lease of {self.name}: {', '.join(own)} is said by the pipeline itself")
        if not self.gpu and (self.lease or self.cpu or self.task_type):
            raise ValueError(f"{self.name} has gpu=False: task_type, lease and cpu mean nothing there")
        lease: AsyncLeaseOptions = {**self.lease}
        if not isinstance(lease.get("gpus", ""), str):
            # What can be gone through once would be there for the first job alone.
            lease["gpus"] = tuple(lease["gpus"])
        _convert.acquire_request(self.task_type or self.name, lease)
        object.__setattr__(self, "lease", lease)
        if self.timeout is not None:
            object.__setattr__(self, "timeout_seconds", _positive(self.name, self.timeout))

    def policy(self, cause: str) -> OnTrouble:
        """What is to be done about a stage that is not done, by its cause."""
        by_cause: Mapping[str, OnTrouble] = {
            "FAILED": self.on_failure,
            "TIMED_OUT": self.on_timeout or self.on_failure,
            "DECLINED": self.on_decline,
        }
        return by_cause.get(cause, "fail")


def _positive(name: str, timeout: Duration) -> float:
    seconds = parse_duration(timeout).total_seconds()
    if not seconds:
        raise ValueError(f"timeout of {name}: {timeout!r} leaves no time; None is no limit")
    return seconds
