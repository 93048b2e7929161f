"""Which plan is meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stretto.cli.plans import Wish, cluster_of, devices, in_words, plan_of, read_plan
from stretto.errors import PlanError
from stretto.plan import Batch, Communication, Group, Memory, Numerics, Pipeline, Plan
from stretto.presets import PRESETS

GPT2, TINY = PRESETS["gpt2"], PRESETS["tiny"]


def mesh(plan: Plan) -> dict[str, int]:
    return {name: extent for name, extent in plan.mesh.axes if extent > 1}


def test_without_a_wish_the_plan_can_run_on_this_machine_whatever_the_model() -> None:
    for model in PRESETS.values():
        plan = plan_of(Wish(), model)
        assert plan.check(model) == ()
        assert plan.mesh.size <= devices()


def test_for_any_number_of_ranks_the_mesh_has_as_many() -> None:
    for ranks in range(1, 17):
        assert plan_of(Wish(ranks=ranks), GPT2).mesh.size == ranks


def test_data_parallel_ranks_are_what_the_other_axes_leave() -> None:
    plan = plan_of(Wish(mesh={"tp": 2, "pp": 2}, ranks=8), GPT2)
    assert mesh(plan) == {"pp": 2, "dp": 2, "tp": 2}


def test_ranks_that_the_other_axes_do_not_divide_are_told() -> None:
    with pytest.raises(PlanError, match=r"6 % 4 = 2; use 4"):
        plan_of(Wish(mesh={"tp": 2, "pp": 2}, ranks=6), GPT2)


def test_micro_batches_divide_a_replicas_share_and_fill_the_pipeline() -> None:
    for ranks in (1, 2, 4, 8, 16):
        for pp in (1, 2, 4):
            if ranks % pp == 0:
                plan = plan_of(Wish(mesh={"pp": pp}, ranks=ranks), GPT2)
                assert plan.check(GPT2) == ()
                assert plan.micro_batches >= min(pp, 16 // plan.replicas)


def test_a_sequence_is_no_longer_than_the_model_is_made_for() -> None:
    assert plan_of(Wish(), TINY).batch.seq == 128
    assert plan_of(Wish(), GPT2).batch.seq == 256


def test_a_change_counts_more_than_what_is_sensible() -> None:
    plan = plan_of(Wish(changes=(("batch.micro_batch", 1), ("batch.seq", 8))), GPT2)
    assert (plan.batch.micro_batch, plan.batch.seq) == (1, 8)


def test_a_stated_plan_is_taken_as_it_is_but_for_changes() -> None:
    stated = Plan.of(dp=4, batch=Batch(16, 2, 64))
    wish = Wish(stated, binding=True, changes=(("memory.recompute", "full"),))
    assert plan_of(wish, GPT2) == replace(stated, memory=Memory("full"))


def test_words_for_a_mesh_contradict_a_stated_plan() -> None:
    with pytest.raises(PlanError, match=r"write mesh\.dp="):
        plan_of(Wish(Plan.of(dp=4), binding=True, mesh={"dp": 2}), GPT2)


def test_the_plan_of_a_run_is_kept_where_it_suits_and_laid_anew_where_it_does_not() -> None:
    before = Plan.of(tp=2, batch=Batch(16, 4, 64), memory=Memory("full"))
    assert plan_of(Wish(before), GPT2) == before
    assert plan_of(Wish(before, ranks=2), GPT2) == before
    after = plan_of(Wish(before, ranks=4), GPT2)
    assert mesh(after) == {"dp": 4}
    assert (after.batch, after.memory) == (before.batch, before.memory)
    assert mesh(plan_of(Wish(before, mesh={"pp": 2, "dp": 1}), GPT2)) == {"pp": 2}


def test_what_is_wrong_with_a_file_is_told_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("[mesh]\ndp = 'two'\n[bathc]\n")
    with pytest.raises(PlanError) as caught:
        read_plan(file)
    assert [p.field for p in caught.value.problems] == ["bad.toml: bathc", "bad.toml: mesh.dp"]
    with pytest.raises(PlanError, match="cannot be read"):
        read_plan(tmp_path / "none.toml")


def test_the_memory_of_a_machine_is_shared_by_the_ranks_on_it() -> None:
    alone, four = cluster_of(1, here=1), cluster_of(16, here=4)
    assert four.devices == 16
    assert four.device.memory_bytes == pytest.approx(alone.device.memory_bytes / 4)


def test_a_plan_in_words_names_axes_shards_and_batch() -> None:
    plan = Plan.of(pp=2, dp=2, zero=2, batch=Batch(16, 4, 64), memory=Memory("selective"))
    assert in_words(plan) == (
        "pp 2 × dp 2; gradients, optimizer state sharded; 1f1b; selective recompute; float32; "
        "16 sequences × 64 tokens a step, 2 × 4 a replica"
    )
    assert in_words(Plan()).startswith("one rank; float32; ")


def test_a_plan_in_words_names_what_is_planned_only() -> None:
    plan = Plan.of(
        pp=2,
        dp=2,
        ep=2,
        pipeline=Pipeline("zb-v"),
        memory=Memory("full", 3, offload=0.5, optimizer_offload=1.0),
        communication=Communication(codec="int8", hierarchy="two-level"),
        numerics=Numerics("bfloat16", matrix="float8"),
        groups=(Group((0, 2), "none"),),
        batch=Batch(16, 4, 64),
    )
    assert in_words(plan) == (
        "pp 2 × dp 2; experts over 2; zb-v, 2 stages a rank; full recompute of 3 layers a stage; "
        "50% of activations offloaded; 100% of optimizer offloaded; int8 gradients; two-level "
        "reduction; float8 products; 2 layers apart; bfloat16; 16 sequences × 64 tokens "
        "a step, 2 × 4 a replica"
    )
