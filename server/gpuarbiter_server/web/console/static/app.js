// The console: follows the arbiter, and draws the view that is asked for.

import { Actions } from "./actions.js";
import { attribute, el, show, text } from "./dom.js";
import { Feed } from "./feed.js";
import { route } from "./route.js";
import { Store } from "./store.js";
import { analysis } from "./view-analysis.js";
import { events } from "./view-events.js";
import { gpu } from "./view-gpu.js";
import { leases } from "./view-leases.js";
import { overview } from "./view-overview.js";
import { queue } from "./view-queue.js";
import { timeline } from "./view-timeline.js";
import { clean, elapsed } from "./words.js";

const VIEWS = {
  overview: { title: "Overview", make: overview },
  leases: { title: "Leases", make: leases, count: (store) => store.leases.total },
  queue: { title: "Queue", make: queue, count: (store) => store.queue.total },
  timeline: { title: "Timeline", make: timeline },
  analysis: { title: "Analysis", make: analysis },
  events: { title: "Events", make: events },
  gpu: { title: "GPU", make: gpu, hidden: true },
};
// Durations go on between news.
const TICK_MS = 1000;

const find = (id) => document.getElementById(id);
const store = new Store();
const clockNow = () => store.now(performance.now());
const context = { store, clockNow, actions: new Actions(store, find("admin")), redraw: () => plan() };
const made = new Map();
const tabs = new Map();
let link = "wait";
let refusal = "";
let shown = "";
let planned = false;

function plan() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    draw();
  });
}

function draw() {
  const now = clockNow();
  const asked = route(location.hash);
  const name = Object.hasOwn(VIEWS, asked.name) ? asked.name : "overview";
  if (!made.has(name)) made.set(name, VIEWS[name].make(context));
  const view = made.get(name);
  if (shown !== name) {
    shown = name;
    find("main").replaceChildren(view.node);
    tabs.get(name)?.node.scrollIntoView({ block: "nearest", inline: "center" });
    document.title = `${VIEWS[name].title} · GpuArbiter`;
  }
  for (const [key, { node, badge }] of tabs) {
    attribute(node, "aria-current", key === name ? "page" : null);
    if (badge) text(badge, String(VIEWS[key].count(store)));
  }
  if (store.arbiter !== null) {
    text(find("node"), clean(store.arbiter.node, 60));
    view.update(now, asked.argument);
  }
}

function status(kind, why = "The arbiter does not answer; trying again.") {
  refusal = why;
  if (kind === "away" && link !== "away") store.freeze(performance.now());
  link = kind;
  attribute(find("link"), "data-kind", { live: "good", away: "bad" }[kind] ?? "calm");
  text(find("link"), { live: "live", away: "reconnecting" }[kind] ?? "connecting");
  attribute(document.body, "data-link", kind);
  age();
}

/** How old what is seen is: beside the alert, so that who listens is alerted once. */
function age() {
  const away = link === "away";
  show(find("banner"), away);
  text(find("away"), away ? refusal : "");
  const seconds = (performance.now() - store.toldAt) / 1000;
  text(find("age"), away && store.told ? `What you see is ${elapsed(seconds)} old.` : "");
}

for (const [key, { title, count, hidden }] of Object.entries(VIEWS)) {
  if (hidden) continue;
  const badge = count ? el("span", { class: "badge" }) : null;
  const node = el("a", { href: `#${key}` }, title, badge);
  tabs.set(key, { node, badge });
  find("tabs").append(node);
}
find("theme").addEventListener("click", () => globalThis.switchTheme());
find("skip").addEventListener("click", (event) => {
  event.preventDefault();
  find("main").focus();
});
addEventListener("hashchange", () => {
  scrollTo(0, 0);
  plan();
});
setInterval(() => {
  age();
  if (link === "live" && !document.hidden) plan();
}, TICK_MS);
new Feed({
  onNews(news) {
    store.take(news, performance.now());
    plan();
  },
  onBeat: (now) => store.tell(now, performance.now()),
  onLink: status,
}).open();
plan();
