"""`torch.distributed.pipelining` as a contender."""

from __future__ import annotations

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from benchmarks.config import Config, Step
from benchmarks.plain import Decoder, adamw, batches, loss_of

Order = Literal["GPipe", "1F1B"]


class Slice(nn.Module):
    """Some layers in a row, with the embedding before the first and the head after the last."""

    rotations_T1P: Tensor

    def __init__(self, model: Decoder, *, first: int, last: int) -> None:
        """Keep layers `first` to `last`, without `last`, of `model`."""
        super().__init__()
        self.embedding = model.embedding if first == 0 else nn.Identity()
        self.layers = model.layers[first:last]
        ends = last == len(model.layers)
        self.head = nn.Sequential(model.norm, model.head) if ends else nn.Identity()
        self.register_buffer("rotations_T1P", model.rotations_T1P, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Run the slice on tokens (B, T) or activations (B, T, W)."""
        x = self.embedding(x)
        for layer in self.layers:
            x = layer(x, self.rotations_T1P)
        out: Tensor = self.head(x)
        return out


def _clip(parameters: list[Tensor], limit: float) -> None:
    """Clip by the norm over all stages."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    square = norm.square()
    dist.all_reduce(square)
    nn.utils.clip_grads_with_norm_(parameters, limit, square.sqrt())


def build(rank: int, world: int, *, config: Config, order: Order, cuts: tuple[int, ...]) -> Step:
    """The stock schedule, one stage a rank.

    Args:
        rank: This process and its stage.
        world: Processes and stages.
        config: The model, the batch, its micro-batches and the optimizer.
        order: The schedule.
        cuts: The number of layers before each stage but the first.
    """
    edges = (0, *cuts, config.layers)
    model = Slice(Decoder(config), first=edges[rank], last=edges[rank + 1])
    stage = PipelineStage(model, rank, world, torch.device("cpu"))
    kinds = {"GPipe": ScheduleGPipe, "1F1B": Schedule1F1B}
    schedule = kinds[order](stage, config.micro_batches, loss_fn=loss_of)
    parameters: list[Tensor] = list(model.parameters())
    optimizer, source = adamw(parameters, config), batches(config)

    def step() -> Tensor | None:
        inputs_BT, targets_BT = next(source)
        losses: list[Tensor] = []
        schedule.step(
            *([inputs_BT] if stage.is_first else []),
            target=targets_BT if stage.is_last else None,
            losses=losses,
            return_outputs=False,
        )
        _clip(parameters, config.clip)
        optimizer.step()
        optimizer.zero_grad()
        return torch.stack(losses).detach().mean() if stage.is_last else None

    return step
