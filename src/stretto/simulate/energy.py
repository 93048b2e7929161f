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
from stretto.simulate.simulate import straggle
from stretto.simulate.site import Site
from stretto.simulate.states import by_player, states
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
        step_s: Its seconds, played with the clocks, and with what is lost by chance.
        planned_s: By when it was to end.
        energy_j: What all devices draw in it, in joules.
        clock: Of each kind of rank, for each of its tasks on the device, the fraction of the
            highest clock; 1 for tasks that no clock slows.
        instruction: The instruction of each of them.
        mean: Of each kind of rank the mean clock over the seconds of what a clock slows.
    """

    step_s: float
    planned_s: float
    energy_j: float
    clock: tuple[Floats, ...]
    instruction: tuple[tuple[int, ...], ...]
    mean: tuple[float, ...]


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

    def of_whole(self, *, step_s: float, energy_j: float) -> Frontier:
        """Give the frontier of a longer step, of which this is a part, in proportion.

        Args:
            step_s: The whole step at full clocks, with what is lost by chance.
            energy_j: Its energy.
        """
        longer, more = step_s / self.full_s, energy_j / self.full_j
        points = (
            replace(
                one,
                step_s=longer * one.step_s,
                planned_s=longer * one.planned_s,
                energy_j=more * one.energy_j,
            )
            for one in self.points
        )
        return Frontier(self.alike, step_s, energy_j, tuple(points))


def drawn_j(
    program: Program, cluster: Cluster, *, stack: Stack, faults: Sequence[Fault] = ()
) -> float:
    """Give what all devices draw in a step at full clocks, in joules; see `frontier`."""
    return _model(program, cluster, stack, faults).full_j


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
    return _model(program, cluster, stack, faults).frontier()


def _model(program: Program, cluster: Cluster, stack: Stack, faults: Sequence[Fault]) -> _Model:
    power = [part.device.power_w for part in cluster.parts]
    if any(p.compute_bound <= p.idle for p in power):
        rule = f"{cluster.name} does not say that work draws more than waiting"
        raise InputError(Problem("power_w", rule, "write idle, memory_bound and compute_bound"))
    whole = graph(Site(program, cluster, stack, tuple(faults)))
    halved = replace(stack, attention_cap_flops_per_s=stack.attention_cap_flops_per_s / 2)
    slow = graph(Site(program, _at_half(cluster), halved, tuple(faults)))
    clocked_s = np.where(whole.device >= 0, slow.work_s - whole.work_s, 0.0)  # as 2 - 1 is 1
    kinds = np.repeat(np.arange(len(power)), [part.devices for part in cluster.parts])
    draws = [power[kinds[player.ranks[0]]] for player in whole.players]
    lost = straggle(program, stack)
    return _played(whole, clocked_s, draws, float(stack.contention), lost)


def slowed(
    whole: Graph,
    *,
    clocked_s: Floats,
    draws: Sequence[Power],
    contention: float,
    lost: float = 0.0,
) -> Frontier:
    """Give the frontier of a graph.

    Args:
        whole: What is done, at full clocks.
        clocked_s: Of each task the seconds that the clock of its device decides.
        draws: What the device of each player draws.
        contention: Share of a hidden message's time that it takes from the compute beside it.
        lost: Share of a step that is lost to the slowest of many ranks, by chance.

    Raises:
        InputError: It never ends.
    """
    return _played(whole, clocked_s, draws, contention, lost).frontier()


def _played(
    whole: Graph, clocked_s: Floats, draws: Sequence[Power], contention: float, lost: float
) -> _Model:
    begun_s, done_s = play(whole, contention=contention)
    if not np.isfinite(done_s).all():
        raise InputError(Problem("faults", "the step does not end", "leave out what halts a rank"))
    return _Model(whole, clocked_s, draws, begun_s, done_s, contention, lost)


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
        lost: float,
    ) -> None:
        self.whole, self.clocked, self.contention, self.lost = whole, clocked_s, contention, lost
        self.begun_s, self.done_s, self.full_s = begun_s, done_s, float(done_s.max())
        self.many = np.array([float(len(player.ranks)) for player in whole.players])
        self.idle_w, self.memory_w, self.compute_w = np.array(
            [(p.idle, p.memory_bound, p.compute_bound) for p in draws]
        ).T
        self.chains: Chains = chains(whole, clocked_s=clocked_s, taken_s=done_s - begun_s)

    def frontier(self) -> Frontier:
        """Solve for every length of the step, and for the length of least energy."""
        least = self._solve(None)
        most_s = least.planned_s / (1.0 + self.lost) * 0.999
        ends = [self.full_s * by for by in SLOWER if self.full_s * by < most_s]
        points: list[Point] = []
        for point in sorted([*map(self._solve, ends), least], key=lambda p: p.step_s):
            if not points or point.energy_j < points[-1].energy_j:
                points.append(point)
        ranks = tuple(player.ranks for player in self.whole.players)
        return Frontier(ranks, self.full_s * (1.0 + self.lost), self.full_j, tuple(points))

    @property
    def full_j(self) -> float:
        """What all devices draw at full clocks."""
        return self._energy_j(np.ones_like(self.clocked), self.begun_s, self.done_s)

    def _solve(self, end_s: float | None) -> Point:
        """Give the clocks of least energy for a step that ends by `end_s`, or whenever is best."""
        from scipy.optimize import linprog
        from scipy.sparse import csr_array

        c, last = self.chains, len(self.chains.taken_s)
        clocks = np.linspace(1.0, LOWEST, PIECES + 1)
        widths, falls = np.diff(1.0 / clocks), -np.diff(clocks**2) / np.diff(1.0 / clocks)
        movable = np.flatnonzero(c.clocked_s > 0)
        player = c.player[movable]
        saved = (self.many * (self.compute_w - self.idle_w))[player][:, None] * falls[None, :]
        # Variables: when each chain is done, then how much each is slowed, piece by piece.
        waits_w = float(self.many @ self.idle_w) * (1.0 + self.lost)
        cost = np.concatenate([np.zeros(last), -saved.ravel(), [waits_w]])
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
        if firm and self._play(later_s)[1].max() > planned_s * LATE:
            for _ in range(BISECTIONS):
                share = (low + high) / 2
                if self._play(share * later_s)[1].max() > planned_s * LATE:
                    high = share
                else:
                    low = share
            share = low
        return self._point(share * later_s, planned_s)

    def _play(self, later_s: Floats) -> tuple[Floats, Floats]:
        """Give when tasks that much longer begin and end."""
        slowed = replace(self.whole, work_s=self.whole.work_s + later_s)
        return play(slowed, contention=self.contention)

    def _point(self, later_s: Floats, planned_s: float) -> Point:
        """Give the step with tasks that much longer."""
        begun_s, done_s = self._play(later_s)
        clocked = np.where(self.clocked > 0, self.clocked, 1.0)
        clock = clocked / (clocked + later_s)
        clocks, instructions, means = [], [], []
        for i, player in enumerate(self.whole.players):
            mine = self.whole.device[player.place] == i
            clocks.append(clock[player.place[mine]])
            instructions.append(tuple(np.array(player.tasks.instruction)[mine].tolist()))
            full_s = self.clocked[player.place[mine]]
            taken_s = float((full_s / clocks[-1]).sum())
            means.append(float(full_s.sum()) / taken_s if taken_s else 1.0)
        return Point(
            float(done_s.max()) * (1.0 + self.lost), planned_s * (1.0 + self.lost),
            self._energy_j(clock, begun_s, done_s), tuple(clocks), tuple(instructions),
            tuple(means),
        )  # fmt: skip

    def _energy_j(self, clock: Floats, begun_s: Floats, done_s: Floats) -> float:
        """Give what all devices draw in a step that was played with clocks."""
        products_s = self.clocked / clock
        slowed = replace(self.whole, work_s=self.whole.work_s - self.clocked + products_s)
        found = states(slowed, begun_s, done_s, products_s=products_s, lost=self.lost).joules(
            compute_w=self.compute_w, memory_w=self.memory_w, idle_w=self.idle_w
        )
        # At a clock of f a product takes 1/f as long, and f² of the energy above idle power.
        saved_s = by_player(slowed, products_s - self.clocked * clock**2)
        saved_j = (self.compute_w - self.idle_w) * saved_s
        return float(self.many @ (sum(found) - saved_j))


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
