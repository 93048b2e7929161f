"""What a run of a block writes, for any micro-batch: every one does the same under other names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stretto.program.instruction import Buffer, Compute, Instruction, Leg, Move, Named, Spec

ANY = -1
"""Stands for the micro-batch while a run is written for all of them."""


def gathered(parameter: str) -> Buffer:
    """Name what stands for a gathered parameter, whose name differs each time that it is."""
    return f"u:{parameter}"


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a run of a block writes.

    Attributes:
        instructions: For the micro-batch `ANY`.
        buffers: What each of their buffers is, in the order in which they are made.
        names: Of those that belong to a micro-batch, joined by line ends.
        parameters: The gathered parameters that it reads.
        stands: The names, then what stands for the parameters: all that is filled in.
        last: The instructions that name each of these last.
        same: Parts of instructions, by `id`, that name none of these.
    """

    instructions: tuple[Instruction, ...]
    buffers: Mapping[Buffer, Spec]
    names: str
    parameters: tuple[str, ...]
    stands: tuple[Buffer, ...]
    last: tuple[int, ...]
    same: frozenset[int]

    @staticmethod
    def of(
        instructions: Sequence[Instruction],
        buffers: Mapping[Buffer, Spec],
        *,
        parameters: Iterable[str],
    ) -> Run:
        """Give a run as it was written for `ANY`, with what stands for gathered parameters."""
        last: dict[Buffer, int] = {}
        mention(last, instructions)
        assert all(name in last for name in buffers), "what is made is named"
        read = tuple(p for p in parameters if gathered(p) in last)
        own = tuple(name for name in last if f".m{ANY}" in name)
        stands = (*own, *(gathered(p) for p in read))
        same = {
            id(part)
            for x in instructions
            for part in _parts(x)
            if not any(name in stands for pair in part for name in pair)
        }
        return Run(
            tuple(instructions),
            dict(buffers),
            "\n".join(own),
            read,
            stands,
            tuple(last[name] for name in stands),
            frozenset(same),
        )

    def fill(
        self,
        micro_batch: int,
        working: Mapping[str, Buffer],
        *,
        out: list[Instruction],
        buffers: dict[Buffer, Spec],
    ) -> dict[Buffer, int]:
        """Write the run of a micro-batch.

        Args:
            micro_batch: Which.
            working: The buffer of each parameter.
            out: The list, to which is added.
            buffers: What each buffer is, to which is added.

        Returns:
            The instruction of the list that names each of its buffers last.
        """
        names = self.names.replace(f".m{ANY}", f".m{micro_batch}").split("\n")
        names += [working[p] for p in self.parameters]
        filled, same, first = dict(zip(self.stands, names, strict=True)), self.same, len(out)
        buffers.update([(filled.get(name, name), spec) for name, spec in self.buffers.items()])

        def part(pairs: Named) -> Named:
            if id(pairs) in same:
                return pairs
            return tuple([(filled.get(a, a), filled.get(b, b)) for a, b in pairs])

        for x in self.instructions:
            match x:
                case Compute():
                    out.append(
                        Compute(
                            x.phase,
                            x.block,
                            x.segments,
                            micro_batch,
                            part(x.values),
                            part(x.parameters),
                            part(x.writes),
                            part(x.gradients),
                            part(x.adds),
                            filled.get(x.graph, x.graph),
                        )
                    )
                case Move(legs=legs):
                    moved = [
                        Leg(filled.get(a.source, a.source), filled.get(a.target, a.target), a.steps)
                        for a in legs
                    ]
                    out.append(Move(tuple(moved), part(x.adds)))
                case _:
                    raise AssertionError("a block computes and moves")
        return dict(zip(names, [first + i for i in self.last], strict=True))


def mention(last: dict[Buffer, int], instructions: Sequence[Instruction], first: int = 0) -> None:
    """Take note of the instructions that name each buffer last, from the `first` of a list on."""
    for i in range(first, len(instructions)):
        for name in (*instructions[i].input, *instructions[i].output):
            last[name] = i


def _parts(x: Instruction) -> tuple[Named, ...]:
    """Give the pairs of names of an instruction."""
    match x:
        case Compute():
            return x.values, x.parameters, x.writes, x.gradients, x.adds
        case Move():
            return (x.adds,)
        case _:
            return ()
