"""Memory is what papers count by hand, in parts that sum, for one plan as for an array of them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.cluster import find
from stretto.cost import (
    PRECISIONS,
    SCHEDULES,
    Choice,
    Machine,
    Pricing,
    Shape,
    gathered,
    record,
    stack,
    taken,
)
from stretto.cost.memory import (
    FRAGMENTS,
    MOMENTS,
    PARTS,
    PROCESS_BYTES,
    RESERVE_BYTES,
    MemoryUse,
    memory,
)

MACHINE = Machine.of(find("a100x64"))

FUSED = {
    "fused_attention": 1, "kept_copies": 0, "kept_inputs": 1, "kept_norm": 0,
    "kept_gathered": 0,
    "kept_mask_bytes": 0, "kept_score_bytes": 0, "logit_bytes": 8, "logits_split": 1,
    "update_bytes": 0,
}  # fmt: skip
GPT_2021 = FUSED | {"fused_attention": 0, "kept_mask_bytes": 1, "kept_score_bytes": 5}
"""Softmax, its dropout and the dropout's mask keep 2 + 2 + 1 bytes of a score."""


def shape(**changes: Any) -> Shape:
    """Give a GPT of 24 layers with h = 4096 and 32 heads, but for `changes`."""
    gpt = {
        "layers": 24, "expert_layers": 0, "full_layers": 24, "window": 0, "embed": 4096,
        "heads": 32, "kv_heads": 32, "head_dim": 128, "value_dim": 128, "q_rank": 0, "kv_rank": 0,
        "rope_dim": 0, "ff": 16384, "ups": 1, "vocab": 51200, "heads_out": 1, "tied": 1,
        "positions": 0, "experts": 0, "top_k": 0, "expert_ff": 0, "shared_ff": 0,
    }  # fmt: skip
    return record(Shape, **(gpt | changes))


def choice(**changes: Any) -> Choice:
    """Give one device with micro-batches of four sequences of 2,048, but for `changes`."""
    plain = {
        "pp": 1, "interleave": 1, "dp": 1, "cp": 1, "tp": 1, "ep": 1, "etp": 1, "pp_stride": 1,
        "dp_stride": 1, "cp_stride": 1, "tp_stride": 1, "micro_batch": 4, "micro_batches": 64,
        "seq": 2048, "zero": 0, "shard": 1, "regather": 1, "sequence": 0, "schedule": 1,
        "again_core": 0, "again_matrix": 0, "again_pointwise": 0, "precision": 1,
        "value_bytes": 2, "master_bytes": 4, "gradient_bytes": 2, "tensor_overlap": 0,
        "offload": 0, "optimizer_offload": 0, "codec": 1, "two_level": 0,
    }  # fmt: skip
    return record(Choice, **(plain | changes))


def used(model: Shape, plan: Choice, **constants: float) -> MemoryUse:
    """Give the memory of `plan` with software of these constants."""
    held = {name: np.asarray(float(v)) for name, v in (FUSED | constants).items()}
    return memory(Pricing(model, plan, MACHINE, replace(stack(), **held)))


def kept(plan: Choice, **changes: Any) -> float:
    """Give the bytes that a GPT of 2021 without a vocabulary keeps for its backward passes."""
    # Its update is on the host, so that a pass is the fullest moment.
    plan = replace(plan, optimizer_offload=np.ones(()))
    return float(used(shape(vocab=1, **changes), plan, **GPT_2021).kept_bytes)


FULL = {"again_core": 1, "again_matrix": 1, "again_pointwise": 1}
SBH = 2048 * 4 * 4096  # sequence, micro-batch and width of the plan above

models = st.sampled_from(
    (
        shape(),
        shape(kv_heads=8, ff=14336, ups=2, vocab=128256, tied=0),
        shape(expert_layers=20, experts=64, top_k=6, expert_ff=1408, shared_ff=2816, ups=2),
        shape(q_rank=1536, kv_rank=512, rope_dim=64, head_dim=192, heads=64, positions=4096),
    )
)


