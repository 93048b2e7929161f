"""The usual words for a mesh: what they lay out, and what cannot be."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.errors import PlanError
from stretto.mesh import Mesh
from stretto.model import Model
from stretto.plan import AXES, Batch, Plan
from stretto.rules import Rules

DENSE = Model(
    "dense", layers=4, embed=16, heads=8, kv_heads=8, head_dim=4, ff=32, vocab=64, positions=64
)
SPARSE = replace(DENSE, experts=64, top_k=2, expert_ff=32)


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def words(draw: st.DrawFn) -> dict[str, Any]:
    """Words that fit together: powers of two."""

    def power(most: int) -> int:
        return draw(st.sampled_from([2**i for i in range(most.bit_length()) if 2**i <= most]))

    pp, dp, cp, tp = power(4), power(8), power(4), power(4)
    etp = power(tp)
    return {
        "pp": pp, "dp": dp, "cp": cp, "tp": tp, "etp": etp, "ep": power(dp * cp * tp // etp),
        "zero": draw(st.integers(0, 3)), "shard": power(dp * cp),
        "sequence": draw(st.booleans()), "order": tuple(draw(st.permutations(AXES))),
    }  # fmt: skip


@given(words())
def test_what_the_short_form_lays_out_is_legal(given: dict[str, Any]) -> None:
    seq = 2 * given["cp"] * given["tp"]
    plan = Plan.of(**given, batch=Batch(given["dp"], 1, seq))
    assert plan.check(SPARSE) == () and plan.check(DENSE) == ()
    assert plan.mesh.size == given["pp"] * given["dp"] * given["cp"] * given["tp"]


@given(words())
def test_a_plan_tells_the_words_that_made_it(given: dict[str, Any]) -> None:
    plan = Plan.of(**given)
    assert Plan.of(**asdict(plan.words), order=given["order"]) == plan
    told = {name: getattr(plan.words, name) for name in ("pp", "dp", "cp", "tp", "ep", "etp")}
    assert told == {name: given[name] for name in told}


@given(words())
def test_experts_take_the_innermost_ranks_each_expert_the_inner_of_them(
    given: dict[str, Any],
) -> None:
    plan = Plan.of(**given | {"order": AXES})
    etp, ep = given["etp"], given["ep"]
    axes = {dim: plan.rules.axes(dim) for dim in ("expert", "expert_ff")}
    assert plan.mesh.group(0, axes["expert_ff"]) == tuple(range(etp))
    assert plan.mesh.group(0, axes["expert"]) == tuple(range(0, ep * etp, etp))


@given(words())
def test_shards_take_the_innermost_ranks_of_data_and_context(given: dict[str, Any]) -> None:
    plan = Plan.of(**given | {"order": AXES, "zero": 1})
    axes = dict(plan.rules.optimizer).get("embed", ())
    spread = given["tp"] * given["shard"]
    assert plan.mesh.group(0, axes) == tuple(range(0, spread, given["tp"]))


# ── examples ─────────────────────────────────────────────────────────────────────────────────────


def test_the_short_form_writes_the_usual_rules() -> None:
    plan = Plan.of(pp=2, dp=4, tp=2, zero=2)
    assert plan.mesh == Mesh((("pp", 2), ("dp", 4), ("tp", 2)))
    assert plan.rules.compute == (
        ("batch", ("dp",)), ("heads", ("tp",)), ("ff", ("tp",)), ("vocab", ("tp",)),
        ("seq", ("tp",)),
    )  # fmt: skip
    assert plan.rules.parameter == ()
    assert dict(plan.rules.gradient)["embed"] == ("dp",)
    assert plan.rules.gradient == plan.rules.optimizer
    assert (plan.stages, plan.replicas) == (2, 4)


def test_without_sequence_sharding_activations_are_replicated_over_tp() -> None:
    assert "seq" not in dict(Plan.of(tp=2, sequence=False).rules.compute)
    assert dict(Plan.of(cp=2, tp=2, sequence=False).rules.compute)["seq"] == ("cp",)


def test_context_parallel_ranks_split_positions_and_share_shards() -> None:
    plan = Plan.of(dp=2, cp=4, tp=2, zero=3)
    assert plan.mesh == Mesh((("pp", 1), ("dp", 2), ("cp", 4), ("tp", 2)))
    compute = dict(plan.rules.compute)
    assert (compute["time"], compute["seq"]) == (("cp",), ("cp", "tp"))
    assert dict(plan.rules.parameter)["embed"] == ("dp", "cp")
    assert plan.replicas == 2


def test_experts_fold_over_the_axes_of_attention() -> None:
    """Expert groups as in (Liu et al., 2025): 16 ranks, tp 2, cp 2, dp 4, ep 8, etp 1."""
    plan = Plan.of(dp=4, cp=2, tp=2, ep=8, etp=1)
    assert plan.mesh == Mesh(
        (("pp", 1), ("dp0", 2), ("dp1", 2), ("cp", 2), ("tp", 2)),
        (("dp", ("dp0", "dp1")), ("ep", ("dp1", "cp", "tp"))),
    )
    assert plan.mesh.group(0, ["ep"]) == (0, 1, 2, 3, 4, 5, 6, 7)
    assert plan.rules.axes("expert_ff") == ()


def test_hybrid_shards_are_an_inner_part_of_dp() -> None:
    plan = Plan.of(dp=6, zero=1, shard=2)
    assert plan.mesh == Mesh(
        (("pp", 1), ("replica", 3), ("shard", 2), ("tp", 1)), (("dp", ("replica", "shard")),)
    )


def test_axes_may_be_laid_out_in_another_order() -> None:
    mesh = Plan.of(pp=2, dp=4, tp=2, order=("dp", "cp", "pp", "tp")).mesh
    assert mesh.axes == (("dp", 4), ("pp", 2), ("tp", 2))


def test_rules_that_no_short_form_writes_are_told_as_far_as_words_go() -> None:
    mesh = Mesh((("a", 2), ("b", 3), ("c", 5)))
    rules = Rules(
        (("batch", ("a",)), ("ff", ("b",))), (), (("embed", ("c",)),), (("embed", ("c", "a")),)
    )
    told = Plan(mesh, rules).words
    assert (told.pp, told.dp, told.tp, told.zero, told.shard) == (1, 2, 3, 2, 10)
    assert not told.sequence


# ── what cannot be ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (
            {"pp": 0, "tp": -1, "dp": 6, "zero": 4, "shard": 4},
            ["pp: is 0, below 1; use 1 or more", "tp: is -1, below 1; use 1 or more",
             "zero: is 4; choose 0, 1, 2 or 3",
             "shard: must divide dp, but 6 % 4 is not 0; choose a divisor"],
        ),
        ({"dp": 4, "shard": -2}, ["shard: is -2, below 1; use 1 or more"]),
        (
            {"dp": 2, "cp": 2, "zero": 1, "shard": 3},
            ["shard: must divide dp × cp, but 2 × 2 % 3 is not 0; choose a divisor"],
        ),
        ({"tp": 4, "etp": 3}, ["etp: must divide tp, but 4 % 3 is not 0; choose a divisor"]),
        (
            {"dp": 2, "tp": 4, "ep": 4},
            ["ep: ep × etp must divide dp × cp × tp, but 2 × 1 × 4 % (4 × 4) is not 0; choose a "
             "divisor"],
        ),
        (
            {"dp": 3, "cp": 4, "ep": 6},
            ["ep: its groups span the innermost 6 ranks and those of cp 4, and neither divides the "
             "other; choose ep or cp so that one does"],
        ),
        (
            {"dp": 12, "ep": 4, "zero": 1, "shard": 6},
            ["shard: its groups span the innermost 6 ranks and those of ep 4, and neither divides "
             "the other; choose shard or ep so that one does"],
        ),
        ({"order": ("dp", "tp")},
         ["order: is ['dp', 'tp']; arrange pp, dp, cp, tp"]),
    ],
)  # fmt: skip
def test_words_that_cannot_be_are_all_named(given: dict[str, Any], found: list[str]) -> None:
    with pytest.raises(PlanError) as error:
        Plan.of(**given)
    assert [str(p) for p in error.value.problems] == found
