"""Fits the constants of software and devices to published measurements: ``python -m fidelity.fit``.

Every constant has a prior (priors.toml). What is found is the most probable set: a constant on
which the rows say little stays where it was. A generation of software differs from its base by a
factor that is drawn to one, so that leaving out its only source leaves it near its base. Sources,
configurations and repeats weigh so that no source rules; far-off rows pull no harder than linearly.

Writes src/stretto/cost/stacks.toml and what devices sustain into their cluster files; with
``--leave-out`` also leave-out.json, the errors of each source where it was left out of the fit.
"""

from __future__ import annotations

import argparse
import collections
import json
import tomllib
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from fidelity.written import SHARES, sustained, written
from stretto.cost import PRECISIONS, Pricing, Stack, gathered
from stretto.cost.stacks import machine_constants
from stretto.cost.step import step_time
from stretto.fidelity.rows import Row, read

Array = NDArray[np.float64]

HERE = Path(__file__).parent
NOISE = 0.05
"""Relative error that a row is expected to have."""
FIELDS = tuple(f.name for f in fields(Stack))


class Constants:
    """The priors, and the logarithms of the factors by which the fit leaves them."""

    def __init__(self, priors: dict[str, Any]) -> None:
        """Number the constants as rows ask for them."""
        self.priors = priors
        self.names: list[str] = []
        self.deviations: list[float] = []
        self.factors: Array = np.zeros(0)

    def index(self, name: str, deviation: float) -> int:
        """Give the number of a constant; -1 for one that is not fitted."""
        if deviation <= 0:
            return -1
        if name not in self.names:
            self.names.append(name)
            self.deviations.append(deviation)
        return self.names.index(name)

    def of_generation(self, name: str, field: str) -> tuple[float, list[int]]:
        """Give a generation's prior of a constant, and the numbers of its factors."""
        root, at_root, each = self.priors["constants"][field]
        chain: list[int] = []
        while True:
            own = self.priors["generation"][name]
            base = own.get("base")
            chain.append(self.index(f"{name}.{field}", each if base else at_root))
            if field in own:
                return float(own[field]), chain
            if base is None:
                return root, chain
            name = base

    def of_kernel(self, name: str, field: str) -> tuple[float, list[int]]:
        """Give an attention kernel's."""
        prior, deviation = self.priors["kernel"][name][field]
        return prior, [self.index(f"{name}.{field}", deviation)]

    def kernel_of(self, name: str) -> str:
        """Give the attention kernel of a generation."""
        own = self.priors["generation"][name]
        return str(own["kernel"]) if "kernel" in own else self.kernel_of(own["base"])

    def of_row(self, row: Row, field: str) -> tuple[float, list[int]]:
        """Give what a row's software has."""
        stack = row.software.stack
        if field in self.priors["constants"]:
            return self.of_generation(stack, field)
        return self.of_kernel(row.software.kernel or self.kernel_of(stack), field)

    def of_device(self, row: Row, precision: str) -> tuple[float, list[int]]:
        """Give what a row's device sustains of its peak."""
        for name, own in self.priors["device"].items():
            if row.tree["hardware"] in own["rows"] and precision in own:
                prior, deviation = own[precision]
                return prior, [self.index(f"{name}.{precision}", deviation)]
        return 0.8, [-1]  # in a precision that no row of this device has

    def of_machine(self, name: str) -> tuple[float, list[int]]:
        """Give what every machine has."""
        prior, deviation = self.priors["machine"][name]
        return prior, [self.index(name, deviation)]

    def value(self, prior: float, chain: Sequence[int]) -> float:
        """Give a constant as fitted."""
        return float(prior * np.exp(np.append(self.factors, 0.0)[list(chain)].sum()))


