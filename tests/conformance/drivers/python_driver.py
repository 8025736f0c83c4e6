"""The driver of the Python client, asynchronous or synchronous: `python python_driver.py asynchronous|synchronous`.

Law: only the public API of the package is used, as a program would use it. The commands are written once for both
forms; where those differ is python_forms'. The protocol is docs/conformance.md's.
"""

import asyncio
import json
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from python_facts import (
    Facts,
    bad_input_facts,
    decline_facts,
    lease_facts,
    outcome_facts,
    queued_facts,
    refusal_facts,
    released_facts,
    seconds_of,
)
from python_forms import Asynchronous, Form, GivenUp, Synchronous

from gpuarbiter import ArbiterError, Declined, Queued, WorkReport, YieldRequest

# Commands that one client can have under way at once, in the synchronous form.
_THREADS = 64


class WorkFailed(Exception):  # noqa: N818 -- what the work of a scenario raises when it is told to
    """The work under a lease went wrong."""


class Work:
    """The body of a block or run: goes on until it is told to finish."""

    def __init__(self) -> None:
        self.finish: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.lease: Any = None
        self.device = ""

    async def go_on(self) -> None:
        """Returns, or raises, as it is told."""
        if await asyncio.shield(self.finish):
            raise WorkFailed


class Driver:
    """The commands; each method is one of the protocol's."""

    def __init__(self, form: Form, tell: Callable[[Facts], None]) -> None:
        self._form = form
        self._tell = tell
        self._actors: dict[str, Any] = {}
        self._leases: dict[str, Any] = {}
        self._work: dict[str, Work] = {}
        self._asking: dict[str, asyncio.Task[Any]] = {}

    async def obey(self, command: Mapping[str, Any]) -> None:
        """Carries out a command, and answers it."""
        fields = dict(command)
        number, op = fields.pop("id"), fields.pop("op")
        task = asyncio.current_task()
        if task is not None and fields.get("interruptible"):
            self._asking[fields["lease"]] = task
        try:
            answer = await getattr(self, op)(**fields) or {"kind": "ok"}
        except GivenUp:
            answer = {"kind": "given_up"}
        except Declined as decline:
            answer = decline_facts(decline)
        except ArbiterError as error:
            answer = refusal_facts(error)
        except (ValueError, TypeError) as error:
            answer = bad_input_facts(error)
        except Exception:  # noqa: BLE001 -- the runner fails the scenario
            answer = {"kind": "failed", "message": traceback.format_exc()}
        self._tell({"id": number, **answer})

    async def connect(self, actor: str, **options: Any) -> None:
        address = options.pop("address")
        self._actors[actor] = self._form.arbiter(address, **options)

    async def close(self, actor: str) -> None:
        await self._form.call(self._actors.pop(actor).close)

    async def close_all(self) -> None:
        """The program ends."""
        for work in self._work.values():
            if not work.finish.done():
                work.finish.set_result(False)
        for actor in tuple(self._actors):
            await self.close(actor)

    async def acquire(
        self, actor: str, lease: str, task_type: str, options: Facts, *, interruptible: bool = False
    ) -> Facts:
        call = self._form.interruptible if interruptible else self._form.call
        outcome = await call(self._actors[actor].acquire, task_type, **self._options(lease, options))
        if not isinstance(outcome, Declined):
            self._leases[lease] = outcome
        return outcome_facts(outcome)

    async def block(self, actor: str, lease: str, task_type: str, options: Facts) -> Facts:
        work = self._work[lease] = Work()
        manager = self._actors[actor].lease(task_type, **self._options(lease, options))

        async def body(held: Any) -> None:
            self._began(lease, work, "GPU", held)
            await work.go_on()

        return await self._done(work, self._form.block(manager, body))

    async def run(self, actor: str, lease: str, task_type: str, options: Facts, *, cpu: bool) -> Facts:
        work = self._work[lease] = Work()

        async def on_gpu(held: Any) -> None:
            self._began(lease, work, "GPU", held)
            await work.go_on()

        async def on_cpu() -> None:
            self._began(lease, work, "CPU", None)
            await work.go_on()

        more = {"cpu": self._form.function(on_cpu)} if cpu else {}
        wishes = self._options(lease, options) | more
        running = self._form.call(self._actors[actor].run, task_type, self._form.function(on_gpu), **wishes)
        return await self._done(work, running)

    def _began(self, name: str, work: Work, device: str, held: Any) -> None:
        work.device = device
        if held is not None:
            work.lease = self._leases[name] = held
        facts = {} if held is None else lease_facts(held)
        self._tell({"event": "working", "lease": name, "device": device, **facts})

    async def _done(self, work: Work, running: Awaitable[Any]) -> Facts:
        raised = False
        try:
            await running
        except WorkFailed:
            raised = True
        ended = None if work.lease is None else await self._form.call(work.lease.release)
        return {
            "kind": "done",
            "device": work.device,
            "raised": raised,
            "released": None if ended is None else ended.reason,
        }

    def _options(self, name: str, options: Facts) -> Facts:
        made = dict(options)
        if "sequence" in made:
            made["sequence"] = (made["sequence"]["group"], made["sequence"]["index"])

        def on_queued(queued: Queued) -> None:
            self._tell({"event": "queued", "lease": name, **queued_facts(queued)})

        def on_yield(_lease: Any, request: YieldRequest) -> None:
            grace = seconds_of(request.grace)
            self._tell({"event": "yielding", "lease": name, "reason": request.reason, "grace_seconds": grace})

        def on_lost(lease: Any) -> None:
            self._tell({"event": "lost", "lease": name, "reason": lease.lost_reason})

        return made | {"on_queued": on_queued, "on_yield": on_yield, "on_lost": on_lost}

    async def finish(self, lease: str, *, raising: bool) -> None:
        self._work[lease].finish.set_result(raising)

    async def give_up(self, lease: str) -> None:
        self._form.interrupt(self._asking[lease])

    async def facts(self, lease: str) -> Facts:
        return {"kind": "facts", **lease_facts(self._leases[lease])}

    async def check(self, lease: str) -> None:
        self._leases[lease].check()

    async def release(self, lease: str) -> Facts:
        return released_facts(await self._form.call(self._leases[lease].release))

    async def release_by_id(self, actor: str, fencing_token: str = "0", **target: str) -> Facts:
        release = self._actors[actor].release
        return released_facts(await self._form.call(release, fencing_token=int(fencing_token), **target))

    async def renew(self, lease: str, extend_hold: Any = None) -> None:
        await self._form.call(self._leases[lease].renew, extend_hold)

    async def resize(self, lease: str, memory: Any = None, *, shared: bool | None = None) -> None:
        await self._form.call(self._leases[lease].resize, memory, shared)

    async def check_fence(self, actor: str, gpu: str, fencing_token: str) -> Facts:
        fence = await self._form.call(self._actors[actor].check_fence, gpu, int(fencing_token))
        return {"kind": "fence", "current": fence.current, "newest_token": str(fence.newest_token)}

    async def report_work(self, actor: str, task_type: str, report: Any) -> None:
        await self._form.call(self._actors[actor].report_work, task_type, WorkReport(**report))

    async def snapshot(self, actor: str) -> Facts:
        state = await self._form.call(self._actors[actor].snapshot)
        return {
            "kind": "snapshot",
            "holding": [lease.request_id for lease in state.leases],
            "waiting": [ticket.request_id for ticket in state.queue],
            "cordoned": [gpu.key for gpu in state.gpus if gpu.cordoned],
        }


async def serve(form: Form) -> None:
    """Obeys commands until stdin ends; then gives back what is held."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_THREADS))
    lines: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    writing = threading.Lock()

    def tell(message: Facts) -> None:
        with writing:
            sys.stdout.write(f"{json.dumps(message)}\n")
            sys.stdout.flush()

    threading.Thread(target=read, daemon=True).start()
    driver = Driver(form, tell)
    obeying: set[asyncio.Task[None]] = set()
    while line := await lines.get():
        task = loop.create_task(driver.obey(json.loads(line)))
        obeying.add(task)
        task.add_done_callback(obeying.discard)
    await driver.close_all()


def main() -> None:
    """Runs the form that is named."""
    if sys.argv[1] == "asynchronous":
        asyncio.run(serve(Asynchronous()))
        return
    form = Synchronous()

    def aside() -> None:
        try:
            asyncio.run(serve(form))
        finally:
            form.end()

    serving = threading.Thread(target=aside)
    serving.start()
    form.serve_main_thread()
    serving.join()


if __name__ == "__main__":
    main()
