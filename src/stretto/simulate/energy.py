"""The frontier of a step's time against its energy, by slowing what nobody waits for.

A device draws less than in proportion when its clock is lowered, so work off the critical path is
better done slowly: it ends when it is needed and not before (Chung et al., 2024, "Perseus"). Which
instruction runs at which clock for the least energy, given when the step is to end, is a convex
problem on the graph of the step's tasks, the time-cost trade-off of project planning (Kelley,
1961): the energy of a task falls convexly with its length. With every curve as `PIECES` chords it
is a linear program, solved whole. Its answers are played, and what ends too late is slowed less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stretto.cluster import Cluster, Power
from stretto.cost.stack import Stack
from stretto.errors import InputError, Problem
from stretto.program.instruction import Program
from stretto.simulate.chain import Chains, chains
from stretto.simulate.fault import Fault
from stretto.simulate.graph import Floats, Graph, graph
from stretto.simulate.play import play
from stretto.simulate.site import Site
from stretto.simulate.symmetry import Ints

LOWEST = 0.7
"""The clock, as a fraction of the highest, below which the voltage falls no further.

Above it dynamic power grows as the cube of the clock, frequency times voltage squared; below it
the energy of an operation is constant, and nothing is to be had. Where that is differs by device
and is not in their data sheets: this is an assumption, of the form that measured GPUs have (You et
al., 2023).
"""

PIECES = 6
"""Chords in the place of a task's energy curve."""

LATE = 1.0005
"""How much later than planned a step may end, for rounding."""

BISECTIONS = 8

SLOWER = (1.0, 1.01, 1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4)
"""How much longer than the fastest step the points of the frontier are, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A step of the frontier.

    Attributes:
        step_s: Its seconds, played with the clocks.
        planned_s: By when it was to end.
        energy_j: What all devices draw in it, in joules.
        clock: Of each kind of rank, for each of its tasks on the device, the fraction of the
            highest clock; 1 for tasks that no clock slows.
        instruction: The instruction of each of them.
    """

    step_s: float
    planned_s: float
    energy_j: float
    clock: tuple[Floats, ...]
    instruction: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """Steps of which none takes less time and less energy than another.

    Attributes:
        alike: The kinds of ranks, the one that is played first.
        full_s: The step with every device at its highest clock.
        full_j: Its energy.
        points: From the fastest to the one of least energy.
    """

    alike: tuple[tuple[int, ...], ...]
    full_s: float
    full_j: float
    points: tuple[Point, ...]

    @property
    def free(self) -> float:
        """The share of energy that is saved without a slower step."""
        return 1.0 - self.points[0].energy_j / self.full_j


def frontier(
    program: Program, cluster: Cluster, *, stack: Stack, faults: Sequence[Fault] = ()
) -> Frontier:
    """Give the frontier of a step's time against its energy.

    Args:
        program: What every rank does.
        cluster: Where.
        stack: With which software.
        faults: What is wrong: beside a slow rank, all others have time.

    Raises:
        InputError: The cluster does not say what its devices draw.
    """
    power = [part.device.power_w for part in cluster.parts]
    if any(p.compute_bound <= p.idle for p in power):
        rule = f"{cluster.name} does not say that work draws more than waiting"
        raise InputError(Problem("power_w", rule, "write idle, memory_bound and compute_bound"))
    whole = graph(Site(program, cluster, stack, tuple(faults)))
    slow = graph(Site(program, _at_half(cluster), stack, tuple(faults)))
    clocked_s = np.where(whole.device >= 0, slow.work_s - whole.work_s, 0.0)  # as 2 - 1 is 1
    kinds = np.repeat(np.arange(len(power)), [part.devices for part in cluster.parts])
    draws = [power[kinds[player.ranks[0]]] for player in whole.players]
    return slowed(whole, clocked_s=clocked_s, draws=draws, contention=float(stack.contention))


def slowed(
    whole: Graph, *, clocked_s: Floats, draws: Sequence[Power], contention: float
) -> Frontier:
    """Give the frontier of a graph.

    Args:
        whole: What is done, at full clocks.
        clocked_s: Of each task the seconds that the clock of its device decides.
        draws: What the device of each player draws.
        contention: Share of a hidden message's time that it takes from the compute beside it.

    Raises:
        InputError: It never ends.
    """
    begun_s, done_s = play(whole, contention=contention)
    if not np.isfinite(done_s).all():
        raise InputError(Problem("faults", "the step does not end", "leave out what halts a rank"))
    return _Model(whole, clocked_s, draws, begun_s, done_s, contention).frontier()


def _at_half(cluster: Cluster) -> Cluster:
    """Give a cluster whose devices multiply half as fast."""
    parts = tuple(
        replace(
            part,
            device=replace(
                part.device,
                flops_per_s=tuple((name, rate / 2) for name, rate in part.device.flops_per_s),
            ),
        )
        for part in cluster.parts
    )
    return replace(cluster, parts=parts)


