"""What an arbiter must never have: two leases for one request, or anything at all once its clients are gone."""

from collections import defaultdict
from collections.abc import Iterable

from e2e.harness.client import Client
from e2e.harness.waiting import eventually
from gpuarbiter.v1 import admin_pb2


def doubles(events: Iterable[admin_pb2.ListEventsResponse]) -> list[str]:
    """The requests that had two leases at a time, by the audit trail."""
    living: dict[tuple[str, str], set[str]] = defaultdict(set)
    found = []
    for event in events:
        request = event.holder.client_id, event.request_id
        if event.type == admin_pb2.EVENT_TYPE_GRANTED:
            living[request].add(event.lease_id)
            if len(living[request]) > 1:
                found.append(f"{request}: {sorted(living[request])}")
        elif event.type == admin_pb2.EVENT_TYPE_ENDED:
            living[request].discard(event.lease_id)
    return found


async def nothing_left(client: Client, *gpus: str) -> None:
    """Waits until nobody holds or waits for these GPUs, or any; fails when that never is so."""

    async def empty() -> bool:
        snapshot = await client.snapshot(gpus=gpus)
        if not gpus:
            return not snapshot.leases and not snapshot.queue_length
        return not any(gpu.lease_ids or gpu.queue_length for gpu in snapshot.gpus)

    await eventually(empty, f"nothing to be left on {gpus or 'any GPU'}")
