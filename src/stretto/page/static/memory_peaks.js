// The most that each rank holds, as bars, of which one is chosen.
"use strict";

(() => {
  const { page } = Stretto;
  const { el, format } = page;
  const { LEFT, RIGHT, FONT } = Stretto.memory;
  const HEIGHT = 96, BASE = 18;

  Stretto.memory.Peaks = class {
    constructor(memory, { choose }) {
      Object.assign(this, { memory, choose, canvas: null });
      this.host = el("div", {
        class: "memory-peaks", tabindex: 0, role: "slider", "aria-label": "Rank whose memory is shown",
        "aria-valuemin": 0, "aria-valuemax": memory.ranks - 1,
      });
      this.host.addEventListener("pointermove", (event) => this.tip(event));
      this.host.addEventListener("pointerleave", () => page.tooltip.hide());
      this.host.addEventListener("click", (event) => choose(this.rank(this.across(event))));
      this.host.addEventListener("keydown", (event) => this.key(event));
    }

    get sides() { return ["predicted", "measured"].filter((side) => this.memory[side]); }
    get wide() { return (this.canvas.width - LEFT - RIGHT) / this.memory.ranks; }
    across(event) { return event.clientX - this.host.getBoundingClientRect().left; }
    rank(x) { return Math.min(this.memory.ranks - 1, Math.max(0, Math.floor((x - LEFT) / this.wide))); }

    // The most that a rank holds, without a process that is left out.
    value(side, rank) {
      const left = side === "measured" && this.memory.hidden.has("process") ? this.memory.process[rank] : 0;
      return this.memory[side][rank] - left;
    }

    // The highest of some ranks.
    most(side, from, until) {
      let found = 0;
      for (let rank = from; rank < until; rank++) found = Math.max(found, this.value(side, rank) || 0);
      return found;
    }

    show() {
      const { rank } = this.memory;
      this.host.setAttribute("aria-valuenow", rank);
      this.host.setAttribute("aria-valuetext", `rank ${rank}`);
      this.canvas ??= page.canvas(this.host, { height: HEIGHT, label: "The most that each rank holds", draw: (...a) => this.draw(...a) });
      this.canvas.draw();
    }

    draw(context, width, height) {
      const { memory, sides, wide } = this, floor = height - BASE;
      const top = Math.max(1, ...sides.map((side) => this.most(side, 0, memory.ranks)));
      const y = (value) => floor - value / (top * 1.15) * (floor - 12);
      // With more ranks than there is room for, a bar is the highest of several.
      const columns = Math.min(memory.ranks, Math.floor((width - LEFT - RIGHT) / 2));
      const column = (width - LEFT - RIGHT) / columns;
      const gap = column > 4 ? Math.min(4, column * 0.2) : 0, each = Math.min(44, (column - gap) / sides.length);
      const pad = (column - each * sides.length) / 2;
      for (let c = 0; c < columns; c++) {
        const from = Math.floor(c / columns * memory.ranks), until = Math.max(from + 1, Math.floor((c + 1) / columns * memory.ranks));
        context.globalAlpha = memory.rank >= from && memory.rank < until ? 1 : 0.6;
        sides.forEach((side, i) => {
          const value = this.most(side, from, until);
          context.fillStyle = page.color(side);
          context.fillRect(LEFT + c * column + pad + i * each, y(value), Math.max(1, each - (gap ? 1 : 0)), floor - y(value));
        });
      }
      context.globalAlpha = 1;
      context.font = FONT;
      context.textBaseline = "middle";
      context.fillStyle = page.color("muted");
      context.textAlign = "right";
      context.fillText(format.bytes(top), LEFT - 7, y(top));
      context.fillText("0", LEFT - 7, floor);
      context.strokeStyle = page.color("strong-line");
      context.beginPath(); context.moveTo(LEFT, floor + 0.5); context.lineTo(width - RIGHT, floor + 0.5); context.stroke();
      context.textAlign = "center";
      const every = 2 ** Math.max(0, Math.ceil(Math.log2(34 / wide)));
      for (let rank = 0; rank < memory.ranks; rank += every) context.fillText(String(rank), LEFT + (rank + 0.5) * wide, height - 7);
      context.fillStyle = page.color("accent");
      const x = LEFT + (memory.rank + 0.5) * wide;
      context.beginPath(); context.moveTo(x - 5, 3); context.lineTo(x + 5, 3); context.lineTo(x, 10); context.fill();
    }

    tip(event) {
      const x = this.across(event);
      if (x < LEFT) return page.tooltip.hide();
      const rank = this.rank(x);
      const { memory } = this, own = memory.hidden.has("process") ? [["of it throughout", memory.process[rank]]] : [];
      const lines = [...this.sides.map((side) => [side, memory[side][rank]]), ...own, ["device has", memory.capacity[rank]]];
      page.tooltip.show(event.clientX, event.clientY, el("strong", {}, `rank ${rank}`), el("dl", { class: "step-tip" },
        lines.flatMap(([term, bytes]) => [el("dt", {}, term), el("dd", {}, format.bytes(bytes))])));
    }

    key(event) {
      const { rank, ranks } = this.memory, many = Math.max(1, Math.round(ranks / 16));
      const to = {
        ArrowLeft: rank - 1, ArrowDown: rank - 1, ArrowRight: rank + 1, ArrowUp: rank + 1,
        PageDown: rank - many, PageUp: rank + many, Home: 0, End: ranks - 1,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.choose(Math.min(ranks - 1, Math.max(0, to)));
    }
  };
})();
