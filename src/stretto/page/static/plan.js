// The plan as a picture: which rank runs on which device, what it holds, whom it talks to.
"use strict";

Stretto.section({
  id: "plan",
  title: "Plan",
  order: 1,
  render(root, data, page) {
    const { el, format, tree } = page;
    const RAMP = ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725"];  // viridis
    const strides = {};
    data.axes.reduceRight((stride, [name, extent]) => { strides[name] = stride; return stride * extent; }, 1);
    const extents = Object.fromEntries(data.axes);
    const devices = data.parts.reduce((sum, part) => sum + part.devices, 0);
    const groups = data.groups.length ? data.groups : [];
    let by = groups[0]?.name ?? "", chosen = -1;

    // ── the mesh is arithmetic ───────────────────────────────────────────────────────────────

    const coordinate = (rank, axis) => Math.floor(rank / strides[axis]) % extents[axis];
    const extent = (group) => group.axes.reduce((n, axis) => n * extents[axis], 1);
    const index = (rank, group) => group.axes.reduce((i, axis) => i * extents[axis] + coordinate(rank, axis), 0);
    function members(rank, group) {
      let found = [group.axes.reduce((r, axis) => r - coordinate(rank, axis) * strides[axis], rank)];
      for (const axis of group.axes) {
        found = found.flatMap((r) => Array.from({ length: extents[axis] }, (_, i) => r + i * strides[axis]));
      }
      return found;
    }
    const stagesOf = (rank) => data.stages.filter((s) => s.rank === ("pp" in extents ? coordinate(rank, "pp") : 0));

    function colors(count) {
      if (count <= 8) return Array.from({ length: count }, (_, i) => page.color(`s${i + 1}`));
      const rgb = RAMP.map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
      return Array.from({ length: count }, (_, i) => {
        const at = i / (count - 1) * (RAMP.length - 1), low = Math.min(RAMP.length - 2, Math.floor(at));
        return `rgb(${rgb[low].map((v, k) => Math.round(v + (at - low) * (rgb[low + 1][k] - v))).join(" ")})`;
      });
    }

    // ── the picture ──────────────────────────────────────────────────────────────────────────

    const group = () => groups.find((g) => g.name === by);
    const names = data.levels.map((level) => level.name);
    const where = [...names].reverse().join(" › ");
    const detail = el("div", { class: "plan-detail" });
    const key = el("div", { class: "plan-key" });
    const host = el("div", { class: "plan-canvas" });
    const picture = el("div", { class: "plan-picture" }, host, detail);
    let it = null, over = null;

    function fit(width) {
      it = tree.layout(data.levels, devices, width, width < 500 ? 460 : 680);
      return Math.ceil(it.height) + 2;
    }

    function draw(context) {
      const palette = group() ? colors(extent(group())) : [page.color("s1")];
      for (const box of it.boxes) {
        context.fillStyle = page.color(box.level % 2 ? "surface" : "sunken");
        context.strokeStyle = page.color("line");
        context.lineWidth = 1;
        rounded(context, box.x, box.y, box.w, box.h, Math.min(8, it.size / 2));
        context.fill();
        context.stroke();
        if (box.label) {
          context.fillStyle = page.color("muted");
          context.font = "11px system-ui, sans-serif";
          context.fillText(`${names[box.level + it.level0] ?? ""} ${box.index}`, box.x + 7, box.y + 13);
        }
      }
      context.textAlign = "center";
      for (let cell = 0; cell < it.x.length; cell++) {
        const rank = cell * it.holds;
        context.fillStyle = rank < data.ranks ? palette[group() ? index(rank, group()) : 0] : page.color("k-idle");
        rounded(context, it.x[cell], it.y[cell], it.size, it.size, Math.min(5, it.size / 5));
        context.fill();
        if (it.size >= 24 && rank < data.ranks && it.holds === 1) {
          context.fillStyle = ink(context.fillStyle);
          context.font = "600 11px system-ui, sans-serif";
          context.fillText(rank, it.x[cell] + it.size / 2, it.y[cell] + it.size / 2 + 4);
        }
      }
      context.textAlign = "start";
    }

    // What is chosen lies on a canvas of its own, so that pointing draws little.
    function highlight(context) {
      if (chosen < 0 || chosen >= data.ranks) return;
      const cells = (ranks) => new Set(ranks.map((rank) => Math.floor(rank / it.holds)));
      const all = groups.map((g) => [g, cells(members(chosen, g))]);
      const among = new Set(all.flatMap(([, set]) => [...set]));
      context.fillStyle = page.color("surface");
      context.globalAlpha = 0.6;
      for (let cell = 0; cell < it.x.length; cell++) {
        if (!among.has(cell)) context.fillRect(it.x[cell] - 0.5, it.y[cell] - 0.5, it.size + 1, it.size + 1);
      }
      context.globalAlpha = 1;
      const line = Math.max(1.5, Math.min(3, it.size / 7));
      for (const [g, set] of all) {
        context.strokeStyle = page.color(`k-${g.kind}`);
        context.lineWidth = line;
        for (const cell of set) {
          rounded(context, it.x[cell] - line / 2, it.y[cell] - line / 2, it.size + line, it.size + line, Math.min(6, it.size / 4));
          context.stroke();
        }
      }
      const cell = Math.floor(chosen / it.holds);
      context.strokeStyle = page.color("text");
      context.lineWidth = line + 1;
      rounded(context, it.x[cell] - line, it.y[cell] - line, it.size + 2 * line, it.size + 2 * line, Math.min(7, it.size / 3));
      context.stroke();
    }

    function rounded(context, x, y, w, h, r) {
      context.beginPath();
      context.roundRect(x, y, w, h, r);
    }

    // Black or white, whichever is read better on a colour.
    function ink(color) {
      const [r, g, b] = /^#/.test(color) ? [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16)) : color.match(/\d+/g).map(Number);
      return 0.299 * r + 0.587 * g + 0.114 * b > 150 ? "#10151c" : "#ffffff";
    }

    function place(device) {
      const found = [];
      for (let l = data.levels.length - 1; l >= 0; l--) {
        const size = l ? data.levels[l - 1].devices : 1, box = Math.floor(device / size);
        found.push(l ? `${names[l - 1]} ${box}` : `device ${device % (data.levels[0]?.devices ?? 1)}`);
      }
      return found.join(", ") || "device 0";
    }

    const spans = (ranks) => {
      const shown = ranks.slice(0, 6).join(", ");
      return ranks.length > 6 ? `${shown}, … ${ranks.at(-1)}` : shown;
    };

    function choose(rank) {
      chosen = rank;
      over.draw();
      if (rank < 0) return "";  // what was said of the last one stays
      if (rank >= data.ranks) {
        detail.replaceChildren(el("h3", {}, `Device ${rank}`), el("p", { class: "muted" }, "No rank runs here."));
        return `device ${rank}, no rank`;
      }
      const holds = stagesOf(rank).map((s) => `stage ${s.stage}: ${s.first} to ${s.last}`);
      detail.replaceChildren(
        el("h3", {}, it.holds > 1 ? `Ranks ${rank} to ${Math.min(data.ranks, rank + it.holds) - 1}` : `Rank ${rank}`),
        el("p", { class: "muted" }, place(rank)),
        el("p", {}, holds.join("; ")),
        el("dl", { class: "plan-groups" }, groups.flatMap((g) => [
          el("dt", {}, el("i", { class: "swatch", css: { "--swatch": `var(--k-${g.kind})` } }),
            `${g.name} ${index(rank, g)}`, el("small", {}, ` of ${extent(g)}`)),
          el("dd", {}, spans(members(rank, g))),
        ])),
      );
      return `rank ${rank}; ${place(rank)}; ${groups.map((g) => `${g.name} ${index(rank, g)}`).join(", ")}; ${holds.join("; ")}`;
    }

    function drawKey() {
      const g = group();
      if (!g) { key.replaceChildren(); return; }
      const count = extent(g), palette = colors(count);
      key.replaceChildren(count <= 8
        ? page.legend(palette.map((_, i) => ({ color: `s${i + 1}`, text: `${g.name} ${i}` })))
        : el("div", { class: "ramp" }, el("span", {}, `${g.name} 0`),
          el("i", { css: { background: `linear-gradient(90deg, ${RAMP.join(", ")})` } }), el("span", {}, `${count - 1}`)));
    }

    const toolbar = el("div", { class: "toolbar" });
    if (groups.length) {
      toolbar.append(page.segmented({
        label: "Colour by", value: by, options: groups.map((g) => [g.name, g.name]),
        onchange: (name) => { by = name; drawKey(); base.draw(); },
      }));
    }
    toolbar.append(key);
    const kinds = data.parts.map((p) => `${format.integer(p.devices)} × ${p.device}`).join(" + ");
    const rest = devices - data.ranks;
    root.append(el("div", { class: "card" },
      el("div", { class: "card-head" }, el("h3", {}, "Where every rank runs"),
        el("small", {}, `${data.cluster}: ${kinds}${where ? `, ${where}` : ""}${rest ? `; ${format.integer(rest)} idle` : ""}`)),
      toolbar, picture));

    const label = `${data.ranks} ranks on ${devices} devices. Arrow keys move from device to device.`;
    const base = page.canvas(host, { height: 10, label: "", draw, role: "presentation" });
    over = page.canvas(host, { height: 10, label, draw: highlight, role: "application" });
    base.element.ariaHidden = "true";
    over.element.classList.add("over");
    over.element.tabIndex = 0;
    let fitted = 0;
    function arrange() {  // what the words beside the picture leave; below them on small screens
      const width = Math.floor(picture.clientWidth);
      if (width === fitted || !width) return;
      fitted = width;
      const height = fit(width > 640 ? width - 290 : width);
      host.style.width = `${Math.ceil(it.width) + 4}px`;
      base.resize(height);
      over.resize(height);
    }
    arrange();
    new ResizeObserver(arrange).observe(picture);
    page.onTheme(drawKey);
    over.element.addEventListener("pointermove", (event) => {
      const bounds = over.element.getBoundingClientRect();
      const cell = tree.at(it, event.clientX - bounds.left, event.clientY - bounds.top);
      if (cell * it.holds !== chosen && cell >= 0) choose(cell * it.holds);
    });
    over.element.addEventListener("keydown", (event) => {
      const cell = Math.max(0, Math.floor(chosen / it.holds));
      if (event.key === "Escape") { choose(-1); return; }
      const to = event.key.startsWith("Arrow") ? (chosen < 0 ? 0 : tree.beside(it, cell, event.key))
        : { Home: 0, End: Math.ceil(data.ranks / it.holds) - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      page.announce(choose(to * it.holds));
    });
    over.element.addEventListener("pointerleave", () => { if (document.activeElement !== over.element) choose(-1); });
    drawKey();
    choose(0);
    choose(-1);

    // ── stages, what is split, the plan's text ───────────────────────────────────────────────

    const KINDS = ["parameters", "gradients", "optimizer", "activations", "communication", "other"];
    const peaks = data.stages.map((s) => s.peak_bytes);
    const total = (held) => Object.values(held).reduce((a, b) => a + b, 0);
    const known = peaks.every(Boolean);
    const most = Math.max(total(data.memory), ...peaks.filter(Boolean).map(total));
    const whole = data.limit_bytes > 0 && most > 0.05 * data.limit_bytes ? Math.max(most, data.limit_bytes) : most;
    const heaviest = Math.max(...data.stages.map((s) => s.share));

    function bar(held) {
      const line = el("div", { class: "memory-bar" }, KINDS.filter((k) => held[k] > 0).map((k) => el("i", {
        css: { width: `${held[k] / whole * 100}%`, background: `var(--m-${k})` }, title: `${k} ${format.bytes(held[k])}` })));
      if (whole >= data.limit_bytes) line.append(el("b", { css: { left: `${data.limit_bytes / whole * 100}%` }, title: `a device has ${format.bytes(data.limit_bytes)}` }));
      return line;
    }
    const words = (held) => KINDS.filter((k) => held[k] > 0).map((k) => `${k} ${format.bytes(held[k])}`).join(", ");
    const layers = (s) => (s.layers ? (s.layers[0] === s.layers[1] ? `layer ${s.layers[0]}` : `layers ${s.layers[0]}–${s.layers[1]}`) : "");
    const ends = (s) => [s.kinds.some(([k]) => k === "embedding") ? "embedding" : "", layers(s), s.kinds.some(([k]) => k === "head") ? "head" : ""].filter(Boolean).join(", ");

    const stages = el("div", { class: "stage-list", role: "table", "aria-label": "Stages" },
      el("div", { class: "stage-row head", role: "row" }, ["Stage", "Blocks", "Parameters", "Share of the work", known ? "Memory of a rank at its fullest" : ""].map((text) => el("span", { role: "columnheader" }, text))),
      data.stages.map((s, i) => el("div", { class: "stage-row", role: "row" },
        el("span", { role: "cell" }, `${s.stage}`, s.rank !== s.stage ? el("small", {}, ` rank ${s.rank}`) : null),
        el("span", { role: "cell" }, ends(s), el("small", {}, ` ${s.blocks} blocks`)),
        el("span", { role: "cell" }, format.count(s.parameters)),
        el("span", { role: "cell", class: "share" }, el("i", { css: { width: `${s.share / heaviest * 100}%` } }), el("b", {}, format.percent(s.share))),
        peaks[i] && known ? el("span", { role: "cell", class: "held" }, bar(peaks[i]), el("b", { title: words(peaks[i]) }, format.bytes(total(peaks[i])))) : el("span", { role: "cell" }))));
    const used = KINDS.filter((k) => [data.memory, ...peaks.filter(Boolean)].some((held) => held[k] > 0));
    root.append(el("div", { class: "card" },
      el("div", { class: "card-head" }, el("h3", {}, data.stages.length > 1 ? "Stages" : "One stage"),
        page.legend(used.map((k) => ({ color: `m-${k}`, text: k }))),
        el("small", {}, `a device has ${format.bytes(data.limit_bytes)}`)),
      stages,
      el("div", { class: "held whole" }, el("span", {}, "The fullest rank, in closed form"), bar(data.memory), el("b", { title: words(data.memory) }, format.bytes(total(data.memory)))),
    ));

    const copy = el("button", { class: "button", type: "button", onclick: async () => {
      try { await navigator.clipboard.writeText(data.toml); copy.textContent = "Copied"; } catch { copy.textContent = "Select and copy it"; }
      page.announce(copy.textContent);
    } }, "Copy");
    root.append(el("div", { class: "card" },
      el("div", { class: "card-head" }, el("h3", {}, "What lies where")),
      el("dl", { class: "facts" }, data.lies.flatMap(([what, how]) => [el("dt", {}, what), el("dd", {}, how)])),
      el("details", { class: "as-table" }, el("summary", {}, "The plan as a file"),
        el("div", { class: "toml" }, copy, el("pre", { class: "code", tabindex: 0, "aria-label": "plan.toml" }, data.toml)))));
  },
});
