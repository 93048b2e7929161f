// What sections share: choices, sliders, legends, tables, tooltips, canvases. All are made with
// `Stretto.page.el`, reachable by keyboard, and named for screen readers.
"use strict";

(() => {
  const { page } = Stretto;
  const { el } = page;
  let made = 0;

  Object.assign(page, {
    // One of a few: segmented({label: "Colour by", options: [["stage", "Stage"], …], value,
    // onchange(value)}). Arrow keys move, as radio buttons do. `.value` of the element reads and sets.
    segmented({ label, options, value, onchange }) {
      const name = `choice-${++made}`;
      const inputs = options.map(([key]) => el("input", {
        type: "radio", name, value: key, checked: key === value, onchange: () => onchange(key),
      }));
      const box = el("fieldset", { class: "segmented" }, el("legend", {}, label),
        options.map(([, text], i) => el("label", {}, inputs[i], el("span", {}, text))));
      Object.defineProperty(box, "value", {
        get: () => inputs.find((input) => input.checked)?.value,
        set: (key) => { for (const input of inputs) input.checked = input.value === key; },
      });
      return box;
    },

    // A tick box: toggle({label, checked, onchange(checked)}).
    toggle({ label, checked = false, onchange }) {
      return el("label", { class: "toggle" },
        el("input", { type: "checkbox", checked, onchange: (e) => onchange(e.target.checked) }),
        el("span", {}, label));
    },

    // A number between two: slider({label, min, max, step, value, show(value) → text, oninput(value)}).
    slider({ label, min, max, step = 1, value, show = page.format.number, oninput }) {
      const output = el("output", {}, show(value));
      const input = el("input", {
        type: "range", min, max, step, value,
        oninput: (e) => {
          output.textContent = input.ariaValueText = show(Number(e.target.value));
          oninput(Number(e.target.value));
        },
      });
      input.ariaValueText = show(value);
      return el("label", { class: "slider" }, el("span", {}, label), input, output);
    },

    // One of many: select({label, options: [[value, text], …], value, onchange(value)}).
    select({ label, options, value, onchange }) {
      return el("label", { class: "select" }, el("span", {}, label),
        el("select", { onchange: (e) => onchange(e.target.value) },
          options.map(([key, text]) => el("option", { value: key, selected: key === value }, text))));
    },

    // What colours mean: legend([{color: "k-forward", text, title?, value?, on?, onclick?}, …]). With an
    // onclick the entries are buttons that tell whether they are pressed.
    legend(entries) {
      return el("ul", { class: "legend" }, entries.map((entry) => {
        const color = entry.color.startsWith("#") ? entry.color : `var(--${entry.color})`;
        const swatch = el("i", { class: `swatch ${entry.shape ?? ""}`, css: { "--swatch": color } });
        const text = [swatch, el("span", {}, entry.text), entry.value ? el("b", {}, entry.value) : null];
        return el("li", { title: entry.title }, entry.onclick
          ? el("button", {
            type: "button", "aria-pressed": String(entry.on ?? true), onclick: (e) => entry.onclick(e.currentTarget),
          }, text)
          : el("span", { class: "entry" }, text));
      }));
    },

    // Numbers for everybody: table({caption, head: ["a", …], rows: [["x", 1], …], numeric: [1]});
    // of kind "stacked" each row is a block of its own where the screen is narrow.
    table({ caption, head, rows, numeric = [], kind = "" }) {
      const of = (i) => ({ class: numeric.includes(i) ? "num" : null, dataset: kind ? { label: head[i] } : {} });
      return el("div", { class: `table-wrap ${kind}`, tabindex: 0, role: "region", "aria-label": caption },
        el("table", {}, el("caption", {}, el("span", {}, caption)),
          el("thead", {}, el("tr", {}, head.map((text, i) => el("th", { scope: "col", ...of(i) }, text)))),
          el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, i) => el("td", of(i), cell)))))));
    },

    // The same, folded away behind a line that opens it: the other way to read a picture.
    asTable(summary, make) {
      const box = el("details", { class: "as-table" }, el("summary", {}, summary));
      box.addEventListener("toggle", () => {
        if (box.open && box.children.length === 1) box.append(make());
      });
      return box;
    },

    // A figure with its number: stat({label, value, note?, tone?: "good" | "warn" | "bad"}).
    stat({ label, value, note, tone }) {
      return el("div", { class: "stat", dataset: tone ? { tone } : {} },
        el("dt", {}, label), el("dd", {}, el("b", {}, value), note ? el("small", {}, note) : null));
    },

    // A canvas as wide as `host`, sharp on every screen: canvas(host, {height, label, draw}).
    // draw(context, width, height) in CSS pixels; it is called again when size or colours change;
    // see page.nearby for when.
    // Gives {element, draw(), width, height, resize(height)}.
    canvas(host, { height, label, draw, role = "img" }) {
      const element = el("canvas", { class: "canvas", role, "aria-label": label });
      host.append(element);
      const inner = () => {
        const { paddingLeft, paddingRight } = getComputedStyle(host);
        return Math.max(1, Math.floor(host.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight)));
      };
      const it = {
        element, width: 0, height,
        resize(tall) { it.height = tall; it.measure(); it.draw(); },
        measure() {
          const ratio = devicePixelRatio || 1;
          it.width = inner();
          element.width = Math.round(it.width * ratio);
          element.height = Math.round(it.height * ratio);
          element.style.height = `${it.height}px`;
        },
        draw() { ask(); },
        paint() {
          const context = element.getContext("2d");
          const ratio = devicePixelRatio || 1;
          context.setTransform(ratio, 0, 0, ratio, 0, 0);
          context.clearRect(0, 0, it.width, it.height);
          draw(context, it.width, it.height);
        },
      };
      const ask = page.nearby(element, () => it.paint());
      new ResizeObserver(() => {
        if (inner() !== it.width) { it.measure(); it.draw(); }
      }).observe(host);
      page.onTheme(() => it.draw());
      it.measure();
      return it;
    },

    // One tooltip for the page: tooltip.show(clientX, clientY, [node or text, …]); tooltip.hide().
    tooltip: {
      box: null,
      show(x, y, ...content) {
        this.box ??= document.body.appendChild(el("div", { class: "tooltip", role: "tooltip" }));
        this.box.replaceChildren(...content.flat());
        this.box.dataset.open = "";
        const { offsetWidth: w, offsetHeight: h } = this.box;
        const right = x + 14 + w > document.documentElement.clientWidth - 8;
        const left = Math.max(8, right ? x - 14 - w : x + 14);
        const top = Math.max(8, Math.min(y + 14, innerHeight - h - 8));
        this.box.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
      },
      hide() { if (this.box) delete this.box.dataset.open; },
    },
  });

  addEventListener("keydown", (event) => { if (event.key === "Escape") page.tooltip.hide(); });
  addEventListener("scroll", () => page.tooltip.hide(), { passive: true });
})();