class _Model:
    """What the linear program is made of, and what its answers are played on."""

    def __init__(
        self,
        whole: Graph,
        clocked_s: Floats,
        draws: Sequence[Power],
        begun_s: Floats,
        done_s: Floats,
        contention: float,
    ) -> None:
        self.whole, self.clocked, self.contention = whole, clocked_s, contention
        self.full_s = float(done_s.max())
        self.many = np.array([float(len(player.ranks)) for player in whole.players])
        self.idle_w = np.array([p.idle for p in draws])
        self.memory_w = np.array([p.memory_bound for p in draws]) - self.idle_w
        self.compute_w = np.array([p.compute_bound for p in draws]) - self.idle_w
        self.chains: Chains = chains(whole, clocked_s=clocked_s, taken_s=done_s - begun_s)

    def frontier(self) -> Frontier:
        """Solve for every length of the step, and for the length of least energy."""
        least = self._solve(None)
        ends = [self.full_s * by for by in SLOWER if self.full_s * by < least.planned_s * 0.999]
        points: list[Point] = []
        for point in sorted([*map(self._solve, ends), least], key=lambda p: p.step_s):
            if not points or point.energy_j < points[-1].energy_j:
                points.append(point)
        ranks = tuple(player.ranks for player in self.whole.players)
        full = self._energy_j(np.ones_like(self.clocked), self.full_s)
        return Frontier(ranks, self.full_s, full, tuple(points))

    def _solve(self, end_s: float | None) -> Point:
        """Give the clocks of least energy for a step that ends by `end_s`, or whenever is best."""
        from scipy.optimize import linprog
        from scipy.sparse import csr_array

        c, last = self.chains, len(self.chains.taken_s)
        clocks = np.linspace(1.0, LOWEST, PIECES + 1)
        widths, falls = np.diff(1.0 / clocks), -np.diff(clocks**2) / np.diff(1.0 / clocks)
        movable = np.flatnonzero(c.clocked_s > 0)
        player = c.player[movable]
        saved = (self.many * self.compute_w)[player][:, None] * falls[None, :]
        # Variables: when each chain is done, then how much each is slowed, piece by piece.
        cost = np.concatenate([np.zeros(last), -saved.ravel(), [float(self.many @ self.idle_w)]])
        column = np.full(last, -1)
        column[movable] = last + PIECES * np.arange(len(movable))
        rows, columns, values, bound = _constraints(c, column)
        end = len(cost) - 1
        high: list[tuple[float, float | None]] = [(float(c.floor_s[v]), None) for v in range(last)]
        high += [(0.0, float(c.clocked_s[v] * w)) for v in movable for w in widths]
        high += [(self.full_s, end_s)]
        count = len(bound)
        rows = np.concatenate([rows, count + np.arange(last), count + np.arange(last)])
        columns = np.concatenate([columns, np.arange(last), np.full(last, end)])
        values = np.concatenate([values, np.ones(last), -np.ones(last)])
        matrix = csr_array((values, (rows, columns)), shape=(count + last, len(cost)))
        found = linprog(
            cost, A_ub=matrix, b_ub=np.append(bound, np.zeros(last)), bounds=high, method="highs"
        )
        assert found.success, f"the full clocks are feasible, but: {found.message}"
        later = np.zeros(last)
        later[movable] = found.x[last:end].reshape(-1, PIECES).sum(axis=1)
        slowed = np.zeros(last)
        slowed[movable] = later[movable] / c.clocked_s[movable]
        planned = float(found.x[end])
        return self._in_time(self.clocked * slowed[c.chain], planned, firm=end_s is not None)

    def _in_time(self, later_s: Floats, planned_s: float, *, firm: bool) -> Point:
        """Play the step with tasks that much longer, or as much of it as ends in time.

        What is slowed lies beside other messages than before, which the program does not see.
        """
        share, low, high = 1.0, 0.0, 1.0
        step_s = self._play_s(later_s)
        if firm and step_s > planned_s * LATE:
            for _ in range(BISECTIONS):
                share = (low + high) / 2
                if self._play_s(share * later_s) > planned_s * LATE:
                    high = share
                else:
                    low = share
            share = low
            step_s = self._play_s(share * later_s)
        clocked = np.where(self.clocked > 0, self.clocked, 1.0)
        return self._point(clocked / (clocked + share * later_s), step_s, planned_s)

    def _play_s(self, later_s: Floats) -> float:
        """Give the seconds of the step with tasks that much longer."""
        slowed = replace(self.whole, work_s=self.whole.work_s + later_s)
        return float(play(slowed, contention=self.contention)[1].max())

    def _point(self, clock: Floats, step_s: float, planned_s: float) -> Point:
        clocks, instructions = [], []
        for i, player in enumerate(self.whole.players):
            mine = self.whole.device[player.place] == i
            clocks.append(clock[player.place[mine]])
            instructions.append(tuple(np.array(player.tasks.instruction)[mine].tolist()))
        energy = self._energy_j(clock, step_s)
        return Point(step_s, planned_s, energy, tuple(clocks), tuple(instructions))

    def _energy_j(self, clock: Floats, step_s: float) -> float:
        """Give what all devices draw in a step."""
        busy = self.whole.device >= 0
        player = self.whole.device[busy]
        clocked, other = self.clocked[busy], (self.whole.work_s - self.clocked)[busy]
        work = self.compute_w[player] * clocked * clock[busy] ** 2 + self.memory_w[player] * other
        return float((self.many[player] * work).sum() + self.many @ self.idle_w * step_s)


def _constraints(c: Chains, column: Ints) -> tuple[Ints, Ints, Floats, Floats]:
    """Give rows, columns, values and bounds of: a chain ends no earlier than it can.

    Its end, less what it is slowed, is no less than the end of another and what it takes.

    Args:
        c: The chains.
        column: Of each the first of the variables that slow it; -1 if none does.
    """
    first = np.concatenate([c.before, np.full(len(c.taken_s), -1)])
    then = np.concatenate([c.after, np.arange(len(c.taken_s))])
    number = np.arange(len(then))
    waits, slowed = first >= 0, np.flatnonzero(column[then] >= 0)
    pieces = column[then[slowed]][:, None] + np.arange(PIECES)
    rows = np.concatenate([number, number[waits], np.repeat(slowed, PIECES)])
    columns = np.concatenate([then, first[waits], pieces.ravel()])
    values = np.concatenate([-np.ones(len(then)), np.ones(int(waits.sum())), np.ones(pieces.size)])
    return rows, columns, values, -c.taken_s[then]
