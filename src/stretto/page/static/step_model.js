// A step as data: what page/step.py packed, unpacked as it is looked at.
//
// A *sheet* lists what a rank of a stage does that takes time; predicted and measured *sides* give
// begin and length of its rows for each player. Ranks that are alike have one player.
"use strict";

Stretto.timeline = (() => {
  const { unpack } = Stretto.page;

  // The list of a stage, with its rows by queue: the device (-1) first.
  class Sheet {
    constructor(json) {
      for (const key of ["instruction", "sort", "name", "queue", "bytes"]) this[key] = unpack(json[key]);
      this.length = this.sort.length;
      this.nth = new Int32Array(this.length);  // which of its queue a row is
      const queues = new Map([[-1, []]]);
      for (let i = 0; i < this.length; i++) {
        if (!queues.has(this.queue[i])) queues.set(this.queue[i], []);
        this.nth[i] = queues.get(this.queue[i]).push(i) - 1;
      }
      this.queues = queues;
      this.lanes = [...queues].map(([queue, rows]) => ({ queue, rows }));
    }

    // Which row is the nth of a queue; -1 for none.
    at(queue, nth) { return this.queues.get(queue)?.[nth] ?? -1; }
  }

  // The rows of a player: those of its sheet, then those that no instruction does.
  class Rows {
    constructor(sheet, begin, length, extra, others) {
      const count = sheet.length + others.length;
      this.sheet = sheet;
      this.begin = begin; this.length = length; this.extra = extra; this.sort = sheet.sort;
      this.names = others.map(([, sort]) => Model.own[sort] ?? sort);
      if (others.length) {
        this.begin = new Float32Array(count); this.length = new Float32Array(count);
        this.sort = new Uint8Array(count);
        this.begin.set(begin); this.length.set(length); this.sort.set(sheet.sort);
        if (extra) { this.extra = new Float32Array(count).fill(NaN); this.extra.set(extra); }
        others.forEach(([, sort, start, taken], i) => {
          this.begin[sheet.length + i] = start;
          this.length[sheet.length + i] = taken;
          this.sort[sheet.length + i] = Model.sorts.indexOf(sort);
        });
      }
      this.lanes = sheet.lanes.map(({ rows }, i) => this.ordered(
        i === 0 ? [...rows, ...others.map((_, k) => sheet.length + k)] : rows));
    }

    // Rows of a lane in the order of time, and up to when any of them so far reaches.
    ordered(rows) {
      const at = Int32Array.from(rows.filter((i) => Number.isFinite(this.begin[i])));
      let sorted = true;
      for (let i = 1; i < at.length && sorted; i++) sorted = this.begin[at[i]] >= this.begin[at[i - 1]];
      if (!sorted) at.sort((a, b) => this.begin[a] - this.begin[b]);
      const reach = new Float32Array(at.length);
      let last = -Infinity;
      at.forEach((row, i) => { reach[i] = last = Math.max(last, this.begin[row] + this.length[row]); });
      return { at, reach };
    }

    end(row) { return this.begin[row] + this.length[row]; }
  }

  // The first index whose value is above `value`, in an array that does not fall.
  function above(values, value) {
    let low = 0, high = values.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle] > value) high = middle; else low = middle + 1;
    }
    return low;
  }

  const ABSENT = -1;  // the player of a rank that was not recorded
  const ASKED = -3;   // and below, less the rank: of one that was not read with the others

  // A timeline: predicted or measured.
  class Side {
    constructor(json, model) {
      this.model = model;
      this.step_s = json.step_s;
      this.finished = json.finished;
      this.player = unpack(json.player);
      this.bins = json.heat.bins;
      this.bin_s = json.heat.bin_s;
      this.cells = unpack(json.heat.cells);
      this.late = json.late ? unpack(json.late.cells) : null;
      this.scale_s = json.late?.row_s ?? 0;   // a difference of this much has the strongest colour
      this.shares = unpack(json.usage);
      this.path = Object.fromEntries(Object.entries(json.path).map(([k, v]) => [k, unpack(v)]));
      this.packed = new Map();   // player → how to unpack its rows
      this.ready = new Map();    // player → its rows
      this.add(json);
    }

    // Take in rows of players, or those of a rank that was asked for, whose answer has players of its own.
    add({ stages, others }, rank = null) {
      if (rank !== null && this.player[rank] < 0) this.player[rank] = ASKED - rank;
      const of = (player) => rank === null ? player : this.player[rank];
      const mine = new Map();
      for (const other of others) {
        if (!mine.has(other[0])) mine.set(other[0], []);
        mine.get(other[0]).push(other);
      }
      stages.forEach((stage, number) => {
        const sheet = this.model.sheets[number], n = sheet.length, arrays = {};
        const column = (name, i) => {
          arrays[name] ??= stage[name] ? unpack(stage[name]) : null;
          return arrays[name]?.subarray(i * n, (i + 1) * n) ?? null;
        };
        stage.players.forEach((player, i) => this.packed.set(of(player), () => new Rows(
          sheet, column("begin", i), column("length", i), column("extra", i), mine.get(player) ?? [])));
      });
    }

    // The rows of a rank; null where they are not here.
    rows(rank) {
      const player = this.player[rank];
      if (!this.ready.has(player)) {
        if (!this.packed.has(player)) return null;
        this.ready.set(player, this.packed.get(player)());
      }
      return this.ready.get(player);
    }

    // How many ranks have the same rows as a rank.
    alike(rank) {
      if (!this.counts) {
        this.counts = new Map();
        for (const player of this.player) this.counts.set(player, (this.counts.get(player) ?? 0) + 1);
      }
      return this.counts.get(this.player[rank]);
    }

    knows(rank) { return this.player[rank] !== ABSENT; }

    // Seconds of a rank by sort; null where it was not recorded, or not read.
    usage(rank) {
      const player = this.player[rank], n = Model.sorts.length;
      return player < 0 ? null : this.shares.subarray(player * n, (player + 1) * n);
    }
  }

  // A step: what is common, and its sides.
  class Model {
    static sorts = [];
    static own = {};   // names of what no instruction does, by sort

    constructor(json) {
      Model.sorts = json.sorts;
      Model.own = json.own;
      this.sorts = json.sorts;
      this.ranks = json.ranks;
      this.mesh = json.mesh;
      this.names = json.names;
      this.queues = json.queues;
      this.stage = unpack(json.stage);
      this.sheets = json.sheets.map((sheet) => new Sheet(sheet));
      this.predicted = json.predicted ? new Side(json.predicted, this) : null;
      this.measured = null;
      this.step = null;
    }

    // Take in a recorded step; null for none.
    record(json) {
      this.step = json;
      this.measured = json ? new Side(json.measured, this) : null;
    }

    get sides() {
      return [["predicted", this.predicted], ["measured", this.measured]].filter(([, side]) => side);
    }

    get end_s() { return Math.max(1e-9, ...this.sides.map(([, side]) => side.step_s)); }

    sheet(rank) { return this.sheets[this.stage[rank]]; }

    name(rank, row, rows) {
      const sheet = this.sheet(rank);
      return row < sheet.length ? this.names[sheet.name[row]] : rows.names[row - sheet.length];
    }

    coordinate(rank) {
      const found = Object.fromEntries(this.mesh);  // in the order of the mesh
      for (const [axis, extent] of [...this.mesh].reverse()) {
        found[axis] = rank % extent;
        rank = Math.floor(rank / extent);
      }
      return found;
    }

    // The same in words, but for axes that split nothing.
    place(rank) {
      const at = this.coordinate(rank);
      return this.mesh.filter(([, extent]) => extent > 1).map(([axis]) => `${axis} ${at[axis]}`).join(" · ");
    }

    rank(coordinate) {
      return this.mesh.reduce((rank, [axis, extent]) => rank * extent + (coordinate[axis] ?? 0), 0);
    }

    // The queue of a row; null for what is no message.
    queue(rank, row) {
      const sheet = this.sheet(rank);
      return row < sheet.length && sheet.queue[row] >= 0 ? this.queues[sheet.queue[row]] : null;
    }

    // The others in a message: [[rank, row], …], the first `limit` of them.
    peers(rank, row, limit = 64) {
      const queue = this.queue(rank, row), sheet = this.sheet(rank);
      if (!queue) return [];
      const here = this.coordinate(rank), nth = sheet.nth[row];
      if (queue.way === "to" || queue.way === "from") {
        const stages = this.sheets.length, way = queue.way === "to" ? "from" : "to";
        const other = this.rank({ ...here, pp: (here.pp + queue.by + stages) % stages });
        const back = this.queues.findIndex((q) => q.way === way && q.by === -queue.by);
        return [[other, this.sheet(other).at(back, nth)]].filter(([, at]) => at >= 0);
      }
      const axes = this.axes(queue), total = this.partners(rank, row) + 1, found = [];
      for (let i = 0; i < total && found.length < limit; i++) {
        const at = { ...here };
        let left = i;
        for (const [axis, extent] of axes) { at[axis] = left % extent; left = Math.floor(left / extent); }
        const other = this.rank(at);
        if (other === rank) continue;
        const place = this.sheet(other).at(sheet.queue[row], nth);
        if (place >= 0) found.push([other, place]);
      }
      return found;
    }

    // How many take part in a message besides the rank.
    partners(rank, row) {
      const queue = this.queue(rank, row);
      if (!queue) return 0;
      if (queue.way === "to" || queue.way === "from") return 1;
      return this.axes(queue).reduce((n, [, extent]) => n * extent, 1) - 1;
    }

    // The axes over which a queue goes, the last first, with their extents.
    axes(queue) {
      return this.mesh.filter(([axis]) => queue.way === "all" || queue.axes.includes(axis)).reverse();
    }
  }

  return { Model, above };
})();
