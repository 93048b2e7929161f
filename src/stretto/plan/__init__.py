"""The plan: all that decides what each device does in a step. A frozen value, TOML in and out."""

from stretto.plan.plan import Plan, override, read
from stretto.plan.resting import resting_bytes
from stretto.plan.running import RUN_SCHEDULES
from stretto.plan.toml import KEYS, unknown
from stretto.plan.value import (
    DTYPE_BYTES,
    POWERSGD_RANK,
    Batch,
    Codec,
    Communication,
    DType,
    Group,
    Hierarchy,
    Matrix,
    Memory,
    Numerics,
    Pipeline,
    Recompute,
    ScheduleName,
)
from stretto.plan.words import AXES, Words

__all__ = [
    "AXES",
    "DTYPE_BYTES",
    "KEYS",
    "POWERSGD_RANK",
    "RUN_SCHEDULES",
    "Batch",
    "Codec",
    "Communication",
    "DType",
    "Group",
    "Hierarchy",
    "Matrix",
    "Memory",
    "Numerics",
    "Pipeline",
    "Plan",
    "Recompute",
    "ScheduleName",
    "Words",
    "override",
    "read",
    "resting_bytes",
    "unknown",
]
