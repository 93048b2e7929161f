"""1F1B: one forward, one backward (Narayanan et al., 2019; flush as in Narayanan et al., 2021)."""

from stretto.schedule.schedule import Action, Pass, Schedule


def one_f_one_b(stages: int, micro_batches: int) -> Schedule:
    """Give the 1F1B schedule: GPipe's bubble, at most p - s micro-batches in flight on stage s."""

    def rank(stage: int) -> tuple[Action, ...]:
        warm = min(stages - stage - 1, micro_batches)
        forwards = [Action(Pass.FORWARD, stage, m) for m in range(micro_batches)]
        backwards = [Action(Pass.BACKWARD, stage, m) for m in range(micro_batches)]
        steady = zip(forwards[warm:], backwards, strict=False)
        pairs = [action for pair in steady for action in pair]
        return (*forwards[:warm], *pairs, *backwards[micro_batches - warm :])

    return Schedule(stages, micro_batches, tuple(rank(s) for s in range(stages)))
