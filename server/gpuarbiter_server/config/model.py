"""The configuration as a whole: the top level, the policies by task type, and what must fit together.

Law: a Config that exists is usable: kinds, ranges and what must fit together were checked when it was
made.
"""

import socket
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import fields
from types import MappingProxyType
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, model_validator

from gpuarbiter_server.config import kinds, listen
from gpuarbiter_server.config.analysis import AnalysisSection, analysis_faults
from gpuarbiter_server.config.gpus import AutoGpus, Gpus
from gpuarbiter_server.config.masks import MASKED
from gpuarbiter_server.config.problems import Fault, Path, Rejection
from gpuarbiter_server.config.sections import (
    CORE,
    AuthSection,
    ConsoleSection,
    HistorySection,
    JournalSection,
    LimitsSection,
    Listen,
    MemorySection,
    PolicyOverrides,
    PolicySection,
    SamplerSection,
    Section,
    TelemetrySection,
    live,
    restart,
)
from gpuarbiter_server.config.units import format_duration
from gpuarbiter_server.core.policy import Memory, Policy, PolicyError, Settings


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A merge patch applied, as RFC 7386 defines it: null takes a key away, mappings are merged."""
    result = dict(base)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            below = result.get(key)
            result[key] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def _built_in_policies() -> Mapping[str, Any]:
    """The policies that the core brings, in file form: where they differ from its default policy."""
    found: dict[str, Any] = {}
    for name, policy in CORE.policies.items():
        differs = [
            field.name
            for field in fields(Policy)
            if getattr(policy, field.name) != getattr(CORE.default_policy, field.name)
        ]
        section = PolicySection.model_construct(**{key: getattr(policy, key) for key in differs})
        found[name] = section.model_dump(include=set(differs))
    return MappingProxyType(found)


BUILT_IN_POLICIES = _built_in_policies()


def _with_built_in(policies: object) -> object:
    """Configuring one key of a built-in policy leaves its other keys as they are."""
    return merged(deepcopy(dict(BUILT_IN_POLICIES)), policies) if isinstance(policies, Mapping) else policies


class Config(Section):
    """Everything that the operator decides."""

    enabled: kinds.Flag = live(
        CORE.enabled, "false: every request is granted at once and nothing is queued, for comparisons."
    )
    node: kinds.Node = restart("auto", "The name of this machine in snapshots. auto: the host's name.")
    listen: Listen = Field(default_factory=Listen)
    auth: AuthSection = Field(default_factory=AuthSection)
    gpus: Gpus = restart(
        AutoGpus(),
        "auto: the GPUs that the driver shows. `sim:2x24GiB`: two simulated GPUs. A list names GPUs that no driver "
        "tells of; `uuid` and `name` are optional in it.",
    )
    queue_limit: kinds.Count = live(CORE.queue_limit, "Requests that may wait for one GPU.")
    cooldown: kinds.Duration = live(
        CORE.cooldown,
        "How long a GPU stays blocked at most after a lease on it ended without its holder's word; 0s: not at all.",
    )
    recovery_grace: kinds.Duration = live(
        CORE.recovery_grace, "After a restart, how long leases that live by their stream wait to be joined again."
    )
    aging: kinds.Duration = live(CORE.aging, "Waiting time that is worth one level of priority; 0s: no aging.")
    placement: kinds.Placing = live(CORE.placement, "Which GPU is taken where a request leaves the choice.")
    defaults: PolicySection = Field(default_factory=PolicySection)
    policies: Annotated[
        Mapping[Annotated[str, Field(pattern=f"^{kinds.TASK_TYPE_PATTERN}$")], PolicyOverrides],
        BeforeValidator(_with_built_in),
    ] = Field(default_factory=dict, validate_default=True, description="Policies by task type.")
    memory: MemorySection = Field(default_factory=MemorySection)
    sampler: SamplerSection = Field(default_factory=SamplerSection)
    limits: LimitsSection = Field(default_factory=LimitsSection)
    journal: JournalSection = Field(default_factory=JournalSection)
    history: HistorySection = Field(default_factory=HistorySection)
    telemetry: TelemetrySection = Field(default_factory=TelemetrySection)
    analysis: AnalysisSection = Field(default_factory=AnalysisSection)
    console: ConsoleSection = Field(default_factory=ConsoleSection)
    shutdown_grace: kinds.Duration = live(
        5.0, "How long holders may still renew and release after the arbiter was told to stop."
    )
    log_level: kinds.LogLevel = live("info", "The least severe log lines that are written.")
    log_levels: kinds.LogLevels = live(
        {},
        "Other levels for some: for a room of the arbiter (`store`, `api`, `gpu`, …), for `events` (what happens to "
        "leases), or for a logger by its full name.",
    )
    log_format: kinds.LogFormat = live("console", "Lines for people, or one JSON object a line.")

    def policy(self, task_type: str) -> PolicySection:
        """The policy of a task type with what it inherits from `defaults`."""
        said = self.policies[task_type].said() if task_type in self.policies else {}
        return PolicySection.model_validate(merged(self.defaults.model_dump(by_alias=True), said))

    def node_name(self) -> str:
        """The name of this machine."""
        return socket.gethostname() if self.node == "auto" else self.node

    def settings(self) -> Settings:
        """What the core goes by."""
        return Settings(
            enabled=self.enabled,
            queue_limit=self.queue_limit,
            waiting_per_client=self.limits.waiting_per_client,
            leases_per_client=self.limits.leases_per_client,
            cooldown=self.cooldown,
            recovery_grace=self.recovery_grace,
            aging=self.aging,
            placement=self.placement,
            memory=Memory(
                headroom_bytes=self.memory.headroom,
                stale_after=self.memory.stale_after,
                refuse_when_stale=self.memory.refuse_when_stale,
                recovery_limit=self.memory.recovery_limit,
            ),
            default_policy=self.defaults.core(),
            policies=MappingProxyType({name: self.policy(name).core() for name in self.policies}),
        )

    def file_form(self, *, masked: bool = False) -> dict[str, Any]:
        """Every key as a file would say it; the policies say only what differs from `defaults` on purpose.

        masked: without secrets.
        """
        tree = self.model_dump(by_alias=True, context=MASKED if masked else None)
        tree["policies"] = {name: policy.said() for name, policy in self.policies.items()}
        return tree

    def to_yaml(self) -> str:
        """The whole configuration in force as a file, which loads to the same; but it has no secrets."""
        return yaml.safe_dump(self.file_form(masked=True), sort_keys=False, allow_unicode=True)

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        faults = [*_policy_faults(self), *_section_faults(self)]
        if faults:
            raise Rejection(faults)
        return self


def _policy_faults(config: Config) -> Iterator[Fault]:
    defaults = _policy_fault(config.defaults, ("defaults",))
    if defaults:
        yield defaults
    for name in config.policies:
        fault = _policy_fault(config.policy(name), ("policies", name))
        # A policy that merely inherits what is wrong with the defaults needs no mending itself.
        if fault and not (defaults and fault[1:] == defaults[1:]):
            yield fault


def _policy_fault(section: PolicySection, path: Path) -> Fault | None:
    try:
        section.core()
    except PolicyError as error:
        return Fault((*path, *error.key.split(".")), error.value, error.allowed)
    return None


def _section_faults(config: Config) -> Iterator[Fault]:
    tcp, sampler = config.listen, config.sampler
    if tcp.grpc == tcp.socket == listen.OFF:
        yield Fault(
            ("listen", "grpc"),
            tcp.grpc,
            "an address, or else a Unix socket in listen.socket: no client could reach the arbiter",
        )
    http = tcp.http_address()
    # Port 0 is another one each time.
    if http and http.port and http == tcp.grpc_address():
        yield Fault(("listen", "http"), tcp.http, "another address than that of listen.grpc")
    if sampler.fast_interval > sampler.interval:
        shown = format_duration(sampler.fast_interval)
        yield Fault(("sampler", "fast_interval"), shown, "at most sampler.interval")
    yield from analysis_faults(config.analysis)
    if config.memory.stale_after < sampler.interval:
        shown = format_duration(config.memory.stale_after)
        yield Fault(("memory", "stale_after"), shown, "at least sampler.interval: every reading would be stale")
