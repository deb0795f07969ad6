// The list of trajectories and the steps of one of them. Goes on from page_charts.js, in the same script.

// A step is [observation, action, flags, reward, tokens, entropy, g, f, advantage, credit, prompt, response], as in kept_trajectories.py.
const [OBSERVATION, ACTION, FLAGS, REWARD, TOKENS, ENTROPY, G, F, ADVANTAGE, CREDIT, PROMPT, RESPONSE] = Array(12).keys();
const COLUMNS = [["H", ENTROPY], ["g", G], ["f", F], ["A", ADVANTAGE], ["credit", CREDIT]];
const LONG = 420; // characters shown of an observation until it is opened

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function browse({ runs, texts, trajectories }) {
  const largest = (column) =>
    Math.max(1e-9, ...trajectories.map((t) => Math.max(0, ...t.steps.map((step) => Math.abs(step[column] ?? 0)))));
  const most = { entropy: largest(ENTROPY), credit: largest(CREDIT) };
  const lower = texts.map((text) => text.toLowerCase());
  const list = byId("list");
  const detail = byId("detail");
  let query = "";
  let shown = {}; // the trajectory, its step if one is aimed at, and the address that led there

  for (const trajectory of trajectories) {
    const { steps } = trajectory;
    const known = steps.filter((step) => step[ENTROPY] !== null);
    trajectory.entropy = known.reduce((sum, step) => sum + step[ENTROPY], 0) / (known.length || 1);
    trajectory.credit = Math.max(0, ...steps.map((step) => Math.abs(step[CREDIT] ?? 0)));
    trajectory.hasCredit = steps.some((step) => step[CREDIT] !== null);
  }

  const address = (trajectory, step) => `#${encodeURI(trajectory.id)}${step === undefined ? "" : `/step-${step + 1}`}`;
  const phaseOf = (t) => (t.phase === "eval" ? "evaluation" : "training");
  const verdict = (t) =>
    el("span", `verdict ${t.success ? "plus" : "minus"}`, t.success ? "✓ solved" : `✗ ${t.status.replaceAll("_", " ")}`);

  // Entropy or, where there is one, credit of every step as a strip of colours.
  function strip(t) {
    const parts = t.steps.map((step, n) => {
      const value = t.hasCredit ? step[CREDIT] ?? 0 : step[ENTROPY] ?? 0;
      const name = t.hasCredit ? `--${signOf(value)}` : "--heat";
      const share = Math.round(100 * Math.sqrt(Math.abs(value) / (t.hasCredit ? most.credit : most.entropy)));
      const from = (100 * n) / t.steps.length;
      const to = (100 * (n + 1)) / t.steps.length;
      return `color-mix(in srgb, var(${name}) ${share}%, transparent) ${from.toFixed(2)}% ${to.toFixed(2)}%`;
    });
    const node = el("div", "strip");
    if (parts.length) node.style.background = `linear-gradient(90deg, ${parts.join(", ")})`;
    return node;
  }

  const items = trajectories.map((t) => {
    const link = el("a", "item");
    link.href = address(t);
    const length = `${t.steps.length} step${t.steps.length === 1 ? "" : "s"}`;
    link.append(
      el("div", "", el("span", "name", texts[t.kind]), verdict(t)),
      el("div", "dim", el("span", "less", texts[t.task]), el("span", "", length)),
      el("div", "dim", el("span", "less", (runs.length > 1 ? `${runs[t.run]} · ` : "") + phaseOf(t)), `R ${t.reward.toFixed(2)}`),
      strip(t),
    );
    return { t, link, row: el("li", "", link) };
  });
  list.append(...items.map((item) => item.row));

  function choices(select, names) {
    [...names].forEach(([value, name]) => {
      const option = el("option", "", name);
      option.value = value;
      select.append(option);
    });
    select.parentElement.hidden = names.size < 2;
  }
  choices(byId("run"), new Map(runs.map((name, n) => [n, name])));
  choices(byId("kind"), new Map([...new Set(trajectories.map((t) => t.kind))].sort((a, b) => (lower[a] < lower[b] ? -1 : 1)).map((n) => [n, texts[n]])));

  function filter() {
    query = byId("query").value.trim().toLowerCase();
    const [outcome, phase, kind, run, order] = ["outcome", "phase", "kind", "run", "order"].map((id) => byId(id).value);
    const hits = query ? lower.map((text) => text.includes(query)) : null;
    let count = 0;
    for (const { t, row } of items) {
      const fits =
        (!outcome || (outcome === "1") === t.success) &&
        (!phase || phase === t.phase) &&
        (!kind || Number(kind) === t.kind) &&
        (!run || Number(run) === t.run) &&
        (!hits || hits[t.task] || hits[t.kind] || t.steps.some((step) => [OBSERVATION, ACTION, RESPONSE].some((part) => hits[step[part]])));
      row.hidden = !fits;
      count += fits;
    }
    const value = (t) => (order === "steps" ? t.steps.length : t[order]);
    const sorted = order ? items.toSorted((a, b) => value(b.t) - value(a.t)) : items;
    list.append(...sorted.map((item) => item.row));
    byId("count").textContent = `${count} of ${items.length}`;
    if (shown.t) select(shown.t, shown.step);
    showInList("instant");
  }

  // The text, with what was searched for marked.
  function marked(text) {
    if (!query) return [text];
    const parts = [];
    const low = text.toLowerCase();
    let from = 0;
    for (let at = low.indexOf(query); at >= 0; at = low.indexOf(query, from)) {
      parts.push(text.slice(from, at), el("mark", "", text.slice(at, at + query.length)));
      from = at + query.length;
    }
    return [...parts, text.slice(from)];
  }

  function said(step) {
    const cell = el("td", "said");
    const observation = el("p", "", ...marked(texts[step[OBSERVATION]]));
    cell.append(observation);
    if (texts[step[OBSERVATION]].length > LONG) {
      observation.classList.add("long");
      const more = el("button", "", "more");
      more.type = "button";
      more.setAttribute("aria-expanded", "false");
      more.addEventListener("click", () => {
        const isLong = observation.classList.toggle("long");
        more.textContent = isLong ? "more" : "less";
        more.setAttribute("aria-expanded", String(!isLong));
      });
      cell.append(more);
    }
    cell.append(el("p", "action", "› ", ...marked(texts[step[ACTION]])));
    if (step[FLAGS] & 1) cell.append(el("span", "flag minus", "malformed"));
    if (step[FLAGS] & 2) cell.append(el("span", "flag minus", "refused"));
    if (step[REWARD]) cell.append(el("span", `flag ${step[REWARD] < 0 ? "minus" : "plus"}`, `reward ${signed(step[REWARD])}`));
    if (step[RESPONSE] !== null) cell.append(exchange(step));
    return cell;
  }

  // What the model read and wrote, token for token. Open where that says why: a response that could not be parsed.
  function exchange(step) {
    const response = texts[step[RESPONSE]];
    const node = el(
      "details", "", el("summary", "", "prompt and response"),
      el("p", "raw", texts[step[PROMPT]]), el("p", "raw wrote", ...marked(response)),
    );
    node.open = Boolean(step[FLAGS] & 1) || Boolean(query && response.toLowerCase().includes(query));
    return node;
  }

  function meter(value, most_, isSigned) {
    const bar = el("span", isSigned ? "meter wide" : "meter h");
    const fill = el("i", isSigned ? signOf(value) : "");
    const share = (Math.abs(value) / most_) * (isSigned ? 50 : 100);
    fill.style.width = `${share}%`;
    fill.style.left = isSigned ? `${value < 0 ? 50 - share : 50}%` : "0";
    bar.append(fill);
    return bar;
  }

  function numberCell(name, column, value) {
    const cell = el("td", "");
    cell.dataset.name = name;
    if (value === null) cell.append("–");
    else if (column === CREDIT) {
      cell.append(el("span", `credit ${signOf(value)}`, signed(value)), meter(value, most.credit, true));
    } else if (column === ADVANTAGE) cell.append(signed(value));
    else cell.append(fixed(value));
    if (column === ENTROPY && value !== null) cell.append(meter(value, most.entropy, false));
    return cell;
  }

  // Entropy upwards, credit below about its zero line: where in the episode the weight lies. A bar leads to its step.
  function overview(t) {
    const width = 10 * Math.max(t.steps.length, 24);
    const box = t.hasCredit ? 84 : 34;
    const svg = shape("svg", { viewBox: `0 0 ${width} ${box}`, preserveAspectRatio: "none", role: "group", "aria-label": "Steps" });
    svg.style.height = `${box}px`;
    t.steps.forEach((step, n) => {
      const link = shape("a", { href: address(t, n) }, shape("title", {}, `step ${n + 1}: H ${fixed(step[ENTROPY])}` + (step[CREDIT] === null ? "" : `, credit ${signed(step[CREDIT])}`)));
      link.append(shape("rect", { class: "hit", x: 10 * n, y: 0, width: 10, height: box }));
      const up = (30 * (step[ENTROPY] ?? 0)) / most.entropy;
      link.append(shape("rect", { fill: "var(--heat)", x: 10 * n + 2, y: 32 - up, width: 6, height: Math.max(up, 0.6) }));
      if (step[CREDIT] !== null) {
        const size = Math.max((23 * Math.abs(step[CREDIT])) / most.credit, 0.6);
        const isMinus = step[CREDIT] < 0;
        link.append(shape("rect", { fill: `var(--${signOf(step[CREDIT])})`, x: 10 * n + 2, y: isMinus ? 60 : 60 - size, width: 6, height: size }));
      }
      svg.append(link);
    });
    if (t.hasCredit) svg.append(shape("path", { class: "axis", d: `M0 60H${10 * t.steps.length}`, "vector-effect": "non-scaling-stroke" }));
    return el("div", "overview", svg, el("div", "note", t.hasCredit ? "entropy of every step, and its credit about zero" : "entropy of every step"));
  }

  function members(t) {
    const group = trajectories.filter((o) => o.run === t.run && o.phase === t.phase && o.update === t.update && o.group === t.group);
    if (group.length < 2) return [];
    const line = el("p", "members", el("span", "dim", "its group: "));
    for (const other of group) {
      const text = `${other.success ? "✓" : "✗"} ${other.reward.toFixed(2)}`;
      const node = other === t ? el("b", "", text) : el("a", "", text);
      if (other !== t) node.href = address(other);
      line.append(node);
    }
    return [line];
  }

  function draw(t) {
    const columns = COLUMNS.filter(([, column]) => t.steps.some((step) => step[column] !== null));
    const facts = [runs[t.run], `${phaseOf(t)}, update ${t.update}`, `reward ${t.reward.toFixed(2)}`, `score ${t.score.toFixed(2)}`];
    if (t.phase === "train") facts.push(`group ${t.group}, member ${t.index}`);
    const table = el("table", "steps", el("thead", "", el("tr", "", ...["step", "observation and action", ...columns.map(([name]) => name)].map((name, n) => {
      const head = el("th", n === 1 ? "said" : "", name);
      head.scope = "col";
      return head;
    }))));
    const rows = t.steps.map((step, n) => {
      const head = el("th", "", el("a", "", String(n + 1)));
      head.scope = "row";
      head.firstChild.href = address(t, n);
      head.title = step[TOKENS] === null ? "" : `${step[TOKENS]} tokens`;
      return el("tr", "", head, said(step), ...columns.map(([name, column]) => numberCell(name, column, step[column])));
    });
    table.append(el("tbody", "", ...rows));
    detail.replaceChildren(
      el("div", "head", el("h3", "", texts[t.kind]), verdict(t)),
      el("div", "note", `${texts[t.task]} · ${facts.join(" · ")}`),
      ...members(t),
      ...(t.steps.length ? [overview(t), table] : [el("p", "note", "This trajectory has no steps.")]),
      ...(texts[t.error] ? [el("p", "end minus", texts[t.error])] : []),
    );
    return rows;
  }

  function select(t, step) {
    shown = { t, step, address: location.hash };
    for (const item of items) {
      if (item.t === t) item.link.setAttribute("aria-current", "true");
      else item.link.removeAttribute("aria-current");
    }
    const row = draw(t)[step];
    if (row) row.classList.add("aimed");
    return row;
  }

  // An address that somebody has typed may be none: no trajectory has it.
  function decoded(hash) {
    try {
      return decodeURI(hash);
    } catch {
      return "";
    }
  }

  // `#run/phase-update/group.index`, with `/step-3` for a step.
  function follow(behavior = pace()) {
    if (shown.t && location.hash === shown.address) return true;
    const [, id, step] = /^#(.*?)(?:\/step-(\d+))?$/.exec(decoded(location.hash)) ?? [];
    const item = items.find((candidate) => candidate.t.id === id);
    if (!item) return false;
    aim(select(item.t, step - 1), behavior);
    return true;
  }

  // The chosen trajectory into the window of the list, and its step, or its beginning, into that of the page.
  function aim(row, behavior) {
    showInList(behavior);
    const top = detail.getBoundingClientRect().top;
    if (row) row.scrollIntoView({ block: "center", behavior });
    else if (top < 0 || top > innerHeight * 0.6) detail.scrollIntoView({ block: "start", behavior });
  }

  function showInList(behavior) {
    const link = list.querySelector("[aria-current]");
    if (!link) return;
    const box = list.parentElement;
    const place = link.getBoundingClientRect().top - box.getBoundingClientRect().top;
    if (place < 0 || place > box.clientHeight - link.offsetHeight) {
      box.scrollBy({ top: place - box.clientHeight / 3, behavior });
    }
  }

  const pace = () => (matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth");

  // The address is there already, so nothing changes: but the reader may have scrolled away and wants to see it.
  function again(event) {
    const link = event.target.closest("a");
    if (link && link.getAttribute("href") === location.hash && shown.t) aim(detail.querySelector("tr.aimed"), pace());
  }

  function move(step) {
    const visible = [...list.children].filter((row) => !row.hidden).map((row) => row.firstChild);
    const at = visible.findIndex((link) => link.hasAttribute("aria-current"));
    const next = visible[Math.max(0, Math.min(visible.length - 1, at + step))];
    if (!next) return;
    location.hash = next.hash;
    follow(); // at once: the next key may come before the event
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !byId("shortcuts").checked) return;
    if (event.target.matches("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "/") {
      event.preventDefault();
      byId("query").focus();
    } else if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
  });
  byId("filter").addEventListener("input", filter);
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("browser").addEventListener("click", again);
  window.addEventListener("hashchange", () => follow());

  for (const id of ["filter", "browser", "keys"]) byId(id).hidden = false;
  filter();
  if (!follow("instant")) {
    select((items.find(({ t }) => t.hasCredit) ?? items[0]).t);
    showInList("instant");
  }
}

if (byId("browser")) {
  unpack(byId("packed").textContent).then(browse).catch((error) => {
    byId("trajectories").append(el("p", "minus", `The trajectories could not be drawn: ${error.message}. They are in the run folder, in trajectories/.`));
    throw error;
  });
}
