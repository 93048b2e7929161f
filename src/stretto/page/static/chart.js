// A line chart on uPlot: bands, lines, levels that were foretold, marks of what happened; zoomed by
// dragging or by keyboard, its cursor shared with the charts beside it.
"use strict";

(() => {
  const { page } = Stretto;
  const { el, format } = page;

  const POWERS = Array.from({ length: 60 }, (_, i) => 2 ** i);  // round in binary units
  const TENS = Array.from({ length: 40 }, (_, i) => i - 20).flatMap((power) => [1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
  const TWOS = Array.from({ length: 80 }, (_, i) => 2 ** (i - 20));
  const MARKS = page.marks = { restart: "accent", checkpoint: "faint", skipped: "bad", incident: "warn" };

  // chart(host, {label, height, x(value) → text, at(value) → text, y(value) → text, tick(value) → text, binary, sync,
  // zoomed(min, max) or zoomed() for all})
  // gives {set(content), size(), destroy()}; content is
  //   {series: [{label, color, x: […], y: […], low?, high?, raw?, dash?, points?, newest?}, …],
  //    levels: [{from, to, value, color, label}, …], marks: [{x, kind, text, color?}], log, steady,
  //    range: [min, max] | null}
  // with null where there is no value. Levels are drawn dashed, each where it holds; with `steady` the y axis leaves out
  // rare values far above the rest. `low` and `high` fill a band; `raw`, of which `y` is smoothed, is drawn pale.
  page.chart = (host, { label, height = 220, x, at = x, y, tick = y, binary = false, sync, zoomed }) => {
    const box = el("div", {
      class: "chart", css: { "min-height": `${height}px` }, tabindex: 0, role: "img", "aria-label": label,
      "aria-roledescription": "line chart",
      title: "", onkeydown: (event) => keys(event), onblur: () => { keyed = false; page.tooltip.hide(); },
    });
    host.append(box);
    let plot = null, content = null, built = null, shape = "", width = 0;
    let flat = [];      // the lines of the plot
    let keyed = false;  // whether a key moved the cursor last: what is there then stays shown

    // Every series becomes up to four of uPlot's: low, high, raw, and the line itself.
    function parts(s) {
      const color = () => page.color(s.color);
      const pale = (alpha) => () => fade(page.color(s.color), alpha);
      const quiet = { points: { show: false }, spanGaps: true };
      const found = [];
      if (s.low) {
        found.push({ ...quiet, y: s.high, edge: "high", stroke: "transparent", fillWith: pale(0.18) });
        found.push({ ...quiet, y: s.low, edge: "low", stroke: "transparent" });
      }
      if (s.raw) found.push({ ...quiet, y: s.raw, stroke: pale(0.35), width: 1 });
      found.push({
        y: s.y, of: s, spanGaps: true, stroke: color, width: 1.75, dash: s.dash,
        points: s.points || s.y.length < 3 ? { show: true, size: 5, fill: color, stroke: color } : { show: false },
      });
      return found;
    }

    function build() {
      if (built === content) return;
      built = content;
      const tables = content.series.map((s) => ({ x: s.x, parts: parts(s) }));
      flat = tables.flatMap((t) => t.parts);
      const data = tables.length ? uPlot.join(tables.map((t) => [t.x, ...t.parts.map((p) => p.y)])) : [[]];
      const now = JSON.stringify([
        content.log, tables.map((t) => t.parts.length), content.series.map((s) => [s.color, s.label]),
      ]);
      if (plot && now === shape) {
        plot.setData(data, false);
        frame(plot);
        return;
      }
      shape = now;
      plot?.destroy();
      const bands = flat.flatMap((p, i) => (p.edge === "high" ? [{ series: [i + 1, i + 2], fill: p.fillWith }] : []));
      const grid = { stroke: () => page.color("line"), width: 1 };
      const ticks = { ...grid, size: 4 }, font = "11px system-ui, sans-serif";
      const axis = { stroke: () => page.color("muted"), grid, ticks, font };
      width = Math.max(120, box.clientWidth);
      plot = new uPlot({
        width, height, legend: { show: false }, padding: [10, 18, 0, 0],
        cursor: {
          y: false, sync: { key: sync, scales: ["x", null] }, drag: { x: true, y: false, setScale: false },
          points: {
            size: 7, stroke: () => page.color("surface"),
            fill: (u, i) => (flat[i - 1].of ? page.color(flat[i - 1].of.color) : "transparent"),
          },
          dataIdx: latest,
        },
        scales: {
          x: { time: false },
          y: { distr: content.log ? 3 : 1, range: reach },
        },
        axes: [
          { ...axis, size: 30, values: (u, at) => at.map(x), space: 70 },
          {
            ...axis, ...(binary ? { incrs: POWERS } : {}), ...(content.log ? { splits: (u, _, min, max) => round(min, max, binary ? TWOS : TENS), filter: (u, at) => at } : {}), size: 58,
            values: (u, at) => at.map((v) => (v === null ? "" : tick(v))),
          },
        ],
        series: [{}, ...flat.map(({ y: _, of, edge, fillWith, ...s }) => ({ ...s, show: true }))],
        bands,
        hooks: {
          draw: [drawLevels, drawMarks, drawCut],
          setCursor: [(u) => point(u)],
          setSelect: [(u) => {
            if (u.select.width < 4) return;
            const [a, b] = [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")];
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            zoomed(a, b);
          }],
        },
      }, data, box);
      plot.over.addEventListener("dblclick", () => zoomed());
      plot.over.addEventListener("mouseleave", () => page.tooltip.hide());
      frame(plot);
    }

    // The part of the axis that is looked at; all of it unless somebody zoomed.
    function frame(u) {
      const xs = u.data[0];
      const [min, max] = content.range ?? [xs[0] ?? 0, xs.at(-1) ?? 1];
      u.setScale("x", { min, max: max > min ? max : min + 1 });
    }

    function reach(u, low, high) {
      if (low === null || !Number.isFinite(low)) return content.log ? [0.1, 10] : [0, 1];
      if (content.steady && !content.log) high = Math.min(high, usual(u));
      for (const { value } of content.levels) {  // near enough to be worth the room
        if (value > 0 && value < 8 * Math.max(Math.abs(high), 1e-300) && value > Math.abs(low) / 8) {
          low = Math.min(low, value);
          high = Math.max(high, value);
        }
      }
      if (content.log) return [low > 0 ? low * 0.92 : 1e-9, high > 0 ? high * 1.08 : 1];
      const room = high - low > 1e-6 * Math.abs(high) ? (high - low) * 0.08 : Math.abs(high) * 0.1 || 1;
      return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
    }

    // Every visible value: [[value, its place], …].
    function visible(u) {
      const [first, last] = u.series[0].idxs, found = [];
      for (const [i, values] of u.data.entries()) {
        if (!i) continue;
        for (let k = first; k <= last; k++) if (typeof values[k] === "number") found.push([values[k], k]);
      }
      return found;
    }

    // Twice what all but two of a hundred visible values stay below.
    function usual(u) {
      const found = visible(u).map(([value]) => value).sort((a, b) => a - b);
      return found.length < 8 ? Infinity : 2 * found[Math.floor(0.98 * (found.length - 1))];
    }

    // The last value that a curve had by then: never one that came later.
    function latest(u, series, at) {
      const values = u.data[series];
      while (at >= 0 && (values[at] === null || values[at] === undefined)) at--;
      return at < 0 ? null : at;
    }

    function drawLevels(u) {
      const { ctx, bbox } = u, ratio = uPlot.pxRatio;
      ctx.save();
      ctx.lineWidth = 1.5 * ratio;
      ctx.setLineDash([6 * ratio, 4 * ratio]);
      const inside = (at) => Math.max(bbox.left, Math.min(bbox.left + bbox.width, u.valToPos(at, "x", true)));
      for (const { from, to, value, color } of content.levels) {
        const top = u.valToPos(value, "y", true), [left, right] = [inside(from), inside(to)];
        if (!(top >= bbox.top && top <= bbox.top + bbox.height) || right <= left) continue;
        ctx.strokeStyle = page.color(color);
        ctx.beginPath();
        ctx.moveTo(left, top);
        ctx.lineTo(right, top);
        ctx.stroke();
      }
      ctx.restore();
    }

    function drawMarks(u) {
      const { ctx, bbox } = u, ratio = uPlot.pxRatio;
      ctx.save();
      for (const { x: at, kind, color } of content.marks) {
        const left = u.valToPos(at, "x", true);
        if (!(left >= bbox.left && left <= bbox.left + bbox.width)) continue;
        ctx.strokeStyle = ctx.fillStyle = page.color(color ?? MARKS[kind]);
        ctx.beginPath();
        if (kind === "checkpoint") {  // there are many, and all is well
          ctx.arc(left, bbox.top + bbox.height - 4 * ratio, 2 * ratio, 0, 2 * Math.PI);
          ctx.fill();
          continue;
        }
        ctx.lineWidth = ratio;
        ctx.setLineDash([3 * ratio, 3 * ratio]);
        ctx.moveTo(left, bbox.top + bbox.height);
        ctx.lineTo(left, bbox.top);
        ctx.stroke();
        ctx.beginPath();
        ctx.moveTo(left - 4 * ratio, bbox.top);
        ctx.lineTo(left + 4 * ratio, bbox.top);
        ctx.lineTo(left, bbox.top + 6 * ratio);
        ctx.fill();
      }
      ctx.restore();
    }

    // Say at the top how far the highest value lies above what is drawn.
    function drawCut(u) {
      const [value, k] = content.steady && !content.log ? visible(u).reduce((a, b) => (b[0] > a[0] ? b : a), [-Infinity, 0]) : [-Infinity, 0];
      const cut = value > u.scales.y.max;
      box.ariaLabel = cut ? `${label} Values go up to ${y(value)}, above the picture.` : label;
      delete box.dataset.cut;
      if (!cut) return;
      box.dataset.cut = `up to ${y(value)}`;
      const { ctx, bbox } = u, ratio = uPlot.pxRatio, left = u.valToPos(u.data[0][k], "x", true);
      const begins = left < bbox.left + bbox.width / 2;
      ctx.save();
      ctx.fillStyle = page.color("muted");
      ctx.font = `${11 * ratio}px system-ui, sans-serif`;
      ctx.textBaseline = "top";
      ctx.textAlign = begins ? "left" : "right";
      ctx.fillText(begins ? `↑ ${box.dataset.cut}` : `${box.dataset.cut} ↑`, left + (begins ? 6 : -6) * ratio, bbox.top + 2 * ratio);
      ctx.restore();
    }

    function rows(u) {
      const here = u.data[0][u.cursor.idx];
      const found = flat.flatMap((p, i) => {
        const own = p.of?.raw ? i : i + 1;  // of the data: the values as they are
        const k = p.of ? u.cursor.idxs[i + 1] : null, value = k === null ? null : u.data[own][k];
        if (value === null || value === undefined) return [];
        const wide = p.of.low ? ` (${y(u.data[own - 1][k])} … ${y(u.data[own - 2][k])})` : "";
        const then = k === u.cursor.idx ? "" : ` (${at(u.data[0][k])})`;
        const row = { color: p.of.color, shape: p.of.dash ? "dashed" : "line", text: p.of.label, value: y(value) + wide + then };
        return p.of.raw ? [row, { ...row, text: `${p.of.label}, smoothed`, value: y(u.data[i + 1][k]) }] : [row];
      });
      const told = content.levels.filter(({ from, to }) => from < here && here <= to);
      return [...found, ...told.map(({ color, label, value }) => ({ color, shape: "dashed", text: label, value: y(value) }))];
    }

    function point(u) {
      const { left, top, idx, event } = u.cursor;
      if (idx === null || idx === undefined || left < 0) return;
      const here = u.posToVal(left, "x");
      const span = (u.scales.x.max - u.scales.x.min) / u.over.clientWidth * 5;
      const near = content.marks.filter((m) => Math.abs(m.x - here) < span).slice(0, 4);
      const said = rows(u);
      const words = [...said.map((r) => `${r.text} ${r.value}`), ...near.map((m) => m.text)];
      box.dataset.said = [at(u.data[0][idx]), ...words].join("; ");
      if (!keyed && !(event && u.over.matches(":hover"))) return;
      const bounds = u.over.getBoundingClientRect();
      page.tooltip.show(bounds.left + left, bounds.top + top,
        el("strong", {}, at(u.data[0][idx])),
        page.legend(said),
        near.map((m) => el("div", { class: "muted" }, m.text)));
    }

    // ← → move the cursor, + − zoom, 0 shows all; what is under the cursor is said aloud.
    function keys(event) {
      if (built !== content) {  // whoever comes by keyboard may be here before the picture
        build();
        queueMicrotask(() => keys(event));  // when uPlot has found its scales
        return;
      }
      if (event.key === "Escape") keyed = false;
      const u = plot, xs = u?.data[0];
      if (!xs?.length) return;
      const { min, max } = u.scales.x;
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
      const scale = { "+": 0.5, "=": 0.5, "-": 2 }[event.key];
      const at = u.cursor.idx ?? Math.floor(xs.length / 2);
      if (step !== undefined || event.key === "Home" || event.key === "End") {
        const to = event.key === "Home" ? 0 : event.key === "End" ? xs.length - 1
          : Math.max(0, Math.min(xs.length - 1, at + step));
        keyed = true;
        u.setCursor({ left: u.valToPos(xs[to], "x"), top: u.over.clientHeight / 2 });
        page.announce(box.dataset.said ?? "");
      } else if (scale !== undefined) {
        const middle = u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : (min + max) / 2;
        const [a, b] = [middle - (middle - min) * scale, middle + (max - middle) * scale];
        if (a <= xs[0] && b >= xs.at(-1)) zoomed(); else zoomed(a, b);
      } else if (event.key === "0") zoomed();
      else return;
      event.preventDefault();
    }

    addEventListener("pointermove", () => { keyed = false; }, { passive: true });
    addEventListener("scroll", () => { if (keyed) point(plot); }, { passive: true });  // which hid it
    const watch = new ResizeObserver(() => {
      if (plot && box.clientWidth && box.clientWidth !== width) {
        width = box.clientWidth;
        plot.setSize({ width, height });
      }
    });
    watch.observe(box);
    const rebuild = page.nearby(box, build);
    page.onTheme(page.nearby(box, () => plot?.redraw(false, true)));

    return {
      set(next) { content = { levels: [], marks: [], log: false, steady: false, range: null, ...next }; rebuild(); },
      zoom(range) { content.range = range; if (plot) frame(plot); },
      get element() { return box; },
    };
  };

  // Round values between two on a logarithmic axis: of `numbers`, or of many only each so many;
  // where there are few, equal steps of one of them.
  function round(min, max, numbers) {
    const found = numbers.filter((value) => value >= min && value <= max);
    if (found.length > 3) return found.length > 12 ? found.filter((_, i) => i % Math.ceil(found.length / 8) === 0) : found;
    const step = numbers.find((value) => value >= (max - min) / 6), begin = Math.ceil(min / step);
    return Array.from({ length: Math.max(0, Math.floor(max / step) - begin + 1) }, (_, i) => (begin + i) * step);
  }

  // The same colour, less of it.
  function fade(color, alpha) {
    const hex = /^#(..)(..)(..)$/.exec(color);
    return hex ? `rgb(${hex.slice(1).map((h) => parseInt(h, 16)).join(" ")} / ${alpha})` : color;
  }
})();
