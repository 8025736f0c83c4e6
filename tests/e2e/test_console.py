"""The console in a real browser, on a real arbiter with eight GPUs, all of them held, and two hundred who wait."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from e2e.harness.browser import FOREIGN_NAME, Page, Visit, chromium, expect, visiting
from e2e.harness.client import Acquiring, Client
from gpuarbiter.v1 import lease_pb2
from support.messages import holder
from support.process import Arbiterd, environment, running

pytestmark = pytest.mark.tool("chromium")

TOKEN = "a-token-of-this-test"
GPUS, WAITING = 8, 200
VIEWS = ("Overview", "Leases", "Queue", "Timeline", "Analysis", "Events")
SETTINGS = (
    f"gpus=sim:{GPUS}x24GiB",
    "queue_limit=1000",
    "limits.waiting_per_client=0",
    "shutdown_grace=0s",
    "defaults.max_hold=0s",
    "cooldown=0s",
    "node=test-node",
    "analysis={interval: 1h, time_window: 2s, step: 1s}",
)
# Tags, entities, a name from right to left, and one as long as it may be; what is not printable the arbiter refuses.
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    '"><script>alert(2)</script>&lt;b&gt;',
    "\u05d0\u05d1\u05d2 <svg/onload=alert(3)> {{7*7}} ${7*7}",
    "W" * 128,
)

Locate = Callable[[str], str]


class Stage:
    """The arbiter, who holds its GPUs, and a browser page that looks on."""

    def __init__(self, arbiter: Arbiterd, client: Client, visit: Visit) -> None:
        self.arbiter = arbiter
        self.client = client
        self.visit = visit
        self.page: Page = visit.page
        self.streams: list[Acquiring] = []
        self.leases: list[lease_pb2.Lease] = []

    async def hold(self, name: str | lease_pb2.Holder, **wishes: object) -> lease_pb2.Lease:
        """Somebody holds a lease."""
        stream = self.client.acquire("HOLD", name, **wishes)
        self.streams.append(stream)
        self.leases.append(await stream.granted())
        return self.leases[-1]

    async def crowd(self, waiting: int = WAITING) -> None:
        """All GPUs are held, and so many wait."""
        for number in range(GPUS):
            await self.hold(f"holder-{number}", candidates=[f"gpu:{number}"], memory=6 * 2**30)
        for number in range(waiting):
            wishes = {"candidates": [f"gpu:{number % GPUS}"]} if number % 2 else {}
            self.streams.append(
                self.client.acquire("WAIT", f"waiter-{number}", memory=4 * 2**30, max_wait=3600, **wishes)
            )
        for stream in self.streams[GPUS:]:
            await stream.next("queued")

    async def sign_in(self, token: str = TOKEN) -> None:
        """Types the token."""
        await self.page.get_by_label("Token", exact=True).fill(token)
        await self.page.get_by_role("dialog").get_by_role("button", name="Sign in").click()


@asynccontextmanager
async def staged(folder: Path, path: str, **options: object) -> AsyncIterator[Stage]:
    env = environment(folder, GPU_ARBITER_ADMIN_TOKEN=TOKEN)
    with running(folder, *SETTINGS, env=env) as arbiter:
        client = Client(arbiter.grpc)
        try:
            async with chromium(path) as browser, visiting(browser, arbiter.http, **options) as visit:
                yield Stage(arbiter, client, visit)
        finally:
            await client.close()


async def test_every_view_shows_what_is_there_and_what_changes(folder: Path, tool: Locate):
    async with staged(folder, tool("chromium")) as stage:
        page, visit = stage.page, stage.visit
        await stage.crowd()
        await visit.open()
        await expect(page.locator("#node")).to_have_text("test-node")
        cards = page.locator("article.card")
        await expect(cards).to_have_count(GPUS)
        await expect(cards.nth(3)).to_contain_text("holder-3")
        await expect(cards.nth(3)).to_contain_text("committed 6 GiB")
        await expect(page.locator(".tile", has_text="Waiting")).to_contain_text(str(WAITING))

        await visit.show("Leases")
        rows = page.get_by_role("table", name="Leases").locator("tbody tr")
        await expect(rows).to_have_count(GPUS)
        # A lease that ends goes, and what is granted instead comes, without anybody's doing.
        await stage.client.release(stage.leases[0])
        await expect(rows.filter(has_text="holder-0")).to_have_count(0)
        await expect(rows.filter(has_text="waiter-0")).to_have_count(1)

        await visit.show("Queue")
        queue = page.get_by_role("table", name="Waiting requests").locator("tbody tr")
        await expect(queue).to_have_count(100)
        await page.get_by_role("button", name=f"Show {WAITING - 1}").click()
        await expect(queue).to_have_count(WAITING - 1)
        why = re.compile(r"waits for gpu:1, held by holder-1 for \d+ s")
        await expect(queue.filter(has_text="waiter-1\n").or_(queue.filter(has_text=why)).first).to_contain_text(why)
        await expect(queue.filter(has_text="waiter-2").first).to_contain_text("waits for one of 8 GPUs; the longest")

        await visit.show("Timeline")
        bars = page.locator("svg.timeline g.held")
        await expect(bars).to_have_count(GPUS + 1)
        await page.locator(f'g.held[data-id="{stage.leases[0].lease_id}"] rect').first.hover()
        await expect(page.locator(".details")).to_contain_text("HOLD of holder-0")
        await expect(page.locator(".details")).to_contain_text("released")

        await visit.show("Analysis")
        await expect(page.get_by_role("main")).to_contain_text("Utilization analysis")

        await visit.show("Events")
        events = page.locator("ol.events li")
        await expect(events.filter(has_text="ended").filter(has_text="holder-0")).to_have_count(1)
        await page.get_by_label("Filter").and_(page.locator("input")).fill("holder-5")
        await expect(events).to_have_count(1)
        await page.get_by_role("button", name="Pause").click()
        await expect(page.get_by_role("button", name=re.compile("Go on"))).to_be_visible()

        await visit.show("Overview")
        await cards.nth(2).get_by_role("link", name="gpu:2").click()
        await expect(page.get_by_role("heading", name="gpu:2")).to_be_visible()
        await expect(page.get_by_role("table", name="Leases on this GPU")).to_contain_text("holder-2")


async def test_an_operator_drains_resumes_and_revokes_with_the_token(folder: Path, tool: Locate):
    async with staged(folder, tool("chromium")) as stage:
        page, visit = stage.page, stage.visit
        await stage.hold("holder-0", candidates=["gpu:0"])
        await visit.open()
        card = page.locator("article.card").first
        await card.get_by_role("button", name="Drain").click()
        # Without the token, and then with a wrong one, nothing happens but that it is asked for.
        await stage.sign_in("“quoted”")
        await expect(page.get_by_role("alert")).to_contain_text(["it has letters that no token has"])
        visit.requests_may_fail = True
        await stage.sign_in("wrong")
        await expect(page.get_by_role("alert")).to_contain_text(["not the admin token"])
        visit.requests_may_fail = False
        assert not (await stage.client.gpu()).cordoned
        await stage.sign_in()
        await page.get_by_label(re.compile("Reason")).fill("a new fan")
        await page.get_by_role("dialog").get_by_role("button", name="Drain").click()
        await expect(page.locator(".toast").last).to_contain_text("gpu:0 is drained: nothing new is granted there.")
        await expect(card).to_contain_text("drained")
        await expect(page.locator(".attention")).to_contain_text("a new fan")
        assert (await stage.client.gpu()).cordoned

        await card.get_by_role("button", name="Resume").click()
        await page.get_by_role("dialog").get_by_role("button", name="Resume").click()
        await expect(card).to_contain_text("in service")
        assert not (await stage.client.gpu()).cordoned

        await visit.show("Leases")
        await page.get_by_role("button", name="Revoke the lease of holder-0").click()
        await page.get_by_label(re.compile("Seconds to yield")).fill("0")
        await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        await expect(page.locator(".toast").last).to_contain_text("The lease is ended.")
        await expect(page.get_by_role("main")).to_contain_text("Nobody holds a lease.")
        (ended,) = await stage.client.events("ENDED")
        assert ended.lease_id == stage.leases[0].lease_id

        # The token is this tab's alone, and gone when it is told to be.
        assert await page.evaluate("Object.values(localStorage)") == []
        await page.get_by_role("button", name="Sign out").click()
        assert await page.evaluate("Object.values(sessionStorage)") == []


async def test_hostile_names_are_text(folder: Path, tool: Locate):
    async with staged(folder, tool("chromium"), viewport={"width": 360, "height": 800}) as stage:
        page, visit = stage.page, stage.visit
        for number, name in enumerate(HOSTILE):
            who = holder(name, namespace=name[:100], pod=name[:100])
            await stage.hold(who, candidates=[f"gpu:{number}"])
            stage.streams.append(stage.client.acquire("WAIT", who, candidates=[f"gpu:{number}"], max_wait=3600))
            await stage.streams[-1].next("queued")
        await visit.open()
        for title in VIEWS:
            await visit.show(title)
            await expect(page.get_by_role("main")).not_to_be_empty()
            assert await page.locator("main img, main script, main [onload], main [onerror]").count() == 0, title
            await visit.fits()
        await visit.show("Leases")
        shown = await page.locator("bdi.name").all_text_contents()
        assert set(HOSTILE) <= set(shown)
        await page.get_by_role("button", name="Revoke the lease of <img").click()
        await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_on_a_phone_in_light_and_dark(folder: Path, tool: Locate, scheme: str):
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme, "has_touch": True, "is_mobile": True}
    async with staged(folder, tool("chromium"), **phone) as stage:
        page, visit = stage.page, stage.visit
        await stage.crowd(waiting=20)
        await visit.open()
        assert await page.evaluate("document.documentElement.dataset.theme") == scheme
        background = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        for title in VIEWS:
            await visit.show(title)
            await visit.fits()
        # The other one lasts, whatever the system says.
        await page.get_by_role("button", name="Switch between light and dark").click()
        await visit.open()
        assert await page.evaluate("document.documentElement.dataset.theme") != scheme
        assert await page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != background


async def test_everything_can_be_done_with_keys(folder: Path, tool: Locate):
    async with staged(folder, tool("chromium"), reduced_motion="reduce") as stage:
        page, visit = stage.page, stage.visit
        await stage.crowd(waiting=4)
        await visit.open()

        async def focused() -> str:
            text: str = await page.evaluate("document.querySelector('a:focus, button:focus')?.textContent ?? ''")
            return text

        async def tab_to(wanted: str) -> None:
            for _ in range(60):
                await page.keyboard.press("Tab")
                if wanted in await focused():
                    return
            raise AssertionError(f"no key leads to {wanted}")

        await page.keyboard.press("Tab")
        assert await focused() == "Skip to the content"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        await page.evaluate("document.activeElement.blur()")
        await tab_to("Timeline")
        # What has the focus is seen to have it.
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        await page.keyboard.press("Enter")
        canvas = page.get_by_role("application")
        await expect(canvas).to_be_visible()
        await canvas.focus()
        details = page.locator(".details")
        await page.keyboard.press("ArrowRight")
        await expect(details).to_contain_text("holder-0")
        await page.keyboard.press("ArrowDown")
        await expect(details).to_contain_text("holder-1")
        await page.keyboard.press("+")
        await expect(page.locator(".tools")).to_contain_text("80 s up to now")
        await page.keyboard.press("Shift+ArrowLeft")
        await expect(page.locator(".tools")).not_to_contain_text("up to now")
        await page.keyboard.press("End")
        await expect(page.locator(".tools")).to_contain_text("up to now")

        await page.locator("#tabs a").first.focus()
        await tab_to("Leases")
        await page.keyboard.press("Enter")
        await tab_to("Revoke")
        await page.keyboard.press("Enter")
        await page.keyboard.type(TOKEN)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_contain_text("Revoke this lease?")
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_it_says_that_the_arbiter_is_away_and_comes_back_with_it(folder: Path, tool: Locate):
    async with staged(folder, tool("chromium")) as stage:
        page, visit = stage.page, stage.visit
        await stage.hold("holder-of-before", candidates=["gpu:0"])
        await visit.open()
        await expect(page.get_by_role("main")).to_contain_text("holder-of-before")
        visit.requests_may_fail = True
        stage.arbiter.stop()
        await expect(page.locator("#link")).to_have_text("reconnecting")
        await expect(page.get_by_role("alert").first).to_contain_text("The arbiter does not answer; trying again.")
        # The figures of before are there still.
        await expect(page.get_by_role("main")).to_contain_text("holder-of-before")
        with running(folder, *SETTINGS, f"listen.http={stage.arbiter.http}") as again:
            await expect(page.locator("#link")).to_have_text("live")
            await expect(page.locator("#banner")).to_be_hidden()
            client = Client(again.grpc)
            await client.acquire("HOLD", "holder-of-after", candidates=["gpu:3"]).granted()
            await expect(page.get_by_role("main")).to_contain_text("holder-of-after")
            # What was before the restart is on the timeline, from the history.
            await visit.show("Events")
            await expect(page.get_by_role("main")).to_contain_text("holder-of-before")
            await client.close()


async def test_by_a_foreign_name_that_leads_here_nothing_is_seen_and_the_page_says_why(folder: Path, tool: Locate):
    async with staged(folder, tool("chromium")) as stage:
        page, visit = stage.page, stage.visit
        await stage.hold("holder-0")
        visit.requests_may_fail = True
        port = stage.arbiter.http.rpartition(":")[2]
        await page.goto(f"http://{FOREIGN_NAME}:{port}/console")
        await expect(page.get_by_role("alert")).to_contain_text("by localhost or a loopback address only")
        await expect(page.get_by_role("main")).not_to_contain_text("holder-0")
        await page.goto(f"http://localhost:{port}/console")
        await expect(page.get_by_role("main")).to_contain_text("holder-0")
