"""Who a caller is, as far as the transport proves it.

Today only local addresses are served, and whoever reaches them is "local" with every right; access is
the business of the directory permissions of the socket and of who can log in. Credentials will be
judged here and nowhere else.
"""

from gpuarbiter_server.api.status import Context
from gpuarbiter_server.core.events import Caller

_LOCAL = Caller()


def caller_of(_context: Context) -> Caller:
    """The caller of an RPC."""
    return _LOCAL
