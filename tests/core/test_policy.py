"""A policy is checked when it is built."""

import pytest

from core.world import World, settings
from gpuarbiter_server.core.model import BusyPolicy, Placement, Sharing
from gpuarbiter_server.core.policy import RUN_POLICY, Memory, Policy, PolicyError, Settings, Watchdog


@pytest.mark.parametrize(
    ("kind", "field", "value", "key"),
    [
        (Policy, "priority", 101, "priority"),
        (Policy, "priority", -1, "priority"),
        (Policy, "max_priority", 101, "max_priority"),
        (Policy, "max_priority", 49, "priority"),
        (Policy, "max_wait", -0.1, "max_wait"),
        (Policy, "max_hold", -1, "max_hold"),
        (Policy, "max_hold_limit", -1, "max_hold_limit"),
        (Policy, "ttl_limit", 0, "ttl_limit"),
        (Policy, "disconnect_grace", -1, "disconnect_grace"),
        (Policy, "busy_policy", BusyPolicy.UNSPECIFIED, "busy_policy"),
        (Policy, "sharing", Sharing.UNSPECIFIED, "sharing"),
        (Policy, "memory_bytes", -1, "memory"),
        (Policy, "max_concurrent_leases", -1, "max_concurrent_leases"),
        (Watchdog, "grace", -1, "watchdog.grace"),
        (Memory, "headroom_bytes", -1, "memory.headroom"),
        (Memory, "stale_after", 0, "memory.stale_after"),
        (Memory, "recovery_limit", -1, "memory.recovery_limit"),
        (Settings, "queue_limit", -1, "queue_limit"),
        (Settings, "waiting_per_client", -1, "limits.waiting_per_client"),
        (Settings, "leases_per_client", -1, "limits.leases_per_client"),
        (Settings, "cooldown", -1, "cooldown"),
        (Settings, "aging", -1, "aging"),
        (Settings, "placement", Placement.UNSPECIFIED, "placement"),
    ],
)
def test_what_could_never_work_is_refused_by_name(kind: type, field: str, value: object, key: str) -> None:
    with pytest.raises(PolicyError) as refusal:
        kind(**{field: value})
    assert refusal.value.key == key
    assert str(refusal.value).startswith(f"{key}: ")
    assert refusal.value.allowed in str(refusal.value)


def test_the_defaults_are_those_of_the_product() -> None:
    policy = Policy()
    assert (policy.priority, policy.max_wait, policy.max_hold, policy.disconnect_grace) == (50, 3.0, 8.0, 5.0)
    assert (policy.busy_policy, policy.sharing) == (BusyPolicy.WAIT, Sharing.EXCLUSIVE)
    assert policy.watchdog == Watchdog(warn=True, yield_=True, grace=5.0, revoke=False)
    assert (Settings().queue_limit, Settings().cooldown, Settings().aging) == (8, 15.0, 1.0)
    assert (Memory().stale_after, Memory().headroom_bytes) == (2.0, None)


def test_the_built_in_policy_run_waits_and_holds_without_limit() -> None:
    assert Settings().policy("RUN") is RUN_POLICY
    world = World(settings_=Settings(policies={"RUN": RUN_POLICY}))
    holder, waiting = world.acquire("RUN"), world.acquire("RUN")
    world.advance(10**5)
    assert (holder.held, waiting.waiting) == (True, True)


@pytest.mark.parametrize(
    ("limit", "wanted", "given"), [(0.0, 0.0, 0.0), (0.0, 9.0, 9.0), (5.0, 9.0, 5.0), (5.0, 3.0, 3.0), (5.0, 0.0, 5.0)]
)
def test_a_hold_within_its_limit(limit: float, wanted: float, given: float) -> None:
    assert Policy(max_hold_limit=limit).bounded_hold(wanted) == given


def test_a_task_type_without_a_policy_has_the_default_one() -> None:
    chosen = settings(policies={"ASR": Policy(priority=90)})
    assert chosen.policy("ASR").priority == 90
    assert chosen.policy("other") is chosen.default_policy
