"""Zero bubble: weight gradients fill what 1F1B leaves idle (Qi et al., 2023, section 2)."""

from stretto.schedule.legal import require
from stretto.schedule.schedule import Action, Pass, Schedule
from stretto.schedule.weave import each, weave


def zb_1p(ranks: int, micro_batches: int, *, chunks: int = 1) -> Schedule:
    """Give the handcrafted ZB-H1: 1F1B's memory, and with f = b = w a third of its bubble.

    It stands for ZB-1p, which is searched under the same limit of memory and has the same bubble
    (Qi et al., 2023, table 5).
    """
    require("zb-1p", ranks=ranks, micro_batches=micro_batches, chunks=chunks)
    return _handcrafted(ranks, micro_batches, depth=1)


def zb_2p(ranks: int, micro_batches: int, *, chunks: int = 1) -> Schedule:
    """Give the handcrafted ZB-H2: with f = b = w no bubble, for nearly twice 1F1B's memory.

    It stands for ZB-2p, which is searched under twice 1F1B's memory for measured times, and where
    w < f idles less (Qi et al., 2023, table 5).
    """
    require("zb-2p", ranks=ranks, micro_batches=micro_batches, chunks=chunks)
    return _handcrafted(ranks, micro_batches, depth=2)


def _handcrafted(ranks: int, micro_batches: int, *, depth: int) -> Schedule:
    """Give 1F1B with `depth` times its warm-up and, on the last rank, as late a first W.

    Rank r runs depth·(p - 1 - r) forwards first, and depth·r input gradients before its first
    weight gradient, so that all ranks hold as many micro-batches.
    """

    def order(r: int) -> tuple[Action, ...]:
        forwards, inputs, weights = (
            each(d, r, micro_batches)
            for d in (Pass.FORWARD, Pass.INPUT_GRADIENT, Pass.WEIGHT_GRADIENT)
        )
        return weave(
            (forwards, 0), (inputs, depth * (ranks - 1 - r)), (weights, depth * (ranks - 1))
        )

    return Schedule(ranks, micro_batches, tuple(order(r) for r in range(ranks)))
