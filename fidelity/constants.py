"""The constants of the page: what accelerators sustain, and what software costs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from fidelity.markdown import table
from stretto.cluster import accelerator, names
from stretto.cluster.names import preset
from stretto.cost import Stack
from stretto.cost.stacks import inherited, machine_constants
from stretto.cost.stacks import published as constants
from stretto.fidelity.hardware import cluster_of
from stretto.fidelity.predict import Prediction

_SHARES = {"16 bits": ("bfloat16", "float16"), "8 bits": ("float8",), "4 bits": ("float4",)}


def devices(predictions: Sequence[Prediction]) -> Iterator[str]:
    """Give what accelerators sustain, from their files."""
    measured = {cluster_of(p.row.tree)[0].name for p in predictions}
    yield "### Accelerators"
    yield ""
    yield (
        f"A copy in memory reaches {machine_constants()['memory']:.0%} of the data sheet's "
        "bandwidth. Below are shares of the peak that very large products sustain. Those of "
        "accelerators in bold are fitted to rows; those of others are estimates, whose origin "
        "their files state."
    )
    yield ""
    body = []
    for name in names():
        _, tree = preset(name)
        if "devices" in tree or "part" in tree or name == "CPU":
            continue
        device = accelerator(name)
        share = dict(device.efficiency)
        shown = f"**{name}**" if name in measured else name
        cells = [
            next((f"{share[kind]:.3g}" for kind in kinds if kind in share), "–")
            for kinds in _SHARES.values()
        ]
        peak = max(rate for kind, rate in device.flops_per_s if kind.endswith("16"))
        body.append((shown, f"{peak / 1e12:,.0f} TFLOP/s", *cells))
    yield from table(("accelerator", "16-bit peak", *_SHARES), body)


def software() -> Iterator[str]:
    """Give the constants of software, from stacks.toml."""
    meaning = _meanings()
    generations, kernels = constants()["stack"], constants()["kernel"]
    root = next(name for name, own in generations.items() if "base" not in own)
    yield f"### The generation `{root}`"
    yield ""
    yield from table(
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
    yield from table(
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
    yield from table(
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
