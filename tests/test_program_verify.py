"""`verify` finds nothing wrong with what `lower` makes, and something with anything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import TypeVar, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretto.layout import Kind, Layout, Step
from stretto.model import Model
from stretto.plan import Batch, Pipeline, Plan
from stretto.program.draw import draw
from stretto.program.instruction import (
    Compute,
    Free,
    Instruction,
    Move,
    Phase,
    Program,
    Recv,
    Role,
    Send,
    Update,
    Vote,
)
from stretto.program.lower import lower
from stretto.program.verify import verify

T = TypeVar("T")
Place = tuple[int, int]
"""Stage, and index of an instruction."""


def splice(program: Program, at: Place, *new: Instruction) -> Program:
    """Give `program` with other instructions in place of one."""
    stage, i = at
    old = program.stages[stage]
    instructions = (*old.instructions[:i], *new, *old.instructions[i + 1 :])
    return with_stage(program, stage, instructions=instructions)


def with_stage(program: Program, stage: int, **changes: object) -> Program:
    stages = list(program.stages)
    stages[stage] = replace(stages[stage], **changes)  # type: ignore[arg-type]
    return replace(program, stages=tuple(stages))


def at(program: Program, place: Place) -> Instruction:
    return program.stages[place[0]].instructions[place[1]]


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────

SEEDS = st.integers(0, 2**32)


@given(SEEDS)
@settings(max_examples=60)
def test_nothing_is_wrong_with_what_lower_makes(seed: int) -> None:
    assert verify(lower(*draw(seed))) == ()


Mutation = Callable[[Program, Random], Program | None]
"""Gives a program that is wrong in one place; None where it finds no such place."""


def any_of(program: Program, random: Random, *kinds: type[T]) -> tuple[Place, T]:
    """Any instruction of some kinds, of which there is one in every program."""
    return random.choice(all_of(program, *kinds))


def all_of(program: Program, *kinds: type[T]) -> list[tuple[Place, T]]:
    """Every instruction of some kinds, and where it is."""
    return [
        ((s, i), instruction)
        for s, stage in enumerate(program.stages)
        for i, instruction in enumerate(stage.instructions)
        if isinstance(instruction, kinds)
    ]


def drop(program: Program, random: Random) -> Program:
    place, _ = any_of(program, random, *get_args(Instruction))
    return splice(program, place)


def repeat(program: Program, random: Random) -> Program:
    place, instruction = any_of(program, random, *get_args(Instruction))
    return splice(program, place, instruction, instruction)


def swap(program: Program, random: Random) -> Program | None:
    """Let an instruction come before the one whose first word on a buffer it waits for."""
    there = []
    for stage in program.stages:
        written: set[str] = set()
        for i, (before, after) in enumerate(pairwise(stage.instructions)):
            waits = after.buffers if isinstance(after, Free) else after.input
            if (set(before.output) - written) & set(waits):
                there.append((stage.stage, i))
            written |= set(before.output)
    return swapped(program, random.choice(there)) if there else None


def swapped(program: Program, place: Place) -> Program:
    """Exchange an instruction and the one after it."""
    stage, i = place
    one, two = program.stages[stage].instructions[i : i + 2]
    return splice(splice(program, place, two), (stage, i + 1), one)


def free_too_early(program: Program, random: Random) -> Program:
    (stage, i), _ = any_of(program, random, Free)
    return swapped(program, (stage, i - 1))


def free_less(program: Program, random: Random) -> Program:
    place, free = any_of(program, random, Free)
    return splice(program, place, Free(free.buffers[1:]))


def another_peer(program: Program, random: Random) -> Program | None:
    messages = all_of(program, Send) + all_of(program, Recv)
    if not messages:
        return None
    place, message = random.choice(messages)
    return splice(program, place, replace(message, by=message.by + random.choice((-1, 1))))


def another_tag(program: Program, random: Random) -> Program | None:
    messages = all_of(program, Send) + all_of(program, Recv)
    if not messages:
        return None
    place, message = random.choice(messages)
    return splice(program, place, replace(message, tag="y"))


def fewer_steps(program: Program, random: Random) -> Program | None:
    moves = all_of(program, Move)
    if not moves:
        return None
    place, move = random.choice(moves)
    legs = tuple(replace(leg, steps=leg.steps[:-1]) for leg in move.legs)
    return splice(program, place, replace(move, legs=legs))


def fewer_legs(program: Program, random: Random) -> Program | None:
    moves = [(place, move) for place, move in all_of(program, Move) if len(move.legs) > 1]
    if not moves:
        return None
    place, move = random.choice(moves)
    targets = {leg.target for leg in move.legs[1:]}
    adds = tuple(a for a in move.adds if a[0] in targets)
    return splice(program, place, Move(move.legs[1:], adds))


def forget_to_add(program: Program, random: Random) -> Program | None:
    everything = all_of(program, Compute) + all_of(program, Move) + all_of(program, Recv)
    adding = [(place, instruction) for place, instruction in everything if instruction.adds]
    if not adding:
        return None
    place, instruction = random.choice(adding)
    forgotten = random.choice(instruction.adds)
    adds = tuple(a for a in instruction.adds if a != forgotten)
    return splice(program, place, replace(instruction, adds=adds))


def another_micro_batch(program: Program, random: Random) -> Program:
    place, compute = any_of(program, random, Compute)
    return splice(program, place, replace(compute, micro_batch=compute.micro_batch + 1))


def another_block(program: Program, random: Random) -> Program:
    place, compute = any_of(program, random, Compute)
    block = (compute.block + 2) % len(program.chain)
    return splice(program, place, replace(compute, block=block))


def another_layout(program: Program, random: Random) -> Program:
    """Let a buffer be whole where it is split, or hold parts where it is whole."""
    stage = random.choice(program.stages)
    used = {b for i in stage.instructions for b in (*i.input, *i.output)}
    tensors = {n: s for n, s in stage.buffers.items() if n in used and s.role in TENSORS}
    name = random.choice(sorted(tensors))
    spec = tensors[name]
    whole = Layout(tuple(() for _ in spec.layout.dims))
    parts = [a for a, _ in program.placement.mesh.axes if a != "pp"]
    layout = whole if whole != spec.layout else whole.with_partial(parts or ("pp",))
    buffers = {**stage.buffers, name: replace(spec, layout=layout)}
    return with_stage(program, stage.stage, buffers=buffers)


def update_less(program: Program, random: Random) -> Program:
    place, update = any_of(program, random, Update)
    return splice(program, place, replace(update, weights=update.weights[1:]))


def vote_twice_on_one(program: Program, random: Random) -> Program:
    place, vote = any_of(program, random, Vote)
    gradients = (*vote.gradients, random.choice(vote.gradients))
    return splice(program, place, replace(vote, gradients=gradients))


def vote_on_less(program: Program, random: Random) -> Program:
    place, vote = any_of(program, random, Vote)
    return splice(program, place, replace(vote, gradients=vote.gradients[1:]))


TENSORS = frozenset(Role) - {Role.GRAPH, Role.VERDICT}
MUTATIONS: tuple[Mutation, ...] = (
    drop, repeat, swap, free_too_early, free_less, another_peer, another_tag, fewer_steps,
    fewer_legs, forget_to_add, another_micro_batch, another_block, another_layout, update_less,
    vote_twice_on_one, vote_on_less,
)  # fmt: skip


@given(SEEDS, st.randoms(use_true_random=False))
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.__name__)
@settings(max_examples=8)
def test_a_program_that_is_wrong_in_one_place_is_found_out(
    mutation: Mutation, seed: int, random: Random
) -> None:
    program = lower(*draw(seed))
    mutant = mutation(program, random)
    if mutant is not None:
        assert verify(mutant), f"{mutation.__name__} went unnoticed"


# ── messages ─────────────────────────────────────────────────────────────────────────────────────

MODEL = Model(
    "small", layers=1, embed=6, heads=2, kv_heads=2, head_dim=2, ff=8, vocab=12, positions=8,
    tied=True,
)  # fmt: skip
PROGRAM = lower(
    MODEL,
    Plan.of(
        pp=2, dp=2, tp=2, zero=3, pipeline=Pipeline("gpipe", (0, 2)), batch=Batch(4, 1, 4)
    ),
)  # fmt: skip
"""Two stages of two blocks, everything split, two micro-batches."""


def found(program: Program) -> list[str]:
    """What is wrong with a program: the place and the rule."""
    return [f"{p.field}: {p.rule}" for p in verify(program)]


def first(kind: type[T], stage: int = 0, **wanted: object) -> tuple[Place, T]:
    """The first instruction of a kind on a stage with some fields as wanted, and where it is."""
    for i, instruction in enumerate(PROGRAM.stages[stage].instructions):
        if isinstance(instruction, kind) and all(
            getattr(instruction, k) == v for k, v in wanted.items()
        ):
            return (stage, i), instruction
    raise LookupError(kind)


def changed(place: Place, **changes: object) -> Program:
    """PROGRAM with fields of one instruction changed."""
    return splice(PROGRAM, place, replace(at(PROGRAM, place), **changes))  # type: ignore[arg-type]


def inserted(place: Place, *new: Instruction) -> Program:
    """PROGRAM with instructions before one."""
    return splice(PROGRAM, place, *new, at(PROGRAM, place))


def described(name: str, **changes: object) -> Program:
    """PROGRAM with a buffer of the first stage described otherwise."""
    buffers = PROGRAM.stages[0].buffers
    spec = replace(buffers[name], **changes)  # type: ignore[arg-type]
    return with_stage(PROGRAM, 0, buffers={**buffers, name: spec})


MOVE, GATHER = first(Move)  # the token embedding, over dp
BUCKET, TWO_LEGS = first(Move, stage=1)
SCATTER = (0, 4)  # what the embedding gives, over tp
LOOKUP, _ = first(Compute, block=0)
NORM, _ = first(Compute, block=1, segments=(0, 1))
ATTEND, ATTENDED = first(Compute, block=1, segments=(1, 2))
ADD, ADDED = first(Compute, block=1, segments=(2, 3))
BACK, BACKED = first(Compute, phase=Phase.BACKWARD, block=1, segments=(1, 2))
LOSS, LOST = first(Compute, stage=1, block=3, segments=(3, 4))
SEND, SENT = first(Send)
NEXT_SEND, _ = first(Send, tag="x.m1")
RECV, RECEIVED = first(Recv, stage=1)
FREE, FREED = first(Free)
VOTE, VOTED = first(Vote)
HEAD_VOTE, HEAD_VOTED = first(Vote, stage=1)
UPDATE, UPDATED = first(Update)
TOKEN, WHOLE = "w:embedding.token", GATHER.output[0]
QUERY = "layers.0.attention.query"


def moved(place: Place, **changes: object) -> Program:
    """PROGRAM with the first leg of a move changed."""
    move = at(PROGRAM, place)
    assert isinstance(move, Move)
    return changed(place, legs=(replace(move.legs[0], **changes), *move.legs[1:]))  # type: ignore[arg-type]


def updated(**changes: object) -> Program:
    """PROGRAM with the first weight of the first update changed."""
    weight, *others = UPDATED.weights
    return changed(UPDATE, weights=(replace(weight, **changes), *others))  # type: ignore[arg-type]


def renamed(place: Place, field: str, **names: str) -> Program:
    """PROGRAM with buffers of a compute exchanged."""
    return changed(
        place, **{field: tuple((dict(getattr(at(PROGRAM, place), field)) | names).items())}
    )


STATE = UPDATED.weights[0].state
ALL_REDUCE = Step(Kind.ALL_REDUCE, ("tp",))
WRONG: dict[str, tuple[Program, str]] = {
    # names
    "size": (described("x1.m0", shape=(2, 3, 6)), "x1.m0 of shape (2, 3, 6) cannot lie as [dp, tp"),
    "dims": (described("x1.m0", shape=(2, 4)), "x1.m0 of shape (2, 4) cannot lie as [dp, tp, -]"),
    "axis": (described("x1.m0", layout=Layout((("q",), (), ()))), "cannot lie as [q, -, -]"),
    "name": (changed(SEND, buffers=("y",)), "(send x.m0 to stage 1): nothing says what y is"),
    # lifetimes
    "unwritten": (splice(PROGRAM, LOOKUP), "reads x0.m0 before it is written"),
    "freed": (inserted(SEND, Free(("x2.m0",))), "reads x2.m0 after it is freed"),
    "kept": (splice(PROGRAM, FREE), f"stage 0: {WHOLE} is never freed"),
    "stays": (inserted(VOTE, Free((TOKEN,))), f"frees {TOKEN}, which stays"),
    "twice freed": (changed(FREE, buffers=(WHOLE, WHOLE)), f"frees {WHOLE} twice"),
    "unread": (
        renamed(LOOKUP, "parameters", **{"embedding.token": TOKEN}),
        f"0 (move all-gather dp dim 1): brings {WHOLE}, which nobody reads",
    ),
    "adds": (changed(MOVE, adds=(("x1.m0", TOKEN),)), "adds to x1.m0, which it does not write"),
    "given": (moved(MOVE, target="tokens.m0"), "writes tokens.m0, which is given"),
    "twice written": (inserted(MOVE, GATHER), f"writes {WHOLE} a second time"),
    "at once": (renamed(ATTEND, "writes", d="n1.m0>1"), "reads and writes n1.m0>1 at once"),
    "lent": (
        inserted(LOOKUP, Update("verdict", (UPDATED.weights[0],))),
        f"writes {TOKEN} while a message still reads it",
    ),
    # work and messages
    "gap": (with_stage(PROGRAM, 1, blocks=(3, 4)), "begins at block 3, but the stage before"),
    "end": (with_stage(PROGRAM, 1, blocks=(2, 3)), "stage 1: ends at block 3 of 4"),
    "pass": (splice(PROGRAM, ADD), "runs layers.0.attention (2, 3) forward on m0 0 times"),
    "passes": (inserted(ADD, ADDED), "runs layers.0.attention (2, 3) forward on m0 2 times"),
    "votes": (inserted(VOTE, VOTED), "stage 0: votes 2 times"),
    "peer": (changed(SEND, by=2), "its other end, stage 2, is not another of 2 stages"),
    "self": (changed(SEND, by=0), "its other end, stage 0, is not another of 2 stages"),
    "order": (changed(SEND, tag="x.m1"), "stage 1 expects x.m0 in its place (instruction 0)"),
    "spec": (
        changed(SEND, buffers=("tokens.m0",)),
        "stage 1 expects another shape, layout or precision (instruction 0)",
    ),
    "unheard": (splice(PROGRAM, RECV), "stage 1 never receives tie:embedding.token"),
    "unsent": (splice(PROGRAM, SEND), "stage 0 never sends tie:embedding.token"),
    # layouts
    "layout": (
        described("n1.m0>1", layout=Layout((("dp",), ("tp",), ()))),
        "n1.m0>1 is (2, 4, 6) [dp, tp, -], not (2, 4, 6) [dp, -, -]",
    ),
    "owner": (
        described("u1:" + QUERY, parameter="embedding.token"),
        f"u1:{QUERY} is not a parameter or working of {QUERY}",
    ),
    "span": (changed(NORM, segments=(0, 2)), "segments (0, 2) of block 1 are no group"),
    "block": (changed(NORM, block=3), "segments (0, 1) of block 3 are no group"),
    "parameters": (changed(NORM, parameters=()), "uses parameters [], not ['layers.0.att"),
    "reads": (changed(ATTEND, values=()), "reads [], not ['mask', 'n']"),
    "writes": (changed(ATTEND, writes=()), "writes [], not ['d']"),
    "cotangents in": (changed(BACK, values=()), "reads cotangents of [], not ['d']"),
    "cotangents out": (changed(BACK, writes=()), "writes cotangents of [], not ['n']"),
    "gradients": (changed(BACK, gradients=BACKED.gradients[1:]), "writes gradients of ["),
    "sum": (changed(ADD, graph="graph1.0.m0"), "keeps a graph of a sum"),
    "no graph": (changed(BACK, graph=""), "reads no graph"),
    "graph": (changed(BACK, graph="dd1.1<.m0"), "dd1.1<.m0 is no graph"),
    "routes": (moved(BUCKET, steps=()), "its legs go by different routes"),
    "axes": (moved(MOVE, steps=(Step(Kind.ALL_GATHER, ("pp",), dim=1),)), "is not within a stage"),
    "step": (moved(MOVE, steps=(ALL_REDUCE,)), "all-reduce tp cannot follow on [tp, dp]"),
    "target": (moved(MOVE, steps=()), f"leads {TOKEN} to [tp, dp], not to [tp, -]"),
    "resized": (
        described(WHOLE, shape=(14, 6)), "dimension 0 changes from 12 to 14 while it is split",
    ),
    "rank": (moved(SCATTER, target=WHOLE), f"x0.m0 and {WHOLE} differ in dimensions"),
    "parameter": (described(WHOLE, parameter=""), "belong to different parameters"),
    "precision": (described(WHOLE, dtype="float64"), "turns float32 into float64"),
    "addend": (changed(MOVE, adds=((WHOLE, TOKEN),)), f"{TOKEN} is (12, 6) [tp, dp], not"),
    "stranger": (updated(parameter="head.norm.weight"), "no block of the stage uses 'head"),
    "loss": (changed(HEAD_VOTE, loss=()), "votes on losses () and counts ('count.m0', 'count.m1')"),
    "state": (
        updated(state=(STATE[0], STATE[1], STATE[1])), "the state of embedding.token is ('w:embed",
    ),
    # what is computed
    "value": (
        renamed(LOOKUP, "values", tokens="tokens.m1"),
        "tokens.m1 holds given tokens.m1, not given tokens.m0",
    ),
    "gradient": (
        changed(HEAD_VOTE, gradients=(*HEAD_VOTED.gradients, *HEAD_VOTED.gradients[:1])),
        "stage 0: the gradient of layers.0.feed_forward.norm.weight is in 2 votes",
    ),
    "old weight": (
        changed(UPDATE, weights=UPDATED.weights[1:]),
        f"stage 0: {TOKEN} ends as parameter embedding.token",
    ),
    "counts": (
        changed(HEAD_VOTE, counts=("count.m0", "count.m0")),
        "counts ('count.m0', 'count.m0'), not every micro-batch once",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_words(case: str) -> None:
    program, words = WRONG[case]
    assert any(words in line for line in found(program)), found(program)


def test_the_program_that_was_spoilt_is_sound() -> None:
    assert found(PROGRAM) == []


def test_a_problem_says_where_it_is_and_what_would_mend_it() -> None:
    problems = verify(splice(PROGRAM, FREE))
    assert [str(p) for p in problems] == [
        f"stage 0: {WHOLE} is never freed; free it after its last reader"
    ]


def test_a_gradient_that_lacks_a_micro_batch_is_found() -> None:
    scatter = ((Kind.REDUCE_SCATTER, ("dp",), "sum"),)
    place, one = first(Move, route=scatter, adds=())
    again, two = first(Move, route=scatter, adds=tuple((b, b) for b in one.output))
    program = splice(splice(PROGRAM, again, replace(two, adds=())), place)
    (name, *_) = one.output
    assert any(f"{name} holds gradient" in line and "m 1, not" in line for line in found(program))


def test_stages_that_wait_for_one_another_are_found() -> None:
    program = lower(replace(MODEL, tied=False), Plan.of(pp=2, batch=Batch(1, 1, 4)))
    instructions = program.stages[0].instructions
    i = next(i for i, instruction in enumerate(instructions) if isinstance(instruction, Send))
    send, free = instructions[i : i + 2]  # the first stage sends when it has done all else
    late = (*instructions[:i], *instructions[i + 2 :], send, free)
    assert [line.split("(")[1] for line in found(with_stage(program, 0, instructions=late))] == [
        "backward layers.0.attention[norm·attend·add] m0): waits for ever, as all stages do",
        "forward layers.0.feed_forward[norm·transform·add] m0): waits for ever, as all stages do",
    ]
