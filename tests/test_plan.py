"""The plan: a value that reads and prints as TOML, is refused or runs, and says what follows."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.errors import PlanError
from stretto.mesh import Mesh
from stretto.model import BlockKind, Model
from stretto.plan import (
    RUN_SCHEDULES,
    Batch,
    Codec,
    Communication,
    DType,
    Group,
    Hierarchy,
    Matrix,
    Memory,
    Numerics,
    Pipeline,
    Plan,
    Recompute,
    ScheduleName,
    read,
    resting_bytes,
)
from stretto.program.draw import draw
from stretto.program.lower import lower
from stretto.rules import COMPUTE_DIMS, STORAGE_DIMS, Rules

MODEL = Model(
    "small", layers=2, embed=16, heads=4, kv_heads=2, head_dim=4, ff=32, vocab=50, positions=64
)


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────

AXES = ("pp", "dp", "cp", "tp", "x-1")
DIMS = ("batch", "seq", "heads", "ff", "vocab")  # those that the runtime splits


@st.composite
def tables(draw: st.DrawFn, dims: tuple[str, ...], names: tuple[str, ...]) -> Any:
    lines = draw(st.lists(st.sampled_from(dims), unique=True))
    axes = st.lists(st.sampled_from(names), max_size=2).map(tuple)
    return tuple((dim, draw(axes)) for dim in lines)


@st.composite
def rules(draw: st.DrawFn, mesh: Mesh, dims: tuple[str, ...] = COMPUTE_DIMS) -> Rules:
    return Rules(
        draw(tables(dims, mesh.names)),
        *(draw(tables(STORAGE_DIMS, mesh.names)) for _ in range(3)),
    )


@st.composite
def meshes(draw: st.DrawFn) -> Mesh:
    names = draw(st.permutations(draw(st.lists(st.sampled_from(AXES), min_size=1, unique=True))))
    view = tuple(draw(st.lists(st.sampled_from(names), min_size=1, unique=True)))
    return Mesh(
        tuple((name, draw(st.integers(1, 3))) for name in names),
        ((draw(st.sampled_from(("ep", "v"))), view),) if draw(st.booleans()) else (),
    )


@st.composite
def plain_plans(draw: st.DrawFn) -> Plan:
    """Plans of what the runtime runs, legal or not."""
    mesh = draw(meshes())
    return Plan(
        mesh,
        draw(rules(mesh, DIMS)),
        Pipeline(
            draw(st.sampled_from(RUN_SCHEDULES)),
            tuple(draw(st.lists(st.integers(0, 6), max_size=3))),
        ),
        Memory(draw(st.sampled_from(get_args(Recompute)))),
        Communication(draw(st.integers(1, 2**40))),
        Numerics(draw(st.sampled_from(get_args(DType))), compile=draw(st.booleans())),
        Batch(*(draw(st.integers(1, 24)) for _ in range(3))),
    )


@st.composite
def groups(draw: st.DrawFn, mesh: Mesh) -> Group:
    return Group(
        (draw(st.integers(-1, 4)), draw(st.integers(-1, 4))),
        draw(st.sampled_from((None, *get_args(Recompute)))),
        draw(st.none() | rules(mesh)),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan that can be written, legal or not."""
    plain, share = draw(plain_plans()), st.floats(0, 1)
    return Plan(
        plain.mesh,
        draw(rules(plain.mesh)),
        replace(
            plain.pipeline,
            schedule=draw(st.sampled_from(get_args(ScheduleName))),
            interleave=draw(st.integers(1, 3)),
        ),
        replace(
            plain.memory,
            recompute_layers=draw(st.none() | st.integers(1, 4)),
            offload=draw(share),
            optimizer_offload=draw(share),
            regather=draw(st.booleans()),
        ),
        replace(
            plain.communication,
            codec=draw(st.sampled_from(get_args(Codec))),
            hierarchy=draw(st.sampled_from(get_args(Hierarchy))),
            tensor_overlap=draw(st.booleans()),
        ),
        replace(plain.numerics, matrix=draw(st.sampled_from(get_args(Matrix)))),
        plain.batch,
        tuple(draw(st.lists(groups(plain.mesh), max_size=2))),
    )


@given(plans())
def test_a_plan_reads_back_as_it_was_written(plan: Plan) -> None:
    assert Plan.from_toml(plan.to_toml()) == plan


@given(plain_plans() | plans())
def test_a_plan_is_refused_with_all_that_stands_in_its_way_or_can_be_lowered(plan: Plan) -> None:
    found = plan.obstacles(MODEL)
    assert found == (*plan.check(MODEL), *plan.unsupported(MODEL))
    if found:
        with pytest.raises(PlanError) as error:
            lower(MODEL, plan)
        assert error.value.problems == found
    else:
        lower(MODEL, plan)


@given(st.integers(0, 2**32), st.data())
def test_a_misspelt_key_is_found_wherever_it_stands(seed: int, data: st.DataObject) -> None:
    model, plan = draw(seed)
    tree = tomllib.loads(replace(plan, groups=(Group((0, 1), "full", plan.rules),)).to_toml())
    (group,) = tree["groups"]
    sections = {name: tree[name] for name in tree if name not in ("mesh", "groups")}
    sections |= {f"rules.{name}": table for name, table in tree["rules"].items()} | {"": tree}
    sections |= {"groups.0": group, "groups.0.rules": group["rules"]}
    section = data.draw(st.sampled_from(sorted(sections)))
    key = data.draw(st.sampled_from(sorted(sections[section])))
    sections[section]["z" + key] = sections[section].pop(key)
    try:
        found = read(tree).check(model)
    except PlanError as error:
        found = error.problems
    assert f"{section}.z{key}".removeprefix(".") in {p.field for p in found}


