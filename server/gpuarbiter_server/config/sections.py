"""The sections of the configuration: every key below the top, its kind, its default and what it does.

Law: a default that the core has is read from the core, and a key says itself whether a change of it
takes effect at once or at the next start. Numbers are in the core's units (seconds, bytes) once they
are here; the file form has them as text.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gpuarbiter_server.config import kinds, listen, state
from gpuarbiter_server.core.policy import Policy, Settings, Watchdog

CORE = Settings()
_POLICY = CORE.default_policy
LIVE = "at once"
RESTART = "at the next start"
EFFECT = "x-takes-effect"
# The durability without a journal.
IN_MEMORY = "memory"


def live(default: Any, what: str, *, alias: str | None = None) -> Any:
    """A key that a live change reaches."""
    return Field(default, description=what, alias=alias, json_schema_extra={EFFECT: LIVE})


def restart(default: Any, what: str) -> Any:
    """A key that is read at the start only."""
    return Field(default, description=what, json_schema_extra={EFFECT: RESTART})


def _file_form_schema(schema: dict[str, Any], section: type[BaseModel]) -> None:
    """Defaults as a file says them, and no titles that repeat the names."""
    defaults = section().model_dump(by_alias=True)
    for name, key in schema["properties"].items():
        key.pop("title", None)
        if "default" in key:
            key["default"] = defaults[name]


def _overrides_schema(schema: dict[str, Any], section: type[BaseModel]) -> None:
    _file_form_schema(schema, section)
    for key in schema["properties"].values():
        key.pop("default", None)


class Section(BaseModel):
    """A mapping with known keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_file_form_schema)


class Listen(Section):
    """Where the arbiter can be reached; from this machine only."""

    grpc: listen.TcpAddress = restart("127.0.0.1:50051", "TCP address of the gRPC API; port 0 takes any free one.")
    socket: listen.SocketPath = restart(
        listen.AUTO,
        "Unix socket of the gRPC API. auto: `$XDG_RUNTIME_DIR/gpu-arbiter/arbiter.sock`; without that variable "
        "`/run/gpu-arbiter/arbiter.sock` for root, `/tmp/gpu-arbiter-UID/arbiter.sock` for others.",
    )
    http: listen.TcpAddress = restart("127.0.0.1:9402", "TCP address of metrics, health, analysis and console.")

    def grpc_address(self) -> listen.Address | None:
        """None where it is off."""
        return None if self.grpc == listen.OFF else listen.parse_address(self.grpc)

    def http_address(self) -> listen.Address | None:
        """None where it is off."""
        return None if self.http == listen.OFF else listen.parse_address(self.http)

    def socket_path(self) -> Path | None:
        """None where it is off; raises ConfigError where the path of auto is too long."""
        return listen.socket_path(self.socket)


class WatchdogSection(Section):
    """What happens when a lease reaches its max_hold."""

    warn: kinds.Flag = live(_POLICY.watchdog.warn, "Tell it: log, metric, trace and event.")
    yield_: kinds.Flag = live(_POLICY.watchdog.yield_, "Ask the holder to yield.", alias="yield")
    grace: kinds.Duration = live(_POLICY.watchdog.grace, "Time from the yield request to the revocation.")
    revoke: kinds.Flag = live(_POLICY.watchdog.revoke, "End the lease when the grace period is over.")


class PolicySection(Section):
    """How requests are treated where they do not say it themselves."""

    priority: kinds.Priority = live(_POLICY.priority, "Higher is served first.")
    max_priority: kinds.Priority = live(_POLICY.max_priority, "A request that asks for more is lowered to it.")
    max_wait: kinds.Wait = live(_POLICY.max_wait, "How long a request waits for its turn.")
    max_hold: kinds.Duration = live(_POLICY.max_hold, "When the watchdog acts; 0s: never.")
    max_hold_limit: kinds.Duration = live(
        _POLICY.max_hold_limit, "The longest max_hold that a request or a renewal can ask for; 0s: any."
    )
    ttl_limit: kinds.PositiveDuration = live(_POLICY.ttl_limit, "The longest ttl; a longer one is lowered to it.")
    disconnect_grace: kinds.Duration = live(
        _POLICY.disconnect_grace, "How long a lease whose stream broke waits to be joined again."
    )
    busy_policy: kinds.Busy = live(_POLICY.busy_policy, "What a request does when no GPU is to be had in time.")
    sharing: kinds.Sharing = live(_POLICY.sharing, "Whether a lease has its GPUs for itself.")
    memory: kinds.Size = live(_POLICY.memory_bytes, "The declared peak when a request names none; 0B: none.")
    raise_after_out_of_memory: kinds.Flag = live(
        _POLICY.raise_after_out_of_memory,
        "Who ran out of memory declares at least 1.25 times its observed peak from then on.",
    )
    max_concurrent_leases: kinds.Count = live(
        _POLICY.max_concurrent_leases, "Leases that a task type may have at once; 0: any number."
    )
    wait_objective: kinds.Duration = live(
        10.0, "The alert WaitP95High fires when the 95th percentile of the waits is above it; 0s: it does not."
    )
    hold_objective: kinds.Duration = live(0.0, "The same for how long leases are held, and HoldP95High.")
    watchdog: WatchdogSection = Field(default_factory=WatchdogSection)

    def core(self) -> Policy:
        """The policy that the core goes by; raises PolicyError where its values do not go together."""
        own = {field.name: getattr(self, field.name) for field in fields(Policy) if hasattr(self, field.name)}
        watchdog = Watchdog(**{field.name: getattr(self.watchdog, field.name) for field in fields(Watchdog)})
        return Policy(**{**own, "memory_bytes": self.memory, "watchdog": watchdog})


