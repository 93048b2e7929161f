"""A fault of a program: what `verify` finds before it is told to people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a program.

    Attributes:
        stage: Index of the stage.
        at: Index of the instruction; -1 for the list as a whole.
        rule: What must hold, and what is there instead.
        remedy: What would satisfy it.
    """

    stage: int
    at: int
    rule: str
    remedy: str
