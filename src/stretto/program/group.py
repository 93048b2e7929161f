"""Groups: the segments of a block that run as one compute, because nothing moves between them."""

from __future__ import annotations

from dataclasses import dataclass

from stretto.layout import Layout, Reduction
from stretto.model import Block, Parameter, Segment, Value
from stretto.program.instruction import dims_of
from stretto.rules import Placement


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Consecutive segments of a block under a placement.

    Attributes:
        placement: Where tensors lie.
        span: First and one past the last segment.
        segments: The segments.
        dims: Every logical dimension that they iterate over.
        reads: Values that come from outside.
        writes: Values that are used outside.
    """

    placement: Placement
    span: tuple[int, int]
    segments: tuple[Segment, ...]
    dims: frozenset[str]
    reads: tuple[Value, ...]
    writes: tuple[Value, ...]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter that the group uses, once."""
        return tuple(dict.fromkeys(p for s in self.segments for p in s.parameters))

    @property
    def recalled(self) -> tuple[Parameter, ...]:
        """Every parameter that the group's backward reads again, once."""
        return tuple(dict.fromkeys(p for s in self.segments for p in s.recalled))

    @property
    def is_sum(self) -> bool:
        """Whether the group only adds its inputs, so that its backward is the identity."""
        return [s.name for s in self.segments] == ["add"]

    def needs(self, value: Value) -> Layout:
        """Give the layout in which a value is read, and the cotangent of a written one wanted."""
        return self.placement.layout(value.dims)

    def gives(self, value: Value) -> Layout:
        """Give the layout in which a value is written, and the cotangent of a read one comes out.

        It is in parts over every axis that splits what the group iterates over and the value lacks.
        """
        parts = self.placement.over(self.dims, lacking=value.dims)
        reduction: Reduction = "max" if value.kind == "maximum" else "sum"
        return self.placement.layout(value.dims).with_partial(parts, reduction=reduction)

    def gradient(self, parameter: Parameter) -> Layout:
        """Give the layout in which the gradient of a parameter comes out."""
        parts = self.placement.over(self.dims, lacking=parameter.dims)
        return self.placement.layout(parameter.dims).with_partial(parts)


def groups(block: Block, placement: Placement) -> tuple[Group, ...]:
    """Give the groups of a block: a segment joins the one before it if no value has to move."""
    spans: list[tuple[int, int]] = [(0, 1)]
    for i, segment in enumerate(block.segments[1:], start=1):
        first, stop = spans[-1]
        if _joins(_group(block, placement, (first, stop)), segment, placement):
            spans[-1] = (first, i + 1)
        else:
            spans.append((i, i + 1))
    return tuple(_group(block, placement, span) for span in spans)


def _joins(group: Group, segment: Segment, placement: Placement) -> bool:
    made = {v.name: v for s in group.segments for v in s.writes}
    shared = [(made[v.name], v) for v in segment.reads if v.name in made]
    return bool(shared) and all(
        group.gives(written) == placement.layout(read.dims) for written, read in shared
    )


def _group(block: Block, placement: Placement, span: tuple[int, int]) -> Group:
    segments = block.segments[span[0] : span[1]]
    made: set[str] = set()
    reads: dict[str, Value] = {}
    writes: dict[str, Value] = {}
    for segment in segments:
        reads |= {v.name: v for v in segment.reads if v.name not in made | set(reads)}
        made |= {v.name for v in segment.writes}
        writes |= {v.name: v for v in segment.writes}
    later = {v.name for s in block.segments[span[1] :] for v in s.reads}
    ends = span[1] == len(block.segments)
    last = {v.name for v in block.segments[-1].writes} if ends else set()
    used = {n: v for n, v in writes.items() if n in later | last}
    dims = dims_of(segments)
    return Group(placement, span, segments, dims, tuple(reads.values()), tuple(used.values()))
