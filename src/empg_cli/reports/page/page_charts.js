"use strict";
// The page of `empg report`. Models and environments wrote the texts: they become text nodes, never markup.

const byId = (id) => document.getElementById(id);

function el(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function shape(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const fixed = (value) => (value === null ? "–" : value.toFixed(3));
// What would show as +0.000 or −0.000 has no sign, and no colour of one.
const signOf = (value) => (Number(value.toFixed(3)) === 0 ? "zero" : value < 0 ? "minus" : "plus");
const signed = (value) => ({ zero: "", minus: "−", plus: "+" })[signOf(value)] + Math.abs(value).toFixed(3);

// --- charts: over updates or something else, and the values under the pointer or under the arrow keys ---

const PLOT = { left: 50, right: 410, top: 10, bottom: 188, width: 420, name: 224 }; // as in svg.py
const UPDATE = "update";

// Returns the function that draws the chart over another axis.
function chartOf(figure, chart, { axes, places }) {
  const svg = figure.querySelector("svg");
  const shapes = [...svg.querySelectorAll("[data-curve]")].map((node) => ({
    node,
    curve: Number(node.dataset.curve),
    heights: (node.getAttribute("points") ?? "").split(" ").map((point) => point.split(",")[1]),
  }));
  const [low, high] = chart.range;
  const rule = shape("path", { class: "rule" });
  const dots = shape("g", {});
  const tip = el("div", "tip");
  tip.setAttribute("role", "status");
  let at = -1;
  let name = UPDATE;
  let xs; // of every curve, the place of each of its updates on the axis
  let stops; // where there is a value
  const text = (value) => (chart.share ? (100 * value).toFixed(1) + " %" : String(Number(value.toPrecision(3))));
  const y = (value) => PLOT.top + ((high - Math.min(Math.max(value, low), high)) / (high - low)) * (PLOT.bottom - PLOT.top);
  function x(value) {
    const axis = chart.axes[name];
    return PLOT.left + ((value - axis.low) / (axis.high - axis.low || 1)) * (PLOT.right - PLOT.left);
  }

  function over(chosen) {
    hide();
    name = chosen;
    const column = axes.indexOf(name);
    xs = chart.curves.map(({ number, updates }) => updates.map((update) => (name === UPDATE ? update : places[number][update][column])));
    stops = [...new Set(xs.flat())].sort((a, b) => a - b);
  }

  function draw(chosen) {
    over(chosen);
    for (const { node, curve, heights } of shapes) {
      const own = xs[curve];
      // A band goes there and back.
      const place = (n) => x(own[n < own.length ? n : 2 * own.length - 1 - n]).toFixed(1);
      if (node.tagName === "circle") node.setAttribute("cx", place(0));
      else node.setAttribute("points", heights.map((height, n) => `${place(n)},${height}`).join(" "));
    }
    const { marks, name: title } = chart.axes[name];
    const label = (where, height, words) => shape("text", { x: where, y: height, "text-anchor": "middle" }, words);
    svg.querySelector(".marks").replaceChildren(
      ...marks.flatMap(([value, words]) => [
        shape("path", { class: "axis", d: `M${x(value)} ${PLOT.bottom}v4` }), label(x(value), PLOT.bottom + 17, words),
      ]),
      label((PLOT.left + PLOT.right) / 2, PLOT.name, title),
    );
  }

  // The curve's own update; over something else the one that is nearest, as configurations differ in where theirs are.
  function valueAt(curve, place) {
    if (name === UPDATE) return xs[curve].indexOf(place);
    const away = xs[curve].map((value) => Math.abs(value - place));
    return away.indexOf(Math.min(...away));
  }

  function interval(curve, n) {
    if (curve.equal.includes(n)) return ` equal in all ${curve.seeds}, no interval`;
    return curve.low ? ` [${text(curve.low[n])}, ${text(curve.high[n])}]` : "";
  }

  function show(index) {
    at = index;
    const place = stops[index];
    rule.setAttribute("d", `M${x(place)} ${PLOT.top}V${PLOT.bottom}`);
    dots.replaceChildren();
    const heading = name === UPDATE ? `update ${place}` : `${place.toLocaleString("en", { maximumSignificantDigits: 4 })} ${name}`;
    tip.replaceChildren(el("div", "dim", heading));
    chart.curves.forEach((curve, number) => {
      const n = valueAt(number, place);
      if (n < 0) return;
      const colour = `c${curve.number % 8}`;
      dots.append(shape("circle", { class: `dot ${colour}`, cx: x(xs[number][n]), cy: y(curve.mean[n]), r: 3 }));
      const row = el("div", "row", el("span", "", el("i", `key ${colour} d${Math.floor(curve.number / 8) % 3}`), curve.label));
      const when = name === UPDATE ? "" : ` update ${curve.updates[n]}`;
      row.append(el("span", "", el("b", "", text(curve.mean[n])), interval(curve, n), el("span", "dim", when)));
      tip.append(row);
    });
    svg.append(rule, dots);
    figure.append(tip);
    const [frame, box] = [figure.getBoundingClientRect(), svg.getBoundingClientRect()];
    const beside = box.left - frame.left + (x(place) * box.width) / PLOT.width;
    const left = beside + 14 + tip.offsetWidth > frame.width ? beside - 14 - tip.offsetWidth : beside + 14;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = "34px";
  }

  function hide() {
    at = -1;
    for (const node of [rule, dots, tip]) node.remove();
  }

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const wanted = ((event.clientX - box.left) / box.width) * PLOT.width;
    let nearest = 0;
    stops.forEach((place, n) => {
      if (Math.abs(x(place) - wanted) < Math.abs(x(stops[nearest]) - wanted)) nearest = n;
    });
    if (nearest !== at) show(nearest);
  });
  svg.addEventListener("pointerleave", hide);
  figure.addEventListener("blur", hide);
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(Math.max(0, Math.min(stops.length - 1, at < 0 && step < 0 ? stops.length - 1 : at + step)));
  });
  over(UPDATE);
  return draw;
}

{
  const data = JSON.parse(byId("charts").textContent);
  const draws = data.charts.map((chart, number) => chartOf(document.querySelector(`[data-chart="${number}"]`), chart, data));
  if (byId("over")) {
    const choose = () => draws.forEach((draw) => draw(byId("axis").value));
    byId("axis").addEventListener("change", choose);
    byId("over").hidden = false;
    if (byId("axis").value !== UPDATE) choose(); // a browser that comes back to a page keeps what was chosen
  }
}

// --- theme: that of the system until the button is pressed ---

const theme = byId("theme");
const isDark = () =>
  (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const nameTheme = () => {
  theme.textContent = isDark() ? "Light" : "Dark";
};
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
theme.hidden = false;
nameTheme();
