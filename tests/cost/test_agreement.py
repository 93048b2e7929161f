"""Plans of our own software take in closed form what their programs take when they are played."""

from __future__ import annotations

from typing import Any

import pytest

from stretto.cluster import find
from stretto.cost import cost
from stretto.cost.stacks import own
from stretto.model import Model
from stretto.plan import Batch, Memory, Numerics, Pipeline, Plan
from stretto.presets import preset
from stretto.program.lower import lower
from stretto.simulate import simulate
from stretto.timeline.memory import curve


def made(
    name: str, micro_batches: int, *, size: int = 1, seq: int = 2048, recompute: Any = "none",
    schedule: Any = "1f1b", dtype: Any = "bfloat16", **words: Any,
) -> tuple[Model, Plan]:  # fmt: skip
    plan = Plan.of(
        **words, numerics=Numerics(dtype), memory=Memory(recompute), pipeline=Pipeline(schedule),
        batch=Batch(words.get("dp", 1) * micro_batches * size, size, seq),
    )  # fmt: skip
    return preset(name), plan


STEPS: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    # Little work for each of 8 tensor-parallel ranks, beside moves of every ZeRO stage.
    ("dgx-h100", "llama-3-8b", 4, {"dp": 2, "tp": 8, "zero": 3, "recompute": "selective"}),
    ("dgx-h100", "llama-2-7b", 4, {"dp": 8, "tp": 8, "zero": 2, "size": 2, "recompute": "full"}),
    ("dgx-h100", "llama-2-7b", 4, {"dp": 2, "tp": 8, "zero": 1, "recompute": "full"}),
    # What ZeRO-3 gathers for a block hides beside the block before, which may be shorter.
    ("dgx-h100", "qwen3-8b", 4, {"dp": 8, "zero": 3, "schedule": "gpipe"}),
    ("dgx-h100", "qwen3-8b", 2, {"pp": 4, "dp": 8, "zero": 3, "recompute": "selective"}),
    # A pipeline drains beside the gradients of every rank.
    ("dgx-h100", "llama-3-70b", 2,
     {"pp": 8, "dp": 2, "tp": 2, "recompute": "selective", "schedule": "gpipe"}),
    # Few micro-batches through uneven stages.
    ("dgx-h100", "llama-3-8b", 4, {"pp": 8, "tp": 2, "size": 2, "seq": 4096, "recompute": "full"}),
    # Slow links, shared by both kinds of move, and not shared.
    ("a100-80gb-pcie", "llama-2-7b", 4, {"dp": 4, "tp": 4, "zero": 3}),
    ("a100-80gb-pcie", "llama-2-7b", 4, {"dp": 2, "tp": 2, "zero": 2}),
    ("a100-80gb-pcie", "qwen3-8b", 8, {"pp": 8, "tp": 2, "size": 4, "recompute": "selective"}),
    # A host that cannot start kernels as fast as they are done.
    ("dgx-h100", "smollm2-135m", 8, {"dp": 8, "zero": 3, "seq": 512}),
    ("dgx-h100", "gpt2", 4, {"seq": 1024}),
)  # fmt: skip


@pytest.mark.parametrize(("where", "name", "micro_batches", "words"), STEPS, ids=str)
def test_a_step_takes_what_it_takes_played_within_4_percent(
    where: str, name: str, micro_batches: int, words: dict[str, Any]
) -> None:
    model, plan = made(name, micro_batches, **words)
    here = find(where, devices=plan.mesh.size)
    line = simulate(lower(model, plan), here, stack=own(here))
    told = float(cost(model, plan, cluster=here, stack=own(here)).time.total_s)
    assert told == pytest.approx(line.step_s * (1 + line.straggle), rel=0.04)


HELD: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    # Heads that are normalised.
    ("dgx-h100", "qwen3-8b", 16, {"seq": 4096, "schedule": "gpipe"}),
    # The first gradients of a step are the output layer's.
    ("dgx-h100", "llama-3-70b", 2,
     {"pp": 4, "dp": 8, "zero": 1, "size": 2, "seq": 8192, "schedule": "gpipe"}),
    # A master of what is used as precise, but whole.
    ("cpu", "gpt2", 4, {"dp": 4, "zero": 1, "seq": 512, "dtype": "float32"}),
)  # fmt: skip


@pytest.mark.parametrize(("where", "name", "micro_batches", "words"), HELD, ids=str)
def test_a_plan_allocates_what_its_program_does_within_1_and_a_half_percent(
    where: str, name: str, micro_batches: int, words: dict[str, Any]
) -> None:
    model, plan = made(name, micro_batches, **words)
    here = find(where, devices=plan.mesh.size)
    program = lower(model, plan)
    line = simulate(program, here, stack=own(here))
    played = max(curve(line, program, i).total_bytes.max() for i in range(len(line.alike)))
    told = cost(model, plan, cluster=here, stack=own(here)).memory.allocated_bytes
    assert float(told) == pytest.approx(float(played), rel=0.015)
