// Where every rank runs: devices as nested boxes, coloured by an axis; the groups of the rank that
// is pointed at lie over them on a canvas of their own, so that pointing draws little.
"use strict";

(() => {
  const { page } = Stretto;
  const { el } = page;
  const RAMP = ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725"];  // viridis
  const TEXT = 24;      // a cell so wide has room for its rank
  const BESIDE = 290;   // what the words take beside the picture
  const FEW = 8;        // colours that are told apart

  class PlanMap {
    constructor(data, mesh) {
      Object.assign(this, { data, mesh, by: mesh.groups[0], chosen: -1, fitted: 0 });
      this.devices = data.parts.reduce((sum, part) => sum + part.devices, 0);
      this.host = el("div", { class: "plan-canvas" });
      this.detail = el("div", { class: "plan-detail" });
      this.element = el("div", { class: "plan-picture" }, this.host, this.detail);
      this.key = el("div", { class: "plan-key" });
    }

    // Begin, once the element is in the page.
    begin() {
      const label = `${this.data.ranks} ranks on ${this.devices} devices. Arrow keys move from device to device.`;
      this.base = page.canvas(this.host, { height: 10, label: "", draw: (c) => this.draw(c), role: "presentation" });
      this.over = page.canvas(this.host, { height: 10, label, draw: (c) => this.highlight(c), role: "application" });
      this.base.element.ariaHidden = "true";
      const { element } = this.over;
      element.classList.add("over");
      element.tabIndex = 0;
      element.addEventListener("pointermove", (event) => this.point(event));
      element.addEventListener("pointerleave", () => { if (document.activeElement !== element) this.choose(-1); });
      element.addEventListener("keydown", (event) => this.press(event));
      this.arrange();
      new ResizeObserver(() => this.arrange()).observe(this.element);
      page.onTheme(() => this.drawKey());
      this.drawKey();
      this.choose(0);   // an example of what is said of a rank
      this.choose(-1);
    }

    colorBy(name) {
      this.by = this.mesh.group(name);
      this.drawKey();
      this.base.draw();
    }

    arrange() {
      const width = Math.floor(this.element.clientWidth);
      if (width === this.fitted || !width) return;
      this.fitted = width;
      const wide = width > 640;
      this.tree = page.tree.layout(this.data.levels, this.devices, wide ? width - BESIDE : width, wide ? 680 : 460);
      this.host.style.width = `${Math.ceil(this.tree.width) + 4}px`;
      for (const canvas of [this.base, this.over]) canvas.resize(Math.ceil(this.tree.height) + 2);
    }

    // ── drawing ──────────────────────────────────────────────────────────────────────────────

    colors() {
      const count = this.by ? this.mesh.extent(this.by) : 1;
      if (count <= FEW) return Array.from({ length: count }, (_, i) => page.color(`s${i + 1}`));
      const stops = RAMP.map(channels);
      return Array.from({ length: count }, (_, i) => {
        const at = i / (count - 1) * (RAMP.length - 1), low = Math.min(RAMP.length - 2, Math.floor(at));
        const mixed = stops[low].map((v, k) => Math.round(v + (at - low) * (stops[low + 1][k] - v)));
        return `rgb(${mixed.join(" ")})`;
      });
    }

    drawKey() {
      if (!this.by) return;
      const count = this.mesh.extent(this.by), { name } = this.by;
      const few = Array.from({ length: count }, (_, i) => ({ color: `s${i + 1}`, text: `${name} ${i}` }));
      this.key.replaceChildren(count <= FEW ? page.legend(few) : el("div", { class: "ramp" },
        el("span", {}, `${name} 0`), el("i", { css: { background: `linear-gradient(90deg, ${RAMP.join(", ")})` } }),
        el("span", {}, `${count - 1}`)));
    }

    draw(context) {
      this.drawBoxes(context);
      const { x, y, size, holds } = this.tree, palette = this.colors(), idle = page.color("k-idle");
      context.textAlign = "center";
      context.font = "600 11px system-ui, sans-serif";
      for (let cell = 0; cell < x.length; cell++) {
        const rank = cell * holds, runs = rank < this.data.ranks;
        const color = runs ? palette[this.by ? this.mesh.index(rank, this.by) : 0] : idle;
        context.fillStyle = color;
        box(context, x[cell], y[cell], size, size, Math.min(5, size / 5));
        context.fill();
        if (!runs || size < TEXT || holds > 1) continue;
        context.fillStyle = ink(color);
        context.fillText(rank, x[cell] + size / 2, y[cell] + size / 2 + 4);
      }
      context.textAlign = "start";
    }

    drawBoxes(context) {
      const { levels } = this.data, { boxes, size, level0 } = this.tree;
      const fills = [page.color("sunken"), page.color("surface")], muted = page.color("muted");
      context.strokeStyle = page.color("line");
      context.lineWidth = 1;
      context.font = "11px system-ui, sans-serif";
      for (const { level, x, y, w, h, label, index } of boxes) {
        context.fillStyle = fills[level % 2];
        box(context, x, y, w, h, Math.min(8, size / 2));
        context.fill();
        context.stroke();
        if (!label) continue;
        context.fillStyle = muted;
        context.fillText(`${levels[level + level0]?.name ?? ""} ${index}`, x + 7, y + 13);
      }
    }

    highlight(context) {
      if (this.chosen < 0 || this.chosen >= this.data.ranks) return;
      const { x, y, size, holds } = this.tree;
      const cells = (group) => new Set(this.mesh.members(this.chosen, group).map((r) => Math.floor(r / holds)));
      const groups = this.mesh.groups.map((group) => [group, cells(group)]);
      const among = new Set(groups.flatMap(([, found]) => [...found]));
      const me = Math.floor(this.chosen / holds);
      context.fillStyle = page.color("surface");
      context.globalAlpha = 0.6;
      for (let cell = 0; cell < x.length; cell++) {
        if (cell !== me && !among.has(cell)) context.fillRect(x[cell] - 0.5, y[cell] - 0.5, size + 1, size + 1);
      }
      context.globalAlpha = 1;
      const line = Math.max(1.5, Math.min(3, size / 7));
      const ring = (cell, color, width, out) => {
        context.strokeStyle = page.color(color);
        context.lineWidth = width;
        box(context, x[cell] - out, y[cell] - out, size + 2 * out, size + 2 * out, Math.min(6, size / 4));
        context.stroke();
      };
      for (const [group, found] of groups) for (const cell of found) ring(cell, `k-${group.kind}`, line, line / 2);
      ring(me, "text", line + 1, line);
    }

    // ── choosing a rank ──────────────────────────────────────────────────────────────────────

    point(event) {
      const bounds = this.over.element.getBoundingClientRect();
      const cell = page.tree.at(this.tree, event.clientX - bounds.left, event.clientY - bounds.top);
      const rank = cell * this.tree.holds;
      if (cell >= 0 && rank !== this.chosen) this.choose(rank);
    }

    press(event) {
      const { holds } = this.tree, last = Math.ceil(this.data.ranks / holds) - 1;
      if (event.key === "Escape") { this.choose(-1); return; }
      let to = { Home: 0, End: last }[event.key];
      if (event.key.startsWith("Arrow")) {
        to = this.chosen < 0 ? 0 : page.tree.beside(this.tree, Math.floor(this.chosen / holds), event.key);
      }
      if (to === undefined) return;
      event.preventDefault();
      this.choose(to * holds);
      page.announce(this.words(to * holds));
    }

    choose(rank) {
      this.chosen = rank;
      this.over.draw();
      if (rank >= 0) this.detail.replaceChildren(...this.told(rank));  // else what was said stays
    }

    // What is said of a rank, as elements.
    told(rank) {
      if (rank >= this.data.ranks) {
        return [el("h3", {}, `Device ${rank}`), el("p", { class: "muted" }, "No rank runs here.")];
      }
      const { holds } = this.tree, last = Math.min(this.data.ranks, rank + holds) - 1;
      const groups = this.mesh.groups.flatMap((group) => [
        el("dt", {}, el("i", { class: "swatch ring", css: { "--swatch": `var(--k-${group.kind})` } }),
          `${group.name} ${this.mesh.index(rank, group)}`, el("small", {}, ` of ${this.mesh.extent(group)}`)),
        el("dd", {}, shortened(this.mesh.members(rank, group))),
      ]);
      return [
        el("h3", {}, holds > 1 ? `Ranks ${rank} to ${last}` : `Rank ${rank}`),
        el("p", { class: "muted" }, this.place(rank)),
        el("p", {}, this.holds(rank)),
        el("dl", { class: "plan-groups" }, groups),
        groups.length ? el("small", {}, "Ringed in these colours while a device is pointed at.") : null,
      ].filter(Boolean);
    }

    words(rank) {
      if (rank >= this.data.ranks) return `device ${rank}, no rank`;
      const at = this.mesh.groups.map((group) => `${group.name} ${this.mesh.index(rank, group)}`);
      return [`rank ${rank}`, this.place(rank), ...at, this.holds(rank)].join("; ");
    }

    holds(rank) {
      const mine = this.data.stages.filter((stage) => stage.rank === this.mesh.coordinate(rank, "pp"));
      return mine.map((stage) => `stage ${stage.stage}: ${stage.first} to ${stage.last}`).join("; ");
    }

    // Where a device is in the tree, from the outside in.
    place(device) {
      const { levels } = this.data, inner = levels[0]?.devices ?? 1;
      const boxes = levels.slice(0, -1).map((level) => `${level.name} ${Math.floor(device / level.devices)}`);
      return [...boxes.reverse(), `device ${device % inner}`].join(", ");
    }
  }

  const channels = (color) => (color.startsWith("#")
    ? [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16)) : color.match(/\d+/g).map(Number));

  const EVEN = 0.196;  // the luminance on which both inks are read as well
  // Black or white, whichever has more contrast to a colour (Web Content Accessibility Guidelines 2.1).
  function ink(color) {
    const [r, g, b] = channels(color).map((v) => ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > EVEN ? "#10151c" : "#ffffff";
  }

  function box(context, x, y, width, height, radius) {
    context.beginPath();
    context.roundRect(x, y, width, height, radius);
  }

  const shortened = (ranks) => (ranks.length > 6
    ? `${ranks.slice(0, 6).join(", ")}, … ${ranks.at(-1)}` : ranks.join(", "));

  page.PlanMap = PlanMap;
})();
