"""What can go wrong, and whose fault it is.

    StrettoError            exit code
    ├── InputError          2   the user asked for something that cannot be
    │   ├── PlanError           … of the mesh, the rules, the schedule or the batch
    │   ├── ModelError          … of a config.json, a preset or weights
    │   ├── ClusterError        … of a cluster's file or name
    │   ├── DataError           … of text, tokens or a tokenizer
    │   └── CheckpointError     … of a checkpoint that does not fit or is damaged
    ├── MachineError        2   the machine refused: no disk, no port, no memory
    └── RankError           3   a rank failed while it ran

Every error carries `Problem`s: *all* that is wrong, found before anything is lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        field: Where it stands, as the user wrote it (``mesh.tp``, ``config.json: hidden_size``).
        rule: What must hold, and the numbers with which it does not.
        remedy: What would satisfy it.
    """

    field: str
    rule: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {self.rule}; {self.remedy}"


class StrettoError(Exception):
    """The root of all errors that Stretto raises on purpose."""

    exit_code: ClassVar[int] = 1

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        """Hold one problem or several.

        Args:
            problems: What is wrong; at least one.
        """
        self.problems: tuple[Problem, ...] = (
            (problems,) if isinstance(problems, Problem) else tuple(problems)
        )
        assert self.problems, "an error needs a problem"
        super().__init__("\n".join(str(p) for p in self.problems))


class InputError(StrettoError):
    """The user asked for something that cannot be."""

    exit_code = 2


class PlanError(InputError):
    """A plan that is impossible: of the mesh, the rules, the schedule or the batch."""


class ModelError(InputError):
    """A model that cannot be read or built: a config.json, a preset or weights."""


class ClusterError(InputError):
    """A cluster that cannot be: of a file, a name, or its numbers."""


class DataError(InputError):
    """Text, tokens or a tokenizer that cannot be used."""


class CheckpointError(InputError):
    """A checkpoint that is missing, damaged, or of another model."""


class MachineError(StrettoError):
    """The machine refused: no disk, no port, no memory."""

    exit_code = 2


class RankError(StrettoError):
    """A rank failed while it ran."""

    exit_code = 3
