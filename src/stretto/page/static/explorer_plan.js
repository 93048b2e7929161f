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
  const SHOWN = 0.012;  // of a bar: smaller parts are not named

  const sum = (values) => values.reduce((a, b) => a + b, 0);

  // A bar of parts: bar({label, values, names, colors, whole, show, rest, best}); `rest` names what
  // is left, and `best` are the values of the best plan, drawn below to the same scale.
  function bar({ label, values, names, colors, whole, show, rest, best }) {
    const width = Math.max(whole, sum(values), best ? sum(best) : 0);
    const named = (own) => own.map((value, i) => ({ value, text: names[i], color: colors[i] })).filter((part) => part.value > 0);
    const drawn = (own) => own.map((part) => el("i", {
      css: { "--part": `var(--${part.color})`, width: `${100 * part.value / width}%` },
      title: `${part.text} ${show(part.value)}`,
    }));
    const parts = named(values);
    const legend = parts.filter((part) => part.value > SHOWN * width).sort((a, b) => b.value - a.value);
    const said = legend.map((part) => `${part.text} ${show(part.value)}`).join(", ");
    return el("figure", { class: "explorer-bar" },
      el("figcaption", {}, label),
      el("div", { class: "parts", role: "img", "aria-label": `${label}: ${said}` }, drawn(parts)),
      best ? el("div", { class: "parts thin", role: "img", "aria-label": `the best plan: ${show(sum(best))}`, title: "the best plan" }, drawn(named(best))) : null,
      page.legend([...legend.map((part) => ({ ...part, value: show(part.value) })),
        ...(rest && width > sum(values) ? [{ color: "sunken", text: rest, value: show(width - sum(values)) }] : [])]),
      best ? el("small", {}, "thin: the best plan") : null);
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
    return texts.length ? [el("h4", {}, title), el("ul", { class: "explorer-why" }, texts.map((t) => el("li", {}, t)))] : [];
  }

  // The panel of a plan. `title` says which it is; `names` are those of its parts.
  function panel(plan, { title, answer, names }) {
    const limit = answer.limit_bytes, full = plan.memory_bytes > limit;
    const best = answer.plans[answer.best], other = plan.words === best.words ? null : best;
    const stats = el("dl", { class: "stats" },
      page.stat({ label: "a step", value: explorer.seconds(plan.step_s), note: plan.mfu ? `${format.percent(plan.mfu)} MFU, ${format.percent(plan.hfu)} HFU` : "" }),
      page.stat({ label: "tokens/s a device", value: format.integer(plan.tokens_per_s_per_device), note: `${format.count(plan.tokens_per_s_per_device * plan.devices)} on ${format.integer(plan.devices)}` }),
      plan.memory_bytes ? page.stat({ label: "memory", value: format.bytes(plan.memory_bytes), note: `of ${format.bytes(limit)}`, tone: full ? "bad" : undefined }) : null,
      plan.energy_j ? page.stat({ label: "energy a step", value: explorer.hours(plan.energy_j), note: plan.money ? `${format.number(plan.money / answer.tokens * 1e6, 3)} USD a M tokens` : "" }) : null);
    return [
      el("div", { class: "card-head" }, el("h3", {}, title), plan.kind ? el("small", {}, plan.kind) : null),
      el("p", { class: "explorer-words mono" }, plan.words),
      stats,
      ...sentences(plan.gives?.length ? "Why it wins" : "How it compares", plan.wins ?? []),
      ...sentences("What it gives up", plan.gives ?? []),
      plan.time ? bar({ label: "Where a step goes", values: plan.time, names: names.time, colors: TIME, whole: plan.step_s, show: explorer.seconds, best: other?.time }) : null,
      plan.memory ? bar({ label: `What fills the fullest rank, ${names.moments[plan.moment]}`, values: plan.memory, names: names.memory, colors: MEMORY, whole: limit, show: format.bytes, rest: "free", best: other?.memory }) : null,
      runs(plan),
      plan.command ? command(plan.command, answer.cluster_toml ? "with the cluster file below as cluster.toml" : "") : null,
      plan.toml ? folded("The plan as TOML", plan.toml) : null,
      answer.cluster_toml ? folded("The cluster as cluster.toml", answer.cluster_toml) : null,
    ];
  }

  Object.assign(explorer, { panel });
})();
