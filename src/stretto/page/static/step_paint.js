// Colours of a step, and how the rows of a lane become the pixels of a line.
//
// A lane is painted as one line of pixels, which is then repeated to its height: so a frame costs
// as much as there are rows in sight, and not as much as there are rectangles.
"use strict";

(() => {
  const { page, timeline } = Stretto;
  const LEVELS = 16, EDGE = LEVELS;       // how much of a pixel is covered; the first pixel of a row
  const SHADES = 33, NEUTRAL = 16;        // of differences: faster … as predicted … slower
  const parse = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

  // [red, green, blue] of a colour, however it is written.
  function rgb(color) {
    parse.fillStyle = "#000";
    parse.fillStyle = color;
    parse.fillRect(0, 0, 1, 1);
    return [...parse.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  }

  const mix = (a, b, share) => a.map((v, i) => Math.round(v + (b[i] - v) * share));
  const pixel = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
  const INKS = [[16, 21, 28], [255, 255, 255]];

  // Luminance, and from it the contrast of two colours (Web Content Accessibility Guidelines 2.1).
  const luminance = (color) => color.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = (a, b) => (Math.max(luminance(a), luminance(b)) + 0.05) / (Math.min(luminance(a), luminance(b)) + 0.05);

  class Palette {
    constructor(colors, ground) {
      this.colors = colors;
      this.css = colors.map(css);
      this.ink = colors.map((c) => css(contrast(c, INKS[0]) > contrast(c, INKS[1]) ? INKS[0] : INKS[1]));
      this.pixels = new Uint32Array(colors.length * (LEVELS + 1));
      colors.forEach((color, i) => {
        for (let level = 0; level < LEVELS; level++) {
          this.pixels[i * (LEVELS + 1) + level] = pixel(mix(ground, color, (level + 1) / LEVELS));
        }
        this.pixels[i * (LEVELS + 1) + EDGE] = pixel(mix(color, ground, 0.45));
      });
    }
  }

  // All colours of the page's theme that a step is drawn in.
  class Colors {
    constructor(sorts) { this.sorts = sorts; this.load(); }

    load() {
      const of = (name) => rgb(page.color(name));
      const idle = of("k-idle"), faster = of("faster"), slower = of("slower"), text = of("text");
      this.surface = of("surface");
      this.sunken = of("sunken");
      this.idle = idle;
      this.kinds = new Palette(this.sorts.map((sort) => of(`k-${sort}`)), idle);
      const neutral = mix(this.surface, text, 0.24);
      const shade = (i) => {
        const far = (i - NEUTRAL) / NEUTRAL;
        return mix(neutral, far < 0 ? faster : slower, Math.abs(far) ** 0.8);
      };
      this.shades = new Palette(Array.from({ length: SHADES }, (_, i) => shade(i)), idle);
      for (const name of ["text", "muted", "faint", "line", "strong-line", "accent", "predicted", "measured"]) {
        this[name] = page.color(name);
      }
      this.pixel = { surface: pixel(this.surface), sunken: pixel(this.sunken), idle: pixel(idle) };
    }
  }

  // The shade of a difference, which is a share of the largest that is told apart.
  const spread = (share) => Math.round(NEUTRAL + NEUTRAL * Math.sign(share) * Math.min(1, Math.abs(share)) ** 0.75);
  const shade = (extra_s, scale_s) => (Number.isFinite(extra_s) && scale_s ? spread(extra_s / scale_s) : NEUTRAL);
  const shadeOfCell = (cell) => spread(Math.sign(cell) * (cell / 127) ** 2);  // page/step_side.py packs roots

  const covered = new Float32Array(64), touched = new Uint8Array(64);

  // Paint the rows of a lane that are in sight over a line of pixels.
  //   line: Uint32Array, the line; it keeps what no row covers
  //   lane: {at, reach} of a player's rows; classes: of each row an index into the palette
  //   from, scale: the second of the first pixel; pixels of a second
  //   hidden: of each sort whether it is left out
  //   wide(row, left, right): told of rows wider than `least` pixels
  function paint(line, rows, lane, { from, scale, classes, palette, hidden, wide = null, least = 0 }) {
    const { at, reach } = lane, { begin, length, sort } = rows, { pixels } = palette;
    const width = line.length, step = LEVELS + 1;
    let here = -1, count = 0;
    const flush = () => {
      let best = touched[0], whole = 0;
      for (let i = 0; i < count; i++) {
        const c = touched[i];
        whole += covered[c];
        if (covered[c] > covered[best]) best = c;
      }
      const level = Math.min(LEVELS, Math.round(whole * LEVELS)) - 1;
      if (level >= 0 && here >= 0 && here < width) line[here] = pixels[best * step + level];
      for (let i = 0; i < count; i++) covered[touched[i]] = 0;
      count = 0;
    };
    const cover = (c, share) => {
      if (covered[c] === 0) touched[count++] = c;
      covered[c] += share + 1e-9;
    };
    for (let i = timeline.above(reach, from); i < at.length; i++) {
      const row = at[i], left = (begin[row] - from) * scale;
      if (left >= width) break;
      if (hidden[sort[row]]) continue;
      const right = left + Math.max(length[row] * scale, 0.02), c = classes[row];
      const first = Math.floor(left), last = Math.floor(right);
      if (first !== here) { if (count) flush(); here = first; }
      if (last === first) { cover(c, right - left); continue; }
      cover(c, first + 1 - left);
      flush();
      if (last > first + 1) {
        const start = Math.max(first + 1, 0);
        line.fill(pixels[c * step + LEVELS - 1], start, Math.min(last, width));
        if (right - left > 5 && first >= 0 && first < width) line[first] = pixels[c * step + EDGE];
      }
      here = last;
      cover(c, right - last);
      if (wide && right - left >= least) wide(row, left, right);
    }
    if (count) flush();
  }

  Object.assign(timeline, { Colors, NEUTRAL, SHADES, LEVELS, paint, shade, shadeOfCell, css });
})();
