// The stages of a plan: their blocks, their share of the work, and what a rank of each holds.
"use strict";

(() => {
  const { page } = Stretto;
  const { el, format } = page;
  const KINDS = ["parameters", "gradients", "optimizer", "activations", "communication", "other"];
  const NAMES = { communication: "gathered for use", other: "libraries, gaps and the rest" };
  const name = (kind) => NAMES[kind] ?? kind;
  const SHARE = "Share of the work", MEMORY = "Memory of a rank at its fullest";
  const FAR = 0.1;  // between what the program holds and the closed form, which is worth a word

  const total = (held) => Object.values(held).reduce((sum, size) => sum + size, 0);
  const kinds = (held) => KINDS.filter((kind) => held[kind] > 0);
  const words = (held) => kinds(held).map((kind) => `${name(kind)} ${format.bytes(held[kind])}`).join(", ");

  // A bar as long as what is held of `whole`, with a line where the device is full.
  function bar(held, whole, limit) {
    const percent = (size) => `${size / whole * 100}%`;
    return el("div", { class: "memory-bar" },
      kinds(held).map((kind) => el("i", {
        css: { width: percent(held[kind]), background: `var(--m-${kind})` }, title: `${name(kind)} ${format.bytes(held[kind])}`,
      })),
      limit <= whole && el("b", { css: { left: percent(limit) }, title: `a device has ${format.bytes(limit)}` }));
  }

  function blocks(stage) {
    const has = (kind) => stage.kinds.some(([found]) => found === kind);
    const [first, last] = stage.layers ?? [];
    const layers = first === last ? `layer ${first}` : `layers ${first}–${last}`;
    return [has("embedding") && "embedding", stage.layers && layers, has("head") && "head"]
      .filter(Boolean).join(", ");
  }

  function row(stage, heaviest, held) {
    const cell = (...children) => el("span", { role: "cell" }, ...children);
    const under = (label, kind, ...children) => el("span", { role: "cell", class: kind, dataset: { label } }, ...children);
    return el("div", { class: "stage-row", role: "row" },
      cell(`${stage.stage}`, stage.rank !== stage.stage && el("small", {}, ` rank ${stage.rank}`)),
      cell(blocks(stage), el("small", {}, ` ${stage.blocks} blocks`)),
      cell(format.count(stage.parameters)),
      under(SHARE, "share", el("span", { class: "track" }, el("i", { css: { width: `${stage.share / heaviest * 100}%` } })),
        el("b", {}, format.percent(stage.share))),
      under(held.length ? MEMORY : "", "held", held));
  }

  page.planStages = (data) => {
    const { stages, memory, limit_bytes: limit } = data;
    const peaks = stages.map((stage) => stage.peak_bytes).filter(Boolean);
    const most = Math.max(total(memory), ...peaks.map(total));
    const whole = limit > 0 && most > 0.05 * limit ? Math.max(most, limit) : most;
    const heaviest = Math.max(...stages.map((stage) => stage.share));
    const held = (found) => (found
      ? [bar(found, whole, limit), el("b", { title: words(found) }, format.bytes(total(found)))] : []);
    const used = KINDS.filter((kind) => [memory, ...peaks].some((found) => found[kind] > 0));
    const titles = ["Stage", "Blocks", "Parameters", SHARE, peaks.length ? MEMORY : ""];
    const has = `a device has ${format.bytes(limit)}`;
    const key = [page.legend([
      ...used.map((kind) => ({ color: `m-${kind}`, text: name(kind) })),
      ...(limit <= whole ? [{ color: "bad", shape: "limit", text: has }] : [])]), limit <= whole ? null : el("small", {}, has)];
    const apart = peaks.length && Math.abs(Math.max(...peaks.map(total)) / total(memory) - 1) > FAR;
    return el("div", { class: "card" },
      el("div", { class: "card-head" }, el("h3", {}, stages.length > 1 ? "Stages" : "One stage"), peaks.length ? key : null),
      el("div", { class: "stage-list", role: "table", "aria-label": "Stages", tabindex: 0 },
        el("div", { class: "stage-row head", role: "row" }, titles.map((text) => el("span", { role: "columnheader" }, text))),
        stages.map((stage) => row(stage, heaviest, held(stage.peak_bytes))),
        el("div", { class: "stage-row whole", role: "row" },
          el("span", { role: "cell", title: "by formulas, without playing a step" },
            peaks.length ? "The fullest rank, as estimated without playing a step" : "Memory of the fullest rank, as estimated without playing a step"),
          el("span", { role: "cell", class: "held" }, held(memory)))),
      peaks.length ? null : el("div", { class: "card-head stage-key" }, key),
      apart ? el("p", { class: "muted small" },
        "The stages hold what Stretto's own blocks keep; the estimate is of the software that the plan is priced for.") : null);
  };
})();
