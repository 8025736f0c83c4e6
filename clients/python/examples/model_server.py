"""Stands in for a model server where there is no GPU: loads for a while, with more memory than it keeps, then serves.

It takes the place of `vllm serve MODEL --port N` and `llama-server --model FILE --port N`: GET /health is 503 while the
model loads, and 200 from then on. What else they take is passed over.

MODEL_MEMORY: what it keeps on each GPU (4GiB). MODEL_LOAD_SECONDS: how long it loads (2).
"""

import argparse
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gpuarbiter.sim import SimulatedMemory

loaded = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Answers everything alike."""

    def do_GET(self) -> None:
        """503 while it loads, then 200."""
        self.send_response(200 if loaded.is_set() else 503)
        self.end_headers()
        self.wfile.write(b"ready\n" if loaded.is_set() else b"loading\n")


def main() -> None:
    """Listens from the beginning, as the servers do that it stands in for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    port: int = parser.parse_known_args()[0].port
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    memory = os.environ.get("MODEL_MEMORY", "4GiB")
    # Weights are read beside the place where they end up: the peak of loading is above what stays.
    with SimulatedMemory(memory), SimulatedMemory("1GiB"):
        time.sleep(float(os.environ.get("MODEL_LOAD_SECONDS", "2")))
    with SimulatedMemory(memory):
        loaded.set()
        threading.Event().wait()


if __name__ == "__main__":
    main()
