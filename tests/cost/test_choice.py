"""Choices: the usual words, strides and shares of a plan."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cost.cases import n, plans

from stretto.cost import PRECISIONS, SCHEDULES, Choice
from stretto.mesh import Mesh
from stretto.plan import (
    AXES,
    Batch,
    Communication,
    Group,
    Memory,
    Numerics,
    Pipeline,
    Plan,
)
from stretto.presets import preset
from stretto.rules import Rules

GPT = preset("gpt3-125m")
WORDS = ("pp", "dp", "cp", "tp", "ep", "etp", "zero", "shard")


@given(st.sampled_from((1, 8, 64)).flatmap(plans))
def test_a_choice_has_the_words_and_the_counts_of_its_plan(plan: Plan) -> None:
    choice = Choice.of(plan, GPT)
    assert [getattr(choice, w) for w in WORDS] == [getattr(plan.words, w) for w in WORDS]
    assert choice.devices == plan.mesh.size
    assert choice.tokens == plan.batch.sequences * plan.batch.seq
    assert choice.micro_batches == plan.micro_batches
    assert choice.interleave == plan.pipeline.chunks
    assert SCHEDULES[int(choice.schedule)] == plan.pipeline.schedule
    assert choice.sequence == (plan.words.sequence and plan.words.tp > 1)


@given(
    st.permutations(AXES), st.tuples(*[st.integers(1, 3)] * 4),
    st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 2), (8, 1)]), st.booleans(),
)  # fmt: skip
def test_strides_are_the_distances_of_neighbours_on_the_mesh(
    order: list[str], powers: tuple[int, ...], experts: tuple[int, int], sharded: bool
) -> None:
    pp, dp, cp, tp = (2**k for k in powers)
    ep, etp = experts
    plan = Plan.of(
        pp=pp, dp=dp, cp=cp, tp=tp, ep=ep, etp=etp, zero=1, shard=2 if sharded else 0, order=order
    )
    choice = Choice.of(plan, GPT)

    def neighbours(*axes: str) -> int:
        first, second, *_ = plan.mesh.group(0, axes)
        return second - first

    for word in ("pp", "dp", "cp", "tp"):
        assert getattr(choice, f"{word}_stride") == neighbours(word)
    assert choice.stride(n(1)) == neighbours("tp")
    assert choice.stride(n(tp)) == neighbours("cp")
    assert choice.stride(n(tp * cp)) == neighbours("dp")
    if ep > 1:
        assert choice.stride(n(etp)) == neighbours("ep")


def test_what_axes_are_called_does_not_matter() -> None:
    mesh = Mesh((("rows", 2), ("columns", 4)))
    choice = Choice.of(Plan(mesh, Rules((("batch", ("rows",)), ("heads", ("columns",))))), GPT)
    assert (choice.dp, choice.tp, choice.dp_stride, choice.tp_stride) == (2, 4, 4, 1)


def shares(memory: Memory, *groups: Group, pp: int = 1) -> tuple[float, float, float]:
    c = Choice.of(Plan.of(pp=pp, memory=memory, groups=groups), GPT)
    return float(c.again_core), float(c.again_matrix), float(c.again_pointwise)


def test_what_runs_again_is_what_the_plan_says() -> None:
    assert shares(Memory()) == (0, 0, 0)
    assert shares(Memory("full")) == (1, 1, 1)
    # Attention has 4 of the 12 h² parameters of a layer.
    assert shares(Memory("selective"))[:2] == (1, pytest.approx(1 / 3))
    # 2 of the 3 layers of each of 4 stages.
    assert shares(Memory("full", 2), pp=4) == pytest.approx((2 / 3,) * 3)
    assert shares(Memory("full", 9), pp=4) == (1, 1, 1)


def test_groups_have_their_own_recomputation() -> None:
    """3 of 12 layers run again; of the other 9 a third, or nothing."""
    group = Group((0, 3), "full")
    assert shares(Memory(), group) == pytest.approx((1 / 4,) * 3)
    assert shares(Memory("full", 1), group, pp=4) == pytest.approx((1 / 4 + 3 / 4 / 3,) * 3)


def test_an_output_layer_ahead_of_the_last_does_not_run_again_with_attention() -> None:
    ahead = replace(GPT, mtp_layers=1, vocab=10**6)
    plan = Plan(memory=Memory("selective"))
    assert Choice.of(plan, ahead).again_matrix == pytest.approx(1 / 3)


def test_bytes_and_precisions_are_those_of_the_numerics() -> None:
    for numerics, precision, sizes in (
        (Numerics("float32"), "float32", (4, 0, 4)),
        (Numerics("bfloat16"), "bfloat16", (2, 4, 4)),
        (Numerics("bfloat16", matrix="float8"), "float8", (2, 4, 4)),
        (Numerics("float64"), "float32", (8, 0, 8)),
    ):
        c = Choice.of(Plan(numerics=numerics), GPT)
        assert PRECISIONS[int(c.precision)] == precision
        assert (c.value_bytes, c.master_bytes, c.gradient_bytes) == sizes


def test_a_codec_shrinks_what_is_reduced() -> None:
    sizes = {
        codec: float(Choice.of(Plan(communication=Communication(codec=codec)), GPT).codec)
        for codec in ("none", "bfloat16", "int8", "powersgd")
    }
    assert sizes["none"] == 1 and sizes["bfloat16"] == 2 / 4
    assert sizes["powersgd"] < sizes["int8"] < sizes["bfloat16"]


def test_zb_v_has_two_stages_on_a_rank() -> None:
    plan = Plan.of(pp=2, pipeline=Pipeline("zb-v"), batch=Batch(8, 1, 256))
    assert Choice.of(plan, GPT).interleave == 2
