// What is drawn over the pixels of the timelines: names, the clock, bars, the critical path, links.
"use strict";

(() => {
  const { page, timeline } = Stretto;
  const { format } = page;
  const { RULER, CLOSED, FONT } = timeline;

  // Seconds between marks of a clock: 1, 2 or 5 of a power of ten.
  function tick(least) {
    const power = 10 ** Math.floor(Math.log10(least));
    return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least);
  }

  function cut(text, room) {
    const most = Math.floor(room / 5.6);
    return text.length <= most ? text : most > 4 ? `${text.slice(0, most - 1)}…` : "";
  }

  // As much of a name as there is room for: its colour says what the first word does.
  function fitting(name, room) {
    const words = name.split(" ");
    const ways = [name, words.slice(1).join(" "), words.slice(1).join(" ").replace(/^[^[]*\[/, "["), words.at(-1)];
    return ways.find((text) => text && text.length * 5.6 <= room) ?? "";
  }

  Object.assign(timeline.View.prototype, {
    over(context) {
      const { scrollTop } = this.element;
      context.textBaseline = "middle";
      context.save();
      context.beginPath();
      context.rect(this.gutter, RULER, this.plot, this.height - RULER);
      context.clip();
      context.translate(0, RULER - scrollTop);
      this.grid(context, scrollTop);
      if (this.path) for (const [name, side] of this.sides) this.critical(context, name, side);
      this.texts(context);
      for (const at of [this.selected, this.hovered]) if (at) this.mark(context, at);
      context.restore();
      context.save();
      context.beginPath();
      context.rect(0, RULER, this.width, this.height - RULER);
      context.clip();
      context.translate(0, RULER - scrollTop);
      for (const rank of this.drawn.ranks) this.beside(context, rank);
      context.restore();
      this.ruler(context);
    },

    // Where each step ends, through all rows.
    grid(context, scrollTop) {
      for (const [name, side] of this.model.sides) {
        const x = Math.round(this.x(side.step_s)) + 0.5;
        context.strokeStyle = this.colors[name];
        context.setLineDash(name === "predicted" ? [4, 3] : []);
        context.beginPath();
        context.moveTo(x, scrollTop);
        context.lineTo(x, scrollTop + this.height);
        context.stroke();
      }
      context.setLineDash([]);
    },

    texts(context) {
      const ratio = this.canvas.width / this.width, { palette } = this;
      context.font = `11px ${FONT}`;
      context.textAlign = "left";
      for (const { rank, row, rows, lane, left, right, c } of this.labels) {
        const from = Math.max(left / ratio, 0), until = Math.min(right / ratio, this.plot);
        const text = fitting(this.model.name(rank, row, rows), until - from - 8);
        if (!text) continue;
        context.fillStyle = palette.ink[c];
        context.fillText(text, this.gutter + from + 5, lane.y + lane.height / 2 + 0.5);
      }
    },

    // The rectangle of a row; null where it is not in sight.
    box(at, lanes = this.lanes(at.rank)) {
      const side = this.side(at.side), rows = side && this.rows(side, at.rank);
      if (!rows || !(at.row < rows.begin.length) || !Number.isFinite(rows.begin[at.row])) return null;
      const queue = at.row < rows.sheet.length ? rows.sheet.queue[at.row] : -1;
      const index = rows.sheet.lanes.findIndex((l) => l.queue === queue);
      const lane = lanes.find((l) => l.name === at.side && (l.index < 0 || l.index === index));
      if (!lane) return null;
      const x = this.x(rows.begin[at.row]);
      return { x, width: Math.max(2, this.x(rows.end(at.row)) - x), y: lane.y, height: lane.height };
    },

    // A row, the same on the other side, and the others in its message.
    mark(context, at) {
      if (at.row === undefined) return;
      const frame = (box, width, color) => {
        context.lineWidth = width;
        context.strokeStyle = color;
        context.strokeRect(box.x - 0.5, box.y - 0.5, box.width + 1, box.height + 1);
      };
      const box = this.box(at), { text } = this.colors;
      if (!box) return;
      const there = this.twin(at), twin = there && this.box(there);
      if (twin) {
        context.fillStyle = context.strokeStyle = text;
        context.globalAlpha = 0.12;
        context.beginPath();
        const [high, low] = twin.y < box.y ? [twin, box] : [box, twin];
        context.moveTo(high.x, high.y + high.height); context.lineTo(high.x + high.width, high.y + high.height);
        context.lineTo(low.x + low.width, low.y); context.lineTo(low.x, low.y);
        context.fill();
        context.globalAlpha = 1;
        frame(twin, 1, text);
      }
      for (const [other, row] of this.model.peers(at.rank, at.row)) {
        const rank = this.standing(other);
        if (rank === at.rank) continue;
        const peer = this.box({ side: at.side, rank, row });
        if (!peer) continue;
        frame(peer, 1, text);
        const a = { x: box.x + box.width / 2, y: box.y + box.height / 2 };
        const b = { x: peer.x + peer.width / 2, y: peer.y + peer.height / 2 };
        context.beginPath();
        context.moveTo(a.x, a.y);
        context.bezierCurveTo(a.x + 18, a.y, b.x + 18, b.y, b.x, b.y);
        context.lineWidth = 1.25;
        context.stroke();
      }
      frame(box, 2, text);
    },

    // What the length of the step comes from, from row to row and from rank to rank.
    critical(context, name, side) {
      const { rank, row, begin, length } = side.path, seen = new Map(), { scrollTop } = this.element;
      const low = this.index[this.drawn.ranks[0]], high = this.index[this.drawn.ranks.at(-1)];
      const y = (i) => {
        const of = rank[i];
        if (!seen.has(of)) {
          const lanes = this.index[of] >= low && this.index[of] <= high ? this.lanes(of).filter((l) => l.name === name) : null;
          seen.set(of, lanes);
        }
        const lanes = seen.get(of);
        if (!lanes) return this.index[of] < low ? scrollTop - 20 : scrollTop + this.height + 20;
        const queue = row[i] >= 0 ? this.model.sheet(of).queue[row[i]] : -1;
        const index = this.model.sheet(of).lanes.findIndex((l) => l.queue === queue);
        const lane = lanes.find((l) => l.index < 0 || l.index === index);
        return lane.index === 0 ? lane.y + lane.height - 2 : lane.y + lane.height / 2;  // below the names
      };
      context.beginPath();
      let last = -Infinity, started = false;
      for (let i = 0; i < begin.length; i++) {
        if (begin[i] + length[i] < this.from_s) continue;
        if (begin[i] > this.until_s) break;
        const from = this.x(begin[i]), until = this.x(begin[i] + length[i]);
        if (until - last < 0.75 && rank[i] === rank[i - 1]) continue;
        const at = y(i);
        if (started) context.lineTo(from, at); else context.moveTo(from, at);
        context.lineTo(until, at);
        started = true;
        last = until;
      }
      context.lineJoin = "round";
      for (const [width, color] of [[4, timeline.css(this.colors.surface)], [1.75, this.colors.text]]) {
        context.lineWidth = width;
        context.strokeStyle = color;
        context.stroke();
      }
    },

    // The name of a rank, and where its time goes.
    beside(context, rank) {
      const top = this.top(rank), open = this.open.has(rank), { colors } = this;
      context.textAlign = "left";
      context.fillStyle = open ? colors.text : colors.muted;
      context.font = `${open ? 600 : 400} 11px ${FONT}`;
      context.fillText(`${open ? "▾" : "▸"} ${this.narrow ? "" : "rank "}${rank}`, 6, top + CLOSED / 2);
      const alike = this.folded ? this.model.predicted.alike(rank) : 1;
      if (alike > 1) {
        context.textAlign = "right";
        context.font = `11px ${FONT}`;
        context.fillText(`×${alike}`, this.gutter - 6, top + CLOSED / 2);
        context.textAlign = "left";
      }
      if (open) this.names(context, rank, top);
      if (!this.bars) return;
      const x = this.gutter + this.plot + 12, room = this.bars - 16;
      const spots = this.lanes(rank, top).filter((lane) => lane.index <= 0);
      for (const { side, y, height } of spots) {
        const usage = side.usage(rank);
        if (!usage) continue;
        let at = x;
        const whole = this.model.end_s;
        const order = [...usage.keys()].slice(1).concat(0);  // what is nobody's comes last
        for (const sort of order) {
          const width = usage[sort] / whole * room;
          if (width <= 0) continue;
          context.fillStyle = colors.kinds.css[sort];
          context.globalAlpha = this.hidden[sort] ? 0.25 : 1;
          context.fillRect(at, y, width, Math.min(height, 10));
          at += width;
        }
        context.globalAlpha = 1;
      }
    },

    names(context, rank, top) {
      const { colors, narrow } = this;
      context.font = `11px ${FONT}`;
      context.fillStyle = colors.faint;
      context.fillText(this.model.place(rank), this.gutter + 4, top + CLOSED / 2);
      context.textAlign = "right";
      for (const lane of this.lanes(rank, top)) {
        const device = lane.index === 0;
        context.font = `${device ? 10.5 : 9}px ${FONT}`;
        context.fillStyle = device ? colors[lane.name] : colors.faint;
        const text = device ? (narrow ? lane.name.slice(0, 4) : lane.name) : lane.queue.name;
        context.fillText(cut(text, this.gutter - 8), this.gutter - 6, lane.y + lane.height / 2 + 0.5);
      }
    },

    ruler(context) {
      const { colors } = this, span = this.until_s - this.from_s;
      context.fillStyle = timeline.css(colors.surface);
      context.fillRect(0, 0, this.width, RULER);
      context.strokeStyle = colors.line;
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(0, RULER - 0.5);
      context.lineTo(this.width, RULER - 0.5);
      const step = tick(span / this.plot * 96);
      const digits = (value) => Math.max(1, Math.ceil(Math.log10(Math.max(value, step) / step) + 1e-9) + 1);
      context.font = `10.5px ${FONT}`;
      context.textAlign = "left";
      context.fillStyle = colors.muted;
      for (let n = Math.ceil(this.from_s / step); n * step <= this.until_s; n++) {
        const value = n * step, x = Math.round(this.x(value)) + 0.5;
        if (value < 0) continue;
        context.moveTo(x, RULER - 7);
        context.lineTo(x, RULER);
        if (x < this.gutter + this.plot - 44) context.fillText(format.tick.seconds(value, digits(value)), x + 4, RULER / 2);
      }
      context.stroke();
      if (this.bars) {
        context.fillStyle = colors.faint;
        context.fillText("share of time", this.gutter + this.plot + 12, RULER / 2);
      }
    },
  });
})();