@given(plans())
def test_a_plan_is_the_same_for_a_layer_whether_its_group_is_read_or_written_out(
    plan: Plan,
) -> None:
    for layer in range(-1, 4):
        here = plan.at(layer)
        own = [g for g in plan.groups if g.layers[0] <= layer < g.layers[1]]
        assert here.groups == ()
        assert here.rules == next((g.rules for g in reversed(own) if g.rules), plan.rules)
        assert here.mesh == plan.mesh and here.batch == plan.batch
        if not own:
            assert here == replace(plan, groups=())


# ── the value ────────────────────────────────────────────────────────────────────────────────────


def test_micro_batches_are_what_each_replica_runs_in_a_step() -> None:
    plan = Plan.of(dp=2, batch=Batch(sequences=24, micro_batch=3, seq=8))
    assert plan.micro_batches == 4


def test_stages_are_those_of_a_rank_on_every_pipeline_rank() -> None:
    def stages(schedule: ScheduleName, interleave: int) -> int:
        return Plan.of(pp=4, pipeline=Pipeline(schedule, interleave=interleave)).stages

    assert stages("1f1b", 1) == 4
    assert stages("interleaved", 3) == 12
    assert stages("zb-v", 1) == stages("zb-v", 2) == 8


def test_recomputation_names_the_blocks_that_run_again() -> None:
    assert Memory("none").kinds == set()
    assert Memory("selective").kinds == {BlockKind.ATTENTION}
    assert Memory("full").kinds == set(BlockKind) - {BlockKind.EMBEDDING}


def test_master_weights_are_in_float32_or_better() -> None:
    assert [Numerics(d).master for d in get_args(DType)] == ["float64", "float32", "float32"]


def test_ranks_that_split_a_dimension_are_counted_over_its_axes_and_views() -> None:
    mesh = Mesh((("a", 2), ("b", 3), ("c", 5)), (("v", ("a", "b")),))
    plan = Plan(mesh, Rules((("batch", ("v",)), ("ff", ("c",)), ("heads", ("c",)))))
    assert (plan.split("batch"), plan.split("heads"), plan.split("time")) == (6, 5, 1)
    assert plan.extent("v", "c") == 30 and plan.extent("tp") == 1


def test_units_of_experts_are_split_like_all_units_unless_a_rule_says_otherwise() -> None:
    plan = Plan.of(dp=2, tp=4, ep=2)
    assert plan.split("expert_ff") == plan.split("shared_ff") == 4
    plan = Plan.of(dp=2, tp=4, ep=2, etp=1)
    assert (plan.split("expert_ff"), plan.split("shared_ff")) == (1, 4)


def test_a_group_changes_what_runs_again_in_its_layers_and_all_of_it() -> None:
    few = Memory("full", recompute_layers=2)
    plan = Plan(memory=few, groups=(Group((1, 3), "selective"), Group((3, 4), "full")))
    assert [plan.at(i).memory for i in (-1, 0, 1, 2, 3, 4)] == [
        few, few, Memory("selective"), Memory("selective"), Memory("full"), few,
    ]  # fmt: skip


def test_plans_are_values() -> None:
    assert len({Plan.of(dp=2), Plan.of(dp=2), Plan.of(dp=4)}) == 2


# ── what rests ───────────────────────────────────────────────────────────────────────────────────


def test_sharding_everything_halves_what_rests_on_each_of_two_ranks() -> None:
    whole, half = (resting_bytes(Plan.of(dp=2, zero=zero), MODEL) for zero in (0, 3))
    assert half == pytest.approx(whole / 2)


def test_bfloat16_adds_a_master_weight() -> None:
    plan = Plan.of(dp=2, numerics=Numerics("bfloat16"))
    assert resting_bytes(plan, MODEL) == (2 + 4 + 12) * MODEL.parameter_count


def test_an_offloaded_optimizer_leaves_weights_and_gradients() -> None:
    for share, each in ((1.0, 2 + 4), (0.5, 2 + 4 + 6)):
        memory = Memory(optimizer_offload=share)
        plan = Plan(memory=memory, numerics=Numerics("bfloat16"))
        assert resting_bytes(plan, MODEL) == each * MODEL.parameter_count


def test_stages_of_one_rank_rest_together() -> None:
    one, two = (
        Plan.of(pp=2, pipeline=Pipeline("interleaved", interleave=n)) for n in (1, 2)
    )  # fmt: skip
    assert resting_bytes(one, MODEL) == resting_bytes(two, MODEL)


def test_layers_of_a_group_rest_by_its_rules() -> None:
    whole, sharded = Plan.of(dp=2), Plan.of(dp=2, zero=3)
    sizes = {
        name: resting_bytes(replace(whole, groups=group), MODEL)
        for name, group in (
            ("none", ()),
            ("first", (Group((0, 1), rules=sharded.rules),)),
            ("both", (Group((0, 2), rules=sharded.rules),)),
        )
    }
    assert sizes["none"] - sizes["first"] == sizes["first"] - sizes["both"]
    layer = MODEL.parameter_count - replace(MODEL, layers=1).parameter_count
    assert sizes["none"] - sizes["first"] == 16 * layer / 2  # float32, as above; two ranks


def test_words_are_a_value_of_plain_numbers() -> None:
    words = Plan.of(pp=2, dp=4, cp=2, tp=2, ep=4, zero=1, shard=4).words
    assert asdict(words) == {
        "pp": 2, "dp": 4, "cp": 2, "tp": 2, "ep": 4, "etp": 2, "zero": 1, "shard": 4,
        "sequence": True,
    }  # fmt: skip
