"""What a measured step says beside a predicted one: how much longer everything took, and where.

An observation is one kind of work at one place: the computes of a rank that do the same, or the
messages of a kind between the same ranks. Its value is the logarithm of how many times longer they
took than was predicted, the median of all, with nothing beside them and without any waiting.
Observations of one kind differ by where they were made only. So what all of them share is the
prediction's fault, and what some do not share is theirs.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from stretto.cost.instruction import Message
from stretto.diagnose.constant import Constant, Sites
from stretto.diagnose.net import Net, Node
from stretto.diagnose.replay import Bools
from stretto.program.instruction import Compute
from stretto.timeline.value import Floats, Ints

DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""

LEAST = 1e-3
"""A time is not taken to be shorter than this share of what was predicted."""


TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Observations: an element of each array for each.

    Attributes:
        kind: Index of the kind of work.
        kinds: What people call the kinds.
        value: Logarithm of measured over predicted time, the median.
        weight: Seconds predicted, of all of them.
        count: Of how many it is the median.
        device: Whether it is of computes, not of messages.
        held: How full the rank's memory was then, as a step of a scale.
        place: Between which ranks, an index into `places`.
        places: The ranks of each place, in order; a compute has one.
        shares: For each constant (row) the share of the time that depends on it.
        constants: The constants.
        beside: Logarithm of how many times longer they took for what was beside them.
        of: Of each cell its observation; -1 for none.
        noise: How much a single time is off by chance: a standard deviation, as a logarithm.
    """

    kind: Ints
    kinds: tuple[str, ...]
    value: Floats
    weight: Floats
    count: Ints
    device: Bools
    held: Ints
    place: Ints
    places: tuple[tuple[int, ...], ...]
    shares: Floats
    constants: tuple[Constant, ...]
    beside: Floats
    of: Ints
    noise: float


