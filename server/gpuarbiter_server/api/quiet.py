"""What gRPC logs as an error and is none: a client was gone when the status of its call was to be sent.

Clients die and hang up at any moment, and the core learns of it by the end of the stream. A traceback
for each would bury the errors that are ours.
"""

import logging

_GRPC = logging.getLogger("grpc._cython.cygrpc")
# grpc.aio has no public name for it.
_GONE = "ExecuteBatchError"


def _is_news(record: logging.LogRecord) -> bool:
    raised = record.exc_info[0] if record.exc_info else None
    return raised is None or raised.__name__ != _GONE or _GRPC.isEnabledFor(logging.DEBUG)


def hush() -> None:
    """Keeps clients that are gone out of the log, unless it is to hold every detail."""
    _GRPC.addFilter(_is_news)
