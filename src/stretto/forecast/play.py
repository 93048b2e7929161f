"""Weeks of training played from failure to failure, many runs at once.

Between two failures a run does what is known beforehand: so many snapshots at so many seconds. Its
work, its checkpoints and what it loses follow in closed form, and the clock moves from event to
event: a failure, a replica that comes back, the end. All runs move together, one event each, so
that 200 runs of 100,000 devices over three months take seconds.

Devices fail by the hour, whatever they do, but not while a run waits for one of them to come back;
what fails while it is stopped is noticed when it starts. Spare nodes do not fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from stretto.forecast.draws import Draws, Number, Source
from stretto.forecast.failures import Failures
from stretto.forecast.lanes import FREE, HOPELESS, Lanes, Mask, Terms, lanes, taken, terms
from stretto.forecast.result import PARTS, Forecast
from stretto.forecast.setup import Setup

_EPS = 1e-9  # of a snapshot: what rounding may add or take
_TELL = 64  # events between two tellings of progress

Progress = Callable[[float], None]


def play(
    setups: Sequence[Setup],
    failures: Failures,
    *,
    runs: int = 200,
    seed: int = 0,
    draws: Source | None = None,
    progress: Progress | None = None,
) -> tuple[Forecast, ...]:
    """Play a training under each setup, each as many times, with the same failures.

    Args:
        setups: What to play.
        failures: What fails.
        runs: Of each setup.
        seed: Of the random numbers; run i meets the same failures under every setup.
        draws: What decides the failures, in place of random numbers.
        progress: Is told now and then which share is done.
    """
    table = _Table(setups, failures, runs)
    every = terms(setups, failures)
    flock = lanes(setups, runs=runs, components=every.fixed.shape[1])
    draws = draws or Draws(seed, runs)
    _draw(flock, np.ones(len(flock.setup), np.bool_), draws)
    events = 0
    while len(flock.setup):
        own = taken(every, flock.setup)
        over = _until_event(flock, own)
        if np.any(over):
            table.enter(flock, over, own)
            flock, own = taken(flock, ~over), taken(own, ~over)
        if len(flock.setup):
            _recover(flock, own)
            _draw(flock, flock.failed, draws)
        events += 1
        if progress is not None and events % _TELL == 0:
            progress(table.share(flock, every))
    return table.forecasts()


def _draw(flock: Lanes, failed: Mask, draws: Source) -> None:
    """Let runs know of their next failure."""
    when, which, repair = draws.at(flock.run, flock.failure)
    flock.hazard += np.where(failed, when, 0.0)
    flock.which, flock.repair = which, repair


def _until_event(flock: Lanes, own: Terms) -> Mask:
    """Move every run to its next event; give which are over.

    Sets `failed` and `calm` (it stops after a snapshot, as planned), `kind`, and what is left of
    the work in `at` and `disk`: what memory holds, and what storage does.
    """
    rows = np.arange(len(flock.setup))
    speed = own.speeds[rows, flock.missing]
    stretch = own.snapshot_s / speed  # from one snapshot to the next
    period = stretch + own.blocking_s
    share = 1 - flock.missing * own.unit_share
    rates = share[:, None] * own.growing + own.fixed  # cumulative, by component
    rate = flock.rate = rates[:, -1]
    flock.kind = np.minimum(
        np.sum((flock.which * rate)[:, None] >= rates, axis=1), rates.shape[1] - 1
    )
    fails = np.full(len(rows), np.inf)
    np.divide(np.maximum(flock.hazard, 0.0), rate, out=fails, where=rate > 0)
    planned = own.planned[rows, flock.kind] & np.isfinite(fails)
    fails[planned] = _boundary(fails, flock.restart_s, period)[planned]
    left = own.snapshots - flock.at
    saves = np.ceil(left - _EPS)
    finish = flock.restart_s + left * stretch + saves * own.blocking_s
    grows = _boundary(_whole_again(flock, own), flock.restart_s, period)
    # What would stop it after its last snapshot comes too late, however that is rounded.
    ends = finish <= np.minimum(fails, grows) + _EPS * period
    grew = ~ends & (grows < fails)
    flock.failed, flock.calm = ~ends & ~grew, grew | (planned & ~ends)
    elapsed = np.where(ends, finish, np.where(grew, grows, fails))

    running = np.maximum(elapsed - flock.restart_s, 0.0)
    whole = np.floor(running / period + _EPS)
    rest = np.maximum(running - whole * period, 0.0)
    segment = np.minimum(left - whole, 1.0)  # the last one may be shorter
    done = np.where(ends, left, whole + np.minimum(rest / stretch, segment))
    saving = np.where(ends, saves, whole) * own.blocking_s
    saving += np.where(ends, 0.0, np.maximum(rest - segment * stretch, 0.0))
    work = done * own.snapshot_s
    slower = work * (1 / speed - 1)
    flock.add("training", work)
    flock.add("degraded", slower)
    flock.add("checkpoints", saving)
    flock.add("restart", elapsed - saving - work - slower)
    flock.clock_s += elapsed
    flock.hazard -= rate * elapsed
    flock.reached = flock.at + done
    stored = np.floor(np.maximum(running - own.background_s, 0.0) / period + _EPS) // own.stored
    flock.disk = np.where(stored > 0, flock.at + stored * own.stored, flock.disk)
    flock.at = np.where(ends, flock.reached, flock.at + whole)
    late = flock.clock_s > own.limit_s
    slow = flock.at / own.snapshots < flock.clock_s / own.limit_s / 2
    return np.asarray(ends | late | (slow & (flock.failure >= HOPELESS)))


def _boundary(seconds: Number, start_s: Number, period: Number) -> Number:
    """Give when the next snapshot is taken; nothing is stopped before the first."""
    with np.errstate(invalid="ignore"):  # infinite stays infinite
        snapshots = np.maximum(np.ceil((seconds - start_s) / period - _EPS), 1.0)
    return start_s + snapshots * period


def _whole_again(flock: Lanes, own: Terms) -> Number:
    """Give the seconds until there are nodes for a unit that is missing."""
    never = np.full(len(flock.setup), np.inf)
    if not np.any(flock.missing):
        return never
    short = own.unit_nodes - flock.hot - flock.warm  # 1 or more: else it had come back already
    back = np.sort(flock.away_s, axis=1)
    there = (flock.missing > 0) & (short <= back.shape[1])
    column = np.clip(short - 1, 0, back.shape[1] - 1)
    when = back[np.arange(len(back)), column] - flock.clock_s
    return np.where(there, np.maximum(when, 0.0), never)


def _recover(flock: Lanes, own: Terms) -> None:
    """Bring every run from its event to the beginning of its restart."""
    rows = np.arange(len(flock.setup))
    kind, failed, calm = flock.kind, flock.failed, flock.calm
    flock.interruptions[rows, kind] += failed
    flock.failure += failed

    stored = np.where(calm, own.background_s, 0.0)  # a planned stop waits for its checkpoint
    flock.add("checkpoints", stored)
    found = np.where(failed, own.found_s[rows, kind], 0.0)
    flock.add("detection", found)
    wrong = np.where(failed, own.wrong_s[rows, kind], 0.0)
    stopped = stored + found + wrong
    flock.clock_s += stopped
    flock.disk = np.where(calm, flock.at, flock.disk)
    kept = failed & own.kept[rows, kind]
    restored = np.where(kept | calm, flock.at, flock.disk)
    lost = (flock.reached - restored) * own.snapshot_s
    flock.add("training", -lost)
    flock.add("lost work", lost + wrong)
    flock.at = restored

    away = np.where(failed, own.reset_s[rows, kind] + own.repair_s[rows, kind] * flock.repair, 0.0)
    gone = failed & own.leaves[rows, kind]
    flock.send_away(gone, flock.clock_s + away + own.warm_s)
    moved, waited = _replace(flock, own, gone)
    flock.hazard -= flock.rate * (stopped + moved)
    flock.add("waiting", moved + waited)
    flock.clock_s += moved + waited
    _regrow(flock, own)
    flock.restart_s = own.start_s + np.where(kept, own.memory_load_s, own.load_s)


def _replace(flock: Lanes, own: Terms, gone: Mask) -> tuple[Number, Number]:
    """Give every run that lost a node another one, unless it goes on without.

    Returns:
        Seconds in which a node is brought in, and those until there is one.
    """
    flock.collect(own.ready)
    hot = gone & (flock.hot > 0)
    warm = gone & ~hot & (flock.warm > 0)
    none = gone & ~hot & ~warm
    flock.hot -= hot
    flock.warm -= warm
    nearest = flock.away_s.min(axis=1)
    shrinks = none & (flock.missing < own.most) & (nearest > flock.clock_s + own.patience_s)
    flock.missing += shrinks
    flock.hot += shrinks * (own.unit_nodes - 1)  # the rest of its unit waits, ready
    waits = none & ~shrinks
    flock.away_s[waits, flock.away_s[waits].argmin(axis=1)] = FREE
    moved = np.where(hot, own.hot_s, 0.0) + np.where(warm, own.warm_s, 0.0)
    return moved, np.where(waits, nearest - flock.clock_s, 0.0)


def _regrow(flock: Lanes, own: Terms) -> None:
    """Take missing units back where there are nodes for them; they started beforehand."""
    flock.collect(own.ready)
    while np.any(grows := (flock.missing > 0) & (flock.hot + flock.warm >= own.unit_nodes)):
        ready = np.minimum(flock.hot, own.unit_nodes)
        flock.hot -= np.where(grows, ready, 0)
        flock.warm -= np.where(grows, own.unit_nodes - ready, 0)
        flock.missing -= grows


class _Table:
    """The results so far."""

    def __init__(self, setups: Sequence[Setup], failures: Failures, runs: int) -> None:
        self.setups, self.failures = setups, failures
        shape = len(setups), runs
        self.finish_s = np.full(shape, np.inf)
        self.parts_s = np.zeros((*shape, len(PARTS)))
        self.interruptions = np.zeros((*shape, len(failures.components)))

    def enter(self, flock: Lanes, over: Mask, own: Terms) -> None:
        """Enter runs that are over."""
        where = flock.setup[over], flock.run[over]
        done = flock.at[over] >= own.snapshots[over] - _EPS
        self.finish_s[where] = np.where(done, flock.clock_s[over], np.inf)
        self.parts_s[where] = flock.parts_s[over]
        self.interruptions[where] = flock.interruptions[over][:, : self.interruptions.shape[2]]

    def share(self, flock: Lanes, every: Terms) -> float:
        """Give the share of all work that is done."""
        left = np.maximum(1 - flock.at / every.snapshots[flock.setup], 0.0).sum()
        return float(1 - left / self.finish_s.size)

    def forecasts(self) -> tuple[Forecast, ...]:
        return tuple(
            Forecast(setup, self.failures, *columns)
            for setup, *columns in zip(
                self.setups, self.finish_s, self.parts_s, self.interruptions, strict=True
            )
        )
