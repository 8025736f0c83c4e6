// Who wastes which GPU, and why one may think so.

import { attribute, el, show, text } from "./dom.js";
import { pill, table, tile, words } from "./parts.js";
import { VERDICTS } from "./view-overview.js";
import { bytes, clean, count, duration, elapsed, percent } from "./words.js";

export function analysis({ store, clockNow }) {
  const tiles = {
    mean: tile("Mean score"),
    low: tile("Low or idle"),
    suspicious: tile("Suspicious"),
    last: tile("Last look"),
  };
  const fault = el("p", { class: "banner", role: "status", hidden: true });
  const rows = table({
    label: "GPUs by score",
    empty: "There is no result yet: the first look comes after one step of the analysis.",
    keyOf: (row) => `${row.host} ${row.gpu} ${row.pod}`,
    columns: [
      { title: "GPU", className: "short", make: words((row) => clean(row.gpu)) },
      {
        title: "Whose",
        className: "short",
        make: words(whose),
      },
      { title: "Score", className: "score", make: score },
      { title: "Judgement", className: "amount left", make: judgement },
      { title: "Why", className: "why", make: reasons },
      { title: "Used", className: "amount", make: words((row) => `${percent(row.utilization)}, ${bytes(row.memory)}`) },
    ],
  });
  const off = el("p", { class: "empty" }, "The analysis is switched off (analysis.enabled).");
  const body = el(
    "div",
    {},
    el("div", { class: "tiles" }, ...Object.values(tiles).map((each) => each.node)),
    fault,
    el("section", { class: "panel" }, rows.node),
  );
  return {
    node: el("div", { class: "view" }, el("h1", {}, "Utilization analysis"), off, body),
    update() {
      const now = store.analysis;
      show(off, now === null);
      show(body, now !== null);
      if (now === null) return;
      const results = [...now.rows].sort((one, other) => one.score - other.score);
      const mean = results.reduce((sum, row) => sum + row.score, 0) / (results.length || 1);
      tiles.mean.update(results.length ? mean.toFixed(0) : "–", `${count(results.length, "GPU")}, of 100`);
      const low = results.filter((row) => row.score < now.thresholds.low).length;
      tiles.low.update(String(low), `below ${now.thresholds.low}`, low ? "warn" : "calm");
      const suspicious = results.filter((row) => row.verdict === "suspicious").length;
      tiles.suspicious.update(String(suspicious), "held without use", suspicious ? "warn" : "calm");
      const age = now.at === null ? null : clockNow() - now.at;
      tiles.last.update(
        age === null ? "–" : `${elapsed(age)} ago`,
        `every ${duration(now.interval)}, from ${now.source}`,
        now.stale ? "warn" : "calm",
      );
      show(fault, Boolean(now.fault));
      text(fault, `The last look failed: ${clean(now.fault)}. What is shown is older.`);
      rows.update(results);
    },
  };
}

/** Who has the GPU: by pod, or else as the holder calls itself. */
function whose({ namespace, pod, client }) {
  return clean([namespace, pod || client].filter(Boolean).join(" / ")) || "–";
}

function score() {
  const bar = el("span", { class: "fill" });
  const figure = el("b");
  return {
    node: el("span", { class: "scorebar" }, figure, el("span", { class: "track" }, bar)),
    update(row) {
      text(figure, row.score.toFixed(0));
      bar.style.width = `${Math.max(1, row.score)}%`;
      attribute(bar, "data-kind", row.status);
    },
  };
}

function judgement() {
  const verdict = pill();
  const sure = el("span", { class: "dim small" });
  return {
    node: el("div", { class: "stack" }, verdict.node, sure),
    update(row) {
      verdict.update(VERDICTS[row.verdict] ?? "calm", row.verdict);
      text(sure, `${row.status}, ${percent(row.confidence)} sure${row.by_model ? ", by the model" : ""}`);
    },
  };
}

function reasons() {
  const reason = el("span");
  const advice = el("span", { class: "dim" });
  return {
    node: el("div", { class: "stack" }, reason, advice),
    update(row) {
      text(reason, clean(row.reason, 600));
      text(advice, clean(row.recommendation, 600));
    },
  };
}
