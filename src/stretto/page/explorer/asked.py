"""What is asked of the explorer: devices, batch, sequences, network and what is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from stretto.cluster import Cluster, dumps
from stretto.cost import stacks
from stretto.errors import InputError, Problem
from stretto.page.explorer.start import (
    MOST_DEVICES,
    MOST_SEQUENCES,
    MOST_TIMES,
    MOST_TOKENS,
    Links,
    Start,
    linked,
)
from stretto.search import Objective, Task

Number = TypeVar("Number", int, float)
Name = TypeVar("Name", bound=str)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked.

    Attributes:
        devices: How many.
        sequences: Sequences of a step.
        seq: Positions of a sequence.
        network: How many times as fast as in the cluster's file some links are.
        links: Which.
        objective: What is best.
    """

    devices: int
    sequences: int
    seq: int
    network: float
    links: Links
    objective: Objective

    @staticmethod
    def of(start: Start) -> Asked:
        """Give what the plan of the page is an answer to."""
        batch = start.plan.batch
        links = start.links[0] if start.links else "all"
        return Asked(start.cluster.devices, batch.sequences, batch.seq, 1.0, links, "time")

    @staticmethod
    def read(query: Mapping[str, str], start: Start) -> Asked:
        """Give what a query asks; what it leaves out is as at the start.

        Args:
            query: Fields of `Asked` as text; others are not looked at.
            start: Where exploring starts.

        Raises:
            InputError: All that is wrong.
        """
        usual, problems = Asked.of(start), list[Problem]()
        read = _Reader(query, problems)
        most = min(start.system.devices, MOST_DEVICES)
        asked = Asked(
            read.number("devices", usual.devices, least=1, most=most, kind=int),
            read.number("sequences", usual.sequences, least=1, most=MOST_SEQUENCES, kind=int),
            read.number("seq", usual.seq, least=1, most=start.most_positions, kind=int),
            read.number("network", 1.0, least=1 / MOST_TIMES, most=MOST_TIMES, kind=float),
            read.word("links", usual.links, words=start.links),
            read.word("objective", usual.objective, words=start.objectives),
        )
        problems += [] if problems else asked._problems()
        if problems:
            raise InputError(problems)
        return asked

    def _problems(self) -> Iterator[Problem]:
        if self.sequences * self.seq > MOST_TOKENS:
            rule = f"{self.sequences:,} × {self.seq:,} tokens a step are more than {MOST_TOKENS:,}"
            yield Problem("sequences", rule, f"use at most {MOST_TOKENS // self.seq:,}")

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.sequences * self.seq

    @property
    def tree(self) -> dict[str, Any]:
        """The same as JSON."""
        return asdict(self)

    def cluster(self, start: Start) -> Cluster:
        """Give the cluster that is asked about."""
        whole = start.cluster if self.devices == start.cluster.devices else start.system
        sized = whole.at(self.devices)
        return sized if self.network == 1 else linked(sized, self.network, links=self.links)

    def task(self, start: Start) -> Task:
        """Give what to search for.

        Raises:
            InputError: No plan can do it.
        """
        numerics = start.plan.numerics
        return Task(
            start.model,
            self.cluster(start),
            self.sequences,
            self.seq,
            numerics.dtype,
            numerics.matrix,
            start.stack,
        )

    def file(self, start: Start) -> str | None:
        """Give the cluster as the file that `command` names; None where it names a preset."""
        return None if start.preset and self.network == 1 else dumps(self.cluster(start))

    def command(self, start: Start, *words: str) -> str:
        """Give the command that answers the same, or a part of it, but for the objective.

        Args:
            start: Where exploring starts.
            words: What else it says.
        """
        preset = start.preset and self.network == 1
        cluster = f"{start.system.name}x{self.devices}" if preset else "cluster.toml"
        parts = [f"stretto plan {start.word} --cluster {cluster}"]
        parts += [f"--batch-tokens {self.tokens} --seq {self.seq}"]
        if start.precision not in (None, "bfloat16"):
            parts.append(f"--precision {start.precision}")
        if start.generation not in (None, stacks.DEFAULT):
            parts.append(f"--stack {start.generation}")
        return " ".join([*parts, *words])

    def at(self, devices: int) -> Asked:
        """Give the same with another number of devices."""
        return replace(self, devices=devices)


@dataclass(frozen=True, slots=True)
class _Reader:
    """A query while it is read; what is wrong is added to `problems`."""

    query: Mapping[str, str]
    problems: list[Problem]

    def number(
        self,
        name: str,
        usual: Number,
        *,
        least: Number,
        most: Number,
        kind: Callable[[str], Number],
    ) -> Number:
        if name not in self.query:
            return usual
        text, remedy = self.query[name], f"use {least:,} to {most:,}"
        try:
            value = kind(text)
        except ValueError:
            self.problems.append(Problem(name, f"{text[:40]!r} is no number", remedy))
            return usual
        if not (math.isfinite(value) and least <= value <= most):
            side = "below" if value < least else "above"
            limit = least if value < least else most
            self.problems.append(Problem(name, f"is {value:,}, {side} {limit:,}", remedy))
        return value

    def word(self, name: str, usual: Name, *, words: Sequence[Name]) -> Name:
        text = self.query.get(name, usual)
        for word in words or (usual,):
            if word == text:
                return word
        remedy = f"choose from {', '.join(words)}"
        self.problems.append(Problem(name, f"{text[:40]!r} is none here", remedy))
        return usual
