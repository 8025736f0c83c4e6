"""What a command is told of the lease it runs under, and what a `run` inside it reads there.

Law: a run inside a lease never waits for itself, nor, with two such runs, one for the other. It joins that lease
where it asks for no more than the lease has, and is refused otherwise; a lease of its own beside the outer one it gets
only where it says so, and never one that only the end of the outer one could give it. The arbiter says what the lease
has; the environment only names it, and may be older than the lease's end.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuarbiter._address import ADDRESS_VARIABLE
from gpuarbiter._units import format_bytes

if TYPE_CHECKING:
    from gpuarbiter import Arbiter
    from gpuarbiter.v1 import lease_pb2, snapshot_pb2

LEASE_VARIABLE = "GPU_ARBITER_LEASE_ID"


class AsksTooMuchError(ValueError):
    """A run inside a lease asks for more than that lease has."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The GPUs of a lease that a command may use; `devices` are for CUDA_VISIBLE_DEVICES, in the order of `keys`."""

    lease: "lease_pb2.Lease"
    keys: tuple[str, ...]
    devices: tuple[str, ...]

    def environment(self, address: str) -> dict[str, str]:
        """The environment of the command."""
        memory = _declared(self.lease)
        told = {
            "CUDA_VISIBLE_DEVICES": ",".join(self.devices),
            LEASE_VARIABLE: self.lease.lease_id,
            "GPU_ARBITER_FENCING_TOKEN": str(self.lease.fencing_token),
            "GPU_ARBITER_TASK": self.lease.task_type,
            "GPU_ARBITER_GPU_KEYS": ",".join(self.keys),
            "GPU_ARBITER_MEMORY_BYTES": str(memory) if memory else "",
            ADDRESS_VARIABLE: address,
        }
        if all(device.isdigit() for device in self.devices):  # indices are in PCI bus order, which is not CUDA's own
            told["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        return os.environ | told


def whole(lease: "lease_pb2.Lease") -> Granted:
    """All GPUs of a lease."""
    return Granted(lease, tuple(gpu.key for gpu in lease.gpus), tuple(lease.visible_devices.split(",")))


def outer(
    arbiter: "Arbiter", arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ
) -> Granted | None:
    """The part of the lease around this run that it joins; None when it is to ask for one of its own.

    Raises:
        AsksTooMuchError: that lease has less than is asked for, or would never let go of it.
        ArbiterError: the arbiter cannot be asked.
    """
    lease_id = environment.get(LEASE_VARIABLE)
    if not lease_id:
        return None
    snapshot = arbiter.snapshot(max_tickets=1)
    lease = next((each for each in snapshot.leases if each.lease_id == lease_id), None)
    if lease is None:  # it ended, or is another arbiter's
        return None
    there = whole(lease)
    memory = _declared(lease)
    has = f"{lease_id}, with {','.join(there.keys)}" + (f" and {format_bytes(memory)} on each" if memory else "")
    if arguments.new_lease:
        if len(_elsewhere(snapshot, lease, arguments)) < arguments.count:
            raise AsksTooMuchError(f"it could get a lease of its own only once the one around it ({has}) has ended")
        return None
    chosen = [
        (key, device)
        for gpu, key, device in zip(lease.gpus, there.keys, there.devices, strict=False)
        if _named(gpu, arguments.gpu)
    ][: arguments.count]
    if len(chosen) < arguments.count or (arguments.memory or 0) > _available(lease):
        raise AsksTooMuchError(
            f"it asks for more than the lease around it has ({has}): ask for more in the outer run, "
            "or for a lease beside that one with --new-lease"
        )
    return Granted(lease, tuple(key for key, _ in chosen), tuple(device for _, device in chosen))


def _named(gpu: "lease_pb2.GpuGrant | snapshot_pb2.GpuSnapshot", wanted: Sequence[str] | None) -> bool:
    return not wanted or bool({gpu.key, gpu.uuid, str(gpu.index)} & set(wanted))


def _declared(lease: "lease_pb2.Lease") -> int:
    return min((gpu.declared_bytes for gpu in lease.gpus), default=0)


def _available(lease: "lease_pb2.Lease") -> float:
    """How much memory on each GPU the lease covers. An exclusive one without a declaration covers all of it."""
    from gpuarbiter.v1 import lease_pb2

    declared = _declared(lease)
    if not declared and lease.sharing == lease_pb2.SHARING_EXCLUSIVE:
        return float("inf")
    return max(declared, min((gpu.committed_bytes for gpu in lease.gpus), default=0))


def _elsewhere(
    snapshot: "snapshot_pb2.ArbiterSnapshot", lease: "lease_pb2.Lease", arguments: argparse.Namespace
) -> list[str]:
    """The GPUs that a lease of its own could be granted on while the lease around it lives."""
    from gpuarbiter.v1 import lease_pb2

    beside = lease.sharing == lease_pb2.SHARING_SHARED and arguments.shared
    taken = set() if beside else {gpu.key for gpu in lease.gpus}
    return [gpu.key for gpu in snapshot.gpus if gpu.key not in taken and _named(gpu, arguments.gpu)]
