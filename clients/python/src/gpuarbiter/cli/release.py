"""Ends a lease, or takes a waiting request out of the queue. What has ended already is no error.

With --json: an object with reason, heldSeconds, alreadyEnded, memoryVerdict and memoryPeakBytes.
"""

import argparse
import json

from gpuarbiter._units import format_duration
from gpuarbiter.cli.output import Messages

EXAMPLES = (
    ("gpu-arbiter release --lease-id 6b0231bc00000-4396e49644367375", "a lease, as `snapshot` shows it"),
    ("gpu-arbiter release --request-id nightly-index", "a lease, or a request that waits, by its request_id"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--lease-id", metavar="ID", help="as `snapshot` shows it")
    which.add_argument("--request-id", metavar="ID", help="of a lease or of a waiting request")
    parser.add_argument(
        "--fencing-token",
        type=int,
        default=0,
        metavar="N",
        help="release nothing unless it is the lease's (default: any)",
    )


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Releases, and says how it ended."""
    from gpuarbiter.cli.client import connect

    with connect(arguments) as arbiter:
        ended = arbiter.release(
            lease_id=arguments.lease_id, request_id=arguments.request_id, fencing_token=arguments.fencing_token
        )
    facts = {
        "reason": ended.reason,
        "heldSeconds": ended.held.total_seconds(),
        "alreadyEnded": ended.already_ended,
        "memoryVerdict": ended.memory_verdict,
        "memoryPeakBytes": ended.memory_peak_bytes,
    }
    when = "had ended before" if ended.already_ended else "ended"
    text = f"{when}: {ended.reason or 'reason not known any more'}, held for {format_duration(ended.held)}"
    messages.result(json.dumps(facts) if arguments.json else text)
    return 0
