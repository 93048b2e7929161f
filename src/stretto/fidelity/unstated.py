"""What a row leaves open and whoever measured it chose: its layout, and what is recomputed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from stretto.cost import Pricing, estimate, gathered
from stretto.errors import InputError
from stretto.fidelity.fields import Fields

_DEEPEST = 256
"""The most pipeline ranks that are thought of."""


def with_layout(f: Fields, priced: Callable[[Fields], Pricing], *, per_node: int) -> Fields:
    """Give a row with tensor and pipeline parallelism: those stated, else the fastest that fits.

    A row that shards parameters (ZeRO-3, FSDP) and names neither is taken to use neither.

    Args:
        f: The row.
        priced: Gives what a row prices.
        per_node: Devices of a node, over which tensor parallelism does not reach.
    """
    options = [*_options(f, priced, per_node)]
    if len(options) < 2:
        return f
    estimates = estimate(gathered([pricing for _, pricing in options]))
    seconds = np.where(estimates.fits, estimates.time.total_s, np.inf)
    best = int(np.argmin(seconds if np.any(estimates.fits) else estimates.memory.total_bytes))
    layout, _ = options[best]
    filled = Fields(f.tree | layout)
    named = ", ".join(f"{name} = {extent}" for name, extent in layout.items())
    filled.assumed += [*f.assumed, f"{named}: the fastest that fits"]
    return filled


def with_recompute(f: Fields, priced: Callable[[Fields], Pricing]) -> Fields:
    """Give a row that recomputes all where it is silent and its plan would not fit otherwise.

    Args:
        f: The row.
        priced: Gives what a row prices.
    """
    if f.tree.get("recompute") is not None or estimate(priced(Fields(f.tree))).fits:
        return f
    for words in ("selective (every other layer)", "full"):
        filled = Fields(f.tree | {"recompute": words})
        if estimate(priced(filled)).fits:
            break
    filled.assumed += [*f.assumed, f"recompute = {words}: nothing less fits"]
    return filled


def _options(
    f: Fields, priced: Callable[[Fields], Pricing], per_node: int
) -> Iterator[tuple[dict[str, int], Pricing]]:
    """Give the layouts that are legal, and what each prices."""
    tree = f.tree
    open_ = [name for name in ("tp", "pp") if tree.get(name) is None]
    sharding = f.text("dp_sharding").lower()
    if not open_ or (len(open_) == 2 and ("fsdp" in sharding or "zero3" in sharding)):
        return
    inner = tree["n_gpus"] // (tree.get("cp") or 1)
    for tp in _divisors(min(per_node, inner)) if "tp" in open_ else (tree["tp"],):
        for pp in _divisors(tree["layers"]) if "pp" in open_ else (tree["pp"],):
            left, rest = divmod(inner, tp * pp)
            if rest or (tree.get("heads") or tp) % tp or tree.get("dp") not in (None, left):
                continue
            layout = {name: {"tp": tp, "pp": pp}[name] for name in open_}
            try:
                yield layout, priced(Fields(tree | layout))
            except InputError:
                continue


def _divisors(n: int) -> tuple[int, ...]:
    return tuple(i for i in range(1, min(n, _DEEPEST) + 1) if n % i == 0)