class PolicyOverrides(PolicySection):
    """The policy of one task type; what it does not say is as in `defaults`."""

    # Only what said() returns counts: an attribute that was not said has the core's default, not the
    # configured one. Config.policy() has the whole.
    model_config = ConfigDict(json_schema_extra=_overrides_schema)

    def said(self) -> dict[str, Any]:
        """What was configured for this task type, in file form."""
        return self.model_dump(by_alias=True, exclude_unset=True)

    def __eq__(self, other: object) -> bool:
        """Saying a default is not the same as leaving it to `defaults`."""
        return isinstance(other, PolicyOverrides) and self.said() == other.said()

    __hash__ = None  # type: ignore[assignment]


class MemorySection(Section):
    """How GPU memory is counted."""

    headroom: kinds.Headroom = live(
        CORE.memory.headroom_bytes,
        "Kept free on each GPU, beside what the driver keeps for itself. auto: 2 % of the total, at least 512MiB.",
    )
    stale_after: kinds.PositiveDuration = live(
        CORE.memory.stale_after, "A reading older than this is stale; at least sampler.interval."
    )
    refuse_when_stale: kinds.RefuseWhenStale = live(
        CORE.memory.refuse_when_stale,
        "Without a fresh reading: grant by what leases declared, or refuse.",
        alias="on_stale",
    )
    recovery_limit: kinds.Duration = live(
        CORE.memory.recovery_limit, "How long the memory of a lease that ended is waited for by name."
    )


class SamplerSection(Section):
    """How often the GPUs are looked at."""

    interval: kinds.Interval = restart(0.5, "Between two readings of a GPU.")
    fast_interval: kinds.Interval = restart(0.05, "The same while a request waits on memory; at most interval.")


class LimitsSection(Section):
    """Limits of one client."""

    waiting_per_client: kinds.Count = live(CORE.waiting_per_client, "Waiting requests; 0: any number.")
    leases_per_client: kinds.Count = live(CORE.leases_per_client, "Leases; 0: any number.")


class HistorySection(Section):
    """The audit trail: `history.db` beside the journal."""

    max_events: kinds.Count = restart(
        100_000,
        "Events that are kept; the oldest go first. 0: none. Without a journal they are kept in memory, at most 10000.",
    )
    max_age: kinds.PositiveDuration = restart(7 * 86400.0, "Older events go.")
    max_bytes: kinds.Size = restart(
        64 * 1024**2, "Size of the file; the oldest events go first. It may be up to 4MiB more for a while."
    )


class TelemetrySection(Section):
    """What is shown to monitoring."""

    metrics: kinds.Flag = restart(True, "Whether /metrics is served.")
    namespaces: kinds.Names = live(
        (), "Namespaces of holders that are told apart in lease_seconds_total; all others count as `other`."
    )
    lease_info: kinds.Flag = live(
        False, "Show each live lease by its id, 1000 at most, with its holder: for small sites, each is a series."
    )


class AuthSection(Section):
    """Who may change something over HTTP."""

    admin_token: kinds.SecretFile = restart(
        state.AUTO,
        "The file with the admin token, 16 characters at least. auto: `admin-token` beside the journal, made at the "
        "first start; without a journal nobody can know it: name a file then. `GPU_ARBITER_ADMIN_TOKEN` "
        "in the environment is the token itself, and wins.",
    )


class ConsoleSection(Section):
    """The web console: `/console` at the address of listen.http."""

    enabled: kinds.Flag = restart(True, "Whether it is served.")


class JournalSection(Section):
    """What survives a restart."""

    path: kinds.Folder = restart(
        state.AUTO,
        "The directory of the journal; one for each arbiter. auto: `$STATE_DIRECTORY`, which systemd sets; without it "
        "`$XDG_STATE_HOME/gpu-arbiter`; without that `/var/lib/gpu-arbiter` for root, `~/.local/state/gpu-arbiter` for "
        "others.",
    )
    durability: kinds.Durability = restart(
        "full",
        "full: a grant is on the disk before it is answered; each batch of grants waits for one sync of the disk. "
        "relaxed: no such wait. A crash of the arbiter loses nothing, but a power cut may take the last seconds: "
        "holders die with the machine, yet an ended request id can be granted again. memory: no journal; all leases "
        "are forgotten when the arbiter stops, while their holders still run.",
    )

    def directory(self) -> Path | None:
        """None where there is no journal; raises ConfigError where auto finds no home directory."""
        return None if self.durability == IN_MEMORY else state.state_directory(self.path)
