// A number that is asked for: a slider over some values, and a box for any other.
"use strict";

(() => {
  const { page, explorer } = Stretto;
  const { el, format } = page;

  // control({label, values, value, limits, note(value), set(value), snap, whole}): a slider over
  // values, and a number that may be any within `limits`, or with `snap` becomes the nearest of the
  // values. Where what was typed is not to be had, it says so until another is chosen.
  // Gives {element, value, show(value)}.
  function control({ label, values, value, limits, note, set, snap = false, whole = true }) {
    let steps = values, instead = "";
    const [least, most] = snap ? [Math.min(...values), Math.max(...values)] : limits;
    const shown = (v) => (Number.isInteger(v) ? format.integer(v) : format.tick.number(v, 6)), id = `explorer-${label.replaceAll(" ", "-")}`;
    const reach = (from, to) => `${shown(from)} to ${shown(to)}`, slid = reach(values[0], values.at(-1)), typed = reach(least, most);
    const words = snap ? `in this file: ${values.map(shown).join(", ")}` : slid === typed ? typed : `slider ${slid}, typed ${typed}`;
    const output = el("output", { for: id }), said = el("small", { class: "explorer-instead", role: "status" });
    const range = el("input", { type: "range", id, min: 0, step: 1, oninput: () => choose(steps[range.value]) });
    const number = el("input", {
      type: "number", min: least, max: most, step: "any", inputmode: whole ? "numeric" : "decimal",
      "aria-label": `${label}, as a number`, title: words,
      onchange: () => {
        const typed = Number(number.value);
        if (number.value === "" || !Number.isFinite(typed)) { draw(); return; }
        const wanted = Math.min(most, Math.max(least, whole ? Math.round(typed) : typed));
        const taken = snap ? nearest(values, wanted) : wanted;
        choose(taken, taken === typed ? "" : why(typed, taken));
      },
    });
    const it = {
      value,
      element: el("div", { class: "explorer-control" }, el("label", { for: id }, label), number, range, output,
        el("small", { class: "explorer-limits" }, words), said),
      show(next) {
        if (next !== it.value) instead = "";
        it.value = next;
        draw();
      },
    };

    // Why another number was taken than was typed.
    function why(typed, taken) {
      if (snap) return `This file has no answer for ${shown(typed)}: ${shown(taken)} is the nearest that it has. stretto ui answers for any.`;
      if (typed < least) return `${shown(typed)} is below the least, ${shown(least)}.`;
      if (typed > most) return `${shown(typed)} is above the most, ${shown(most)}.`;
      return `Only whole numbers: ${shown(taken)} is the nearest.`;
    }

    function choose(next, text = "") {
      const same = next === it.value;
      instead = text;
      it.value = next;
      draw();
      if (!same) set(next);
    }

    function draw() {
      const { value: next } = it;
      steps = values.includes(next) ? values : [...values, next].sort((a, b) => a - b);
      range.max = steps.length - 1;
      range.value = steps.indexOf(next);
      range.disabled = number.disabled = steps.length < 2 && (snap || most <= least);
      range.ariaValueText = `${shown(next)}, ${note(next)}`;
      number.value = String(Number.isInteger(next) ? next : Number(next.toPrecision(6)));
      output.textContent = note(next);
      said.textContent = instead;
    }
    return it;
  }

  const nearest = (values, wanted) => values.reduce((a, b) =>
    Math.abs(Math.log(b / wanted)) < Math.abs(Math.log(a / wanted)) ? b : a);

  Object.assign(explorer, { control });
})();
