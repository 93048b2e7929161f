"""Whether a step that was played fits into the memory of its devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stretto.cluster import Cluster, Device
from stretto.cost.memory import FRAGMENTS, RESERVE_BYTES
from stretto.simulate.fold import Folded
from stretto.timeline.memory import MemoryCurve, curve
from stretto.timeline.value import Floats
from stretto.units import show_bytes

_PASSING = ("activations", "communication", "other")  # kinds of memory that come and go


@dataclass(frozen=True, slots=True)
class Need:
    """What a rank needs of its device at its fullest moment, as `cost.memory` counts it.

    Attributes:
        rank: Which.
        held_bytes: What its program holds.
        lost_bytes: Lost between blocks of memory.
        reserve_bytes: The device's context and libraries.
        memory_bytes: What the device has.
        device: Its name.
    """

    rank: int
    held_bytes: float
    lost_bytes: float
    reserve_bytes: float
    memory_bytes: float
    device: str

    @property
    def total_bytes(self) -> float:
        """All of it."""
        return self.held_bytes + self.lost_bytes + self.reserve_bytes

    @property
    def fits(self) -> bool:
        """Whether the device has it."""
        return self.total_bytes <= self.memory_bytes


def fullest(folded: Folded, cluster: Cluster, *, memory: Sequence[MemoryCurve]) -> Need:
    """Give what the rank needs that is fullest: what it holds is the stage's, and when is alike.

    Args:
        folded: The step.
        cluster: Where.
        memory: Of each rank that was played what it holds.
    """
    ends = np.cumsum([part.devices for part in cluster.parts])
    kinds: dict[tuple[int, int], int] = {}
    for player, ranks in enumerate(folded.line.alike):
        for part in {int(p) for p in np.searchsorted(ends, ranks, side="right")}:
            kinds.setdefault((folded.most.program.of(ranks[0]).stage, part), player)
    needs = [
        _need(folded, memory[player], device=cluster.parts[part].device, player=player)
        for (_, part), player in kinds.items()
    ]
    return max(needs, key=lambda need: need.total_bytes / need.memory_bytes)


def _need(folded: Folded, held: MemoryCurve, *, device: Device, player: int) -> Need:
    most = _peak(held)
    if folded.fewer is not None:  # what each micro-batch adds that was not played
        least = _peak(curve(folded.fewer.line, folded.fewer.program, player))
        each = (most - least) / (folded.most.micro_batches - folded.fewer.micro_batches)
        most = most + (folded.micro_batches - folded.most.micro_batches) * each
    whole, passing = most.tolist()
    lost, reserve = (0.0, 0.0) if device.host else (FRAGMENTS * passing, RESERVE_BYTES)
    rank = folded.line.alike[player][0]
    return Need(rank, whole, lost, reserve, device.memory_bytes, device.name)


def _peak(curve: MemoryCurve) -> Floats:
    """Give all that is held at the peak, and what of it comes and goes."""
    held = {name: float(column[curve.peak]) for name, column in curve.held_bytes.items()}
    return np.array([sum(held.values()), sum(held[name] for name in _PASSING)])


def misfit(need: Need) -> str:
    """Give why a step does not fit."""
    parts = [f"{show_bytes(need.held_bytes)} that it holds"]
    if need.reserve_bytes:
        parts += [
            f"{show_bytes(need.lost_bytes)} lost by the allocator",
            f"{show_bytes(need.reserve_bytes)} of context and libraries",
        ]
    return (
        f"does not fit: rank {need.rank} needs {show_bytes(need.total_bytes)} of the "
        f"{show_bytes(need.memory_bytes)} of its {need.device}: {', '.join(parts)}"
    )
