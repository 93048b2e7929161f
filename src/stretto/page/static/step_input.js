// How hands move the timelines: wheel, drag, pinch, touch and keys.
"use strict";

(() => {
  const { page, timeline } = Stretto;
  const { RULER, opposite } = timeline;
  const ZOOM = 1.25, PAN = 0.15, STILL = 4;

  timeline.View.prototype.listen = function listen({ hover, choose }) {
    const { canvas, element } = this;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const across = (at) => { const twin = this.twin(at); if (twin) choose(twin); else this.alone(at); };
    const fingers = new Map();
    let drag = null;

    element.addEventListener("wheel", (event) => {
      const [x, y] = place(event), across = Math.abs(event.deltaX) > Math.abs(event.deltaY);
      if (event.ctrlKey || event.metaKey || y < RULER) {
        event.preventDefault();
        const lines = event.deltaMode === 1 ? 16 : 1;
        this.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY * lines)) * (event.ctrlKey ? 0.01 : 0.004)), this.second(x));
      } else if (across || event.shiftKey) {
        event.preventDefault();
        this.pan((across ? event.deltaX : event.deltaY) / this.plot);
      }
    }, { passive: false });

    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      const [x, y] = place(event);
      fingers.set(event.pointerId, [x, y]);
      canvas.setPointerCapture(event.pointerId);
      drag = fingers.size > 1 ? null
        : { x, y, from: this.from_s, until: this.until_s, scroll: element.scrollTop, moved: false, ruler: y < RULER };
      hover(null);
    });

    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = place(event);
      if (fingers.size === 2 && fingers.has(event.pointerId)) {
        const [a, b] = [...fingers.values()].map(([at]) => at);
        fingers.set(event.pointerId, [x, y]);
        const [c, d] = [...fingers.values()].map(([at]) => at);
        const apart = Math.max(8, Math.abs(a - b)), now = Math.max(8, Math.abs(c - d));
        this.pan(((a + b) - (c + d)) / 2 / this.plot);
        this.zoom(apart / now, this.second((c + d) / 2));
        return;
      }
      if (!drag) {
        if (event.pointerType !== "touch") hover(this.find(x, y), event);
        return;
      }
      if (Math.hypot(x - drag.x, y - drag.y) > STILL) drag.moved = true;
      if (!drag.moved) return;
      if (drag.ruler) {
        canvas.style.cursor = "col-resize";
        this.chosen = [drag.x, x];
        this.draw();
        return;
      }
      canvas.style.cursor = "grabbing";
      const by = (drag.x - x) / this.plot * (drag.until - drag.from);
      this.window(drag.from + by, drag.until + by);
      if (event.pointerType === "mouse") element.scrollTop = drag.scroll + drag.y - y;
    });

    const up = (event) => {
      fingers.delete(event.pointerId);
      canvas.style.cursor = "";
      if (!drag) return;
      const [x, y] = place(event), { moved, ruler } = drag;
      if (event.type === "pointerup") {
        if (moved && ruler) this.window(...[drag.x, x].map((at) => this.second(at)).sort((a, b) => a - b), { glide: true });
        else if (!moved) choose(this.find(x, y), x < this.gutter, event);
      }
      this.chosen = null;
      drag = null;
      this.draw();
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => { if (!drag) hover(null); });
    canvas.addEventListener("dblclick", (event) => {
      const at = this.find(...place(event));
      if (at?.row !== undefined) this.show(at);
    });

    element.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const act = {
        "+": () => this.zoom(1 / ZOOM), "=": () => this.zoom(1 / ZOOM),
        "-": () => this.zoom(ZOOM), _: () => this.zoom(ZOOM),
        ArrowLeft: () => this.pan(-PAN), ArrowRight: () => this.pan(PAN),
        ArrowUp: () => choose(this.beyond(-1)), ArrowDown: () => choose(this.beyond(1)),
        n: () => choose(this.next(1)), p: () => choose(this.next(-1)),
        Home: () => this.whole(), 0: () => this.whole(),
        Enter: () => this.selected && this.toggle(this.selected.rank),
        z: () => this.selected?.row !== undefined && this.show(this.selected),
        o: () => this.selected?.row !== undefined && across(this.selected),
        Escape: () => choose(null),
      }[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    });
  };

  Object.assign(timeline.View.prototype, {
    // What a rank does around a second, on a side.
    around(rank, name, second, queue = -1) {
      const side = this.side(name), rows = side && this.rows(side, rank);
      if (!rows) return { rank, side: name };
      const index = Math.max(0, rows.sheet.lanes.findIndex((l) => l.queue === queue));
      const { at, reach } = rows.lanes[index];
      if (!at.length) return { rank, side: name };
      return { rank, side: name, row: at[Math.min(at.length - 1, timeline.above(reach, second))] };
    },

    middle(at) {
      const rows = at?.row === undefined ? null : this.side(at.side)?.rows(at.rank);
      return rows ? rows.begin[at.row] + rows.length[at.row] / 2 : (this.from_s + this.until_s) / 2;
    },

    queueOf(at) {
      const sheet = this.model.sheet(at.rank);
      return at.row !== undefined && at.row < sheet.length ? sheet.queue[at.row] : -1;
    },

    // The same moment on another rank.
    beyond(by) {
      const last = this.order.length - 1, at = this.selected ?? { side: this.sides.at(-1)[0] };
      const from = this.selected ? this.index[at.rank] : by > 0 ? -1 : last + 1;
      const rank = this.order[Math.min(Math.max(from + by, 0), last)];
      const found = this.around(rank, at.side, this.middle(this.selected), this.selected ? this.queueOf(at) : -1);
      this.reveal(rank);
      return found;
    },

    // What comes next, or came before, in the same lane.
    next(by) {
      const at = this.selected;
      if (!at) return this.beyond(1);
      if (at.row === undefined) return this.around(at.rank, at.side, this.middle(null));
      const rows = this.side(at.side).rows(at.rank), queue = this.queueOf(at);
      const lane = rows.lanes[rows.sheet.lanes.findIndex((l) => l.queue === queue)].at;
      let i = lane.indexOf(at.row) + by;
      while (lane[i] !== undefined && this.hidden[rows.sort[lane[i]]]) i += by;
      const found = { ...at, row: lane[i] ?? at.row }, { begin } = rows;
      if (begin[found.row] < this.from_s || rows.end(found.row) > this.until_s) {
        const half = (this.until_s - this.from_s) / 2, middle = this.middle(found);
        this.window(middle - half, middle + half);
      }
      return found;
    },

    // Say that an instruction is on its side only, or that the other is not shown.
    alone(at) {
      const spot = this.spot(at), text = `It has no counterpart that is ${opposite(at.side)} and shown here`;
      if (spot) page.tooltip.show(...spot, text);
      page.announce(text);
    },
  });
})();
