// What is known of the lease that is pointed at, in words.

import { attribute, el, keyed, text } from "./dom.js";
import { clean, clock, duration, endWords, markWords } from "./words.js";

/** Tells what is known of a lease; nothing that changes by itself, so that who listens is not told again and again. */
export function tell(details, span) {
  const lines = span
    ? told(span)
    : ["Point at a lease, touch it, or go to one with the arrow keys, to see what is known of it."];
  keyed(
    details,
    lines.map((words, place) => ({ words, place })),
    (each) => each.place,
    () => {
      const node = el("span");
      return { node, update: ({ words }) => text(node, words) };
    },
  );
  attribute(details, "data-empty", span ? null : "");
}

function told(span) {
  const lines = [
    `${clean(span.task)} of ${clean(span.client, 80)}${span.namespace ? ` in ${clean(span.namespace, 80)}` : ""}`,
    span.end
      ? `${span.gpus.join(", ")} from ${clock(span.begin)} to ${clock(span.end)}, ${duration(span.end - span.begin)}`
      : `${span.gpus.join(", ")} from ${clock(span.begin)} on`,
  ];
  if (span.waited != null) lines.push(`waited ${duration(span.waited)}`);
  for (const [at, kind, detail] of span.marks)
    lines.push(
      `${clock(at)} ${markWords(kind)}${detail ? ` (${clean(detail, 120).toLowerCase().replaceAll("_", " ")})` : ""}`,
    );
  if (span.end) lines.push([endWords(span.how), clean(span.detail, 200)].filter(Boolean).join(": "));
  lines.push(`lease ${span.id}`);
  return lines;
}
