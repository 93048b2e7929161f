"""Writes what the fit found: stacks.toml, and the efficiencies of cluster files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

SOURCE = Path(__file__).parents[1] / "src" / "stretto"
WORDS = {"bfloat16": ("float16", "bfloat16"), "float8": ("float8",), "float4": ("float4",)}
"""The keys of a cluster file that a fitted precision stands for."""
SHARES = (
    "tensor_overlap", "expert_overlap", "send_overlap", "data_overlap", "gather_overlap",
)  # fmt: skip
"""Constants that stay below 1."""
HEAD = """\
# Constants of software, fitted to published measurements by `python -m fidelity.fit`; see
# docs/fidelity.md. A generation has its base's constants where it states none.
"""


class Found(Protocol):
    """What a fit found."""

    priors: dict[str, Any]

    def of_generation(self, name: str, field: str) -> tuple[float, list[int]]:
        """Give a generation's prior of a constant, and the numbers of its factors."""

    def of_kernel(self, name: str, field: str) -> tuple[float, list[int]]:
        """Give an attention kernel's."""

    def of_machine(self, name: str) -> tuple[float, list[int]]:
        """Give what every machine has."""

    def index(self, name: str, deviation: float) -> int:
        """Give the number of a constant."""

    def value(self, prior: float, chain: list[int]) -> float:
        """Give a constant as fitted."""


def written(found: Found) -> None:
    """Write stacks.toml."""
    priors = found.priors
    lines = [HEAD, "[machine]"]
    lines += [f"{n} = {_show(found.value(*found.of_machine(n)))}" for n in priors["machine"]]
    for name, kernel in priors["kernel"].items():
        lines += ["", f"[kernel.{name}]"]
        lines += [f"{n} = {_show(found.value(*found.of_kernel(name, n)))}" for n in kernel]
    for name, own in priors["generation"].items():
        lines += ["", f"[stack.{name}]"]
        lines += [f'{n} = "{own[n]}"' for n in ("about", "base", "kernel") if n in own]
        lines += [
            f"{field} = {value}"
            for field in priors["constants"]
            for value in [_of(found, name, field)]
            if "base" not in own or value != _of(found, own["base"], field)
        ]
    (SOURCE / "cost" / "stacks.toml").write_text("\n".join(lines) + "\n", "utf-8")


def sustained(found: Found) -> None:
    """Write what devices sustain into their cluster files."""
    for name, own in found.priors["device"].items():
        path = SOURCE / "clusters" / f"{name}.toml"
        head, mark, tail = path.read_text("utf-8").partition("[device.efficiency]")
        assert mark, f"{path} has no [device.efficiency]"
        for precision in WORDS.keys() & own.keys():
            prior, deviation = own[precision]
            value = _show(found.value(prior, [found.index(f"{name}.{precision}", deviation)]))
            for word in WORDS[precision]:
                tail = re.sub(rf"(?m)^{word} = .*$", f"{word} = {value}", tail, count=1)
        path.write_text(head + mark + tail, "utf-8")


def _of(found: Found, name: str, field: str) -> str:
    value = found.value(*found.of_generation(name, field))
    return _show(min(value, 0.98) if field in SHARES else value)


def _show(value: float) -> str:
    return f"{value:.3g}"
