"""Behaves like a job on simulated GPUs: takes memory, keeps it for a time, gives it back.

For trying an arbiter without a GPU (`gpus: sim`). It looks at CUDA_VISIBLE_DEVICES as a real job does.

With --json, its lines on stderr are objects with "event", "message" and facts.
"""

import argparse
import queue
import signal
from datetime import timedelta

from gpuarbiter._units import format_bytes
from gpuarbiter.cli import kinds
from gpuarbiter.cli.output import Messages

OUT_OF_MEMORY = 1
# It does its work on the GPUs, and asks nobody.
ARBITER = False
MORE_EXIT_CODES = {"1": "the memory does not fit, or there is no simulated GPU", "128 + N": "signal N ended it"}
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "the GPUs, by UUID, unless --gpu says so",
    "GPU_ARBITER_SIM_DIR": "where the simulated GPUs are (default: below XDG_RUNTIME_DIR)",
}
EXAMPLES = (
    (
        "gpu-arbiter run --memory 6GiB -- gpu-arbiter sim-job --memory 5GiB --time 30s --utilization 0.8",
        "under a lease, with less than it declared",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--memory", type=kinds.size, default=2**30, metavar="SIZE", help="on each GPU, such as 6GiB (default: 1GiB)"
    )
    parser.add_argument(
        "--time", type=kinds.duration, default=timedelta(seconds=5), metavar="DURATION", help="how long (default: 5s)"
    )
    parser.add_argument(
        "--utilization", type=kinds.ratio, default=0.9, metavar="RATIO", help="of the GPU, 0 to 1 (default: 0.9)"
    )
    parser.add_argument(
        "--gpu", action="append", metavar="UUID", help="may be repeated (default: those of CUDA_VISIBLE_DEVICES)"
    )


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Runs the job; 128 + signal when it is ended by one."""
    from gpuarbiter.sim import SimulatedMemory, SimulatedOutOfMemory

    # A queue, because an Event that a handler sets in the thread that waits for it can lock up.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: signals.put(number))
    try:
        with SimulatedMemory(arguments.memory, arguments.gpu, utilization_ratio=arguments.utilization) as job:
            if not job.gpus:
                raise ValueError("no simulated GPU is there: does the arbiter run with gpus: sim, as this user?")
            where = ", ".join(gpu.uuid for gpu in job.gpus)
            messages.note("allocated", f"sim-job: {format_bytes(job.memory_bytes)} on {where}", gpus=where)
            return 128 + signals.get(timeout=arguments.time.total_seconds())
    except queue.Empty:
        return 0
    except SimulatedOutOfMemory as error:
        messages.error(f"sim-job: {error}", reason="OUT_OF_MEMORY")
        return OUT_OF_MEMORY
