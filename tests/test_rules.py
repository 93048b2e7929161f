"""Where every tensor of a model lies under rules: split, padded, replicated, at rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.layout import Layout
from stretto.mesh import Mesh
from stretto.model import Model, Parameter
from stretto.plan import Plan
from stretto.program.draw import draw
from stretto.rules import Placement, Rules, Store, Table

MODEL = Model(
    "small", layers=1, embed=12, heads=4, kv_heads=2, head_dim=4, ff=12, vocab=10, positions=8
)
PARAMETERS = {p.name: p for p in MODEL.parameters}
UP, NORM = PARAMETERS["layers.0.feed_forward.up"], PARAMETERS["head.norm.weight"]
QUERY = PARAMETERS["layers.0.attention.query"]
KEY_VALUE = PARAMETERS["layers.0.attention.key_value"]
OUT = PARAMETERS["layers.0.attention.out"]
SMOL = replace(MODEL, heads=9, kv_heads=3)  # the heads of SmolLM2-135M


def placed(plan: Plan, model: Model = MODEL) -> Placement:
    return Placement(model, plan.mesh, plan.rules)


def rests(plan: Plan, parameter: Parameter, model: Model = MODEL) -> list[str]:
    """Layouts at rest of the parameter, its gradient and its optimizer state."""
    return [str(placed(plan, model).resting(parameter, store)) for store in Store]


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────

SEEDS = st.integers(0, 2**32)


@given(SEEDS)
def test_blocks_of_a_resting_tensor_tile_it(seed: int) -> None:
    model, plan = draw(seed)
    placement = placed(plan, model)
    for parameter in model.parameters:
        for store in Store:
            layout = placement.resting(parameter, store)
            shape = placement.rest_shape(parameter, layout)
            boxes = {layout.box(shape, mesh=placement.mesh, rank=r) for r in range(plan.mesh.size)}
            assert len(boxes) == placement.mesh.extent(*layout.axes)
            for size, dim in zip(shape, layout.dims, strict=True):
                assert size % placement.mesh.extent(*dim) == 0


@given(SEEDS)
def test_storage_appends_inner_axes_to_those_of_use(seed: int) -> None:
    model, plan = draw(seed)
    placement = placed(plan, model)
    for parameter in model.parameters:
        use = placement.layout(parameter.dims).dims
        for store in Store:
            rest = placement.resting(parameter, store).dims
            assert all(r[: len(u)] == u for r, u in zip(rest, use, strict=True))


@given(SEEDS)
def test_padding_never_cuts_a_tensor_and_pads_only_what_is_split(seed: int) -> None:
    model, plan = draw(seed)
    placement = placed(plan, model)
    for parameter in model.parameters:
        true, used = model.shape(parameter), placement.shape(parameter)
        use = placement.layout(parameter.dims)
        for size, padded, axes in zip(true, used, use.dims, strict=True):
            assert padded >= size
            assert axes or padded == size
        for store in Store:
            layout = placement.resting(parameter, store)
            rest = placement.rest_shape(parameter, layout)
            for size, padded, axes in zip(used, rest, layout.dims, strict=True):
                assert padded >= size
                assert axes or padded == size


@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 12))
def test_heads_are_padded_as_little_as_any_cut_of_the_axis_allows(
    kv_heads: int, group: int, ranks: int
) -> None:
    model = replace(MODEL, heads=kv_heads * group, kv_heads=kv_heads)
    sizes = placed(Plan.of(tp=ranks), model).sizes
    least = min(
        -(-kv_heads // outer) * outer * -(-group * outer // ranks) * (ranks // outer)
        for outer in range(1, ranks + 1)
        if ranks % outer == 0
    )
    assert sizes["kv_heads"] * sizes["group"] == least


# ── heads ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ranks", "key_ranks", "kv_heads", "group"),
    [
        (1, 1, 3, 3),
        (2, 2, 4, 3),  # 12 heads either way; splitting key heads saves keys
        (3, 3, 3, 3),
        (4, 4, 4, 3),
        (6, 3, 3, 4),  # two ranks share a key head
        (9, 3, 3, 3),  # three do, and nothing is padded
    ],
)
def test_nine_heads_on_three_key_heads_come_out_over(
    ranks: int, key_ranks: int, kv_heads: int, group: int
) -> None:
    placement = placed(Plan.of(tp=ranks), SMOL)
    assert (placement.sizes["kv_heads"], placement.sizes["group"]) == (kv_heads, group)
    assert placement.mesh.extent(*placement.axes["kv_heads"]) == key_ranks
    assert placement.mesh.extent(*placement.axes["group"]) == ranks // key_ranks
    assert placement.mesh.size == ranks


def test_ranks_that_share_a_key_head_hold_all_of_it() -> None:
    placement = placed(Plan.of(tp=6), SMOL)
    assert str(placement.layout(QUERY.dims)) == "[tp.kv, tp.group, -, -]"
    assert str(placement.layout(OUT.dims)) == "[-, tp.kv, tp.group, -]"
    assert str(placement.layout(KEY_VALUE.dims)) == "[-, tp.kv, -, -]"
    assert str(placement.layout(UP.dims)) == "[-, tp.kv·tp.group, -]"


def test_heads_over_two_axes_are_cut_between_them() -> None:
    mesh = Mesh((("outer", 2), ("inner", 2)))
    rules = Rules((("heads", ("outer", "inner")),))
    placement = Placement(MODEL, mesh, rules)  # 2 key heads of 2 query heads: nothing is padded
    assert placement.mesh == mesh
    assert str(placement.layout(QUERY.dims)) == "[outer, inner, -, -]"


def test_the_sizes_in_use_are_padded_where_they_are_split() -> None:
    sizes = placed(Plan.of(tp=4)).sizes
    assert (sizes["vocab"], sizes["ff"], sizes["embed"]) == (12, 12, 12)
    assert placed(Plan.of(tp=1)).sizes["vocab"] == 10


# ── storage ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("zero", "layouts"),
    [
        (0, ["[-, -, -]"] * 3),
        (1, ["[-, -, -]", "[-, -, -]", "[-, -, dp]"]),
        (2, ["[-, -, -]", "[-, -, dp]", "[-, -, dp]"]),
        (3, ["[-, -, dp]"] * 3),
    ],
)
def test_each_zero_stage_shards_one_store_more(zero: int, layouts: list[str]) -> None:
    assert rests(Plan.of(dp=2, zero=zero), UP) == layouts


def test_hybrid_sharding_leaves_the_outer_axis_replicated() -> None:
    plan = Plan.of(dp=4, zero=3, shard=2)
    assert plan.mesh.axes == (("pp", 1), ("replica", 2), ("shard", 2), ("tp", 1))
    assert rests(plan, UP) == ["[-, -, shard]"] * 3
    assert placed(plan).layout(("batch",)) == Layout((("replica", "shard"),))


def test_sharding_over_one_rank_shards_nothing() -> None:
    assert rests(Plan.of(dp=4, zero=3, shard=1), UP) == ["[-, -, -]"] * 3


def test_the_first_storage_rule_that_fits_takes_the_axis() -> None:
    def table(*dims: str) -> Table:
        return tuple((d, ("dp",)) for d in dims)

    plan = Plan.of(dp=2)
    for dims, layout in (
        (("embed", "ff"), "[-, -, dp]"),
        (("ff", "embed"), "[-, dp, -]"),
        (("position", "pair"), "[dp, -, -]"),
        (("position",), "[-, -, -]"),
    ):
        assert rests(replace(plan, rules=Rules(plan.rules.compute, table(*dims))), UP)[0] == layout


def test_a_dimension_in_use_is_split_further_at_rest_only_where_that_is_even() -> None:
    storage: Table = (("ff", ("dp",)),)
    for ranks, layout in ((2, "[-, tp·dp, -]"), (5, "[-, tp, -]")):
        plan = Plan.of(dp=ranks, tp=2, sequence=False)
        plan = replace(plan, rules=replace(plan.rules, optimizer=storage))
        assert rests(plan, UP)[2] == layout  # 12 units: over 4 ranks, but not over 10


def test_a_width_that_dp_does_not_divide_is_padded_at_rest_and_not_in_use() -> None:
    placement = placed(Plan.of(dp=5, zero=3))
    layout = placement.resting(NORM, Store.PARAMETER)
    assert placement.shape(NORM) == (12,)
    assert placement.rest_shape(NORM, layout) == (15,)
    assert placement.rest_shape(NORM, placement.layout(NORM.dims)) == (12,)


def test_all_stores_pad_alike_so_that_their_blocks_line_up() -> None:
    mesh = Mesh((("a", 2), ("b", 5)))
    rules = Rules((("batch", ("a", "b")),), (("embed", ("a",)),), (), (("embed", ("a", "b")),))
    placement = Placement(MODEL, mesh, rules)
    shapes = [
        placement.rest_shape(NORM, placement.resting(NORM, store))
        for store in (Store.PARAMETER, Store.GRADIENT, Store.OPTIMIZER)
    ]
    assert shapes == [(20,), (12,), (20,)]


def test_an_axis_that_splits_a_tensor_in_use_does_not_split_it_again() -> None:
    plan = Plan.of(tp=2)
    plan = replace(plan, rules=replace(plan.rules, optimizer=(("embed", ("tp",)),)))
    assert rests(plan, UP)[2] == "[-, tp, -]"
    assert rests(plan, NORM)[2] == "[tp]"


# ── parts ────────────────────────────────────────────────────────────────────────────────────────


def test_a_tensor_is_in_parts_over_what_splits_the_work_but_not_itself() -> None:
    placement = placed(Plan.of(dp=2, tp=2))
    dims = ("batch", "time", "embed", "ff")
    assert placement.over(dims, lacking=("batch", "time", "embed")) == ("tp",)
    assert placement.over(dims, lacking=("pair", "ff", "embed")) == ("dp",)
    assert placement.over(dims, lacking=("embed",)) == ("dp", "tp")
    assert placement.over(("batch", "seq", "embed"), lacking=("batch", "seq", "embed")) == ()
