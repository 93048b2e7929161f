"""A schedule: for each pipeline rank an ordered list of actions. A value that checks itself."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Placement = Literal["loop", "v"]
"""Which rank runs a stage: ``loop`` begins again with the first rank when all ranks have one
(Narayanan et al., 2021), ``v`` turns around at the last (Qi et al., 2023)."""


class Pass(StrEnum):
    """What an action does.

    A schedule's backward is whole (``BACKWARD``), or split into the gradient of a stage's input,
    for which the stage before waits, and that of its weights, for which nobody does (Qi et al.,
    2023). Where all ranks share the vocabulary layers (Yeung et al., 2024), ``VOCABULARY`` is a
    rank's part of logits, softmax and input gradient (the paper's S), and ``VOCABULARY_WEIGHT``
    its part of the weight gradient (T).
    """

    FORWARD = "forward"
    BACKWARD = "backward"
    INPUT_GRADIENT = "input-gradient"
    WEIGHT_GRADIENT = "weight-gradient"
    VOCABULARY = "vocabulary"
    VOCABULARY_WEIGHT = "vocabulary-weight"

    @property
    def letter(self) -> str:
        """The letter that stands for it in a grid."""
        return _LETTERS[self]


_LETTERS = dict(zip(Pass, "FBIWST", strict=True))

_WHOLE = frozenset({Pass.FORWARD, Pass.BACKWARD})
_SPLIT = frozenset({Pass.FORWARD, Pass.INPUT_GRADIENT, Pass.WEIGHT_GRADIENT})
_SHARED = _WHOLE | {Pass.VOCABULARY, Pass.VOCABULARY_WEIGHT}

Costs = Mapping[Pass, float | Sequence[float]]
"""Seconds of each pass: one number for all stages, or one for each."""


@dataclass(frozen=True, slots=True)
class Action:
    """One stage's work on one micro-batch.

    Attributes:
        direction: Which pass.
        stage: Which slice of the model; of a vocabulary pass, the slice beside which it runs.
        micro_batch: Which micro-batch of the step.
    """

    direction: Pass
    stage: int
    micro_batch: int

    def __str__(self) -> str:
        return f"{self.direction.letter}{self.micro_batch}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """The order of work of every pipeline rank.

    Attributes:
        stages: Number of stages, a multiple of the number of ranks.
        micro_batches: Number of micro-batches.
        ranks: For each pipeline rank its actions, in order.
        placement: Which rank runs a stage.
        passes: What its actions do.
    """

    stages: int
    micro_batches: int
    ranks: tuple[tuple[Action, ...], ...]
    placement: Placement = "loop"
    passes: frozenset[Pass] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check that each stage does each pass on each micro-batch once, without deadlock."""
        assert self.stages % len(self.ranks) == 0, "ranks differ in their number of stages"
        passes = frozenset(a.direction for rank in self.ranks for a in rank)
        object.__setattr__(self, "passes", passes)
        assert passes in (_WHOLE, _SPLIT, _SHARED), "the passes are not those of one backward"
        wanted = {
            Action(d, s, m)
            for d in passes
            for s in range(self.stages)
            for m in range(self.micro_batches)
        }
        actions = [a for rank in self.ranks for a in rank]
        assert len(actions) == len(wanted) and set(actions) == wanted, "an action is missing"
        for r, rank in enumerate(self.ranks):
            assert all(self.rank_of(a.stage) == r for a in rank), "an action is on a wrong rank"
        for direction in passes:
            orders = {self._order(direction, stage) for stage in range(self.stages)}
            assert len(orders) == 1, "stages differ in the order of micro-batches, so of messages"
        self.times(dict.fromkeys(Pass, 1.0))

    @property
    def chunks(self) -> int:
        """The number of stages that a rank runs."""
        return self.stages // len(self.ranks)

    def rank_of(self, stage: int) -> int:
        """Give the rank that runs a stage."""
        lap, place = divmod(stage, len(self.ranks))
        return len(self.ranks) - 1 - place if self.placement == "v" and lap % 2 else place

    def _order(self, direction: Pass, stage: int) -> tuple[int, ...]:
        """Give the micro-batches of a stage in the order in which it runs them."""
        rank = self.ranks[self.rank_of(stage)]
        return tuple(a.micro_batch for a in rank if (a.direction, a.stage) == (direction, stage))

    def needs(self, action: Action) -> tuple[Action, ...]:
        """Give the actions whose results `action` reads."""
        direction, stage, m = action.direction, action.stage, action.micro_batch
        last = self.stages - 1
        match direction:
            case Pass.FORWARD:
                return (Action(direction, stage - 1, m),) if stage else ()
            case Pass.BACKWARD | Pass.INPUT_GRADIENT:
                after = (Action(direction, stage + 1, m),) if stage < last else self._vocabulary(m)
                return (Action(Pass.FORWARD, stage, m), *after)
            case Pass.WEIGHT_GRADIENT:
                return (Action(Pass.INPUT_GRADIENT, stage, m),)
            case Pass.VOCABULARY:
                return (Action(Pass.FORWARD, last, m),)
            case Pass.VOCABULARY_WEIGHT:
                return self._vocabulary(m)

    def _vocabulary(self, micro_batch: int) -> tuple[Action, ...]:
        """Give what the barrier after the vocabulary passes waits for."""
        if Pass.VOCABULARY not in self.passes:
            return ()
        return tuple(Action(Pass.VOCABULARY, s, micro_batch) for s in range(self.stages))

    def times(self, cost_s: Costs, *, transfer_s: float = 0.0) -> dict[Action, tuple[float, float]]:
        """Give (start, stop) of every action, in seconds.

        Args:
            cost_s: Seconds of each pass.
            transfer_s: Seconds from the end of an action until another rank has its result; no
                rank is busy meanwhile.

        Raises:
            AssertionError: The schedule deadlocks.
        """
        done: dict[Action, tuple[float, float]] = {}
        at = [0] * len(self.ranks)
        clock = [0.0] * len(self.ranks)
        while True:
            moved = False
            for r, rank in enumerate(self.ranks):
                while at[r] < len(rank) and all(n in done for n in self.needs(rank[at[r]])):
                    action = rank[at[r]]
                    start = clock[r]
                    for n in self.needs(action):
                        sent = 0.0 if self.rank_of(n.stage) == r else transfer_s
                        start = max(start, done[n][1] + sent)
                    clock[r] = start + _cost_s(action, cost_s)
                    done[action] = (start, clock[r])
                    at[r] += 1
                    moved = True
            if not moved:
                break
        assert all(a == len(rank) for a, rank in zip(at, self.ranks, strict=True)), "deadlock"
        return done

    def step_s(self, cost_s: Costs, *, transfer_s: float = 0.0) -> float:
        """Give the seconds from one step to the next: the longest from a rank's first to its last.

        So long a step is where a rank's update waits for no other rank (Qi et al., 2023, section
        4). Where all wait for all, it takes as long as from the first action to the last of any:
        the same but for the schedules in which the first rank is not the last to finish, the
        zero-bubble ones.

        Args:
            cost_s: Seconds of each pass.
            transfer_s: Seconds from the end of an action until another rank has its result.
        """
        times = self.times(cost_s, transfer_s=transfer_s)
        return max(times[rank[-1]][1] - times[rank[0]][0] for rank in self.ranks)

    def bubble(self, cost_s: Costs, *, transfer_s: float = 0.0) -> float:
        """Give the share of a step in which a rank idles, in the mean over ranks.

        Args:
            cost_s: Seconds of each pass.
            transfer_s: Seconds from the end of an action until another rank has its result.
        """
        work = sum(_cost_s(action, cost_s) for rank in self.ranks for action in rank)
        return 1.0 - work / (self.step_s(cost_s, transfer_s=transfer_s) * len(self.ranks))

    def in_flight(self, rank: int, *, kept: float = 1.0) -> float:
        """Give the most activations that `rank` holds at once, in those of a stage's micro-batch.

        Args:
            rank: Which rank.
            kept: Share of a micro-batch's activations that its weight gradient needs, and that is
                held on from its input gradient until then.
        """
        change = {
            Pass.FORWARD: 1.0,
            Pass.BACKWARD: -1.0,
            Pass.INPUT_GRADIENT: kept - 1.0,
            Pass.WEIGHT_GRADIENT: -kept,
            Pass.VOCABULARY: 0.0,
            Pass.VOCABULARY_WEIGHT: 0.0,
        }
        return max(itertools.accumulate(change[a.direction] for a in self.ranks[rank]))


def _cost_s(action: Action, cost_s: Costs) -> float:
    cost = cost_s[action.direction]
    return cost[action.stage] if isinstance(cost, Sequence) else cost
