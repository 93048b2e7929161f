"""A compute: segments of one block under autograd, on detached inputs.

Parameters that are gathered for use are not kept for the backward, which is handed them anew: where
autograd saves one, or a view of one, only its name and place are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from stretto import nn
from stretto.model import Model, Segment
from stretto.program.instruction import Buffer, Compute, Role
from stretto.runtime.rank import DTYPES, Rank

Runner = Callable[[dict[str, Tensor], dict[str, Any]], dict[str, Any]]
"""(parameters, values) → values."""


@dataclass(frozen=True, slots=True)
class Graph:
    """What the backward of a compute needs.

    Attributes:
        leaves: What gradients are wanted of, by name.
        outputs: Where what was written left the graph of autograd, by name: not the tensors
            themselves, which nobody needs once they have moved on.
        recalled: Gathered parameters, which the backward puts here before it runs.
    """

    leaves: tuple[tuple[str, Tensor], ...]
    outputs: dict[str, GradientEdge]
    recalled: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor that autograd saved, as a view of a gathered parameter."""

    parameter: str
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int


def forward(rank: Rank, compute: Compute) -> Callable[[], None]:
    """Bind a forward or a recomputation."""
    segments = rank.program.segments(compute)
    alike, run = _runner(rank, compute)
    real = {v.name for s in segments for v in s.reads if v.kind == "real"}
    differentiable = {v.name for s in segments for v in s.writes if v.kind == "real"}
    keep = bool(compute.graph)
    specs = rank.stage.buffers
    gathered = {n for n, b in compute.parameters if specs[b].role is Role.WORKING}

    def go() -> None:
        values = {n: rank.read(b) for n, b in compute.values}
        weights = [(n, rank.read(b)) for n, b in compute.parameters]
        addends = rank.addends(compute.adds)
        began = time.perf_counter()
        if keep:
            values = {n: _leaf(t) if n in real else t for n, t in values.items()}
            weights = [(n, _leaf(t)) for n, t in weights]
        recalled: dict[str, Tensor] = {}
        passing = [(n, t) for n, t in weights if n in gathered]
        with torch.set_grad_enabled(keep), _let_go(passing if keep else [], recalled):
            made = run({alike[n]: t for n, t in weights}, values)
        outputs = {n: made[n] for n, _ in compute.writes}
        if keep:
            leaves = (*((n, t) for n, t in values.items() if n in real), *weights)
            attached = {n: get_gradient_edge(t) for n, t in outputs.items() if n in differentiable}
            rank.buffers[compute.graph] = Graph(leaves, attached, recalled)
            for _, leaf in passing:
                leaf.data = leaf.new_empty(0)
        for name, buffer in compute.writes:
            rank.put(buffer, outputs[name].detach(), addends.get(buffer))
        rank.clock.compute_s += time.perf_counter() - began

    return go


def backward(rank: Rank, compute: Compute) -> Callable[[], None]:
    """Bind a backward."""
    scale = rank.program.loss_scale
    places = dict((*compute.writes, *compute.gradients))
    wide = nn.accumulation(DTYPES[rank.program.plan.numerics.dtype])

    def go() -> None:
        graph: Graph = rank.buffers[compute.graph]
        rank.buffers[compute.graph] = None
        graph.recalled.update((n, rank.read(b)) for n, b in compute.parameters)
        given = {n: rank.read(b) for n, b in compute.values}
        addends = rank.addends(compute.adds)
        began = time.perf_counter()
        if "loss" in graph.outputs:
            given["loss"] = torch.full((), scale, dtype=wide, device=rank.device)
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            [edge for n, edge in graph.outputs.items() if n in given],
            [t for _, t in graph.leaves],
            [given[n] for n in graph.outputs if n in given],
            allow_unused=True,  # a bias that another rank adds
        )
        for (name, leaf), gradient in zip(graph.leaves, found, strict=True):
            buffer = places[name]
            value = _nothing(rank, buffer, leaf) if gradient is None else gradient
            rank.put(buffer, value, addends.get(buffer))
        rank.clock.compute_s += time.perf_counter() - began

    return go


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _nothing(rank: Rank, buffer: Buffer, leaf: Tensor) -> Tensor:
    """Give the gradient of what was not used: of a bias that another rank adds, say."""
    shape = rank.stage.buffers[buffer].local_shape(rank.program.placement)
    return torch.zeros(shape, dtype=leaf.dtype, device=leaf.device)


