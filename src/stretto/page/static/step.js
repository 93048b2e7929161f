// The section of the step: what may be chosen, the timelines, what cost extra time, and tables.
"use strict";

Stretto.section({
  id: "step",
  title: "The step",
  order: 2,
  render(root, data, page) {
    const { el, format } = page, { timeline } = Stretto;
    const model = new timeline.Model(data);
    const { WORDS, TITLES, GLOSSARY, KEYS, COUNTED, broken } = timeline;
    const kept = new Map(data.recordings.map((one) => [one.step, one]));
    let steps = data.steps, follow = true;
    model.record(data.recordings.at(-1) ?? null);

    const view = new timeline.View(model, { changed: () => { map.canvas.draw(); changed(); } });
    const map = new timeline.Map(view, { choose: (at) => choose(at) });
    const asked = new Set();

    // ── choosing a row ───────────────────────────────────────────────────────────────────────

    const took = (side, at) => {
      const rows = side && view.rows(side, at.rank);
      const known = rows && at.row < rows.begin.length && Number.isFinite(rows.begin[at.row]);
      return known ? { begin: rows.begin[at.row], length: rows.length[at.row], extra: rows.extra?.[at.row] } : null;
    };

    const LEAST_S = 1e-9;  // what is less is left of rounding
    const signed = (seconds) => `${seconds < 0 ? "" : "+"}${format.seconds(seconds)}`;

    // A row in words: [[term, text, class], …].
    function facts(at) {
      const place = model.place(at.rank);
      const found = [["rank", `${at.rank}${place ? ` (${place})` : ""}`]];
      const own = at.row < model.sheet(at.rank).length;
      const sides = (own ? model.sides : [[at.side, view.side(at.side)]]).map(([name, side]) => [name, took(side, at)]);
      for (const [name, it] of sides) {
        if (it) found.push([name, `${format.seconds(it.length)} at ${format.seconds(it.begin, 5)}`]);
      }
      const extra = own ? took(model.measured, at)?.extra : NaN, predicted = own && took(model.predicted, at);
      if (Number.isFinite(extra)) {
        const share = predicted?.length > 0 ? ` (${format.change(extra / predicted.length)})` : "";
        found.push(["difference", signed(extra) + share, extra > 0 ? "slower" : "faster"]);
      }
      const bytes = own ? model.sheet(at.rank).bytes[at.row] : 0, queue = model.queue(at.rank, at.row);
      if (bytes > 0) {
        const it = sides.at(-1)[1] ?? sides[0][1];
        const rate = it?.length > 0 ? `, ${format.bytes(bytes / it.length)}/s` : "";
        found.push(["sends", format.bytes(bytes) + rate]);
      }
      if (queue) {
        const others = model.peers(at.rank, at.row, 6).map(([rank]) => rank), n = model.partners(at.rank, at.row);
        found.push([n === 1 ? "with rank" : "with ranks", others.join(", ") + (n > others.length ? ` and ${format.integer(n - others.length)} more` : "")]);
      }
      return found;
    }

    function usage(rank, name) {
      const side = view.side(name) ?? model.sides.at(-1)[1], parts = side.usage(rank);
      if (!parts) return [["rank", `${rank}, ${side.knows(rank) ? "not read with the others: open it" : "not recorded in this step"}`]];
      const order = [...parts.keys()].filter((i) => parts[i] > LEAST_S).sort((a, b) => parts[b] - parts[a]);
      return order.map((i) => [WORDS[model.sorts[i]], `${format.seconds(parts[i])}, ${format.percent(parts[i] / side.step_s)}`]);
    }

    const name = (at) => {
      const rows = view.rows(view.side(at.side), at.rank);
      return model.name(at.rank, at.row, rows);
    };

    function tip(x, y, at) {
      const head = at.row === undefined ? `rank ${at.rank}, ${at.side ?? ""}` : name(at);
      const lines = at.row === undefined ? usage(at.rank, at.side) : facts(at);
      page.tooltip.show(x, y, el("strong", {}, head), el("dl", { class: "step-tip" },
        lines.flatMap(([term, text, tone]) => [el("dt", {}, term), el("dd", { class: tone }, text)])));
    }

    function hover(at, event) {
      const same = at?.row === view.hovered?.row && at?.rank === view.hovered?.rank && at?.side === view.hovered?.side;
      view.hovered = at;
      if (at && event && (at.row !== undefined || at.side)) tip(event.clientX, event.clientY, at);
      else page.tooltip.hide();
      view.canvas.style.cursor = at?.row !== undefined || (at && !at.side) ? "pointer" : "";
      if (!same) view.draw();
    }

    // What was clicked on, or reached by keys.
    function choose(at, label = false, event = null) {
      if (label && at) { view.toggle(at.rank); }
      view.selected = at;
      if (at && event && at.row !== undefined) tip(event.clientX, event.clientY, at);
      else if (at && !event) {
        view.reveal(at.rank);
        const spot = view.spot(at);
        if (spot) tip(...spot, at);
        page.announce(at.row === undefined ? `rank ${at.rank}` : [name(at), ...facts(at).map(([t, v]) => `${t} ${v}`)].join(", "));
      } else page.tooltip.hide();
      view.draw();
    }

    // ── what is around the timelines ─────────────────────────────────────────────────────────

    const legend = el("div", { class: "step-legend" });
    function explain() {
      if (view.by === "difference") {
        legend.replaceChildren(el("span", { class: "step-scale" }, `${format.seconds(view.scale_s)} faster`, el("i"), `${format.seconds(view.scale_s)} slower than predicted, or more`),
          el("small", {}, "Above, every moment has the colour of what differs most in it."));
        return;
      }
      const present = model.sorts.map((sort, i) => [sort, i]).filter(([, i]) => model.sides.some(([, side]) => {
        for (let p = i; p < side.shares.length; p += model.sorts.length) if (side.shares[p] > 0) return true;
        return model.sheets.some((sheet) => sheet.sort.includes(i));
      }));
      legend.replaceChildren(page.legend(present.map(([sort, i]) => ({
        color: `k-${sort}`, text: WORDS[sort], title: TITLES[sort], on: !view.hidden[i],
        onclick: i === 0 ? undefined : (button) => {
          view.hidden[i] = view.hidden[i] ? 0 : 1;
          button.setAttribute("aria-pressed", String(!view.hidden[i]));
          view.draw();
        },
      }))));
    }

    const FINDINGS = 3;
    const sentence = (text) => `${format.tie(text).replace(/^./, (first) => first.toUpperCase())}.`;
    const finding = (it) => el("p", { class: "finding" }, el("b", {}, broken(it.title)),
      el("span", { class: `more ${it.extra_s < 0 ? "faster" : ""}` }, `${signed(it.extra_s)} (${format.percent(it.share)})`),
      el("br"), broken(sentence(it.why)));
    const costs = el("div", { class: "step-costs" });
    function explainCosts() {
      const step = model.step, top = step?.top ?? [], findings = step?.findings ?? [];
      if (step && !step.top && page.live) seek(step);
      costs.hidden = !top.length && !findings.length;
      costs.replaceChildren(...(costs.hidden ? [] : [el("div", { class: "cards" },
        top.length ? el("div", { class: "card" },
          el("div", { class: "card-head" }, el("h3", {}, "What cost the most extra time"), el("small", {}, "click to see it")),
          el("ol", { class: "costs" }, top.map((it) => el("li", {}, el("button", {
            type: "button", class: "cost",
            onclick: () => { view.show({ side: "measured", rank: it.rank, row: it.row }, { beside: "predicted" }); ask(it.rank); view.element.scrollIntoView({ block: "nearest" }); view.element.focus({ preventScroll: true }); },
          }, el("b", {}, broken(it.name)), el("span", { class: `more ${it.extra_s < 0 ? "faster" : ""}` }, signed(it.extra_s)),
          el("small", {}, broken(`rank ${it.rank}: ${format.seconds(it.measured_s)} instead of ${format.seconds(it.predicted_s)} · ${it.cause}`)))))),
          el("p", { class: "step-hint" }, COUNTED)) : null,
        findings.length ? el("div", { class: "card" },
          el("div", { class: "card-head" }, el("h3", {}, "Why, most likely")),
          findings.slice(0, FINDINGS).map(finding),
          findings.length > FINDINGS ? el("details", { class: "as-table" },
            el("summary", {}, `${findings.length - FINDINGS} that made less difference`), findings.slice(FINDINGS).map(finding)) : null,
          step.compared < model.ranks ? el("small", {}, `seen on ${format.integer(step.compared)} of ${format.integer(model.ranks)} ranks`) : null) : null)]));
    }

    // Ask the server for causes, which takes longer than drawing what there is.
    async function seek(step) {
      step.top = [];
      try {
        Object.assign(step, await page.api("step", { step: step.step, why: 1 }));
        if (model.step === step) explainCosts();
      } catch (error) { page.announce(error.message); }
    }

    const numbers = el("small", {});
    function summarize() {
      const said = model.sides.map(([side, it]) => `${side} ${format.seconds(it.step_s)}${it.finished ? "" : " and never ends"}`);
      const { predicted, measured } = model;
      if (predicted && measured) said.push(`${signed(measured.step_s - predicted.step_s)} (${format.change(measured.step_s / predicted.step_s - 1)})`);
      numbers.textContent = said.join(" · ");
      const known = model.measured ?? model.predicted;
      const here = [...known.player].filter((player) => known.packed.has(player)).length;
      scope.hidden = here === model.ranks && !view.folded;
      scope.textContent = view.folded
        ? `${format.integer(model.ranks)} ranks of ${view.order.length === 1 ? "one kind" : `${format.integer(view.order.length)} kinds`}: those that are alike are shown once.`
        : page.live
        ? `${format.integer(model.ranks)} ranks. Rows of ${format.integer(here)} are here, one of each kind and those that deviate most; others are asked for when you open them.${unread()}`
        : `${format.integer(model.ranks)} ranks. This file has every row of ${format.integer(here)}: one of each kind, and those that deviate most. Of others it shows where their time goes; stretto ui shows any.${unread()}`;
    }
    // Whose rows were not looked at, where a step is of too many.
    function unread() {
      const read = model.measured ? model.step.read : model.ranks;
      return read < model.ranks ? ` Of the recorded step ${format.integer(read)} ranks were read: the replicas of those whose devices worked longest or shortest. What cost the most is not looked for in so many.` : "";
    }
    const scope = el("p", { class: "step-hint" });

    // ── tables, for who cannot see the picture ───────────────────────────────────────────────

    const TABLE = 200;
    function ranksTable() {
      const rows = [];
      for (const rank of view.order) {
        if (rows.length >= TABLE) break;
        for (const [side, it] of model.sides) {
          const parts = it.usage(rank);
          if (parts) rows.push([String(rank), side, ...[...parts].slice(1).map((v) => format.seconds(v)), format.seconds(parts[0])]);
        }
      }
      const head = ["rank", "", ...model.sorts.slice(1).map((s) => WORDS[s]), WORDS.idle];
      return page.table({ caption: `Where the time of ${rows.length < view.order.length ? `the first ${rows.length} rows of ranks` : "each rank"} goes: work of the device, waits by the message that is waited for, and bubble`, head, rows, numeric: head.map((_, i) => i).slice(2) });
    }
    function rowsTable() {
      const rank = view.selected?.rank ?? view.drawn.ranks[0] ?? 0, rows = [];
      const either = model.sides.map(([, side]) => view.rows(side, rank)).filter(Boolean);
      for (let i = 0; i < model.sheet(rank).length && rows.length < TABLE; i++) {
        const seen = either.some((r) => r.begin[i] <= view.until_s && r.end(i) >= view.from_s);
        if (!seen) continue;
        const at = { rank, row: i }, sides = [model.predicted, model.measured].map((side) => took(side, at));
        rows.push([model.name(rank, i), WORDS[model.sorts[model.sheet(rank).sort[i]]],
          ...sides.flatMap((it) => [it ? format.seconds(it.begin, 5) : "–", it ? format.seconds(it.length) : "–"]),
          Number.isFinite(sides[1]?.extra) ? signed(sides[1].extra) : "–", format.bytes(model.sheet(rank).bytes[i])]);
      }
      return page.table({
        caption: `Instructions of rank ${rank} from ${format.seconds(Math.max(0, view.from_s))} to ${format.seconds(view.until_s)}${rows.length === TABLE ? `, the first ${TABLE}` : ""}; choose a rank and zoom in the picture, or with the keys, to read others`,
        head: ["instruction", "kind", "predicted at", "takes", "measured at", "took", "difference", "sends"], rows, numeric: [2, 3, 4, 5, 6, 7],
      });
    }
    const tables = [page.asTable("Where each rank's time goes, as a table", ranksTable), page.asTable("The instructions in sight, as a table", rowsTable)];
    let late = 0;
    function changed() {
      clearTimeout(late);
      late = setTimeout(() => {
        if (tables[1].open && tables[1].children.length > 1) tables[1].lastChild.replaceWith(rowsTable());
      }, 250);
      for (const rank of view.drawn.ranks) if (view.open.has(rank)) ask(rank);
    }

    // Ask the server for the rows of a rank.
    async function ask(rank) {
      const missing = model.sides.some(([, side]) => side.knows(rank) && !side.packed.has(side.player[rank]));
      const key = `${model.step?.step}/${rank}`;
      if (!missing || !page.live || asked.has(key)) return;
      asked.add(key);
      try {
        const answer = await page.api("step", { rank, ...(model.step ? { step: model.step.step } : {}) });
        for (const [side, it] of model.sides) if (answer[side]) it.add(answer[side], rank);
        view.draw();
      } catch (error) { page.announce(error.message); }
    }

    // ── choosing a step ──────────────────────────────────────────────────────────────────────

    function show(step) {
      model.record(kept.get(step) ?? null);
      view.scale_s = model.measured?.scale_s ?? 0;
      view.selected = view.hovered = null;
      view.arrange();
      summarize(); explain(); explainCosts();
      page.chooseStep(step);
    }
    async function turn(step) {
      if (!kept.has(step)) kept.set(step, await page.api("step", { step }));
      if (kept.size > 12) kept.delete(kept.keys().next().value);
      show(step);
    }
    const pick = el("span", {}), some = el("p", { class: "step-hint step-some" });
    function offer() {
      const there = page.live ? steps : steps.filter((step) => kept.has(step));
      pick.replaceChildren(there.length > 1 ? page.select({
        label: "Step", value: String(model.step?.step),
        options: [...there].reverse().map((step, i) => [String(step), `${format.integer(step)}${i ? "" : " (newest)"}`]),
        onchange: (step) => { follow = Number(step) === there.at(-1); turn(Number(step)).catch((e) => page.announce(e.message)); },
      }) : there.length ? el("small", {}, `step ${format.integer(there[0])}`) : "",
      "");
      some.hidden = there.length === steps.length;
      some.textContent = `This file has ${format.integer(there.length)} of ${format.integer(steps.length)} recorded steps; stretto ui has all.`;
    }
    page.onUpdate(async (news) => {
      if (news.kind !== "recordings") return;
      try {
        const answer = await page.api("step", {});
        steps = answer.steps;
        if (follow && answer.step !== undefined) { kept.set(answer.step, answer); show(answer.step); }
        offer();
      } catch (error) { page.announce(error.message); }
    });

    // ── together ─────────────────────────────────────────────────────────────────────────────

    const both = model.sides.length > 1;
    const icon = (glyph, text, act) => el("button", { type: "button", class: "icon-button", title: text, "aria-label": text, onclick: act }, glyph);
    const number = el("input", { type: "number", min: 0, max: model.ranks - 1, placeholder: "0" });
    root.append(
      costs,
      el("div", { class: "card" },
        el("div", { class: "card-head" }, el("h3", {}, both ? "Predicted and measured, on one clock" : "Predicted, on a clock"), numbers),
        el("div", { class: "toolbar" },
          pick,
          both ? page.segmented({ label: "Show", value: "both", options: [["both", "both"], ["predicted", "predicted"], ["measured", "measured"]], onchange: (v) => { view.shown = v === "both" ? ["predicted", "measured"] : [v]; view.measure(); } }) : null,
          both ? page.segmented({ label: "Colour", value: "kind", options: [["kind", "by kind"], ["difference", "by difference"]], onchange: (v) => { view.by = v; explain(); view.draw(); } }) : null,
          page.toggle({ label: "Critical path", onchange: (on) => { view.path = on; view.draw(); } }),
          view.folded && view.order.length < model.ranks ? page.toggle({ label: "Fold ranks that are alike", checked: true, onchange: (on) => { view.fold = on; view.arrange(); summarize(); } }) : null,
          model.ranks > 8 ? el("form", { class: "step-go", onsubmit: (e) => { e.preventDefault(); const rank = view.standing(Math.min(model.ranks - 1, Math.max(0, Number(number.value) || 0))); view.toggle(rank, true); view.reveal(rank); choose({ rank, side: view.sides.at(-1)[0] }); } },
            el("label", {}, "Open rank ", number), el("button", { class: "sr-only" }, "Open")) : null,
          el("span", { class: "step-buttons push" },
            icon("+", "Zoom in", () => view.zoom(1 / 1.6)), icon("−", "Zoom out", () => view.zoom(1.6)),
            icon("←", "Earlier", () => view.pan(-0.3)), icon("→", "Later", () => view.pan(0.3)), icon("↔", "The whole step", () => view.whole()))),
        map.host, view.element, legend, scope, some,
        el("p", { class: "step-hint" }, "Drag to move; Ctrl and wheel, or two fingers, zoom; click a rank to open it. ",
          el("span", { class: "keys" }, "Keys: ", KEYS.flatMap(([keys, does]) => [el("span", { class: "key" }, keys.split(" ").map((key) => el("kbd", {}, key)), ` ${does}`), " "]))),
        el("details", { class: "as-table" }, el("summary", {}, "What the words mean"),
          el("dl", { class: "facts" }, GLOSSARY.flatMap(([word, means]) => [el("dt", {}, broken(word)), el("dd", {}, means)]))),
        tables));
    view.scale_s = model.measured?.scale_s ?? 0;
    for (const rank of view.order.slice(0, view.order.length <= 4 ? 4 : 1)) view.open.add(rank);
    view.window(0, model.end_s * 1.01);
    view.listen({ hover, choose });
    explain(); explainCosts(); summarize(); offer();
    if (model.step) page.chooseStep(model.step.step);
    timeline.view = view;   // for whoever drives the page
  },
});