@st.composite
def plans(draw: st.DrawFn) -> Choice:
    """Draw a plan."""
    power = st.sampled_from((1, 2, 4, 8))
    share = st.sampled_from((0.0, 0.25, 1.0))
    pp, tp, dp, cp = (draw(power) for _ in range(4))
    schedule = draw(st.sampled_from(SCHEDULES))
    drawn = {
        "ep": st.sampled_from((1, dp)), "etp": st.sampled_from((1, tp)), "micro_batch": power,
        "zero": st.integers(0, 3), "regather": st.integers(0, 1), "sequence": st.integers(0, 1),
        "again_core": share, "again_matrix": share, "again_pointwise": share, "offload": share,
        "optimizer_offload": share, "precision": st.integers(0, len(PRECISIONS) - 1),
        "gradient_bytes": st.sampled_from((2, 4)),
    }  # fmt: skip
    stages = {"interleaved": 3, "breadth-first": 3, "zb-v": 2}.get(schedule, 1)
    return choice(
        pp=pp, tp=tp, dp=dp, cp=cp, shard=dp * cp, interleave=stages,
        schedule=SCHEDULES.index(schedule), micro_batches=pp * draw(power),
        **{name: draw(values) for name, values in drawn.items()},
    )  # fmt: skip


# laws


@given(models, plans())
def test_parts_are_never_negative_and_sum_to_the_total(model: Shape, plan: Choice) -> None:
    use = used(model, plan)
    parts = [float(getattr(use, f.name)) for f in fields(use) if f.name != "moment"]
    assert min(parts) >= 0
    assert float(use.total_bytes) == pytest.approx(sum(parts), rel=1e-12)
    outside = parts[PARTS.index("reserve_bytes")]
    lost = parts[PARTS.index("fragment_bytes")]
    assert float(use.reserved_bytes) == pytest.approx(sum(parts) - outside, rel=1e-12)
    assert float(use.allocated_bytes) == pytest.approx(sum(parts) - outside - lost, rel=1e-12)


@given(st.lists(st.tuples(models, plans()), min_size=2, max_size=8), st.booleans())
def test_an_array_of_plans_has_the_memory_of_each(
    cases: list[tuple[Shape, Choice]], unfused: bool
) -> None:
    constants = GPT_2021 if unfused else FUSED
    together = used(gathered([m for m, _ in cases]), gathered([c for _, c in cases]), **constants)
    for i, (model, plan) in enumerate(cases):
        alone, there = used(model, plan, **constants), taken(together, i)
        for f in fields(alone):
            assert float(getattr(there, f.name)) == float(getattr(alone, f.name)), f.name


@given(models, plans(), st.sampled_from(("micro_batch", "seq", "micro_batches")))
def test_more_of_a_batch_never_takes_less(model: Shape, plan: Choice, what: str) -> None:
    more = replace(plan, **{what: getattr(plan, what) * 2})
    assert used(model, more).total_bytes >= used(model, plan).total_bytes


@given(models, plans(), st.sampled_from(("tp", "cp")))
def test_more_ranks_of_a_replica_never_take_more(model: Shape, plan: Choice, axis: str) -> None:
    if axis == "cp" and plan.cp == 1:  # whose ring has buffers that one rank has not
        plan = replace(plan, cp=np.asarray(2.0))
    plan = replace(plan, etp=np.asarray(1.0))
    more = replace(plan, **{axis: getattr(plan, axis) * 2})
    assert used(model, more).total_bytes <= used(model, plan).total_bytes * (1 + 1e-9)


@given(models, plans())
def test_each_stage_of_zero_rests_on_no_more_than_the_one_before(
    model: Shape, plan: Choice
) -> None:
    def rests(zero: int) -> float:
        staged = replace(plan, zero=np.asarray(float(zero)), micro_batch=np.asarray(1e-9))
        use = used(model, replace(staged, regather=np.asarray(1.0)))
        return sum(float(getattr(use, name)) for name in PARTS[:4])

    sizes = [rests(zero) for zero in range(4)]
    assert sizes == sorted(sizes, reverse=True)


@given(models, plans())
def test_running_more_again_keeps_no_more(model: Shape, plan: Choice) -> None:
    model, plan = replace(model, vocab=np.ones(())), replace(plan, optimizer_offload=np.ones(()))
    sizes = []
    for steps in range(4):  # the core, then products too, then all
        again = {name: np.asarray(float(i < steps)) for i, name in enumerate(FULL)}
        sizes.append(float(used(model, replace(plan, **again)).kept_bytes))
    assert sizes == sorted(sizes, reverse=True)


# activations, by (Korthikanti et al., 2022)


def test_a_layer_of_gpt_keeps_sbh_times_34_plus_5as_over_h() -> None:
    assert 5 * 32 * 2048 / 4096 == 80
    assert kept(choice()) == 24 * SBH * (34 + 80)


def test_tensor_parallelism_splits_all_but_ten_sbh() -> None:
    assert kept(choice(tp=8)) == 24 * SBH * (10 + 24 / 8 + 80 / 8)


