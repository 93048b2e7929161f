// The page itself: sections, theme, navigation, data, keyboard; numbers for people: see numbers.js.
//
// A section's script calls
//   Stretto.section({id, title, order, render(root, data, page)})
// with what Python's page/<id>.py makes as `data`; `root` is an empty element with the title above
// it. `page` is `Stretto.page`, described below. Nothing here or in a section sets innerHTML or
// style attributes: the page's policy forbids inline style, and names come from anywhere.
"use strict";

const Stretto = (() => {
  const sections = [];
  const listeners = { resize: [], theme: [], update: [], step: [] };
  const root = document.documentElement;
  const store = {  // a file may be opened where storage is refused
    get(key) { try { return localStorage.getItem(key); } catch { return null; } },
    set(key, value) { try { localStorage.setItem(key, value); } catch { /* not kept */ } },
  };

  // ── theme: light, dark, or what the system says ────────────────────────────────────────────

  const THEMES = ["auto", "light", "dark"];
  const GLYPHS = { auto: "◐", light: "☀", dark: "☾" };
  const NAMES = { auto: "as the system", light: "light", dark: "dark" };
  let theme = THEMES.includes(store.get("stretto-theme")) ? store.get("stretto-theme") : "auto";
  const system = matchMedia("(prefers-color-scheme: dark)");

  function applyTheme() {
    const dark = theme === "dark" || (theme === "auto" && system.matches);
    root.dataset.theme = dark ? "dark" : "light";
    const button = document.getElementById("theme");
    if (button) {
      button.textContent = GLYPHS[theme];
      button.title = button.ariaLabel = `Colours: ${NAMES[theme]}`;
    }
    tell("theme");
  }

  function nextTheme() {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    store.set("stretto-theme", theme);
    applyTheme();
    page.announce(`Colours: ${NAMES[theme]}`);
  }

  function tell(event, detail) { for (const call of listeners[event]) call(detail); }

  // ── elements ───────────────────────────────────────────────────────────────────────────────

  // el("button", {class: "x", onclick: f, ariaLabel: "y", dataset: {z: 1}}, "text", child, …)
  function el(tag, attributes = {}, ...children) {
    const svg = tag.startsWith("svg:");
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === undefined || value === null || value === false) continue;
      if (name === "dataset") Object.assign(made.dataset, value);
      else if (name === "css") for (const [k, v] of Object.entries(value)) made.style.setProperty(k, v);
      else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (name.startsWith("aria") && name !== "aria" && !name.includes("-")) made[name] = value;
      else made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
    return made;
  }

  // What stretto.page.packed made: a typed array, with its shape as `.shape`.
  const ARRAYS = {
    uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array,
    uint32: Uint32Array, int32: Int32Array, float32: Float32Array, float64: Float64Array,
  };
  function unpack(packed) {
    const text = atob(packed.base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const array = new ARRAYS[packed.dtype](bytes.buffer);
    array.shape = packed.shape;
    return array;
  }

  const idle = globalThis.requestIdleCallback ?? ((act) => setTimeout(act, 50));
  const waiting = new Set();  // what is drawn when nothing else is to be done, one at a time
  let resting = true;
  function rest() {
    resting = !waiting.size;
    if (resting) return;
    idle(() => { waiting.values().next().value?.(); rest(); });
  }

  function nearby(element, draw) {
    const margin = 400;
    const fresh = () => { if (waiting.delete(fresh)) draw(); };
    new IntersectionObserver((entries) => {
      if (entries.at(-1).isIntersecting) fresh();
    }, { rootMargin: `${margin}px` }).observe(element);
    addEventListener("beforeprint", fresh);
    return () => {
      waiting.add(fresh);
      const { top, bottom } = element.getBoundingClientRect();
      if (bottom > -margin && top < innerHeight + margin) fresh();
      else if (resting) rest();
    };
  }

  // ── what a section is given ────────────────────────────────────────────────────────────────

  const page = {
    live: false,          // whether a server answers
    run: null,            // which run, where it does
    about: {},            // what Python said of the page as a whole
    el, format: Numbers, unpack, store,
    // Ask the server for more of a section: api("step", {rank: 3}) → Promise of page/step.py's
    // answer(subject, {"rank": "3"}). Rejects with an Error whose message is for people.
    async api(path, params = {}) {
      if (!page.live) throw new Error("this file is all there is: serve the run with stretto ui for more");
      const query = new URLSearchParams({ ...(page.run === null ? {} : { run: page.run }), ...params });
      const response = await fetch(`/api/${path}?${query}`).catch(() => {
        throw new Error("the server is gone: start stretto ui again");
      });
      const answer = await response.json().catch(() => ({}));
      if (!response.ok) throw new Error(answer.error ?? `the server says ${response.status}`);
      return answer;
    },
    // The value of a CSS variable, for canvases: color("accent"), color("k-forward").
    color(name) { return getComputedStyle(root).getPropertyValue(`--${name}`).trim(); },
    onResize(call) { listeners.resize.push(call); },   // after the width of the page has changed
    onTheme(call) { listeners.theme.push(call); },     // after the colours have changed: draw again
    onUpdate(call) { listeners.update.push(call); },   // live: ({kind: "metrics" | "recordings", …})
    // Which recorded step is looked at, over all sections: chooseStep(60), onStep((step) => …).
    step: null,
    chooseStep(step) { page.step = step; tell("step", step); },
    onStep(call) { listeners.step.push(call); if (page.step !== null) call(page.step); },
    // Draw first what is near enough to be seen: nearby(element, draw) gives a function that draws
    // now, or when the element comes near, or when there is nothing else to do.
    nearby,
    stand(state) { standing = state; if (connected) tellConnected(); },  // of the run, as its head knows it
    announce(text) { document.getElementById("say").textContent = text; },  // to screen readers
    still: () => matchMedia("(prefers-reduced-motion: reduce)").matches,
  };

  // ── building the page ──────────────────────────────────────────────────────────────────────

  function embedded(name) {
    const element = document.getElementById(`data-${name}`);
    return element ? JSON.parse(element.textContent) : null;
  }

  const breath = () => new Promise((go) => setTimeout(go));
  const picture = () => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)));

  async function fill(section, host) {
    let data = embedded(section.id);
    try {
      if (data === null && page.live) data = await page.api("page", { section: section.id });
      if (data === null || data.absent) {
        host.remove();
        document.querySelector(`#nav a[href="#${section.id}"]`)?.remove();
        return;
      }
      const body = el("div", { class: "section-body" });
      host.querySelector(".section-body").replaceWith(body);
      await section.render(body, data, page);
    } catch (error) {
      console.warn(error);
      host.querySelector(".section-body").replaceChildren(
        el("p", { class: "note bad", role: "alert" }, `This section could not be drawn: ${error.message}`));
    }
    host.ariaBusy = null;
  }

  function frame(section) {
    const title = section.title ? el("h2", { id: `${section.id}-title` }, section.title) : null;
    const host = el("section", {
      id: section.id, class: `section section-${section.id}`, "aria-busy": "true",
      ...(title ? { "aria-labelledby": `${section.id}-title` } : { "aria-label": "Summary" }),
    }, title, el("div", { class: "section-body waiting" }, page.live ? "computing…" : ""));
    document.getElementById("main").append(host);
    if (title) {
      document.getElementById("nav").append(el("a", { href: `#${section.id}` }, section.title));
    }
    return host;
  }

  async function start() {
    Object.assign(page.about, embedded("page") ?? {});
    page.live = Boolean(page.about.live);
    page.run = page.about.run ?? null;
    document.getElementById("theme").addEventListener("click", nextTheme);
    applyTheme();
    const wanted = sections
      .filter((s) => page.live || embedded(s.id) !== null)
      .sort((a, b) => a.order - b.order);
    const hosts = wanted.map(frame);
    const work = [];
    for (const [i, section] of wanted.entries()) {
      const filled = fill(section, hosts[i]);
      if (page.live) work.push(filled);  // the server makes them side by side
      else { await filled; await breath(); }
    }
    await Promise.all(work);
    follow();
    if (page.live && page.run !== null) listen();
    await picture();  // what is near is drawn
    root.dataset.ready = "true";
    performance.mark("stretto-ready");
  }

  // Mark in the navigation which section is being read.
  function follow() {
    const links = new Map([...document.querySelectorAll("#nav a")].map((a) => [a.hash.slice(1), a]));
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const [id, link] of links) link.ariaCurrent = id === entry.target.id ? "true" : null;
      }
    }, { rootMargin: "-20% 0px -70% 0px" });
    for (const id of links.keys()) seen.observe(document.getElementById(id));
  }

  // ── live: the server tells what is new while the page is looked at ──────────────────────────

  let source = null, connected = false, standing = "";
  function show(kind, text) {
    const state = document.getElementById("state");
    connected = kind === "live" || kind === "still";
    state.dataset.kind = kind;
    state.textContent = text;
  }
  function tellConnected() { if (standing === "running") show("live", "live"); else show("still", standing); }

  function listen() {
    const open = () => {
      if (source || document.hidden) return;
      source = new EventSource(`/api/events?${new URLSearchParams({ run: page.run })}`);
      source.onopen = tellConnected;
      source.onerror = () => show("lost", "connection lost, trying again");
      source.addEventListener("plan", () => show("lost", "the plan has changed: load the page again"));
      for (const kind of ["metrics", "recordings"]) {
        source.addEventListener(kind, (event) => tell("update", { kind, ...JSON.parse(event.data) }));
      }
    };
    document.addEventListener("visibilitychange", () => {  // a hidden page takes no connection
      if (document.hidden) { source?.close(); source = null; show("paused", "paused"); }
      else open();
    });
    open();
  }

  let width = 0, pending = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(() => {
      if (root.clientWidth !== width) { width = root.clientWidth; tell("resize"); }
    });
  });
  system.addEventListener("change", applyTheme);
  addEventListener("DOMContentLoaded", () => { width = root.clientWidth; start(); });
  applyTheme();

  return { section: (section) => sections.push(section), page };
})();
