"""Bubbles and activations of the schedules in closed form, for arrays of plans.

They are what a schedule gives that is played action by action. A paper's formula holds for as many
micro-batches as fill the pipeline; the terms here that allow for fewer reduce to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stretto.plan import ScheduleName

Array = NDArray[np.float64]


def bubble_slots(
    name: ScheduleName, *, p: ArrayLike, v: ArrayLike = 1, m: ArrayLike,
    f: ArrayLike, b: ArrayLike, w: ArrayLike,
) -> Array:  # fmt: skip
    """Give how long a rank idles in a step, in the unit of `f`, `b` and `w`.

    A step is the longest time from a rank's first action to its last, as if its update waited for
    no other rank (see `Schedule.step_s`). All arrays broadcast. Exact where w ≤ b; with ``zb-v``
    also f ≤ b, or it idles less; with ``vocabulary`` its order must be that for (b + w)/f.

    Args:
        name: The schedule.
        p: Pipeline ranks.
        v: Stages of a rank.
        m: Micro-batches of a step.
        f: The forward of a micro-batch through all stages of a rank.
        b: Its input gradient, recomputation included.
        w: Its weight gradient.
    """
    p, v, m, f, b, w = _arrays(p, v, m, f, b, w)
    fill, after = p - 1.0, m - 1.0
    filler = np.minimum(f, w)  # what a weight gradient fills of the place of a forward
    match name:
        case "gpipe" | "1f1b" | "vocabulary":  # (Narayanan et al., 2021; Yeung et al., 2024)
            idle = fill * (f + b + w)
        case "interleaved":  # (Narayanan et al., 2021)
            idle = fill * (f + b + w) / v
        case "breadth-first":  # (Lamy-Poirier, 2023), for m ≥ p
            idle = (fill + (v - 1.0) * np.maximum(p - m, 0.0)) * (f + b + w) / v
        case "zb-1p":  # (Qi et al., 2023), table 2 for m ≥ p and appendix H for fewer
            idle = fill * (f + b) - np.minimum(after, fill) * filler
        case "zb-2p":  # (Qi et al., 2023), table 2 for m ≥ 2p - 1
            idle = fill * (f + b) - np.minimum(after, 2.0 * fill) * filler
        case "zb-v":  # zero for f = b = w and m ≥ 2p - 1 (Qi et al., 2023, section 6)
            forwards, weights = np.minimum(after, fill), np.clip(m - p, 0.0, fill)
            idle = fill * (f + np.maximum(f, b)) - forwards * f - weights * filler
    return np.maximum(idle, 0.0)


def held(
    name: ScheduleName, *, p: ArrayLike, v: ArrayLike = 1, m: ArrayLike, r: ArrayLike,
    kept: ArrayLike = 1.0,
) -> Array:  # fmt: skip
    """Give the most micro-batches whose activations a rank holds at once.

    The unit is what a micro-batch leaves in all stages of the rank; one that went through half of
    them counts half. All arrays broadcast.

    Args:
        name: The schedule.
        p: Pipeline ranks.
        v: Stages of a rank.
        m: Micro-batches of a step.
        r: Which pipeline rank, from 0.
        kept: Share of the activations that the weight gradient needs: M_W/M_B of (Qi et al., 2023).
    """
    p, v, m, r, kept = _arrays(p, v, m, r, kept)
    match name:
        case "gpipe" | "breadth-first":  # (Huang et al., 2019; Lamy-Poirier, 2023)
            return m.copy()
        case "1f1b":  # (Narayanan et al., 2021)
            return np.minimum(m, p - r)
        case "interleaved":  # (Narayanan et al., 2021): the warm-up's stages, and one more
            warm = 2.0 * (p - r - 1.0) + (v - 1.0) * p + 1.0
            return np.where(v > 1.0, np.minimum(m * v, warm) / v, np.minimum(m, p - r))
        case "vocabulary":  # (Yeung et al., 2024): one more than 1F1B for its one barrier
            return np.minimum(m, p - r + 1.0)
        case "zb-1p":  # (Qi et al., 2023): (p - r) M_B + r M_W
            return _split(m, p - r, r, kept)
        case "zb-2p":  # (Qi et al., 2023): (2p - 2r - 1) M_B + 2r M_W
            return _split(m, 2.0 * (p - r) - 1.0, 2.0 * r, kept)
        case "zb-v":  # (Qi et al., 2023): p M_B
            return np.minimum(np.minimum(m, p), (m + r + 1.0) / 2.0)


def _arrays(*values: ArrayLike) -> tuple[Array, ...]:
    return np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in values))


def _split(m: Array, whole: Array, late: Array, kept: Array) -> Array:
    """Give micro-batches in flight: so many before their input gradient, and so many after it."""
    return np.minimum(m, whole) + kept * np.clip(m - whole, 0.0, late)