def test_sequence_parallelism_splits_those_too() -> None:
    assert kept(choice(tp=8, sequence=1)) == 24 * SBH * (34 + 80) / 8


def test_recomputing_the_core_of_attention_leaves_34_sbh() -> None:
    assert kept(choice(tp=8, sequence=1, again_core=1)) == 24 * SBH * 34 / 8


def test_full_recomputation_leaves_the_input_of_each_layer() -> None:
    assert kept(choice(tp=8, **FULL)) == 24 * SBH * 2
    assert kept(choice(tp=8, sequence=1, **FULL)) == 24 * SBH * 2 / 8


def test_a_layer_that_runs_again_is_at_work_as_a_whole_even_if_others_do_not() -> None:
    plans = (choice(optimizer_offload=1, **dict.fromkeys(FULL, share)) for share in (0, 0.25, 1))
    none, some, every = (used(shape(vocab=1), plan, **GPT_2021) for plan in plans)
    assert some.work_bytes == every.work_bytes
    assert float(every.work_bytes - none.work_bytes) == SBH * (34 + 80 - 2)


def test_the_first_stage_keeps_as_much_as_without_a_pipeline() -> None:
    assert kept(choice(pp=8)) == kept(choice())


def test_interleaving_keeps_1_plus_p_minus_1_over_pm_times_as_much() -> None:
    interleaved = choice(pp=8, interleave=3, schedule=SCHEDULES.index("interleaved"))
    assert kept(interleaved) == pytest.approx(kept(choice()) * (1 + 7 / (8 * 3)))


@pytest.mark.parametrize(
    ("schedule", "stages"),
    [("gpipe", 64 / 8), ("zb-1p", 1), ("zb-2p", 15 / 8), ("zb-v", 1), ("vocabulary", 9 / 8)],
)
def test_a_schedule_keeps_what_its_paper_says(schedule: str, stages: float) -> None:
    # Micro-batches in flight, of eighths of the model: 64, p, 2p - 1, p and p + 1.
    chunks = 2 if schedule == "zb-v" else 1
    plan = choice(pp=8, interleave=chunks, schedule=SCHEDULES.index(schedule))
    model = {"layers": 32, "full_layers": 32}
    assert kept(plan, **model) == pytest.approx(kept(choice(), **model) * stages)


# activations of newer layers, by hand


def test_a_fused_layer_of_llama_3_8b_keeps_139392_bytes_of_a_token() -> None:
    llama = shape(layers=32, kv_heads=8, ff=14336, ups=2)
    # Input, residual and two norms; queries; keys and values; result and sum; gate, up, product.
    token = 4 * 8192 + 8192 + 2 * 2048 + (8192 + 4 * 32) + 3 * 28672
    assert token == 139_392
    assert float(used(llama, choice()).kept_bytes) == 32 * 8192 * token


def test_unfused_kernels_keep_copies_of_queries_keys_gates_and_norms() -> None:
    llama = shape(layers=1, kv_heads=8, ff=14336, ups=2, vocab=1)
    extra = used(llama, choice(), kept_copies=1, kept_norm=4).kept_bytes
    extra = extra - used(llama, choice()).kept_bytes
    assert float(extra) == 8192 * (8192 + 2048 + 28672 + 2 * 4 * 8192)


def test_blocks_that_run_again_one_by_one_keep_two_inputs_of_a_layer() -> None:
    llama, plan = shape(layers=1, vocab=1), choice(**FULL)
    assert float(used(llama, plan, kept_inputs=2).kept_bytes) == 8192 * 2 * 8192
    whole = used(llama, choice(), kept_inputs=2).kept_bytes
    assert float(whole) == float(used(llama, choice()).kept_bytes)


def test_norms_that_stay_gathered_keep_their_results_whole_and_nothing_else() -> None:
    plan = choice(tp=4, sequence=1)
    more = used(shape(layers=1, vocab=1), plan, kept_gathered=1).kept_bytes
    more = more - used(shape(layers=1, vocab=1), plan).kept_bytes
    # Two norms of 4,096 values of 2 bytes, of which a quarter is kept otherwise.
    assert float(more) == 8192 * 2 * 2 * 4096 * 3 / 4


def test_products_in_8_bits_keep_their_inputs_in_8_bits() -> None:
    llama = shape(layers=1, kv_heads=8, ff=14336, ups=2, vocab=1)
    less = used(llama, choice()).kept_bytes
    less = less - used(llama, choice(precision=PRECISIONS.index("float8"))).kept_bytes
    # A byte less of two norms and of the product; a byte more for the output projection's input.
    assert float(less) == 8192 * (2 * 4096 + 14336 - 4096)


