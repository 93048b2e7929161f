"""Fit the constants of software and devices to published measurements, and write stacks.toml.

Every constant has a prior: a value that one would give it without these measurements, and how far
one would believe it to be off (standard deviation of its logarithm). What is fitted is the most
probable set, so that a constant on which the rows say little stays where it was. A generation of
software differs from its base by a factor, which is drawn to one; leaving a source out leaves its
generation near its base. Sources, configurations and repeats weigh so that no source rules.

    python scripts/fit_stacks.py ROWS.jsonl [--leave-out] [--write]
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from stretto.cost import Pricing, Stack, gathered
from stretto.cost.stacks import machine_constants
from stretto.cost.step import step_time
from stretto.fidelity.rows import Row, read

ROOT = Path(__file__).parents[1]
NOISE = 0.05
"""Relative error that a row is expected to have."""

# name → base; "" for a root
BASES = {
    "modern": "", "eager": "modern", "megatron-2021": "modern", "deepspeed-2021": "megatron-2021",
    "megatron-core-2024": "modern", "megatron-core-2025": "modern", "megatron-core-2026": "modern",
    "megatron-core-2026h2": "megatron-core-2026",
    "torchtitan": "eager", "torchtitan-2024": "torchtitan",
    "torchtitan-eager": "torchtitan", "nanotron": "eager", "scaling": "eager",
    "scaling-fused": "scaling", "llm-foundry": "eager", "internevo": "eager", "jax": "modern",
    "jax-fused": "modern",
}  # fmt: skip
ABOUT = {
    "torchtitan-2024": "torchtitan before it compiled the loss",
    "modern": "fused kernels, flash attention, overlapped communication, as since 2024",
    "eager": "PyTorch's own kernels with flash attention, as since 2023",
    "megatron-2021": "Megatron-LM and Megatron-DeepSpeed before flash attention",
    "deepspeed-2021": "DeepSpeed's ZeRO-3 in its first years",
    "megatron-core-2024": "Megatron-Core and NeMo of 2024",
    "megatron-core-2025": "Megatron-Core, NeMo and Megatron-Bridge of 2025",
    "megatron-core-2026": "Megatron-Core and Megatron-Bridge of early 2026",
    "megatron-core-2026h2": "Megatron-Core and Megatron-Bridge since mid-2026",
    "torchtitan": "torchtitan: compiled blocks, FSDP2, flash attention",
    "torchtitan-eager": "torchtitan without compilation",
    "nanotron": "nanotron of 2025",
    "scaling": "Aleph Alpha's Scaling of 2023: PyTorch's own norms and rotations",
    "scaling-fused": "the same with a fused norm",
    "llm-foundry": "MosaicML's llm-foundry of 2023: FSDP1",
    "internevo": "InternEvo of 2023",
    "jax": "JAX under XLA, without fused attention",
    "jax-fused": "JAX with Transformer Engine and fused attention",
}
KERNEL = {
    "modern": "cudnn", "eager": "flash-2", "megatron-2021": "fused-softmax",
    "torchtitan": "flash-2", "llm-foundry": "flash-1", "internevo": "flash-1", "jax": "unfused",
}  # fmt: skip

# field → (prior of the root, deviation at the root, deviation of each generation from its base)
STACK: dict[str, tuple[float, float, float]] = {
    "matrix": (1.0, 0.0, 0.03),
    "grouped": (1.6, 0.4, 0.2),
    "attention_ramp": (110.0, 0.3, 0.0),
    "pointwise": (1.0, 0.4, 0.35),
    "pointwise_backward": (2.2, 0.15, 0.0),
    "cast": (2.0, 0.3, 0.0),
    "accumulate_bytes": (8.0, 0.0, 0.0),
    "loss_bytes": (14.0, 0.4, 0.2),
    "kernels": (20.0, 0.5, 0.3),
    "expert_kernels": (3.0, 0.4, 0.0),
    "collective_s": (25e-6, 0.35, 0.0),
    "tensor_overlap": (0.65, 0.2, 0.2),
    "context_overlap": (0.7, 0.3, 0.0),
    "context_step_s": (30e-6, 0.5, 0.0),
    "expert_overlap": (0.25, 0.4, 0.3),
    "send_overlap": (0.6, 0.2, 0.0),
    "data_overlap": (0.8, 0.2, 0.4),
    "gather_overlap": (0.7, 0.2, 0.4),
    "contention": (0.2, 0.3, 0.0),
    "optimizer_bytes": (36.0, 0.2, 0.0),
    "kept_copies": (0.0, 0.0, 0.0),
    "kept_norm": (0.0, 0.0, 0.0),
    "kept_mask_bytes": (0.0, 0.0, 0.0),
    "logit_bytes": (8.0, 0.0, 0.0),
    "logits_split": (1.0, 0.0, 0.0),
    "update_bytes": (0.0, 0.0, 0.0),
    "step_s": (0.03, 0.5, 0.6),
    "straggle": (0.006, 0.5, 0.25),
}
OWN = {  # priors of generations that differ from their base's
    "eager": {"pointwise": 2.0, "tensor_overlap": 0.0, "send_overlap": 0.1, "kernels": 30.0},
    "megatron-2021": {
        "tensor_overlap": 0.0, "send_overlap": 0.1, "data_overlap": 0.05, "gather_overlap": 0.05,
    },
    "deepspeed-2021": {"data_overlap": 0.6, "gather_overlap": 0.6},
    # Passes over memory of the code: norms in float32 and rotations of separate operations move
    # about five times what fused ones do; a fused norm, or none of rotations and gates, less.
    "scaling": {"pointwise": 5.5, "data_overlap": 0.05, "gather_overlap": 0.05},
    "scaling-fused": {"pointwise": 3.2}, "internevo": {"pointwise": 2.2},
    "llm-foundry": {"pointwise": 1.6}, "nanotron": {"pointwise": 1.3},
    "megatron-core-2024": {"pointwise": 1.3},
    "torchtitan": {"pointwise": 0.9, "tensor_overlap": 0.5, "gather_overlap": 0.7, "step_s": 0.1},
    "torchtitan-eager": {"pointwise": 2.5},
    "jax": {"kernels": 8.0}, "jax-fused": {"kernels": 8.0},
}  # fmt: skip
# kernel → field → (prior, deviation)
KERNELS: dict[str, dict[str, tuple[float, float]]] = {
    "cudnn": {"attention": (0.60, 0.2), "attention_backward": (2.8, 0.15)},
    "flash-2": {
        "attention": (0.75, 0.15), "attention_cap_flops_per_s": (270e12, 0.2),
        "attention_backward": (2.6, 0.15),
    },
    "flash-1": {
        "attention": (0.50, 0.15), "attention_cap_flops_per_s": (250e12, 0.2),
        "attention_backward": (2.9, 0.15),
    },
    "fused-softmax": {"attention": (0.55, 0.2), "attention_backward": (2.2, 0.15), "score_bytes": (12.0, 0.3)},
    "unfused": {"attention": (0.5, 0.2), "attention_backward": (2.2, 0.15), "score_bytes": (30.0, 0.3)},
}  # fmt: skip
FUSED = ("cudnn", "flash-1", "flash-2")
SHARES = ("tensor_overlap", "expert_overlap", "send_overlap")
# Of memory: from the code of each, or fitted by hand to peaks and to what ran out.
HELD: dict[str, dict[str, float]] = {
    "eager": {"kept_copies": 1, "logit_bytes": 14},
    "megatron-2021": {"kept_mask_bytes": 1},
    "scaling": {"kept_norm": 4, "logit_bytes": 18, "logits_split": 0, "update_bytes": 8},
    "scaling-fused": {"kept_norm": 0},
    "llm-foundry": {"kept_copies": 0, "logit_bytes": 4},
    "internevo": {"update_bytes": 8},
    "torchtitan": {"kept_copies": 0, "logit_bytes": 4},
    "torchtitan-2024": {"logit_bytes": 14},
    "torchtitan-eager": {"kept_copies": 1, "logit_bytes": 14},
    "jax": {"kept_copies": 0, "logit_bytes": 8},
    "jax-fused": {"kept_copies": 0, "logit_bytes": 8},
}
for _name, _held in HELD.items():
    OWN.setdefault(_name, {}).update(_held)
KERNELS["fused-softmax"]["kept_score_bytes"] = (5.0, 0.0)
KERNELS["unfused"]["kept_score_bytes"] = (8.0, 0.0)
FIXED = {
    "kept_score_bytes": 0.0,
    "attention": 1.0,
    "attention_cap_flops_per_s": 1e18,
    "score_bytes": 0.0,
}
# device → precision index → (share of the peak, deviation)
SUSTAINED = {
    "A100": {1: (0.84, 0.06)},
    "H100": {1: (0.74, 0.05), 2: (0.70, 0.04)},
    "H100-96GB": {1: (0.68, 0.05), 2: (0.64, 0.04)},
    "B200": {1: (0.72, 0.08), 2: (0.62, 0.1), 3: (0.55, 0.15)},
}
CLASS = {
    "A100-80GB": "A100", "A100-40GB": "A100", "A100": "A100", "A800-80GB": "A100",
    "H100-80GB": "H100", "H100-96GB": "H100-96GB", "H200": "H100", "B200": "B200",
    "GB200": "B200",
}  # fmt: skip
MACHINE = {"memory": (0.87, 0.04), "ramp": (70.0, 0.3)}
FILES = {  # device class → the cluster files that state its efficiency
    "A100": ("a100-80gb",), "H100": ("h100-sxm",), "H100-96GB": ("h100-96gb",),
    "B200": ("b200",),
}  # fmt: skip


class Problem_:
    """The rows, the constants and what they predict."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        self.pricing = gathered([r.pricing for r in rows])
        self.log = np.log([r.tokens_per_s for r in rows])
        self.names: list[str] = []
        self.deviation: list[float] = []
        n = len(rows)
        self.columns: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for field in [f.name for f in dataclasses.fields(Stack)]:
            self.columns[field] = self._column([self._stack(r, field) for r in rows])
        for i in range(4):
            self.columns[f"rate{i}"] = self._column([self._rate(r, i) for r in rows])
        for name, (prior, deviation) in MACHINE.items():
            self.columns[name] = self._column(
                [(prior, [self._param(f"machine/{name}", deviation)])] * n
            )
        self.touches = np.zeros((len(self.names), n), bool)
        for _, chains in self.columns.values():
            for column in chains.T:
                used = np.flatnonzero(column >= 0)
                self.touches[column[used], used] = True
        self.disjoint: list[list[int]] = []
        rows_of: list[np.ndarray] = []
        for i in range(len(self.names)):
            for group, taken_ in zip(self.disjoint, rows_of, strict=True):
                if not np.any(taken_ & self.touches[i]):
                    group.append(i)
                    taken_ |= self.touches[i]
                    break
            else:
                self.disjoint.append([i])
                rows_of.append(self.touches[i].copy())
        sources = collections.Counter(r.source for r in rows)
        configs = collections.Counter(r.config for r in rows)
        weight = np.array([(sources[r.source] * configs[r.config]) ** -0.25 for r in rows])
        self.weight = weight * np.sqrt(n / np.sum(weight**2))
        self.sigma = np.array(self.deviation)
        p = self.pricing
        self.peaks = [np.broadcast_to(v, n) for v in p.machine.peak_flops_per_s]
        self.base_machine = p.machine
        self.tokens = p.choice.tokens / p.choice.devices

    def _param(self, name: str, deviation: float) -> int:
        if deviation <= 0:
            return -1
        if name not in self.names:
            self.names.append(name)
            self.deviation.append(deviation)
        return self.names.index(name)

    def _stack(self, row: Row, field: str) -> tuple[float, list[int]]:
        name = row.software.stack
        if field not in STACK:
            kernel = row.software.kernel or _kernel(name)
            fields = KERNELS[kernel]
            if field == "fused_attention":
                return float(kernel in FUSED), []
            if field not in fields:
                return FIXED[field], []
            prior, deviation = fields[field]
            return prior, [self._param(f"kernel/{kernel}/{field}", deviation)]
        prior, chain = self._prior(name, field)
        return prior, chain

    def _prior(self, name: str, field: str) -> tuple[float, list[int]]:
        """Give a generation's prior, and the constants that it deviates by.

        One that has a prior of its own does not deviate with its base.
        """
        root, at_root, each = STACK[field]
        chain: list[int] = []
        while True:
            chain.append(self._param(f"stack/{name}/{field}", each if BASES[name] else at_root))
            if field in OWN.get(name, {}):
                return OWN[name][field], chain
            if not BASES[name]:
                return root, chain
            name = BASES[name]

    def _rate(self, row: Row, i: int) -> tuple[float, list[int]]:
        name = CLASS[row.tree["hardware"]]
        prior, deviation = SUSTAINED[name].get(i, (0.8, 0.0))
        return prior, [self._param(f"device/{name}/{i}", deviation)]

    def _column(self, entries: list[tuple[float, list[int]]]) -> tuple[np.ndarray, np.ndarray]:
        width = max(1, max(len(chain) for _, chain in entries))
        chains = np.full((len(entries), width), -1)
        for i, (_, chain) in enumerate(entries):
            chains[i, : len(chain)] = chain
        return np.array([prior for prior, _ in entries]), chains

    def value(self, x: np.ndarray, column: str) -> np.ndarray:
        prior, chains = self.columns[column]
        return prior * np.exp(np.append(x, 0.0)[chains].sum(axis=1))

    def price(self, x: np.ndarray) -> Pricing:
        v = lambda name: self.value(x, name)  # noqa: E731
        shares = [*(v(f"rate{i}") for i in range(4))]
        m = self.base_machine
        machine = dataclasses.replace(
            m,
            matrix_flops_per_s=tuple(s * p for s, p in zip(shares, self.peaks, strict=True)),
            memory_bytes_per_s=m.memory_bytes_per_s * v("memory") / machine_constants()["memory"],
            ramp=m.ramp * v("ramp") / machine_constants()["ramp"],
        )
        constants = Stack(**{f.name: v(f.name) for f in dataclasses.fields(Stack)})
        constants = dataclasses.replace(
            constants, **{n: np.minimum(getattr(constants, n), 0.98) for n in SHARES}
        )
        return dataclasses.replace(self.pricing, machine=machine, stack=constants)

    def predicted(self, x: np.ndarray) -> np.ndarray:
        return np.log(self.tokens / step_time(self.price(x)).total_s)

    def residuals(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        e = ((self.predicted(x) - self.log) * self.weight)[mask] / NOISE
        robust = np.sign(e) * np.sqrt(2 * (np.sqrt(1 + e * e) - 1))
        return np.concatenate([robust, x / self.sigma])

    def jacobian(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Give the derivatives, of constants on which no row depends together in one go."""
        base = self.residuals(x, mask)
        count = int(mask.sum())
        whole = np.zeros((len(base), len(x)))
        step = 1e-5
        for together in self.disjoint:
            moved = x.copy()
            moved[together] += step
            change = (self.residuals(moved, mask)[:count] - base[:count]) / step
            for i in together:
                whole[:count, i] = np.where(self.touches[i][mask], change, 0.0)
        whole[count:] = np.diag(1 / self.sigma)
        return whole

    def fit(self, mask: np.ndarray, start: np.ndarray, steps: int = 15) -> np.ndarray:
        return least_squares(
            self.residuals,
            start,
            self.jacobian,
            args=(mask,),
            max_nfev=steps,
            x_scale=self.sigma,
            method="trf",
        ).x


def _kernel(name: str) -> str:
    while name not in KERNEL:
        name = BASES[name]
    return KERNEL[name]


def written(problem: Problem_, x: np.ndarray) -> str:
    """Give stacks.toml: what each kernel and generation has, where it differs from its base."""
    factor = dict(zip(problem.names, np.exp(x), strict=True))
    lines = [
        "# Constants of software, fitted to published measurements by scripts/fit_stacks.py; see",
        "# docs/fidelity.md. A generation has its base's constants where it states none.",
    ]
    lines += ["", "[machine]"]
    lines += [f"{n} = {_show(MACHINE[n][0] * factor[f'machine/{n}'])}" for n in MACHINE]
    for kernel, fields in KERNELS.items():
        lines += ["", f"[kernel.{kernel}]", f"fused_attention = {int(kernel in FUSED)}"]
        for field, value in FIXED.items():
            prior = fields.get(field, (value, 0.0))[0]
            lines.append(f"{field} = {_show(prior * factor.get(f'kernel/{kernel}/{field}', 1.0))}")
        prior = fields["attention_backward"][0]
        lines.append(
            f"attention_backward = {_show(prior * factor.get(f'kernel/{kernel}/attention_backward', 1.0))}"
        )
    for name, base in BASES.items():
        lines += ["", f"[stack.{name}]", f'about = "{ABOUT[name]}"']
        lines += [f'base = "{base}"'] if base else []
        lines += [f'kernel = "{KERNEL[name]}"'] if name in KERNEL else []
        for field in STACK:
            prior, chain = problem._prior(name, field)
            own = prior * np.exp(np.append(x, 0.0)[chain].sum())
            theirs = None
            if base:
                prior, chain = problem._prior(base, field)
                theirs = prior * np.exp(np.append(x, 0.0)[chain].sum())
            if field in SHARES:
                own, theirs = min(own, 0.98), theirs and min(theirs, 0.98)
            if theirs is None or abs(np.log((own + 1e-12) / (theirs + 1e-12))) > 0.01:
                lines.append(f"{field} = {_show(own)}")
    return "\n".join(lines) + "\n"


def devices_written(problem: Problem_, x: np.ndarray) -> None:
    """Write what large products sustain into the cluster files."""
    factor = dict(zip(problem.names, np.exp(x), strict=True))
    words = {1: ("float16", "bfloat16"), 2: ("float8",), 3: ("float4",)}
    for name, shares in SUSTAINED.items():
        for file in FILES[name]:
            path = ROOT / f"src/stretto/clusters/{file}.toml"
            text = path.read_text("utf-8")
            head, mark, tail = text.partition("[device.efficiency]")
            if not mark:
                raise SystemExit(f"{path} has no [device.efficiency]")
            for i, (prior, _) in shares.items():
                value = _show(prior * factor.get(f"device/{name}/{i}", 1.0))
                for word in words[i]:
                    tail = re.sub(rf"(?m)^{word} = .*$", f"{word} = {value}", tail, count=1)
            path.write_text(head + mark + tail, "utf-8")


def _show(value: float) -> str:
    return f"{value:.3g}"


def report(problem: Problem_, errors: np.ndarray) -> None:
    print(
        f"all: n {len(errors)} median {np.median(abs(errors)):.3f} p90 {np.quantile(abs(errors), 0.9):.3f}"
    )
    for source in sorted({r.source for r in problem.rows}):
        e = errors[[r.source == source for r in problem.rows]]
        print(f"  {source:20} n {len(e):4} bias {np.median(e):+.3f} median {np.median(abs(e)):.3f} "
              f"p90 {np.quantile(abs(e), 0.9):.3f}")  # fmt: skip


def left_out(problem: Problem_, errors: np.ndarray) -> str:
    """Give the errors of rows whose source was left out of the fit, as docs/fidelity.md reads them."""

    def summed(e: np.ndarray) -> dict[str, float]:
        worst = float(np.quantile(abs(e), 0.9))
        return {"n": len(e), "bias": float(np.median(e)), "mean": float(np.mean(abs(e))), "median": float(np.median(abs(e))), "p90": worst}

    names = np.array([r.source for r in problem.rows])
    each = {name: summed(errors[names == name]) for name in sorted(set(names.tolist()))}
    return json.dumps({"constants": len(problem.names), "all": summed(errors), "sources": each}, indent=1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--leave-out", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    rows = [r for r in read(options.rows) if r.status == "ok" and r.tokens_per_s]
    problem = Problem_(rows)
    everything = np.ones(len(rows), bool)
    print(len(problem.names), "constants,", len(rows), "rows", flush=True)
    x = problem.fit(everything, np.zeros(len(problem.names)), 25)
    report(problem, np.exp(problem.predicted(x) - problem.log) - 1)
    if options.write:
        target = ROOT / "src/stretto/cost/stacks.toml"
        target.write_text(written(problem, x), "utf-8")
        devices_written(problem, x)
    if options.save:
        np.save(options.save, x)
    if options.leave_out:
        errors = np.zeros(len(rows))
        for source in sorted({r.source for r in rows}):
            own = np.array([r.source == source for r in rows])
            y = problem.fit(~own, x.copy(), 10)
            errors[own] = (np.exp(problem.predicted(y) - problem.log) - 1)[own]
            print(
                "left out",
                source,
                f"{np.median(errors[own]):+.3f} {np.median(abs(errors[own])):.3f}",
                flush=True,
            )
        report(problem, errors)
        (ROOT / "fidelity/leave-out.json").write_text(left_out(problem, errors), "utf-8")
    for i, name in enumerate(problem.names):
        if abs(x[i]) > 0.5 * problem.sigma[i]:
            print(f"  {name:44} ×{np.exp(x[i]):.3f}  {x[i] / problem.sigma[i]:+.1f}σ")


if __name__ == "__main__":
    sys.exit(main())
