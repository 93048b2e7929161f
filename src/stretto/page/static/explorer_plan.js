// One plan of an answer in full: what it takes, what runs of it, why it wins, and how to have it.
"use strict";

(() => {
  const { page, explorer } = Stretto;
  const { el, format } = page;

  // Colours of the parts, in the order in which Python tells them.
  const TIME = ["k-forward", "k-recompute", "m-optimizer", "s7", "k-activation", "k-backward", "k-parameter",
    "strong-line", "k-pipeline", "k-gradient", "k-update", "k-data", "faint", "bad"];
  const MEMORY = ["m-parameters", "s8", "m-gradients", "m-optimizer", "m-activations", "s6",
    "m-communication", "s3", "s7", "m-other", "faint"];
  const SHOWN = 0.012;  // of the whole: smaller parts are named together

  const sum = (values) => values.reduce((a, b) => a + b, 0);

  // A bar of parts: bar({label, values, total, names, colors, whole, show, free, best, other}); the
  // parts make `total`, `free` names what is left of `whole`, and `best` are the values of a plan
  // called `other`, drawn below to the same scale.
  function bar({ label, values, total, names, colors, whole, show, free, best, other }) {
    const width = Math.max(whole, sum(values), best ? sum(best) : 0);
    const named = (own) => own.map((value, i) => ({ value, text: names[i], color: colors[i] })).filter((part) => part.value > 0);
    const drawn = (own) => own.map((part) => el("i", {
      css: { "--part": `var(--${part.color})`, width: `${100 * part.value / width}%` },
      title: `${part.text} ${show(part.value)}`,
    }));
    const parts = named(values);
    const legend = parts.filter((part) => part.value > SHOWN * total).sort((a, b) => b.value - a.value);
    const few = parts.filter((part) => !legend.includes(part)), rest = total - sum(legend.map((part) => part.value));
    if (few.length && rest > 0) {
      legend.push({ value: rest, text: "the rest", color: "muted", shape: "dot small", title: few.map((part) => `${part.text} ${show(part.value)}`).join(", ") });
    }
    const said = legend.map((part) => `${part.text} ${show(part.value)}`).join(", ");
    return el("figure", { class: "explorer-bar" },
      el("figcaption", {}, label),
      el("div", { class: "parts", role: "img", "aria-label": `${label}: ${said}` }, drawn(parts)),
      best ? el("div", { class: "parts thin", role: "img", "aria-label": `${other}: ${show(sum(best))}`, title: other }, drawn(named(best))) : null,
      page.legend([...legend.map((part) => ({ ...part, value: show(part.value) })),
        ...(free && whole > total ? [{ color: "sunken", text: free, value: show(whole - total) }] : [])]),
      best ? el("small", {}, `thin: ${other}`) : null);
  }

  function copied(label, text) {
    const button = el("button", { class: "button", type: "button", onclick: async () => {
      try { await navigator.clipboard.writeText(text); } catch { choose(pre); document.execCommand("copy"); }
      button.textContent = "Copied";
      page.announce(`${label} copied`);
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    } }, "Copy");
    const pre = el("pre", { class: "code", tabindex: 0, "aria-label": label }, text);
    return [button, pre];
  }

  function choose(node) {
    const range = document.createRange();
    range.selectNodeContents(node);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  }

  function command(text, note) {
    const [button, pre] = copied("Command", text);
    return el("div", { class: "explorer-command" },
      el("div", { class: "card-head" }, el("h4", {}, "The command that gives it"), el("small", {}, button)),
      pre, note ? el("small", {}, note) : null);
  }

  function folded(summary, text) {
    const box = el("details", { class: "as-table" }, el("summary", {}, summary));
    box.addEventListener("toggle", () => {
      if (!box.open || box.children.length > 1) return;
      const [button, pre] = copied(summary, text);
      box.append(el("div", { class: "explorer-file" }, button, pre));
    });
    return box;
  }

  function runs(plan) {
    if (!plan.lacks) return null;
    if (!plan.lacks.length) return el("p", { class: "note good" }, "Stretto runs this plan today.");
    return el("details", { class: "note warn explorer-lacks" },
      el("summary", {}, `Planned and priced, but not run yet: ${plan.lacks.map((p) => short(p.field)).join(", ")}`),
      el("ul", {}, plan.lacks.map((p) => el("li", {}, `${p.field}: ${p.rule}`))));
  }

  const short = (field) => field.replace("rules.compute.time", "cp").replace("rules.compute.expert", "ep")
    .replace(/^(pipeline|memory|communication|numerics)\./, "");

  function sentences(title, texts) {
    return texts.length ? [el("h4", {}, title), el("ul", { class: "explorer-why" }, texts.map((t) => el("li", {}, format.tie(t))))] : [];
  }

  const SLIGHT = 0.1;   // of the largest difference: too little to name
  // The largest differences of two lists of parts, in words.
  function differences(mine, others, texts, show) {
    const found = mine.map((value, i) => [value - others[i], texts[i]]).sort((a, b) => Math.abs(b[0]) - Math.abs(a[0])).slice(0, 4);
    const large = found.filter(([by]) => by && Math.abs(by) > SLIGHT * Math.abs(found[0][0]));
    return large.map(([by, text]) => `${by > 0 ? "+" : "−"}${show(Math.abs(by))} ${text}`).join(", ") || "no part differs";
  }

  const by = (value, text, words) => (value ? `${text(Math.abs(value))} ${value > 0 ? words[0] : words[1]}` : `no ${words[0]}`);
  // How long a plan takes and how much of what else is to be small, against another.
  function against(plan, other, { key, name, show }) {
    const [longer, more] = [plan.step_s - other.step_s, plan[key] - other[key]];
    const pace = longer ? `is ${format.seconds(Math.abs(longer))} ${longer > 0 ? "slower" : "faster"}` : "is as fast";
    return `${pace} and takes ${by(more, show, ["more", "less"])} ${name}`;
  }

  // What a plan of the front that is not told in full has beside the next on both sides: {wins, beside}.
  function between(plan, { answer, names }) {
    const { plans, front, asked } = answer, axis = explorer.against(asked.objective);
    const at = front.findIndex((i) => plans[i] === plan), near = [front[at - 1], front[at + 1]];
    const wins = near.filter((i) => i !== undefined).map((i) =>
      `Beside plan ${front.indexOf(i) + 1} of the front (${plans[i].words}) it ${against(plan, plans[i], axis)}.`);
    const beside = near.find((i) => i !== undefined);
    if (beside !== undefined) wins.push(...parts(plan, plans[beside], names, `Against plan ${front.indexOf(beside) + 1}, of`));
    return { wins: ["No plan that fits beats it in both.", ...wins], beside };
  }

  function parts(plan, other, names, begin = "Of") {
    const said = [`${begin} the step this one has ${differences(plan.time, other.time, names.time, format.seconds)}.`];
    if (plan.memory) said.push(`Of the memory it has ${differences(plan.memory, other.memory, names.memory, format.bytes)}.`);
    return said;
  }

  const WORTH = 0.01;   // of what is saved: for less a plan is not on the front
  // Which plan of the front beats a plan that is not on it, by how much, and in which parts:
  // {wins, beside}. The front leaves out what saves too little, so that none of it may.
  function beaten(plan, { answer, names }) {
    const { plans, front, asked } = answer, axis = explorer.against(asked.objective), { key, name, show } = axis;
    const beats = front.find((i) => plans[i][key] <= plan[key] && plans[i].step_s <= plan.step_s);
    const far = (i) => Math.abs(Math.log(plans[i].step_s / plan.step_s)) + Math.abs(Math.log(plans[i][key] / plan[key]));
    const beside = beats ?? front.reduce((a, b) => (far(b) < far(a) ? b : a)), other = plans[beside];
    const [longer, more] = [plan.step_s - other.step_s, plan[key] - other[key]];
    const slight = -more < WORTH * other[key] ? ", which is too little to be on the front" : "";
    const which = `Plan ${front.indexOf(beside) + 1} of ${front.length} on the front (${other.words})`;
    const text = beats === undefined
      ? `No plan of the front beats it in both; beside it lies ${which.replace(/^P/, "p")}: this one ${against(plan, other, axis)}${slight}.`
      : `${which} beats it: ${format.seconds(other.step_s)} a step, which is ${format.seconds(longer)} less (${format.change(other.step_s / plan.step_s - 1)}), with ${by(more, show, ["less", "more"])} ${name}.`;
    return { wins: [text, ...parts(plan, other, names)], beside };
  }

  // The panel of a plan. `title` says which it is; `names` are those of its parts.
  function panel(plan, { title, answer, names }) {
    const limit = answer.limit_bytes, full = plan.memory_bytes > limit;
    const best = answer.plans[answer.best];
    const other = plan.beside !== undefined ? answer.plans[plan.beside] : plan.words === best.words ? null : best;
    const thin = other === best ? "the best plan" : `plan ${answer.front.indexOf(plan.beside) + 1} of the front`;
    const stats = el("dl", { class: "stats" },
      page.stat({ label: "a step", value: format.seconds(plan.step_s), note: plan.mfu ? `${format.percent(plan.mfu)} MFU${plan.hfu > plan.mfu * 1.001 ? `, ${format.percent(plan.hfu)} HFU` : ""}` : "" }),
      page.stat({ label: "tokens/s a device", value: format.count(plan.tokens_per_s_per_device), note: `${format.count(plan.tokens_per_s_per_device * plan.devices)} on ${format.integer(plan.devices)}` }),
      plan.memory_bytes ? page.stat({ label: "memory", value: format.bytes(plan.memory_bytes), note: `of ${format.bytes(limit)}`, tone: full ? "bad" : undefined }) : null,
      plan.energy_j ? page.stat({ label: "energy a step", value: format.energy(plan.energy_j), note: plan.money ? `${format.money(plan.money / answer.tokens * 1e6)} a M tokens` : "" }) : null);
    return [
      el("div", { class: "card-head" }, el("h3", {}, title), plan.kind ? el("small", {}, plan.kind) : null),
      el("p", { class: "explorer-words mono" }, plan.words),
      stats,
      ...sentences(plan.gives?.length ? "Why it wins" : "How it compares", plan.wins ?? []),
      ...sentences("What it gives up", plan.gives ?? []),
      plan.time ? bar({ label: "Where a step goes", values: plan.time, total: plan.step_s, names: names.time, colors: TIME, whole: plan.step_s, show: format.seconds, best: other?.time, other: thin }) : null,
      plan.memory ? bar({ label: `What fills the fullest rank, ${names.moments[plan.moment]}`, values: plan.memory, total: plan.memory_bytes, names: names.memory, colors: MEMORY, whole: limit, show: format.bytes, free: "free", best: other?.memory, other: thin }) : null,
      runs(plan),
      plan.command ? command(plan.command, answer.cluster_toml ? "with the cluster file below as cluster.toml" : "") : null,
      plan.toml ? folded("The plan as TOML", plan.toml) : null,
      answer.cluster_toml ? folded("The cluster as cluster.toml", answer.cluster_toml) : null,
    ];
  }

  Object.assign(explorer, { panel, beaten, between });
})();
