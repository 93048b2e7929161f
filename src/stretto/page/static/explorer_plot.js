// The plans of an answer as points: seconds of a step against memory, money or energy; the front as
// a step line. Drawn as SVG, so that colours follow the theme and points can be pointed at.
"use strict";

Stretto.explorer = {};

(() => {
  const { page } = Stretto;
  const { el, format } = page;
  const PAD = { left: 64, right: 18, top: 40, bottom: 44 };
  const NEAR = 14;                     // pixels within which a point is meant
  const HUES = ["s1", "s2", "s3", "s4", "s5", "s6", "s7"];
  const ROLES = [["best", "best"], ["running", "runs today"], ["here", "you are here"]];
  const CORNERS = [[11, -9, "start"], [11, 19, "start"], [-11, -9, "end"], [-11, 19, "end"], [11, 34, "start"]];
  const BEYOND = 1.2;                  // of the memory of a device: what is drawn
  const LEAST_SPAN = 0.2;              // of the memory: what the axis spans at least
  const LETTER = 7.2;                  // pixels of a letter of a label, about

  // What time is drawn against, by what is best.
  const shown = (unit) => ({ show: format[unit], tick: format.tick[unit] });
  const AGAINST = {
    memory: { key: "memory_bytes", name: "memory of the fullest rank", binary: true, ...shown("bytes") },
    cost: { key: "money", name: "money for a step", ...shown("money") },
    energy: { key: "energy_j", name: "energy of a step", ...shown("energy") },
  };
  const against = (objective) => AGAINST[objective] ?? AGAINST.memory;

  // A scale between numbers and pixels, and where to put its ticks.
  function scale([low, high], [from, to], { log = false, binary = false, count = 5 } = {}) {
    const f = log ? Math.log : (v) => v;
    const at = (v) => from + (f(v) - f(low)) / (f(high) - f(low) || 1) * (to - from);
    return { at, log, ticks: log ? powers(low, high, count) : even(low, high, count, binary) };
  }

  function even(low, high, count, binary) {
    const rough = (high - low) / count;
    const base = binary ? 2 : 10, size = base ** Math.floor(Math.log(rough) / Math.log(base) + 1e-9);
    const step = binary ? (rough > size * 1.2 ? size * 2 : size) : ([1, 2, 5].find((n) => n * size >= rough) ?? 10) * size;
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-12); i++) found.push(i * step);
    return found;
  }

  function powers(low, high, count) {
    for (const digits of [[1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 5, 7], [1, 2, 5], [1]]) {
      const found = [];
      for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++) {
        for (const digit of digits) {
          const v = digit * 10 ** p;
          if (v >= low && v <= high) found.push(v);
        }
      }
      if (found.length <= count * 1.6) return found;
    }
    return [];
  }

  class Plot {
    // chosen(point): a point was selected: {plan: i} or {cloud: i}.
    constructor(host, { chosen }) {
      this.chosen = chosen;
      this.hues = new Map();             // of kinds, the same while the page is looked at
      this.hidden = new Set();           // kinds
      this.answer = null; this.selected = null;
      this.svg = el("svg:svg", {
        class: "explorer-plot", tabindex: 0, role: "application", "aria-label":
          "Plans by their time and what else they take. Arrow keys move along the front, B goes to the best plan, R to the fastest that runs today, H to this page's plan.",
        onkeydown: (e) => this.key(e), onclick: (e) => this.click(e),
        onpointermove: (e) => this.hover(e), onpointerleave: () => this.leave(),
      });
      this.legend = el("div", { class: "explorer-legend" });
      this.host = host.appendChild(el("div", {}, this.svg));  // of which the width is the picture's
      host.append(this.legend);
      new ResizeObserver(() => { if (this.answer && this.host.clientWidth !== this.width) this.draw(); }).observe(this.host);
    }

    set(answer, selected) {
      this.answer = answer; this.selected = selected;
      for (const [kind] of this.kinds()) {
        if (!this.hues.has(kind)) this.hues.set(kind, HUES[this.hues.size] ?? "faint");
      }
      this.draw();
    }

    select(point) { this.selected = point; this.draw(); }

    // The kinds of plan in the cloud, those with most points first: [[name, points], …].
    kinds() {
      const { kinds, kind } = this.answer.cloud, counts = kinds.map(() => 0);
      for (const i of kind) counts[i]++;
      return kinds.map((name, i) => [name, counts[i]]).sort((a, b) => b[1] - a[1]);
    }

    // ── where things are ─────────────────────────────────────────────────────────────────────

    get axis() { return against(this.answer.asked.objective); }
    value(point) {
      const { plans, cloud } = this.answer;
      return "plan" in point ? [plans[point.plan].step_s, plans[point.plan][this.axis.key]]
        : [cloud.time_s[point.cloud], cloud.against[point.cloud]];
    }
    // A plan that needs far more memory than there is stands at the upper edge.
    at(point) { const [x, y] = this.value(point); return [this.x.at(x), Math.max(PAD.top, this.y.at(y))]; }

    measure() {
      const { plans, cloud, limit_bytes } = this.answer;
      this.width = Math.max(240, this.host.clientWidth);
      this.height = this.width < 520 ? 330 : 430;
      const steps = [...plans.map((p) => p.step_s), ...cloud.time_s];
      const values = [...plans.map((p) => p[this.axis.key]), ...cloud.against];
      const low = least(steps), high = most(steps);
      const log = high > 2.5 * low, room = log ? (high / low) ** 0.03 : 1 + 0.03 * (high - low) / high;
      const across = [PAD.left, this.width - PAD.right], up = [this.height - PAD.bottom, PAD.top];
      this.x = scale([low / room, high * room], across, { log, count: Math.max(4, this.width / 110) });
      const [bottom, top] = this.reach(values);
      const steep = !this.axis.binary && top > 4 * bottom && bottom > 0;
      this.y = scale([bottom, top], up, { log: steep, binary: this.axis.binary, count: this.height / 70 });
      const [a, b = 2 * a] = this.y.ticks;
      this.digits = Math.max(3, Math.ceil(Math.log10(top / Math.abs(b - a))) + 1);
    }

    // The values that are drawn: of memory all that there is, unless plans need far less.
    reach(values) {
      const low = least(values), high = most(values), limit = this.answer.limit_bytes;
      const room = 0.06 * (high - low) || 0.02 * high;
      if (!this.axis.binary) return [Math.max(0, low - room), high + room];
      if (high > limit / 2) return [0, limit * Math.max(1.04, 1.02 * Math.min(BEYOND, high / limit))];
      if (low < high / 2) return [0, high + room];
      const span = Math.max(high - low + 2 * room, LEAST_SPAN * high), middle = (low + high) / 2;  // less is no difference
      return [middle - span / 2, middle + span / 2];
    }

    // ── drawing ──────────────────────────────────────────────────────────────────────────────

    draw() {
      this.measure();
      const { width, height, svg } = this;
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("width", width);
      svg.setAttribute("height", height);
      svg.replaceChildren(this.axes(), this.limit(), this.cloud(), this.front(), this.marks());
      this.drawLegend();
    }

    axes() {
      const { x, y, width, height } = this, floor = height - PAD.bottom, right = width - PAD.right;
      const line = (x1, y1, x2, y2) => el("svg:line", { x1, y1, x2, y2 });
      const text = (content, attributes) => el("svg:text", attributes, content);
      const across = x.ticks.reduce(
        (kept, v) => (kept.length && x.at(v) - x.at(kept.at(-1)) < 54 ? kept : [...kept, v]), []);
      return el("svg:g", { class: "axes", "aria-hidden": "true" },
        y.ticks.map((v) => [line(PAD.left, y.at(v), right, y.at(v)),
          text(this.axis.tick(v, this.digits), { x: PAD.left - 8, y: y.at(v) + 4, "text-anchor": "end" })]).flat(),
        across.map((v) => [line(x.at(v), floor, x.at(v), floor + 4),
          text(format.tick.seconds(v), { x: x.at(v), y: floor + 18, "text-anchor": "middle" })]).flat(),
        text(`a step takes${x.log ? " (log scale)" : ""} →`, { class: "name", x: right, y: height - 8, "text-anchor": "end" }),
        text(`↑ ${this.axis.name}`, { class: "name", x: 6, y: 14, "text-anchor": "start" }));
    }

    limit() {
      const y = this.y.at(this.answer.limit_bytes);
      if (!this.axis.binary || y < PAD.top) return "";
      return el("svg:g", { class: "limit", "aria-hidden": "true" },
        el("svg:line", { x1: PAD.left, x2: this.width - PAD.right, y1: y, y2: y }),
        el("svg:text", { x: this.width - PAD.right - 4, y: y - 5, "text-anchor": "end" },
          `a device has ${format.bytes(this.answer.limit_bytes)}`));
    }

    cloud() {
      const { cloud } = this.answer, paths = cloud.kinds.map(() => []);
      for (let i = 0; i < cloud.time_s.length; i++) {
        const [x, y] = this.at({ cloud: i });
        paths[cloud.kind[i]].push(`M${x.toFixed(1)} ${y.toFixed(1)}h0`);
      }
      return el("svg:g", { class: "cloud", "aria-hidden": "true" }, cloud.kinds.map((kind, i) =>
        this.hidden.has(kind) ? null : el("svg:path", { d: paths[i].join(""), stroke: `var(--${this.hues.get(kind)})` })));
    }

    front() {
      const points = this.answer.front.map((plan) => this.at({ plan }));
      const d = points.map(([x, y], i) => (i ? `H${x}V${y}` : `M${x} ${PAD.top}V${y}`)).join("");
      return el("svg:g", { class: "front" },
        el("svg:path", { d: `${d}H${this.width - PAD.right}` }),
        points.map(([cx, cy], i) => el("svg:circle", { cx, cy, r: 4.5, "data-plan": this.answer.front[i] })));
    }

    // The plans that have a name, and the selected one with its values on the axes.
    marks() {
      const named = new Map();
      for (const [role, text] of ROLES) {
        const plan = this.answer[role];
        if (plan !== null) named.set(plan, [...(named.get(plan) ?? []), [role, text]]);
      }
      const taken = [], drawn = [...named].map(([plan, roles]) => {
        const [x, y] = this.at({ plan }), value = this.value({ plan })[1];
        const beyond = this.axis.binary && value > BEYOND * this.answer.limit_bytes;
        const text = roles.map(([, name]) => name).join(", ") + (beyond ? ` ↑ ${this.axis.show(value)}` : "");
        const [dx, dy, anchor] = this.room(x, y, text.length * LETTER, taken);
        return el("svg:g", { class: `mark ${roles[0][0]}`, "data-plan": plan },
          roles.at(-1)[0] === "here" ? el("svg:path", { d: `M${x} ${y - 8}L${x + 8} ${y}L${x} ${y + 8}L${x - 8} ${y}Z` })
            : el("svg:circle", { cx: x, cy: y, r: 7 }),
          el("svg:text", { x: x + dx, y: y + dy, "text-anchor": anchor }, text));
      });
      return el("svg:g", { class: "marks" }, drawn, this.guide());
    }

    // Where a label beside a point hides no other: the first corner with room.
    room(x, y, width, taken) {
      const boxes = CORNERS.map(([dx, dy, anchor]) => {
        const left = anchor === "start" ? x + dx : x + dx - width;
        return [left, y + dy - 12, left + width, y + dy + 4];
      });
      const apart = (a, b) => a[2] < b[0] || b[2] < a[0] || a[3] < b[1] || b[3] < a[1];
      const inside = (a) => a[0] > PAD.left && a[2] < this.width && a[1] > 0 && a[3] < this.height - PAD.bottom;
      const free = boxes.findIndex((box) => inside(box) && taken.every((other) => apart(box, other)));
      const at = Math.max(0, free);
      taken.push(boxes[at]);
      return CORNERS[at];
    }

    guide() {
      if (!this.selected) return "";
      const [x, y] = this.at(this.selected), floor = this.height - PAD.bottom;
      return el("svg:g", { class: "selected", "aria-hidden": "true" },
        el("svg:path", { d: `M${PAD.left} ${y}H${x}V${floor}` }),
        el("svg:circle", { cx: x, cy: y, r: 10 }));
    }

    drawLegend() {
      const kinds = this.kinds().map(([name]) => name);
      const rest = kinds.filter((kind) => this.hues.get(kind) === "faint");
      const toggle = (kinds) => () => {
        const hide = !this.hidden.has(kinds[0]);
        for (const kind of kinds) hide ? this.hidden.add(kind) : this.hidden.delete(kind);
        this.draw();
      };
      const entries = kinds.filter((kind) => !rest.includes(kind)).map((kind) => [this.hues.get(kind), kind, [kind]]);
      if (rest.length) entries.push(["faint", rest.length > 1 ? `${rest.length} other kinds` : rest[0], rest]);
      const focused = [...this.legend.querySelectorAll("button")].indexOf(document.activeElement);
      this.legend.replaceChildren(page.legend(entries.map(([color, text, kinds]) => ({
        color, text, shape: "dot", on: !this.hidden.has(kinds[0]), onclick: toggle(kinds),
      }))));
      this.legend.querySelectorAll("button")[focused]?.focus();
    }

    // ── pointing and keys ────────────────────────────────────────────────────────────────────

    // The point that is meant by a place on the screen: one that is told in full, before others.
    meant(event) {
      const bounds = this.svg.getBoundingClientRect();
      const px = event.clientX - bounds.left, py = event.clientY - bounds.top;
      const { plans, cloud } = this.answer;
      let found = null, best = NEAR ** 2;
      const look = (point) => {
        const [x, y] = this.at(point), distance = (x - px) ** 2 + (y - py) ** 2;
        if (distance < best) { best = distance; found = point; }
      };
      for (let plan = 0; plan < plans.length; plan++) look({ plan });
      if (found) return found;
      for (let i = 0; i < cloud.time_s.length; i++) {
        if (!this.hidden.has(cloud.kinds[cloud.kind[i]])) look({ cloud: i });
      }
      return found;
    }

    hover(event) {
      if (!this.answer?.plans || event.pointerType === "touch") return;
      const point = this.meant(event);
      this.svg.classList.toggle("pointing", point !== null);
      if (!point) { page.tooltip.hide(); return; }
      const [x, value] = this.value(point), plan = this.answer.plans[point.plan];
      const kind = plan ? plan.kind : this.answer.cloud.kinds[this.answer.cloud.kind[point.cloud]];
      page.tooltip.show(event.clientX, event.clientY,
        el("strong", {}, `${format.seconds(x)}, ${this.axis.show(value)}`),
        kind ? el("div", {}, kind) : null,
        el("div", { class: "mono" }, plan ? plan.words : this.wordsOf?.(point.cloud) ?? ""));
    }

    leave() { this.svg.classList.remove("pointing"); page.tooltip.hide(); }

    click(event) {
      const point = this.answer?.plans && this.meant(event);
      if (point) this.chosen(point);
    }

    key(event) {
      if (!this.answer?.plans) return;
      const { front } = this.answer;
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const named = { b: "best", r: "running", h: "here" }[event.key.toLowerCase()];
      let plan = null;
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (step) plan = front[Math.max(0, Math.min(front.length - 1, this.place() + step))];
      else if (event.key === "Home") plan = front[0];
      else if (event.key === "End") plan = front.at(-1);
      else if (named) plan = this.answer[named];
      else return;
      event.preventDefault();
      if (plan !== null) this.chosen({ plan });
    }

    // The place on the front of what is selected, or of the point of it that is nearest in time.
    place() {
      const { front, plans } = this.answer;
      const at = front.indexOf(this.selected?.plan);
      if (at >= 0) return at;
      const [x] = this.value(this.selected);
      return front.reduce((found, plan, i) => (plans[plan].step_s <= x ? i : found), 0);
    }
  }

  const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
  const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

  Object.assign(Stretto.explorer, { Plot, against });
})();
