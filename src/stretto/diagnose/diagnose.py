"""Why a step took longer than predicted: causes by name, and what each costs.

The four classes of (Dong et al., 2025) are of ranks that hang or are slow, in messages or between
them. A step that ends has the slow ones: who only waits is told from who is waited for by taking
waits out; devices, links and constants by whose times deviate from whose. What a cause costs is the
difference to the same step played again without it (Lin et al., 2025).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from stretto.cluster import Cluster
from stretto.cost.stack import Stack
from stretto.diagnose import lineup
from stretto.diagnose.case import CHANCE, Case, case
from stretto.diagnose.compare import Comparison
from stretto.diagnose.evidence import chance
from stretto.diagnose.finding import Cause, Finding
from stretto.diagnose.replay import causes, replay
from stretto.diagnose.suspect import ROUNDING, apart, pursue, wrong
from stretto.program.render import label
from stretto.timeline.recorded import Recording
from stretto.timeline.value import Floats, critical

RELEVANT = 0.005
"""What costs a smaller share of the step is not told of: nobody would act on it."""

UNKNOWN = 0.2
"""A step of which a larger share is not explained is not understood, whatever chance may do."""


def diagnose(
    compared: Comparison,
    *,
    cluster: Cluster,
    stack: Stack,
    recording: Recording | None = None,
    others: Sequence[Comparison] = (),
) -> tuple[Finding, ...]:
    """Give the causes of a difference, the largest first; none where there is nothing to say.

    What is left without a cause is one of them, if it is more than chance may do; and what saves
    time stands where what costs as much would.

    Args:
        compared: The measured step beside the predicted one.
        cluster: What the step was predicted for: rank i on device i.
        stack: With which software.
        recording: What else is known of the measured step.
        others: Other steps of the run beside the same prediction: what takes long in most of them
            is told from what took long by chance. Costs are those of the one step.
    """
    known = case(compared, cluster, stack=stack, recording=recording, others=others)
    found, left = _slow(known)
    found += [*_waits(known), *_interrupted(known, left, named={f.where for f in found})]
    told = [finding for finding in found if abs(finding.share) > RELEVANT]
    told += _rest(known, found)
    return tuple(sorted(told, key=lambda finding: -abs(finding.extra_s)))


def _slow(known: Case) -> tuple[list[Finding], Floats]:
    """Give what takes longer in some places than in others, then what does everywhere.

    Returns:
        What was found, and what is left of the observations.
    """
    seen, hosts, teller = known.seen, known.teller.hosts, known.teller
    value, found = seen.value, []
    some = [
        *lineup.links(seen, known.sites, hosts=hosts),
        *lineup.devices(seen, hosts=hosts, pressed=known.pressed, short=known.short),
        *lineup.constants(seen),
    ]
    for suspects, measure in ((some, apart), ([*lineup.constants(seen)], wrong)):
        fits, value = pursue(seen, value, suspects=suspects, measure=measure)
        for fit in fits:
            who, passed = lineup.passed(fit, seen, known.sites, hosts=hosts)
            fit = replace(fit, suspect=who)
            longer = known.cells(fit.effect(seen))
            extra = known.without_s(longer)
            held = known.least_bytes(who.at) if who.held else 0
            why = teller.fit(fit, extra_s=extra, held_bytes=held, passed=passed)
            found.append(known.finding(
                who.cause, who.where, who.ranks, factor=fit.factor, extra_s=extra, why=why,
                longer=longer,
            ))  # fmt: skip
    fits, value = pursue(seen, value, suspects=[*lineup.kinds(seen)], measure=wrong)
    if fits:
        longer = known.cells(np.prod([fit.effect(seen) for fit in fits], axis=0))
        extra = known.without_s(longer)
        fits.sort(key=lambda fit: (fit.factor > 1.0) != (extra > 0.0))  # what makes it so, first
        first, why = fits[0], teller.kinds(fits, extra_s=extra)
        found.append(known.finding(
            Cause.UNEXPLAINED, first.suspect.where, (), factor=first.factor, extra_s=extra,
            why=why, longer=longer,
        ))  # fmt: skip
    return found, value


def _waits(known: Case) -> Iterator[Finding]:
    """Give what ranks waited for that is no message."""
    taken, hosts = known.compared.taken, known.teller.hosts
    none = np.zeros_like(taken.own_s)
    for cause, waits, other in (
        (Cause.DATA_WAIT, taken.data_s, replace(taken, data_s=none)),
        (Cause.HOST, taken.host_s, replace(taken, host_s=none)),
    ):
        if not waits.any():
            continue
        extra = known.cost_s(other)
        longest = np.zeros(len(hosts))
        np.maximum.at(longest, known.compared.web.rank, waits)
        ranks = tuple(np.flatnonzero(longest > longest.max() / 2).tolist())
        why = known.teller.wait(cause, ranks, longest_s=float(longest.max()), extra_s=extra)
        where = lineup.name(ranks, hosts)
        yield known.finding(cause, where, ranks, factor=1.0, extra_s=extra, why=why)


def _interrupted(known: Case, left: Floats, *, named: Collection[str]) -> Iterator[Finding]:
    """Give single computes that take far longer than all that is known of others like them.

    Args:
        known: What there is to go by.
        left: What of the observations nothing explains.
        named: Whom something was found of already.
    """
    seen, web, taken = known.seen, known.compared.web, known.compared.taken
    mine = (seen.of >= 0) & ~known.what.messages
    off = np.where(mine, known.longer - (seen.value - left)[seen.of], 0.0)
    noise = max(seen.noise, chance(off[mine], web.rank[mine]), ROUNDING)
    often = np.where(off > CHANCE * noise, np.exp(off), 1.0)
    saved = np.bincount(web.rank, taken.own_s - taken.own_s / often)
    if not saved.any():
        return
    rank = int(saved.argmax())
    there = np.where(web.rank == rank, often, 1.0)
    whole, alone = (
        known.cost_s(replace(taken, own_s=taken.own_s / times)) for times in (often, there)
    )
    ranks: tuple[int, ...] = ()
    where, cause, times, extra = "all ranks", Cause.UNEXPLAINED, often, whole
    if alone > whole / 2 and len(web.first) > 1:
        cause = Cause.MEMORY_PRESSURE if rank in known.pressed else Cause.SLOW_RANK
        ranks, where, times, extra = (rank,), f"rank {rank}", there, alone
    if where in named:
        return
    hit, among = times > 1.0, mine & np.isin(web.rank, ranks or web.rank)
    slower = float(taken.own_s[hit].sum() / (taken.own_s / times)[hit].sum())
    why = known.teller.now_and_then(
        cause, ranks, count=int(hit.sum()), of=int(among.sum()), times=slower, extra_s=extra
    )
    yield known.finding(cause, where, ranks, factor=slower, extra_s=extra, why=why, longer=times)


def _rest(known: Case, found: Sequence[Finding]) -> Iterator[Finding]:
    """Give what nothing that was found explains, if it is more than chance may do.

    Where everybody waits for the slowest of n, whose times vary by chance with a deviation s, they
    wait for s·√(2 ln n) of them at most, as n grows; and what is on the critical path varies too.
    """
    compared, taken = known.compared, known.compared.taken
    web, none, own = compared.web, np.zeros_like(taken.own_s), taken.own_s.copy()
    for finding in found:
        own[taken.known] /= finding.longer[taken.row[taken.known]]
    left = replace(taken, own_s=own, data_s=none, host_s=none)
    start, stop = replay(web, left)
    extra = float(stop.max(initial=0.0)) - compared.predicted.step_s
    path = critical(causes(web, replace(left, start_s=start, stop_s=stop)), stop)
    step_s = known.teller.step_s
    slowest = np.sqrt(2 * np.log(max(2, len(web.first)))) * step_s
    chances = known.seen.noise * (slowest + CHANCE * np.sqrt((own[path] ** 2).sum()))
    if extra <= min(RELEVANT * step_s + chances, UNKNOWN * step_s):
        return
    cell = int(path[(own - compared.expected.own_s)[path].argmax()])
    rank = int(web.rank[cell])
    stage = compared.program.of(rank)
    what = label(compared.program, stage, stage.instructions[web.instruction(cell)])
    was, now = float(compared.expected.own_s[cell]), float(own[cell])
    why = known.teller.rest(
        what, rank, predicted_s=was, measured_s=now, extra_s=extra, without=bool(found)
    )
    yield known.finding(Cause.UNEXPLAINED, what, (rank,), factor=1.0, extra_s=extra, why=why)
