"""The page docs/fidelity.md: what is predicted, how well, and with which constants."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fidelity.best import best
from fidelity.constants import devices, software
from fidelity.markdown import percent, signed, table
from fidelity.peers import SHARED, peers
from fidelity.reasons import reason
from stretto.fidelity.predict import Prediction
from stretto.fidelity.score import Score, by_source, score

HERE = Path(__file__).parent
ROWS = HERE / "rows.jsonl"
LEFT_OUT = HERE / "leave-out.json"
PUBLISHED = HERE / "published.json"
INTRO = HERE / "intro.md"
METHOD = HERE / "method.md"

WORST = 20
"""How many of the worst rows are listed."""


def page(predictions: Sequence[Prediction]) -> str:
    """Give the page.

    Args:
        predictions: Of all rows of rows.jsonl.
    """
    left_out = json.loads(LEFT_OUT.read_text("utf-8"))
    everything, each = score(predictions), by_source(predictions)
    parts = (
        INTRO.read_text("utf-8"),
        *_goals(everything, each, left_out),
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
        *peers(everything, each[SHARED], left_out),
        "",
        *best(json.loads(PUBLISHED.read_text("utf-8")), {p.row.id: p.row for p in predictions}),
        "",
        METHOD.read_text("utf-8"),
        *devices(predictions),
        "",
        *software(),
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
        body.append((what, percent(value), f"{sign} {goal:.0%}", "met" if met else "**missed**"))
    yield from table(("", "reached", "aimed at", ""), body)
    w = one.weighted
    yield ""
    yield (
        f"With equal weight for each source, in it for each table and in that for each "
        f"configuration, the median is {percent(w.median)} and the 90th percentile "
        f"{percent(w.p90)}."
    )


def _sources(predictions: Sequence[Prediction], left_out: dict[str, Any]) -> Iterator[str]:
    body = []
    for name, one in by_source(predictions).items():
        e, out = one.throughput, left_out["sources"].get(name, {})
        own = [p for p in predictions if p.row.source == name]
        hardware = sorted({p.row.tree["hardware"] for p in own})
        body.append(
            (
                name, ", ".join(hardware), str(e.n), signed(e.bias), percent(e.median),
                percent(e.p90), signed(out.get("bias")), percent(out.get("median")),
                percent(out.get("p90")),
            )
        )  # fmt: skip
    e, out = score(predictions).throughput, left_out["all"]
    body.append(
        (
            "**all**", "", str(e.n), signed(e.bias), percent(e.median), percent(e.p90),
            signed(out["bias"]), percent(out["median"]), percent(out["p90"]),
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
    yield from table(head, body)
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
                signed(peak.bias), percent(peak.median),
            )
        )  # fmt: skip
    head = (
        "source", "ran", "of which predicted not to", "ran out of memory", "of which found",
        "peaks reported", "bias", "median error",
    )  # fmt: skip
    yield from table(head, body)


def _ranking(predictions: Sequence[Prediction]) -> Iterator[str]:
    yield "## Which plan is fastest"
    yield ""
    yield (
        "Rows of one source that share model, hardware, devices, batch, precision and software, "
        "and differ only in plan. The plan predicted to be fastest is right if it is the measured "
        "best or within 2 % of it; the loss is how much slower it is. In the last column it is the "
        "fastest of those predicted to fit, out of all, those that ran out of memory included."
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
                    percent(r.loss), rank, str(r.safe),
                )
            )  # fmt: skip
    head = (
        "source", "groups", "right", "of three rows or more", "right", "mean loss",
        "rank correlation", "right with memory",
    )  # fmt: skip
    yield from table(head, body)


def _worst(predictions: Sequence[Prediction]) -> Iterator[str]:
    timed = [p for p in predictions if p.error is not None]
    worst = sorted(timed, key=lambda p: -abs(p.error or 0.0))[:WORST]
    yield f"## The {WORST} worst rows"
    yield ""
    yield from table(
        ("row", "what", "predicted", "measured", "error", "what is known of it"),
        [
            (
                f"`{p.row.id}`",
                _what(p),
                f"{p.throughput:,.0f}",
                f"{p.row.measured.value or 0:,.0f} {p.row.measured.unit}",
                signed(p.error),
                reason(p),
            )
            for p in worst
        ],
    )


def _what(p: Prediction) -> str:
    t = p.row.tree
    axes = " ".join(f"{a} {t[a]}" for a in ("pp", "dp", "cp", "tp", "ep") if (t.get(a) or 1) > 1)
    return f"{t['model_name']} on {t['n_gpus']} {t['hardware']}, {axes or 'alone'}"
