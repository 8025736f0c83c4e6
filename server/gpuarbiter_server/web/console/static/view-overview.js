// The overview: what needs somebody, and a card for each GPU.

import { attention } from "./attention.js";
import { chart } from "./charts.js";
import { attribute, el, keyed, show, text } from "./dom.js";
import { ledger, name, pill, tile } from "./parts.js";
import { FIGURES } from "./store.js";
import { bytes, count, elapsed, gpuState, percent } from "./words.js";

const WINDOW_SECONDS = 600;
const LEAST_WINDOW_SECONDS = 60;
const MOST_HOLDERS = 3;

export function overview({ store, actions }) {
  const tiles = {
    gpus: tile("GPUs in service"),
    leases: tile("Leases"),
    waiting: tile("Waiting"),
    busy: tile("Utilization"),
    memory: tile("Memory committed"),
    room: tile("Largest room"),
  };
  const notices = el("ul", { class: "notices" });
  const more = el("p", { class: "more" });
  const attentionBox = el("section", { class: "panel attention", "aria-label": "Needs attention" }, notices, more);
  const calm = el("p", { class: "allwell" }, "All is well: every GPU is in service, and nothing needs anybody.");
  const cards = el("div", { class: "cards" });
  const node = el(
    "div",
    { class: "view" },
    el("h1", { class: "unseen" }, "Overview"),
    el("div", { class: "tiles" }, ...Object.values(tiles).map((each) => each.node)),
    attentionBox,
    calm,
    cards,
  );
  return {
    node,
    update(now) {
      figures(tiles, store, now);
      const { shown, more: hidden } = attention(store, now);
      show(attentionBox, shown.length > 0);
      show(calm, shown.length === 0 && store.gpus.length > 0);
      keyed(notices, [...shown.entries()], ([place]) => place, notice);
      show(more, hidden > 0);
      text(more, `and ${hidden} more`);
      keyed(
        cards,
        store.gpus,
        (gpu) => gpu.key,
        (gpu) => card(gpu, store, actions),
      );
      for (const row of cards.kept.values()) row.draw(now);
    },
  };
}

function figures(tiles, { gpus, leases, queue }, now) {
  const serving = gpus.filter((gpu) => gpu.health !== "LOST" && !gpu.drained);
  tiles.gpus.update(`${serving.length} / ${gpus.length}`, "", serving.length < gpus.length ? "warn" : "calm");
  const yielding = leases.rows.filter((lease) => lease.state === "YIELDING").length;
  tiles.leases.update(String(leases.total), yielding ? `${yielding} asked to yield` : "");
  const longest = queue.rows.reduce((most, ticket) => Math.max(most, now - ticket.since), 0);
  tiles.waiting.update(String(queue.total), queue.total ? `the longest for ${elapsed(longest)}` : "");
  const busy = gpus.map((gpu) => gpu.utilization).filter((each) => each != null);
  const mean = busy.reduce((sum, each) => sum + each, 0) / (busy.length || 1);
  tiles.busy.update(busy.length ? percent(mean) : "–", busy.length ? "on average" : "not known");
  const total = gpus.reduce((sum, gpu) => sum + gpu.total, 0);
  const committed = gpus.reduce((sum, gpu) => sum + gpu.committed, 0);
  tiles.memory.update(percent(total ? committed / total : null), `${bytes(committed)} of ${bytes(total)}`);
  const roomy = serving.reduce((best, gpu) => (best && best.admissible >= gpu.admissible ? best : gpu), null);
  tiles.room.update(roomy ? bytes(roomy.admissible) : "–", roomy ? `on ${roomy.key}` : "");
}

function notice() {
  const what = el("strong");
  const why = el("span", { class: "dim" });
  const link = el("a", { class: "notice" }, what, " ", why);
  const node = el("li", {}, link);
  return {
    node,
    update([, each]) {
      attribute(node, "data-kind", each.kind);
      attribute(link, "href", each.link ?? "#overview");
      text(what, each.what);
      text(why, each.why ?? "");
    },
  };
}

