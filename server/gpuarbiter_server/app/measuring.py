"""What the metrics need to know of the rest."""

import asyncio
from collections.abc import Callable, Iterable

from gpuarbiter_server.config import Config
from gpuarbiter_server.config.sections import PolicySection
from gpuarbiter_server.core.model import GpuSpec
from gpuarbiter_server.telemetry.sources import Known, TaskType

_LAG_INTERVAL = 0.5


def known(config: Config, specs: Iterable[GpuSpec]) -> Known:
    """What the labels can be under this configuration."""
    return Known(
        tuple(spec.key for spec in specs),
        {name: _shown(config.policy(name)) for name in config.policies},
        _shown(config.defaults),
        frozenset(config.telemetry.namespaces),
        config.telemetry.lease_info,
    )


def _shown(policy: PolicySection) -> TaskType:
    return TaskType(policy.max_hold, policy.wait_objective, policy.hold_objective)


async def lag_of_the_loop(observe: Callable[[float], None]) -> None:
    """Tells twice a second how late a timer rings, in seconds."""
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + _LAG_INTERVAL
        await asyncio.sleep(_LAG_INTERVAL)
        observe(max(0.0, clock() - due))
