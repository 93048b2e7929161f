// The devices of a cluster as nested boxes, level within level, on a canvas; where there is no room
// for every device, a cell is all that an innermost box holds.
"use strict";

(() => {
  const GAP = 2;

  // Where every cell and box lies: {cell: {size, holds}, x, y (of cells), boxes: [{level, x, y, w,
  // h, index}], width, height}. `levels` are {name, devices}, innermost first.
  function layout(levels, devices, width, tallest) {
    const sizes = levels.length ? levels.map((l) => l.devices) : [1];
    let holds = 1, inner = 0;
    for (;;) {
      const fits = (loose) => {
        for (let cell = holds === 1 ? 34 : 26; cell >= 5; cell--) {
          const found = place(sizes.slice(inner), holds, devices, cell, width, loose);
          if (found.width <= width && (found.height <= tallest || (cell === 5 && inner === sizes.length - 1))) return found;
        }
        return null;
      };
      // Rows come out even, unless cells are much larger where they do not.
      const neat = fits(false), ragged = fits(true);
      if (ragged) return { ...(neat && neat.size * 1.3 > ragged.size ? neat : ragged), level0: inner };
      if (inner >= sizes.length - 1) return { ...place(sizes.slice(inner), holds, devices, 5, width), level0: inner };
      holds = sizes[inner++];
    }
  }

  function place(sizes, holds, devices, cell, width, loose = false) {
    // From the inside out: how many of the level below stand in a box, in how many columns.
    let below = { w: cell, h: cell, holds };
    const dims = [];
    sizes.forEach((size, i) => {
      const outermost = i === sizes.length - 1;
      const count = Math.ceil((outermost ? devices : Math.min(size, devices)) / below.holds);
      const gap = i === 0 ? GAP : Math.max(4, Math.min(10, cell / 3)), pad = outermost ? 0 : Math.max(2, Math.min(8, cell / 4));
      const room = Math.max(1, Math.floor((width - 2 * pad + gap) / (below.w + gap)));
      const nice = outermost ? count : count <= 2 ? count : count <= 8 ? Math.ceil(count / 2)
        : Math.ceil(Math.sqrt(count * (below.h / below.w) * 2));
      const most = Math.min(count, room, nice), columns = loose && outermost ? most : even(count, most), rows = Math.ceil(count / columns);
      const label = !outermost && cell >= 15 && columns * below.w > 44 ? 15 : 0;
      dims.push({ ...below, count, columns, gap, pad, label });
      below = {
        w: columns * (below.w + gap) - gap + 2 * pad,
        h: rows * (below.h + gap) - gap + 2 * pad + label,
        holds: size,
      };
    });
    const cells = Math.ceil(devices / holds);
    const x = new Float32Array(cells), y = new Float32Array(cells), boxes = [];
    const put = (level, left, top, first) => {
      const d = dims[level];
      for (let k = 0; k < d.count; k++) {
        const start = first + k * d.holds;
        if (start >= devices) break;
        const cx = left + d.pad + (k % d.columns) * (d.w + d.gap);
        const cy = top + d.pad + d.label + Math.floor(k / d.columns) * (d.h + d.gap);
        if (level === 0) { x[start / holds] = cx; y[start / holds] = cy; }
        else {
          boxes.push({ level: level - 1, x: cx, y: cy, w: d.w, h: d.h, index: start / d.holds, label: dims[level - 1].label });
          put(level - 1, cx, cy, start);
        }
      }
    };
    put(dims.length - 1, 0, 0, 0);
    return { size: cell, holds, x, y, boxes, width: below.w, height: below.h };
  }

  // So many columns, or fewer where rows then come out even.
  function even(count, most) {
    for (let columns = most; columns > 0.55 * most; columns--) if (count % columns === 0) return columns;
    return most;
  }

  // Which cell lies at a point, or nearly; -1 for none.
  function at(it, px, py) {
    let best = -1, least = 8;
    for (let i = 0; i < it.x.length; i++) {
      const dx = Math.max(it.x[i] - px, 0, px - it.x[i] - it.size);
      const dy = Math.max(it.y[i] - py, 0, py - it.y[i] - it.size);
      if (dx + dy < least) { least = dx + dy; best = i; }
    }
    return best;
  }

  // The cell next to `from` in a direction of an arrow key.
  function beside(it, from, key) {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    let best = from, least = Infinity;
    for (let i = 0; i < it.x.length; i++) {
      const x = it.x[i] - it.x[from], y = it.y[i] - it.y[from];
      const ahead = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx);
      if (ahead > 0.5 && ahead + 3 * aside < least) { least = ahead + 3 * aside; best = i; }
    }
    return best;
  }

  Stretto.page.tree = { layout, at, beside };
})();
