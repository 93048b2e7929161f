"""Moves, sends and receives: issued where they stand, awaited by their first reader."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from stretto.program.instruction import Buffer, Leg, Move, Recv, Send, Spec
from stretto.runtime.collective import Group, Message
from stretto.runtime.rank import Addend, Pending, Rank

Fit = tuple[tuple[int, int], ...]
"""(dimension, size) of each dimension that changes."""


def move(rank: Rank, move: Move, *, consumed: bool) -> Callable[[], None]:
    """Bind a move.

    Args:
        rank: This rank.
        move: The move.
        consumed: Whether its sources are freed right after, so that they may be overwritten.
    """
    specs = rank.stage.buffers
    fits = [_fit(leg, specs) for leg in move.legs]
    dtypes = [rank.dtype(leg.target) for leg in move.legs]

    def put(tensors: list[Tensor], addends: dict[Buffer, Addend]) -> None:
        for leg, tensor, (_, crop) in zip(move.legs, tensors, fits, strict=True):
            rank.put(leg.target, _cropped(tensor, crop), addends.get(leg.target))

    def go() -> None:
        addends = rank.addends(move.adds)
        tensors = [rank.read(leg.source) for leg in move.legs]
        began = time.perf_counter()
        tensors = [
            _padded(t.to(dtype), pad)
            for t, dtype, (pad, _) in zip(tensors, dtypes, fits, strict=True)
        ]
        message = _issue(rank, move, tensors, consumed=consumed)
        if message.works:
            pending = Pending(message, lambda arrived: put(arrived, addends), move.output)
            rank.pending |= dict.fromkeys(move.output, pending)
        else:
            put(message.wait(), addends)
        rank.clock.communication_s += time.perf_counter() - began

    return go


def _issue(rank: Rank, move: Move, tensors: list[Tensor], *, consumed: bool) -> Message:
    """Begin the last step of a move, having done those before it."""
    message = Message([], lambda: tensors)
    for i, (kind, axes, _) in enumerate(move.route):
        steps = [leg.steps[i] for leg in move.legs]
        message = rank.issue(
            kind, message.wait(), steps, group=rank.groups[axes], consumed=consumed or i > 0
        )
    return message


def _fit(leg: Leg, specs: Mapping[Buffer, Spec]) -> tuple[Fit, Fit]:
    """Give what to pad before the steps of a leg, and what to crop after them."""
    pairs = list(zip(specs[leg.source].shape, specs[leg.target].shape, strict=True))
    grown = tuple((d, b) for d, (a, b) in enumerate(pairs) if b > a)
    shrunk = tuple((d, b) for d, (a, b) in enumerate(pairs) if b < a)
    return grown, shrunk


def _padded(tensor: Tensor, fit: Fit) -> Tensor:
    for dim, size in fit:
        shape = list(tensor.shape)
        shape[dim] = size - shape[dim]
        tensor = torch.cat([tensor, tensor.new_zeros(shape)], dim=dim)
    return tensor


def _cropped(tensor: Tensor, fit: Fit) -> Tensor:
    for dim, size in fit:
        tensor = tensor.narrow(dim, 0, size)
    return tensor.contiguous() if fit else tensor


def send(rank: Rank, send: Send) -> Callable[[], None]:
    """Bind a send."""
    peer, group = _peer(rank, by=send.by, direction="forward" if send.by > 0 else "backward")
    most = 2 * rank.program.plan.stages

    def go() -> None:
        tensors = [rank.read(name).contiguous() for name in send.buffers]
        began = time.perf_counter()
        for tensor in tensors:
            work = dist.isend(tensor, peer, group=group.handle)
            assert work is not None
            rank.sends.append((work, tensor))
        # What arrived long ago is let go of: gloo does not tell unless it is asked to wait. A
        # receive depends on messages sent before its own only, so that this cannot deadlock.
        while len(rank.sends) > most:
            rank.sends.pop(0)[0].wait()
        rank.clock.communication_s += time.perf_counter() - began

    return go


def recv(rank: Rank, recv: Recv) -> Callable[[], None]:
    """Bind a receive: posted here, before what it waits for, for gloo is half duplex otherwise."""
    peer, group = _peer(rank, by=recv.by, direction="forward" if recv.by < 0 else "backward")
    specs = [rank.stage.buffers[name] for name in recv.buffers]
    shapes = [spec.local_shape(rank.program.placement) for spec in specs]
    dtypes = [rank.dtype(name) for name in recv.buffers]

    def go() -> None:
        addends = rank.addends(recv.adds)
        began = time.perf_counter()
        tensors = [
            torch.empty(s, dtype=d, device=rank.device) for s, d in zip(shapes, dtypes, strict=True)
        ]
        works = [dist.irecv(t, peer, group=group.handle) for t in tensors]

        def put(arrived: list[Tensor]) -> None:
            for name, tensor in zip(recv.buffers, arrived, strict=True):
                rank.put(name, tensor, addends.get(name))

        message = Message([w for w in works if w is not None], lambda: tensors)
        rank.pending |= dict.fromkeys(recv.buffers, Pending(message, put, recv.buffers))
        rank.clock.communication_s += time.perf_counter() - began

    return go


def _peer(rank: Rank, *, by: int, direction: str) -> tuple[int, Group]:
    return rank.program.placement.mesh.shift(rank.number, "pp", by=by), rank.groups["pp", direction]
