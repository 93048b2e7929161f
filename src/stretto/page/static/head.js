// The verdict: what the rest of the page comes to, in words and figures.
"use strict";

Stretto.section({
  id: "head",
  title: "",
  order: 0,
  render(root, data, page) {
    const { el, format } = page;
    const body = el("div", {});
    root.append(body);
    const TONES = { starting: "", running: "good", finished: "good", stopped: "warn" };
    const LOOK_MS = 15_000;  // a run that was killed tells nobody

    let state = "";

    function draw(it) {
      if (page.live) document.title = it.tab;
      state = it.state;
      page.stand(state);
      body.replaceChildren(
        el("div", { class: "head-title" }, el("h1", {}, it.title),
          it.badge ? el("span", { class: `badge ${it.badge === it.state ? TONES[it.state] : "warn"}` }, it.badge) : null),
        el("p", { class: "verdict" }, format.tie(it.verdict)),
        el("dl", { class: "stats" }, it.figures.map((figure) => page.stat({ ...figure, note: format.tie(figure.note) }))),
        ...it.notes.map(({ tone, text }) => el("p", { class: `note ${tone}` }, format.tie(text))),
        el("dl", { class: "facts" }, it.facts.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, format.tie(text))])),
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
    if (page.live) setInterval(() => { if (!document.hidden && (state === "running" || state === "starting")) follow("metrics"); }, LOOK_MS);
  },
});
