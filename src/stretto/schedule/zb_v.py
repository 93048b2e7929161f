"""ZB-V: two stages a rank, placed in a V (Qi et al., 2023, section 6; V-ZB of Qi et al., 2024)."""

import itertools
from collections.abc import Iterator

from stretto.schedule.legal import require
from stretto.schedule.schedule import Action, Pass, Schedule


def zb_v(ranks: int, micro_batches: int, *, chunks: int = 2) -> Schedule:
    """Give the ZB-V schedule: with f = b = w no bubble, and 1F1B's memory on every rank.

    A micro-batch comes down the ranks and back up, so the first rank has loss and backward early.
    The order is that of 2p - 1 micro-batches or more; of fewer, it lacks the others.
    """
    require("zb-v", ranks=ranks, micro_batches=micro_batches, chunks=chunks)
    rounds = max(micro_batches, 2 * ranks - 1)
    orders = (_order(ranks, r, rounds=rounds) for r in range(ranks))
    kept = (tuple(a for a in order if a.micro_batch < micro_batches) for order in orders)
    return Schedule(2 * ranks, micro_batches, tuple(kept), "v")


def _order(ranks: int, r: int, *, rounds: int) -> Iterator[Action]:
    """Give a rank's actions: its first stage's passes are F and I, its second's f and i.

    W is the weight gradient for which the rank has had the input gradient longest.
    """
    after = ranks - r
    ahead = ranks + after - 1  # forwards of the first stage before its first backward
    warm = "F" * (2 * after - 1) + "fF" * r + "fiW" * after
    steady = "FIWfiW" * (rounds - ahead) + "IWfiW" * (after - 1)
    drain = "Ii" * r + "IW" * after + "W" * (2 * r)
    turns = {letter: itertools.count() for letter in "FfIi"}
    waiting: list[Action] = []
    for letter in warm + steady + drain:
        if letter == "W":
            done = waiting.pop(0)
            yield Action(Pass.WEIGHT_GRADIENT, done.stage, done.micro_batch)
            continue
        direction = Pass.FORWARD if letter in "Ff" else Pass.INPUT_GRADIENT
        stage = r if letter.isupper() else 2 * ranks - 1 - r
        action = Action(direction, stage, next(turns[letter]))
        if direction is Pass.INPUT_GRADIENT:
            waiting.append(action)
        yield action
