"""Any plan, played for all its ranks, computes what one rank computes; the interpreter's own rules.

`lower` is what is tested here: the maths of segments and the steps of moves have their own tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stretto.errors import RankError
from stretto.mesh import Mesh
from stretto.model import Model, Rope
from stretto.plan import Batch, Communication, Memory, Numerics, Pipeline, Plan
from stretto.program.forward import forward_only
from stretto.program.instruction import (
    Free,
    Instruction,
    Move,
    Program,
    Recv,
    Send,
    Vote,
)
from stretto.program.lower import lower
from stretto.recipe import Recipe
from stretto.reference import Outcome, Reference
from stretto.reference.arrays import Array
from stretto.rules import COMPUTE_DIMS, STORAGE_DIMS, Rules

RECIPE = Recipe(steps=2, lr=1e-2, warmup=0.5, clip=0.5)
TINY = Model(
    "tiny", 2, 6, 2, 1, 2, 5, 7, 12, norm="layer", rope=None, gated=False, qkv_bias=True,
    out_bias=True, ff_bias=True, tied=True, init_std=0.3,
)  # fmt: skip


@dataclass(frozen=True)
class MicroBatch:
    """Rows of a step's data."""

    tokens_BT: Array
    targets_BT: Array
    documents_BT: Array | None
    positions_BT: Array


Batches = Callable[[int, int], MicroBatch]


def batches(model: Model, plan: Plan, *, step: int, documents: bool = True) -> Batches:
    """Random rows of a step, which do not depend on how they are dealt to micro-batches."""
    rng, shape = np.random.default_rng(step), (plan.batch.sequences, plan.batch.seq)
    tokens = rng.integers(0, model.vocab, shape)
    targets = np.where(rng.random(shape) < 0.2, -100, rng.integers(0, model.vocab, shape))
    ids = np.cumsum(rng.random(shape) < 0.2, axis=1) if documents else None
    positions = rng.integers(0, model.positions, shape)

    def deal(replica: int, micro_batch: int) -> MicroBatch:
        first = (micro_batch * plan.replicas + replica) * plan.batch.micro_batch
        rows = slice(first, first + plan.batch.micro_batch)
        own = None if ids is None else ids[rows]
        return MicroBatch(tokens[rows], targets[rows], own, positions[rows])

    return deal


def alone(plan: Plan) -> Plan:
    """The plan of one rank that sees the same sequences in one micro-batch."""
    batch = replace(plan.batch, micro_batch=plan.batch.sequences)
    return Plan.of(batch=batch, numerics=Numerics("float64"))


def played(model: Model, plan: Plan) -> Iterator[tuple[Outcome, dict[str, tuple[Array, ...]]]]:
    """Outcome, weights and moments of two steps."""
    reference = Reference(lower(model, plan), seed=1)
    for step in range(2):
        outcome = reference.step(batches(model, plan, step=step), recipe=RECIPE, step=step)
        weights, state = reference.parameters, reference.state
        yield outcome, {name: (weights[name], *state[name]) for name in weights}


def assert_same_as_one_rank(model: Model, plan: Plan) -> None:
    steps = zip(played(model, plan), played(model, alone(plan)), strict=True)
    for (ours, held), (one, kept) in steps:
        assert ours.loss == pytest.approx(one.loss, rel=1e-11)
        assert ours.norm == pytest.approx(one.norm, rel=1e-10)
        assert ours.targets == one.targets and ours.applied
        largest = max(np.abs(gradient).max() for gradient in one.gradients.values())
        for name, gradient in one.gradients.items():
            gap = np.abs(ours.gradients[name] - gradient).max()
            assert gap < 1e-10 * max(np.abs(gradient).max(), 1e-3 * largest), f"gradient of {name}"
        for name, arrays in kept.items():
            weight, master, *_ = held[name]
            assert np.array_equal(weight, master), f"{name} is not its master weight"
            for mine, array in zip(held[name], arrays, strict=True):
                assert np.abs(mine - array).max() < 1e-10, f"what is kept of {name}"


