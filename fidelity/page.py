"""The page docs/fidelity.md: what is predicted, how well, and with which constants."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fidelity.reasons import reason
from stretto.cluster import accelerator, names
from stretto.cluster.names import preset
from stretto.cost import Stack
from stretto.cost.machine import MEMORY
from stretto.cost.stacks import inherited, table
from stretto.fidelity.predict import Prediction
from stretto.fidelity.score import Score, by_source, score

HERE = Path(__file__).parent
ROWS = HERE / "rows.jsonl"
LEFT_OUT = HERE / "leave-out.json"
INTRO = HERE / "intro.md"
METHOD = HERE / "method.md"
PEERS = HERE / "peers.md"

_SHARES = ("float16", "bfloat16", "float8", "float4")

WORST = 20
"""How many of the worst rows are listed."""


def page(predictions: Sequence[Prediction]) -> str:
    """Give the page.

    Args:
        predictions: Of all rows of rows.jsonl.
    """
    left_out = json.loads(LEFT_OUT.read_text("utf-8"))
    parts = (
        INTRO.read_text("utf-8"),
        *_goals(score(predictions), by_source(predictions), left_out),
        "",
        "![Predicted over measured tokens per second](img/fidelity.svg)",
        "",
        "![The error of every row, by source](img/fidelity-sources.svg)",
        "",
        "## By source",
        "",
        "A bias is the median of the errors, predicted over measured less 1; the others are of "
        "their absolute values.",
        "",
        *_sources(predictions, left_out),
        "",
        *_memory(predictions),
        "",
        *_ranking(predictions),
        "",
        PEERS.read_text("utf-8"),
        METHOD.read_text("utf-8"),
        *_devices(predictions),
        "",
        *_constants(),
        "",
        *_worst(predictions),
    )
    return "\n".join(parts) + "\n"


def _goals(one: Score, each: dict[str, Score], left_out: dict[str, Any]) -> Iterator[str]:
    """Give a line for each figure that is aimed at."""
    many = {k: s.throughput for k, s in each.items() if s.throughput.n >= 10}
    most = max(many, key=lambda k: abs(many[k].bias or 0.0))
    e, f, r, out = one.throughput, one.fitting, one.ranking, left_out["all"]
    lines = (
        ("median error", e.median, 0.05, "<"),
        ("90th percentile of the error", e.p90, 0.15, "<"),
        (f"largest bias of a source of ten rows or more ({most})", many[most].bias, 0.08, "<"),
        ("median error, each source left out of the fit in turn", out["median"], 0.08, "<"),
        ("90th percentile of that", out["p90"], 0.20, "<"),
        (f"predicted out of memory, of {f.ran:,} rows that ran", f.refused / f.ran, 0.02, "<"),
        (f"predicted out of memory, of {f.oom:,} that ran out of it", f.found / f.oom, 0.85, ">"),
        (f"median error of peak memory, {one.peak.n} rows", one.peak.median, 0.08, "<"),
        (
            f"groups that differ only in plan ({r.groups}) whose fastest plan is found, or one "
            "within 2 % of it",
            r.right / r.groups,
            0.80,
            ">",
        ),
    )
    body = []
    for what, value, goal, side in lines:
        met = abs(value or 0.0) <= goal if side == "<" else (value or 0.0) >= goal
        sign = "≤" if side == "<" else "≥"
        body.append((what, _percent(value), f"{sign} {goal:.0%}", "met" if met else "**missed**"))
    yield from _table(("", "reached", "aimed at", ""), body)
    w = one.weighted
    yield ""
    yield (
        f"With equal weight for each source, in it for each table and in that for each "
        f"configuration, the median is {_percent(w.median)} and the 90th percentile "
        f"{_percent(w.p90)}."
    )


def _sources(predictions: Sequence[Prediction], left_out: dict[str, Any]) -> Iterator[str]:
    body = []
    for name, one in by_source(predictions).items():
        e, out = one.throughput, left_out["sources"].get(name, {})
        own = [p for p in predictions if p.row.source == name]
        hardware = sorted({p.row.tree["hardware"] for p in own})
        body.append(
            (
                name, ", ".join(hardware), str(e.n), _signed(e.bias), _percent(e.median),
                _percent(e.p90), _signed(out.get("bias")), _percent(out.get("median")),
                _percent(out.get("p90")),
            )
        )  # fmt: skip
    e, out = score(predictions).throughput, left_out["all"]
    body.append(
        (
            "**all**", "", str(e.n), _signed(e.bias), _percent(e.median), _percent(e.p90),
            _signed(out["bias"]), _percent(out["median"]), _percent(out["p90"]),
        )
    )  # fmt: skip
    head = (
        "source",
        "hardware",
        "rows",
        "bias",
        "median",
        "p90",
        "left out: bias",
        "median",
        "p90",
    )
    yield from _table(head, body)
    yield ""
    yield (
        "Left out: predicted with constants fitted to the other sources alone. A generation of "
        "software that only one source measured then has the constants of the generation before it."
    )


def _memory(predictions: Sequence[Prediction]) -> Iterator[str]:
    yield "## Memory"
    yield ""
    body = []
    for name, one in by_source(predictions).items():
        f, peak = one.fitting, one.peak
        body.append(
            (
                name, str(f.ran), str(f.refused), str(f.oom) if f.oom else "–",
                str(f.found) if f.oom else "–", str(peak.n) if peak.n else "–",
                _signed(peak.bias), _percent(peak.median),
            )
        )  # fmt: skip
    head = (
        "source", "ran", "of which predicted not to", "ran out of memory", "of which found",
        "peaks reported", "bias", "median error",
    )  # fmt: skip
    yield from _table(head, body)


def _ranking(predictions: Sequence[Prediction]) -> Iterator[str]:
    yield "## Which plan is fastest"
    yield ""
    yield (
        "Rows of one source that share model, hardware, devices, batch, precision and software, and "
        "differ only in plan. The plan predicted to be fastest is right if it is the measured best or "
        "within 2 % of it; the loss is how much slower it is. In the last column it is the fastest of "
        "those predicted to fit, out of all, those that ran out of memory included."
    )
    yield ""
    body = []
    everything = score(predictions)
    for name, one in (*by_source(predictions).items(), ("**all**", everything)):
        r = one.ranking
        if r.groups:
            rank = "–" if r.spearman is None else f"{r.spearman:.2f}"
            body.append(
                (
                    name, str(r.groups), str(r.right), str(r.large), str(r.large_right),
                    _percent(r.loss), rank, str(r.safe),
                )
            )  # fmt: skip
    head = (
        "source", "groups", "right", "of three rows or more", "right", "mean loss",
        "rank correlation", "right with memory",
    )  # fmt: skip
    yield from _table(head, body)


def _devices(predictions: Sequence[Prediction]) -> Iterator[str]:
    """Give what accelerators sustain, from their files."""
    measured = {p.row.pricing.machine.memory_bytes.item() for p in predictions}
    yield "### Accelerators"
    yield ""
    yield (
        f"A copy in memory reaches {MEMORY:.0%} of the data sheet's bandwidth. Shares of the peak "
        "that very large products sustain; those of accelerators in bold are fitted to rows, others "
        "are estimates whose origin their files state."
    )
    yield ""
    body = []
    for name in names():
        _, tree = preset(name)
        if "devices" in tree or "part" in tree or name == "CPU":
            continue
        device = accelerator(name)
        share = dict(device.efficiency)
        shown = f"**{name}**" if device.memory_bytes in measured else name
        cells = [f"{share[kind]:.3g}" if kind in share else "–" for kind in _SHARES]
        peak = max(rate for kind, rate in device.flops_per_s if kind.endswith("16"))
        body.append((shown, f"{peak / 1e12:,.0f} TFLOP/s", *cells))
    yield from _table(("accelerator", "16-bit peak", *_SHARES), body)


def _constants() -> Iterator[str]:
    """Give the constants of software, from stacks.toml."""
    meaning = _meanings()
    generations, kernels = table()["stack"], table()["kernel"]
    root = next(name for name, own in generations.items() if "base" not in own)
    yield f"### The generation `{root}`"
    yield ""
    yield from _table(
        ("constant", "value", "what it is"),
        [
            (f"`{name}`", _value(name, value), meaning[name])
            for name, value in inherited(root).items()
            if name in meaning
        ],
    )
    yield ""
    yield "### Other generations: where they differ from their base"
    yield ""
    yield from _table(
        ("generation", "what it is", "base", "constants"),
        [
            (f"`{name}`", own["about"], f"`{own['base']}`", _differences(own, meaning))
            for name, own in generations.items()
            if "base" in own
        ],
    )
    yield ""
    yield "### Attention kernels"
    yield ""
    fields = tuple(dict.fromkeys(field for own in kernels.values() for field in own))
    yield from _table(
        ("kernel", *(f"`{field}`" for field in fields)),
        [
            (f"`{name}`", *(_value(f, own[f]) if f in own else "" for f in fields))
            for name, own in kernels.items()
        ],
    )


def _differences(own: dict[str, Any], meaning: dict[str, str]) -> str:
    kernel = [f"kernel {own['kernel']}"] if "kernel" in own else []
    changed = [f"{name} {_value(name, own[name])}" for name in own if name in meaning]
    return ", ".join(kernel + changed) or "none"


def _meanings() -> dict[str, str]:
    """Give what each constant is, from the documentation of `Stack`."""
    text = re.sub(r"\n {12}", " ", Stack.__doc__ or "")
    return dict(re.findall(r"^ {8}(\w+): (.+?)\.?$", text, flags=re.MULTILINE))


def _value(name: str, value: float) -> str:
    if name.endswith("_flops_per_s"):
        return "–" if value > 1e17 else f"{value / 1e12:.3g} TFLOP/s"
    if name.endswith("_s"):
        return f"{value * 1e6:.3g} µs" if value < 1e-3 else f"{value * 1e3:.3g} ms"
    return f"{value:g}"


def _worst(predictions: Sequence[Prediction]) -> Iterator[str]:
    timed = [p for p in predictions if p.error is not None]
    worst = sorted(timed, key=lambda p: -abs(p.error or 0.0))[:WORST]
    yield f"## The {WORST} worst rows"
    yield ""
    yield from _table(
        ("row", "what", "predicted", "measured", "error", "what is known of it"),
        [
            (
                f"`{p.row.id}`",
                _what(p),
                f"{p.throughput:,.0f}",
                f"{p.row.measured.value or 0:,.0f} {p.row.measured.unit}",
                _signed(p.error),
                reason(p),
            )
            for p in worst
        ],
    )


def _what(p: Prediction) -> str:
    t = p.row.tree
    axes = " ".join(f"{a} {t[a]}" for a in ("pp", "dp", "cp", "tp", "ep") if (t.get(a) or 1) > 1)
    return f"{t['model_name']} on {t['n_gpus']} {t['hardware']}, {axes or 'alone'}"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> Iterator[str]:
    def numeric(cells: list[str]) -> bool:
        return all(re.fullmatch(r"[+\-–≤≥ ]*[\d,.]*( ?%|:1)?", c) for c in cells)

    rows = [list(line) for line in body]
    columns = [[row[i] for row in rows] for i in range(len(head))]
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---:" if numeric(column) else "---" for column in columns) + " |"
    yield from ("| " + " | ".join(row) + " |" for row in rows)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{abs(value):.1%}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1%}"
