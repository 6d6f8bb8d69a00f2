// Draws each figure from its data. The legend hides series, buttons change axes, pointing shows values.
"use strict";
(() => {
  const el = (name, attributes = {}, parent = null, text = null) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };
  const tag = (name, className, text = null) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== null) element.textContent = text;
    return element;
  };
  const given = (v) => v !== null && v !== undefined;
  const short = (v) => {
    const size = Math.abs(v);
    if (v === 0) return "0";
    if (size >= 1e5 || size < 1e-3) return v.toExponential(2).replace("e+", "e").replace("-", "−");
    if (size >= 1000) return Math.round(v).toLocaleString("en");
    return String(+v.toPrecision(4)).replace("-", "−");
  };
  const tickText = (v) => {
    const size = Math.abs(v);
    if (size >= 1e6) return `${+(v / 1e6).toPrecision(3)}M`;
    if (size >= 1e4) return `${+(v / 1e3).toPrecision(3)}k`;
    if (size > 0 && size < 1e-3) return v.toExponential(0).replace("-", "−");
    return String(+v.toPrecision(6)).replace("-", "−");
  };
  function linearTicks(low, high, wanted) {
    const raw = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
    const ticks = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(i * step);
    return ticks;
  }
  function logTicks(low, high) {
    const ticks = [], decades = Math.log10(high / low);
    const steps = decades > 5 ? [1] : decades > 1.7 ? [1, 3] : [1, 2, 5];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
      for (const m of steps) {
        const v = m * 10 ** e;
        if (v >= low * 0.999 && v <= high * 1.001) ticks.push(v);
      }
    }
    return ticks.length > 1 ? ticks : linearTicks(low, high, 4);
  }
  function scale(log, low, high, from, to) {
    const f = log ? Math.log : (v) => v, a = f(low), b = f(high) - a || 1;
    const position = (v) => from + ((f(v) - a) / b) * (to - from);
    position.ticks = (count) => (log ? logTicks(low, high) : linearTicks(low, high, count));
    return position;
  }
  const range = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);

  function pointsOf(series, view, xLog, yLog) {
    const x = series.x[view] || [];
    return x.map((at, i) => ({ x: at, y: series.y[i], low: series.low[i], high: series.high[i], i, series }))
      .filter((p) => given(p.x) && given(p.y) && (!xLog || p.x > 0) && (!yLog || p.y > 0));
  }
  function limits(panel, drawn, late) {
    if (panel.strips.length) return [0, 1.03];
    const kept = [];
    for (const points of drawn) {
      const first = panel.y.percent && points[0] && points[0].series.line && !late ? Math.floor(points.length / 10) : 0;
      for (const p of points.slice(first)) {
        kept.push(p.y);
        const interval = p.series.markers || (panel.y.percent && (panel.bands || p === points[points.length - 1]));
        if (interval && given(p.low) && (!panel.y.log || p.low > 0)) kept.push(p.low, p.high);
      }
    }
    let [low, high] = range(kept);
    if (panel.y.log) { low = Math.max(low, high / DEPTH); const edge = (high / low) ** 0.06 || 1.1; return low === high ? [low / 2, high * 2] : [low / edge, high * edge]; }
    const edge = 0.07 * (high - low || 4 * Math.abs(high) || 1);
    return [low - edge, high + edge];
  }

  const BROKEN = [null, "7 4", "2 3", "9 3 2 3"], DEPTH = 1e4;
  const dashes = (s) => (s.dash ? { "stroke-dasharray": BROKEN[s.dash] } : {});
  // Corners of a line that holds its value around each point, as matplotlib's steps-mid.
  const corners = (points, f) => points.flatMap((p, i) => {
    if (!p.series.steps) return [[p.x, f(p)]];
    const before = points[i - 1], after = points[i + 1];
    return [[before ? (before.x + p.x) / 2 : p.x, f(p)], [after ? (after.x + p.x) / 2 : p.x, f(p)]];
  });
  let clips = 0;
  function plot(holder, panel, view, state) {
    holder.replaceChildren();
    const axis = panel.x[view], width = holder.clientWidth;
    const height = Math.round(Math.max(235, Math.min(360, width * 0.66)));
    const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${panel.y.label} against ${axis.label}` });
    holder.append(svg);
    el("text", { x: 0, y: 13, class: "title" }, svg, panel.y.label);
    let drawn = panel.series.filter((s) => !state.hidden.has(s.label)).map((s) => pointsOf(s, view, axis.log, panel.y.log));
    if (state.late && !axis.log) drawn = drawn.map((points) => points.slice(points.length >> 1));
    drawn = drawn.filter((points) => points.length);
    holder.hidden = !drawn.length;
    if (holder.hidden) return;
    let [left, right] = range(drawn.flat().map((p) => p.x));
    if (left === right) { const pad = axis.log ? 2 : 1; left = axis.log ? left / pad : left - pad; right = axis.log ? right * pad : right + pad; }
    else if (panel.series.some((s) => s.markers)) {
      if (axis.log) { const pad = (right / left) ** 0.04; left /= pad; right *= pad; }
      else if (!panel.strips.length) { const pad = 0.04 * (right - left); left -= pad; right += pad; }
    }
    if (panel.strips.length) [left, right] = [0, 1];
    const [low, high] = limits(panel, drawn, state.late);
    const probe = scale(panel.y.log, low, high, 0, 1).ticks(6);
    const names = endNames(panel, drawn, width);
    const room = Math.max(panel.strips.length ? 52 : 10, ...names.map((name) => 14 + LETTER * name.length));
    const margin = { left: 14 + 7 * Math.max(...probe.map((t) => tickText(t).length)), right: room, top: 24, bottom: 40 };
    const X = scale(axis.log, left, right, margin.left, width - margin.right);
    const Y = scale(panel.y.log, low, high, height - margin.bottom, margin.top);
    const [x0, x1, y0, y1] = [margin.left, width - margin.right, height - margin.bottom, margin.top];
    const clip = `clip${clips++}`;
    el("rect", { x: x0, y: y1, width: Math.max(x1 - x0, 1), height: y0 - y1 }, el("clipPath", { id: clip }, el("defs", {}, svg)));
    for (const t of Y.ticks(6)) {
      el("line", { x1: x0, x2: x1, y1: Y(t), y2: Y(t), class: "gridline" }, svg);
      el("text", { x: x0 - 6, y: Y(t) + 4, "text-anchor": "end" }, svg, tickText(t));
    }
    let lastText = -Infinity;
    for (const t of X.ticks(Math.max(3, Math.floor(width / 80)))) {
      el("line", { x1: X(t), x2: X(t), y1: y0, y2: y0 + 4, class: "axis" }, svg);
      const reach = 3.6 * tickText(t).length + 5;
      if (X(t) - reach < lastText) continue;
      lastText = X(t) + reach;
      el("text", { x: X(t), y: y0 + 17, "text-anchor": "middle" }, svg, tickText(t));
    }
    el("line", { x1: x0, x2: x1, y1: y0, y2: y0, class: "axis" }, svg);
    el("text", { x: (x0 + x1) / 2, y: height - 4, "text-anchor": "middle" }, svg, axis.label);
    for (const strip of panel.strips) {
      el("rect", { x: x0, y: Y(strip.high), width: x1 - x0, height: Y(strip.low) - Y(strip.high), fill: "var(--band)", opacity: 0.1 }, svg);
      el("text", { x: x1 + 4, y: Y(strip.low) }, svg, strip.label);
    }
    const inside = el("g", { "clip-path": `url(#${clip})` }, svg);
    drawn.forEach((points, i) => {
      const label = points[0].series.label, near = state.near === label;
      const under = drawn.slice(0, i).filter((others) => alike(points, others, Y)).length;
      const group = drawSeries(inside, points, X, Y, panel.y.log, low, panel.bands || near, under);
      if (state.near && !near) group.setAttribute("opacity", 0.2);
    });
    if (names.length) endLabels(svg, drawn, names, X, Y, y1, y0);
    pointing(holder, svg, panel, drawn, X, Y, [x0, x1, y0, y1], axis);
  }
  // Names at the ends of lines, if the lines are few and there is room.
  const LETTER = 6.3, MOST_NAMES = 8;
  function endNames(panel, drawn, width) {
    const shown = drawn.map((points) => points[0].series);
    if (shown.length < 2 || shown.length > MOST_NAMES || panel.strips.length || !shown.every((s) => s.line)) return [];
    const short = shown.map((s) => s.label.replace(/ \(.*\)$/, ""));
    const names = new Set(short).size === short.length ? short : shown.map((s) => s.label);
    return LETTER * Math.max(...names.map((name) => name.length)) < 0.36 * width ? names : [];
  }
  function endLabels(svg, drawn, names, X, Y, top, bottom) {
    const GAP = 13;
    const ends = drawn.map((points, i) => {
      const last = points[points.length - 1];
      const y = Math.min(Math.max(Y(last.y), top), bottom);
      return { name: names[i], s: last.series, x: X(last.x), y, at: y };
    }).sort((a, b) => a.y - b.y);
    ends.forEach((end, i) => { if (i) end.at = Math.max(end.at, ends[i - 1].at + GAP); });
    let limit = bottom + 4;
    for (const end of ends.reverse()) { end.at = Math.min(end.at, limit); limit = end.at - GAP; }
    const right = Math.max(...ends.map((end) => end.x));
    for (const { name, s, x, y, at } of ends) {
      const group = el("g", { class: "s", style: `--l:${s.colour[0]};--d:${s.colour[1]}` }, svg);
      el("path", { d: `M${x + 1},${y}L${right + 4},${at}h4`, fill: "none", stroke: "currentColor", "stroke-width": 1.4, "stroke-opacity": x < right - 1 ? 0.35 : 1 }, group);
      el("text", { x: right + 10, y: at + 4, class: "end" }, svg, name);
    }
  }
  // Whether two lines coincide. Then the upper line is dashed, so that the lower line is seen.
  const alike = (points, others, Y) => points[0].series.line && points.length === others.length
    && points.every((p, i) => p.x === others[i].x && Math.abs(Y(p.y) - Y(others[i].y)) < 1);
  function drawSeries(parent, points, X, Y, log, lowest, bands, under) {
    const s = points[0].series;
    const group = el("g", { class: "s", style: `--l:${s.colour[0]};--d:${s.colour[1]}` }, parent);
    const path = (at) => at.map(([x, y]) => `${X(x).toFixed(1)},${y.toFixed(1)}`).join(" ");
    const bottom = (p) => Y(log && p.low <= 0 ? lowest : p.low);
    const ranged = points.filter((p) => given(p.low));
    if (ranged.length && !s.markers && !bands) {  // an interval at the line's end only: more shades would hide each other
      const last = ranged[ranged.length - 1], at = X(last.x) - 1;
      el("path", { d: `M${at},${bottom(last)}V${Y(last.high)}m-3,0h6M${at - 3},${bottom(last)}h6`, stroke: "currentColor", "stroke-width": 1.2, opacity: 0.75 }, group);
    } else if (ranged.length && !s.markers) {
      const upper = corners(ranged, (p) => Y(p.high)), lower = corners(ranged, bottom).reverse();
      el("polygon", { points: path([...upper, ...lower]), fill: "currentColor", opacity: 0.13 }, group);
    }
    if (s.line) {
      el("polyline", { points: path(corners(points, (p) => Y(p.y))), fill: "none", stroke: "currentColor", "stroke-width": 1.9, "stroke-linejoin": "round", ...(under ? { "stroke-dasharray": "6 12", "stroke-dashoffset": 6 - 6 * under } : dashes(s)) }, group);
    }
    if (!s.markers && points.length > 1) return group;
    for (const p of points) {
      if (given(p.low)) el("line", { x1: X(p.x), x2: X(p.x), y1: bottom(p), y2: Y(p.high), stroke: "currentColor", "stroke-width": 1.3, opacity: 0.65 }, group);
      el("circle", { cx: X(p.x), cy: Y(p.y), r: 3.6, fill: "currentColor" }, group);
    }
    return group;
  }
  const valueText = (p) => short(p.y) + (given(p.low) ? ` [${short(p.low)}, ${short(p.high)}]` : "");
  function pointing(holder, svg, panel, drawn, X, Y, [x0, x1, y0, y1], axis) {
    const all = drawn.flat(), byPoint = all.some((p) => p.series.notes.length);
    const mark = el("line", { y1, y2: y0, class: "cross", visibility: "hidden" }, svg);
    const ring = el("circle", { r: 6.5, fill: "none", stroke: "var(--ink)", visibility: "hidden" }, svg);
    const tip = tag("div", "tip");
    tip.hidden = true;
    holder.append(tip);
    const hide = () => { tip.hidden = true; mark.setAttribute("visibility", "hidden"); ring.setAttribute("visibility", "hidden"); };
    const row = (p, text) => {
      const line = tag("div"), swatch = tag("i", "s");
      swatch.style.cssText = `--l:${p.series.colour[0]};--d:${p.series.colour[1]}`;
      line.append(swatch, tag("b", "", text), tag("span", "", valueText(p)));
      return line;
    };
    const show = (event) => {
      const box = svg.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
      if (px < x0 - 8 || px > x1 + 8 || py < 0 || !all.length) return hide();
      const distance = (p) => (byPoint ? Math.hypot(X(p.x) - px, Y(p.y) - py) : Math.abs(X(p.x) - px));
      const nearest = all.reduce((a, b) => (distance(b) < distance(a) ? b : a));
      tip.replaceChildren(tag("div", "", `${axis.label}: ${short(nearest.x)}`));
      if (byPoint) {
        tip.append(row(nearest, nearest.series.notes[nearest.i] || nearest.series.label));
        ring.setAttribute("cx", X(nearest.x)); ring.setAttribute("cy", Y(nearest.y)); ring.setAttribute("visibility", "visible");
      } else {
        const close = drawn.filter((ps) => ps.length).map((ps) => ps.reduce((a, b) => (Math.abs(b.x - nearest.x) < Math.abs(a.x - nearest.x) ? b : a)));
        close.filter((p) => Math.abs(X(p.x) - X(nearest.x)) < 14).sort((a, b) => b.y - a.y).forEach((p) => tip.append(row(p, p.series.label)));
        mark.setAttribute("x1", X(nearest.x)); mark.setAttribute("x2", X(nearest.x)); mark.setAttribute("visibility", "visible");
      }
      tip.hidden = false;
      const room = holder.clientWidth - tip.offsetWidth, at = X(nearest.x) + 14;
      tip.style.left = `${Math.max(0, at > room ? Math.min(room, X(nearest.x) - tip.offsetWidth - 14) : at)}px`;
      tip.style.top = `${svg.getBoundingClientRect().height}px`; // below the lines
    };
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", hide);
  }

  function buttons(names, chosen, onChoose) {
    const holder = tag("div", "switch");
    names.forEach((name, i) => {
      const button = tag("button", "", name);
      button.type = "button";
      button.setAttribute("aria-pressed", String(i === chosen));
      button.addEventListener("click", () => {
        [...holder.children].forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
        onChoose(i);
      });
      holder.append(button);
    });
    return holder;
  }
  function legend(data, state, redraw) {
    const holder = tag("div", "legend"), seen = new Map();
    data.panels.flatMap((p) => p.series).forEach((s) => seen.has(s.label) || seen.set(s.label, s));
    if (seen.size < 2) return holder;
    for (const [label, s] of seen) {
      const button = tag("button"), swatch = el("svg", { width: 22, height: 10, class: "s", style: `--l:${s.colour[0]};--d:${s.colour[1]}`, "aria-hidden": "true" });
      button.type = "button";
      if (s.line) el("line", { x1: 0, x2: 22, y1: 5, y2: 5, stroke: "currentColor", "stroke-width": 2.4, ...dashes(s) }, swatch);
      if (s.markers) el("circle", { cx: 11, cy: 5, r: 3.6, fill: "currentColor" }, swatch);
      button.append(swatch, tag("span", "", label));
      button.setAttribute("aria-pressed", "true");
      button.title = "show or hide";
      button.addEventListener("click", () => {
        if (!state.hidden.delete(label) && state.hidden.size < seen.size - 1) state.hidden.add(label);
        button.setAttribute("aria-pressed", String(!state.hidden.has(label)));
        redraw();
      });
      // A line whose name is pointed at stands out, with its whole interval.
      for (const [event, near] of [["pointerenter", label], ["pointerleave", null], ["focus", label], ["blur", null]]) {
        button.addEventListener(event, () => { state.near = near; redraw(); });
      }
      holder.append(button);
    }
    return holder;
  }
  function chart(figure) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    const state = { view: data.views[0], late: false, near: null, hidden: new Set() };
    const plots = figure.querySelector(".plots");
    const holders = data.panels.map(() => plots.appendChild(tag("div", "plot")));
    plots.classList.toggle("alone", data.panels.length === 1);
    plots.classList.toggle("three", data.panels.length === 3);
    const redraw = () => data.panels.forEach((panel, i) => plot(holders[i], panel, state.view, state));
    const controls = figure.querySelector(".controls");
    if (data.views.length > 1) controls.append(buttons(data.views.map((v) => `against ${v}`), 0, (i) => { state.view = data.views[i]; redraw(); }));
    const long = data.panels.some((panel) => panel.series.some((s) => s.line && !s.markers && s.y.length >= 6));
    if (long) controls.append(buttons(["whole run", "second half"], 0, (i) => { state.late = i === 1; redraw(); }));
    plots.before(legend(data, state, redraw));
    let width = 0;
    const fit = () => { if (plots.clientWidth !== width) { width = plots.clientWidth; redraw(); } };
    fit();
    new ResizeObserver(() => requestAnimationFrame(fit)).observe(plots);
  }
  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = tag("button", "", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
        const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
        const compare = (a, b) => {
          const [p, q] = [key(a), key(b)];
          if (p === "" || q === "") return (p === "") - (q === ""); // missing values last
          return down * (isNaN(p) || isNaN(q) ? p.localeCompare(q) : p - q);
        };
        table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
      });
    });
  }
  document.querySelectorAll("figure.chart").forEach(chart);
  document.querySelectorAll("table.sortable").forEach(sortable);
  const contents = document.querySelector("nav details");
  const wide = matchMedia("(min-width: 1080px)");
  const open = () => { contents.open = wide.matches; };
  wide.addEventListener("change", open);
  open();
  document.documentElement.dataset.drawn = String(document.querySelectorAll(".plot svg").length);
})();
