"""Programs that end in the midst of it: python exits.py NAME, with the arbiter of GPU_ARBITER_ADDRESS.

Each says "held" when it has what it wants, and then ends in its own way, without giving back what it holds.
"""

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from gpuarbiter import Arbiter, AsyncArbiter, Lease, current_lease, default_arbiter, gpu_task

SHARED: dict[str, Any] = {"memory": "512MiB", "shared": True, "max_hold": 0, "max_wait": "20s"}
kept: list[Any] = []
# What it asks for is named after it.
task = f"EXIT-{sys.argv[-1]}" if __name__ == "__main__" else ""


def held() -> None:
    print("held", flush=True)


def acquired(**options: Any) -> Lease:
    lease = default_arbiter().acquire(task, **SHARED, **options)
    assert isinstance(lease, Lease)
    held()
    return lease


# -- with threads ----------------------------------------------------------------------------------


def ends() -> None:
    kept.append(acquired(ttl="5s"))


def own_arbiter() -> None:
    arbiter = Arbiter()
    kept.append((arbiter, arbiter.acquire(task, **SHARED)))
    held()


def raises() -> None:
    kept.append(acquired())
    raise ZeroDivisionError("as it happens")


def exits() -> None:
    kept.append(acquired())
    sys.exit(3)


def exits_in_the_block() -> None:
    with acquired():
        sys.exit(4)


def daemon_thread_holds() -> None:
    def work() -> None:
        with acquired():
            ready.set()
            time.sleep(600)

    ready = threading.Event()
    threading.Thread(target=work, daemon=True).start()
    ready.wait()


def daemon_thread_waits() -> None:
    kept.append(acquired())
    ready = threading.Event()
    more: dict[str, Any] = {**SHARED, "shared": False, "on_queued": lambda _queued: ready.set()}
    threading.Thread(target=default_arbiter().acquire, args=(task,), kwargs=more, daemon=True).start()
    ready.wait()


def daemon_thread_works() -> None:
    def work() -> None:
        while True:
            with default_arbiter().lease(task, **SHARED):
                ready.set()

    ready = threading.Event()
    threading.Thread(target=work, daemon=True).start()
    ready.wait()
    held()


def thread_outlives_main() -> None:
    def work() -> None:
        main_thread.join()
        with acquired():
            time.sleep(0.05)
        kept.append(acquired())

    main_thread = threading.main_thread()
    threading.Thread(target=work).start()


def exits_in_a_thread() -> None:
    def work() -> None:
        with acquired():
            sys.exit(5)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def exits_while_queued() -> None:
    kept.append(acquired())
    more: dict[str, Any] = {**SHARED, "shared": False, "on_queued": lambda _queued: sys.exit(6)}
    default_arbiter().acquire(task, **more)


def exits_when_asked_to_yield() -> None:
    asked = threading.Event()

    def leave(_lease: Lease, _request: object) -> None:
        asked.set()
        sys.exit(7)

    lease = default_arbiter().acquire(task, **{**SHARED, "max_hold": "100ms"}, on_yield=leave)
    kept.append(lease)
    held()
    asked.wait()


def generator_holds() -> None:
    def work() -> Iterator[int]:
        with acquired():
            yield 1

    kept.append(work())
    next(kept[0])


def in_a_task() -> None:
    @gpu_task(task, **SHARED)
    def work() -> None:
        current_lease()
        held()
        sys.exit(8)

    work()


def leaves_its_own_arbiter() -> None:
    with Arbiter().lease(task, **SHARED):
        held()


def leaves_and_is_gone() -> None:
    with acquired():
        pass
    os._exit(0)


def interrupted() -> None:
    with acquired():
        time.sleep(600)


def terminated() -> None:
    kept.append(acquired())
    time.sleep(600)


# -- with asyncio ----------------------------------------------------------------------------------


async def _acquired(**options: Any) -> Any:
    arbiter = AsyncArbiter()
    lease = await arbiter.acquire(task, **{**SHARED, **options})
    kept.append((arbiter, lease))
    held()
    return lease


def async_ends() -> None:
    asyncio.run(_acquired(ttl="5s"))


def async_raises() -> None:
    async def work() -> None:
        await _acquired()
        raise ZeroDivisionError("as it happens")

    asyncio.run(work())


def async_exits_when_asked_to_yield() -> None:
    async def leave(_lease: object, _request: object) -> None:
        sys.exit(9)

    async def work() -> None:
        await _acquired(max_hold="100ms", on_yield=leave)
        await asyncio.sleep(600)

    asyncio.run(work())


def async_cancelled_in_the_block() -> None:
    async def hold() -> None:
        async with await _acquired():
            taken.set()
            await asyncio.sleep(600)

    taken = asyncio.Event()

    async def work() -> None:
        kept.append(asyncio.create_task(hold()))
        await taken.wait()

    asyncio.run(work())


def async_interrupted() -> None:
    async def work() -> None:
        async with await _acquired():
            await asyncio.sleep(600)

    asyncio.run(work())


def async_leaves() -> None:
    async def work() -> None:
        async with await _acquired():
            pass

    asyncio.run(work())


def async_leaves_and_is_gone() -> None:
    async def work() -> None:
        async with await _acquired():
            pass
        os._exit(0)

    asyncio.run(work())


def async_loop_is_dropped() -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(_acquired())


PROGRAMS: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        ends,
        own_arbiter,
        raises,
        exits,
        exits_in_the_block,
        daemon_thread_holds,
        daemon_thread_waits,
        daemon_thread_works,
        thread_outlives_main,
        exits_in_a_thread,
        exits_while_queued,
        exits_when_asked_to_yield,
        generator_holds,
        in_a_task,
        leaves_its_own_arbiter,
        leaves_and_is_gone,
        interrupted,
        terminated,
        async_ends,
        async_raises,
        async_exits_when_asked_to_yield,
        async_cancelled_in_the_block,
        async_interrupted,
        async_leaves,
        async_leaves_and_is_gone,
        async_loop_is_dropped,
    )
}

if __name__ == "__main__":
    faulthandler.dump_traceback_later(14)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    PROGRAMS[sys.argv[1]]()
