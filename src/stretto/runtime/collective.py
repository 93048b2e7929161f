"""Where a `Step` of a move becomes calls: the one place that knows what a backend is good at.

A message packs every tensor of a move into one flat buffer, is issued at once, and is unpacked when
its first reader asks. Shapes: G ranks in the group, N numbers of one tensor's block.

What was measured about gloo: its reduce-scatter moves as much as an all-reduce, twice what it must.
Messages from rank to rank, the receive posted first, take half the time of its all-gather and its
all-to-all on loopback, and run at wire rate between hosts. So on gloo everything but a large
all-reduce is an exchange of rows between ranks. NCCL's own collectives are used as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from stretto.layout import Kind, Reduction, Step

SMALL_BYTES = 8 << 20
"""Up to this size two ranks on gloo reduce by swapping all they have."""


@dataclass(frozen=True, slots=True)
class Group:
    """A process group and this rank's place in it.

    Attributes:
        handle: The group of `torch.distributed`.
        size: Number of ranks.
        index: This rank's place.
        exchanges: Whether messages from rank to rank are faster than collectives (gloo).
    """

    handle: dist.ProcessGroup
    size: int
    index: int
    exchanges: bool


@dataclass(slots=True)
class Message:
    """A collective under way.

    Attributes:
        works: Handles to wait for.
        unpack: Gives the tensors once they have arrived.
    """

    works: list[dist.Work]
    unpack: Callable[[], list[Tensor]]

    def wait(self) -> list[Tensor]:
        """Wait for the message and give its tensors."""
        for work in self.works:
            work.wait()
        return self.unpack()


def issue(
    kind: Kind,
    tensors: Sequence[Tensor],
    steps: Sequence[Step],
    *,
    group: Group,
    consumed: bool,
) -> Message:
    """Begin one step of a move for several tensors.

    Args:
        kind: The kind of every step.
        tensors: This rank's blocks.
        steps: What happens to each; they differ in dimensions only.
        group: Who takes part.
        consumed: Whether the tensors may be overwritten.
    """
    match kind:
        case Kind.SLICE:
            return Message([], lambda: [_slice(t, s.dim, group) for t, s in _zip(tensors, steps)])
        case Kind.MASK:
            first = group.index == 0
            return Message([], lambda: [t if first else torch.zeros_like(t) for t in tensors])
        case Kind.ALL_REDUCE:
            return _all_reduce(tensors, steps[0].reduction, group, consumed=consumed)
        case Kind.ALL_GATHER:
            return _all_gather(tensors, [s.dim for s in steps], group)
        case Kind.REDUCE_SCATTER:
            return _reduce_scatter(tensors, [s.dim for s in steps], steps[0].reduction, group)
        case Kind.ALL_TO_ALL:
            return _all_to_all(tensors, steps, group)


def _zip(tensors: Sequence[Tensor], steps: Sequence[Step]) -> list[tuple[Tensor, Step]]:
    return list(zip(tensors, steps, strict=True))


def _slice(tensor: Tensor, dim: int, group: Group) -> Tensor:
    size = tensor.shape[dim] // group.size
    return tensor.narrow(dim, group.index * size, size).contiguous()


def _op(reduction: Reduction) -> dist.ReduceOp.RedOpType:
    return dist.ReduceOp.MAX if reduction == "max" else dist.ReduceOp.SUM


def _all_reduce(
    tensors: Sequence[Tensor], reduction: Reduction, group: Group, *, consumed: bool
) -> Message:
    flat_N = _flat([t.reshape(-1) for t in tensors])
    shapes = [t.shape for t in tensors]  # and not the tensors, which may be freed meanwhile
    if group.exchanges and group.size == 2 and flat_N.nbytes <= SMALL_BYTES:
        works, parts = _exchange([flat_N, flat_N], group)
        return Message(works, lambda: _views(_reduced(parts, reduction), shapes))
    if len(tensors) == 1 and not consumed:
        flat_N = flat_N.clone()
    work = dist.all_reduce(flat_N, op=_op(reduction), group=group.handle, async_op=True)
    assert work is not None
    return Message([work], lambda: _views(flat_N, shapes))


def _flat(parts: list[Tensor]) -> Tensor:
    """All parts in one, along the last dimension; a single one is not copied."""
    return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]


def _views(flat_N: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    parts = flat_N.split([math.prod(shape) for shape in shapes])
    return [p.view(shape) for p, shape in zip(parts, shapes, strict=True)]


def _all_gather(tensors: Sequence[Tensor], dims: Sequence[int], group: Group) -> Message:
    mine_N = _flat([t.reshape(-1) for t in tensors])
    all_GN = mine_N.new_empty(group.size, mine_N.numel())
    shapes = [t.shape for t in tensors]
    if group.exchanges:
        works, _ = _exchange([mine_N] * group.size, group, into=list(all_GN))
        all_GN[group.index] = mine_N
    else:
        work = dist.all_gather_single(all_GN.view(-1), mine_N, group=group.handle, async_op=True)
        assert work is not None
        works = [work]

    def unpack() -> list[Tensor]:
        parts = all_GN.split([math.prod(shape) for shape in shapes], dim=1)
        return [_opened(p, s, d) for p, s, d in zip(parts, shapes, dims, strict=True)]

    return Message(works, unpack)


def _opened(part_GN: Tensor, shape: torch.Size, dim: int) -> Tensor:
    """Blocks of every rank, joined along `dim`."""
    blocks = part_GN.reshape(-1, *shape)
    whole = (*shape[:dim], shape[dim] * part_GN.shape[0], *shape[dim + 1 :])
    return blocks.movedim(0, dim).reshape(whole)


def _closed(tensor: Tensor, dim: int, parts: int) -> Tensor:
    """Blocks for every rank, cut along `dim`: (G, N)."""
    shape = (*tensor.shape[:dim], parts, tensor.shape[dim] // parts, *tensor.shape[dim + 1 :])
    return tensor.reshape(shape).movedim(dim, 0).reshape(parts, -1)


def _reduce_scatter(
    tensors: Sequence[Tensor], dims: Sequence[int], reduction: Reduction, group: Group
) -> Message:
    blocks_GN = _flat([_closed(t, d, group.size) for t, d in zip(tensors, dims, strict=True)])
    shapes = [_block(t, d, group.size) for t, d in zip(tensors, dims, strict=True)]
    if group.exchanges:
        works, parts = _exchange(list(blocks_GN), group)

        def reduced() -> Tensor:
            return _reduced(parts, reduction)
    else:
        mine_N = blocks_GN.new_empty(blocks_GN.shape[1])
        work = dist.reduce_scatter_tensor(
            mine_N, blocks_GN.view(-1), op=_op(reduction), group=group.handle, async_op=True
        )
        assert work is not None
        works = [work]

        def reduced() -> Tensor:
            return mine_N

    def unpack() -> list[Tensor]:
        parts = reduced().split([math.prod(s) for s in shapes])
        return [p.view(s) for p, s in zip(parts, shapes, strict=True)]

    return Message(works, unpack)


def _reduced(parts: Sequence[Tensor], reduction: Reduction) -> Tensor:
    """Reduce the parts of all ranks, in their order."""
    combine = torch.maximum if reduction == "max" else torch.add
    total = combine(parts[0], parts[1])
    for part in parts[2:]:
        combine(total, part, out=total)
    return total


def _block(tensor: Tensor, dim: int, parts: int) -> tuple[int, ...]:
    return (*tensor.shape[:dim], tensor.shape[dim] // parts, *tensor.shape[dim + 1 :])


def _exchange(
    rows: list[Tensor], group: Group, into: list[Tensor] | None = None
) -> tuple[list[dist.Work], list[Tensor]]:
    """Send row g to rank g of the group, and receive a row from each.

    Receives are posted first, and every rank begins with another neighbour.

    Returns:
        What to wait for; the row of every rank, this rank's own among them.
    """
    parts = [torch.empty_like(row) for row in rows] if into is None else into
    parts[group.index] = rows[group.index]
    others = [(group.index + i) % group.size for i in range(1, group.size)]
    works = [dist.irecv(parts[g], group=group.handle, group_src=g) for g in reversed(others)]
    works += [dist.isend(rows[g], group=group.handle, group_dst=g) for g in others]
    return [work for work in works if work is not None], parts


def _all_to_all(tensors: Sequence[Tensor], steps: Sequence[Step], group: Group) -> Message:
    blocks_GN = _flat([_closed(t, s.to, group.size) for t, s in _zip(tensors, steps)])
    if group.exchanges:
        works, parts = _exchange(list(blocks_GN), group)
    else:
        all_GN = torch.empty_like(blocks_GN)
        work = dist.all_to_all_single(all_GN, blocks_GN, group=group.handle, async_op=True)
        assert work is not None
        works, parts = [work], list(all_GN)
    shapes = [_block(t, s.to, group.size) for t, s in _zip(tensors, steps)]

    def unpack() -> list[Tensor]:
        blocks = torch.stack(parts).split([math.prod(s) for s in shapes], dim=1)
        return [
            _opened(b, torch.Size(shape), s.dim)
            for b, shape, s in zip(blocks, shapes, steps, strict=True)
        ]

    return Message(works, unpack)
