"""Random small models and plans that fit them, to hold laws against."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Literal, get_args

from stretto.mesh import Mesh
from stretto.model import Model, Rope
from stretto.plan import (
    RUN_SCHEDULES,
    Batch,
    Communication,
    Memory,
    Numerics,
    Pipeline,
    Plan,
    Recompute,
)
from stretto.rules import Rules, Table

HEADS = ((9, 3), (4, 4), (6, 2), (2, 1), (5, 5), (3, 3))
"""Query and key heads; 9 and 3 (as in SmolLM2) come out even over few numbers of ranks."""


def draw(seed: int, *, ranks: int = 16) -> tuple[Model, Plan]:
    """Give a random small model and a plan for it that is legal, in float64.

    Every axis, storage sharding, schedule, recomputation and accumulation comes up, alone and
    together; so do sizes that the ranks do not divide, tied embeddings, and rules that no short
    form writes.

    Args:
        seed: The same seed draws the same pair.
        ranks: The most ranks that the plan may need.
    """
    random = Random(seed)
    model = _model(random)
    plan = _plan(random, model, ranks=ranks)
    problems = plan.obstacles(model)
    assert not problems, f"seed {seed} draws an illegal plan: {problems}"
    return model, plan


def _model(random: Random) -> Model:
    family: Literal["llama", "gpt2", "qwen3", "mistral"] = random.choice(
        ("llama", "gpt2", "qwen3", "mistral")
    )
    heads, kv_heads = random.choice(HEADS)
    head_dim = random.choice((2, 4, 6))
    layers = random.randint(1, 3)
    model = Model(
        f"random {family}",
        layers=layers,
        embed=random.choice((7, 10, 12, 15, 16)),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ff=random.choice((9, 14, 16, 23)),
        vocab=random.choice((17, 24, 31)),
        positions=16,
        tied=random.random() < 0.5,
        family=family,
    )
    match family:
        case "gpt2":
            return replace(
                model, norm="layer", rope=None, kv_heads=heads, embed=heads * head_dim,
                activation="gelu_tanh", gated=False, qkv_bias=True, out_bias=True, ff_bias=True,
            )  # fmt: skip
        case "qwen3":
            return replace(model, qk_norm=True, rope=Rope(theta=1e6))
        case "mistral":
            return replace(model, window=3, full_layers=(0,) if random.random() < 0.3 else ())
        case "llama":
            return model


def _plan(random: Random, model: Model, *, ranks: int) -> Plan:
    blocks = len(model.blocks)
    pp = random.choice([n for n in (1, 1, 2, 3, 4) if n <= min(blocks, ranks)])
    tp = random.choice([n for n in (1, 1, 2, 3, 4, 6) if n * pp <= ranks])
    dp = random.choice([n for n in (1, 2, 2, 3, 4, 6) if n * tp * pp <= ranks])
    micro_batch = random.randint(1, 2)
    accumulate = random.choice((1, 2, 3, 4))
    seq = random.choice([n for n in (4, 6, 8, 12) if n % tp == 0] or [tp])
    cut = sorted(random.sample(range(1, blocks), pp - 1)) if random.random() < 0.3 else []
    plan = Plan.of(
        pp=pp,
        dp=dp,
        tp=tp,
        zero=random.randint(0, 3),
        shard=random.choice([0, *(n for n in range(1, dp + 1) if dp % n == 0)]),
        sequence=random.random() < 0.6,
        pipeline=Pipeline(random.choice(RUN_SCHEDULES), (0, *cut) if cut else ()),
        memory=Memory(random.choice(get_args(Recompute))),
        communication=Communication(random.choice((1, 1000, 2**20))),
        numerics=Numerics("float64"),
        batch=Batch(dp * micro_batch * accumulate, micro_batch, seq),
    )
    return _unusual(random, plan) if random.random() < 0.3 else plan


def _unusual(random: Random, plan: Plan) -> Plan:
    """Give `plan` under rules and a mesh that no short form writes."""
    change = random.choice((_fewer_rules, _two_axes, _other_storage, _no_ones))
    return change(random, plan)


def _fewer_rules(random: Random, plan: Plan) -> Plan:
    """Split less than all of what tensor parallelism splits, where an axis is still busy."""
    dims = [d for d, _ in plan.rules.compute if d not in ("batch", "seq")]
    kept = random.sample(dims, random.randint(1, len(dims))) if dims else []
    compute = tuple(line for line in plan.rules.compute if line[0] in ("batch", "seq", *kept))
    return replace(plan, rules=replace(plan.rules, compute=compute))


def _two_axes(random: Random, plan: Plan) -> Plan:
    """Name tp as two axes, where it has two parts, in any order."""
    extent = plan.mesh.extent("tp")
    part = next((n for n in range(2, extent) if extent % n == 0), extent)
    axes = tuple(
        new
        for axis in plan.mesh.axes
        for new in ((("outer", part), ("inner", extent // part)) if axis[0] == "tp" else (axis,))
    )
    names = tuple(random.sample(("outer", "inner"), 2))
    compute = tuple((d, names if a == ("tp",) else a) for d, a in plan.rules.compute)
    mesh = Mesh(axes, plan.mesh.views)
    return replace(plan, mesh=mesh, rules=replace(plan.rules, compute=compute))


def _other_storage(random: Random, plan: Plan) -> Plan:
    """Let each store lie its own way, over any axes."""
    axes = [name for name, _ in plan.mesh.axes if name != "pp"]

    def table() -> Table:
        dims = ("embed", "ff", "kv_heads", "head_dim", "vocab", "position", "pair")
        some = random.sample(dims, random.randint(0, 4))
        return tuple((d, tuple(random.sample(axes, random.randint(1, len(axes))))) for d in some)

    return replace(plan, rules=Rules(plan.rules.compute, table(), table(), table()))


def _no_ones(random: Random, plan: Plan) -> Plan:
    """Leave out the axes of one rank, and put the others in any order."""
    axes = [axis for axis in plan.mesh.axes if axis[1] > 1]
    random.shuffle(axes)
    known = {name for name, _ in axes} | {name for name, _ in plan.mesh.views}
    views = tuple((v, tuple(p for p in parts if p in known)) for v, parts in plan.mesh.views)

    def without(table: Table) -> Table:
        return tuple((d, tuple(a for a in names if a in known)) for d, names in table)

    rules = Rules(*(without(t) for t in (
        plan.rules.compute, plan.rules.parameter, plan.rules.gradient, plan.rules.optimizer,
    )))  # fmt: skip
    return replace(plan, mesh=Mesh(tuple(axes), views), rules=rules)
