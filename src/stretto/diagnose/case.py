"""What there is to go by in a diagnosis: a step beside a prediction, and what is seen in it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stretto.cluster import Cluster
from stretto.cost.stack import Stack
from stretto.diagnose.alone import Beside, alone_s, beside
from stretto.diagnose.compare import Comparison
from stretto.diagnose.constant import Sites
from stretto.diagnose.evidence import Evidence, evidence
from stretto.diagnose.finding import Cause, Finding
from stretto.diagnose.replay import Parts, step_s
from stretto.diagnose.sentence import Teller
from stretto.timeline.recorded import Counters, Recording
from stretto.timeline.value import Floats, Ints

SCALE = 16
"""Into how many steps the memory in use of a rank is told apart."""

CHANCE = 5.0
"""How many standard deviations from what is usual are not by chance."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What there is to go by.

    Attributes:
        compared: The measured step beside the predicted one.
        recording: What else is known of the measured step.
        sites: What it was predicted for.
        what: What cells do to those beside them.
        seen: What was observed.
        alone_s: What each cell of the measured step takes alone.
        longer: Of each cell the logarithm of measured over predicted time; NaN where unknown.
        pressed: Ranks whose counters tell of less memory than others have.
        short: Ranks whose counters tell of too little memory, where that is most of them.
        teller: Who tells what was found.
    """

    compared: Comparison
    recording: Recording | None
    sites: Sites
    what: Beside
    seen: Evidence
    alone_s: Floats
    longer: Floats
    pressed: tuple[int, ...]
    short: tuple[int, ...]
    teller: Teller

    def cost_s(self, other: Parts) -> float:
        """Give by how much another step is shorter."""
        return self.teller.step_s - step_s(self.compared.web, other)

    def without_s(self, longer: Floats) -> float:
        """Give by how much the step would be shorter if cells had not taken so many times longer.

        Computes beside messages that are shorter then are slowed down for a shorter time.
        """
        own, messages = self.compared.taken.own_s / longer, self.what.messages
        if (longer[messages] != 1.0).any():
            less = np.where(messages, 1.0 / longer, 1.0)
            eased = alone_s(self.compared.web, self.compared.taken, self.what, weight=less)
            slowed = ~messages & (eased > 0)
            own = np.where(slowed, own * self.alone_s / np.where(slowed, eased, 1.0), own)
        return self.cost_s(replace(self.compared.taken, own_s=own))

    def cells(self, longer: Floats) -> Floats:
        """Give for each cell what is given for each observation."""
        found: Floats = np.append(longer, 1.0)[self.seen.of]
        return found

    def finding(
        self,
        cause: Cause,
        where: str,
        ranks: tuple[int, ...],
        *,
        factor: float,
        extra_s: float,
        why: str,
        longer: Floats | None = None,
    ) -> Finding:
        """Give a finding; `longer` says how many times longer each cell takes for it."""
        taken, share = self.compared.taken, extra_s / self.teller.step_s
        rows = np.ones(len(self.compared.measured.kind))
        if longer is not None:
            rows[taken.row[taken.known]] = longer[taken.known]
        return Finding(cause, where, ranks, factor, extra_s, share, why, rows)

    def least_bytes(self, at: Ints) -> int:
        """Give how much was held at least when some observations were made; 0 if unknown."""
        if self.recording is None:
            return 0
        cells = np.isin(self.seen.of, at) & self.compared.taken.known
        return int(self.recording.memory_bytes[self.compared.taken.row[cells]].min())


def case(
    compared: Comparison,
    cluster: Cluster,
    *,
    stack: Stack,
    recording: Recording | None,
    others: Sequence[Comparison],
) -> Case:
    """Give what there is to go by.

    Args:
        compared: The measured step beside the predicted one.
        cluster: What the step was predicted for.
        stack: With which software.
        recording: What else is known of the measured step.
        others: Other steps of the run.
    """
    web, taken = compared.web, compared.taken
    sites = Sites(compared.program, cluster, stack)
    counters = recording.counters if recording else ()
    pressed, short = _pressed(counters)
    held = _held(compared, recording, {*pressed, *short}) if recording else np.zeros_like(web.rank)
    what = beside(web, sites)
    was, now = (alone_s(web, parts, what) for parts in (compared.expected, taken))
    known = np.where(compared.sure, now, np.nan)
    steps = [known, *(np.where(o.sure, alone_s(web, o.taken, what), np.nan) for o in others)]
    seen = evidence(
        web, sites, predicted_s=was, measured_s=_median(steps), taken_s=taken.own_s, held=held
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        longer = np.log(known / was)
    hosts = [f"h{rank // cluster.per_node}" for rank in range(len(web.first))]
    for one in counters:
        hosts[one.rank] = one.host
    teller = Teller(seen, tuple(hosts), counters, step_s(web, taken))
    return Case(
        compared, recording, sites, what, seen, now, longer, tuple(pressed), tuple(short), teller
    )


def _median(steps: Sequence[Floats]) -> Floats:
    """Give the median of what each cell took in the steps in which that is known."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")
        found: Floats = np.nanmedian(np.stack(steps), axis=0)
    return found


# ── memory ───────────────────────────────────────────────────────────────────────────────────────


def _pressed(counters: Sequence[Counters]) -> tuple[Collection[int], Collection[int]]:
    """Give the ranks that had more trouble with memory than is usual, and more than by chance."""
    if not counters:
        return (), ()
    counts = {c.rank: c.major_faults + c.alloc_retries for c in counters}
    usual = sorted(counts.values())[(len(counts) - 1) // 2]
    most = usual + CHANCE * np.sqrt(usual + 1)
    pressed = [rank for rank, count in counts.items() if count > most]
    short = [rank for rank, count in counts.items() if count > CHANCE * np.sqrt(count + 1)]
    return pressed, short if len(short) > len(pressed) else ()


def _held(compared: Comparison, recording: Recording, ranks: Collection[int]) -> Ints:
    """Give how full the memory of some ranks was at each cell; 0 for others."""
    held = np.zeros_like(compared.web.rank)
    for rank in ranks:
        mine = np.flatnonzero((compared.web.rank == rank) & compared.taken.known)
        held_bytes = recording.memory_bytes[compared.taken.row[mine]]
        least, most = held_bytes.min(), held_bytes.max()
        held[mine] = SCALE * (held_bytes - least) // max(most - least + 1, 1)
    return held
