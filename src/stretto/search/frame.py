"""A plan but for who has which layers, and how those rest and run again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, groupby, pairwise

import numpy as np

from stretto.cost import SCHEDULES, Choice, Number, Pricing
from stretto.cost.bubble import Load
from stretto.model import Model
from stretto.plan import Group, Memory, Plan, Recompute, ScheduleName
from stretto.plan.words import laid_out
from stretto.rules import Rules
from stretto.search.ranks import Kinds, Pieces, RankCost, Share, rank_cost
from stretto.search.row import ORDERS, Row, choice_of, plan_of
from stretto.search.staged import Staged, ends, even, filled, priced, rank_of, step_s, whole_s
from stretto.search.task import RECOMPUTES, Task
from stretto.search.wires import Wires, wires


@dataclass(frozen=True)
class Frame:
    """A plan but for who has which layers, and how those rest and run again.

    Attributes:
        task: What it is for.
        row: What it decides; what it recomputes does not count.
        zero: The ZeRO stage by which some layers may rest instead of the plan's; None for none.
    """

    task: Task
    row: Row
    zero: int | None = None

    @cached_property
    def plan(self) -> Plan:
        """The plan, that recomputes nothing."""
        zero = np.zeros(())
        return plan_of(replace(self.row, recompute=zero, recompute_layers=zero), self.task)

    @cached_property
    def choice(self) -> Choice:
        """Its numbers."""
        return choice_of(self.row, self.task)

    @cached_property
    def kinds(self) -> Kinds:
        """The kinds of layer."""
        return Kinds.of(self.task.model)

    @cached_property
    def on(self) -> Wires:
        """What its pipeline ranks lie on."""
        task = self.task
        return wires(Pricing(task.shape, self.choice, task.machine, task.stack), task.cluster)

    @cached_property
    def pricing(self) -> Pricing:
        """What is priced, with the machine of each rank."""
        return Pricing(self.task.shape, self.choice, self.on.machine, self.task.stack)

    @cached_property
    def pieces(self) -> Pieces:
        """What layers and ends take."""
        again = self.task.choices
        return Pieces.of(self.pricing, self.kinds, recomputes=again, zero=self.zero)

    @cached_property
    def least_s(self) -> float:
        """Seconds below which no step can be: ranks are equally busy, and nothing runs again."""
        each = np.broadcast_to(self.layer_s, self.ranks)
        layers = len(self.kinds.of_layer) + self.pieces.head.total_s.min() / each.min()
        busy, alone = layers / (1 / each).sum(), layers * each.min()
        m, fill = self.choice.micro_batches, 2 * self.on.send_s.sum()
        far = np.max(self.on.busy_s, where=self.on.crosses, initial=0.0)
        seconds = max((m - self.filled) * busy + self.filled * alone, (m - 1) * far + alone) + fill
        return float(whole_s(self.pricing, np.asarray(seconds)))

    @cached_property
    def filled(self) -> Number:
        """For how many micro-batches of each other rank a step waits."""
        layer = self.pieces.layer
        parts = (layer.forward_s, layer.inputs_s, layer.weights_s)
        return filled(self.choice, Load(*(np.asarray(part.flat[0]) for part in parts)))

    @cached_property
    def layer_s(self) -> Number:
        """Seconds of a micro-batch in the mean layer of each rank, or of all."""
        counts = np.bincount(self.kinds.of_layer, minlength=len(self.kinds))
        return np.asarray(self.pieces.layer.total_s[..., 0, :] @ counts / counts.sum())

    @property
    def ranks(self) -> int:
        """Pipeline ranks."""
        return int(self.choice.pp)

    @property
    def schedule(self) -> ScheduleName:
        """Of its pipeline."""
        return SCHEDULES[int(self.choice.schedule)]

    @property
    def free(self) -> bool:
        """Whether stages may be cut anywhere: each rank of a pipeline has one."""
        return self.stages == self.ranks > 1

    @property
    def stages(self) -> int:
        """All stages."""
        return self.ranks * int(self.choice.interleave)

    @cached_property
    def even_stages(self) -> tuple[tuple[int, ...], ...]:
        """The layers of each stage where the cut is left open."""
        stops = accumulate(even(len(self.kinds.of_layer), stages=self.stages), initial=0)
        return tuple(tuple(range(a, b)) for a, b in pairwise(stops))

    @cached_property
    def own_layers(self) -> tuple[tuple[int, ...], ...]:
        """The layers of each rank where the cut is left open."""
        found: list[tuple[int, ...]] = [()] * self.ranks
        for stage, layers in enumerate(self.even_stages):
            found[rank_of(stage, ranks=self.ranks, schedule=self.schedule)] += layers
        return tuple(found)

    def rules(self, zero: int) -> Rules:
        """Give the rules by which layers rest by a ZeRO stage."""
        words = self.plan.words
        shard = words.shard if words.zero else words.dp * words.cp
        changed = replace(words, zero=zero, shard=shard)
        return laid_out(changed, order=ORDERS[int(self.row.order)])[1]


@dataclass(frozen=True)
class Split:
    """Who has which layers, and how those rest and run again.

    Attributes:
        frame: What else is decided.
        layers: Of each rank, in order.
        again: Of each rank, how many layers run again, by way and kind.
        other: Of each rank, how many layers rest by the frame's other ZeRO stage.
    """

    frame: Frame
    layers: tuple[tuple[int, ...], ...]
    again: Number
    other: Number

    @property
    def share(self) -> Share:
        """What each rank has."""
        index = np.arange(self.frame.ranks, dtype=np.float64)
        return Share(index, self.again, self.other, *ends(self.frame.schedule, self.frame.ranks))

    @cached_property
    def cost(self) -> RankCost:
        """What each rank takes."""
        return rank_cost(self.share, self.frame.pieces)

    @cached_property
    def step_s(self) -> float:
        """Seconds of a step."""
        return float(step_s(self.frame.pricing, self.cost, self.frame.on))

    def priced(self) -> Staged:
        """Give the plan with its price, rank by rank."""
        task = self.frame.task
        return priced(self.plan, task.model, cluster=task.cluster, stack=task.stack)

    @property
    def plan(self) -> Plan:
        """The plan, without groups and cut where it can say so otherwise."""
        frame, plan = self.frame, self.frame.plan
        stages = self.layers if frame.stages == frame.ranks else frame.even_stages
        if self.layers != frame.own_layers:
            first = [rank[0] if rank else None for rank in self.layers]
            cut = _cut(first, frame.task.model)
            plan = replace(plan, pipeline=replace(plan.pipeline, cut=cut))
        ways = dict(way for rank in range(frame.ranks) for way in self._ways(rank))
        if short := _short([[ways[layer] for layer in stage] for stage in stages], plan):
            return replace(plan, memory=short)
        return replace(plan, groups=tuple(self._groups(ways)))

    def _ways(self, rank: int) -> Iterator[tuple[int, Way]]:
        """Give what runs again of each layer of a rank, and by which ZeRO stage it rests.

        Of layers that are alike the first run again, and the first rest by the other stage.
        """
        left, rest = self.again[rank].astype(np.int64), round(self.other[rank])
        for place, layer in enumerate(self.layers[rank]):
            kind = self.frame.kinds.of_layer[layer]
            way = int(np.flatnonzero(left[:, kind])[-1])
            left[way, kind] -= 1
            yield layer, (RECOMPUTES[way], self.frame.zero if place < rest else None)

    def _groups(self, ways: dict[int, Way]) -> Iterator[Group]:
        """Give the layers that differ from the plan, which recomputes nothing."""
        layers = range(self.frame.task.model.layers)
        for (again, zero), run in groupby(layers, key=ways.__getitem__):
            first, *others = run
            recompute = again if again != "none" else None
            rules = None if zero is None else self.frame.rules(zero)
            if recompute or rules:
                yield Group((first, first + 1 + len(others)), recompute, rules)


def as_is(frame: Frame) -> Split:
    """Give the layers to the ranks as the plan of a search does."""
    way, some = int(frame.row.recompute), int(frame.row.recompute_layers)
    again = np.zeros((frame.ranks, *frame.pieces.kept_bytes.shape))
    for stage, layers in enumerate(frame.even_stages):
        rank = rank_of(stage, ranks=frame.ranks, schedule=frame.schedule)
        for place, layer in enumerate(layers):
            here = way if some == 0 or place < some else 0
            again[rank, here, frame.kinds.of_layer[layer]] += 1
    return Split(frame, frame.own_layers, again, np.zeros(frame.ranks))


Way = tuple[Recompute, int | None]
"""What runs again of a layer, and the ZeRO stage by which it rests; None for the plan's."""


def _short(stages: Sequence[Sequence[Way]], plan: Plan) -> Memory | None:
    """Give the memory of a plan without groups in which layers run again so; None if none does."""
    if any(zero is not None for stage in stages for _, zero in stage):
        return None
    again = {way for stage in stages for way, _ in stage}
    if len(again) == 1:
        return replace(plan.memory, recompute=again.pop())
    counts = {sum(way == "full" for way, _ in stage) for stage in stages}
    front = all(stage[i][0] == "full" for stage in stages for i in range(min(counts)))
    if again == {"full", "none"} and len(counts) == 1 and front:
        return replace(plan.memory, recompute="full", recompute_layers=counts.pop())
    return None


def _cut(firsts: Sequence[int | None], model: Model) -> tuple[int, ...]:
    """Give the first block of each stage from its first layer; a stage without any has an end."""
    blocks = model.blocks
    found = []
    for stage, layer in enumerate(firsts):
        inner = [i for i, block in enumerate(blocks) if block.layer == layer]
        found.append(0 if stage == 0 else inner[0] if layer is not None else len(blocks) - 1)
    return tuple(found)
