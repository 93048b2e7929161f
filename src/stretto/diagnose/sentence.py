"""What was found, in sentences that somebody can act on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stretto.diagnose.evidence import Evidence
from stretto.diagnose.finding import Cause, Finding
from stretto.diagnose.suspect import Fit
from stretto.quantities import seconds, size
from stretto.timeline.recorded import Counters
from stretto.timeline.value import Ints

MORE = "leave it more memory: smaller micro-batches, recomputation, fewer neighbours"


def brief(finding: Finding) -> str:
    """Give a cause and what it costs in a clause: ``rank 0 is slow, which costs 20.0 ms``."""
    where, cost = finding.where, seconds(abs(finding.extra_s))
    many = where == "all ranks" or where.startswith("ranks ")
    are, hosts = ("are", "hosts") if many else ("is", "host")
    match finding.cause:
        case Cause.SLOW_RANK:
            what = f"{where} {are} slow"
        case Cause.SLOW_LINK if where.startswith("one of "):
            what = f"one of the links of {where.removeprefix('one of ')} is slow"
        case Cause.SLOW_LINK:
            between = f"between {where.replace('–', ' and ')}" if "–" in where else f"of {where}"
            what = f"the link {between} is slow"
        case Cause.MEMORY_PRESSURE:
            what = f"{where} {are} short of memory"
        case Cause.DATA_WAIT:
            what = f"{where} {'wait' if many else 'waits'} for data"
        case Cause.HOST:
            wait = "keep devices waiting" if many else "keeps its device waiting"
            what = f"the {hosts} of {where} {wait}"
        case Cause.WRONG_CONSTANT:
            what = f"{where} is wrong"
        case Cause.UNEXPLAINED:
            there = "on all ranks" if where == "all ranks" else f"most of it in {where}"
            less = "" if finding.extra_s >= 0 else " less than predicted"
            return f"{cost}{less} unexplained, {there}"
    return f"{what}, which {'costs' if finding.extra_s >= 0 else 'saves'} {cost}"


@dataclass(frozen=True, slots=True, eq=False)
class Teller:
    """Who tells what was found in a step.

    Attributes:
        seen: What was observed.
        hosts: Of each rank its machine.
        counters: What ranks counted; empty if nobody did.
        step_s: The measured step.
    """

    seen: Evidence
    hosts: tuple[str, ...]
    counters: tuple[Counters, ...]
    step_s: float

    def cost(self, extra_s: float) -> str:
        """Give what something costs."""
        step = f"a step of {seconds(self.step_s)}"
        if extra_s < 0:
            return f"it saves {seconds(-extra_s)} in {step}"
        return f"it costs {seconds(extra_s)} of {step}"

    def fit(self, fit: Fit, *, extra_s: float, held_bytes: int = 0, passed: str = "") -> str:
        """Give what a suspect did.

        Args:
            fit: The suspect.
            extra_s: What it costs.
            held_bytes: How much the rank held when it was slow, if that mattered.
            passed: Blocks that all messages pass for which it may be.
        """
        what, times, cost = fit.suspect, f"{fit.factor:.3g}×", self.cost(extra_s)
        match what.cause:
            case Cause.SLOW_RANK:
                than = f"computes {times} slower than {self._peers(fit)}"
                if len(what.ranks) > 1:
                    return (
                        f"{what.where} with its {len(what.ranks)} ranks {than}; {cost}; "
                        "check its power and cooling, and what else runs there"
                    )
                return (
                    f"{self._rank(what.ranks[0])} {than}; {cost}; "
                    "check its clocks and temperature, and what else runs there"
                )
            case Cause.MEMORY_PRESSURE:
                held = f" while more than {size(held_bytes)} are held" if held_bytes else ""
                return (
                    f"{self._of(what.ranks)} computes {times} slower{held} than "
                    f"{self._peers(fit)}, and counted {self._faults(what.ranks)}; {cost}; "
                    f"{MORE}"
                )
            case Cause.SLOW_LINK if what.against == "prediction":
                return (
                    f"messages between {what.where.replace('–', ' and ')} take {times} as long as "
                    f"predicted, all ranks being there, and no others take such a link; {cost}; "
                    f"measure it with stretto probe: it is slow, or {passed} is too high"
                )
            case Cause.SLOW_LINK:
                unsure = what.where.startswith("one of ")
                which = "measure each: the same messages take them" if unsure else (
                    "check its cables, ports and switch"
                )  # fmt: skip
                over = what.where.replace("–", " and ")
                over = f"between {over}" if "–" in what.where else f"over the link of {over}"
                return (
                    f"messages {over} take {times} longer than others of their kind, all ranks "
                    f"being there; {cost}; {which}"
                )
            case Cause.WRONG_CONSTANT:
                promises = "too much" if fit.factor > 1 else "too little"
                instead = f"; or a link of {passed}, which they all pass, is slow" if passed else ""
                return (
                    f"what depends on {what.where} takes {times} as long as predicted, on all "
                    f"ranks alike; {cost}; the cluster's file promises {promises}: "
                    f"stretto calibrate fits it{instead}"
                )
            case Cause.UNEXPLAINED | Cause.DATA_WAIT | Cause.HOST:
                return self.kinds([fit], extra_s=extra_s)

    def kinds(self, fits: Sequence[Fit], *, extra_s: float) -> str:
        """Give which kinds of work take what no constant says."""
        told = [f"{fit.suspect.where} {fit.factor:.3g}×" for fit in fits[:3]]
        more = f" and {len(fits) - 3} more" if len(fits) > 3 else ""
        return (
            f"on all ranks alike {', '.join(told)}{more} as long as predicted, and no number of "
            f"the cluster's file says why; {self.cost(extra_s)}"
        )

    def wait(self, cause: Cause, ranks: Sequence[int], *, longest_s: float, extra_s: float) -> str:
        """Give what ranks waited for by themselves."""
        who, cost = self._of(ranks), self.cost(extra_s)
        if cause is Cause.DATA_WAIT:
            return (
                f"{who} waits up to {seconds(longest_s)} for micro-batches; {cost}; "
                "read from a faster disk, or prepare the tokens beforehand"
            )
        between = max((c.host_s for c in self.counters if c.rank in ranks), default=0.0)
        told = f", {seconds(between)} of it between two steps" if between else ""
        return (
            f"the device of {who} waits up to {seconds(longest_s)} for its host{told}; "
            f"{cost}; save, evaluate and print less often, or use larger blocks"
        )

    def now_and_then(
        self,
        cause: Cause,
        ranks: Sequence[int],
        *,
        count: int,
        of: int,
        times: float,
        extra_s: float,
    ) -> str:
        """Give what computes cost that take longer now and then.

        Args:
            cause: Why they do.
            ranks: Whose; empty for all.
            count: How many do.
            of: Of how many.
            times: How much longer they take.
            extra_s: What it costs.
        """
        took = f"{count} of {of} computes of {self._of(ranks)} take {times:.3g}× as long as others"
        if cause is Cause.MEMORY_PRESSURE:
            return f"{took}, and it counted {self._faults(ranks)}; {self.cost(extra_s)}; {MORE}"
        return (
            f"{took} like them: something interrupts them; {self.cost(extra_s)}; "
            "see what else runs there"
        )

    def rest(
        self,
        what: str,
        rank: int,
        *,
        predicted_s: float,
        measured_s: float,
        extra_s: float,
        without: bool,
    ) -> str:
        """Give what is not explained, and the instruction with most of it.

        Args:
            what: The instruction.
            rank: Whose.
            predicted_s: What it was to take.
            measured_s: What it took, without what is explained.
            extra_s: All that is not explained.
            without: Whether anything is.
        """
        return (
            f"{seconds(extra_s)} of a step of {seconds(self.step_s)} is not explained by "
            f"anything else; the largest part is of {self._rank(rank)}: {what} takes "
            f"{seconds(measured_s)} instead of {seconds(predicted_s)}"
            f"{', what else was found taken out' if without else ''}; single times vary "
            f"by {self.seen.noise:.2%} by chance"
        )

    def _rank(self, rank: int) -> str:
        return f"rank {rank} on {self.hosts[rank]}"

    def _of(self, ranks: Sequence[int]) -> str:
        if len(ranks) == 1:
            return self._rank(ranks[0])
        everyone = len(ranks) == len(self.hosts) or not ranks
        return "every rank" if everyone else f"each of {len(ranks)} ranks"

    def _peers(self, fit: Fit) -> str:
        """Give with whom a suspect was compared."""
        seen = self.seen
        kinds = np.unique(seen.kind[fit.suspect.at])
        alike: Ints = np.unique(seen.place[np.isin(seen.kind, kinds) & seen.device])
        others = {seen.places[p][0] for p in alike.tolist()} - set(fit.suspect.ranks)
        if not others:
            return "otherwise"
        if len(others) == 1:
            return f"rank {min(others)}, which does the same work"
        return f"the {len(others)} ranks that do the same work"

    def _faults(self, ranks: Sequence[int]) -> str:
        mine = [c for c in self.counters if c.rank in ranks]
        rest = sorted(c.major_faults for c in self.counters if c.rank not in ranks)
        usual = f" (others {rest[(len(rest) - 1) // 2]})" if rest else ""
        faults = max((c.major_faults for c in mine), default=0)
        retries = max((c.alloc_retries for c in mine), default=0)
        return f"{faults} major page faults{usual} and {retries} retries of its allocator"
