"""The ways in which the ranks of one plan may share its layers, and the plan that the best is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from stretto.cost import Choice, Number, Pricing
from stretto.plan import Plan
from stretto.search.ranks import Kinds, Pieces
from stretto.search.task import Task
from stretto.search.wires import Wires, wires

Mix = Callable[["Frame", tuple[int, ...]], Number]
"""Gives what may run again of some layers, given by their kinds in order: how many of each kind by
way, one mixture to a place of the first axis."""


@dataclass(frozen=True)
class Frame:
    """What a plan decides but for who has which layers, and how those rest and run again.

    Attributes:
        task: What it is for.
        plan: The plan, that recomputes nothing.
        choice: Its numbers.
        zero: The ZeRO stage by which some layers may rest instead of the plan's.
    """

    task: Task
    plan: Plan
    choice: Choice
    zero: int

    @cached_property
    def kinds(self) -> Kinds:
        """The kinds of layer."""
        return Kinds.of(self.task.model)

    @cached_property
    def whole(self) -> Pricing:
        """What is priced, on the machine of the whole cluster."""
        return Pricing(self.task.shape, self.choice, self.task.machine, self.task.stack)

    @cached_property
    def on(self) -> Wires:
        """What its ranks lie on."""
        return wires(self.whole, self.task.cluster)

    @cached_property
    def pieces(self) -> Pieces:
        """What layers and ends take."""
        p = replace(self.whole, machine=self.on.machine)
        return Pieces.of(p, self.kinds, recomputes=self.task.choices, zero=self.zero)

    @property
    def ranks(self) -> int:
        """Of the pipeline."""
        return int(self.choice.pp)

    def rows(self) -> None:
        ...
