"""A scraper in a process of its own, so that reading the page costs no client anything.

Run as `python -m bench.scraper HOST:PORT SECONDS`; says "ready" after its first scrape, goes on until it is ended.
"""

import contextlib
import http.client
import sys
import time
from collections.abc import Iterator

from bench.servers import Server, running


def scrape(connection: http.client.HTTPConnection) -> bytes:
    """One page."""
    connection.request("GET", "/metrics")
    return connection.getresponse().read()


@contextlib.contextmanager
def each_second(server: Server) -> Iterator[None]:
    """Scrapes a server each second, until the end of the block."""
    with running([sys.executable, "-m", "bench.scraper", server.http, "1.0"]):
        yield


def main() -> None:
    """Scrapes."""
    connection = http.client.HTTPConnection(sys.argv[1])
    scrape(connection)
    print("ready", flush=True)
    due = time.monotonic()
    while True:
        due += float(sys.argv[2])
        time.sleep(max(0.0, due - time.monotonic()))
        scrape(connection)


if __name__ == "__main__":
    main()
