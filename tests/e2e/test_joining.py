"""A second stream with the same request_id, from the same client, takes over: while waiting and while held."""

from collections.abc import Callable

from e2e.harness.client import Client, event_names
from support.process import Arbiterd

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]


async def test_a_join_takes_a_waiting_request_over(arbiter: Arbiterd, connect: Connect):
    client = connect(arbiter)
    blocking = client.acquire(client="in-the-way")
    held = await blocking.granted()
    first = client.acquire(request_id="waiting-7")
    await first.waits_for("GPU_BUSY")
    second = client.acquire(request_id="waiting-7")
    assert (await second.waits_for("GPU_BUSY")).position == 1
    refusal = await first.refusal()
    assert (refusal.code.name, refusal.reason) == ("ABORTED", "SUPERSEDED")
    assert (await client.snapshot()).queue_length == 1
    await client.release(held)
    lease = await second.granted()
    assert lease.request_id == "waiting-7"
    # It went on waiting where it was, and was granted once.
    mine = [event for event in await client.events() if event.request_id == "waiting-7"]
    assert event_names(mine) == ["QUEUED", "JOINED", "GRANTED"]
    await client.release(lease)
    await second.until("ended")
    await second.ends()


async def test_a_join_takes_a_lease_over(arbiter: Arbiterd, connect: Connect):
    client = connect(arbiter)
    first = client.acquire(request_id="held-7")
    before = await first.granted()
    second = client.acquire(request_id="held-7")
    after = await second.granted()
    assert (after.lease_id, after.fencing_token) == (before.lease_id, before.fencing_token)
    refusal = await first.refusal()
    assert (refusal.code.name, refusal.reason) == ("ABORTED", "SUPERSEDED")
    assert [lease.lease_id for lease in (await client.snapshot()).leases] == [before.lease_id]
    # The lease is now carried by the second stream alone: the first one's end has not touched it.
    await client.release(after)
    ended = await second.until("ended")
    assert ended.detail == ""
    assert event_names(await client.events(lease_id=before.lease_id)) == ["GRANTED", "JOINED", "ENDED"]


async def test_the_same_request_id_of_another_client_is_another_request(arbiterd: Start, connect: Connect):
    client = connect(arbiterd("gpus=sim:2x24GiB"))
    one = await client.acquire(client="one", request_id="of-two-7").granted()
    other = await client.acquire(client="other", request_id="of-two-7").granted()
    assert one.lease_id != other.lease_id
    assert one.gpus[0].key != other.gpus[0].key


async def test_a_lease_that_is_over_answers_a_late_join_with_its_end(arbiter: Arbiterd, connect: Connect):
    client = connect(arbiter)
    lease = await client.acquire(request_id="over-7").granted()
    await client.release(lease)
    late = client.acquire(request_id="over-7")
    ended = await late.next("ended")
    assert ended.reason == 1  # RELEASED
    await late.ends()


async def test_a_join_with_other_wishes_is_a_conflict(arbiter: Arbiterd, connect: Connect):
    client = connect(arbiter)
    held = client.acquire(request_id="conflict-7")
    await held.granted()
    refusal = await client.acquire(request_id="conflict-7", memory=1).refusal()
    assert (refusal.code.name, refusal.reason) == ("ALREADY_EXISTS", "REQUEST_ID_CONFLICT")
    assert refusal.metadata["fields"] == "gpu"
    assert len((await client.snapshot()).leases) == 1