def evidence(
    web: Net,
    sites: Sites,
    *,
    predicted_s: Floats,
    measured_s: Floats,
    taken_s: Floats,
    held: Ints,
) -> Evidence:
    """Collect observations.

    Args:
        web: The tasks of the program.
        sites: What they were predicted to run on.
        predicted_s: What each cell takes alone, as predicted.
        measured_s: What each took alone; NaN where that is not known.
        taken_s: What it took.
        held: How full the memory of its rank was at each cell, as a step of a scale.
    """
    usable = (predicted_s > 0) & np.isfinite(measured_s)
    sorter = _Sorter(web, sites)
    parts = []
    for node in web.nodes:
        rows = np.flatnonzero(usable[node.cells].all(axis=1))  # all its ranks were recorded
        if len(rows):
            parts.append((node.cells[rows], *sorter.sort(node, rows, held[node.cells[rows, 0]])))
    first = np.concatenate([cells[:, 0] for cells, _, _ in parts])
    table, shares = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    found, of_row = np.unique(table, axis=0, return_inverse=True)
    of_row = of_row.ravel()
    count, expected = len(found), predicted_s[first]
    value = np.log(np.maximum(measured_s[first] / expected, LEAST))
    weight = np.zeros(count)
    np.add.at(weight, of_row, expected)
    mean = [np.bincount(of_row, s * expected, minlength=count) / weight for s in shares.T]
    beside = np.log(np.maximum(taken_s[first] / np.maximum(measured_s[first], TINY), 1.0))
    middle, longer = (
        medians(column, of_row, np.ones(len(column)), count=count) for column in (value, beside)
    )
    number = np.bincount(of_row, minlength=count)
    several = np.flatnonzero(number[of_row] > 2)
    wide = np.sqrt(number / np.maximum(number - 1, 1))  # a median of few is near them all
    off, ranks = ((value - middle[of_row]) * wide[of_row])[several], web.rank[first[several]]
    of, start = np.full(len(predicted_s), -1), 0
    for cells, rows, _ in parts:
        of[cells] = of_row[start : start + len(rows), None]
        start += len(rows)
    kind, place, full, device = found.T
    return Evidence(
        kind, tuple(sorter.kinds), middle, weight, number, device > 0, full, place,
        tuple(sorter.places), np.array(mean).reshape(-1, count), sites.constants, longer, of,
        chance(off, ranks),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """The rows of ranks of nodes, which many nodes share.

    Attributes:
        place: Of each row the place.
        sort: Of each row what tells its prices from others', an index into the next two.
        level: The level of links that joins ranks.
        part: The part of the cluster in which the first of them is.
        ranks: Ranks of a row of each sort.
    """

    place: Ints
    sort: Ints
    level: tuple[int, ...]
    part: tuple[int, ...]
    ranks: tuple[tuple[int, ...], ...]


@dataclass(slots=True)
class _Sorter:
    """Kinds and places by number, as they are met."""

    web: Net
    sites: Sites
    kinds: dict[str, int] = field(default_factory=dict)
    places: dict[tuple[int, ...], int] = field(default_factory=dict)
    groups: dict[Hashable, _Group] = field(default_factory=dict)
    shares: dict[Hashable, Floats] = field(default_factory=dict)

    def sort(self, node: Node, rows: Ints, held: Ints) -> tuple[Ints, Floats]:
        """Give kind, place, fullness and whether it is of a device for rows of a node; shares."""
        key = node.lane, node.ranks.shape, int(node.ranks[0, 0])
        if key not in self.groups:
            self.groups[key] = self._group(node)
        group, kinds = self.groups[key], []
        stage = self.web.program.of(int(node.ranks[0, 0]))
        shares = np.zeros((len(group.ranks), len(self.sites.constants)))
        for i, (level, part, ranks) in enumerate(
            zip(group.level, group.part, group.ranks, strict=True)
        ):
            work = node.work if isinstance(node.work, Message) else id(node.work)
            if (work, key, i) not in self.shares:
                self.shares[work, key, i] = self.sites.shares(
                    node.work, stage, ranks=ranks, part=part
                )
            shares[i] = self.shares[work, key, i]
            kinds.append(self.kinds.setdefault(self._name(node, level=level), len(self.kinds)))
        sort, table = group.sort[rows], np.empty((len(rows), 4), dtype=np.int64)
        table[:, 0], table[:, 1] = np.array(kinds)[sort], group.place[rows]
        table[:, 2], table[:, 3] = held, node.lane is None
        return table, shares[sort]

    def _group(self, node: Node) -> _Group:
        named = [tuple(sorted(ranks)) for ranks in node.ranks.tolist()]
        place = np.array([self.places.setdefault(n, len(self.places)) for n in named])
        far = self.sites.far(node.ranks)
        sorts, first, sort = np.unique(far, axis=0, return_index=True, return_inverse=True)
        level, part, _ = (tuple(column) for column in sorts.T.tolist())
        ranks = tuple(tuple(node.ranks[i].tolist()) for i in first)
        return _Group(place, sort.ravel(), level, part, ranks)

    def _name(self, node: Node, *, level: int) -> str:
        """Give what people call a kind of work; kinds of one name are one."""
        program, levels = self.web.program, self.sites.cluster.levels
        match node.work:
            case Message(kind=kind):
                over = f" over {levels[level].name}" if levels else ""
                return f"{kind} between {node.ranks.shape[1]}{over}"
            case Compute(phase=phase, block=block) as compute:
                inner = "·".join(s.name for s in program.segments(compute))
                return f"{phase} {program.chain[block].kind}[{inner}]"
            case _:
                return "update"


def chance(off: Floats, ranks: Ints) -> float:
    """Give the standard deviation of what single times of ranks are off.

    Ranks whose times vary far more than the median rank's are left out: what is wrong with them
    must not pass for chance.
    """
    if not len(off):
        return 0.0
    each = medians(np.abs(off), ranks, np.ones(len(off)), count=int(ranks.max()) + 1)
    there = np.sort(each[np.isfinite(each)])
    calm = each[ranks] <= 2 * there[(len(there) - 1) // 2]
    return DEVIATION * float(np.median(np.abs(off[calm])))


def medians(values: Floats, groups: Ints, weights: Floats, *, count: int) -> Floats:
    """Give the lower weighted median of each group; NaN for an empty one.

    Of two that are as good it is the lower one: what goes wrong makes things slower.
    """
    found = np.full(count, np.nan)
    order = np.lexsort((values, groups))
    values, groups, weights = values[order], groups[order], weights[order]
    total = np.bincount(groups, weights, minlength=count)
    passed = np.cumsum(weights) - np.append(0.0, np.cumsum(total))[groups]
    rows = np.flatnonzero(passed >= 0.5 * total[groups] * (1 - 1e-9))
    first = rows[np.unique(groups[rows], return_index=True)[1]]
    found[groups[first]] = values[first]
    return found
