// How the page writes quantities: each in one way, wherever it stands. Three significant digits,
// with their zeros; stretto/page/quantities.py writes the same. `tick` writes what stands at an
// axis: as many digits as it takes, without zeros at the end.
"use strict";

const Numbers = (() => {
  const TIMES = [["s", 1], ["ms", 1e-3], ["µs", 1e-6], ["ns", 1e-9]];
  const BINARY = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10], ["B", 1]];
  const DECIMAL = [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3], ["", 1]];
  const HOURS = [...DECIMAL.map(([name, one]) => [`${name}Wh`, 3600 * one]), ["J", 1]];
  const FULL = 0.9995;  // of a unit: that is one, in three digits
  const english = new Intl.NumberFormat("en", { maximumFractionDigits: 20 });

  const known = (show) => (value, ...rest) =>
    value === null || value === undefined || !Number.isFinite(value) ? "–" : show(value, ...rest);
  const signed = (value, text) => (value < 0 ? `−${text}` : text);
  const fixed = (value, places) => (places ? value.toFixed(places) : english.format(Number(value.toFixed(0))));
  const padded = (value, digits = 3) => {
    if (!value) return "0";
    const [, power] = value.toExponential(digits - 1).split("e");
    return fixed(value, Math.max(0, digits - 1 - Number(power)));
  };
  const trimmed = (value, digits = 6) => english.format(Number(value.toPrecision(digits)));
  const joined = (text, unit) => (unit ? `${text}\u00a0${unit}` : text);  // on one line

  // A number in the largest unit of which it is one; what is counted singly as it is.
  const scaled = (units, write) => known((value, digits) => {
    const large = Math.abs(value);
    const [unit, one] = units.find(([, one]) => large >= FULL * one) ?? units.at(-1);
    const single = one === 1 && units !== TIMES && units !== HOURS && Number.isInteger(large);
    return signed(value, joined(single ? fixed(large, 0) : write(large / one, digits), unit));
  });
  const percent = (value) => {
    const large = Math.abs(value) * 100;
    return signed(value, joined(large < 0.995 ? padded(large, 2) : fixed(large, large >= 99.95 ? 0 : 1), "%"));
  };
  const times = (write) => {
    const show = scaled(TIMES, write);
    return known((value, digits) => (Math.abs(value) < 5e-10 ? "0\u00a0s" : show(value, digits)));
  };
  // How long a run goes on: in hours and minutes, or minutes and seconds.
  const spans = (show) => known((value, digits) => {
    if (value < 59.95) return show(value, digits);
    const long = value >= 3599.5, whole = Math.round(long ? value / 60 : value);
    const [a, b] = [Math.floor(whole / 60), String(whole % 60).padStart(2, "0")];
    return long ? `${a}\u00a0h ${b}\u00a0min` : `${a}\u00a0min ${b}\u00a0s`;
  });
  const money = (write) => {
    const count = scaled(DECIMAL, write);
    return known((value, digits) => joined(Math.abs(value) < 999.5 ? signed(value, write(Math.abs(value), digits)) : count(value, digits), "USD"));
  };

  // Text that Python wrote, with its numbers on one line with their units.
  const UNIT = /(\d) (?=(?:%|(?:[nµm]?s|[KMGT]iB|[KMGTk]|B|[kMGT]?Wh|J|USD|h|min)(?!\w)))/g;
  const tie = (text) => text.replace(UNIT, "$1\u00a0");

  const seconds = times(padded);
  return {
    tie,
    seconds,                          // of a step, or of a part of one; at a place on its clock with more digits
    span: spans(seconds),             // of a run
    bytes: scaled(BINARY, padded),
    count: scaled(DECIMAL, padded),
    money: money(padded),
    energy: scaled(HOURS, padded),
    percent: known(percent),
    change: known((value) => (value >= 0 ? "+" : "") + percent(value)),
    integer: known((value) => signed(Math.round(value), fixed(Math.abs(value), 0))),
    number: known((value, digits = 4) => {
      const large = Math.abs(value);
      return signed(value, Number.isInteger(large) ? fixed(large, 0) : (large < 1 ? trimmed : padded)(large, digits));
    }),
    tick: {
      seconds: times(trimmed), span: spans(times(trimmed)), bytes: scaled(BINARY, trimmed), count: scaled(DECIMAL, trimmed),
      money: money(trimmed), energy: scaled(HOURS, trimmed),
      percent: known((value) => signed(value, joined(trimmed(Math.abs(value) * 100, 4), "%"))),
      number: known((value, digits = 6) => signed(value, trimmed(Math.abs(value), digits))),
    },
  };
})();
