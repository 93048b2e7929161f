// The curves of runs as data: unpacked, smoothed, and placed on an axis.
"use strict";

(() => {
  const { page } = Stretto;
  const { format } = page;

  const list = (packed) => Array.from(page.unpack(packed), (v) => (Number.isFinite(v) ? v : null));
  const map = (tree, change) => Object.fromEntries(Object.entries(tree).map(([k, v]) => [k, change(v)]));

  const SET = new Set(["lr"]);  // what a schedule sets, and nothing measures: never smoothed

  class CurveRuns {
    constructor() {
      this.now = new Map();     // name → what is drawn of it
      this.whole = new Map();   // name → the same of the whole run, to come back to from a zoom
      this.hidden = new Set();
      this.axis = "step";
      this.half = 0;            // steps after which a value counts half in the smoothed curve
      this.range = null;        // steps that are looked at; null for all
    }

    get first() { return this.now.values().next().value; }
    get base() { return this.whole.values().next().value; }

    // Take what Python's curves.thinned made.
    keep(made) {
      const run = {
        ...made,
        color: this.now.get(made.name)?.color ?? `s${this.now.size % 8 + 1}`,
        x: map(made.x, list),
        columns: map(made.columns, (parts) => map(parts, list)),
        sparse: map(made.sparse, ({ x, mean }) => ({ x: map(x, list), mean: list(mean) })),
      };
      this.now.set(run.name, run);
      if (!this.range) this.whole.set(run.name, run);
    }

    showAll() {
      this.range = null;
      for (const [name, run] of this.whole) this.now.set(name, run);
    }

    // What a chart draws: series of page.chart.
    series(chart) {
      const several = this.now.size > 1, found = [];
      for (const run of this.now.values()) {
        if (this.hidden.has(run.name)) continue;
        chart.curves.forEach(({ column, label }, i) => {
          const one = this.curve(run, column);
          if (!one) return;
          const text = several ? `${run.name}, ${label}` : label;
          const dash = several && i ? [6, 3] : undefined;
          found.push({ ...one, label: text, color: several ? run.color : `s${i + 1}`, dash });
        });
      }
      return found;
    }

    curve(run, column) {
      const dense = run.columns[column], sparse = run.sparse[column], newest = run.newest[column];
      if (dense) {
        const { mean, low, high } = dense, half = SET.has(column) ? 0 : this.half;
        return { x: run.x[this.axis], y: smooth(run.x.step, mean, half), low, high, raw: half ? mean : undefined, newest };
      }
      return sparse && { x: sparse.x[this.axis], y: sparse.mean, points: sparse.mean.length < 200, newest };
    }

    get shown() { return [...this.now.values()].filter(({ name }) => !this.hidden.has(name)); }

    // What happened to the runs that are drawn, where it is seen: of several each in its colour. That
    // a run began is seen without a mark.
    marks() {
      const several = this.now.size > 1;
      return this.shown.flatMap((run) => {
        const base = this.whole.get(run.name) ?? run, whose = several ? `${run.name}, ` : "";
        return run.incidents.filter(({ step, kind }) => step !== null && kind !== "start").map((incident) => ({
          x: place(base, incident.step, "step", this.axis),
          kind: incident.kind,
          color: several ? run.color : undefined,
          text: `${whose}step ${format.integer(incident.step)}: ${said(incident)}`,
        }));
      });
    }

    // What was foretold of a chart: a level for each part of a run that had another plan.
    levels(chart) {
      const several = this.now.size > 1;
      return this.shown.flatMap((run) => {
        const base = this.whole.get(run.name) ?? run;
        return (run.foretold[chart.id] ?? []).map(([first, last, value]) => ({
          from: place(base, first - 1, "step", this.axis), to: place(base, last, "step", this.axis), value,
          color: several ? run.color : "predicted", label: several ? `${run.name}, predicted` : "predicted",
        }));
      });
    }

    // The part of the axis that is looked at; null for all.
    window() { return this.range && this.range.map((step) => place(this.base, step, "step", this.axis)); }

    // Look at a part of the axis.
    look(bounds) {
      this.range = bounds.map((value) => place(this.base, value, this.axis, "step"));
    }
  }

  const said = ({ kind, text }) => (kind === "checkpoint" ? `saved ${text}` : text);

  // A mean that forgets: what lies `half` steps back counts half; debiased, so that it begins where
  // the curve does.
  function smooth(steps, values, half) {
    if (!half) return values;
    let sum = 0, weight = 0, before = steps[0];
    return values.map((value, i) => {
      if (value === null) return null;
      const kept = 2 ** (-(steps[i] - before || 1) / half);
      before = steps[i];
      sum = kept * sum + (1 - kept) * value;
      weight = kept * weight + (1 - kept);
      return sum / weight;
    });
  }

  // Where a value of one axis lies on another, between the points that are known.
  function place(run, value, from, to) {
    const xs = run.x[from], ys = run.x[to];
    if (xs.length < 2 || from === to) return value;
    let low = 0, high = xs.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] <= value) low = middle; else high = middle;
    }
    return ys[low] + (value - xs[low]) / (xs[high] - xs[low] || 1) * (ys[high] - ys[low]);
  }

  Object.assign(page, { CurveRuns, incidentText: said });
})();
