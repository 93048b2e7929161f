// The verdict: what the rest of the page comes to, in words and figures.
"use strict";

Stretto.section({
  id: "head",
  title: "",
  order: 0,
  render(root, data, page) {
    const { el } = page;
    const body = el("div", {});
    root.append(body);
    const TONES = { running: "good", finished: "good", stopped: "warn", "not begun": "" };

    function draw(it) {
      if (page.live) document.title = it.tab;
      body.replaceChildren(
        el("div", { class: "head-title" }, el("h1", {}, it.title),
          it.state ? el("span", { class: `badge ${TONES[it.state]}` }, it.state) : null),
        el("p", { class: "verdict" }, it.verdict),
        el("dl", { class: "stats" }, it.figures.map((figure) => page.stat(figure))),
        ...it.notes.map(({ tone, text }) => el("p", { class: `note ${tone}` }, text)),
        el("dl", { class: "facts" }, it.facts.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)])),
      );
    }

    draw(data);
    let known = data.finding, busy = false, again = null;
    async function follow(kind) {
      if (busy) { again = again === "recordings" ? again : kind; return; }
      busy = true;
      try {
        const now = await page.api("head", kind === "recordings" ? {} : { known });
        known = now.finding;
        draw(now);
      } catch (error) { console.warn(error); }
      setTimeout(() => {
        busy = false;
        const next = again;
        again = null;
        if (next) follow(next);
      }, 1000);
    }
    page.onUpdate(({ kind }) => follow(kind));
  },
});
