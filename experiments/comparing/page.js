"use strict";
// compare_page.py documents `data`.
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const off = new Set(); // hidden lines, as indices of data.lines
let emphasized = null; // an index
const MAX_HOVERED = 10; // values in one box beside the pointer
const FEW = 60; // points; up to this number each is marked
const CONFIG = {
  responsive: true, displaylogo: false, // without the button that uploads the data
  modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
};
const controls = ["column", "axis", "log-x", "log-y", "smoothing", "from"];

const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const plain = (text) => text.replace(/[&<%]/g, (mark) => `&#${mark.codePointAt(0)};`); // Plotly reads tags and %{y}
const spelled = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });
const percent = (share) => `${Math.round(100 * share)} %`;

/** Exponential moving average without a bias to the first value; null stays. */
function smoothed(values, weight) {
  let sum = 0, total = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + 1 - weight;
    return sum / total;
  });
}

/** The rows in which both columns were measured: x, y, and the smoothed mean, low and high. */
function rows(line, axis, column, weight) {
  const xs = line.mean[axis] ?? [], ys = line.mean[column] ?? [];
  const places = xs.flatMap((x, i) => (x === null || (ys[i] ?? null) === null ? [] : [i]));
  const [mean, low, high] = [line.mean, line.low, line.high].map((values) =>
    smoothed(places.map((i) => values?.[column]?.[i] ?? null), weight));
  return places.map((i, row) => ({ x: xs[i], y: ys[i], mean: mean[row], low: low[row], high: high[row] }));
}

/** Limits of the y-axis: all curves, a floor that is near, a margin; not the bands, which two seeds make wide. */
function limits(points, floor, isLog) {
  const values = points.map((p) => p.mean).filter((y) => !isLog || y > 0);
  if (!values.length) return [];
  const high = values.reduce((a, b) => Math.max(a, b)), least = values.reduce((a, b) => Math.min(a, b));
  const isNear = floor !== null && (isLog ? least / floor <= high / least : least - floor <= high - least);
  const low = isNear ? Math.min(floor, least) : least;
  const room = isLog ? (high / low) ** 0.06 : 0.06 * (high - low);
  return isLog ? [low / room, high * room] : [low - room, high + room];
}

/** The traces of a line: its band, the raw curve behind a smoothed one, the curve. */
function traces(line, points, { weight, opacity, lowest }) {
  if (!points.length) return [];
  const color = themed(line.color), x = points.map((p) => p.x), drawn = [];
  const quiet = { hoverinfo: "skip", meta: line.name, mode: "lines" };
  const sure = points.filter((p) => p.low !== null && p.high !== null), back = [...sure].reverse();
  if (sure.length > 1) {
    const edge = [...sure.map((p) => p.high), ...back.map((p) => Math.max(p.low, lowest))];
    drawn.push({ ...quiet, x: [...sure, ...back].map((p) => p.x), y: edge, opacity: 0.18 * opacity,
                 fill: "toself", fillcolor: color, line: { width: 0 } });
  }
  if (weight > 0) {
    drawn.push({ ...quiet, x, y: points.map((p) => p.y), opacity: 0.3 * opacity, line: { color, width: 1 } });
  }
  drawn.push({ x, y: points.map((p) => p.mean), name: plain(line.name), meta: line.name, opacity,
               customdata: points.map((p) => (p.low === null ? "" : ` (${spelled(p.low)} to ${spelled(p.high)})`)),
               mode: points.length > FEW ? "lines" : "lines+markers", marker: { size: 5, color },
               line: { color, width: 2.2, dash: line.dash },
               hovertemplate: "%{y:.4~g}%{customdata}" });
  return drawn;
}

