"""What of some layers may run again: all mixtures that no other beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stretto.cost import Number
from stretto.search.front import staircase
from stretto.search.ranks import Pieces


def mixtures(counts: Sequence[int], pieces: Pieces) -> Number:
    """Give how many of some layers run again in part or as a whole, by way and kind of layer.

    A knapsack over the layers: a mixture is left out if another takes no more time and keeps no
    more bytes. Layers of a kind are alike, so that only their numbers count, and the result is
    exact; memory is not rounded (Nemhauser and Ullmann, 1969). The whole of a layer that runs again
    is held at once, and so mixtures without any are a class of their own.

    Args:
        counts: Layers of each kind.
        pieces: What they take.
    """
    found = [_front(counts, pieces, most=most) for most in (1, 2)]
    return np.unique(np.concatenate(found), axis=0)


def _front(counts: Sequence[int], pieces: Pieces, *, most: int) -> Number:
    """Give the mixtures in which what runs again is at most `most`, as an index."""
    ways, kinds = pieces.kept_bytes.shape
    found, seconds, kept = np.zeros((1, ways, kinds)), np.zeros(1), np.zeros(1)
    for kind, count in enumerate(counts):
        some = _splits(count, most + 1)
        own = np.concatenate([some, np.zeros((len(some), ways - most - 1))], axis=1)
        each = _seconds(pieces)[:, kind]
        more = np.zeros((len(own), ways, kinds))
        more[:, :, kind] = own
        # All pairs of a mixture of the kinds before and one of this kind.
        found = (found[:, None] + more).reshape(-1, ways, kinds)
        seconds = (seconds[:, None] + own @ each).ravel()
        kept = (kept[:, None] + own @ pieces.kept_bytes[:, kind]).ravel()
        stay = staircase(seconds, kept)
        found, seconds, kept = found[stay], seconds[stay], kept[stay]
    return found


def _splits(count: int, ways: int) -> Number:
    """Give all ways to split a number into `ways` numbers."""
    grids = np.indices((count + 1,) * (ways - 1)).reshape(ways - 1, -1)
    some = grids[:, grids.sum(0) <= count]
    return np.concatenate([count - some.sum(0)[None], some]).T.astype(np.float64)


def _seconds(pieces: Pieces) -> Number:
    """Give the seconds of a micro-batch by way and kind, the mean over machines."""
    total = pieces.layer.total_s
    return np.asarray(total.reshape(-1, *pieces.kept_bytes.shape).mean(0))
