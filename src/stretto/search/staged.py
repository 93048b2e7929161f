"""What a plan takes whose stages or layers differ: each pipeline rank priced by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np

from stretto.cluster import Cluster
from stretto.cost import SCHEDULES, Choice, Machine, Number, Pricing, Shape, Stack
from stretto.cost.bubble import Load, bubble_s
from stretto.errors import PlanError, Problem
from stretto.model import BlockKind, Model
from stretto.plan import Memory, Plan, ScheduleName
from stretto.plan.words import words_of
from stretto.schedule import held
from stretto.search.ranks import Kinds, Pieces, RankCost, Share, other_zero, rank_cost
from stretto.search.task import RECOMPUTES
from stretto.search.wires import Wires, wires


@dataclass(frozen=True)
class Staged:
    """A plan priced rank by rank.

    Attributes:
        plan: The plan.
        layers: Of each stage; of one that is cut within, its blocks count by FLOPs.
        share: What each pipeline rank has.
        cost: What it takes.
        wires: What it lies on.
        limit_bytes: What a device of each rank has.
        step_s: Seconds of a step.
        money: What a step costs on all devices, in the currency of the cluster.
    """

    plan: Plan
    layers: tuple[float, ...]
    share: Share
    cost: RankCost
    wires: Wires
    limit_bytes: Number
    step_s: float
    money: float

    @property
    def tokens_per_s(self) -> float:
        """Tokens that all devices train on in a second."""
        return self.plan.batch.sequences * self.plan.batch.seq / self.step_s

    @property
    def memory_bytes(self) -> Number:
        """Bytes on a device of each rank at its fullest moment."""
        return np.asarray(self.cost.memory.total_bytes)

    @property
    def fits(self) -> bool:
        """Whether every rank has the memory."""
        return bool(np.all(self.memory_bytes <= self.limit_bytes))


def priced(plan: Plan, model: Model, *, cluster: Cluster, stack: Stack) -> Staged:
    """Give what a plan takes whose stages, layers or devices may differ.

    Groups may differ from the plan in what they recompute and in their ZeRO stage. The ranks lie on
    the devices in their order; where a plan leaves the cut open, layers that do not divide evenly
    are left out at the ends.

    Args:
        plan: How.
        model: What is trained.
        cluster: On what; parts differ in their devices, and measured links count.
        stack: With which software.

    Raises:
        PlanError: Groups differ in more.
    """
    kinds = Kinds.of(model)
    p = Pricing(Shape.of(model), Choice.of(plan, model), Machine.of(cluster), stack)
    on = wires(p, cluster)
    p = replace(p, machine=on.machine)
    again = tuple(
        Choice.of(replace(plan, groups=(), memory=Memory(recompute=name)), model)
        for name in RECOMPUTES
    )
    stages = _stages(plan, model)
    pieces = Pieces.of(p, kinds, recomputes=again, zero=_other_zero(plan))
    share = _share(plan, model, kinds, stages)
    cost = rank_cost(share, pieces)
    seconds = float(step_s(p, cost, on))
    ranks = (len(on.parts),)
    price = np.broadcast_to(p.machine.price_per_s, ranks).sum() * plan.mesh.size / len(on.parts)
    return Staged(
        plan,
        tuple(float(sum(weights.values())) for weights in stages),
        share,
        cost,
        on,
        np.broadcast_to(p.machine.memory_bytes, ranks),
        seconds,
        float(price * seconds),
    )


def step_s(p: Pricing, cost: RankCost, on: Wires) -> Number:
    """Give the seconds of steps; the last axis of `cost` is the pipeline.

    For the busiest rank the others fill and drain the pipeline, as in the estimate of a plan. A
    message within a part is hidden as the software hides it. One that leaves it hides behind other
    micro-batches only: as many as a rank holds make the way to the last rank and back in one round,
    and no link carries more than it can.
    """
    c, m, ranks = p.choice, p.choice.micro_batches, len(on.parts)
    parts = (cost.load.forward_s, cost.load.inputs_s, cost.load.weights_s)
    total, besides = np.broadcast_arrays(cost.load.total_s, sends_s(p, on) + cost.tail_s)
    waits = filled(c, Load(*(part.mean(-1) for part in parts)))
    busiest = ((m - waits[..., None]) * total + besides).argmax(-1)[..., None]

    def of_busiest(values: Number) -> Number:
        return np.take_along_axis(np.broadcast_to(values, total.shape), busiest, -1)[..., 0]

    own = [of_busiest(part) for part in parts]
    others = [
        (part.sum(-1) - one) / max(ranks - 1, 1) for part, one in zip(parts, own, strict=True)
    ]
    bubble = bubble_s(c, slowest=Load(*own), others=Load(*others))
    fill = 2 * on.send_s.sum(-1)
    seconds = m * of_busiest(total) + bubble + of_busiest(besides) + fill
    if on.crosses.any():
        far = np.where(on.crosses, on.send_s, 0.0)
        most = _held(c, ranks)
        after = np.cumsum(total[..., ::-1], -1)[..., ::-1]
        way = 2 * np.append(np.cumsum(far[::-1])[::-1], 0.0)
        rounds = m / most * (after + way) + total.sum(-1, keepdims=True) - after
        busy = np.max(on.busy_s, where=on.crosses, initial=0.0)
        link = total.sum(-1) + (m - 1) * busy + fill
        seconds = np.maximum(seconds, np.maximum(rounds.max(-1), link))
    return whole_s(p, seconds)


def filled(c: Choice, load: Load) -> Number:
    """Give for how many micro-batches of each other rank a step waits: for one under 1F1B.

    Args:
        c: The plan.
        load: Of the ranks, if they were alike.
    """
    idle = bubble_s(c, slowest=load, others=load)
    return np.asarray(idle / (np.maximum(c.pp - 1, 1) * load.total_s))


def whole_s(p: Pricing, seconds: Number) -> Number:
    """Give the seconds of steps with what every step costs, and what its slowest rank loses."""
    straggle = p.stack.straggle * np.log2(np.maximum(p.choice.devices / 8, 1.0))
    return np.asarray((seconds + p.stack.step_s) * (1 + straggle))


def sends_s(p: Pricing, on: Wires) -> Number:
    """Give the seconds of a step's messages within a part that nothing hides, by rank."""
    near, c = np.where(on.crosses, 0.0, on.send_s), p.choice
    none = np.zeros((*near.shape[:-1], 1))
    beside = np.maximum(np.concatenate([near, none], -1), np.concatenate([none, near], -1))
    steady = 2 * c.interleave * c.micro_batches * beside
    return np.asarray(steady * (1 - p.stack.send_overlap))