def _let_go(
    passing: list[tuple[str, Tensor]], recalled: dict[str, Tensor]
) -> AbstractContextManager[object]:
    """Have autograd save places instead of the tensors in `passing`, to be found in `recalled`."""
    if not passing:
        return nullcontext()
    owners = {t.untyped_storage().data_ptr(): (n, int(t.storage_offset())) for n, t in passing}

    def pack(tensor: Tensor) -> Tensor | _Place:
        name, start = owners.get(tensor.untyped_storage().data_ptr(), ("", 0))
        if not name:
            return tensor
        return _Place(name, tensor.shape, tensor.stride(), int(tensor.storage_offset()) - start)

    def unpack(saved: Tensor | _Place) -> Tensor:
        if not isinstance(saved, _Place):
            return saved
        weight = recalled[saved.parameter]
        offset = int(weight.storage_offset()) + saved.offset
        return weight.as_strided(saved.shape, saved.stride, offset)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def _runner(rank: Rank, compute: Compute) -> tuple[dict[str, str], Runner]:
    """Give the function that runs a compute's segments, one for all blocks that are alike.

    Returns:
        The name of each parameter in the first such block; the function, which goes by these names.
    """
    chain, first = rank.program.chain, compute.segments[0]
    block = chain[compute.block]
    model = rank.program.model
    # Layers differ only where some of them have a window and others do not.
    layer = block.layer if model.full_layers else min(block.layer, 0)
    twin = next(b for b in chain if b.kind is block.kind and (b.layer == layer or layer < 1))
    alike = {
        mine.name: other.name for mine, other in zip(block.parameters, twin.parameters, strict=True)
    }
    key = (block.kind, compute.segments, layer)
    if key not in rank.runners:
        segments = twin.segments[first : compute.segments[1]]
        parts = list(zip(segments, _locals(rank, compute), strict=True))
        rank.runners[key] = _compiled(rank, _chained(model, parts, layer=twin.layer))
    return alike, rank.runners[key]


def _chained(model: Model, parts: list[tuple[Segment, nn.Local]], *, layer: int) -> Runner:
    def run(parameters: dict[str, Tensor], values: dict[str, Any]) -> dict[str, Any]:
        for segment, local in parts:
            made = nn.run(
                segment, model=model, layer=layer, parameters=parameters, values=values, local=local
            )
            values = values | made
        return values

    return run


def _compiled(rank: Rank, run: Runner) -> Runner:
    if not rank.program.plan.numerics.compile:
        return run
    # Every kind of block is this one function to the compiler, with and without gradients.
    torch._dynamo.config.recompile_limit = 64
    compiled: Runner = torch.compile(run)
    return compiled


def _locals(rank: Rank, compute: Compute) -> list[nn.Local]:
    """Say what this rank holds of what each segment contracts."""
    placement = rank.program.placement
    start, stop = _real(rank, "vocab")
    first, last = _real(rank, "group")
    coordinate = placement.mesh.coordinate(rank.number)
    found = []
    for segment in rank.program.segments(compute):
        split = {a for v in segment.writes for a in placement.over(segment.dims, lacking=v.dims)}
        leads = all(coordinate[a] == 0 for a in split)
        found.append(nn.Local(leads, start, stop, groups=last - first))
    return found


def _real(rank: Rank, dim: str) -> tuple[int, int]:
    """Give what this rank holds of a dimension of parameters, without padding."""
    placement = rank.program.placement
    ((start, stop),) = placement.layout((dim,)).box(
        (placement.sizes[dim],), mesh=placement.mesh, rank=rank.number
    )
    true = rank.program.model.sizes[dim]
    return min(start, true), min(stop, true)
