"""A holder that uses the Python client; tells lines of JSON: granted, lost when the library says so, released."""

import json
import sys
import threading
from typing import Any

from gpuarbiter import Arbiter, Lease


def tell(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def main() -> None:
    target, ttl, form = sys.argv[1:]
    lost = threading.Event()

    def on_lost(lease: Lease) -> None:
        tell("lost", reason=lease.lost_reason)
        lost.set()

    with Arbiter(target, client_id="frozen") as arbiter:
        lease = arbiter.acquire("TASK", ttl=float(ttl), detached=form == "detached", on_lost=on_lost)
        assert isinstance(lease, Lease)
        tell("granted", lease_id=lease.lease_id, fencing_token=lease.fencing_token)
        lost.wait()
        tell("released", already_ended=lease.release().already_ended)


if __name__ == "__main__":
    main()
