"""What a rank holds, instruction by instruction."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stretto.model import Model
from stretto.plan import Batch, Memory, Pipeline, Plan
from stretto.program.draw import draw
from stretto.program.instruction import STAYS, Free
from stretto.program.lower import lower
from stretto.program.memory import Footprint, memory

MODEL = Model(
    "small", layers=2, embed=8, heads=2, kv_heads=2, head_dim=4, ff=16, vocab=16, positions=16
)


def footprint(plan: Plan, stage: int = 0) -> Footprint:
    program = lower(MODEL, plan)
    return memory(program.stages[stage], program.placement)


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_memory_returns_to_its_resting_level(seed: int) -> None:
    program = lower(*draw(seed))
    for stage in program.stages:
        held = memory(stage, program.placement)
        assert held.held_bytes[-1] == held.resting_bytes
        assert min(held.held_bytes) >= held.resting_bytes
        assert held.peak_bytes == max(held.held_bytes)
        assert len(held.held_bytes) == len(stage.instructions)


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_the_peak_is_that_of_buffers_counted_one_by_one(seed: int) -> None:
    program = lower(*draw(seed))
    for stage in program.stages:
        first: dict[str, int] = dict.fromkeys(stage.resting(*STAYS), -1)
        last = dict.fromkeys(first, len(stage.instructions))
        for i, instruction in enumerate(stage.instructions):
            for name in instruction.output:
                first.setdefault(name, i)
            if isinstance(instruction, Free):
                last |= dict.fromkeys(instruction.buffers, i)
        held = [
            sum(
                stage.buffers[n].local_bytes(program.placement)
                for n in first
                if first[n] <= i < last[n]
            )
            for i in range(len(stage.instructions))
        ]
        assert list(memory(stage, program.placement).held_bytes) == held


def test_what_rests_is_weights_two_moments_and_a_steps_data() -> None:
    tokens = 2 * 4  # a micro-batch
    data = 8 * (3 * tokens + 1)  # tokens, mask and targets as int64, and their count
    at_rest = footprint(Plan.of(batch=Batch(2, 2, 4))).resting_bytes
    assert at_rest == 3 * 4 * MODEL.parameter_count + data


def test_sharding_everything_halves_weights_and_moments_on_two_ranks() -> None:
    batch = Batch(4, 2, 4)
    data = 8 * (3 * 2 * 4 + 1)
    whole = footprint(Plan.of(dp=2, batch=batch)).resting_bytes - data
    half = footprint(Plan.of(dp=2, zero=3, batch=batch)).resting_bytes - data
    assert 2 * half == whole


def test_1f1b_keeps_fewer_inputs_than_gpipe() -> None:
    """Of two stages the first keeps two micro-batches, and not all eight."""
    peaks = {
        name: footprint(
            Plan.of(pp=2, pipeline=Pipeline(name), memory=Memory("full"), batch=Batch(8, 1, 16))
        ).peak_bytes
        for name in ("1f1b", "gpipe")
    }
    x = 4 * 16 * 8  # bytes of the input of a block
    assert peaks["gpipe"] - peaks["1f1b"] >= 6 * x


def test_recomputing_keeps_the_inputs_of_blocks_and_no_more() -> None:
    """What autograd keeps is not counted, but for what is named: inputs are held for longer."""
    batch = Batch(4, 1, 16)
    plain = footprint(Plan.of(batch=batch))
    again = footprint(Plan.of(batch=batch, memory=Memory("full")))
    x = 4 * 16 * 8  # the input of a block
    assert again.peak_bytes - plain.peak_bytes <= 4 * x