function card(first, store, actions) {
  const key = first.key;
  const state = pill();
  const model = name("", "name dim");
  const busyFigure = el("strong");
  const memoryFigure = el("strong");
  const busy = chart({
    width: 240,
    height: 44,
    series: [{ name: "busy", filled: true }],
    label: "Utilization over ten minutes",
  });
  const memory = chart({
    width: 240,
    height: 44,
    series: [{ name: "committed", drawn: false, filled: true }, { name: "inuse" }],
    label: "Memory committed and in use over ten minutes",
  });
  const bar = ledger();
  const legend = Object.fromEntries(["committed", "unleased", "admissible", "headroom"].map((part) => [part, el("b")]));
  const holders = el("ul", { class: "holders" });
  const others = el("p", { class: "more" });
  const waiting = el("a", { href: "#queue" });
  const facts = el("span");
  const verdict = pill("pill verdict");
  const reason = el("span", { class: "reason dim" });
  const judgement = el("a", { class: "judgement", href: "#analysis" }, verdict.node, reason);
  const drain = actions.drainButton(key);
  const node = el(
    "article",
    { class: "card", "aria-label": key },
    el("header", {}, el("h2", {}, el("a", { href: `#gpu=${encodeURIComponent(key)}` }, key)), model.node, state.node),
    el(
      "div",
      { class: "meters" },
      el("div", { class: "meter" }, el("span", { class: "title" }, "Utilization"), busyFigure, busy.node),
      el("div", { class: "meter" }, el("span", { class: "title" }, "Memory"), memoryFigure, memory.node),
    ),
    bar.node,
    el(
      "ul",
      { class: "legend" },
      ...Object.entries(legend).map(([part, figure]) => el("li", { class: part }, `${part} `, figure)),
    ),
    holders,
    others,
    judgement,
    el("footer", {}, waiting, facts, drain.node),
  );
  let shown = first;
  function draw(now) {
    const place = store.gpus.findIndex((gpu) => gpu.key === key) + 1;
    const points = (figure) => store.readings.map((row) => [row[0], row[place]?.[figure]]);
    const mib = shown.total / 2 ** 20;
    const from = Math.max(now - WINDOW_SECONDS, Math.min(now - LEAST_WINDOW_SECONDS, store.readings[0]?.[0] ?? now));
    busy.update([points(FIGURES.utilization)], 100, from, now);
    memory.update([points(FIGURES.committed), points(FIGURES.used)], mib, from, now);
    const held = store.leasesOn(key).sort((one, other) => one.granted - other.granted);
    keyed(
      holders,
      held.slice(0, MOST_HOLDERS),
      (lease) => lease.id,
      () => holder(key),
    );
    for (const row of holders.kept.values()) row.tick(now);
    show(others, held.length > MOST_HOLDERS || held.length === 0);
    text(others, held.length === 0 ? "nobody holds it" : `and ${held.length - MOST_HOLDERS} more`);
  }
  return {
    node,
    draw,
    update(gpu) {
      shown = gpu;
      const { kind, words } = gpuState(gpu);
      state.update(kind, words);
      attribute(node, "data-kind", kind);
      attribute(state.node, "title", gpu.why);
      model.update(`${gpu.name} ${bytes(gpu.total)}`.trim());
      text(busyFigure, percent(gpu.utilization));
      text(memoryFigure, bytes(gpu.used));
      const ledgerWords = Object.keys(legend).map((part) => `${part} ${bytes(gpu[part])}`);
      bar.update(gpu, ledgerWords.join(", "));
      for (const [part, figure] of Object.entries(legend)) text(figure, bytes(gpu[part]));
      text(waiting, gpu.waiting ? `queue ${gpu.waiting}/${gpu.waiting_limit}` : "nobody waits");
      attribute(waiting, "data-kind", gpu.waiting >= gpu.waiting_limit && gpu.waiting ? "warn" : "calm");
      text(facts, hardware(gpu));
      drain.update(gpu);
      const result = store.analysis?.rows.find((row) => row.gpu === key);
      show(judgement, Boolean(result));
      if (result) {
        verdict.update(VERDICTS[result.verdict] ?? "calm", `${result.verdict} · score ${Math.round(result.score)}`);
        text(reason, result.reason);
        attribute(judgement, "title", result.reason);
      }
    },
  };
}

export const VERDICTS = { active: "good", idle: "calm", suspicious: "warn" };

function hardware(gpu) {
  const facts = [];
  if (gpu.power != null)
    facts.push(`${Math.round(gpu.power)}${gpu.power_limit ? `/${Math.round(gpu.power_limit)}` : ""} W`);
  if (gpu.temperature != null) facts.push(`${Math.round(gpu.temperature)} °C`);
  return facts.join(" · ");
}

function holder(key) {
  const task = el("span", { class: "task" });
  const client = name("");
  const size = el("span", { class: "dim" });
  const since = el("span", { class: "since" });
  let shown = null;
  return {
    node: el("li", {}, task, client.node, size, since),
    tick: (now) => text(since, elapsed(now - shown.granted)),
    update(lease) {
      shown = lease;
      text(task, lease.task);
      client.update(lease.client);
      const grant = lease.gpus.find((each) => each.key === key);
      text(size, grant.committed ? bytes(grant.committed) : count(lease.gpus.length, "GPU"));
      attribute(since, "data-kind", lease.state === "HELD" ? "calm" : "warn");
    },
  };
}
