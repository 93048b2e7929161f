"""What the recorded steps of a run say, together."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from stretto.calibrate.sample import Sample, samples
from stretto.program.instruction import Program
from stretto.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was recorded of a program.

    Attributes:
        program: What the ranks did.
        samples: What each kind of work took.
        steps_s: Seconds of each recorded step, in their order.
    """

    program: Program
    samples: tuple[Sample, ...]
    steps_s: tuple[float, ...]

    @property
    def step_s(self) -> float:
        """The middle step."""
        return statistics.median(self.steps_s)

    @property
    def spread(self) -> float:
        """How far steps are apart: half of what holds the middle half of them, over the middle."""
        if len(self.steps_s) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.steps_s, n=4, method="inclusive")
        return (high - low) / 2 / self.step_s


def evidence(program: Program, lines: Sequence[Timeline]) -> Evidence:
    """Give what recorded steps say.

    Samples are those of the middle half of the steps: so they agree with the middle step, whatever
    disturbed others.

    Args:
        program: What the ranks did.
        lines: The recorded steps, one or more, each of all ranks.
    """
    steps_s = tuple(line.step_s for line in lines)
    edge = len(lines) // 4
    middle = sorted(range(len(lines)), key=lambda i: steps_s[i])[edge : len(lines) - edge]
    found: dict[Hashable, list[Sample]] = {}
    for i in middle:
        for key, sample in samples(lines[i], program).items():
            found.setdefault(key, []).append(sample)
    return Evidence(program, tuple(map(_middle, found.values())), steps_s)


def _middle(alike: list[Sample]) -> Sample:
    """Give the middle of samples of the same in several steps."""
    seconds = statistics.median(sample.seconds for sample in alike)
    return replace(alike[0], seconds=seconds, count=max(sample.count for sample in alike))
