"""What the machine tells: readings, lost GPUs, processes that came and went."""

from gpuarbiter_server.core import cooldown
from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.ending import finish
from gpuarbiter_server.core.events import DescendantsSeen, DriverChanged, GpuFailed, ProcessExited, ReadingTaken
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import EndReason, EventType
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.timers import Clock
from gpuarbiter_server.core.withdrawal import take_back


def watch_readings(state: State, now: float) -> None:
    """From the start on: a monitored GPU without a reading counts as stale after a while."""
    for gpu in state.gpus.values():
        if gpu.spec.monitored:
            state.timers.set((Clock.STALE, gpu), now + state.settings.memory.stale_after)


def reading_taken(state: State, event: ReadingTaken, now: float) -> None:
    """A look at a GPU. One that was lost is back with it."""
    gpu = state.gpus[event.gpu]
    if gpu.lost is not None:
        gpu.lost = None
        state.emit(Recorded(EventType.GPU_RESTORED, gpus=(gpu.key,)))
        state.ready_again(state.gates.reopened())
    overused = _overused(gpu)
    for share in gpu.take(event.reading):
        if gpu.recovery_awaited:
            waited = now - share.ended_at
            detail = f"after {waited:.3f} s"
            state.emit(
                Recorded(
                    EventType.MEMORY_RECOVERED, lease_id=share.lease_id, gpus=(gpu.key,), waited=waited, detail=detail
                )
            )
    gpu.recovery_awaited = gpu.recovery_awaited and bool(gpu.recovering)
    for lease_id in _overused(gpu) - overused:
        lease = state.leases.live[lease_id]
        state.record(EventType.MEMORY_OVERUSE, lease, detail=f"declared {gpu.shares[lease_id].declared} bytes")
    cooldown.judge(state, gpu, event.reading, now)
    overdue_at = event.reading.time + state.settings.memory.stale_after
    state.timers.set((Clock.STALE, gpu), overdue_at)
    if overdue_at <= now:
        # It took so long that it tells of the past.
        gpu.blind()
    if gpu.recovering and state.timers.when((Clock.RECOVERY, gpu)) is None:
        recovery_overdue(state, gpu, now)
    state.dirty = state.changed = True


def readings_overdue(state: State, gpu: Gpu, now: float) -> None:
    """The last reading is older than it may be."""
    gpu.blind()
    cooldown.go_blind(state, gpu, now)
    state.dirty = state.changed = True


def recovery_overdue(state: State, gpu: Gpu, now: float) -> None:
    """Memory that is not back by now is not waited for by name any more."""
    again = gpu.give_up_recovery(now, state.settings.memory.recovery_limit)
    if again is not None:
        state.timers.set((Clock.RECOVERY, gpu), again)
    state.dirty = state.changed = True


def gpu_failed(state: State, event: GpuFailed, now: float) -> None:
    """A GPU is lost. Its leases go on; nothing new is granted there until it is back."""
    gpu = state.gpus[event.gpu]
    if gpu.lost is None:
        state.emit(Recorded(EventType.GPU_LOST, gpus=(gpu.key,), detail=event.detail))
    gpu.blind()
    gpu.lost = event.detail
    cooldown.go_blind(state, gpu, now)
    state.timers.cancel((Clock.STALE, gpu))
    state.dirty = state.changed = True


def driver_changed(state: State, event: DriverChanged, _now: float) -> None:
    """NVML answers, or not."""
    state.nvml_up = event.up
    state.changed = True


def descendants_seen(state: State, event: DescendantsSeen, _now: float) -> None:
    """The living descendants of a holder."""
    state.owners.learn(event.holder, event.descendants)
    cooldown.extend(state, event.holder, event.descendants)


def process_exited(state: State, event: ProcessExited, now: float) -> None:
    """A process is dead: what it held ends at once, what it waited for is taken out."""
    process = event.process
    for lease in [lease for lease in state.leases.live.values() if lease.ticket.process == process]:
        finish(state, lease, EndReason.HOLDER_DIED, now, detail=f"process {process.pid} is gone")
    for ticket in [ticket for ticket in state.queue.in_order() if ticket.process == process]:
        take_back(state, ticket, now, f"its process {process.pid} is gone")
    cooldown.bury(state, process, now)
    state.owners.forget(process)


def _overused(gpu: Gpu) -> set[str]:
    """The leases here whose holders were seen to use more than they declared."""
    return {share.lease_id for share in gpu.shares.values() if share.declared and (share.peak or 0) > share.declared}
