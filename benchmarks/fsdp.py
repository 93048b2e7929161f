"""FSDP2 (`fully_shard`) as a contender."""

from __future__ import annotations

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from benchmarks.config import Config, Step
from benchmarks.plain import Decoder, batches, loop


def build(rank: int, world: int, *, config: Config, reshard: bool) -> Step:
    """The plain loop around a model whose layers, and then its root, are fully sharded.

    Args:
        rank: This process.
        world: Processes; each takes an equal part of the batch.
        config: The model, the batch and the optimizer.
        reshard: Free a layer's weights after its forward, and gather them again in backward.
    """
    mesh = init_device_mesh("cpu", (world,))
    model = Decoder(config)
    for layer in model.layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=reshard)
    fully_shard(model, mesh=mesh, reshard_after_forward=reshard)
    return loop(model, config, batches(config, share=rank, shares=world))
