"use strict";
// What `data` holds stands in page.py.
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const off = new Set(); // places in data.lines
let emphasized = null; // one of them
const MOST_TOLD = 10; // values in one box beside the pointer
const BUTTONS = [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]]; // none that sends the data away
const CONFIG = { responsive: true, displaylogo: false, modeBarButtons: BUTTONS };
const controls = ["column", "axis", "log-x", "log-y", "smoothing", "from"];

const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;"); // Plotly reads tags in texts
const spelled = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });
const percent = (share) => `${Math.round(100 * share)} %`;

/** The rows in which both columns were measured. */
function rows(line, axis, column) {
  const { mean, low, high } = line;
  return (mean[axis] ?? []).flatMap((x, i) => {
    const y = mean[column]?.[i] ?? null;
    return x === null || y === null ? [] : [{ x, y, low: low?.[column]?.[i] ?? null, high: high?.[column]?.[i] ?? null }];
  });
}

/** Exponential moving average, in which the first value weighs no more than the others. */
function smoothed(values, weight) {
  let sum = 0, total = 0;
  return values.map((value) => {
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + 1 - weight;
    return sum / total;
  });
}

/** What is drawn of a line: its band, the rough curve behind a smoothed one, the curve. */
function traces(line, points, weight, opacity) {
  if (!points.length) return [];
  const color = themed(line.color), x = points.map((p) => p.x), y = points.map((p) => p.y);
  const drawn = [], quiet = { hoverinfo: "skip", showlegend: false, meta: line.name };
  const sure = points.filter((p) => p.low !== null && p.high !== null), spread = new Map();
  if (sure.length > 1) {
    const low = smoothed(sure.map((p) => p.low), weight), high = smoothed(sure.map((p) => p.high), weight);
    sure.forEach((p, i) => spread.set(p, ` (${spelled(low[i])} to ${spelled(high[i])})`));
    drawn.push({ ...quiet, x: [...sure, ...[...sure].reverse()].map((p) => p.x), y: [...high, ...low.reverse()],
                 mode: "lines", fill: "toself", fillcolor: color, opacity: 0.18 * opacity, line: { width: 0 } });
  }
  if (weight > 0) drawn.push({ ...quiet, x, y, mode: "lines", opacity: 0.3 * opacity, line: { color, width: 1 } });
  drawn.push({ x, y: smoothed(y, weight), name: plain(line.name), meta: line.name, customdata: points.map((p) => spread.get(p) ?? ""), opacity,
               mode: points.length > 40 ? "lines" : "lines+markers", marker: { size: 5, color },
               line: { color, width: 2.2, dash: line.dash },
               hovertemplate: `%{y:.4~g}%{customdata}<extra>${plain(line.name)}</extra>` });
  return drawn;
}

/** The whole picture's frame: axes, the floor with some room below it, colours. */
function layout(column, axis, drawn) {
  const ink = themed("--ink"), grid = themed("--line"), soft = themed("--soft");
  const look = { gridcolor: grid, linecolor: soft, tickcolor: soft, zeroline: false, showline: true, automargin: true };
  const isLog = byId("log-y").checked, most = drawn.flatMap((trace) => trace.y).reduce((a, b) => Math.max(a, b), data.floor);
  const below = isLog ? data.floor * (data.floor / most) ** 0.06 : data.floor - 0.06 * (most - data.floor);
  const floor = { type: "line", xref: "paper", x0: 0, x1: 1, y0: data.floor, y1: data.floor, layer: "below",
                  line: { color: ink, width: 1.3, dash: "dash" },
                  label: { text: `entropy of the text, ${spelled(data.floor ?? 0)}`, textposition: "start", yanchor: "bottom",
                           font: { color: soft, size: 12 } } };
  const room = { ...floor, y0: below, y1: below, line: { width: 0 }, label: {} }; // the axis makes room for shapes
  return {
    xaxis: { ...look, type: byId("log-x").checked ? "log" : "linear", title: { text: axis.label }, tickformat: "~s" },
    yaxis: { ...look, type: isLog ? "log" : "linear", title: { text: plain(column.label), standoff: 14 },
             tickformat: "~g", nticks: 9 },
    shapes: column.floored ? [floor, room] : [], showlegend: false, hovermode: data.lines.length > MOST_TOLD ? "closest" : "x unified", hoverdistance: -1,
    hoverlabel: { bgcolor: themed("--wash"), bordercolor: grid, font: { color: ink, size: 12.5 }, namelength: 40 },
    font: { family: getComputedStyle(document.body).fontFamily, color: soft, size: 13 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 12, r: 14, t: 30, b: 12 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink },
    uirevision: [column.name, axis.name, byId("from").value, byId("log-x").checked, isLog].join(), // keeps a zoom
  };
}

function draw() {
  const column = data.columns[byId("column").value], axis = data.axes[byId("axis").value];
  const weight = Number(byId("smoothing").value), share = Number(byId("from").value);
  byId("smoothing").nextElementSibling.value = weight ? weight.toFixed(2) : "off";
  byId("from").nextElementSibling.value = percent(share);
  const points = data.lines.map((line) => rows(line, axis.name, column.name));
  const start = share * points.flat().reduce((most, p) => Math.max(most, p.x), 0);
  const drawn = data.lines.flatMap((line, place) =>
    off.has(place) ? [] : traces(line, points[place].filter((p) => p.x >= start), weight,
                                 emphasized === null || emphasized === place || off.has(emphasized) ? 1 : 0.2));
  showLegend(points, column, axis);
  return Plotly.react(byId("plot"), drawn, layout(column, axis, drawn), CONFIG);
}

/** Each name with the last value of its curve, or what its log lacks; what is switched off pales everywhere. */
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

/** Pale all curves but one; null = none. */
function emphasize(place) {
  emphasized = place;
  draw();
}

function legendButton(line, place) {
  const button = document.createElement("button"), key = document.createElement("i"), name = document.createElement("b");
  key.className = `key ${line.dash}`;
  key.style.setProperty("--key", `var(${line.color})`);
  name.textContent = line.count > 1 ? `${line.name} (${line.count} seeds)` : line.name;
  button.type = "button";
  button.title = line.name;
  button.append(key, name, document.createElement("span"));
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
