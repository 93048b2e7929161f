"""What others reach on the same rows, or on rows like them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fidelity.markdown import percent, table
from stretto.fidelity.score import Score

SHARED = "vtrain_multi"
"""The source whose 109 multi-node A100 rows others were measured on; none of them was fitted to."""

_PEERS = (
    ("Calculon", "15.3% mean", "51 % of groups, mean loss 10 %"),
    ("SimuMax", "11.0 to 11.8% mean", "54 % of groups, mean loss 5.7 %"),
    ("llm-analysis, told the right efficiency", "24% mean", "17 % of groups, mean loss 69 %"),
    ("llm-analysis by default", "62% mean", "the same"),
    ("vTrain, with profiled kernels, as published", "14.7% mean", "–"),
)
_SIMPLE = (
    ("one MFU for each accelerator, precision and kind of model", "21%", "55%"),
    ("a roofline with 16 fitted constants, on rows that it was fitted to", "12%", "35%"),
    ("the same on others", "13%", "48%"),
)


def peers(one: Score, own: Score, left_out: Mapping[str, Any]) -> Iterator[str]:
    """Give the section.

    Args:
        one: Of all rows.
        own: Of those of `SHARED`.
        left_out: What leave-out.json holds.
    """
    out = left_out["sources"][SHARED]
    yield "## Beside others"
    yield ""
    yield (
        f"Planners and simulators on the 109 multi-node A100 rows of `{SHARED}`, which none was "
        "fitted to; nor is Stretto in the first line."
    )
    yield ""
    r = own.ranking
    picks = f"{r.right} of {r.groups} groups, mean loss {r.loss:.1%}"
    lines = (
        ("**Stretto**, that source left out of the fit", f"{percent(out['mean'])} mean", "–"),
        ("**Stretto**", f"{percent(own.throughput.mean)} mean", picks),
        *_PEERS,
    )
    yield from table(("", "error", "pick is the measured best, or within 2 %"), lines)
    yield ""
    yield "What takes an afternoon, on all rows:"
    yield ""
    e, rest = one.throughput, left_out["all"]
    every = (
        ("**Stretto**, each source left out", percent(rest["median"]), percent(rest["p90"])),
        ("**Stretto**", percent(e.median), percent(e.p90)),
        *_SIMPLE,
    )
    yield from table(("", "median error", "90th percentile"), every)
