"""The reference: a program played for all ranks in one process, on float64 arrays.

Each rank holds nothing but its own blocks, whose shapes are checked at every write. The ranks run
in turn, each until it needs what another has not given yet.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stretto.errors import Problem, RankError
from stretto.initial import initial
from stretto.layout import Box, Layout
from stretto.model import Parameter
from stretto.program.instruction import Buffer, Program, Role, Update
from stretto.recipe import Recipe
from stretto.reference.arrays import Array, cropped, padded
from stretto.reference.blocks import IGNORE
from stretto.reference.rank import Rank, Step


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
    """What a step came to.

    Attributes:
        loss: Mean over the valid targets of the step, in nats.
        targets: Number of valid targets.
        norm: Of the mean gradient over all parameters, before clipping.
        applied: Whether the weights were updated: not if the loss or the norm is not finite.
        gradients: Of the mean loss by parameter, before clipping: global, of the true shape. Empty
            if nothing was updated.
    """

    loss: float
    targets: int
    norm: float
    applied: bool
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
        self._program, self._model = program, program.model
        self._ranks = tuple(Rank(program, r) for r in range(program.placement.mesh.size))
        self._boxes: dict[tuple[Layout, tuple[int, ...], int], Box] = {}
        named = {p.name: p for p in self._model.parameters}
        for rank in self._ranks:
            masters = set(_states(rank, which=0).values())
            for buffer in rank.stage.resting(Role.PARAMETER, Role.STATE):
                spec = rank.stage.buffers[buffer]
                box, parameter = self._box(rank, buffer), named[spec.parameter]
                if spec.role is Role.STATE and buffer not in masters:
                    block = np.zeros(tuple(stop - start for start, stop in box))
                elif parameters is None:
                    shape = self._model.shape(parameter)
                    block = initial(parameter, box, shape=shape, seed=seed)
                else:
                    whole = np.asarray(parameters[parameter.name], np.float64)
                    block = padded(whole, spec.shape)[_slices(box)]
                rank.write(buffer, block)

    def step(self, batches: Batches, *, recipe: Recipe, step: int) -> Outcome:
        """Play the program once.

        Args:
            batches: The data of the step.
            recipe: How weights change.
            step: The step's number, counted from 0.

        Raises:
            RankError: The ranks wait for each other.
        """
        played = Step(step, recipe)
        self._give(batches)
        with np.errstate(all="ignore"):  # what is not finite is for the vote to say
            _together(self._ranks, played)
        for rank in self._ranks:
            for buffer in rank.stage.resting(Role.GIVEN):
                del rank.held[buffer]
            left = set(rank.held) - set(rank.stage.resting(Role.PARAMETER, Role.STATE))
            assert not left, f"rank {rank.index} still holds {sorted(left)}"
        assert not played.mail, f"nobody received {sorted(played.mail)}"
        verdict = played.verdict
        assert verdict is not None, "a step ends with a vote"
        gradients = {
            p.name: self._whole(p, played.gradients[p.name])
            for p in self._model.parameters
            if verdict.ok and played.gradients
        }
        mean = verdict.loss / verdict.count if verdict.count else math.nan
        return Outcome(mean, verdict.count, verdict.norm, verdict.ok, gradients)

    @property
    def parameters(self) -> dict[str, Array]:
        """Every parameter by name: global, of its true shape."""
        return self._resting(_parameters)

    @property
    def state(self) -> dict[str, tuple[Array, Array, Array]]:
        """Master weight, first and second moment by parameter: global, of the true shape."""
        master, first, second = (
            self._resting(functools.partial(_states, which=which)) for which in range(3)
        )
        return {name: (master[name], first[name], second[name]) for name in master}

    # ── between global arrays and blocks ─────────────────────────────────────────────────────────

    def _give(self, batches: Batches) -> None:
        """Hand every rank the micro-batches of its replica."""
        placement, given = self._program.placement, functools.cache(batches)
        for rank in self._ranks:
            replica = placement.mesh.index(rank.index, placement.axes.get("batch", ()))
            for buffer in rank.stage.resting(Role.GIVEN):
                name, _, micro_batch = buffer.rpartition(".m")
                rank.write(buffer, _given(name, given(replica, int(micro_batch))))

    def _resting(self, names: Callable[[Rank], Mapping[str, Buffer]]) -> dict[str, Array]:
        """Assemble what rests of every parameter, where `names` says in which buffer of a rank."""
        found = [(rank, names(rank)) for rank in self._ranks]
        return {
            p.name: self._whole(
                p, {r.index: (n[p.name], r.read(n[p.name])) for r, n in found if p.name in n}
            )
            for p in self._model.parameters
        }

    def _whole(self, parameter: Parameter, blocks: Mapping[int, tuple[Buffer, Array]]) -> Array:
        """Assemble the blocks of ranks; replicas must agree, padding must be zero."""
        parts = [(self._ranks[i], *held) for i, held in blocks.items()]
        shape = parts[0][0].stage.buffers[parts[0][1]].shape
        whole, held = np.zeros(shape), np.zeros(shape, bool)
        for rank, buffer, block in parts:
            place = _slices(self._box(rank, buffer))
            before = held[place]
            assert np.array_equal(whole[place][before], block[before], equal_nan=True), (
                f"replicas of {buffer} differ at rank {rank.index}"
            )
            whole[place], held[place] = block, True
        assert held.all(), f"nobody holds a part of {parameter.name}"
        true = cropped(whole, self._model.shape(parameter))
        assert np.array_equal(whole, padded(true, shape), equal_nan=True), (
            f"{parameter.name}: padding is not zero"
        )
        return true

    def _box(self, rank: Rank, buffer: Buffer) -> Box:
        spec = rank.stage.buffers[buffer]
        key = (spec.layout, spec.shape, rank.index)
        if key not in self._boxes:
            mesh = self._program.placement.mesh
            self._boxes[key] = spec.layout.box(spec.shape, mesh=mesh, rank=rank.index)
        return self._boxes[key]


def _together(ranks: Sequence[Rank], step: Step) -> None:
    """Play a step on all ranks in turn.

    Raises:
        RankError: All that are left wait for each other.
    """
    working = {rank.index: rank.play(step) for rank in ranks}
    while working:
        before, waits = step.progress, {}
        for index, work in working.items():
            waits[index] = next(work, None)
        working = {index: work for index, work in working.items() if waits[index] is not None}
        if working and step.progress == before:
            raise RankError(
                Problem(f"rank {i}", f"waits for {waits[i]}", "let that come first")
                for i in working
            )


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)


def _given(name: str, batch: Batch) -> Array:
    """Give what a buffer of data holds."""
    documents_BT = batch.documents_BT
    return {
        "tokens": batch.tokens_BT,
        "targets": batch.targets_BT,
        "positions": batch.positions_BT,
        "mask": np.zeros_like(batch.tokens_BT) if documents_BT is None else documents_BT,
        "count": np.asarray(np.sum(batch.targets_BT != IGNORE)),
    }[name]


def _parameters(rank: Rank) -> dict[str, Buffer]:
    """Give the buffers in which parameters rest, by parameter."""
    buffers = rank.stage.resting(Role.PARAMETER)
    return {rank.stage.buffers[buffer].parameter: buffer for buffer in buffers}


def _states(rank: Rank, *, which: int) -> dict[str, Buffer]:
    """Give the buffers of a part of `Weight.state` by parameter."""
    updates = [i for i in rank.stage.instructions if isinstance(i, Update)]
    return {w.parameter: w.state[which] for update in updates for w in update.weights}
