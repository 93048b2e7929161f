"""`DistributedDataParallel` as a contender."""

from __future__ import annotations

from torch.nn.parallel import DistributedDataParallel

from benchmarks.config import Config, Step
from benchmarks.plain import Decoder, batches, loop


def build(
    rank: int, world: int, *, config: Config, bucket_view: bool = False, static_graph: bool = False
) -> Step:
    """The plain loop around a replicated model.

    Args:
        rank: This process.
        world: Processes; each takes an equal part of the batch.
        config: The model, the batch and the optimizer.
        bucket_view: Gradients live in the buckets that are reduced.
        static_graph: Promise that each step uses the same parameters in the same order.
    """
    model = DistributedDataParallel(
        Decoder(config),
        forward_sync_buffers=False,  # the only buffer is a constant
        gradient_as_bucket_view=bucket_view,
        static_graph=static_graph,
    )
    return loop(model, config, batches(config, share=rank, shares=world))
