"""Whether a request fits on a GPU now, and which GPUs it gets where there is a choice. Pure functions.

Order is not considered here: the scheduler leaves out what is held back for those ahead.
"""

from collections.abc import Callable, Sequence

from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import Placement, WaitReason
from gpuarbiter_server.core.ticket import Ticket


def infeasible(ticket: Ticket) -> ArbiterError | None:
    """The refusal of a request that would not fit on as many empty GPUs as it wants; None for one that would."""
    wanted, count = ticket.terms.memory_bytes, ticket.request.gpu.count
    # Of its candidates, the smallest that it would have to use.
    capacity = sorted((gpu.capacity for gpu in ticket.gpus), reverse=True)[count - 1]
    if wanted <= capacity:
        return None
    empty = "an empty GPU" if count == 1 else f"each of {count} empty GPUs"
    message = f"{wanted} bytes would not fit on {empty}: at most {capacity} bytes can be declared"
    facts = {"memory_bytes": str(wanted), "capacity_bytes": str(capacity)}
    return ArbiterError(ErrorReason.INFEASIBLE, message, metadata=facts)


def obstacle(gpu: Gpu, ticket: Ticket, *, refuse_when_stale: bool) -> WaitReason | None:
    """What keeps a request from this GPU now; None when it fits."""
    if gpu.lost is not None:
        return WaitReason.GPU_UNHEALTHY
    if gpu.cordon is not None:
        return WaitReason.DRAINING
    if gpu.shares and (ticket.terms.exclusive or gpu.exclusive):
        return WaitReason.RECOVERY if gpu.waits_for_holders else WaitReason.GPU_BUSY
    if gpu.cooldown is not None:
        return WaitReason.COOLDOWN
    if gpu.awaiting_first or (refuse_when_stale and gpu.stale):
        return WaitReason.NO_READING
    return memory_obstacle(gpu, ticket)


def memory_obstacle(gpu: Gpu, ticket: Ticket) -> WaitReason | None:
    """Whether the declared memory fits beside what is committed and observed.

    What the requester's own processes hold already is part of its declaration; where they hold more
    than they declared, that counts.
    """
    declared, stand_in = ticket.terms.memory_bytes, ticket.request.gpu.resident_bytes
    if not declared:
        return None
    needed = gpu.need_of(ticket.process, stand_in, declared)
    room = gpu.room(gpu.resident_of(ticket.process, stand_in))
    if needed <= room:
        return None
    if needed <= room + gpu.recoverable:
        return WaitReason.MEMORY_RECOVERY
    return WaitReason.RECOVERY if needed <= room + gpu.recoverable + gpu.unclaimed else WaitReason.MEMORY


def choose(gpus: Sequence[Gpu], ticket: Ticket, turn: int, *, refuse_when_stale: bool) -> list[Gpu] | None:
    """As many of these GPUs as the request wants, by its placement; None when too few fit.

    turn: the number of the GPU whose turn it is under round-robin.
    """
    count = ticket.request.gpu.count
    fitting = [gpu for gpu in gpus if obstacle(gpu, ticket, refuse_when_stale=refuse_when_stale) is None]
    if len(fitting) < count:
        return None
    if len(fitting) > 1:
        fitting.sort(key=preference(ticket.terms.placement, turn))
    return fitting[:count]


def preference(placement: Placement, turn: int) -> Callable[[Gpu], tuple[int, ...]]:
    """A sort key: the GPU to take first has the smallest."""
    if placement is Placement.BEST_FIT:
        return lambda gpu: (gpu.admissible, gpu.number)
    if placement is Placement.ROUND_ROBIN:
        return lambda gpu: (gpu.number < turn, gpu.number)
    return lambda gpu: (len(gpu.shares), -gpu.admissible, gpu.number)