def test_a_layer_of_experts_keeps_each_token_for_each_expert_that_it_visits() -> None:
    plain = shape(layers=1, ups=2, ff=14336, vocab=1)
    mixtral = shape(layers=1, ups=2, expert_layers=1, experts=8, top_k=2, expert_ff=14336, vocab=1)
    more = used(mixtral, choice(ep=8, dp=8)).kept_bytes - used(plain, choice()).kept_bytes
    # Twice gate, up and product, and two copies of the token.
    assert float(more) == 8192 * (3 * 28672 + 2 * 8192)


def test_latent_attention_keeps_what_it_compresses_to_before_and_after_the_norm() -> None:
    wide = shape(layers=1, heads=16, head_dim=192, kv_heads=16, vocab=1)
    latent = replace(
        wide, q_rank=np.asarray(1536.0), kv_rank=np.asarray(512.0), rope_dim=np.asarray(64.0)
    )
    more = used(latent, choice()).kept_bytes - used(wide, choice()).kept_bytes
    assert float(more) == 8192 * 2 * 2 * (1536 + 512 + 64)


def test_few_heads_of_keys_are_copied_to_every_rank() -> None:
    few, many = (shape(layers=1, kv_heads=n, vocab=1) for n in (2, 8))
    assert used(few, choice(tp=8)).kept_bytes == used(many, choice(tp=8)).kept_bytes


def test_what_is_offloaded_leaves_two_layers_on_their_way() -> None:
    here, there = (
        used(shape(vocab=1), choice(offload=share, optimizer_offload=1)) for share in (0, 1)
    )
    assert float(there.kept_bytes) == 0
    assert float(there.transfer_bytes) == float(here.kept_bytes) / 24 * 2


# parameters, by (Rajbhandari et al., 2020)


@pytest.mark.parametrize(("zero", "gigabytes"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.88)])
def test_zero_shares_the_state_of_7_5_billion_parameters_over_64_ranks(
    zero: int, gigabytes: float
) -> None:
    # 24 layers of 4h² + 2hf and an embedding of 60,000 tokens: Ψ = 7.5 billion.
    model = shape(
        embed=5000, heads=50, kv_heads=50, head_dim=100, value_dim=100, ff=20000, vocab=60000
    )
    assert float(model.parameters) == 7.5e9
    use = used(model, choice(dp=64, shard=64, zero=zero, micro_batch=1e-9))
    state = sum(float(getattr(use, name)) for name in PARTS[:4])
    psi = 7.5
    by_hand = (16 * psi, 4 * psi + 12 * psi / 64, 2 * psi + 14 * psi / 64, 16 * psi / 64)[zero]
    assert state / 1e9 == pytest.approx(by_hand, rel=1e-9)
    assert state / 1e9 == pytest.approx(gigabytes, rel=0.01)


def test_a_parameter_that_is_its_own_master_has_16_bytes_in_float32() -> None:
    plan = choice(value_bytes=4, master_bytes=0, gradient_bytes=4, micro_batch=1e-9)
    use = used(shape(), plan)
    state = sum(float(getattr(use, name)) for name in PARTS[:4])
    assert state == pytest.approx(16 * float(shape().parameters))


def test_zero_3_gathers_two_layers_and_reduces_the_gradient_of_one() -> None:
    model = shape(vocab=1)
    layer = 4 * 4096**2 + 2 * 4096 * 16384
    use = used(model, choice(dp=8, shard=8, zero=3, gradient_bytes=4))
    assert MOMENTS[int(use.moment)] == "block"
    assert float(use.transfer_bytes) == layer * (2 * 2 + 2 + 4)


def test_without_gathering_again_all_parameters_stay_gathered() -> None:
    model = shape(vocab=1)
    again, once = (
        used(model, choice(dp=8, shard=8, zero=3, regather=regather)) for regather in (1, 0)
    )
    whole = 2 * float(model.parameters)
    assert float(once.transfer_bytes - again.transfer_bytes) == pytest.approx(whole)


def test_a_pipeline_that_gathers_once_adds_gradients_up_whole() -> None:
    plan = {"dp": 8, "shard": 8, "zero": 3, "pp": 2, "gradient_bytes": 4}
    again, once = (used(shape(), choice(regather=r, **plan)) for r in (1, 0))
    assert float(once.gradient_bytes) == pytest.approx(8 * float(again.gradient_bytes))


