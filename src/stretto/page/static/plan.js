// The plan: where every rank runs, the stages, what is split over what, and its file.
"use strict";

Stretto.section({
  id: "plan",
  title: "Plan",
  order: 1,
  render(root, data, page) {
    const { el, format } = page;
    const map = new page.PlanMap(data, new page.Mesh(data.axes, data.groups));

    function devices() {
      const kinds = data.parts.map((part) => `${format.integer(part.devices)} × ${part.device}`).join(" + ");
      const levels = data.levels.map((level) => level.name).reverse().join(" › ");
      const idle = map.devices - data.ranks;
      return `${data.cluster}: ${kinds}${levels && `, ${levels}`}${idle ? `; ${format.integer(idle)} idle` : ""}`;
    }

    function choice() {
      if (data.groups.length < 2) return map.key;
      return [page.segmented({
        label: "Colour by", value: data.groups[0].name, options: data.groups.map(({ name }) => [name, name]),
        onchange: (name) => map.colorBy(name),
      }), map.key];
    }

    function file() {
      const copy = el("button", { class: "button", type: "button" }, "Copy");
      copy.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(data.toml);
          copy.textContent = "Copied";
        } catch {
          copy.textContent = "Select and copy it";
        }
        page.announce(copy.textContent);
      });
      const text = el("pre", { class: "code", tabindex: 0, "aria-label": "plan.toml" }, data.toml);
      return el("details", { class: "as-table" }, el("summary", {}, "The plan as a file"),
        el("div", { class: "toml" }, copy, text));
    }

    root.append(
      el("div", { class: "card" },
        el("div", { class: "card-head" }, el("h3", {}, "Where every rank runs"), el("small", {}, devices())),
        el("div", { class: "toolbar" }, choice()), map.element),
      page.planStages(data),
      el("div", { class: "card" }, el("div", { class: "card-head" }, el("h3", {}, "What lies where")),
        el("dl", { class: "facts" }, data.lies.flatMap(([what, how]) => [el("dt", {}, what), el("dd", {}, how)])),
        file()),
    );
    map.begin();
  },
});
