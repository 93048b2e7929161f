// The list of runs, asked for again while somebody looks at it.
"use strict";

Stretto.section({
  id: "runs",
  title: "",
  order: 0,
  render(root, data, page) {
    const { el, format } = page;
    const TONES = { starting: "", running: "good", finished: "good", stopped: "warn" };
    const box = el("div", { class: "card" });
    root.append(el("h1", {}, "Runs"), box);

    const UNITS = [["days", 172800, 86400], ["h", 3600, 3600], ["min", 60, 60], ["s", 5, 1]];  // from when on, and how long
    function ago(time) {
      if (!time) return "–";
      const seconds = Date.now() / 1000 - time;
      const [unit, , one] = UNITS.find(([, least]) => seconds >= least) ?? [];
      return unit ? `${Math.floor(seconds / one)}\u00a0${unit} ago` : "now";
    }

    function draw(runs) {
      if (!runs.length) {
        box.replaceChildren(
          el("p", {}, "There are no runs here yet."),
          el("p", { class: "muted" }, "Begin one with ", el("code", {}, "stretto train"), ": it appears by itself."));
        return;
      }
      box.replaceChildren(page.table({
        caption: `${runs.length} ${runs.length === 1 ? "run" : "runs"}, the newest first`,
        head: ["Run", "Status", "Model", "Plan", "Step", "Loss", "Tokens a second", "MFU", "To go", "Last word"],
        numeric: [4, 5, 6, 7, 8, 9], kind: "stacked",
        rows: runs.map((run) => [
          el("a", { href: `/run?${new URLSearchParams({ run: run.name })}` }, run.name),
          el("span", { class: `badge ${TONES[run.state]}` }, run.state), run.model || "–", run.plan || "–",
          `${format.integer(run.step ?? 0)} of ${format.integer(run.steps)}`,
          format.number(run.loss), format.count(run.tokens_per_s), format.percent(run.mfu),
          run.state === "running" ? format.span(run.eta_s) : "–", ago(run.changed),
        ]),
      }));
    }

    draw(data.runs);
    setInterval(async () => {
      if (document.hidden) return;
      const at = document.activeElement?.getAttribute("href");
      try { draw((await page.api("runs")).runs); } catch { return; }
      if (at) [...box.querySelectorAll("a")].find((a) => a.getAttribute("href") === at)?.focus();
    }, 3000);
  },
});
