// A step from afar: every rank from top to bottom, all its time from left to right, and what part
// of it the rows below show.
"use strict";

(() => {
  const { page, timeline } = Stretto;
  const { el, format } = page;
  const LEAST = 40, MOST = 150, ROW = 7;

  timeline.Map = class {
    constructor(view, { choose }) {
      this.view = view;
      this.model = view.model;
      this.choose = choose;
      this.cursor = null;
      this.host = el("div", {
        class: "step-map", tabindex: 0, role: "application",
        "aria-label": "Map of all ranks: arrows move, Enter opens the rank there, 0 shows the whole step.",
      });
      this.canvas = page.canvas(this.host, { height: this.tall(), label: "All ranks over the step", draw: (...a) => this.draw(...a) });
      page.onTheme(() => { this.image = null; this.canvas.draw(); });
      this.listen();
    }

    tall() { return Math.max(LEAST, Math.min(MOST, this.model.ranks * ROW)); }
    get side() { return this.view.sides.at(-1)?.[1] ?? null; }
    x(second) { return this.view.gutter + second / this.model.end_s * (this.canvas.width - this.view.gutter - this.view.bars); }
    second(x) { return (x - this.view.gutter) / (this.canvas.width - this.view.gutter - this.view.bars) * this.model.end_s; }
    rank(y) { return Math.max(0, Math.min(this.model.ranks - 1, Math.floor(y / this.canvas.height * this.model.ranks))); }

    // What every pixel shows, made anew when what it depends on has changed.
    picture(wide, high) {
      const { view, side } = this;
      const key = [side, view.by, view.hidden.join(), wide, high, view.colors.pixel.surface].map(String).join("|") + this.model.step?.step;
      if (this.image && this.key === key && this.of === side) return this.image;
      this.key = key; this.of = side;
      this.image = new ImageData(wide, high);
      const pixels = new Uint32Array(this.image.data.buffer);
      const { colors } = view, late = view.by === "difference", step = timeline.LEVELS + 1;
      const { pixels: palette } = view.palette, cells = late ? side.late : side.cells;
      const end = this.model.end_s;
      for (let y = 0; y < high; y++) {
        const first = Math.floor(y / high * this.model.ranks);
        const stop = Math.max(first + 1, Math.floor((y + 1) / high * this.model.ranks));
        for (let x = 0; x < wide; x++) {
          const bin = Math.floor((x + 0.5) / wide * end / side.bin_s);
          let color = colors.pixel.surface;
          if (bin < side.bins) {
            color = colors.pixel.idle;
            let best = 0;
            for (let rank = first; rank < (late ? stop : first + 1); rank++) {  // the largest difference is seen
              const player = side.player[rank], cell = player < 0 || !cells ? 0 : cells[player * side.bins + bin];
              if (late && Math.abs(cell) > Math.abs(best)) {
                best = cell;
                color = palette[timeline.shadeOfCell(cell) * step + step - 2];
              } else if (!late && (cell & 15) && !view.hidden[cell & 15]) {
                color = palette[(cell & 15) * step + (cell >> 4)];
              }
              if (player < 0) color = colors.pixel.surface;
            }
          }
          pixels[y * wide + x] = color;
        }
      }
      return this.image;
    }

    draw(context, width, height) {
      const { view } = this;
      if (!this.side || !view.width) return;
      const ratio = this.canvas.element.width / width, left = view.gutter;
      const plot = width - left - view.bars;
      const wide = Math.max(1, Math.round(plot * ratio)), high = Math.max(1, Math.round(height * ratio));
      context.putImageData(this.picture(wide, high), Math.round(left * ratio), 0);
      const shown = view.drawn.ranks, n = this.model.ranks;
      const a = Math.max(left, this.x(view.from_s)), b = Math.min(left + plot, this.x(view.until_s));
      const top = (shown[0] ?? 0) / n * height, bottom = ((shown.at(-1) ?? n - 1) + 1) / n * height;
      context.fillStyle = timeline.css(view.colors.surface);
      context.globalAlpha = 0.6;
      context.fillRect(left, 0, a - left, height);
      context.fillRect(b, 0, left + plot - b, height);
      context.globalAlpha = 1;
      context.strokeStyle = context.fillStyle = view.colors.accent;
      context.lineWidth = 1.5;
      context.strokeRect(a + 0.75, 0.75, Math.max(2, b - a - 1.5), height - 1.5);
      if (shown.length < view.order.length) {  // which ranks the rows below show
        context.fillRect(left - 5, top, 4, Math.max(3, bottom - top));
        context.fillRect(left + plot + 1, top, 4, Math.max(3, bottom - top));
      }
      context.font = `11px ${timeline.FONT}`;
      context.fillStyle = view.colors.muted;
      context.textBaseline = "middle";
      context.fillText(n === 1 ? "1 rank" : `${format.integer(n)} ranks`, 4, height / 2);
      if (this.cursor) {
        const x = this.x(this.cursor.second), y = (this.cursor.rank + 0.5) / n * height;
        context.strokeStyle = view.colors.text;
        context.beginPath();
        context.moveTo(left, y); context.lineTo(left + plot, y);
        context.moveTo(x, 0); context.lineTo(x, height);
        context.stroke();
      }
    }

    say({ rank, second }) {
      const { side } = this, player = side.player[rank];
      const bin = Math.min(side.bins - 1, Math.max(0, Math.floor(second / side.bin_s)));
      const what = player < 0 ? side.knows(rank) ? "not read yet" : "not recorded" : this.model.sorts[side.cells[player * side.bins + bin] & 15];
      return [`rank ${rank}`, format.seconds(second), what === "idle" ? "waits for other ranks" : what];
    }

    listen() {
      const { element } = this.canvas, { view } = this;
      const place = (event) => {
        const box = element.getBoundingClientRect();
        return [event.clientX - box.left, event.clientY - box.top];
      };
      let drag = null;
      element.addEventListener("pointerdown", (event) => {
        const [x] = place(event);
        const inside = x > this.x(view.from_s) && x < this.x(view.until_s) && view.until_s - view.from_s < 0.95 * this.model.end_s;
        drag = { x, inside, from: view.from_s, until: view.until_s, moved: false };
        element.setPointerCapture(event.pointerId);
      });
      element.addEventListener("pointermove", (event) => {
        const [x, y] = place(event), at = { rank: this.rank(y), second: this.second(x) };
        if (!drag) {
          if (event.pointerType === "touch" || x < view.gutter || at.second > this.model.end_s) return page.tooltip.hide();
          const [name, second, what] = this.say(at);
          page.tooltip.show(event.clientX, event.clientY, el("strong", {}, name), ` · ${second} · ${what}`);
          return;
        }
        if (Math.abs(x - drag.x) > 4) drag.moved = true;
        if (!drag.moved) return;
        page.tooltip.hide();
        const by = this.second(x) - this.second(drag.x);
        if (drag.inside) view.window(drag.from + by, drag.until + by);
        else view.window(...[drag.x, x].map((v) => this.second(v)).sort((a, b) => a - b));
      });
      element.addEventListener("pointerup", (event) => {
        const [x, y] = place(event);
        if (drag && !drag.moved) this.go({ rank: this.rank(y), second: this.second(x) });
        drag = null;
      });
      element.addEventListener("pointercancel", () => { drag = null; });
      element.addEventListener("pointerleave", () => page.tooltip.hide());
      this.host.addEventListener("wheel", (event) => {
        event.preventDefault();
        view.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.004), this.second(place(event)[0]));
      }, { passive: false });
      this.host.addEventListener("keydown", (event) => {
        const by = event.shiftKey ? 10 : 1, end = this.model.end_s, n = this.model.ranks;
        const moves = { ArrowUp: [-by, 0], ArrowDown: [by, 0], ArrowLeft: [0, -by], ArrowRight: [0, by], PageUp: [-Math.ceil(n / 16), 0], PageDown: [Math.ceil(n / 16), 0] };
        const at = this.cursor ?? { rank: 0, second: 0 };
        if (event.key === "Enter" && this.cursor) this.go(at);
        else if (event.key === "0") view.whole();
        else if (event.key === "Home") this.cursor = { rank: 0, second: 0 };
        else if (event.key === "End") this.cursor = { rank: n - 1, second: end };
        else if (event.key === "Escape") this.cursor = null;
        else if (moves[event.key]) {
          const [down, right] = this.cursor ? moves[event.key] : [0, 0];
          this.cursor = {
            rank: Math.min(n - 1, Math.max(0, at.rank + down)),
            second: Math.min(end, Math.max(0, at.second + right * end / 100)),
          };
          page.announce(this.say(this.cursor).join(", "));
        } else return;
        event.preventDefault();
        this.canvas.draw();
      });
      this.host.addEventListener("blur", () => { this.cursor = null; this.canvas.draw(); });
    }

    // Open a rank, and show the moment.
    go({ rank, second }) {
      const { view } = this, span = view.until_s - view.from_s;
      rank = view.standing(rank);
      view.toggle(rank, true);
      view.reveal(rank);
      if (second < view.from_s || second > view.until_s) view.window(second - span / 2, second + span / 2);
      this.choose({ rank, side: view.sides.at(-1)[0] });
    }
  };
})();
