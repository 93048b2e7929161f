"""The reference: a program played for all ranks in one process, on float64 arrays.

It is the definition of every instruction. Each rank holds nothing but its own blocks, whose shapes
are checked at every write; a rank runs until it needs what another has not yet given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from stretto.errors import RankError, Problem
from stretto.initial import initial
from stretto.layout import Box, Layout
from stretto.model import Parameter, Segment
from stretto.program.instruction import (
    Buffer,
    Compute,
    Free,
    Instruction,
    Leg,
    Move,
    Named,
    Phase,
    Program,
    Recv,
    Role,
    Send,
    Spec,
    StageProgram,
    Sums,
    Update,
    Vote,
    Weight,
)
from stretto.reference.arrays import Array, combine, cropped, padded
from stretto.reference.blocks import IGNORE, Arrays, Local, run

Waiting = Iterator[str]
"""A rank at work: each item says what it waits for."""


class Batch(Protocol):
    """The micro-batch of one replica.

    Attributes:
        tokens_BT: Tokens.
        targets_BT: The token that each position predicts; -100 for none.
        documents_BT: The document of each position; None where there is but one.
        positions_BT: Place of each token, for learned positions.
    """

    tokens_BT: Array
    targets_BT: Array
    documents_BT: Array | None
    positions_BT: Array


Batches = Callable[[int, int], Batch]
"""(replica, micro-batch) → its data."""
