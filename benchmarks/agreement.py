"""``python -m benchmarks.agreement``: how far the closed form is from the program, plan by plan.

Plans are drawn at random, of dense models on up to 64 devices with our own software. Of each, the
step that the closed form gives is held against the one that is played, and the memory in use
against what the program's buffers and autograd hold.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator

import numpy as np

from stretto.cluster import find
from stretto.cost import cost
from stretto.cost.stacks import own
from stretto.model import Model
from stretto.plan import Batch, Memory, Numerics, Pipeline, Plan
from stretto.presets import preset
from stretto.program.lower import lower
from stretto.simulate import simulate
from stretto.timeline.memory import curve

MODELS = ("llama-3-8b", "llama-3-70b", "qwen3-8b", "llama-2-7b")
DEVICES = 64
WIDE = 0.05, 0.03
"""From where on a plan is named: of memory, and of a step."""


def drawn(count: int, *, seed: int) -> Iterator[tuple[Model, Plan]]:
    """Draw so many plans that run, pipelines without ZeRO-2."""
    choose = random.Random(seed).choice
    while count:
        model = preset(choose(MODELS))
        pp, tp, dp = choose((1, 1, 2, 4, 8)), choose((1, 1, 2, 8)), choose((1, 2, 8))
        micro_batches, micro_batch = choose((1, 2, 4, 8, 16)), choose((1, 1, 2, 4, 8))
        zero = choose((0, 1, 1, 2, 3))
        plan = Plan.of(
            pp=pp, dp=dp, tp=tp, zero=zero if dp > 1 else 0, numerics=Numerics("bfloat16"),
            memory=Memory(choose(("none", "selective", "full"))),
            pipeline=Pipeline(choose(("1f1b", "1f1b", "gpipe"))),
            batch=Batch(dp * micro_batches * micro_batch, micro_batch, choose((2048, 4096, 8192))),
        )  # fmt: skip
        if pp * tp * dp <= DEVICES and not (pp > 1 and zero == 2) and not plan.obstacles(model):
            count -= 1
            yield model, plan


def differences(model: Model, plan: Plan) -> tuple[float, float]:
    """Give by how much memory and step are more in closed form, relatively."""
    where = find("dgx-h100", devices=plan.mesh.size)
    told = cost(model, plan, cluster=where, stack=own(where))
    program = lower(model, plan)
    line = simulate(program, where, stack=own(where))
    held = max(curve(line, program, i).total_bytes.max() for i in range(len(line.alike)))
    step_s = line.step_s * (1 + line.straggle)
    return float(told.memory.allocated_bytes) / held - 1, float(told.time.total_s) / step_s - 1


def main() -> None:
    """Print what is far off, and how far plans are in all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement")
    parser.add_argument("--plans", type=int, default=420)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = []
    for model, plan in drawn(options.plans, seed=options.seed):
        found.append(differences(model, plan))
        if any(abs(off) > wide for off, wide in zip(found[-1], WIDE, strict=True)):
            axes = " ".join(f"{name} {extent}" for name, extent in plan.mesh.axes)
            batch = f"{plan.micro_batches} × {plan.batch.micro_batch} × {plan.batch.seq}"
            words = f"{plan.words.zero} {plan.pipeline.schedule} {plan.memory.recompute} {batch}"
            memory, step = found[-1]
            print(f"{model.name} {axes} zero {words}: memory {memory:+.1%}, step {step:+.1%}")
    off = np.abs(np.array(found))
    for name, column, wide in zip(("memory", "step"), off.T, WIDE, strict=True):
        print(
            f"{name:6}  median {np.median(column):.1%}, within 1% {np.mean(column < 0.01):.0%}, "
            f"within {wide:.0%} {np.mean(column < wide):.0%}, at most {column.max():.1%}"
        )


if __name__ == "__main__":
    main()
