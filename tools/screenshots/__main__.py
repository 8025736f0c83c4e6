"""Takes the pictures of docs/images: a real arbiter with eight simulated GPUs and a crowd on it, in Chromium.

    python -m tools.screenshots [--seconds 240] [--chromium PATH] [--smoothness] [--keep]

--smoothness measures how smoothly the pages move instead of taking pictures of them; --keep leaves the arbiter and the
crowd running, to be looked at, until Ctrl-C.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, ViewportSize, sync_playwright

from gpuarbiter import Arbiter
from tools.screenshots import smoothness
from tools.screenshots.crowd import PARTS

IMAGES = Path(__file__).parents[2] / "docs" / "images"
MOST_BYTES = 300_000
CONFIG = """\
gpus: sim:8x24GiB
node: gpu-node-1
queue_limit: 200
limits: {waiting_per_client: 0}
defaults: {max_wait: 120s, max_hold: 6s, watchdog: {yield: true, grace: 3s, revoke: true}}
analysis: {interval: 20s, step: 5s, time_window: 2m}
policies:
  ASR: {priority: 52}
  NMT: {priority: 50}
  TTS: {priority: 50}
  SUMMARY: {priority: 50, max_hold: 20s}
  EMBED: {priority: 50, max_hold: 0s}
  EXPORT: {priority: 90, max_hold: 5s}
  TRAIN: {priority: 40, max_hold: 90s}
  NOTEBOOK: {priority: 40, max_hold: 0s}
"""
_DESKTOP: ViewportSize = {"width": 1440, "height": 900}
_PHONE: ViewportSize = {"width": 360, "height": 780}
# name, view, light or dark, window.
PICTURES: tuple[tuple[str, str, Literal["light", "dark"], ViewportSize], ...] = (
    ("console-overview", "overview", "dark", _DESKTOP),
    ("console-timeline", "timeline", "dark", {"width": 1440, "height": 640}),
    ("console-queue", "queue", "light", {"width": 1440, "height": 640}),
    ("console-phone", "overview", "light", _PHONE),
)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.screenshots")
    parser.add_argument("--seconds", type=float, default=240.0, help="how long the crowd runs before")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--smoothness", action="store_true")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpu-arbiter-") as folder, contextlib.ExitStack() as stack:
        http = _start(Path(folder), stack)
        print(f"http://{http}/console, with a crowd on it; pictures in {asked.seconds:g} s")
        time.sleep(asked.seconds)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=asked.chromium, args=["--no-sandbox"])
            if asked.smoothness:
                smoothness.measure(browser, http)
            for name, view, scheme, window in () if asked.smoothness else PICTURES:
                _take(browser, f"http://{http}/console#{view}", scheme, window, IMAGES / f"{name}.png")
            browser.close()
        if asked.keep:
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    large = [path.name for path in IMAGES.glob("*.png") if path.stat().st_size > MOST_BYTES]
    if large:
        print(f"larger than {MOST_BYTES} bytes: {', '.join(large)}", file=sys.stderr)
    return 1 if large else 0


def _start(folder: Path, stack: contextlib.ExitStack) -> str:
    """Starts the arbiter and the crowd; returns where the console is."""
    (folder / "arbiter.yaml").write_text(CONFIG)
    env = os.environ | {
        "GPU_ARBITER_SIM_DIR": str(folder / "sim"),
        "GPU_ARBITER_LISTEN__GRPC": "127.0.0.1:0",
        "GPU_ARBITER_LISTEN__HTTP": "127.0.0.1:0",
        "GPU_ARBITER_LISTEN__SOCKET": str(folder / "arbiter.sock"),
        "GPU_ARBITER_JOURNAL__PATH": str(folder / "state"),
    }
    arbiter = subprocess.Popen(
        [sys.executable, "-m", "gpuarbiter_server.cli", "serve", "--config", str(folder / "arbiter.yaml")],
        env=env,
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("w"),
        text=True,
    )
    stack.callback(_end, arbiter)
    assert arbiter.stdout is not None
    said = arbiter.stdout.readline()
    grpc, http = re.findall(r"(?:grpc|http) ([^,\s]+)", said)
    for part in PARTS:
        command = [sys.executable, "-m", "tools.screenshots.crowd", grpc, part]
        stack.callback(_end, subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL))
    with Arbiter(grpc, client_id="screenshots") as client:
        client.admin.drain(["gpu:1"], reason="fan replaced at 21:00")
    return str(http)


def _take(browser: Browser, address: str, scheme: Literal["light", "dark"], window: ViewportSize, path: Path) -> None:
    page = browser.new_page(viewport=window, color_scheme=scheme)
    page.goto(address)
    page.wait_for_timeout(3000)
    forced = page.locator('g.held:has(rect.forced[visibility="visible"])')
    if forced.count():
        # What it tells of a lease that was revoked.
        forced.last.hover()
    page.screenshot(path=path)
    page.close()
    print(f"{path.relative_to(IMAGES.parents[1])}: {path.stat().st_size} bytes")


def _end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
