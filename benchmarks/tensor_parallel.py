"""DTensor tensor parallelism (`parallelize_module`) as a contender."""

from __future__ import annotations

import contextlib
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)

from benchmarks.config import Config, Step
from benchmarks.plain import Decoder, adamw, batches, loss_of

Form = Literal["plain", "loss", "sequence"]
Styles = dict[str, ParallelStyle]


def _layer_styles(form: Form) -> Styles:
    between = Shard(1) if form == "sequence" else Replicate()
    styles: Styles = {
        **{f"attention.{name}": ColwiseParallel() for name in "qkv"},
        "attention.o": RowwiseParallel(output_layouts=between),
        "feed_forward.gate": ColwiseParallel(),
        "feed_forward.up": ColwiseParallel(),
        "feed_forward.down": RowwiseParallel(output_layouts=between),
    }
    if form == "sequence":
        styles |= {
            "attention_norm": SequenceParallel(),
            "attention": PrepareModuleInput(
                input_layouts=(Shard(1), None), desired_input_layouts=(Replicate(), None)
            ),
            "feed_forward_norm": SequenceParallel(),
            "feed_forward": PrepareModuleInput(
                input_layouts=(Shard(1),), desired_input_layouts=(Replicate(),)
            ),
        }
    return styles


def _outer_styles(form: Form) -> Styles:
    between = Shard(1) if form == "sequence" else Replicate()
    styles: Styles = {
        "embedding": RowwiseParallel(input_layouts=Replicate(), output_layouts=between),
        "head": ColwiseParallel(
            input_layouts=between,
            output_layouts=Replicate() if form == "plain" else Shard(-1),
            use_local_output=form == "plain",
        ),
    }
    return styles | ({"norm": SequenceParallel()} if form == "sequence" else {})


def _clip(groups: list[list[Tensor]], limit: float) -> None:
    """Clip by the norm over both groups; torch takes no list that mixes DTensors and tensors."""
    norms = [nn.utils.get_total_norm([p.grad for p in g if p.grad is not None]) for g in groups]
    total = torch.stack([n.full_tensor() if isinstance(n, DTensor) else n for n in norms]).norm()
    for group in groups:
        nn.utils.clip_grads_with_norm_(group, limit, total)


def build(rank: int, world: int, *, config: Config, form: Form) -> Step:
    """The plain loop around a model whose projections, embedding and head are split.

    Args:
        rank: This process.
        world: Processes; each sees the whole batch.
        config: The model, the batch and the optimizer.
        form: ``plain`` gathers the logits; ``loss`` takes the loss of split logits; ``sequence``
            does so too, and splits the activations between projections along the sequence.
    """
    mesh = init_device_mesh("cpu", (world,))
    model = Decoder(config)
    for layer in model.layers:
        parallelize_module(layer, mesh, _layer_styles(form))
    parallelize_module(model, mesh, _outer_styles(form))
    split: list[Tensor] = [p for p in model.parameters() if isinstance(p, DTensor)]
    whole: list[Tensor] = [p for p in model.parameters() if not isinstance(p, DTensor)]
    groups = [group for group in (split, whole) if group]
    optimizer = adamw([{"params": group} for group in groups], config)
    source = batches(config)

    def step() -> Tensor:
        inputs_BT, targets_BT = next(source)
        with contextlib.nullcontext() if form == "plain" else loss_parallel():
            loss = loss_of(model(inputs_BT), targets_BT)
            loss.backward()
        _clip(groups, config.clip)
        optimizer.step()
        optimizer.zero_grad()
        found = loss.detach()
        return found.full_tensor() if isinstance(found, DTensor) else found

    return step