# ── any plan equals one rank ─────────────────────────────────────────────────────────────────────


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Any model, of sizes that hardly anything divides."""
    kv, group = draw(st.integers(1, 3)), draw(st.sampled_from((1, 2, 3, 5)))
    return Model(
        "m",
        layers=draw(st.integers(1, 2)),
        embed=draw(st.sampled_from((5, 6, 7))),
        heads=kv * group,
        kv_heads=kv,
        head_dim=draw(st.sampled_from((2, 4))),
        ff=draw(st.sampled_from((5, 7, 8))),
        vocab=draw(st.sampled_from((5, 9, 11))),
        positions=12,
        norm=draw(st.sampled_from(("layer", "rms"))),
        rope=draw(st.sampled_from((Rope(), None))),
        activation=draw(st.sampled_from(("silu", "gelu", "gelu_tanh", "relu", "relu2"))),
        gated=draw(st.booleans()),
        qkv_bias=draw(st.booleans()),
        out_bias=draw(st.booleans()),
        ff_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        window=draw(st.sampled_from((0, 3))),
        full_layers=draw(st.sampled_from(((), (1,)))),
        tied=draw(st.booleans()),
        init_std=0.3,
    )


@st.composite
def parts(draw: st.DrawFn, model: Model, mesh: Mesh, rules: Rules) -> Plan:
    """A plan on a mesh: any schedule, cut, recomputation, bucket and batch."""
    pp = mesh.extent("pp")
    inner = st.lists(
        st.integers(1, len(model.blocks) - 1), min_size=pp - 1, max_size=pp - 1, unique=True
    )
    cut = draw(st.one_of(st.just(()), inner.map(lambda cuts: (0, *sorted(cuts)))))
    replicas = mesh.extent(*dict(rules.compute).get("batch", ()))
    micro_batches, size = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    return Plan(
        mesh,
        rules,
        Pipeline(draw(st.sampled_from(("gpipe", "1f1b"))), cut),
        Memory(draw(st.sampled_from(("none", "selective", "full")))),
        Communication(draw(st.sampled_from((1, 1000, 10**9)))),
        Numerics(draw(st.sampled_from(("float64", "float32", "bfloat16")))),
        Batch(replicas * micro_batches * size, size, 12),
    )


@st.composite
def usual(draw: st.DrawFn) -> tuple[Model, Plan]:
    """A plan in the usual words, on at most twelve ranks."""
    model = draw(models())
    pp, dp, tp = draw(
        st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from((1, 2, 3, 4, 6))).filter(
            lambda sizes: math.prod(sizes) <= 12 and sizes[0] <= len(model.blocks)
        )
    )
    shard = draw(st.sampled_from([n for n in range(dp + 1) if n == 0 or dp % n == 0]))
    plan = Plan.of(
        pp=pp, dp=dp, tp=tp, zero=draw(st.integers(0, 3)), shard=shard, sequence=draw(st.booleans())
    )
    return model, draw(parts(model, plan.mesh, plan.rules))


@st.composite
def unusual(draw: st.DrawFn) -> tuple[Model, Plan]:
    """A plan of any rules over axes in any order."""
    model = draw(models())
    axes = ("a", "b", "c")
    extents = st.sampled_from(
        [e for e in np.ndindex(3, 5, 5, 4) if 1 < math.prod(e) <= 12]  # of pp, a, b, c
    )
    sizes = dict(zip(("pp", *axes), draw(extents), strict=True))
    names = draw(st.permutations(tuple(sizes)))
    mesh = Mesh(tuple((name, int(sizes[name])) for name in names))
    busy = [a for a in axes if sizes[a] > 1]
    replicas = draw(st.lists(st.sampled_from(busy), unique=True)) if busy else []
    rest = [a for a in busy if a not in replicas]

    def table(dims: tuple[str, ...], from_: list[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        own = st.lists(st.sampled_from(from_), unique=True).map(tuple) if from_ else st.just(())
        return tuple((dim, draw(own)) for dim in draw(st.permutations(dims)))

    compute = (("batch", tuple(replicas)), *table(COMPUTE_DIMS[1:], rest))
    rules = Rules(compute, *(table(STORAGE_DIMS, busy) for _ in range(3)))
    return model, draw(parts(model, mesh, rules))


SLOW = settings(max_examples=32, suppress_health_check=list(HealthCheck))


@SLOW
@given(usual())
def test_a_plan_in_the_usual_words_computes_what_one_rank_computes(
    case: tuple[Model, Plan],
) -> None:
    assert_same_as_one_rank(*case)


def runs(case: tuple[Model, Plan]) -> bool:
    """Tell whether a plan of a model is one that runs."""
    model, plan = case
    return not (plan.check(model) or plan.unsupported(model))


@SLOW
@given(unusual().filter(runs))
def test_a_plan_of_any_rules_computes_what_one_rank_computes(case: tuple[Model, Plan]) -> None:
    assert_same_as_one_rank(*case)


NINE = replace(TINY, heads=9, kv_heads=3, rope=Rope(), qk_norm=True, tied=False)


@pytest.mark.parametrize("tp", [2, 4, 6])
@pytest.mark.parametrize("sequence", [True, False])
def test_nine_heads_and_three_key_heads_are_padded_exactly(tp: int, sequence: bool) -> None:
    plan = Plan.of(tp=tp, sequence=sequence, batch=Batch(2, 1, 12))
    assert_same_as_one_rank(NINE, plan)


def test_tied_embeddings_on_the_first_and_last_of_three_stages_stay_equal() -> None:
    plan = Plan.of(pp=3, dp=2, tp=2, zero=3, batch=Batch(8, 2, 12))
    assert_same_as_one_rank(replace(TINY, rope=Rope()), plan)


# ── the optimizer ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_weights_change_as_those_of_torch_do(clip: float) -> None:
    plan = Plan.of(dp=2, tp=2, zero=2, batch=Batch(4, 1, 12))
    recipe = replace(RECIPE, clip=clip)
    reference = Reference(lower(TINY, plan), seed=1)
    weights = {n: torch.tensor(w, requires_grad=True) for n, w in reference.parameters.items()}
    decays = {p.name for p in TINY.parameters if p.decay}
    optimizer = torch.optim.AdamW(
        [
            {"params": [w for n, w in weights.items() if n in decays], "weight_decay": 0.1},
            {"params": [w for n, w in weights.items() if n not in decays], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
    )
    for step in range(3):
        outcome = reference.step(batches(TINY, plan, step=step), recipe=recipe, step=step)
        for name, weight in weights.items():
            weight.grad = torch.tensor(outcome.gradients[name])
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), clip or math.inf)
        assert outcome.norm == pytest.approx(float(norm), rel=1e-12) and outcome.norm > 0.05
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(step)
        optimizer.step()
        for name, array in reference.parameters.items():
            np.testing.assert_allclose(array, weights[name].detach().numpy(), rtol=0, atol=1e-13)


def test_a_step_without_valid_targets_changes_nothing() -> None:
    plan = Plan.of(dp=2, batch=Batch(2, 1, 12))
    reference = Reference(lower(TINY, plan), seed=1)
    before = reference.parameters
    given = batches(TINY, plan, step=0)

    def silent(replica: int, micro_batch: int) -> MicroBatch:
        batch = given(replica, micro_batch)
        return replace(batch, targets_BT=np.full_like(batch.targets_BT, -100))

    outcome = reference.step(silent, recipe=RECIPE, step=0)
    assert not outcome.applied and outcome.targets == 0 and outcome.gradients == {}
    assert all(np.array_equal(w, before[n]) for n, w in reference.parameters.items())


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    plan = Plan.of(tp=2, batch=Batch(1, 1, 12))
    weights = Reference(lower(TINY, plan), seed=1).parameters
    weights["embedding.token"] = weights["embedding.token"] * np.inf
    reference = Reference(lower(TINY, plan), parameters=weights)
    outcome = reference.step(batches(TINY, plan, step=0), recipe=RECIPE, step=0)
    assert not outcome.applied and math.isnan(outcome.loss) and outcome.gradients == {}
    kept = reference.parameters
    assert all(np.array_equal(w, kept[n], equal_nan=True) for n, w in weights.items())


# ── the rules of the interpreter ─────────────────────────────────────────────────────────────────

SMALL = Plan.of(pp=2, dp=2, zero=3, batch=Batch(4, 1, 12))


def play(program: Program, plan: Plan = SMALL, **options: Any) -> Outcome:
    reference = Reference(program, seed=1)
    return reference.step(batches(TINY, plan, step=0, **options), recipe=RECIPE, step=0)


def changed(program: Program, change: Callable[[Instruction], Instruction | None]) -> Program:
    """The program with each instruction changed, or left out."""
    stages = []
    for stage in program.stages:
        kept = [change(instruction) for instruction in stage.instructions]
        stages.append(replace(stage, instructions=tuple(i for i in kept if i is not None)))
    return replace(program, stages=tuple(stages))


def test_no_documents_are_one_document() -> None:
    given, program = batches(TINY, SMALL, step=0, documents=False), lower(TINY, SMALL)

    def one(replica: int, micro_batch: int) -> MicroBatch:
        batch = given(replica, micro_batch)
        return replace(batch, documents_BT=np.full_like(batch.tokens_BT, 3))

    a, b = (Reference(program).step(f, recipe=RECIPE, step=0) for f in (given, one))
    assert a.loss == b.loss


def test_the_forward_half_gives_the_loss_and_changes_nothing() -> None:
    program = lower(TINY, SMALL)
    half = Reference(forward_only(program), seed=1)
    before = half.parameters
    outcome = half.step(batches(TINY, SMALL, step=0), recipe=RECIPE, step=0)
    assert outcome.loss == play(program).loss and outcome.gradients == {}
    assert all(np.array_equal(w, before[n]) for n, w in half.parameters.items())


def test_given_parameters_are_what_the_ranks_hold() -> None:
    program = lower(NINE, Plan.of(tp=2, dp=2, zero=1, batch=Batch(2, 1, 12)))
    weights = {
        p.name: np.arange(float(math.prod(NINE.shape(p)))).reshape(NINE.shape(p))
        for p in NINE.parameters
    }
    reference = Reference(program, parameters=weights)
    assert all(np.array_equal(w, weights[n]) for n, w in reference.parameters.items())
    assert all(np.array_equal(s[0], weights[n]) for n, s in reference.state.items())
    assert not any(s[1].any() or s[2].any() for s in reference.state.values())


def test_ranks_that_wait_for_each_other_are_an_error_that_says_for_what() -> None:
    program = changed(
        lower(TINY, SMALL), lambda i: None if isinstance(i, Send) and i.tag == "x.m1" else i
    )
    with pytest.raises(RankError, match=r"rank 2: waits for x\d+\.m1 from rank 0") as caught:
        play(program)
    assert [p.field for p in caught.value.problems] == [f"rank {r}" for r in range(4)]


def test_a_rank_that_leaves_a_collective_out_makes_the_others_wait() -> None:
    program = lower(replace(TINY, tied=False), SMALL)
    stage = program.stages[1]
    (vote,) = (n for n, i in enumerate(stage.instructions) if isinstance(i, Vote))
    silent = stage.instructions[:vote]
    with pytest.raises(RankError, match=r"rank 0: waits for ranks \[2, 3\] at vote"):
        play(replace(program, stages=(program.stages[0], replace(stage, instructions=silent))))


def test_reading_what_is_freed_is_noticed() -> None:
    early = Free(("tokens.m0",))

    def change(instruction: Instruction) -> Instruction:
        return (
            early if isinstance(instruction, Recv) and instruction.tag == "dx.m0" else instruction
        )

    with pytest.raises(AssertionError, match="does not hold"):
        play(changed(lower(TINY, SMALL), change))


def test_what_is_never_freed_is_noticed() -> None:
    program = changed(lower(TINY, SMALL), lambda i: None if isinstance(i, Free) else i)
    with pytest.raises(AssertionError, match="rank 0 still holds"):
        play(program)


def test_a_message_that_nobody_reads_is_noticed() -> None:
    program = forward_only(lower(TINY, SMALL))
    first = program.stages[0]
    (*_, send) = [i for i in first.instructions if isinstance(i, Send)]
    at = first.instructions.index(send) + 1
    again = (*first.instructions[:at], replace(send, tag="again"), *first.instructions[at:])
    stages = (replace(first, instructions=again), program.stages[1])
    with pytest.raises(AssertionError, match="nobody received"):
        play(replace(program, stages=stages))


def test_messages_that_come_in_another_order_than_they_are_expected_are_noticed() -> None:
    other = {"x.m0": "x.m1", "x.m1": "x.m0"}

    def change(instruction: Instruction) -> Instruction:
        if isinstance(instruction, Send) and instruction.tag in other:
            return replace(instruction, tag=other[instruction.tag])
        return instruction

    with pytest.raises(AssertionError, match=r"receives x\.m1 where it expects x\.m0"):
        play(changed(lower(TINY, SMALL), change))


def test_a_block_of_another_shape_than_its_spec_says_is_noticed() -> None:
    program = lower(TINY, SMALL)
    stage = program.stages[0]
    spec = stage.buffers["x1.m0"]
    wrong = {**stage.buffers, "x1.m0": replace(spec, shape=(2, 12, 5))}
    stages = (replace(stage, buffers=wrong), program.stages[1])
    with pytest.raises(AssertionError, match=r"x1\.m0: block is \(1, 12, 6\)"):
        play(replace(program, stages=stages))


def test_a_gradient_that_is_not_reduced_is_noticed() -> None:
    plan = Plan.of(dp=2, batch=Batch(2, 1, 12))

    def change(instruction: Instruction) -> Instruction:
        if not isinstance(instruction, Move):
            return instruction
        return Move(tuple(replace(leg, steps=()) for leg in instruction.legs))

    with pytest.raises(AssertionError, match="replicas of r:"):
        play(changed(lower(TINY, plan), change), plan)
