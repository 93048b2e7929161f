"""In what order: pipeline schedules as values, each made by one pure function.

A new schedule is one function here, its name in `SCHEDULES` and in `plan.ScheduleName`, and its
formulas in `closed`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from stretto.plan import RUN_SCHEDULES as RUNNABLE
from stretto.plan import ScheduleName
from stretto.schedule.breadth_first import breadth_first
from stretto.schedule.closed import bubble_slots, held
from stretto.schedule.cut import balanced
from stretto.schedule.gpipe import gpipe
from stretto.schedule.interleaved import interleaved
from stretto.schedule.legal import possible, problems
from stretto.schedule.one_f_one_b import one_f_one_b
from stretto.schedule.render import grid
from stretto.schedule.schedule import Action, Costs, Pass, Placement, Schedule
from stretto.schedule.vocabulary import vocabulary
from stretto.schedule.zb_v import zb_v
from stretto.schedule.zero_bubble import zb_1p, zb_2p


class Make(Protocol):
    """What makes a schedule; raises `PlanError` for numbers that it does not take."""

    def __call__(self, ranks: int, micro_batches: int, *, chunks: int = 1) -> Schedule:
        """Give the schedule of so many pipeline ranks, with so many stages on each."""


SCHEDULES: Mapping[ScheduleName, Make] = MappingProxyType(
    {
        "gpipe": gpipe,
        "1f1b": one_f_one_b,
        "interleaved": interleaved,
        "breadth-first": breadth_first,
        "zb-1p": zb_1p,
        "zb-2p": zb_2p,
        "zb-v": zb_v,
        "vocabulary": vocabulary,
    }
)
"""Name in a plan → the function that makes it."""

__all__ = [
    "RUNNABLE",
    "SCHEDULES",
    "Action",
    "Costs",
    "Make",
    "Pass",
    "Placement",
    "Schedule",
    "balanced",
    "breadth_first",
    "bubble_slots",
    "gpipe",
    "grid",
    "held",
    "interleaved",
    "one_f_one_b",
    "possible",
    "problems",
    "vocabulary",
    "zb_1p",
    "zb_2p",
    "zb_v",
]
