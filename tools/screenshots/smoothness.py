"""How smoothly a page of the console moves: the time between frames, and what held the page up for 50 ms or more."""

from playwright.sync_api import Browser

VIEWS = ("overview", "leases", "queue", "timeline", "analysis", "events", "gpu=gpu:0")
_SECONDS = 10
_WATCH = """async (seconds) => {
  const frames = [];
  const tasks = [];
  const observer = new PerformanceObserver((list) => tasks.push(...list.getEntries().map((each) => each.duration)));
  observer.observe({ entryTypes: ["longtask"] });
  const end = performance.now() + 1000 * seconds;
  await new Promise((done) => {
    let last = null;
    const frame = (now) => {
      if (last !== null) frames.push(now - last);
      last = now;
      if (now < end) requestAnimationFrame(frame);
      else done();
    };
    requestAnimationFrame(frame);
  });
  observer.disconnect();
  frames.sort((one, other) => one - other);
  const at = (share) => frames[Math.floor(share * (frames.length - 1))];
  return [frames.length / seconds, at(0.5), at(0.99), at(1), tasks.length, Math.max(0, ...tasks)];
}"""


def measure(browser: Browser, http: str) -> None:
    """Prints a line for each view."""
    print("view          frames/s   p50 ms   p99 ms   max ms   tasks of 50 ms or more (the longest)")
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    for view in VIEWS:
        page.goto(f"http://{http}/console#{view}")
        # What comes with the opening is not meant.
        page.wait_for_timeout(2000)
        rate, median, late, latest, tasks, longest = page.evaluate(_WATCH, _SECONDS)
        print(f"{view:<13} {rate:8.1f} {median:8.1f} {late:8.1f} {latest:8.1f}   {tasks} ({longest:.0f} ms)")
    page.close()
