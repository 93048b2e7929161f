// The section of memory: what a rank holds over the step, predicted beside measured, and the most
// that each rank holds.
"use strict";

Stretto.section({
  id: "memory",
  title: "Memory",
  order: 3,
  render(root, data, page) {
    const { el, format } = page, { Memory, Chart, Peaks, WORDS, TITLES, color } = Stretto.memory;
    const ROWS = 256, KEPT = 12;
    const memory = new Memory(data);
    const kept = new Map([data, ...(data.older ?? [])].map((one) => [one.step, one]));   // by step
    const title = el("h3", {}), note = el("small", {}), said = el("p", { class: "memory-said" });
    const legend = el("div", { class: "step-legend" }), throughout = el("div", { class: "memory-throughout" }), pair = el("div", { class: "memory-pair" });
    const peaks = new Peaks(memory, { choose });
    const bars = el("h3", {});
    let charts = [];

    async function choose(rank) {
      memory.rank = rank;
      if (memory.lacks && page.live) {
        try {
          const query = { rank, ...(memory.step === null ? {} : { step: memory.step }) };
          (await page.api("memory", query)).curves.forEach((one) => memory.keep(one));
        } catch (error) { page.announce(error.message); }
        if (memory.rank !== rank) return;
      }
      show();
    }

    // What the pictures show, in words.
    function words() {
      const { curves, rank } = memory, predicted = memory.curve("predicted"), measured = memory.curve("measured");
      const most = (curve) => curve.total(curve.peak);
      const found = curves.map(([side, curve]) => `${side} at most ${format.bytes(most(curve))}, reached by ${curve.instruction(curve.peak)}`);
      if (!found.length) return "This file does not have its curve: stretto ui shows any rank's.";
      const own = measured ? measured.of(memory.kinds.indexOf("process"), 0) : 0, more = [];
      if (own) more.push(`${format.bytes(own)} of what was measured are there throughout: the interpreter, its libraries, and what its allocator had from the start.`);
      if (predicted && measured && own < most(measured) / 2) {  // else it says nothing of the program
        const by = format.change((most(measured) - own) / most(predicted) - 1);
        more.push(`${own ? "What is left differs" : "Measured differs"} by ${by} from what was predicted.`);
      }
      if (memory.lacks) more.push(`This file has what ranks ${[...memory.seen.keys()].join(", ")} held, and not this one.`);
      const limit = memory.capacity[rank], full = Math.max(...curves.map(([, curve]) => most(curve)));
      if (limit) more.push(`The device has ${format.bytes(limit)}: the fullest moment takes ${format.percent(full / limit)} of it.`);
      return `${found.join("; ")}. ${more.join(" ")}`.replace(/^./, (first) => first.toUpperCase());
    }

    function show() {
      title.textContent = `Rank ${memory.rank} over the step`;
      note.textContent = memory.step === null ? "" : `step ${format.integer(memory.step)}, as chosen above`;
      said.textContent = words();
      const sides = memory.curves.map(([side]) => side).join(" | ");
      offer();
      const kinds = memory.present.filter(([kind]) => kind !== "process").reverse();
      legend.replaceChildren(el("small", {}, sides && `at the peak, ${sides}:`), page.legend(kinds.map(([kind, k]) => ({
        color: color(kind), text: WORDS[kind], title: TITLES[kind], on: !memory.hidden.has(kind),
        value: kind === "kept" ? `up to ${format.bytes(memory.curve("measured")?.most(k) ?? 0)}`
          : memory.curves.map(([, curve]) => format.bytes(curve.of(k, curve.peak))).join(" | "),
        onclick: (button) => {
          if (!memory.hidden.delete(kind)) memory.hidden.add(kind);
          button.setAttribute("aria-pressed", String(!memory.hidden.has(kind)));
          for (const chart of charts) chart.show();
          peaks.show();
        },
      }))));
      for (const chart of charts) chart.show();
      peaks.show();
    }

    // What the process holds throughout may be larger than all else: shown, or left out.
    function offer() {
      const own = memory.curve("measured")?.of(memory.kinds.indexOf("process"), 0) ?? 0;
      throughout.hidden = !own;
      if (own) throughout.replaceChildren(page.toggle({
        label: `Draw the ${format.bytes(own)} that the process holds throughout (${TITLES.process}) as well`,
        checked: !memory.hidden.has("process"),
        onchange: (on) => {
          if (on) memory.hidden.delete("process"); else memory.hidden.add("process");
          show();
          throughout.querySelector("input").focus();
        },
      }), el("i", { class: "swatch", css: { "--swatch": `var(--${color("process")})` } }));
      bars.textContent = `The most that each rank holds${memory.hidden.has("process") ? ", without what its process holds throughout" : ""}`;
    }

    function arrange() {
      const moved = () => { for (const chart of charts) chart.canvas?.draw(); };
      charts = peaks.sides.map((side) => new Chart(memory, side, { moved }));
      sides.hidden = peaks.sides.length < 2;
      sides.replaceChildren(page.legend(peaks.sides.map((side) => ({ color: side, text: side }))));
      pair.replaceChildren(...charts.map((chart) => chart.element));
    }

    // The step that is chosen above is the one that is shown here.
    async function turn(step) {
      if (step === memory.step) return;
      try {
        if (!kept.has(step)) kept.set(step, await page.api("memory", { step }));
        if (page.step !== step) return;   // another was chosen meanwhile
        if (kept.size > KEPT) kept.delete(kept.keys().next().value);
        const before = peaks.sides.length;
        memory.take({ ...data, ...kept.get(step) });
        if (peaks.sides.length !== before) arrange();
        await choose(memory.rank);
      } catch (error) { page.announce(error.message); }
    }

    // ── tables, for who cannot see the pictures ──────────────────────────────────────────────

    const composition = () => page.table({
      caption: `What rank ${memory.rank} holds at its fullest moment`,
      head: ["", ...memory.curves.map(([side]) => side)],
      rows: [
        ...memory.present.map(([kind, k]) => [WORDS[kind], ...memory.curves.map(([, c]) => format.bytes(c.of(k, c.peak)))]),
        ["all", ...memory.curves.map(([, c]) => format.bytes(c.total(c.peak)))],
        ["at", ...memory.curves.map(([, c]) => format.seconds(c.seconds[c.peak]))],
        ["instruction", ...memory.curves.map(([, c]) => c.instruction(c.peak))],
      ],
    });
    const everybody = () => page.table({
      caption: `The most that each rank holds${memory.ranks > ROWS ? `, the first ${ROWS}` : ""}`,
      head: ["rank", ...peaks.sides, "device has"], numeric: [1, 2, 3],
      rows: Array.from({ length: Math.min(ROWS, memory.ranks) }, (_, rank) => [
        String(rank), ...peaks.sides.map((side) => format.bytes(memory[side][rank])), format.bytes(memory.capacity[rank])]),
    });

    const sides = el("div", { class: "step-legend" });
    arrange();
    root.append(el("div", { class: "card" },
      el("div", { class: "card-head" }, title, note), said, pair, throughout, legend,
      el("div", { class: "memory-ranks" },
        el("div", { class: "card-head" }, bars, el("small", {}, "click a rank, or move with the arrow keys")),
        peaks.host, sides),
      page.asTable("What fills the peak, as a table", composition),
      page.asTable("Peaks of all ranks, as a table", everybody)));
    choose(memory.rank);
    page.onStep(turn);
  },
});
