// The curves of a training: what Python thinned to at most 4,000 points each, drawn, smoothed,
// compared, and fetched again where somebody zooms in or the run goes on.
"use strict";

Stretto.section({
  id: "curves",
  title: "Curves",
  order: 4,
  render(root, data, page) {
    const { el, format } = page;
    const AXES = {
      step: ["Step", (v) => format.count(v, 4), (v) => `step ${format.integer(v)}`],
      tokens: ["Tokens", (v) => format.count(v, 3), (v) => `${format.count(v, 4)} tokens`],
      elapsed_s: ["Time", (v) => format.seconds(v, 3), (v) => `after ${format.seconds(v, 4)}`],
    };
    const HALVES = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];
    const UNITS = { number: (v) => format.number(v, 4), count: (v) => format.count(v, 3), percent: (v) => format.percent(v, 3), seconds: (v) => format.seconds(v, 3), bytes: (v) => format.bytes(v, 3) };
    const STEADY = new Set(["step_s", "tokens_per_s", "norm", "lost"]);  // rare steps that are far off are left out
    const view = { axis: "step", half: 0, range: null, hidden: new Set(), log: new Set() };
    const runs = new Map();   // name → what is drawn of it, unpacked
    const whole = new Map();  // name → the same of the whole run, to come back to from a zoom
    const charts = new Map();

    // ── data ─────────────────────────────────────────────────────────────────────────────────

    const plainArray = (packed) => Array.from(page.unpack(packed), (v) => (Number.isFinite(v) ? v : null));
    const unpackAll = (tree) => Object.fromEntries(Object.entries(tree).map(([k, v]) => [k, plainArray(v)]));
    function unpacked(run) {
      const columns = {};
      for (const [name, parts] of Object.entries(run.columns)) columns[name] = unpackAll(parts);
      const sparse = {};
      for (const [name, { x, mean }] of Object.entries(run.sparse)) sparse[name] = { x: unpackAll(x), mean: plainArray(mean) };
      return { ...run, x: unpackAll(run.x), columns, sparse };
    }
    function keep(run) {
      const it = unpacked(run);
      it.color = runs.get(run.name)?.color ?? `s${runs.size % 8 + 1}`;
      runs.set(run.name, it);
      if (!view.range) whole.set(run.name, it);
    }

    // A mean that forgets: what lies `half` steps back counts half (debiased, so that it starts
    // where the curve does).
    function smooth(steps, values) {
      if (!view.half) return values;
      let sum = 0, weight = 0, before = steps[0];
      return values.map((value, i) => {
        if (value === null) return null;
        const kept = 2 ** (-(steps[i] - before || 1) / view.half);
        before = steps[i];
        sum = kept * sum + (1 - kept) * value;
        weight = kept * weight + (1 - kept);
        return sum / weight;
      });
    }

    function series(chart) {
      const several = [...runs.keys()].length > 1;
      const found = [];
      for (const run of runs.values()) {
        if (view.hidden.has(run.name)) continue;
        for (const [i, { column, label }] of chart.curves.entries()) {
          const text = several ? `${run.name}, ${label}` : label;
          const color = several ? run.color : `s${i + 1}`;
          const dash = several && i ? [6, 3] : undefined;
          const dense = run.columns[column], sparse = run.sparse[column];
          if (dense) {
            found.push({
              label: text, color, dash, x: run.x[view.axis], y: smooth(run.x.step, dense.mean),
              low: dense.low, high: dense.high, raw: view.half && !dense.low ? dense.mean : undefined,
            });
          } else if (sparse) {
            found.push({ label: text, color, dash, points: sparse.mean.length < 200, x: sparse.x[view.axis], y: sparse.mean });
          }
        }
      }
      return found;
    }

    // Where a step lies on the axis, between the points that are known.
    function place(run, step, from = "step", to = view.axis) {
      const xs = run.x[from], ys = run.x[to];
      let low = 0, high = xs.length - 1;
      if (high < 1 || from === to) return step;
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (xs[middle] <= step) low = middle; else high = middle;
      }
      return ys[low] + (step - xs[low]) / (xs[high] - xs[low] || 1) * (ys[high] - ys[low]);
    }

    function marks() {
      const one = runs.values().next().value;
      if (!one || view.hidden.has(one.name)) return [];
      const base = whole.get(one.name) ?? one;
      return one.incidents.filter((i) => i.step !== null).map((i) => ({
        x: place(base, i.step), kind: i.kind, text: `step ${format.integer(i.step)}: ${said(i)}`,
      }));
    }
    const said = (i) => (i.kind === "checkpoint" ? `saved ${i.text}` : i.text);

    function range() {
      if (!view.range) return null;
      const one = whole.values().next().value;
      return view.range.map((step) => place(one, step));
    }

    // ── pictures ─────────────────────────────────────────────────────────────────────────────

    const toolbar = el("div", { class: "toolbar" });
    const legend = el("div", { class: "run-legend" });
    const state = el("p", { class: "note", hidden: true });
    const grid = el("div", { class: "cards curve-cards" });
    const list = el("div", {});
    root.append(toolbar, legend, state, grid, list);

    const reset = el("button", { class: "button", type: "button", disabled: true, onclick: () => zoom(null) }, "Show all");
    const longest = Math.max(1, ...data.runs.map((r) => r.rows)) / 4;
    const halves = HALVES.filter((h) => h <= Math.max(4, longest));
    toolbar.append(
      page.segmented({
        label: "Over", value: view.axis, options: Object.entries(AXES).map(([k, [text]]) => [k, text]),
        onchange: (axis) => { view.axis = axis; draw(); },
      }),
      page.slider({
        label: "Smoothing", min: 0, max: halves.length - 1, value: 0,
        show: (i) => (halves[i] ? `${format.integer(halves[i])} steps` : "off"),
        oninput: (i) => { view.half = halves[i]; draw(); },
      }),
      reset,
    );
    if (page.live && data.choices.length) {
      toolbar.append(page.select({
        label: "Compare with", value: "",
        options: [["", "choose a run…"], ...data.choices.map((name) => [name, name])],
        onchange: (name) => compare(name),
      }));
    }

    function card(chart, wide) {
      const host = el("div", { class: "chart-host" });
      const box = el("div", { class: wide ? "card wide" : "card" },
        el("div", { class: "card-head" }, el("h3", {}, chart.title),
          el("div", { class: "chart-legend" }),
          chart.id === "lost" ? null : el("small", {}, page.toggle({
            label: "log", onchange: (on) => { view.log[on ? "add" : "delete"](chart.id); draw(chart.id); },
          }))), host);
      grid.append(box);
      const drawn = page.chart(host, {
        label: `${chart.title}. Arrow keys move along the curve, plus and minus zoom, 0 shows all.`,
        height: wide ? 300 : 200, x: (v) => AXES[view.axis][1](v), at: (v) => AXES[view.axis][2](v), y: UNITS[chart.unit], binary: chart.unit === "bytes", sync: "curves",
        zoomed: (a, b) => zoom(a === undefined ? null : [a, b]),
      });
      charts.set(chart.id, { chart, drawn, box });
    }

    function draw(only) {
      const all = marks(), window_ = range();
      for (const [id, { chart, drawn, box }] of charts) {
        if (only && id !== only) continue;
        const found = series(chart), value = data.predicted[id];
        const text = UNITS[chart.unit];
        drawn.set({
          series: found, marks: all, log: view.log.has(id), range: window_,
          levels: value === undefined ? [] : [value], steady: STEADY.has(id),
        });
        const shown = runs.size > 1
          ? chart.curves.length > 1 ? chart.curves.map((c, i) => ({ color: "muted", shape: i ? "dashed" : "line", text: c.label })) : []
          : found.map((s) => ({
            color: s.color, text: s.label, shape: s.points ? "dot" : "line", value: text(s.y.findLast((v) => v !== null)),
          }));
        if (value !== undefined) shown.push({ color: "predicted", shape: "dashed", text: "predicted", value: text(value) });
        box.querySelector(".chart-legend").replaceChildren(page.legend(shown));
      }
    }

    function drawLegend() {
      legend.replaceChildren(...(runs.size > 1 ? [page.legend([...runs.values()].map((run) => ({
        color: run.color, shape: "line", text: run.name, on: !view.hidden.has(run.name),
        onclick: () => {
          view.hidden[view.hidden.has(run.name) ? "delete" : "add"](run.name);
          drawLegend();
          draw();
        },
      })))] : []));
      const sizes = [...runs.values()].filter((r) => r.size > 1).map((r) => r.size);
      const reading = [...runs.values()].filter((r) => r.read < 1);
      state.hidden = !sizes.length && !reading.length;
      const thinned = sizes.length ? `Each point holds ${format.integer(Math.max(...sizes))} steps: the line is their mean, the band reaches from the lowest to the highest.${page.live ? " Zoom in for more." : ""}` : "";
      const read = reading.map((r) => ` Reading ${r.name}: ${format.percent(r.read, 2)}.`).join("");
      state.textContent = thinned + read;
    }

    function drawList() {
      const one = runs.values().next().value;
      const happened = (one?.incidents ?? []).filter((i) => i.kind !== "checkpoint");
      const saved = one?.incidents.filter((i) => i.kind === "checkpoint") ?? [];
      const rows = [...happened, ...saved].map((i) => [
        i.step === null ? "–" : format.integer(i.step), i.kind, i.when ? i.when.replace("T", " ") : "", said(i)]);
      list.replaceChildren(...(rows.length ? [page.asTable(`What happened: ${rows.length} starts, checkpoints and incidents`,
        () => page.table({ caption: "What happened to the run", head: ["Step", "What", "When", ""], rows, numeric: [0] }))] : []),
      page.asTable("The curves as a table", () => curveTable(one)));
    }

    function curveTable(run) {
      const columns = Object.keys(run.columns), count = run.x.step.length;
      const picked = [...new Set(Array.from({ length: Math.min(count, 25) }, (_, i) => Math.round(i * (count - 1) / Math.max(1, Math.min(count, 25) - 1))))];
      const units = Object.fromEntries(data.charts.flatMap((c) => c.curves.map(({ column }) => [column, UNITS[c.unit]])));
      return page.table({
        caption: `${run.name}: ${run.size > 1 ? `means of ${run.size} steps` : "values"}`,
        head: ["Step", ...columns], numeric: [...Array(columns.length + 1).keys()],
        rows: picked.map((i) => [format.integer(run.x.step[i]), ...columns.map((c) => (units[c] ?? format.number)(run.columns[c].mean[i]))]),
      });
    }

    // ── zooming, comparing, going on ─────────────────────────────────────────────────────────

    let asked = 0;
    async function fetchAll() {
      const mine = ++asked;
      const margin = view.range ? (view.range[1] - view.range[0]) * 0.25 : 0;
      const params = view.range ? { from: view.range[0] - margin, to: view.range[1] + margin } : {};
      const found = await Promise.all([...runs.keys()].map((of) => page.api("curves", { of, ...params })));
      if (mine !== asked) return;  // somebody has zoomed again
      found.forEach(keep);
      addCharts(found);
      drawLegend();
      draw();
    }

    function addCharts(found) {
      for (const chart of found.flatMap((run) => run.charts ?? [])) {
        const known = charts.get(chart.id);
        if (!known) card(chart, chart.id === "loss");
        else if (known.chart.curves.length < chart.curves.length) known.chart = chart;
      }
    }

    let later = 0;
    function zoom(bounds) {
      const one = whole.values().next().value;
      view.range = bounds && bounds.map((v) => place(one, v, view.axis, "step"));
      reset.disabled = !view.range;
      if (!view.range) for (const [name, run] of whole) runs.set(name, run);
      drawLegend();
      draw();
      const from = view.range ?? [one.first, one.last];
      page.announce(`Steps ${format.integer(from[0])} to ${format.integer(from[1])}`);
      clearTimeout(later);
      const coarse = [...runs.values()].some((run) => run.size > 1);
      if (page.live && (coarse || !view.range)) later = setTimeout(fetchAll, 120);
    }

    async function compare(name) {
      if (!name || runs.has(name)) return;
      const run = await page.api("curves", { of: name });
      keep(run);
      addCharts([run]);
      drawLegend();
      draw();
      page.announce(`${name} is drawn beside`);
    }

    data.runs.forEach(keep);
    for (const chart of data.charts) card(chart, chart.id === "loss");
    drawLegend();
    draw();
    drawList();
    if (!page.live) return;
    let busy = false, again = false;
    async function follow() {
      if (busy) { again = true; return; }
      busy = true;
      try { await fetchAll(); drawList(); } catch (error) { console.warn(error); }
      setTimeout(() => { busy = false; if (again) { again = false; follow(); } }, 500);
    }
    page.onUpdate(({ kind }) => { if (kind === "metrics") follow(); });
  },
});
