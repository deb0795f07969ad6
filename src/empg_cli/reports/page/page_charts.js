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
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);

// --- charts: the values under the pointer, or under the arrow keys ---

const PLOT = { left: 50, right: 410, top: 10, bottom: 188, width: 420 }; // as in svg.py

function followPointer(figure, chart) {
  const svg = figure.querySelector("svg");
  const [first, last, low, high] = chart.frame;
  const updates = [...new Set(chart.curves.flatMap((curve) => curve.updates))].sort((a, b) => a - b);
  const rule = shape("path", { class: "rule" });
  const dots = shape("g", {});
  const tip = el("div", "tip");
  tip.setAttribute("role", "status");
  let at = -1;
  const x = (update) => PLOT.left + ((update - first) / (last - first || 1)) * (PLOT.right - PLOT.left);
  const y = (value) => PLOT.top + ((high - Math.min(Math.max(value, low), high)) / (high - low)) * (PLOT.bottom - PLOT.top);
  const text = (value) => (chart.share ? (100 * value).toFixed(1) + " %" : String(Number(value.toPrecision(3))));

  function show(index) {
    at = index;
    const update = updates[index];
    rule.setAttribute("d", `M${x(update)} ${PLOT.top}V${PLOT.bottom}`);
    dots.replaceChildren();
    tip.replaceChildren(el("div", "dim", `update ${update}`));
    for (const curve of chart.curves) {
      const n = curve.updates.indexOf(update);
      if (n < 0) continue;
      const colour = `c${curve.number % 8}`;
      dots.append(shape("circle", { class: `dot ${colour}`, cx: x(update), cy: y(curve.mean[n]), r: 3 }));
      const band = curve.low ? ` [${text(curve.low[n])}, ${text(curve.high[n])}]` : "";
      const row = el("div", "row", el("span", "", el("i", `key ${colour}`), curve.label));
      row.append(el("span", "", el("b", "", text(curve.mean[n])), band));
      tip.append(row);
    }
    svg.append(rule, dots);
    figure.append(tip);
    const [frame, box] = [figure.getBoundingClientRect(), svg.getBoundingClientRect()];
    const beside = box.left - frame.left + (x(update) * box.width) / PLOT.width;
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
    updates.forEach((update, n) => {
      if (Math.abs(x(update) - wanted) < Math.abs(x(updates[nearest]) - wanted)) nearest = n;
    });
    if (nearest !== at) show(nearest);
  });
  svg.addEventListener("pointerleave", hide);
  figure.addEventListener("blur", hide);
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(Math.max(0, Math.min(updates.length - 1, at < 0 && step < 0 ? updates.length - 1 : at + step)));
  });
}

JSON.parse(byId("charts").textContent).forEach((chart, number) => {
  followPointer(document.querySelector(`[data-chart="${number}"]`), chart);
});

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
