"""Who may be the cause of a difference: ranks and nodes, links, constants, kinds of work."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from stretto.diagnose.constant import Sites
from stretto.diagnose.evidence import Evidence
from stretto.diagnose.finding import Cause
from stretto.diagnose.suspect import LEAST_SHARE, ROUNDING, Fit, Suspect
from stretto.timeline.value import Floats, Ints

Blocks = frozenset[int]
"""What a level joins, by number: nodes, or devices."""


def devices(
    seen: Evidence, *, hosts: Sequence[str], pressed: Collection[int], short: Collection[int]
) -> Iterator[Suspect]:
    """Give ranks, and all ranks of a host, that may compute slowly.

    Args:
        seen: The observations.
        hosts: Of each rank the machine.
        pressed: Ranks whose counters tell of less memory than others have.
        short: Ranks whose counters tell of too little memory.
    """
    rank = np.array([place[0] for place in seen.places])[seen.place]
    ranks = np.unique(rank[seen.device]).tolist()
    together = {host: [r for r in ranks if hosts[r] == host] for host in dict.fromkeys(hosts)}
    full = seen.device & np.isin(rank, list(short)) & (seen.held > 0)
    for held in np.unique(seen.held[full]).tolist():
        at = np.flatnonzero(full & (seen.held >= held))
        yield _slow(Cause.MEMORY_PRESSURE, name(sorted(short), hosts), short, at, held)
    for host, some in together.items():
        if 1 < len(some) < len(ranks):
            at = np.flatnonzero(seen.device & np.isin(rank, some))
            yield _slow(Cause.SLOW_RANK, host, some, at)
    for one in ranks:
        mine = seen.device & (rank == one)
        cause = Cause.MEMORY_PRESSURE if one in pressed else Cause.SLOW_RANK
        yield _slow(cause, f"rank {one}", (one,), np.flatnonzero(mine))
        for held in np.unique(seen.held[mine])[1:].tolist() if one in pressed else ():
            at = np.flatnonzero(mine & (seen.held >= held))
            yield _slow(cause, f"rank {one}", (one,), at, held)


def _slow(cause: Cause, where: str, ranks: Collection[int], at: Ints, held: int = 0) -> Suspect:
    return Suspect(cause, where, tuple(ranks), at, np.ones(len(at)), "others", held)


def links(seen: Evidence, sites: Sites, *, hosts: Sequence[str]) -> Iterator[Suspect]:
    """Give links that may be slow: between two blocks, of a block, or of a device.

    A block is what the level inside joins, a node as a rule. Rows, columns and cells of the matrix
    of delays (Dong et al., 2025). Links that the same messages take cannot be told apart.
    """
    inner = 1
    for level in sites.cluster.levels:
        (number,) = (i for i, c in enumerate(seen.constants) if c.level == level.name and c.rate)
        found: dict[tuple[bytes, bytes], list[tuple[Blocks, int]]] = {}
        for blocks, size, at, share in _users(seen, seen.shares[number], inner):
            found.setdefault((at.tobytes(), share.tobytes()), []).append((blocks, size))
        for (which, shares), some in found.items():
            where, ranks = _where(some, hosts, level.name)
            users, depends = np.frombuffer(which, dtype=np.int64), np.frombuffer(shares)
            yield Suspect(Cause.SLOW_LINK, where, ranks, users, depends, "others")
        inner = level.devices


def _users(seen: Evidence, share: Floats, inner: int) -> Iterator[tuple[Blocks, int, Ints, Floats]]:
    """Give blocks of a size with the observations over their links: pairs first, devices last."""
    crossing = np.flatnonzero((share > ROUNDING) & ~seen.device)
    for size in dict.fromkeys((inner, 1)):
        users: dict[Blocks, list[int]] = {}
        for j in crossing.tolist():
            touched = frozenset(r // size for r in seen.places[seen.place[j]])
            if len(touched) == 2 and size == inner:
                users.setdefault(touched, []).append(j)
            for block in sorted(touched):
                users.setdefault(frozenset({block}), []).append(j)
        for blocks in sorted(users, key=lambda b: (-len(b), sorted(b))):
            at = np.array(users[blocks], dtype=np.int64)
            yield blocks, size, at, share[at]


def _where(
    some: Sequence[tuple[Blocks, int]], hosts: Sequence[str], level: str
) -> tuple[str, tuple[int, ...]]:
    """Give what people call links that the same messages take, and whose they are."""
    largest = [(blocks, size) for blocks, size in some if size == some[0][1]]
    first, size = largest[0]
    if len(first) == 2:
        largest = largest[:1]
    each = _ranks({b for one, _ in largest for b in one}, size, hosts)
    names = [name(ranks, hosts) for ranks in each]
    ranks = tuple(r for block in each for r in block)
    if len(first) == 2:
        return "–".join(names), ranks
    return f"{'one of ' * (len(names) > 1)}{', '.join(names)} into {level}", ranks


def _ranks(blocks: Collection[int], size: int, hosts: Sequence[str]) -> list[tuple[int, ...]]:
    """Give the ranks of blocks of a size."""
    return [tuple(range(b * size, min((b + 1) * size, len(hosts)))) for b in sorted(blocks)]


def name(ranks: Sequence[int], hosts: Sequence[str]) -> str:
    """Give what people call ranks: their host, if they are all of it, or their numbers."""
    if len(ranks) == len(hosts) > 1:
        return "all ranks"
    host = hosts[ranks[0]]
    if sorted(ranks) == [r for r, h in enumerate(hosts) if h == host]:
        return host
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    whole = list(ranks) == list(range(ranks[0], ranks[-1] + 1)) and len(ranks) > 2
    return f"ranks {ranks[0]}–{ranks[-1]}" if whole else f"ranks {', '.join(map(str, ranks))}"


def passed(fit: Fit, seen: Evidence, sites: Sites, *, hosts: Sequence[str]) -> tuple[Suspect, str]:
    """Give what else it may be if all that a level of links carries takes longer.

    Returns:
        The suspect: their link, if only two hosts use that level; and the name of the other
        possibility: the constant, or the blocks that all messages pass.
    """
    suspect = fit.suspect
    constant = next((c for c in seen.constants if c.name == suspect.where and c.rate), None)
    if suspect.cause is not Cause.WRONG_CONSTANT or not (constant and constant.level):
        return suspect, ""
    at = [str(level.name) for level in sites.cluster.levels].index(constant.level)
    size = sites.cluster.levels[at - 1].devices if at else 1
    mine = suspect.at[(suspect.share > LEAST_SHARE) & ~seen.device[suspect.at]]
    touched = [frozenset(r // size for r in seen.places[p]) for p in seen.place[mine].tolist()]
    common = frozenset.intersection(*touched) if touched and fit.factor > 1 else frozenset[int]()
    each = _ranks(common, size, hosts)
    names = [name(ranks, hosts) for ranks in each]
    apart = len({hosts[ranks[0]] for ranks in each}) > 1  # links within a machine seldom fail
    if len(set(touched)) == 1 and len(common) == 2 and apart:
        ranks = tuple(r for block in each for r in block)
        link = replace(suspect, cause=Cause.SLOW_LINK, where="–".join(names), ranks=ranks)
        return link, constant.name
    return suspect, ", ".join(names)


def constants(seen: Evidence) -> Iterator[Suspect]:
    """Give the constants that may be wrong."""
    for constant, share in zip(seen.constants, seen.shares, strict=True):
        at = np.flatnonzero(share > ROUNDING)
        if (share > LEAST_SHARE).any():
            where = constant.name
            yield Suspect(Cause.WRONG_CONSTANT, where, (), at, share[at], "prediction")


def kinds(seen: Evidence) -> Iterator[Suspect]:
    """Give the kinds of work that may take what no constant says."""
    for i, what in enumerate(seen.kinds):
        at = np.flatnonzero(seen.kind == i)
        yield Suspect(Cause.UNEXPLAINED, what, (), at, np.ones(len(at)), "prediction")
