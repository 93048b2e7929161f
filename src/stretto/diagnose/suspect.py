"""How well what may be the cause explains what was observed.

A suspect says which observations it makes slower, and in what proportion. Its factor is the median
of what those deviate from others of their kind that it does not touch: all are late where somebody
is waited for, but only some took longer themselves. The suspect that explains most seconds is
taken, its effect is taken out, and the rest is explained in the same way: matching pursuit (Mallat
and Zhang, 1993), with medians for sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stretto.diagnose.evidence import DEVIATION, LEAST, Evidence, medians
from stretto.diagnose.finding import Cause
from stretto.timeline.value import Floats, Ints

Z = 5.0
"""How many standard errors a factor must be from 1, so that of thousands none is by chance."""

MEDIAN_ERROR = 1.2533
"""Standard error of a median over that of a mean, of a normal distribution."""

LEAST_SHARE = 0.1
"""What depends less on a suspect than that says nothing about it."""

DOUBT = 0.2
"""How far what is beside a time may be misjudged, as a share of what is taken out for it. It is the
same in all places, and so no doubt where places are compared."""

ONE_FACTOR = {"others": 0.5, "prediction": 0.75}
"""How much of what its observations deviate one factor must explain to be the cause. Devices and
links have moods; what depends on a wrong number is off by the same factor everywhere."""

ROUNDING = 1e-6
"""A deviation that is none."""

LINED_UP = 64
"""How many suspects are looked at closely: those whose observations deviate most."""


@dataclass(frozen=True, slots=True, eq=False)
class Suspect:
    """What may be the cause.

    Attributes:
        cause: Of which kind.
        where: What people call it.
        ranks: Whose devices or links; empty for all.
        at: The observations that it makes slower.
        share: The share of the time of each that grows with its factor.
        against: What they are compared with: others of their kind, or the prediction.
        held: From which step of the memory's scale on.
    """

    cause: Cause
    where: str
    ranks: tuple[int, ...]
    at: Ints
    share: Floats
    against: Literal["others", "prediction"]
    held: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A suspect and what it explains.

    Attributes:
        suspect: The suspect.
        factor: How many times longer what depends on it takes.
        gain: How much of all deviation it explains, in seconds times logarithms.
        doubt: How far the factor's logarithm may be off.
    """

    suspect: Suspect
    factor: float
    gain: float
    doubt: float

    @property
    def sure(self) -> bool:
        """Whether it is not by chance, and explains something."""
        return bool(abs(np.log(self.factor)) > self.doubt and self.gain > 0)

    def effect(self, seen: Evidence) -> Floats:
        """Give how many times longer each observation took for it."""
        effect = np.ones(len(seen.value))
        effect[self.suspect.at] += self.suspect.share * (self.factor - 1.0)
        return effect


Measure = Callable[[Evidence, Floats], float]
"""How much observations deviate, in seconds times logarithms."""


def apart(seen: Evidence, value: Floats) -> float:
    """Give how much observations deviate from others of their kind."""
    return float((seen.weight * np.abs(_off(seen, value))).sum())


def wrong(seen: Evidence, value: Floats) -> float:
    """Give how much observations deviate from the prediction."""
    return float((seen.weight * np.abs(value)).sum())


def pursue(
    seen: Evidence, value: Floats, *, suspects: Sequence[Suspect], measure: Measure
) -> tuple[list[Fit], Floats]:
    """Give those that explain most of what observations deviate, and what is left of them.

    Args:
        seen: The observations.
        value: What is left of their values so far.
        suspects: Who may be the cause; of several that explain as much, the first is.
        measure: What is to be explained.
    """
    found, left = [], list(suspects)
    while left:
        close = _line_up(seen, value, left)
        fits = [fit for fit in (_fit(seen, value, s, measure) for s in close) if fit and fit.sure]
        if not fits:
            break
        best = max(fits, key=lambda fit: fit.gain)
        found.append(best)
        value = value - np.log(best.effect(seen))
        left.remove(best.suspect)
    return found, value


def _line_up(seen: Evidence, value: Floats, suspects: list[Suspect]) -> list[Suspect]:
    """Give the suspects whose observations deviate most, in their order."""
    if len(suspects) <= LINED_UP:
        return suspects
    deviates = seen.weight * np.maximum(_off(seen, value), 0.0)
    weights = [deviates[s.at] @ s.share for s in suspects]
    most = sorted(np.argsort(weights)[-LINED_UP:].tolist())
    return [suspects[i] for i in most]


def _fit(seen: Evidence, value: Floats, suspect: Suspect, measure: Measure) -> Fit | None:
    """Let a suspect explain what it can; None if one factor does not explain what it touches."""
    kinds = len(seen.kinds)
    match suspect.against:
        case "others":
            out = np.ones(len(value), dtype=bool)
            out[suspect.at] = False
            usual = medians(value[out], seen.kind[out], seen.weight[out], count=kinds)
            number = np.bincount(seen.kind[out], seen.count[out], minlength=kinds)
            doubt = 0.0
        case "prediction":
            usual, number = np.zeros(kinds), np.full(kinds, np.inf)
            doubt = DOUBT
    mine = (suspect.share > LEAST_SHARE) & np.isfinite(usual[seen.kind[suspect.at]])
    if not mine.any():
        return None
    at, share = suspect.at[mine], suspect.share[mine]
    kind, weight = seen.kind[at], seen.weight[at] * share
    more = value[at] - usual[kind]
    implied = np.log(np.maximum(1.0 + np.expm1(more) / share, LEAST))
    (middle,) = medians(implied, np.zeros(len(at), dtype=np.int64), weight, count=1)
    factor = float(np.exp(middle))
    deviates = float((seen.weight[at] * np.abs(more)).sum())
    rest = seen.weight[at] * np.abs(more - np.log(1.0 + share * (factor - 1.0)))
    explained = 1.0 - float(rest.sum()) / deviates if deviates else 0.0
    faster = suspect.against == "others" and factor <= 1.0  # what goes wrong makes things slower
    if faster or abs(np.log(factor)) < ROUNDING or explained < ONE_FACTOR[suspect.against]:
        return None
    after = value.copy()
    after[suspect.at] -= np.log(1.0 + suspect.share * (factor - 1.0))
    by_kind = np.bincount(kind, weight, minlength=kinds)
    variance = (weight**2 / seen.count[at]).sum() + (by_kind**2 / np.maximum(number, 1)).sum()
    slope = (weight * share).sum() / weight.sum()
    error = MEDIAN_ERROR * _chance(seen, after) * np.sqrt(variance) / weight.sum() / slope
    doubt *= (weight * seen.beside[at]).sum() / weight.sum() / slope
    gain = measure(seen, value) - measure(seen, after)
    return Fit(suspect, factor, gain, Z * float(error) + float(doubt))


def _chance(seen: Evidence, value: Floats) -> float:
    """Give how much a single time is off by chance, from what is left where places differ."""
    places = np.bincount(seen.kind)[seen.kind]
    several = places > 2
    # Medians of few are near them all.
    spread = np.abs(_off(seen, value)) * np.sqrt(seen.count * places / np.maximum(places - 1, 1))
    between = DEVIATION * float(np.median(spread[several])) if several.any() else 0.0
    return max(seen.noise, between)


def _off(seen: Evidence, value: Floats) -> Floats:
    """Give how much each observation deviates from what is usual for its kind."""
    usual = medians(value, seen.kind, seen.weight, count=len(seen.kinds))
    off: Floats = value - usual[seen.kind]
    return off
