"""The cooldown of a GPU: an exclusive lease ended without its holder's word, and who knows what still runs.

It ends with proof that the lease's processes are gone, or with time. Proof is a reading taken after the
end that shows no process which was not there before the lease, and no child of a holder that died; where
readings list no processes, or there are none, it is the kernel's word that the holder and all its
descendants are dead. Until a first such reading is in (milliseconds: it is asked for at once) the GPU is
held back silently; only if it shows someone, or none comes, is the cooldown announced.
"""

from collections.abc import Iterable

from gpuarbiter_server.core.effects import Recorded, Refresh
from gpuarbiter_server.core.leases import Lease
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import EndReason, EventType, GpuReading, ProcessId, Sharing
from gpuarbiter_server.core.share import Cooldown, Share
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.timers import Clock

# Ends that are the holder's own word.
_WITH_WORD = (EndReason.RELEASED, EndReason.YIELDED)


def start(state: State, lease: Lease, gpu: Gpu, share: Share, reason: EndReason, now: float) -> None:
    """Begins a cooldown on a GPU whose lease has just ended, where one is due."""
    length = state.settings.cooldown
    if not length or reason in _WITH_WORD or lease.sharing is not Sharing.EXCLUSIVE:
        return
    end(state, gpu, now, "another lease has ended")
    cooldown = Cooldown(lease.lease_id, now, now + length, share.baseline)
    process = lease.ticket.process
    if process is not None:
        cooldown.holder_known = True
        cooldown.family = state.owners.family(process)
        if reason is EndReason.HOLDER_DIED:
            cooldown.family.discard(process)
            # Children that outlive it have nobody to answer for them, however long they have been here.
            cooldown.baseline -= cooldown.family
    cooldown.by_reading = gpu.sees_processes
    if not cooldown.by_reading and cooldown.proved:
        return
    gpu.cooldown = cooldown
    state.touch_gpu(gpu)
    for member in cooldown.family:
        state.watch(member)
    state.timers.set((Clock.COOLDOWN, gpu), now + length)
    if cooldown.by_reading:
        state.emit(Refresh(frozenset({gpu.key})))
    else:
        _announce(state, gpu, cooldown)


def judge(state: State, gpu: Gpu, reading: GpuReading, now: float) -> None:
    """Ends or announces a cooldown by a reading."""
    cooldown = gpu.cooldown
    if cooldown is None or reading.time < cooldown.since:
        return
    if reading.processes is None:
        go_blind(state, gpu, now)
    elif any(seen.process not in cooldown.baseline for seen in reading.processes):
        _announce(state, gpu, cooldown)
    else:
        end(state, gpu, now, "its processes are gone from the GPU")


def go_blind(state: State, gpu: Gpu, now: float) -> None:
    """No reading shows who is on the GPU: only the kernel's word, or time, ends a cooldown."""
    cooldown = gpu.cooldown
    if cooldown is None:
        return
    cooldown.by_reading = False
    if cooldown.proved:
        end(state, gpu, now, "its processes are dead")
    else:
        _announce(state, gpu, cooldown)


def extend(state: State, parent: ProcessId, descendants: Iterable[ProcessId]) -> None:
    """These descend from a process: cooldowns that wait for that one's end wait for theirs too."""
    for gpu in state.gpus.values():
        cooldown = gpu.cooldown
        if cooldown is not None and parent in cooldown.family:
            for process in sorted(set(descendants) - cooldown.family):
                state.touch_gpu(gpu)
                cooldown.family.add(process)
                state.watch(process)


def bury(state: State, process: ProcessId, now: float) -> None:
    """A process is dead: cooldowns that waited for it may end, or want to look again."""
    for gpu in state.gpus.values():
        cooldown = gpu.cooldown
        if cooldown is None or process not in cooldown.family:
            continue
        cooldown.family.discard(process)
        state.unwatch(process)
        state.touch_gpu(gpu)
        if cooldown.by_reading:
            state.emit(Refresh(frozenset({gpu.key})))
        elif cooldown.proved:
            end(state, gpu, now, "its processes are dead")


def expire(state: State, gpu: Gpu, now: float) -> None:
    """Time is up."""
    end(state, gpu, now, "the time is over")


def end(state: State, gpu: Gpu, now: float, why: str) -> None:
    """Frees the GPU."""
    cooldown = gpu.cooldown
    if cooldown is None:
        return
    gpu.cooldown = None
    state.touch_gpu(gpu)
    state.timers.cancel((Clock.COOLDOWN, gpu))
    for member in cooldown.family:
        state.unwatch(member)
    if cooldown.announced:
        detail = f"after {now - cooldown.since:.3f} s: {why}"
        state.emit(Recorded(EventType.COOLDOWN_ENDED, lease_id=cooldown.lease_id, gpus=(gpu.key,), detail=detail))
    state.dirty = state.changed = True


def _announce(state: State, gpu: Gpu, cooldown: Cooldown) -> None:
    if cooldown.announced:
        return
    cooldown.announced = True
    detail = f"for at most {state.settings.cooldown:g} s"
    state.emit(Recorded(EventType.COOLDOWN_STARTED, lease_id=cooldown.lease_id, gpus=(gpu.key,), detail=detail))
    state.changed = True
