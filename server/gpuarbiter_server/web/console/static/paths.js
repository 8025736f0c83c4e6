// Lines and areas of charts as SVG paths. Pure. A gap in what is known is a gap in the line.

/** Scales points [moment, value] into a box; values beyond the top are drawn at the top. */
function scaled(points, { from, to, top, width, height }) {
  const across = width / Math.max(1e-9, to - from);
  return points.map(([at, value]) =>
    value == null ? null : [(at - from) * across, height - (Math.min(value, top) / (top || 1)) * height],
  );
}

const spot = ([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`;

function runs(places) {
  const found = [];
  let run = [];
  for (const place of [...places, null]) {
    if (place !== null) run.push(place);
    else if (run.length > 0) {
      found.push(run);
      run = [];
    }
  }
  return found;
}

export function line(points, box) {
  return runs(scaled(points, box))
    .map((run) => `M${run.map(spot).join("L")}${run.length === 1 ? "h0.1" : ""}`)
    .join("");
}

export function area(points, box) {
  return runs(scaled(points, box))
    .map((run) => `M${run[0][0].toFixed(1)},${box.height}L${run.map(spot).join("L")}V${box.height}Z`)
    .join("");
}
