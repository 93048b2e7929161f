// The plan explorer: what is asked, what is answered, and which plan of it is looked at.
//
// A live page asks the server, one question at a time and only the latest; a file has answers that
// were made beforehand, between which its sliders move.
"use strict";

(() => {
  const { page } = Stretto;
  const { el, format } = page;
  const { Plot, panel, control, against } = Stretto.explorer;
  const PAUSE_MS = 90;                 // after a slider has moved, before the server is asked
  const NETWORK = [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8];
  const OBJECTIVES = {
    time: "shortest step", cost: "least money", energy: "least energy",
    "memory-headroom": "most memory left (within 5 %)",
  };
  const LINKS = { between: "links between nodes", within: "links within nodes", all: "all links" };
  const SMALL = { cost: "money", energy: "energy" };  // what else is to be small; memory otherwise
  const times = (v) => `${format.tick.number(v, 3)} ×`;

  // ── where answers come from ─────────────────────────────────────────────────────────────────

  // Made beforehand: for values of four axes, each answer packed by itself.
  function filed(grid) {
    const names = ["devices", "tokens", "seq", "network"];
    async function ask(asked) {
      const own = { ...asked, tokens: asked.sequences * asked.seq };
      const place = names.reduce((at, name) => at * grid.axes[name].length + grid.axes[name].indexOf(own[name]), 0);
      const cell = grid.cells[place];
      if (!cell) throw new Error("this file has no answer for that");
      const bytes = Uint8Array.from(atob(cell), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      return JSON.parse(await new Response(stream).text());
    }
    return { ask, axes: grid.axes };
  }

  // ── the section ─────────────────────────────────────────────────────────────────────────────

  class Explorer {
    constructor(root, data) {
      this.data = data;
      this.file = data.grid ? filed(data.grid) : null;
      this.asked = { ...data.start };
      this.answer = null; this.first = null; this.selected = null;
      this.asking = false; this.timer = 0; this.details = 0;
      this.status = el("p", { class: "explorer-status", role: "status" });
      this.progress = el("progress", { class: "explorer-progress", "aria-label": "searching" });
      this.verdict = el("p", { class: "explorer-verdict" });
      this.side = el("div", { class: "card explorer-plan" });
      this.card = el("div", { class: "card explorer-picture" }, this.verdict);
      this.body = el("div", { class: "explorer-body" }, this.card, this.side);
      this.failure = el("div", {});
      root.append(this.controls(), this.failure, this.body);
      this.plot = new Plot(this.card, { chosen: (point) => this.choose(point) });
      this.plot.wordsOf = (i) => this.words(i);
      this.card.append(el("small", { class: "explorer-hint" }, "Click a point to see its plan; with the picture in focus, arrow keys go along the front."), this.table());
      this.ask();
    }

    // ── what is asked ────────────────────────────────────────────────────────────────────────

    controls() {
      const { data, asked, file } = this, { values, limits } = data, snap = Boolean(file);
      const tokens = () => this.asked.sequences * this.asked.seq;
      const inFile = (name, others) => (file ? file.axes[name] : others);
      const make = (label, name, list, more) => control({
        label, values: list, value: asked[name], limits: limits[name], snap,
        set: (value) => this.change({ [name]: value }), ...more,
      });
      this.sliders = {
        devices: make("Devices", "devices", inFile("devices", values.devices), {
          note: (n) => (n === data.start.devices ? "as this page's plan" : `${times(n / data.start.devices)} this page's`),
        }),
        sequences: make("Sequences a step", "sequences", file ? this.sequencesFor(asked.seq) : values.sequences, {
          note: (n) => `${format.count(n * this.asked.seq)} tokens`,
        }),
        seq: make("Positions a sequence", "seq", inFile("seq", values.seq), {
          note: (n) => (file && file.axes.seq.length < 2 ? "the only ones in this file"
            : tokens() % n ? "a step has other tokens" : "a step keeps its tokens"),
          set: (seq) => this.change(this.keeping(seq)),
        }),
        network: make("Network speed", "network", inFile("network", NETWORK), {
          whole: false, note: (v) => (v === 1 ? "as the cluster has it" : `${times(v)} as fast`),
        }),
      };
      const options = (names, texts) => names.map((name) => [name, texts[name]]);
      const choices = [];
      if (!file && values.links.length > 1) {
        choices.push(this.links = page.select({
          label: "Speed of", options: options(values.links, LINKS), value: asked.links,
          onchange: (links) => this.change({ links }),
        }));
      }
      if (!file) {
        choices.push(this.objective = page.select({
          label: "Best is the", options: options(values.objective, OBJECTIVES), value: asked.objective,
          onchange: (objective) => this.change({ objective }),
        }));
      }
      this.reset = el("button", { class: "button", type: "button", disabled: true, onclick: () => this.change({ ...data.start }) }, "Back to this page's plan");
      const note = file ? `This file holds ${format.integer(data.grid.cells.length)} answers, and the sliders move between them${data.grid.narrowed ? "; all but the first tried only what the best plans of the first chose" : ""}. stretto ui answers for any values.` : "";
      const card = el("div", { class: "card explorer-controls" },
        el("div", { class: "explorer-sliders" }, Object.values(this.sliders).map((s) => s.element)),
        el("div", { class: "toolbar" }, choices, el("span", { class: "push explorer-state" }, this.status), this.reset),
        [note, ...data.notes].filter(Boolean).map((text) => el("small", { class: "explorer-note" }, text)),
        this.progress);
      this.show();
      return card;
    }

    // Sequences for which a file has answers.
    sequencesFor(seq) { return this.file.axes.tokens.filter((t) => t % seq === 0).map((t) => t / seq); }

    // Another length of sequences, and as many of them as make the same tokens, if that is a number.
    keeping(seq) {
      const tokens = this.asked.sequences * this.asked.seq;
      return tokens % seq ? { seq } : { seq, sequences: tokens / seq };
    }

    change(change) {
      Object.assign(this.asked, change);
      this.show();
      this.wait();
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.ask(), this.file ? 0 : PAUSE_MS);
    }

    show() {
      const { asked, data } = this;
      for (const [name, slider] of Object.entries(this.sliders)) slider.show(asked[name]);
      const same = Object.entries(data.start).every(([name, value]) => asked[name] === value);
      this.reset.disabled = same;
      for (const [name, element] of [["links", this.links], ["objective", this.objective]]) {
        if (element) element.querySelector("select").value = asked[name];
      }
    }

    // ── what is answered ─────────────────────────────────────────────────────────────────────

    // The old answer is pale while the new one is looked for.
    wait() {
      this.body.ariaBusy = "true";
      this.body.classList.add("stale");
      page.tooltip.hide();
      const usual_s = this.answer?.search_s ?? 0;
      this.progress.classList.add("on");
      this.status.textContent = usual_s > 0.4 ? `searching, the last took ${format.seconds(usual_s)}` : "searching";
    }

    async ask() {
      if (this.asking) return;          // the latest question follows this one
      this.asking = true;
      this.wait();
      const asked = { ...this.asked }, key = JSON.stringify(asked);
      let answer = null, failed = null;
      try {
        answer = await (this.file ? this.file.ask(asked) : page.api("explorer", asked));
      } catch (error) { failed = error; }
      this.asking = false;
      if (key !== JSON.stringify(this.asked)) { this.ask(); return; }  // stale: dropped
      this.progress.classList.remove("on");
      this.body.ariaBusy = null;
      this.body.classList.remove("stale");
      if (failed) this.fail([{ field: "", rule: failed.message, remedy: "" }]);
      else if (answer.problems.length) this.fail(answer.problems);
      else this.take(answer);
    }

    fail(problems) {
      this.status.textContent = "no answer";
      this.body.hidden = true;
      this.failure.replaceChildren(el("div", { class: "note bad explorer-problems", role: "alert" },
        problems.map((p) => el("p", {}, p.field ? el("b", {}, `${p.field}: `) : null,
          [p.rule, p.remedy].filter(Boolean).join("; ")))));
    }

    take(answer) {
      this.failure.replaceChildren();
      this.body.hidden = false;
      const before = this.answer, was = this.selected;
      this.answer = answer;
      this.complete();
      this.first ??= answer;
      this.details += 1;                // what was asked of a point of the old answer is dropped
      this.said();
      this.selected = { plan: this.like(before, was) };
      this.plot.set(answer, this.selected);
      this.tell();
      this.tableOf.open = false;
      page.announce(this.verdict.textContent);
    }

    // Put what the answer tells in brief of the front where the rest of it is.
    complete() {
      const { plans, front, cloud } = this.answer;
      for (const i of cloud.front) front.push(plans.push({ ...this.brief(i), cloud: i }) - 1);
      front.sort((a, b) => plans[a].step_s - plans[b].step_s);
      for (const plan of plans) {
        if ("cloud" in plan) Object.assign(plan, Stretto.explorer.between(plan, { answer: this.answer, names: this.data.names }));
      }
    }

    // The plan that is what the selected one was: the best, this page's own, or of the front with
    // about as much memory.
    like(before, was) {
      const { answer } = this;
      if (!before || !was || !("plan" in was)) return answer.best;
      for (const role of ["best", "here", "running"]) {
        if (before[role] === was.plan) return answer[role] ?? answer.best;
      }
      const { key } = against(before.asked.objective);
      if (key !== against(answer.asked.objective).key) return answer.best;
      const wanted = before.plans[was.plan][key];
      const distance = (plan) => Math.abs(answer.plans[plan][key] - wanted);
      return answer.front.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    }

    said() {
      const { answer, first } = this, best = answer.plans[answer.best];
      const rate = (a) => a.tokens / a.plans[a.best].step_s;
      const ratio = rate(answer) / rate(first) - 1;
      this.status.textContent = `${format.integer(answer.tried)} plans tried in ${format.seconds(answer.search_s)}`;
      this.verdict.replaceChildren(
        el("b", {}, `${format.seconds(best.step_s)} a step`),
        `, ${format.count(rate(answer))} tokens/s on ${format.integer(best.devices)} ${best.devices === 1 ? "device" : "devices"}`,
        answer !== first && Math.abs(ratio) > 5e-4 ? `: ${format.change(ratio)} against where this began` : "",
        answer.host ? ". Nothing fits without the host's memory" : "",
        `. ${format.integer(answer.can_be)} plans fit; along the line, less ${SMALL[answer.asked.objective] ?? "memory"} costs time.`);
    }

    // ── which plan is looked at ──────────────────────────────────────────────────────────────

    choose(point) {
      this.selected = point;
      this.plot.select(point);
      this.tell();
      const [step_s, value] = this.plot.value(point);
      page.announce(`${this.title(point)}: ${format.seconds(step_s)}, ${this.plot.axis.show(value)}`);
      if (this.cloud(point) !== undefined && !this.file) this.detail(point);
    }

    // Its place in the cloud, if it is told in brief.
    cloud(point) { return point.cloud ?? this.answer.plans[point.plan].cloud; }

    title(point) {
      const { answer } = this;
      if (!("plan" in point)) return "A plan off the front";
      const at = answer.front.indexOf(point.plan);
      if (point.plan === answer.best) return "The best plan";
      if (point.plan === answer.here) return "The plan of this page";
      if (at >= 0) return `Plan ${at + 1} of ${answer.front.length} on the front`;
      return "The fastest that runs today";
    }

    tell() {
      const { answer, selected } = this;
      const plan = "plan" in selected ? answer.plans[selected.plan] : this.off(selected.cloud);
      this.side.replaceChildren(...this.steps(), ...panel(plan, { title: this.title(selected), answer, names: this.data.names }).filter(Boolean));
    }

    // Buttons along the front, and to the plans that have a name.
    steps() {
      const { answer, plot } = this, at = plot.place(), { front } = answer;
      const off = !front.includes(this.selected.plan);
      const go = (text, plan) => el("button", {
        class: "button", type: "button", disabled: plan === undefined || plan === null,
        onclick: (e) => { const name = e.target.textContent; this.choose({ plan }); this.refocus(name); },
      }, text);
      const less = `less ${SMALL[answer.asked.objective] ?? "memory"}`;
      return [el("div", { class: "toolbar explorer-steps" },
        go("← faster", front[off ? at : at - 1]), go(`${less} →`, front[at + 1]),
        go("best", answer.best), go("runs today", answer.running), go("you are here", answer.here))];
    }

    refocus(name) {
      [...this.side.querySelectorAll(".explorer-steps button")].find((b) => b.textContent === name)?.focus();
    }

    // What the answer tells of a plan of the cloud.
    decided(i) {
      const { decisions } = this.answer.cloud;
      return Object.fromEntries(Object.entries(decisions).map(([name, v]) => [name, Array.isArray(v) ? v[i] : v]));
    }

    words(i) {
      const { words } = this.data, own = this.decided(i), shown = [];
      for (const [name, value] of Object.entries(own)) {
        if (["pp", "dp", "cp", "tp", "ep", "interleave"].includes(name) ? value > 1
          : name === "micro_batch" || ((name === "zero" || name === "recompute" || name === "recompute_layers" || name === "tensor_overlap") && value)
          || (name === "schedule" && own.pp > 1)) {
          shown.push(`${name}=${words[name]?.[value] ?? value}`);
        }
      }
      return shown.join(" ");
    }

    brief(i) {
      const { cloud, asked, tokens, plans, best } = this.answer, { key } = against(asked.objective);
      const step_s = cloud.time_s[i], own = this.decided(i), of = plans[best];
      const parts = (columns, whole) => {  // told in thousandths, which are rounded
        const own = columns.map((v) => (Array.isArray(v) ? v[i] : v)), all = own.reduce((a, b) => a + b, 0);
        return own.map((v) => v / all * whole);
      };
      const plan = {
        words: this.words(i), kind: cloud.kinds[cloud.kind[i]], devices: own.devices, step_s, [key]: cloud.against[i],
        tokens_per_s_per_device: tokens / step_s / own.devices,
        mfu: of.mfu * of.step_s * of.devices / step_s / own.devices, time: parts(cloud.time, step_s),
      };
      if (plan.memory_bytes) {
        plan.memory = parts(cloud.memory, plan.memory_bytes);
        plan.moment = Array.isArray(cloud.moment) ? cloud.moment[i] : cloud.moment;
      }
      if (this.file) plan.command = this.command(own);
      return plan;
    }

    // The same of a plan off the front, with which plan of it beats it.
    off(i) {
      const plan = this.brief(i);
      return { ...plan, ...Stretto.explorer.beaten(plan, { answer: this.answer, names: this.data.names }) };
    }

    // The command that gives a plan of the cloud of a file: all that decides it.
    command(own) {
      const { words } = this.data;
      const pins = Object.entries(own).filter(([name, value]) => name !== "devices" && (value || !/offload$/.test(name)));
      return [this.answer.command, ...pins.map(([name, value]) => `${name}=${words[name]?.[value] ?? value}`)].join(" ");
    }

    async detail(point) {
      const ticket = ++this.details, i = this.cloud(point);
      const { wins, beside } = "plan" in point ? this.answer.plans[point.plan] : this.off(i);
      const numbers = Object.values(this.decided(i)).join(",");
      try {
        const found = await page.api("explorer", { ...this.answer.asked, plan: numbers });
        if (ticket !== this.details || this.selected !== point) return;
        this.side.replaceChildren(...this.steps(), ...panel({ ...found.plan, wins, beside }, { title: this.title(point), answer: this.answer, names: this.data.names }).filter(Boolean));
      } catch (error) {
        if (ticket === this.details) this.side.append(el("p", { class: "note bad" }, error.message));
      }
    }

    table() {
      this.tableOf = page.asTable("The front as a table", () => {
        const { answer } = this, axis = against(answer.asked.objective);
        return page.table({
          caption: "Plans of the front, the fastest first",
          head: ["step", axis.name, "MFU", "devices", "plan"], numeric: [0, 1, 2, 3],
          rows: answer.front.map((i) => answer.plans[i]).map((p) => [
            format.seconds(p.step_s), axis.show(p[axis.key]), format.percent(p.mfu), format.integer(p.devices), p.words]),
        });
      });
      this.tableOf.addEventListener("toggle", () => { if (!this.tableOf.open) this.tableOf.children[1]?.remove(); });
      return this.tableOf;
    }
  }

  Stretto.section({
    id: "explorer",
    title: "Explorer",
    order: 5,
    render(root, data) {
      if (data.problems.length) {
        root.append(el("p", { class: "note bad" }, data.problems.map((p) => `${p.field}: ${p.rule}; ${p.remedy}`).join(" ")));
        return;
      }
      root.explorer = new Explorer(root, data);
    },
  });
})();
