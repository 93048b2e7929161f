"""What every trainer is told: a model, a plan of it in the usual words, a recipe, and the nodes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from stretto.errors import PlanError
from stretto.mesh import Mesh
from stretto.model import Model
from stretto.plan import Plan, Words
from stretto.plan.words import laid_out
from stretto.recipe import Recipe
from stretto.rules import COMPUTE_DIMS, Rules, Store
from stretto.schedule.cut import balanced


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage holds.

    Attributes:
        embedding: Whether it begins with the embedding.
        layers: Indices of its layers.
        ahead: Number of its layers that predict further ahead.
        head: Whether it ends with the head.
    """

    embedding: bool
    layers: range
    ahead: int
    head: bool


@dataclass(frozen=True)
class Job:
    """What is to be trained, and how.

    Attributes:
        model: The model.
        plan: How it lies on the ranks.
        recipe: How its weights change.
        per_node: Devices of a node.
    """

    model: Model
    plan: Plan
    recipe: Recipe
    per_node: int

    @cached_property
    def words(self) -> Words:
        """The usual words for the plan's mesh and rules."""
        return self.plan.words

    @property
    def world(self) -> int:
        """The number of ranks."""
        return self.plan.mesh.size

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return -(-self.world // self.per_node)

    def fits(self, order: Sequence[str]) -> bool:
        """Tell whether the usual words, laid out in `order`, outermost first, give this plan."""
        try:
            mesh, rules = laid_out(self.words, order=order)
        except PlanError:
            return False
        return _places(mesh, rules) == _places(self.plan.mesh, self.plan.rules)

    @cached_property
    def firsts(self) -> tuple[int, ...]:
        """The blocks before which other trainers can cut: between layers, not within one."""
        layers = [block.layer for block in self.model.blocks]
        return tuple(i for i, layer in enumerate(layers) if i == 0 or layer != layers[i - 1])

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """What each stage holds, in the order of the chain; balanced by FLOPs if the plan asks.

        Nothing where there are more stages than other trainers could fill.
        """
        blocks, cut = self.model.blocks, self.plan.pipeline.cut
        if self.plan.stages > len(self.firsts):
            return ()
        if not cut:
            seq, edges = self.plan.batch.seq, itertools.pairwise([*self.firsts, len(blocks)])
            flops = [self.model.block_flops(block, positions=seq) for block in blocks]
            costs = [sum(flops[i:j]) for i, j in edges]
            cut = tuple(self.firsts[i] for i in balanced(costs, self.plan.stages))
        return tuple(self._stage(i, j) for i, j in itertools.pairwise([*cut, len(blocks)]))

    def _stage(self, start: int, stop: int) -> Stage:
        held = sorted({b.layer for b in self.model.blocks[start:stop]} - {-1})
        ahead = sum(layer >= self.model.layers for layer in held)
        own = held[: len(held) - ahead]
        layers = range(own[0], own[-1] + 1) if own else range(0)
        return Stage(start == 0, layers, ahead, stop == len(self.model.blocks))

    @property
    def even(self) -> bool:
        """Whether all stages hold as many layers, and the last what predicts further ahead."""
        ahead = any(stage.ahead for stage in self.stages[:-1])
        return not ahead and len({len(stage.layers) for stage in self.stages}) == 1

    @property
    def warmup_steps(self) -> int:
        """The number of steps in which the learning rate rises."""
        return max(1, round(self.recipe.warmup * self.recipe.steps))

    @property
    def decay_steps(self) -> int:
        """The number of steps in which ``wsd`` falls."""
        return max(1, round(self.recipe.decay * self.recipe.steps))

    @property
    def final_lr(self) -> float:
        """The learning rate at the end."""
        share = 1.0 if self.recipe.schedule == "constant" else self.recipe.final_lr
        return share * self.recipe.lr


def _places(mesh: Mesh, rules: Rules) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Give how ranks lie for each dimension in use and each store, whatever axes are called."""
    resting = [
        {axis for _, axes in rules.storage(store) for axis in mesh.expand(axes)} for store in Store
    ]
    stored = [sorted(axes, key=mesh.names.index) for axes in resting]
    used = [rules.axes(dim) for dim in COMPUTE_DIMS]
    return tuple(_strides(mesh, names) for names in (("pp",), *used, *stored))


def _strides(mesh: Mesh, names: Iterable[str]) -> tuple[tuple[int, int], ...]:
    """Give (extent, stride) of axes, outermost first; those that lie within each other as one."""
    stride, size = {}, 1
    for axis, extent in reversed(mesh.axes):
        stride[axis] = size
        size *= extent
    found: list[tuple[int, int]] = []
    for axis in mesh.expand(n for n in names if n in mesh.names):
        extent = mesh.extent(axis)
        if found and found[-1][1] == extent * stride[axis]:
            extent *= found.pop()[0]
        found.append((extent, stride[axis]))
    return tuple(found)
