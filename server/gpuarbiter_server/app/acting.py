"""What the analysis has done about GPUs that are held and hardly used: the core asks, a webhook and people are told.

Law: a run is handed over and nobody waits for what follows. A holder is only ever asked; nothing here ends a lease. In
a dry run it only says what it would do.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuarbiter_server.analysis.actions import Finding, Rules, Watch, moment
from gpuarbiter_server.analysis.message import message
from gpuarbiter_server.analysis.model import Language, Status
from gpuarbiter_server.analysis.service import Run
from gpuarbiter_server.app.problems import StartError
from gpuarbiter_server.config import Config
from gpuarbiter_server.config.analysis_actions import NEVER, WHEN_WAITING, ControlSection, NotifySection
from gpuarbiter_server.config.sources import CONTROL_SECRET, NOTIFY_URLS
from gpuarbiter_server.core.effects import Asked, Asking, Effect
from gpuarbiter_server.core.errors import ArbiterError
from gpuarbiter_server.core.events import AskToYield, Call, Event
from gpuarbiter_server.runtime.clock import monotonic, wall
from gpuarbiter_server.runtime.threads import within
from gpuarbiter_server.store.dead_letters import DeadLetters

if TYPE_CHECKING:
    from gpuarbiter_server.analysis.notifier import Notifier
    from gpuarbiter_server.analysis.webhook import Undelivered, Webhook

log = logging.getLogger(__name__)

_MOST_RUNS_WAITING = 4
_MOST_SECRET_BYTES = 64 * 1024
# A disk that hangs does not keep the arbiter from ending.
_LAST_PATIENCE = 1.0

Ask = Callable[[Callable[[Call], Event]], Awaitable[Effect]]
Count = Callable[[str, str], None]


class Acting:
    """Acts on the runs of an analysis.

    ask: asks the core. count: is told of each action and its result. directory: where dead letters go; None: into the
    log alone.
    """

    def __init__(self, config: Config, ask: Ask, count: Count, directory: Path | None) -> None:
        self._config = config
        self._ask = ask
        self._count = count
        self._watch = Watch()
        self._runs: asyncio.Queue[Run] = asyncio.Queue(_MOST_RUNS_WAITING)
        self._webhook = _webhook(config.analysis.control, self._delivered, self._bury)
        self._letters = DeadLetters(directory) if self._webhook is not None and directory is not None else None
        self._notifier = _notifier(config.analysis.notify, self._notified)

    def configure(self, config: Config) -> None:
        """What can change while it runs. A dry run that is over has dealt with nothing."""
        if config.analysis.actions.dry_run != self._config.analysis.actions.dry_run:
            self._watch = Watch()
        self._config = config

    def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Acts from now on."""
        if self._letters is not None:
            self._letters.start()
            stack.push_async_callback(_close, self._letters)
        for work in (self._webhook, self._notifier):
            if work is not None:
                _in_background(work.run_forever(), stack)
        _in_background(self._act_forever(), stack)

    def on_run(self, run: Run) -> None:
        """A run went well."""
        try:
            self._runs.put_nowait(run)
        except asyncio.QueueFull:
            log.warning("the actions lag behind: nothing is done about one run of the analysis")

    async def _act_forever(self) -> None:
        while True:
            run = await self._runs.get()
            try:
                await self._act(run)
            except Exception:
                log.exception("could not act on a run of the analysis")

    async def _act(self, run: Run) -> None:
        actions = self._config.analysis.actions
        # On a thread: a large fleet takes a while.
        found = await asyncio.to_thread(self._watch.findings, run.results, _rules(self._config), monotonic())
        news = [each for each in found if not each.repeated]
        if actions.yield_ != NEVER:
            # Whoever was asked is not asked again; nobody may have waited then, and somebody may do so now.
            await self._ask_to_yield(news if actions.dry_run else found)
        if self._webhook is not None:
            for each in news:
                if not self._dry("webhook", f"tell the control webhook of {each.name}"):
                    self._webhook.offer(each.facts(run.at))
        what = f"notify of {'1 GPU' if len(news) == 1 else f'{len(news)} GPUs'}"
        if self._notifier is not None and news and not self._dry("notification", what):
            self._notifier.offer(message(news, Language(self._config.analysis.language)))

    def _dry(self, action: str, what: str) -> bool:
        """Whether it is a dry run, which has said what it would do."""
        if not self._config.analysis.actions.dry_run:
            return False
        log.info("dry run: would %s", what)
        self._count(action, "dry_run")
        return True

    # -- the holders --

    async def _ask_to_yield(self, found: Iterable[Finding]) -> None:
        leases = {each.holder.lease_id: each for each in found if each.holder.lease_id and each.whole}
        if_awaited = self._config.analysis.actions.yield_ == WHEN_WAITING
        for lease_id, each in leases.items():
            who = f"the holder of lease {lease_id} to yield: {each.name}"
            if self._dry("yield", f"ask {who}" + (", if a request waits" if if_awaited else "")):
                continue
            reason = each.result.judgement.reason
            try:
                answer = await self._ask(partial(AskToYield, lease_id=lease_id, detail=reason, if_awaited=if_awaited))
            except ArbiterError as error:
                log.warning("could not ask %s: %s", who, error)
                self._count("yield", "failed")
                continue
            if isinstance(answer, Asked) and answer.asking is Asking.ASKED:
                log.info("asked %s", who)
                self._count("yield", "ok")

    # -- the webhook --

    def _delivered(self, body: Mapping[str, Any]) -> None:
        log.info("the control webhook took %s: %s", body["delivery_id"], body["gpu_id"])
        self._count("webhook", "ok")

    def _bury(self, letter: "Undelivered") -> None:
        log.warning(
            "the control webhook did not take %s in %d attempts: %s: %s",
            letter.delivery_id,
            letter.attempts,
            letter.body["gpu_id"],
            letter.reason,
        )
        self._count("webhook", "failed")
        if self._letters is not None:
            self._letters.bury(
                {"at": moment(wall()), "reason": letter.reason, "attempts": letter.attempts, "body": letter.body}
            )

    # -- people --

    def _notified(self, ok: bool) -> None:
        self._count("notification", "ok" if ok else "failed")


