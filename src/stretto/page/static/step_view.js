// The timelines of a step on a canvas: a row for each rank, of which only those in sight are drawn.
//
// A closed rank shows what its time goes to, predicted above measured; an open one the device, and
// below it every queue of messages. The canvas stays in sight while the rows scroll behind it.
"use strict";

(() => {
  const { page, timeline } = Stretto;
  const { el, format } = page;
  const RULER = 24, CLOSED = 22, HEAD = 21, DEVICE = 18, QUEUE = 10, GAP = 1, PAD = 7, BETWEEN = 6;
  const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";

  const opposite = (side) => (side === "predicted" ? "measured" : "predicted");

  class View {
    constructor(model, { changed = () => {} } = {}) {
      this.model = model;
      this.changed = changed;               // told when what is in sight has changed
      this.colors = new timeline.Colors(model.sorts);
      this.from_s = 0; this.until_s = model.end_s;
      this.shown = ["predicted", "measured"];
      this.by = "kind";                     // or "difference"
      this.hidden = new Uint8Array(model.sorts.length);
      this.open = new Set();
      this.selected = null; this.hovered = null;   // {side, rank, row}
      this.path = false;
      this.fold = true;                     // ranks that are predicted alike have one row
      this.canvas = el("canvas", { class: "step-canvas", "aria-hidden": "true" });
      this.filler = el("div", { class: "step-filler" }, this.canvas);
      this.element = el("div", {
        class: "step-rows", tabindex: 0, role: "application",
        "aria-label": "Timelines of the ranks. Plus and minus zoom, left and right move, up and down choose a rank, N and P go to the next and previous instruction, O to the same one predicted or measured, Enter opens a rank, Z zooms to the instruction, 0 or Home shows the whole step.",
      }, this.filler);
      this.element.addEventListener("scroll", () => this.draw());
      new ResizeObserver(() => this.measure()).observe(this.element);
      page.onTheme(() => { this.colors.load(); this.draw(); });
      this.pending = 0;
      this.drawn = { ranks: [], rows: 0 };  // what the last frame drew, for whoever asks
      this.arrange();
    }

    // ── where things are ─────────────────────────────────────────────────────────────────────

    // Which ranks have a row, and which row stands for each rank.
    arrange() {
      const { model } = this, rows = new Map();
      this.folded = this.fold && !model.measured;
      this.order = [];
      this.index = Int32Array.from({ length: model.ranks }, (_, rank) => {
        const key = this.folded ? model.predicted.player[rank] : rank;
        if (!rows.has(key)) rows.set(key, this.order.push(rank) - 1);
        return rows.get(key);
      });
      this.open = new Set([...this.open].map((rank) => this.standing(rank)));
      this.measure();
    }

    // The rank whose row stands for a rank.
    standing(rank) { return this.order[this.index[rank]]; }

    get sides() { return this.model.sides.filter(([name]) => this.shown.includes(name)); }
    get narrow() { return this.width < 640; }
    get gutter() {
      const least = this.narrow ? 62 : 96;  // with room for how many are alike
      return this.folded && this.order.length < this.model.ranks ? least + 34 : least;
    }
    get bars() { return this.narrow ? 0 : 108; }
    get plot() { return Math.max(40, this.width - this.gutter - this.bars); }
    x(second) { return this.gutter + (second - this.from_s) / (this.until_s - this.from_s) * this.plot; }
    second(x) { return this.from_s + (x - this.gutter) / this.plot * (this.until_s - this.from_s); }

    tall(rank) {
      if (!this.open.has(rank)) return CLOSED;
      const lanes = this.model.sheet(rank).lanes.length - 1, sides = Math.max(1, this.sides.length);
      return HEAD + PAD + sides * (DEVICE + lanes * (QUEUE + GAP)) + (sides - 1) * BETWEEN;
    }

    // The top of a rank's row, from that of the first.
    top(rank) {
      const at = this.index[rank];
      let y = at * CLOSED;
      for (const other of this.open) if (this.index[other] < at) y += this.tall(other) - CLOSED;
      return y;
    }

    get total() { return this.top(this.order.at(-1)) + this.tall(this.order.at(-1)); }

    // The rank at a height.
    rankAt(y) {
      let low = 0, high = this.order.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (this.top(this.order[middle]) <= y) low = middle; else high = middle - 1;
      }
      return this.order[low];
    }

    // The lanes of a rank: [{name, side, index, queue, y, height}, …]; a closed one has one a side.
    lanes(rank, top = this.top(rank)) {
      const sides = this.sides, found = [];
      if (!this.open.has(rank)) {
        const height = Math.floor((CLOSED - 4 - (sides.length - 1)) / Math.max(1, sides.length));
        sides.forEach(([name, side], i) => found.push(
          { name, side, index: -1, queue: null, y: top + 2 + i * (height + 1), height }));
        return found;
      }
      let y = top + HEAD;
      for (const [name, side] of sides) {
        this.model.sheet(rank).lanes.forEach(({ queue }, index) => {
          const height = index ? QUEUE : DEVICE;
          found.push({ name, side, index, queue: queue < 0 ? null : this.model.queues[queue], y, height });
          y += height + GAP;
        });
        y += BETWEEN - GAP;
      }
      return found;
    }

    measure() {
      if (!this.element.isConnected) return;
      const ratio = devicePixelRatio || 1;
      this.width = Math.max(120, this.element.clientWidth);
      const most = Math.round(Math.min(720, Math.max(320, innerHeight * 0.68)));
      this.height = Math.min(most, this.total + RULER + 2);
      this.element.style.height = `${this.height}px`;
      this.filler.style.height = `${this.total + RULER}px`;
      this.width = Math.max(120, this.element.clientWidth);
      this.canvas.style.width = `${this.width}px`;
      this.canvas.style.height = `${this.height}px`;
      this.canvas.width = Math.round(this.width * ratio);
      this.canvas.height = Math.round(this.height * ratio);
      this.draw();
    }

    // ── what is shown ────────────────────────────────────────────────────────────────────────

    window(from_s, until_s, { glide = false } = {}) {
      const end = this.model.end_s, span = Math.min(Math.max(until_s - from_s, 1e-7), end * 1.05);
      const from = Math.min(Math.max(from_s, -0.02 * end), 1.03 * end - span);
      if (glide && !page.still()) return this.glide(from, from + span);
      this.from_s = from; this.until_s = from + span;
      this.draw();
    }

    glide(from, until) {
      const since = performance.now(), a = this.from_s, b = this.until_s;
      const step = (now) => {
        const share = Math.min(1, Math.max(0, now - since) / 220), eased = 1 - (1 - share) ** 3;
        this.from_s = a + (from - a) * eased; this.until_s = b + (until - b) * eased;
        this.draw();
        if (share < 1) this.gliding = requestAnimationFrame(step);
      };
      cancelAnimationFrame(this.gliding);
      this.gliding = requestAnimationFrame(step);
    }

    zoom(factor, around = (this.from_s + this.until_s) / 2) {
      this.window(around + (this.from_s - around) * factor, around + (this.until_s - around) * factor);
    }

    pan(share) {
      const by = (this.until_s - this.from_s) * share;
      this.window(this.from_s + by, this.until_s + by);
    }

    whole() { this.window(0, this.model.end_s * 1.01, { glide: true }); }

    toggle(rank, on = !this.open.has(this.standing(rank))) {
      rank = this.standing(rank);
      if (on) this.open.add(rank); else this.open.delete(rank);
      this.measure();
    }

    reveal(rank) {
      const top = this.top(rank), room = this.height - RULER, { scrollTop } = this.element;
      if (top < scrollTop || top + this.tall(rank) > scrollTop + room) {
        this.element.scrollTop = Math.max(0, top - Math.max(0, (room - this.tall(rank)) / 2));
      }
    }

    // Show a row: open its rank and make it a good part of what is in sight; `beside` is another side
    // on which the same row is to be in sight too.
    show(at, { share = 0.25, beside = null } = {}) {
      const rows = this.side(at.side)?.rows(at.rank);
      this.selected = at = { ...at, rank: this.standing(at.rank) };
      this.open.add(at.rank);
      this.measure();
      this.reveal(at.rank);
      if (!rows || !Number.isFinite(rows.begin[at.row])) return;
      const twin = at.row < rows.sheet.length ? beside && this.side(beside)?.rows(at.rank) : null;
      const seen = [rows, twin].filter((own) => own && Number.isFinite(own.begin[at.row]));
      const from = Math.min(...seen.map((own) => own.begin[at.row])), until = Math.max(...seen.map((own) => own.end(at.row)));
      const room = Math.max(rows.length[at.row] / share, (until - from) * 1.2, 1e-6) / 2, middle = (from + until) / 2;
      this.window(middle - room, middle + room, { glide: true });
    }

    side(name) { return name === "predicted" ? this.model.predicted : this.model.measured; }

    // The same instruction on the other side; null where there is none, or none that is shown.
    twin(at) {
      const name = opposite(at.side), side = this.shown.includes(name) ? this.side(name) : null;
      const rows = side && at.row < this.model.sheet(at.rank).length ? this.rows(side, at.rank) : null;
      return rows && Number.isFinite(rows.begin[at.row]) ? { ...at, side: name } : null;
    }

    // Where to say something of a row, in pixels of the window; null where it is not drawn.
    spot(at) {
      const box = at.row === undefined ? null : this.box(at), place = this.canvas.getBoundingClientRect();
      if (!box) return null;
      const x = Math.min(Math.max(box.x, this.gutter), this.gutter + this.plot);
      return [place.left + x, place.top + box.y + box.height + RULER - this.element.scrollTop];
    }

    // The rows of a rank on a side, from wherever they are.
    rows(side, rank) { return side.knows(rank) ? side.rows(rank) : null; }

    // Of each row what it is coloured by.
    classes(side, rank, rows) {
      if (this.by === "kind") return rows.sort;
      const measured = this.model.measured?.rows(rank);
      if (rows.shadedBy !== measured || rows.shadeScale !== this.scale_s) {
        rows.shades = new Uint8Array(rows.sort.length).fill(timeline.NEUTRAL);
        for (let i = 0; measured?.extra && i < Math.min(rows.sort.length, rows.sheet.length); i++) {
          rows.shades[i] = timeline.shade(measured.extra[i], this.scale_s);
        }
        rows.shadedBy = measured; rows.shadeScale = this.scale_s;
      }
      return rows.shades;
    }

    get palette() { return this.by === "kind" ? this.colors.kinds : this.colors.shades; }

    // What is under a point: {rank, side, row} or {rank} or null.
    find(x, y) {
      if (y < RULER || x > this.gutter + this.plot) return null;
      const height = y - RULER + this.element.scrollTop;
      if (height > this.total) return null;
      const rank = this.rankAt(height);
      if (x < this.gutter) return { rank };
      const lane = this.lanes(rank).find((l) => height >= l.y && height < l.y + l.height);
      const rows = lane && this.rows(lane.side, rank);
      if (!rows) return { rank, side: lane?.name };
      const reach = 2 * (this.until_s - this.from_s) / this.plot, second = this.second(x);
      const candidates = lane.index < 0 ? rows.lanes : [rows.lanes[lane.index]];
      for (const near of [0, reach]) {
        for (const { at, reach: ends } of candidates) {
          for (let i = timeline.above(ends, second - near); i < at.length; i++) {
            const row = at[i];
            if (rows.begin[row] > second + near) break;
            if (!this.hidden[rows.sort[row]] && rows.end(row) >= second - near) return { rank, side: lane.name, row };
          }
        }
      }
      return { rank, side: lane.name };
    }

    // ── drawing, once a frame at most ────────────────────────────────────────────────────────

    draw() {
      if (this.pending) return;
      this.pending = requestAnimationFrame(() => { this.pending = 0; this.paint(); this.changed(); });
    }

    paint() {
      if (!this.width) return;
      const ratio = this.canvas.width / this.width, context = this.canvas.getContext("2d");
      const wide = Math.round(this.plot * ratio), high = Math.round((this.height - RULER) * ratio);
      if (this.image?.width !== wide || this.image?.height !== high) {
        this.image = new ImageData(wide, Math.max(1, high));
        this.pixels = new Uint32Array(this.image.data.buffer);
        this.line = new Uint32Array(wide);
      }
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.fillStyle = timeline.css(this.colors.surface);
      context.fillRect(0, 0, this.canvas.width, this.canvas.height);
      this.pixels.fill(this.colors.pixel.surface);
      this.labels = [];
      const first = this.rankAt(this.element.scrollTop);
      this.drawn = { ranks: [], rows: 0 };
      let top = this.top(first);
      for (let i = this.index[first]; i < this.order.length && top < this.element.scrollTop + this.height - RULER; i++) {
        const rank = this.order[i];
        this.strip(rank, top, ratio);
        this.drawn.ranks.push(rank);
        top += this.tall(rank);
      }
      context.putImageData(this.image, Math.round(this.gutter * ratio), Math.round(RULER * ratio));
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      this.over(context);
    }

    // The pixels of a rank.
    strip(rank, top, ratio) {
      const { scrollTop } = this.element, { pixels, line, colors } = this, wide = line.length;
      const high = this.image.height;
      const blit = (y, height) => {
        const start = Math.max(0, Math.round((y - scrollTop) * ratio));
        const stop = Math.min(high, Math.round((y - scrollTop + height) * ratio));
        for (let i = start; i < stop; i++) pixels.set(line, i * wide);
      };
      if (this.open.has(rank)) { line.fill(colors.pixel.sunken); blit(top + 1, this.tall(rank) - 2); }
      for (const lane of this.lanes(rank, top)) {
        const scale = wide / (this.until_s - this.from_s);
        line.fill(this.open.has(rank) ? colors.pixel.sunken : colors.pixel.surface);
        const begin = Math.max(0, Math.round(-this.from_s * scale));
        line.fill(colors.pixel.idle, begin, Math.max(begin, Math.round((lane.side.step_s - this.from_s) * scale)));
        this.fill(rank, lane, scale, ratio);
        blit(lane.y, lane.height);
      }
    }

    // A line of pixels: of rows where they are here and can be told apart, else of bins of time.
    fill(rank, lane, scale, ratio) {
      const { side, index } = lane, rows = this.rows(side, rank), closed = index < 0;
      const coarse = side.player[rank] >= 0;  // it has bins
      if (!rows && !coarse) { this.line.fill(this.colors.pixel.surface); return; }
      if (!rows || (closed && coarse && side.bin_s * scale < 1.5 * ratio)) {
        if (closed || index === 0) this.bins(rank, side, scale);
        return;
      }
      const classes = this.classes(side, rank, rows);
      const how = { from: this.from_s, scale, classes, palette: this.palette, hidden: this.hidden };
      if (closed) {
        for (let i = rows.lanes.length - 1; i >= 0; i--) timeline.paint(this.line, rows, rows.lanes[i], how);
      } else {
        const wide = (row, left, right) => this.labels.push({ rank, row, rows, lane, left, right, c: classes[row] });
        timeline.paint(this.line, rows, rows.lanes[index], { ...how, wide: index ? null : wide, least: 34 * ratio });
      }
      this.drawn.rows += rows.begin.length;
    }

    bins(rank, side, scale) {
      const player = side.player[rank], { bins, bin_s } = side, late = this.by === "difference";
      if (late && !side.late) return;
      const cells = (late ? side.late : side.cells).subarray(player * bins, (player + 1) * bins);
      const { pixels } = this.palette, step = timeline.LEVELS + 1;
      for (let p = 0; p < this.line.length; p++) {
        const bin = Math.floor((this.from_s + (p + 0.5) / scale) / bin_s);
        if (bin < 0 || bin >= bins) continue;
        const cell = cells[bin];
        if (late) {
          if (cell) this.line[p] = pixels[timeline.shadeOfCell(cell) * step + step - 2];
        } else if (!this.hidden[cell & 15] && (cell & 15)) {
          this.line[p] = pixels[(cell & 15) * step + (cell >> 4)];
        }
      }
    }
  }

  Object.assign(timeline, { View, RULER, CLOSED, FONT, opposite });
})();