/** Axes, the floor, colours. */
function layout(column, axis, isLog, [low, high]) {
  const ink = themed("--ink"), grid = themed("--line"), soft = themed("--soft");
  const look = { gridcolor: grid, linecolor: soft, tickcolor: soft, zeroline: false, showline: true, automargin: true };
  const floor = { type: "line", xref: "paper", x0: 0, x1: 1, y0: data.floor, y1: data.floor, layer: "below",
                  line: { color: ink, width: 1.3, dash: "dash" },
                  label: { text: `entropy of the text, ${spelled(data.floor ?? 0)}`, textposition: "start",
                           yanchor: "bottom", padding: 5, font: { color: soft, size: 12 } } };
  const room = { ...floor, y0: low, y1: low, line: { width: 0 }, label: {} }; // extends the axis
  return {
    xaxis: { ...look, type: byId("log-x").checked ? "log" : "linear", title: { text: axis.label }, tickformat: "~s" },
    yaxis: { ...look, type: isLog ? "log" : "linear", title: { text: plain(column.label), standoff: 14 },
             tickformat: "~g", nticks: 9, autorangeoptions: { clipmin: low, clipmax: high } },
    hovermode: data.lines.length > MAX_HOVERED ? "closest" : "x unified", hoverdistance: -1,
    hoverlabel: { bgcolor: themed("--wash"), bordercolor: grid, font: { color: ink, size: 12.5 }, namelength: -1 },
    font: { family: getComputedStyle(document.body).fontFamily, color: soft, size: 13 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 12, r: 14, t: 30, b: 12 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink },
    shapes: column.floored ? [floor, room] : [], showlegend: false,
    uirevision: [column.name, axis.name, byId("from").value, byId("log-x").checked, isLog].join(), // keeps a zoom
  };
}

function draw() {
  const column = data.columns[byId("column").value], axis = data.axes[byId("axis").value];
  const weight = Number(byId("smoothing").value), share = Number(byId("from").value), isLog = byId("log-y").checked;
  byId("smoothing").nextElementSibling.value = weight ? weight.toFixed(2) : "off";
  byId("from").nextElementSibling.value = percent(share);
  const points = data.lines.map((line) => rows(line, axis.name, column.name, weight));
  const start = share * points.flat().reduce((most, p) => Math.max(most, p.x), 0);
  const shown = points.map((some, place) => (off.has(place) ? [] : some.filter((p) => p.x >= start)));
  const [low, high] = limits(shown.flat(), column.floored ? data.floor : null, isLog);
  const isPale = (place) => emphasized !== null && emphasized !== place && !off.has(emphasized);
  const drawn = data.lines.flatMap((line, place) =>
    traces(line, shown[place], { weight, opacity: isPale(place) ? 0.2 : 1, lowest: isLog ? low / 10 : -Infinity }));
  showLegend(points, column, axis);
  return Plotly.react(byId("plot"), drawn, layout(column, axis, isLog, [low, high]), CONFIG);
}

/** Show each name with the last value of its curve, or what its log lacks; fade hidden lines everywhere. */
function showLegend(points, column, axis) {
  data.lines.forEach((line, place) => {
    const button = byId("legend").children[place], last = points[place].at(-1);
    const missing = line.mean[column.name] ? axis.label : column.label;
    button.setAttribute("aria-pressed", String(!off.has(place)));
    button.classList.toggle("none", !last);
    button.lastElementChild.textContent = last ? spelled(last.y) : `no ${missing}`;
  });
  for (const element of document.querySelectorAll("[data-line]")) {
    element.classList.toggle("off", off.has(Number(element.dataset.line)));
  }
}

/** Fade all curves except one; null = none. */
function emphasize(place) {
  emphasized = place;
  draw();
}

function legendButton(line, place) {
  const [button, key, name, value] = ["button", "i", "b", "span"].map((tag) => document.createElement(tag));
  key.className = `key ${line.dash}`;
  key.style.setProperty("--key", `var(${line.color})`);
  name.textContent = line.count > 1 ? `${line.name} (${line.count} seeds)` : line.name;
  button.type = "button";
  button.title = line.name;
  button.append(key, name, value);
  button.addEventListener("click", () => { off.delete(place) || off.add(place); draw(); });
  button.addEventListener("pointerenter", () => emphasize(place));
  button.addEventListener("pointerleave", () => emphasize(null));
  button.addEventListener("dblclick", () => {
    const alone = off.size === data.lines.length - 1 && !off.has(place);
    off.clear();
    if (!alone) data.lines.forEach((_, other) => other !== place && off.add(other));
    draw();
  });
  return button;
}

function fill(select, choices, chosen) {
  choices.forEach((choice, place) => {
    const label = choice.barred ? `${choice.label} (the tokenizers differ)` : choice.label;
    const option = new Option(label, place, place === chosen, place === chosen);
    option.disabled = Boolean(choice.barred);
    select.add(option);
  });
}

fill(byId("column"), data.columns, data.column);
fill(byId("axis"), data.axes, data.axis);
byId("legend").append(...data.lines.map(legendButton));
const rescale = () => { byId("log-y").checked = data.columns[byId("column").value].log; };
byId("column").addEventListener("input", rescale);
controls.forEach((id) => byId(id).addEventListener("input", draw));
["(prefers-color-scheme: dark)", "print"].forEach((query) => matchMedia(query).addEventListener("change", draw));
rescale();
draw();
