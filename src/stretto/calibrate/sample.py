"""What a recorded step says of what instructions take: a sample for each kind of work.

A compute takes what the device was busy with it. A message takes what a device lost to it: from the
end of what its last rank did before it, until its reader began, what the host did about it
included; only where nothing else was done meanwhile, for the end of a message is seen by whoever
waits for it. What is left, in which the host was busy with neither, is the rest of the step.
"""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import numpy as np

from stretto.cost.instruction import Message, Prices, messages
from stretto.program.instruction import (
    Compute,
    Instruction,
    Program,
    Recv,
    StageProgram,
    Update,
    Vote,
)
from stretto.program.render import label
from stretto.timeline import KINDS, Timeline
from stretto.timeline.value import HEADS

Work = Compute | Update | Message | Vote

REST = "the rest of a step"
_LEAST_S = 20e-6
"""A shorter wait is no more than asking whether a message has come."""
_BESIDE = 0.1
"""The share of a message's time in which something else may have been done."""

_DEVICE, _VOTE, _DATA, _HOST = (KINDS.index(k) for k in ("device", "vote", "data", "host"))
_MESSAGES = [KINDS.index(k) for k in ("activation", "parameter", "gradient", "pipeline")]


@dataclass(frozen=True, slots=True)
class Sample:
    """What some kind of work took.

    Attributes:
        name: What people call it.
        work: One of the instructions, or messages; a vote stands for the rest of a step.
        stage: Its stage.
        ranks: Who took part.
        seconds: What one of them took.
        count: How many there were in a step, on all ranks.
    """

    name: str
    work: Work
    stage: StageProgram
    ranks: tuple[int, ...]
    seconds: float
    count: int

    def priced_s(self, prices: Prices) -> float:
        """Give what it should take."""
        match self.work:
            case Message():
                return prices.message_s(self.work, self.ranks)
            case _:
                return prices.seconds(self.work, self.stage)


def samples(line: Timeline, program: Program) -> dict[Hashable, Sample]:
    """Give the mean of each kind of work in a recorded step.

    Args:
        line: The step as it was recorded, of all ranks.
        program: What they did.
    """
    taken: dict[Hashable, list[float]] = {}
    first: dict[Hashable, tuple[Work, StageProgram, tuple[int, ...]]] = {}
    for player, ranks in enumerate(line.alike):
        rank = ranks[0]
        for key, work, members, seconds in _Told(line, program, player=player, rank=rank):
            taken.setdefault(key, []).append(seconds)
            first.setdefault(key, (work, program.of(rank), members))
    return {
        key: Sample(
            _name(program, *first[key][:2]), *first[key], statistics.fmean(times), len(times)
        )
        for key, times in taken.items()
    }


def _name(program: Program, work: Work, stage: StageProgram) -> str:
    match work:
        case Message(kind=kind, axes=axes, size_bytes=size):
            return f"{kind} {'·'.join(axes)}, {size / 2**20:.3g} MiB"
        case Compute():
            return f"{work.phase} {program.chain[work.block].kind}" + _segments(program, work)
        case Update():
            return label(program, stage, work)
        case Vote():
            return REST


def _segments(program: Program, compute: Compute) -> str:
    return f"[{'·'.join(segment.name for segment in program.segments(compute))}]"


class _Told:
    """What a rank's rows say: (key, work, ranks, seconds) of each."""

    def __init__(self, line: Timeline, program: Program, *, player: int, rank: int) -> None:
        self.line, self.program, self.rank = line, program, rank
        self.stage = program.of(rank)
        self.rows = np.flatnonzero(line.player == player)
        heads = self.rows[np.isin(line.kind[self.rows], HEADS)]
        self.heads = heads[np.lexsort((line.stop_s[heads], line.start_s[heads]))].tolist()
        self.kind, self.own = line.kind.tolist(), set(self.rows.tolist())

    def __iter__(self) -> Iterator[tuple[Hashable, Work, tuple[int, ...], float]]:
        line, rest, done = self.line, 0.0, 0.0
        host, waits = 0.0, list[tuple[int, float]]()
        for row in self.heads:
            at, start, stop = self.kind[row], float(line.start_s[row]), float(line.stop_s[row])
            cause = int(line.cause[row])
            if cause in self.own and self.kind[cause] in _MESSAGES:
                waits.append((cause, start - done))
            if at == _HOST:
                host, done = host + stop - start, stop
                continue
            voting = at == _VOTE  # which reads no message: what the host did before it is the rest
            yield from self._message(waits, start - host * voting, host * (not voting))
            rest += host if voting or not waits else 0.0
            host, waits, done = 0.0, [], stop
            if at == _DEVICE:
                work = self.stage.instructions[int(line.instruction[row])]
                assert isinstance(work, Compute | Update)
                yield self._key(work), work, (self.rank,), stop - start
            else:
                rest += stop - start
        vote = next(i for i in self.stage.instructions if isinstance(i, Vote))
        yield REST, vote, (), rest + host

    def _message(
        self, waits: list[tuple[int, float]], until_s: float, host_s: float
    ) -> Iterator[tuple[Hashable, Work, tuple[int, ...], float]]:
        """Give the message that a device waited for, if it did nothing else meanwhile."""
        if len(waits) != 1:
            return
        ((row, waited_s),) = waits
        since_s = self._ready_s(row)
        seconds = until_s - since_s
        alone = waited_s + host_s
        if waited_s > _LEAST_S and seconds > 0 and alone > (1 - _BESIDE) * seconds:
            found = self._sent(row)
            if found is not None:
                work, ranks = found
                yield (work, len(ranks), max(ranks) - min(ranks)), work, ranks, seconds

    def _ready_s(self, row: int) -> float:
        """Give when the last rank had done what stands before a message, but for its host."""
        at = int(self.line.cause[row])
        while at >= 0 and self.kind[at] == _HOST:
            at = int(self.line.cause[at])
        return float(self.line.stop_s[at]) if at >= 0 else 0.0

    def _sent(self, row: int) -> tuple[Message, tuple[int, ...]] | None:
        """Give a row's message and who takes part."""
        index = int(self.line.instruction[row])
        work, mesh = self.stage.instructions[index], self.program.placement.mesh
        if isinstance(work, Recv):
            size = sum(
                self.stage.buffers[b].local_bytes(self.program.placement) for b in work.buffers
            )
            role = self.stage.buffers[work.buffers[0]].role
            sender = mesh.shift(self.rank, "pp", by=work.by)
            return Message("send", ("pp",), size, size, role), (sender, self.rank)
        same = self.rows[self.line.instruction[self.rows] == index]
        sent = messages(work, self.stage, self.program)
        message = sent[int(np.searchsorted(same, row))]
        return None if message.kind == "send" else (message, mesh.group(self.rank, message.axes))

    def _key(self, work: Instruction) -> Hashable:
        """Give what instructions that do the same have in common."""
        match work:
            case Compute(phase=phase, block=block, segments=segments):
                one, positions = self.program.chain[block], self.program.plan.batch.seq
                attended = self.program.model.attends_to(one.layer, positions=positions)
                return phase, one.kind, segments, attended
            case Update(weights=weights):
                specs = (self.stage.buffers[w.state[1]] for w in weights)
                placement = self.program.placement
                elements = sum(spec.local_bytes(placement) for spec in specs)
                return "update", len(weights), elements
            case _:
                raise AssertionError("nothing else keeps a device busy")
