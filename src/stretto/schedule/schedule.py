"""A schedule: for each pipeline rank an ordered list of actions. A value that checks itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Pass(StrEnum):
    """The direction of an action."""

    FORWARD = "forward"
    BACKWARD = "backward"


@dataclass(frozen=True, slots=True)
class Action:
    """One stage's work on one micro-batch.

    Attributes:
        direction: Forward or backward.
        stage: Which slice of the model.
        micro_batch: Which micro-batch of the step.
    """

    direction: Pass
    stage: int
    micro_batch: int

    def __str__(self) -> str:
        return f"{self.direction[0].upper()}{self.micro_batch}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """The order of work of every pipeline rank.

    Attributes:
        stages: Number of stages; stage s runs on rank s % len(ranks).
        micro_batches: Number of micro-batches.
        ranks: For each pipeline rank its actions, in order.
    """

    stages: int
    micro_batches: int
    ranks: tuple[tuple[Action, ...], ...]

    def __post_init__(self) -> None:
        """Check that each stage runs each micro-batch once per direction, without deadlock."""
        wanted = {
            Action(d, s, m)
            for d in Pass
            for s in range(self.stages)
            for m in range(self.micro_batches)
        }
        actions = [a for rank in self.ranks for a in rank]
        assert len(actions) == len(wanted) and set(actions) == wanted, "an action is missing"
        for r, rank in enumerate(self.ranks):
            assert all(a.stage % len(self.ranks) == r for a in rank), "an action is on a wrong rank"
        for direction in Pass:
            orders = {self._order(direction, stage) for stage in range(self.stages)}
            assert len(orders) == 1, "stages differ in the order of micro-batches, so of messages"
        self.times({Pass.FORWARD: 1.0, Pass.BACKWARD: 1.0})

    def _order(self, direction: Pass, stage: int) -> tuple[int, ...]:
        """Give the micro-batches of a stage in the order in which it runs them."""
        rank = self.ranks[stage % len(self.ranks)]
        return tuple(a.micro_batch for a in rank if (a.direction, a.stage) == (direction, stage))

    def needs(self, action: Action) -> tuple[Action, ...]:
        """Give the actions whose results `action` reads."""
        direction, stage, m = action.direction, action.stage, action.micro_batch
        match direction:
            case Pass.FORWARD:
                return (Action(direction, stage - 1, m),) if stage else ()
            case Pass.BACKWARD:
                after = (Action(direction, stage + 1, m),) if stage + 1 < self.stages else ()
                return (Action(Pass.FORWARD, stage, m), *after)

    def times(self, cost_s: Mapping[Pass, float]) -> dict[Action, tuple[float, float]]:
        """Give (start, stop) of every action if transfers took no time.

        Args:
            cost_s: Seconds of a forward and of a backward action; every stage takes the same.

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
                    start = max([clock[r], *(done[n][1] for n in self.needs(action))])
                    clock[r] = start + cost_s[action.direction]
                    done[action] = (start, clock[r])
                    at[r] += 1
                    moved = True
            if not moved:
                break
        assert all(a == len(rank) for a, rank in zip(at, self.ranks, strict=True)), "deadlock"
        return done

    def bubble(self, cost_s: Mapping[Pass, float]) -> float:
        """Give the share of the step in which a rank idles, if transfers took no time."""
        times = self.times(cost_s)
        total = max(stop for _, stop in times.values())
        work = sum(stop - start for start, stop in times.values())
        return 1.0 - work / (total * len(self.ranks))

    def in_flight(self, rank: int) -> int:
        """Give the most (stage, micro-batch) pairs whose activations `rank` holds at once."""
        held = most = 0
        for action in self.ranks[rank]:
            held += 1 if action.direction is Pass.FORWARD else -1
            most = max(most, held)
        return most
