// What a rank holds over a step: the curves that page/memory.py packed, and a chart of one.
"use strict";

Stretto.memory = (() => {
  const { page } = Stretto;
  const { el, format, unpack } = page;
  const HEIGHT = 230, LEFT = 64, RIGHT = 8, TOP = 18, BOTTOM = 22;
  const FONT = "10.5px system-ui, sans-serif";
  const WORDS = {
    parameters: "parameters", optimizer: "optimizer", gradients: "gradients", activations: "activations",
    communication: "gathered for use", other: "inputs and votes",
    process: "held throughout by the process", kept: "kept by the allocator",
  };
  const TITLES = {
    communication: "parameters that were gathered from other ranks, for as long as they are used",
    process: "the interpreter, its libraries, and what its allocator had from the start",
    kept: "measured, but held by no buffer of the program: mostly memory that was freed and that the allocator keeps for later",
  };
  const color = (kind) => `m-${kind}`;

  // What a rank holds on one side: bytes by kind, each until the next second.
  class Curve {
    constructor(json, memory) {
      this.memory = memory;
      this.seconds = unpack(json.seconds);
      this.bytes = unpack(json.bytes);   // kinds after one another
      this.made = unpack(json.made);
      this.names = json.names;
      this.peak = json.peak;
      this.count = this.seconds.length;
    }

    of(kind, i) { return this.bytes[kind * this.count + i]; }
    total(i) { return this.memory.kinds.reduce((sum, _, k) => sum + this.of(k, i), 0); }
    // What is left out of the picture, in words.
    get without() {
      const left = this.memory.kinds.filter((kind, k) => this.memory.hidden.has(kind) && this.ever(k));
      const held = (kind) => format.bytes(this.of(this.memory.kinds.indexOf(kind), this.peak));
      return left.filter((kind) => kind !== "kept").map((kind) => (kind === "process" ? `without the ${held(kind)} that the process holds throughout`
        : `without ${held(kind)} ${WORDS[kind]}`)).join(", ");
    }
    // Without the kinds that are left out of the picture.
    height(i) { return this.memory.kinds.reduce((sum, kind, k) => sum + (this.memory.hidden.has(kind) ? 0 : this.of(k, i)), 0); }
    highest() { let most = 0; for (let i = 0; i < this.count; i++) most = Math.max(most, this.height(i)); return most; }
    most(kind) { return this.bytes.subarray(kind * this.count, (kind + 1) * this.count).reduce((a, b) => Math.max(a, b), 0); }
    ever(kind) { return this.bytes.subarray(kind * this.count, (kind + 1) * this.count).some((v) => v > 0); }
    at(second) { return Math.max(0, Stretto.timeline.above(this.seconds, second) - 1); }
    instruction(i) { return this.names[this.made[i]] || "the begin of the step"; }
    parts(i) { return this.memory.present.filter(([, k]) => this.ever(k)).map(([kind, k]) => [WORDS[kind], format.bytes(this.of(k, i)), kind]).reverse(); }
  }

  // All that is known of the memory of a step, and what of it is looked at.
  class Memory {
    constructor(json) {
      this.hidden = new Set();
      this.second = null;        // where the cursor is
      this.take(json);
      // A process that is larger than all that the program holds would hide it.
      if (this.process && this.process[this.rank] > this.measured[this.rank] / 2) this.hidden.add("process");
    }

    take(json) {
      this.ranks = json.ranks;
      this.kinds = json.kinds;
      this.step = json.step;
      this.step_s = { predicted: json.step_s[0], measured: json.step_s[1] };
      this.end_s = Math.max(...json.step_s);
      this.capacity = unpack(json.capacity);
      for (const name of ["predicted", "measured", "process"]) this[name] = json[name] && unpack(json[name]);
      this.player = unpack(json.player);   // ranks of one player are predicted alike
      this.foretold ??= new Map();         // player → its curve, the same in every step
      this.seen = new Map();               // rank → its curve
      json.curves.forEach((one) => this.keep(one));
      if (!(this.rank < json.ranks)) this.rank = json.fullest;
    }

    keep(json) {
      if (json.predicted) this.foretold.set(this.player[json.rank], new Curve(json.predicted, this));
      if (json.measured) this.seen.set(json.rank, new Curve(json.measured, this));
    }

    curve(side) { return side === "predicted" ? this.foretold.get(this.player[this.rank]) : this.seen.get(this.rank); }
    get curves() { return ["predicted", "measured"].map((side) => [side, this.curve(side)]).filter(([, curve]) => curve); }
    get lacks() { return !this.curve("predicted") || (this.measured?.[this.rank] >= 0 && !this.curve("measured")); }
    get present() { return this.kinds.map((kind, k) => [kind, k]).filter(([, k]) => this.curves.some(([, curve]) => curve.ever(k))); }

    // The most bytes that a chart has room for; the device's are in it if they are near.
    get room() {
      const most = Math.max(1, ...this.curves.map(([, curve]) => curve.highest()));
      const limit = this.hidden.size ? 0 : this.capacity[this.rank];
      return limit > most * 2.5 || !limit ? most * 1.12 : Math.max(limit, most) * 1.06;
    }
  }

  // A text that is read on any ground.
  function halo(context, text, x, y) {
    context.save();
    context.strokeStyle = page.color("surface");
    context.lineWidth = 3;
    context.lineJoin = "round";
    context.strokeText(text, x, y);
    context.restore();
    context.fillText(text, x, y);
  }

  // The memory of one side over the step.
  class Chart {
    constructor(memory, side, { moved }) {
      Object.assign(this, { memory, side, moved, canvas: null });
      this.head = el("div", { class: "memory-head" });
      this.host = el("div", {
        class: "memory-chart", tabindex: 0, role: "application",
        "aria-label": `Memory ${side}: left and right move through the step, P goes to the peak.`,
      });
      this.foot = el("small", {});         // what is left out
      this.element = el("div", {}, this.head, this.host, this.foot);
      this.host.addEventListener("keydown", (event) => this.key(event));
      this.host.addEventListener("pointermove", (event) => this.move(event));
      this.host.addEventListener("pointerdown", (event) => this.move(event));
      this.host.addEventListener("pointerleave", () => { if (document.activeElement !== this.host) this.point(null); });
      this.host.addEventListener("blur", () => this.point(null));
    }

    get curve() { return this.memory.curve(this.side); }
    x(second) { return LEFT + second / this.memory.end_s * (this.canvas.width - LEFT - RIGHT); }
    y(bytes) { return TOP + (1 - bytes / this.memory.room) * (HEIGHT - TOP - BOTTOM); }

    show() {
      this.canvas ??= page.canvas(this.host, { height: HEIGHT, label: `Memory over the step, ${this.side}`, draw: (...a) => this.draw(...a) });
      const { curve } = this;
      this.head.replaceChildren(el("b", { class: this.side }, this.side), curve
        ? ` ${format.bytes(curve.height(curve.peak))} at ${format.seconds(curve.seconds[curve.peak])}` : " not recorded");
      this.foot.textContent = curve?.without ?? "";
      this.canvas.draw();
    }

    draw(context, width) {
      const { curve, memory } = this;
      context.font = FONT;
      context.textBaseline = "middle";
      this.grid(context, width);
      if (!curve) return;
      this.fill(context, curve);
      this.limit(context, width);
      this.mark(context, curve.seconds[curve.peak], curve.height(curve.peak), { color: "text", named: true });
      if (memory.second !== null) this.mark(context, memory.second, curve.height(curve.at(memory.second)), { color: "accent" });
    }

    fill(context, curve) {
      const lower = new Float64Array(curve.count), { memory } = this, room = memory.room;
      const y = (bytes) => TOP + (1 - bytes / room) * (HEIGHT - TOP - BOTTOM);
      const x = Float64Array.from(curve.seconds, (second) => this.x(second));
      const next = (i) => (i + 1 < curve.count ? x[i + 1] : Math.max(x[i], this.x(memory.step_s[this.side])));
      memory.kinds.forEach((kind, k) => {
        if (memory.hidden.has(kind)) return;
        context.fillStyle = page.color(color(kind));
        context.beginPath();
        for (let i = 0; i < curve.count; i++) {
          const top = y(lower[i] + curve.of(k, i));
          context.lineTo(x[i], top);
          context.lineTo(next(i), top);
        }
        for (let i = curve.count - 1; i >= 0; i--) {
          context.lineTo(next(i), y(lower[i]));
          context.lineTo(x[i], y(lower[i]));
          lower[i] += curve.of(k, i);
        }
        context.fill();
      });
    }

    grid(context, width) {
      const { room, end_s } = this.memory, least = room / 5, power = 2 ** Math.floor(Math.log2(least));
      const step = [1, 2].map((n) => n * power).find((n) => n >= least);
      context.strokeStyle = page.color("line");
      context.fillStyle = page.color("muted");
      context.lineWidth = 1;
      context.textAlign = "right";
      for (let v = 0; v <= room; v += step) {
        const y = Math.round(this.y(v)) + 0.5;
        context.beginPath(); context.moveTo(LEFT, y); context.lineTo(width - RIGHT, y); context.stroke();
        context.fillText(v ? format.tick.bytes(v) : "0", LEFT - 7, y);
      }
      const ten = 10 ** Math.floor(Math.log10(end_s / 5)), tick = [1, 2, 5, 10].map((n) => n * ten).find((n) => n >= end_s / 5);
      context.textAlign = "center";
      for (let n = 0; n * tick <= end_s * 1.001; n++) {
        context.fillText(n ? format.tick.seconds(n * tick) : "0", Math.min(this.x(n * tick), width - 22), HEIGHT - 9);
      }
    }

    limit(context, width) {
      const limit = this.memory.capacity[this.memory.rank];
      if (!limit || this.memory.hidden.size || limit > this.memory.room) return;
      const y = Math.round(this.y(limit)) + 0.5;
      context.strokeStyle = context.fillStyle = page.color("bad");
      context.setLineDash([6, 4]);
      context.beginPath(); context.moveTo(LEFT, y); context.lineTo(width - RIGHT, y); context.stroke();
      context.setLineDash([]);
      context.textAlign = "left";
      halo(context, `the device has ${format.bytes(limit)}`, LEFT + 6, y - 8);
    }

    mark(context, second, bytes, { color: ink, named = false }) {
      const x = this.x(second), y = this.y(bytes);
      context.strokeStyle = context.fillStyle = page.color(ink);
      context.lineWidth = 1.25;
      context.beginPath(); context.moveTo(x, this.y(0)); context.lineTo(x, y); context.stroke();
      context.beginPath(); context.arc(x, y, 3.5, 0, 7); context.fill();
      if (!named) return;
      const text = `peak ${format.bytes(bytes)}`, wide = context.measureText(text).width;
      context.textAlign = "left";
      halo(context, text, Math.min(Math.max(x - wide / 2, LEFT), this.canvas.width - wide - RIGHT), Math.max(8, y - 10));
    }

    // ── the cursor ───────────────────────────────────────────────────────────────────────────

    point(second, x = 0, y = 0) {
      const { curve, memory } = this;
      memory.second = second;
      this.moved();
      if (second === null || !curve) return page.tooltip.hide();
      const i = curve.at(second);
      page.tooltip.show(x, y, el("strong", {}, `${format.bytes(curve.total(i))} ${this.side}`), ` in all at ${format.seconds(second)}`,
        el("dl", { class: "step-tip" }, curve.parts(i).flatMap(([term, text, kind]) => [
          el("dt", {}, el("i", { class: "swatch", css: { "--swatch": `var(--${color(kind)})` } }), ` ${term}`), el("dd", {}, text)])),
        el("small", {}, `since ${curve.instruction(i)}`));
    }

    move(event) {
      const x = event.clientX - this.host.getBoundingClientRect().left;
      if (!this.curve || x < LEFT) return this.point(null);
      this.point(Math.min(1, (x - LEFT) / (this.canvas.width - LEFT - RIGHT)) * this.memory.end_s, event.clientX, event.clientY);
    }

    key(event) {
      const { curve, memory } = this;
      if (!curve || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") return this.point(null);
      const i = memory.second === null ? curve.peak : curve.at(memory.second);
      const by = event.shiftKey ? Math.max(1, Math.round(curve.count / 50)) : 1;
      const to = { ArrowLeft: i - by, ArrowRight: i + by, Home: 0, End: curve.count - 1, p: curve.peak, P: curve.peak }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const at = Math.min(Math.max(to, 0), curve.count - 1), second = curve.seconds[at];
      const box = this.host.getBoundingClientRect();
      this.point(second, box.left + this.x(second), box.top + this.y(curve.height(at)));
      const held = curve.parts(at).map(([term, text]) => `${term} ${text}`).join(", ");
      page.announce(`${format.seconds(second)}: ${format.bytes(curve.total(at))}, after ${curve.instruction(at)}; ${held}`);
    }
  }

  return { Memory, Chart, WORDS, TITLES, color, LEFT, RIGHT, FONT };
})();
