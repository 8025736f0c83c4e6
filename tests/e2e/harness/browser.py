"""A real browser, Debian's Chromium, and a page in it that tells of everything that must not happen."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

PATIENCE_MS = 15_000
# A name of somebody else's that leads here.
FOREIGN_NAME = "rebound.example"
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""

__all__ = ["Browser", "Page", "Visit", "chromium", "expect"]

expect.set_options(timeout=PATIENCE_MS)


@asynccontextmanager
async def chromium(path: str) -> AsyncIterator[Browser]:
    """A browser that runs."""
    async with async_playwright() as playwright:
        # Root, as which CI runs, has no sandbox in Chromium; all that it opens is ours.
        browser = await playwright.chromium.launch(
            executable_path=path,
            args=[
                "--no-sandbox",
                "--disable-background-networking",
                "--disable-dev-shm-usage",
                f"--host-resolver-rules=MAP {FOREIGN_NAME} 127.0.0.1",
            ],
        )
        try:
            yield browser
        finally:
            await browser.close()


class Visit:
    """A page of the console, and what went wrong on it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        # What the browser itself says of a request that fails: no error of the page while a test makes requests fail.
        self.requests_may_fail = False
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", self._dialog)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not self.requests_may_fail:
            self.errors.append(message.text)

    async def _dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        await dialog.dismiss()

    async def open(self, view: str = "") -> None:
        """Opens the console and waits for it to be live."""
        await self.page.goto(f"http://{self.address}/console#{view}")
        await expect(self.page.locator("#link")).to_have_text("live")

    async def show(self, title: str) -> None:
        """Clicks on the tab of a view."""
        tab = self.page.get_by_role("navigation").get_by_role("link", name=title)
        await tab.click()
        await expect(tab).to_have_attribute("aria-current", "page")

    async def nothing_amiss(self) -> None:
        """No script failed, none was forbidden, and none asked anything."""
        assert self.errors == []
        assert self.dialogs == []
        assert await self.page.evaluate("window.violations") == []

    async def fits(self) -> None:
        """Nothing is wider than the window."""
        wide = await self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{wide} pixels too wide at {self.page.url}"


@asynccontextmanager
async def visiting(browser: Browser, address: str, **options: Any) -> AsyncIterator[Visit]:
    """A page for one test; fails at its end if something went wrong on it."""
    context = await browser.new_context(**{"viewport": {"width": 1440, "height": 900}} | options)
    await context.add_init_script(_WATCH)
    try:
        visit = Visit(await context.new_page(), address)
        yield visit
        await visit.nothing_amiss()
    finally:
        await context.close()
