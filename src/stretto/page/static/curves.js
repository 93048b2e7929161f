// The curves of a training: what Python thinned to at most 4,000 points each, drawn, smoothed,
// compared, and fetched again where somebody zooms in or the run goes on.
"use strict";

(() => {
  const { page } = Stretto;
  const { el, format } = page;

  // What a curve may be drawn over: its name, its ticks, and a place on it.
  const AXES = {
    step: ["Step", (v) => format.tick.count(v), (v) => `step ${format.integer(v)}`],
    tokens: ["Tokens", (v) => format.tick.count(v), (v) => `${format.count(v)} tokens`],
    elapsed_s: ["Time", (v) => format.tick.span(v), (v) => `after ${format.span(v)}`],
  };
  const STEADY = new Set(["step_s", "tokens_per_s", "norm", "lost"]);  // rare steps far off are left out
  const LINES = { checkpoint: "checkpoints", restart: "restarts", skipped: "steps that did not count", incident: "incidents" };  // marks that are told of
  const HALVES = [0, ...Array.from({ length: 17 }, (_, i) => 2 ** i)];
  const TABLE = 25;       // rows of the curves as a table
  const PAUSE_MS = 500;   // between two looks at a run that goes on
  const show = (unit) => (value) => format[unit](value);
  const tick = (unit) => (value) => format.tick[unit](value);

  const moment = (when) => when.replace("T", " ").replace(/(\.\d+)?(\+00:00|Z)$/, " UTC") || "–";

  class Curves {
    constructor(root, data) {
      Object.assign(this, { data, runs: new page.CurveRuns(), charts: new Map(), log: new Set(), unpriced: new Set(), asked: 0 });
      this.legend = el("div", { class: "run-legend" });
      this.note = el("p", { class: "note", hidden: true });
      this.grid = el("div", { class: "cards curve-cards" });
      this.tables = el("div", {});
      this.reset = el("button", { class: "button", type: "button", disabled: true, onclick: () => this.zoom() }, "Show all");
      root.append(this.toolbar(), this.legend, this.note, this.grid, this.tables);
      data.runs.forEach((run) => this.runs.keep(run));
      this.addCharts(data.charts);
      this.draw();
      this.drawTables();
    }

    toolbar() {
      const longest = Math.max(16, ...this.data.runs.map((run) => run.rows)) / 4;
      const halves = HALVES.filter((half) => half <= longest);
      return el("div", { class: "toolbar" },
        page.segmented({
          label: "Over", value: "step", options: Object.entries(AXES).map(([axis, [text]]) => [axis, text]),
          onchange: (axis) => { this.runs.axis = axis; this.draw(); },
        }),
        page.slider({
          label: "Smoothing", min: 0, max: halves.length - 1, value: 0,
          show: (i) => (halves[i] ? `${format.integer(halves[i])} steps` : "off"),
          oninput: (i) => { this.runs.half = halves[i]; this.draw(); },
        }),
        this.reset,
        page.live && this.chooser());
    }

    // Which run to draw beside; runs begin and go, so that they are asked for as somebody chooses.
    chooser() {
      const box = page.select({ label: "Compare with", value: "", options: [], onchange: (name) => this.compare(name) });
      const list = box.querySelector("select");
      const offer = (names) => {
        const left = names.filter((name) => name !== page.run && !this.runs.now.has(name));
        const none = this.runs.now.size > 1 ? "all are drawn" : "there is no other run";
        const options = [["", left.length ? "choose a run…" : none], ...left.map((name) => [name, name])];
        const before = [...list.options].map(({ text }) => text).join("\n");
        if (before !== options.map(([, text]) => text).join("\n")) {
          list.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
        }
      };
      const ask = async () => {
        try { offer((await page.api("runs")).runs.map(({ name }) => name)); } catch (error) { console.warn(error); }
      };
      offer(this.data.choices);
      this.offer = ask;
      for (const event of ["pointerenter", "focusin"]) box.addEventListener(event, ask);
      return box;
    }

    // ── drawing ──────────────────────────────────────────────────────────────────────────────

    addCharts(charts) {
      for (const chart of charts) {
        const known = this.charts.get(chart.id);
        if (!known) this.charts.set(chart.id, this.card(chart));
        else if (known.chart.curves.length < chart.curves.length) known.chart = chart;
      }
    }

    card(chart) {
      const wide = chart.id === "loss", host = el("div", { class: "chart-host" });
      const legend = el("div", { class: "chart-legend" });
      const log = el("small", {}, page.toggle({
        label: "log",
        onchange: (on) => { this.log[on ? "add" : "delete"](chart.id); this.drawChart(chart.id); },
      }));
      this.grid.append(el("div", { class: wide ? "card wide" : "card" },
        el("div", { class: "card-head" }, el("h3", {}, chart.title), legend, chart.id !== "lost" && log), host));
      const drawn = page.chart(host, {
        label: `${chart.title}. Arrow keys move along the curve, plus and minus zoom, 0 shows all.`,
        height: wide ? 300 : 200, binary: chart.unit === "bytes", sync: "curves", y: show(chart.unit), tick: tick(chart.unit),
        x: (v) => AXES[this.runs.axis][1](v), at: (v) => AXES[this.runs.axis][2](v),
        zoomed: (...bounds) => this.zoom(bounds.length ? bounds : null),
      });
      return { chart, drawn, legend };
    }

    draw() {
      for (const id of this.charts.keys()) this.drawChart(id);
      this.drawLegend();
      this.drawNote();
    }

    drawChart(id) {
      const { chart, drawn, legend } = this.charts.get(id), { runs } = this;
      const series = runs.series(chart), levels = runs.levels(chart);
      drawn.set({
        series, levels, marks: runs.marks(), log: this.log.has(id), range: runs.window(), steady: STEADY.has(id),
      });
      const told = new Map(levels.map((level) => [level.label, level]));  // of each run what holds now
      legend.replaceChildren(page.legend([...this.meaning(chart, series), ...[...told.values()].map(
        ({ color, label, value }) => ({ color, shape: "dashed", text: label, value: show(chart.unit)(value) }))]));
    }

    // What the lines of a chart are: with one run its curves, with several what is dashed.
    meaning(chart, series) {
      if (this.runs.now.size < 2) {
        return series.map(({ color, label, points, newest }) => ({
          color, text: label, shape: points ? "dot" : "line", value: show(chart.unit)(newest),
        }));
      }
      if (chart.curves.length < 2) return [];
      return chart.curves.map(({ label }, i) => ({ color: "muted", shape: i ? "dashed" : "line", text: label }));
    }

    drawLegend() {
      const { now, hidden } = this.runs;
      const entries = [...now.values()].map(({ name, color }) => ({
        color, shape: "line", text: name, on: !hidden.has(name),
        onclick: () => {
          hidden[hidden.has(name) ? "delete" : "add"](name);
          this.draw();
        },
      }));
      const kinds = this.runs.marks().map(({ kind }) => kind);
      const marks = Object.entries(LINES).filter(([kind]) => kinds.includes(kind)).map(([kind, text]) => ({
        color: now.size > 1 ? "muted" : page.marks[kind], shape: kind === "checkpoint" ? "dot small" : "dashed", text,
      }));
      const shown = [...(now.size > 1 ? entries : []), ...marks];
      this.legend.replaceChildren(...(shown.length ? [page.legend(shown)] : []));
    }

    drawNote() {
      const runs = [...this.runs.now.values()], size = Math.max(1, ...runs.map((run) => run.size));
      const reading = runs.filter((run) => run.read < 1).map((run) => `Reading ${run.name}: ${format.percent(run.read)}.`);
      const thinned = size > 1 ? [`Each point holds ${format.integer(size)} steps: the line is their mean, ` +
        `the band reaches from the lowest to the highest.${page.live ? " Zoom in for more." : ""}`] : [];
      const text = [...thinned, ...reading].join(" ");
      this.note.hidden = !text;
      this.note.textContent = text;
    }

    drawTables() {
      const { first, now } = this.runs, several = now.size > 1;
      if (!first) return;
      const rows = [...now.values()].flatMap((run) => run.incidents.map((incident) => [
        ...(several ? [run.name] : []), incident.step === null ? "–" : format.integer(incident.step),
        incident.kind, moment(incident.when), page.incidentText(incident)]));
      const happened = () => page.table({
        caption: several ? "What happened to the runs" : "What happened to the run",
        head: [...(several ? ["Run"] : []), "Step", "What", "When", "Which"], rows, numeric: [several ? 1 : 0],
      });
      const open = [...this.tables.querySelectorAll("details")].map((details) => details.open);
      this.tables.replaceChildren(
        ...(several ? [this.comparison()] : []),
        ...(rows.length ? [page.asTable(`What happened: starts, checkpoints and incidents (${rows.length})`, happened)] : []),
        page.asTable("The curves as a table", () => this.table(first)));
      [...this.tables.querySelectorAll("details")].forEach((details, i) => { details.open = open[i] ?? false; });
    }

    // The runs that are drawn, in figures.
    comparison() {
      const at = (show, value, step, last) => (value === null ? "–"
        : show(value) + (step === last ? "" : ` (step ${format.integer(step)})`));
      return el("div", { class: "card run-figures" }, page.table({
        caption: `The runs side by side: what they reached, and the median of the last ${this.data.recent} steps, or of fewer where they have done fewer since their last start`,
        head: ["Run", "Steps", "Loss", "Held-out loss", "Step time", "Tokens a second"], numeric: [1, 2, 3, 4, 5], kind: "stacked",
        rows: [...this.runs.now.values()].map(({ name, summary: it }) => [
          name, format.integer(it.step), at(format.number, it.loss, it.loss_step, it.step),
          at(format.number, it.valid_loss, it.valid_loss_step, it.step), format.seconds(it.step_s), format.count(it.tokens_per_s)]),
      }));
    }

    table(run) {
      const last = run.x.step.length - 1;
      const columns = [...this.charts.values()].flatMap(({ chart: { title, unit, curves } }) => curves
        .filter(({ column }) => column in run.columns)
        .map(({ column, label }) => ({ values: run.columns[column].mean, unit, text: curves.length > 1 ? `${title}: ${label}` : title })));
      const rows = [...new Set(Array.from({ length: TABLE }, (_, i) => Math.round(i * last / (TABLE - 1))))];
      return page.table({
        caption: `${run.name}: ${run.size > 1 ? `means of ${run.size} steps` : "values"}`,
        head: ["Step", ...columns.map(({ text }) => text)], numeric: [...Array(columns.length + 1).keys()],
        rows: rows.filter((i) => i <= last).map((i) => [format.integer(run.x.step[i]),
          ...columns.map(({ values, unit }) => show(unit)(values[i]))]),
      });
    }

    // ── zooming, comparing, going on ─────────────────────────────────────────────────────────

    zoom(bounds) {
      const { runs } = this;
      if (!runs.base) return;
      if (bounds) runs.look(bounds); else runs.showAll();
      this.reset.disabled = !bounds;
      this.draw();
      const [from, to] = runs.range ?? [runs.base.first, runs.base.last];
      page.announce(`Steps ${format.integer(from)} to ${format.integer(to)}`);
      clearTimeout(this.later);
      const thinned = [...runs.now.values()].some((run) => run.size > 1);
      if (page.live && (thinned || !bounds)) this.later = setTimeout(() => this.fetch(), 120);
    }

    // Ask for what is looked at, and a little on each side.
    async fetch() {
      const mine = ++this.asked, { range, now } = this.runs;
      const margin = range ? (range[1] - range[0]) / 4 : 0;
      const params = range ? { from: range[0] - margin, to: range[1] + margin } : {};
      const found = await Promise.all([...now.keys()].map((name) => this.read(name, params)));
      if (mine === this.asked) this.take(found);  // else somebody has zoomed again
    }

    // Ask a run beside by its own page, which knows what is foretold of it, if there can be one.
    async read(name, params = {}) {
      if (name !== this.runs.first.name && !this.unpriced.has(name)) {
        try { return { ...await page.api("curves", { ...params, run: name }), name }; } catch { this.unpriced.add(name); }
      }
      return page.api("curves", { ...params, of: name });
    }

    take(found) {
      found.forEach((run) => this.runs.keep(run));
      this.addCharts(found.flatMap((run) => run.charts));
      this.draw();
    }

    async compare(name) {
      if (!name || this.runs.now.has(name)) return;
      this.take([await this.read(name)]);
      this.drawTables();
      page.announce(`${name} is drawn beside`);
      const url = new URL(location.href);  // so that the page can be kept, and loaded again
      url.searchParams.delete("with");
      for (const other of [...this.runs.now.keys()].slice(1)) url.searchParams.append("with", other);
      history.replaceState(null, "", url);
      this.offer();
      if (this.runs.now.get(name).read < 1) this.follow();
    }

    // Draw what the page's address names beside the run; what is gone by now is left out.
    async recall() {
      for (const name of new URLSearchParams(location.search).getAll("with")) {
        try { await this.compare(name); } catch (error) { page.announce(`${name}: ${error.message}`); }
      }
    }

    // Ask again as the run goes on, not more often than twice a second.
    async follow() {
      if (this.busy) { this.again = true; return; }
      this.busy = true;
      try {
        await this.fetch();
        this.drawTables();
      } catch (error) {
        console.warn(error);  // the server has stopped; the page says so
      }
      const unread = [...this.runs.now.values()].some((run) => run.read < 1);
      setTimeout(() => {
        this.busy = false;
        if (this.again || unread) { this.again = false; this.follow(); }
      }, PAUSE_MS);
    }
  }

  Stretto.section({
    id: "curves",
    title: "Curves",
    order: 4,
    render(root, data) {
      const curves = new Curves(root, data);
      if (!page.live) return;
      const recalled = curves.recall();
      page.onUpdate(({ kind }) => { if (kind === "metrics") curves.follow(); });
      if (data.runs.some((run) => run.read < 1)) curves.follow();
      return recalled;
    },
  });
})();