def _held(c: Choice, ranks: int) -> Number:
    """Give the most micro-batches that each rank holds at once."""
    name, each = SCHEDULES[int(c.schedule)], np.arange(ranks, dtype=np.float64)
    return held(name, p=ranks, v=c.interleave, m=c.micro_batches, r=each)


def even(layers: int, *, stages: int) -> tuple[int, ...]:
    """Give the layers of each stage as a plan has them that leaves the cut open.

    Where they do not divide evenly, stages at the ends, which embed and predict, have one less.
    """
    most, missing = -(-layers // stages), -layers % stages
    ends = dict.fromkeys(at for i in range(stages) for at in (stages - 1 - i, i))
    fewer = [*ends][:missing]
    return tuple(most - (stage in fewer) for stage in range(stages))


def ends(schedule: ScheduleName, ranks: int) -> tuple[Number, Number]:
    """Give which ranks have the embedding, and which the output layer, or what share of them."""
    first, last = np.eye(ranks)[0], np.eye(ranks)[-1]
    match schedule:
        case "vocabulary":
            return np.full(ranks, 1 / ranks), np.full(ranks, 1 / ranks)
        case "zb-v":
            return first, first
        case _:
            return first, last


def rank_of(stage: int, *, ranks: int, schedule: ScheduleName) -> int:
    """Give the pipeline rank of a stage."""
    lap, place = divmod(stage, ranks)
    return ranks - 1 - place if schedule == "zb-v" and lap % 2 else place


Stage = dict[int, float]
"""The layers of a stage, and how much of each: 1, or what share of it an attention or feed-forward
block is."""


def _stages(plan: Plan, model: Model) -> list[Stage]:
    if not plan.pipeline.cut:
        counts = even(model.layers + model.mtp_layers, stages=plan.stages)
        return [
            dict.fromkeys(range(a, b), 1.0)
            for a, b in pairwise(accumulate(counts, initial=0))
        ]  # fmt: skip
    found: list[Stage] = [{} for _ in range(plan.stages)]
    shares = _block_shares(model, plan.batch.seq)
    for stage, (first, stop) in enumerate(pairwise((*plan.pipeline.cut, len(model.blocks)))):
        for block, share in zip(model.blocks[first:stop], shares[first:stop], strict=True):
            if share:
                found[stage][block.layer] = found[stage].get(block.layer, 0.0) + share
    return found


def _block_shares(model: Model, positions: int) -> list[float]:
    """Give what share of its layer each block is, by FLOPs; 0 of what is of no layer."""
    inner = (BlockKind.ATTENTION, BlockKind.FEED_FORWARD, BlockKind.EXPERTS)
    flops = [
        model.block_flops(b, positions=positions) if b.kind in inner else 0.0 for b in model.blocks
    ]
    total: dict[int, float] = {}
    for block, own in zip(model.blocks, flops, strict=True):
        total[block.layer] = total.get(block.layer, 0.0) + own
    return [
        own / total[b.layer] if own else 0.0 for b, own in zip(model.blocks, flops, strict=True)
    ]


def _other_zero(plan: Plan) -> int:
    """Give the ZeRO stage besides the plan's that groups have; where none does, any other."""
    own = plan.words
    found, problems = set[int](), []
    for i, group in enumerate(plan.groups):
        words = words_of(plan.mesh, group.rules or plan.rules)
        if replace(words, zero=own.zero, shard=own.shard) != own:
            rule = "differ from the plan's in more than in what data-parallel ranks shard"
            problems.append(
                Problem(f"groups.{i}.rules", rule, "change parameter and gradient only")
            )
        found |= {words.zero} - {own.zero}
    if len(found) > 1:
        rule = f"groups rest by the ZeRO stages {', '.join(map(str, sorted(found)))}"
        problems.append(Problem("groups", rule, "use one besides the plan's"))
    if problems:
        raise PlanError(problems)
    return found.pop() if found else other_zero(own.zero)


def _share(plan: Plan, model: Model, kinds: Kinds, stages: list[Stage]) -> Share:
    """Give what of the model each pipeline rank has."""
    ranks = plan.extent("pp")
    layers, other = np.zeros((ranks, len(RECOMPUTES), len(kinds))), np.zeros(ranks)
    own = plan.words.zero
    for stage, weights in enumerate(stages):
        rank = rank_of(stage, ranks=ranks, schedule=plan.pipeline.schedule)
        for place, (layer, weight) in enumerate(weights.items()):
            at = plan.at(layer)
            some = at.memory.recompute_layers
            again = at.memory.recompute if some is None or place < some else "none"
            layers[rank, RECOMPUTES.index(again), kinds.of_layer[layer]] += weight
            if plan.groups and at.rules != plan.rules and words_of(plan.mesh, at.rules).zero != own:
                other[rank] += weight
    embeds, predicts = ends(plan.pipeline.schedule, ranks)
    return Share(np.arange(ranks, dtype=np.float64), layers, other, embeds, predicts)