def test_experts_are_shared_by_the_ranks_that_have_the_same_ones() -> None:
    moe = shape(expert_layers=24, experts=64, top_k=1, expert_ff=4096, ff=0, shared_ff=0)
    use = used(moe, choice(dp=16, ep=8, shard=16, zero=1, micro_batch=1e-9))
    routed = 24 * 64 * 2 * 4096 * 4096
    plain = float(moe.parameters) - routed
    assert float(use.optimizer_bytes) == pytest.approx(8 * (plain / 16 + routed / 8 / 2))


def test_optimizer_state_in_the_hosts_memory_takes_none_here() -> None:
    use = used(shape(), choice(optimizer_offload=1))
    assert float(use.optimizer_bytes) == 0 and float(use.master_bytes) == 0


# moments


@pytest.mark.parametrize(("split", "ranks"), [(1, 4), (0, 1)])
def test_the_loss_holds_the_logits_of_a_ranks_share_of_the_vocabulary(
    split: int, ranks: int
) -> None:
    use = used(shape(vocab=512000), choice(tp=4, **FULL), logit_bytes=14, logits_split=split)
    assert MOMENTS[int(use.moment)] == "loss"
    # And the inputs of the last norm and of the output layer.
    assert float(use.loss_bytes) == 8192 * (14 * 512000 / ranks + 2 * 2 * 4096)
    assert float(use.work_bytes) == 0


def test_logits_that_their_gradient_overwrites_take_their_own_precision() -> None:
    plan = choice(optimizer_offload=1, **FULL)
    use = used(shape(vocab=512000), plan, logit_bytes=0)
    assert float(use.loss_bytes) == 8192 * (2 * 512000 + 2 * 2 * 4096)


def test_gpipe_holds_the_logits_of_all_micro_batches() -> None:
    gpipe = choice(schedule=SCHEDULES.index("gpipe"), micro_batches=16, **FULL)
    one = used(shape(vocab=512000), choice(micro_batches=16, **FULL)).loss_bytes
    assert float(used(shape(vocab=512000), gpipe).loss_bytes) == 16 * float(one)


def test_vocabulary_parallelism_splits_logits_over_the_pipeline() -> None:
    plan = choice(pp=4, schedule=SCHEDULES.index("vocabulary"), **FULL)
    use = used(shape(vocab=2048000), plan, logit_bytes=14)
    assert float(use.loss_bytes) == 8192 * (14 * 2048000 / 4 + 2 * 2 * 4096)


def test_the_rank_of_the_loss_is_fullest_where_the_vocabulary_is_large() -> None:
    small, large = (used(shape(vocab=v, tied=0), choice(pp=4)) for v in (1000, 512000))
    assert MOMENTS[int(small.moment)] == "block"
    assert MOMENTS[int(large.moment)] == "loss"
    # One micro-batch in flight there, and four on the first rank.
    assert float(large.kept_bytes) == float(small.kept_bytes) / 4


def test_few_tokens_leave_the_update_the_fullest_moment() -> None:
    use = used(shape(), choice(micro_batch=0.001), update_bytes=8)
    assert MOMENTS[int(use.moment)] == "update"
    # Gradients of two bytes are widened to the four of master weights.
    assert float(use.update_bytes) == pytest.approx((8 + 4) * float(shape().parameters))


def test_layers_that_do_not_divide_make_the_second_rank_fuller() -> None:
    even = used(shape(layers=32, vocab=1), choice(pp=8))
    uneven = used(shape(layers=30, vocab=1), choice(pp=8))
    # Ends have three layers, all others four; the second has seven micro-batches in flight.
    assert float(uneven.kept_bytes) == float(even.kept_bytes) / 8 * 7


def test_gradients_of_a_single_micro_batch_take_the_room_of_what_it_kept() -> None:
    one, two = (
        used(shape(vocab=1), choice(dp=2, shard=2, zero=3, micro_batches=m)) for m in (1, 2)
    )
    assert float(one.gradient_bytes) == 0 and float(two.gradient_bytes) > 0


def test_an_allocator_loses_a_share_of_what_comes_and_goes() -> None:
    use = used(shape(vocab=1), choice())
    passing = float(use.kept_bytes + use.work_bytes + use.transfer_bytes)
    assert float(use.fragment_bytes) == pytest.approx(FRAGMENTS * passing)
    assert float(use.reserve_bytes) == RESERVE_BYTES


def test_a_device_that_is_its_own_host_has_a_process_and_no_context() -> None:
    host = replace(MACHINE, host=np.ones(()))
    use = memory(Pricing(shape(), choice(), host, stack("stretto-cpu")))
    assert float(use.reserve_bytes) == PROCESS_BYTES < RESERVE_BYTES
