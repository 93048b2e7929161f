"""Moves of gradients and parameters: what hides them in our own programs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.cost.cases import n, priced, tree

from stretto.cost import SCHEDULES, Pricing, stack
from stretto.cost.collectives import all_reduce_s, ring_s
from stretto.cost.data import exposed
from stretto.cost.layer import Passes, Work
from stretto.model import Model
from stretto.plan import Batch, Numerics, Plan
from stretto.presets import preset

NODES = tree((8, 400e9, 0.0), (64, 50e9, 0.0))
ZERO = n(0)
LLAMA = preset("llama-3-8b")


def passes(device_s: float, tensor_s: float) -> Passes:
    """Give passes whose backward has so much of products and of tensor-parallel moves."""
    none = Work(ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO)
    return Passes(none, none, replace(none, matrix_s=n(device_s), tensor_s=n(tensor_s)), none)


def ours(model: Model = LLAMA, *, contention: float = 0.0, **words: Any) -> Pricing:
    plan = Plan.of(**words, numerics=Numerics("bfloat16"), batch=Batch(words["dp"], 1, 2048))
    software = replace(
        stack("stretto"), data_overlap=n(0.5), gather_overlap=n(0), contention=n(contention)
    )
    return replace(priced(model, plan), machine=NODES, stack=software)


def whole_s(p: Pricing) -> tuple[float, float]:
    """Give the seconds of reducing all gradients, and those of the embedding's, which are last."""
    c, size = p.choice, 4 * p.plain_parameters
    ends = 4 * p.shape.vocabulary_parameters / c.tp
    took = (all_reduce_s(x, c.dp, stride=c.tp, machine=NODES) for x in (size, ends))
    whole, last = (float(x) for x in took)
    return whole, last


def test_gradients_hide_beside_products_and_beside_moves_on_other_links() -> None:
    """Nodes of 8: tensor-parallel moves stay within them, gradients go between them."""
    p = ours(tp=8, dp=8)
    whole, last = whole_s(p)
    found = exposed(p, passes(whole / 4, whole / 4)).total_s
    # Half of the products' time, and all of the moves': 3/8 of the gradients.
    assert float(found) == pytest.approx(whole * 5 / 8)
    # All that can hide does; what comes last cannot.
    assert float(exposed(p, passes(whole, whole)).total_s) == pytest.approx(last)


def test_gradients_and_moves_on_the_same_links_take_turns() -> None:
    """Within a node a move hides nothing; what goes beside it is not left to products."""
    p = ours(tp=2, dp=4)
    whole, _ = whole_s(p)
    found = exposed(p, passes(whole / 2, whole / 4)).total_s
    # Products hide a quarter, and beside the moves goes another, which lengthens them.
    assert float(found) == pytest.approx(whole * 3 / 4)


def test_what_products_hide_takes_from_them_and_what_moves_hide_does_not() -> None:
    free, dear = ours(tp=8, dp=8), ours(tp=8, dp=8, contention=0.3)
    whole, _ = whole_s(free)
    work = passes(whole / 4, whole / 4)
    more = exposed(dear, work).total_s - exposed(free, work).total_s
    assert float(more) == pytest.approx(0.3 * whole / 8)


def test_a_pipeline_drains_beside_the_gradients_of_every_rank() -> None:
    free, dear = (ours(dp=2, pp=4, contention=c) for c in (0.0, 0.3))
    work = passes(1e-3, 0.0)
    more = exposed(dear, work).total_s - exposed(free, work).total_s
    assert float(more) == pytest.approx(4 * 0.3 * 0.5e-3)


def test_zero_2_reduces_beside_the_forward_passes_between_unless_all_come_first() -> None:
    plan = {"dp": 64, "zero": 2}
    p = ours(**plan)
    p = replace(p, choice=replace(p.choice, micro_batches=n(4)))
    one = float(ring_s(4 * p.plain_parameters, n(64), stride=n(1), machine=NODES))
    work = passes(one / 4, 0.0)
    work = replace(work, forward=work.inputs)
    # 4 backward passes hide an eighth each, and so do 3 forward ones.
    assert float(exposed(p, work).total_s) - gathered_s(p) == pytest.approx(one * (4 - 7 / 8))
    gpipe = replace(p, choice=replace(p.choice, schedule=n(SCHEDULES.index("gpipe"))))
    assert float(exposed(gpipe, work).total_s) - gathered_s(p) == pytest.approx(one * (4 - 4 / 8))


def test_zero_3_gathers_layers_for_both_passes_and_the_ends_of_the_model_once() -> None:
    """Where nothing hides: the output layer stays, and an embedding is not read to go back."""
    p = ours(dp=64, zero=3)
    p = replace(p, stack=replace(p.stack, data_overlap=n(0)))
    size = float(p.plain_parameters)
    ring = (ring_s(n(k * size), n(64), stride=n(1), machine=NODES) for k in (2, 4))
    gather, reduce = (float(x) for x in ring)
    end = float(p.shape.vocabulary_parameters) / size
    found = float(exposed(p, passes(0.0, 0.0)).total_s)
    assert found == pytest.approx(2 * (1 - end) * gather + reduce)


def gathered_s(p: Pricing) -> float:
    """Give the seconds of gathering all parameters, which nothing hides here."""
    size = 2 * p.plain_parameters
    return float(ring_s(size, p.choice.dp, stride=n(1), machine=NODES))
