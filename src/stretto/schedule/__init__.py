"""In what order: pipeline schedules as values, each made by one pure function.

A new schedule is one function here, and its name in `SCHEDULES` and in `plan.ScheduleName`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from stretto.schedule.cut import balanced
from stretto.schedule.gpipe import gpipe
from stretto.schedule.one_f_one_b import one_f_one_b
from stretto.schedule.render import grid
from stretto.schedule.schedule import Action, Pass, Schedule

SCHEDULES: Mapping[str, Callable[[int, int], Schedule]] = MappingProxyType(
    {"gpipe": gpipe, "1f1b": one_f_one_b}
)
"""Name in a plan → function of (stages, micro-batches)."""

__all__ = [
    "SCHEDULES",
    "Action",
    "Pass",
    "Schedule",
    "balanced",
    "gpipe",
    "grid",
    "one_f_one_b",
]
