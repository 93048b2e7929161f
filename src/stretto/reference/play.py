"""The reference: a program played for all ranks in one process, on float64 arrays.

Each rank holds nothing but its own blocks, whose shapes are checked at every write. The ranks run in
turn, each until it needs what another has not given yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stretto.errors import Problem, RankError
from stretto.initial import initial
from stretto.layout import Box
from stretto.model import Parameter
from stretto.program.instruction import Buffer, Program, Role, Update
from stretto.reference.arrays import Array, cropped, padded
from stretto.reference.blocks import IGNORE
from stretto.reference.rank import AdamW, Rank, Step


class Batch(Protocol):
    """The micro-batch of one replica; all arrays are (sequences, positions)."""

    @property
    def tokens_BT(self) -> Array:
        """Tokens."""

    @property
    def targets_BT(self) -> Array:
        """The token that each position predicts; -100 for none."""

    @property
    def documents_BT(self) -> Array | None:
        """The document of each position; None where there is but one."""

    @property
    def positions_BT(self) -> Array:
        """The place of each token, for learned positions."""


Batches = Callable[[int, int], Batch]
"""(replica, micro-batch) → its data."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a step.

    Attributes:
        loss: Mean over valid targets, in nats.
        count: Number of valid targets.
        norm: Of the mean gradient over all parameters, before clipping.
        ok: Whether the step counted; if not, nothing has changed.
        gradients: Of the mean loss by parameter, before clipping; global, of the true shape.
    """

    loss: float
    count: int
    norm: float
    ok: bool
    gradients: Mapping[str, Array]


class Reference:
    """All ranks of a program, between steps."""

    def __init__(
        self, program: Program, *, seed: int = 0, parameters: Mapping[str, Array] | None = None
    ) -> None:
        """Give every rank its blocks.

        Args:
            program: What is played.
            seed: Of the initial values.
            parameters: Initial values instead, by name: global, of the true shape.
        """
        self._program = program
        self._model = program.model
        self._named = {p.name: p for p in program.model.parameters}
        self._steps = 0
        self._ranks = tuple(Rank(program, r) for r in range(program.placement.mesh.size))
        for rank in self._ranks:
            masters = {state[0] for state in _states(rank).values()}
            for buffer in rank.stage.resting(Role.PARAMETER, Role.STATE):
                spec = rank.stage.buffers[buffer]
                parameter, box = self._named[spec.parameter], self._box(rank, buffer)
                if spec.role is Role.STATE and buffer not in masters:
                    block = np.zeros(tuple(stop - start for start, stop in box))
                elif parameters is None:
                    shape = self._model.shape(parameter)
                    block = initial(parameter, box, shape=shape, seed=seed)
                else:
                    whole = np.asarray(parameters[parameter.name], np.float64)
                    block = padded(whole, spec.shape)[tuple(slice(*side) for side in box)].copy()
                rank.write(buffer, block)

    def step(
        self, batches: Batches, *, lr: float, beta1: float = 0.9, beta2: float = 0.95,
        eps: float = 1e-8, decay: float = 0.1, clip: float = 1.0,
    ) -> Outcome:  # fmt: skip
        """Play one step.

        Args:
            batches: The data.
            lr: Learning rate.
            beta1: Decay of AdamW's first moment.
            beta2: Decay of its second moment.
            eps: Added to the root of the second moment.
            decay: Decoupled weight decay.
            clip: Largest norm of the gradient; 0 for any.

        Raises:
            RankError: The ranks wait for each other.
        """
        adamw = AdamW(lr, beta1, beta2, eps, decay, clip)
        step = Step(self._steps + 1, adamw)
        self._give(batches)
        _together(self._ranks, step)
        for rank in self._ranks:
            for buffer in rank.stage.resting(Role.GIVEN):
                del rank.held[buffer]
            rests = set(rank.stage.resting(Role.PARAMETER, Role.STATE))
            assert set(rank.held) == rests, f"left over: {sorted(set(rank.held) - rests)}"
        verdict = step.verdict
        assert verdict is not None, "a step ends with a vote"
        self._steps += verdict.ok
        return Outcome(
            verdict.loss / verdict.count if verdict.count else math.nan,
            verdict.count,
            verdict.norm,
            verdict.ok,
            {name: self._whole(name, blocks) for name, blocks in step.gradients.items()},
        )

    @property
    def parameters(self) -> dict[str, Array]:
        """Every parameter by name: global, of its true shape."""
        return {
            name: self._resting(lambda rank, name=name: _parameter(rank, name))
            for name in self._named
        }

    @property
    def state(self) -> dict[str, tuple[Array, ...]]:
        """Master weight, first and second moment by parameter: global, of the true shape."""

