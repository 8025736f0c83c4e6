"""How much memory PyTorch took under a lease, so that the arbiter can compare it with what was declared.

Law: PyTorch is never imported for it, and never started: a program without it, or that has not touched CUDA, is told
nothing and pays nothing. Whatever PyTorch raises here changes nothing for the program.
"""

import logging
import sys
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from gpuarbiter._current import current_lease

if TYPE_CHECKING:
    from gpuarbiter._aio.lease import AsyncLease
    from gpuarbiter._sync.lease import Lease

logger = logging.getLogger("gpuarbiter")

_lock = threading.Lock()
# Blocks that are entered. The figures are the process's own: who sets them back cuts off those of the others.
_entered = 0


class TorchMemory:
    """What `torch_memory` returns: a block that is measured."""

    def __init__(self, lease: "Lease | AsyncLease | None", devices: Iterable[Any] | None) -> None:
        self._lease = lease
        self._devices = None if devices is None else list(devices)
        self.peak_bytes = 0
        """The most that was reserved on one device, once the block is over; 0 when nothing was."""

    def __enter__(self) -> Self:
        global _entered  # noqa: PLW0603 -- PyTorch's figures are the process's, too
        if self._lease is None:
            self._lease = current_lease(None)
        with _lock:
            if not _entered:
                self._begin()
            _entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _entered  # noqa: PLW0603 -- as above
        with _lock:
            _entered -= 1
        try:
            self.peak_bytes = max((_cuda().max_memory_reserved(each) for each in self._each()), default=0)
        except Exception as failure:  # noqa: BLE001 -- whatever it is: CUDA that is broken says so where it is used
            logger.warning("PyTorch does not say how much memory it took: %s", failure)
        if self.peak_bytes and self._lease is not None:
            self._lease.note_peak(self.peak_bytes)

    def _begin(self) -> None:
        try:
            for each in self._each():
                _cuda().reset_peak_memory_stats(each)
        except Exception as failure:  # noqa: BLE001 -- as above
            logger.warning("PyTorch's figures could not be set back: %s", failure)

    def _each(self) -> list[Any]:
        cuda = _cuda()
        if cuda is None or not cuda.is_initialized():
            return []
        return list(range(cuda.device_count())) if self._devices is None else self._devices


def torch_memory(lease: "Lease | AsyncLease | None" = None, *, devices: Iterable[Any] | None = None) -> TorchMemory:
    """Measures a with-block by `torch.cuda.max_memory_reserved`, and has the lease's release tell of it.

        with arbiter.lease("ASR", memory="6GiB") as lease, torch_memory(lease):
            ...

    Does nothing where the program has not imported torch, or not used CUDA, by the end of the block.

    Args:
        lease: to be told; `current_lease()` otherwise. Where there is none, either, nobody is told.
        devices: as torch names them (0, "cuda:1", torch.device(…)); all that torch sees otherwise. What counts is the
            highest of them, as declarations are per GPU.
    """
    return TorchMemory(lease, devices)


def _cuda() -> Any:
    return getattr(sys.modules.get("torch"), "cuda", None)
