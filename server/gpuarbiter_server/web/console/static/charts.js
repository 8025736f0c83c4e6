// Small charts: a line over an area, for the last minutes.

import { attribute, svg } from "./dom.js";
import { area, line } from "./paths.js";

/** A chart of some series, [{name, filled}]; `update(list of points, top, from, to)`. */
export function chart({ width, height, series, label }) {
  const drawn = series.map(({ name, filled, drawn: stroke = true }) => ({
    fill: filled ? svg("path", { class: `area ${name}` }) : null,
    stroke: stroke ? svg("path", { class: `line ${name}` }) : null,
  }));
  const node = svg(
    "svg",
    {
      class: "chart",
      viewBox: `0 0 ${width} ${height}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label,
    },
    ...drawn.flatMap(({ fill, stroke }) => [fill, stroke]),
  );
  return {
    node,
    update(lists, top, from, to) {
      const box = { from, to, top, width, height };
      lists.forEach((points, place) => {
        const { fill, stroke } = drawn[place];
        if (fill) attribute(fill, "d", area(points, box));
        if (stroke) attribute(stroke, "d", line(points, box));
      });
    },
  };
}