def _rules(config: Config) -> Rules:
    section = config.analysis.actions
    return Rules(
        status=Status(section.below),
        confidence=section.min_confidence,
        after_runs=section.after_runs,
        # Half of it, so that a run on schedule counts, however late the one before was.
        apart=config.analysis.interval / 2,
        spare_active=section.spare_active,
        hold_down=section.hold_down,
    )


def _webhook(
    section: ControlSection, done: Callable[[Mapping[str, Any]], None], bury: Callable[["Undelivered"], None]
) -> "Webhook | None":
    """None: none is to be told. Imported here: httpx takes its time, and few have use for it."""
    if not section.enabled:
        return None
    from gpuarbiter_server.analysis.webhook import Receiver, Retries, Webhook

    secret = _secret(CONTROL_SECRET, section.secret_file)
    if not secret:
        log.warning("deliveries to the control webhook are not signed: set %s or secret_file", CONTROL_SECRET)
    return Webhook(
        Receiver(section.url, secret.encode(), section.timeout),
        retries=Retries(section.attempts),
        done=done,
        bury=bury,
        clock=monotonic,
        wall=wall,
    )


def _notifier(section: NotifySection, done: Callable[[bool], None]) -> "Notifier | None":
    """None: nobody is to be told. Imported here, as httpx is."""
    said = _secret(NOTIFY_URLS, section.urls_file)
    lines = (line.strip() for line in said.splitlines())
    addresses = [address for line in lines if not line.startswith("#") for address in line.split()]
    if not addresses:
        return None
    from gpuarbiter_server.analysis.notifier import Notifier

    return Notifier(addresses, timeout=section.timeout, on_thread=within, done=done)


def _secret(name: str, file: str) -> str:
    """What the environment or a file holds, without the space around it; empty: there is neither."""
    given = os.environ.get(name, "").strip()
    if given or not file:
        return given
    try:
        with Path(file).open(encoding="utf-8") as opened:
            text = opened.read(_MOST_SECRET_BYTES).strip()
    except (OSError, ValueError) as error:
        raise StartError(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from error
    if not text:
        raise StartError(f"{file} is empty")
    return text


async def _close(letters: DeadLetters) -> None:
    with contextlib.suppress(TimeoutError):
        await within(_LAST_PATIENCE, letters.close)


def _in_background(work: Coroutine[Any, Any, None], stack: contextlib.AsyncExitStack) -> None:
    """Runs beside everything else until that ends."""
    task = asyncio.ensure_future(work)

    async def end() -> None:
        task.cancel()
        await asyncio.wait([task])

    stack.push_async_callback(end)