class Fit:
    """Rows, and the constants that explain them best."""

    def __init__(self, rows: Sequence[Row], constants: Constants) -> None:
        """Lay the rows out as arrays."""
        self.rows, self.constants = rows, constants
        self.pricing = gathered([row.pricing for row in rows])
        self.tokens = self.pricing.choice.tokens / self.pricing.choice.devices
        self.measured = np.log([row.tokens_per_s or np.nan for row in rows])
        asked = {name: [constants.of_row(r, name) for r in rows] for name in FIELDS}
        asked |= {name: [constants.of_device(r, name) for r in rows] for name in PRECISIONS}
        asked |= {n: [constants.of_machine(n)] * len(rows) for n in constants.priors["machine"]}
        self.columns = {name: _column(entries) for name, entries in asked.items()}
        self.deviations = np.array(constants.deviations)
        self.touches = np.zeros((len(self.deviations), len(rows)), bool)
        for _, chains in self.columns.values():
            for column in chains.T:
                used = np.flatnonzero(column >= 0)
                self.touches[column[used], used] = True
        self.together = _disjoint(self.touches)
        sources = collections.Counter(row.source for row in rows)
        configs = collections.Counter(row.config for row in rows)
        weights = np.array([(sources[r.source] * configs[r.config]) ** -0.25 for r in rows])
        self.weights = weights * np.sqrt(len(rows) / np.sum(weights**2))

    def priced(self, x: Array) -> Pricing:
        """Give what is priced where the logarithms of the factors are `x`."""
        padded = np.append(x, 0.0)
        value = {n: p * np.exp(padded[c].sum(axis=1)) for n, (p, c) in self.columns.items()}
        machine, held = self.pricing.machine, machine_constants()
        machine = replace(
            machine,
            matrix_flops_per_s=tuple(
                value[name] * peak
                for name, peak in zip(PRECISIONS, machine.peak_flops_per_s, strict=True)
            ),
            memory_bytes_per_s=machine.memory_bytes_per_s * value["memory"] / held["memory"],
            ramp=machine.ramp * value["ramp"] / held["ramp"],
        )
        constants = {name: value[name] for name in FIELDS}
        constants |= {name: np.minimum(constants[name], 0.98) for name in SHARES}
        return replace(self.pricing, machine=machine, stack=Stack(**constants))

    def errors(self, x: Array) -> Array:
        """Give predicted over measured throughput, less 1."""
        return np.exp(np.log(self.tokens / step_time(self.priced(x)).total_s) - self.measured) - 1

    def residuals(self, x: Array, kept: NDArray[np.bool_]) -> Array:
        """Give weighted errors of the rows kept, and how far constants are from their priors."""
        predicted = np.log(self.tokens / step_time(self.priced(x)).total_s)
        e = ((predicted - self.measured) * self.weights)[kept] / NOISE
        robust = np.sign(e) * np.sqrt(2 * (np.sqrt(1 + e * e) - 1))
        return np.concatenate([robust, x / self.deviations])

    def jacobian(self, x: Array, kept: NDArray[np.bool_]) -> Array:
        """Give the derivatives; constants that no row shares are moved together."""
        base, count, step = self.residuals(x, kept), int(kept.sum()), 1e-5
        whole = np.zeros((len(base), len(x)))
        for group in self.together:
            moved = x.copy()
            moved[group] += step
            change = (self.residuals(moved, kept)[:count] - base[:count]) / step
            for i in group:
                whole[:count, i] = np.where(self.touches[i][kept], change, 0.0)
        whole[count:] = np.diag(1 / self.deviations)
        return whole

    def best(self, kept: NDArray[np.bool_], *, start: Array, steps: int) -> Array:
        """Give the most probable logarithms of factors, from some of the rows."""
        found = least_squares(
            self.residuals, start, self.jacobian, args=(kept,), max_nfev=steps,
            x_scale=self.deviations,
        )  # fmt: skip
        return np.asarray(found.x)


def _column(entries: Sequence[tuple[float, list[int]]]) -> tuple[Array, NDArray[np.int64]]:
    """Give priors, and the numbers of their factors, of a column of the rows."""
    chains = np.full((len(entries), max(len(chain) for _, chain in entries)), -1)
    for i, (_, chain) in enumerate(entries):
        chains[i, : len(chain)] = chain
    return np.array([prior for prior, _ in entries]), chains


def _disjoint(touches: NDArray[np.bool_]) -> list[list[int]]:
    """Give groups of constants no two of which touch the same row."""
    groups: list[list[int]] = []
    covered: list[NDArray[np.bool_]] = []
    for i, own in enumerate(touches):
        free = next((g for g, rows in enumerate(covered) if not np.any(rows & own)), None)
        if free is None:
            groups.append([i])
            covered.append(own.copy())
        else:
            groups[free].append(i)
            covered[free] |= own
    return groups


def _summed(e: Array) -> dict[str, float]:
    size = np.abs(e)
    return {
        "n": len(e), "bias": float(np.median(e)), "mean": float(np.mean(size)),
        "median": float(np.median(size)), "p90": float(np.quantile(size, 0.9)),
    }  # fmt: skip


def _told(name: str, e: Array) -> None:
    s = _summed(e)
    print(
        f"{name:22} n {s['n']:5} bias {s['bias']:+.3f} median {s['median']:.3f} p90 {s['p90']:.3f}",
        flush=True,
    )


def main() -> None:
    """Fit, and write what was found."""
    parser = argparse.ArgumentParser(prog="python -m fidelity.fit")
    parser.add_argument("--leave-out", action="store_true", help="each source in turn, too")
    parser.add_argument("--dry", action="store_true", help="write no constants")
    options = parser.parse_args()
    rows = [r for r in read(HERE / "rows.jsonl") if r.status == "ok" and r.tokens_per_s]
    constants = Constants(tomllib.loads((HERE / "priors.toml").read_text("utf-8")))
    fit = Fit(rows, constants)
    names = np.array([row.source for row in rows])
    every = np.ones(len(rows), bool)
    x = fit.best(every, start=np.zeros(len(constants.names)), steps=25)
    constants.factors = x
    print(f"{len(x)} constants")
    errors = fit.errors(x)
    for name in sorted(set(names.tolist())):
        _told(name, errors[names == name])
    _told("all", errors)
    if not options.dry:
        written(constants)
        sustained(constants)
    if options.leave_out:
        for name in sorted(set(names.tolist())):
            own = names == name
            errors[own] = fit.errors(fit.best(~own, start=x, steps=10))[own]
            _told(f"without {name}", errors[own])
        _told("all, left out", errors)
        each = {name: _summed(errors[names == name]) for name in sorted(set(names.tolist()))}
        tree = {"constants": len(x), "all": _summed(errors), "sources": each}
        (HERE / "leave-out.json").write_text(json.dumps(tree, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
