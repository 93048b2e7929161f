"""Tokens of a step as whole sequences: never rounded without a word."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from stretto.errors import InputError, Problem

TOKENS = 4 * 2**20
"""Of a step where nobody says."""

_MOST = 1e18  # more tokens than anybody has

_COUNT = re.compile(r"(\d+(?:\.\d+)?(?:[eE]\d+)?)\s*([kKMGBT]?)(i?)")
_POWERS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "B": 3, "T": 4}


@dataclass(frozen=True, slots=True)
class Sequences:
    """Sequences of a step.

    Attributes:
        count: How many.
        note: How they were chosen or read, if that is not plain.
    """

    count: int
    note: str = ""


def count(text: str, *, field: str) -> int:
    """Give a count: ``15T``, ``300B``, ``4194304``, ``4Mi``, ``1.5e12``.

    Raises:
        InputError: It is none, or not a whole number above 0.
    """
    return _readings(text, field)[0]


def sequences(text: str, *, seq: int, field: str) -> Sequences:
    """Give the sequences that so many tokens are.

    ``4M`` is 4,000,000; where that is no whole number of sequences but 4 × 2²⁰ is, it is the
    latter, and the note says so.

    Args:
        text: Tokens of a step.
        seq: Positions of a sequence.
        field: What to call it in an error.

    Raises:
        InputError: It is no count, or no whole number of sequences.
    """
    readings = _readings(text, field)
    for wanted in readings:
        if wanted % seq == 0:
            note = f"{text} tokens are read as {wanted:,} = {wanted // seq:,} × {seq:,}"
            return Sequences(wanted // seq, note if wanted != readings[0] else "")
    wanted = readings[0]
    below, above = wanted // seq, wanted // seq + 1
    near = " or ".join(f"{n * seq} ({n:,} sequence{'s' * (n > 1)})" for n in (below, above) if n)
    rule = f"must be whole sequences, but {wanted:,} % {seq:,} = {wanted % seq:,}"
    raise InputError(Problem(field, rule, f"use {near}, or another --seq"))


def usual(*, seq: int, devices: int) -> Sequences:
    """Give the sequences of a step where nobody says: near `TOKENS`, and dividing over devices.

    Args:
        seq: Positions of a sequence.
        devices: Of the cluster. What of their number is odd divides the sequences, so that data
            parallelism can take it.
    """
    odd = devices // (devices & -devices)
    power = max(0, round(math.log2(TOKENS / (seq * odd))))
    number = odd * 2**power
    return Sequences(number, f"{number:,} sequences a step (--batch-tokens)")


def _readings(text: str, field: str) -> tuple[int, ...]:
    """Give what a count may mean: with decimal steps, and with binary ones."""
    match = _COUNT.fullmatch(text.strip().replace(",", ""))
    if match is None:
        raise InputError(Problem(field, f"{text!r} is no count of tokens", "write 4M or 4194304"))
    number, step, binary = match.groups()
    bases = (1024,) if binary else (1000, 1024) if step else (1000,)
    values = [float(number) * base ** _POWERS[step] for base in bases]
    if (binary and not step) or not 1 <= values[0] < _MOST or values[0] != int(values[0]):
        rule = f"{text!r} is no whole number of tokens from 1 to {_MOST:.0e}"
        raise InputError(Problem(field, rule, "write 4M or 4194304"))
    return tuple(int(value) for value in values if value == int(value))
