"""GPipe: all forwards, then all backwards (Huang et al., 2019)."""

from stretto.schedule.schedule import Action, Pass, Schedule


def gpipe(stages: int, micro_batches: int) -> Schedule:
    """Give the GPipe schedule: bubble (p - 1)/(m + p - 1), m micro-batches in flight."""
    return Schedule(
        stages,
        micro_batches,
        tuple(
            tuple(Action(d, s, m) for d in Pass for m in range(micro_batches))
            for s in range(stages)
        ),
    )
