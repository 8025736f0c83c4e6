# ruff: noqa: N818 -- these name an outcome: `acquire` returns them, `lease` raises them
"""What came of a request that got no GPU, by a busy policy that says not to wait.

Law: a decline is no failure of the arbiter. `acquire` returns it as a value, for `match`; `lease` raises
it, because the body of its with-block must not run without a lease.
"""

from datetime import timedelta

from gpuarbiter._errors import ArbiterError
from gpuarbiter._values import Blocker


class Declined(ArbiterError):
    """No GPU could be had.

    Attributes:
        reason: the contract's WaitReason, such as "GPU_BUSY".
        waited: how long the request waited.
        retry_after: when to try again; None when the arbiter does not say.
        detail: for people: what is in the way.
        blockers: the same for programs.
    """

    def __init__(
        self,
        detail: str = "",
        *,
        reason: str = "",
        waited: timedelta = timedelta(0),
        retry_after: timedelta | None = None,
        blockers: tuple[Blocker, ...] = (),
    ) -> None:
        super().__init__(detail or f"no GPU could be had: {reason}", reason=reason, retry_after=retry_after)
        self.detail = detail
        self.waited = waited
        self.blockers = blockers


class Skipped(Declined):
    """The work is to be left out."""


class FallbackToCpu(Declined):
    """The work is to be done on the CPU."""
