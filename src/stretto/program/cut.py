"""Where a pipeline is cut into stages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from stretto.model import Block, BlockKind, Model
from stretto.plan import Plan
from stretto.schedule import balanced


def stage_cut(model: Model, plan: Plan) -> tuple[int, ...]:
    """Give the first block of each stage: the plan's, or the cut that balances the cost."""
    return plan.pipeline.cut or balanced_cut(model, plan.stages, positions=plan.batch.seq)


@lru_cache(maxsize=256)
def balanced_cut(model: Model, stages: int, *, positions: int) -> tuple[int, ...]:
    """Give the first block of each stage where the dearest stage is as cheap as can be.

    Args:
        model: What is cut.
        stages: How many there are, at most as many as blocks.
        positions: Of a sequence.
    """
    return balanced([block_cost(model, b, positions=positions) for b in model.blocks], stages)


def stage_layers(model: Model, cut: Sequence[int], *, positions: int) -> tuple[float, ...]:
    """Give the layers of each stage; a part of one counts by its share of the mean layer's cost.

    Args:
        model: What is cut.
        cut: The first block of each stage.
        positions: Of a sequence.
    """
    ends = (BlockKind.EMBEDDING, BlockKind.HEAD, BlockKind.JOIN)
    costs = [
        0.0 if block.kind in ends else block_cost(model, block, positions=positions)
        for block in model.blocks
    ]
    layer = sum(costs) / (model.layers + model.mtp_layers)
    bounds = pairwise((*cut, len(costs)))
    return tuple(sum(costs[first:stop]) / layer for first, stop in bounds)


def block_cost(model: Model, block: Block, *, positions: int) -> float:
    """Give the cost of a block for one token, in FLOPs of a matrix product.

    Fused attention runs at a third of the rate of a matrix product, and a number that a norm, a
    rotation, an activation or the loss reads or writes costs about 48 FLOPs: measured on a CPU core
    with a width of 256. On an accelerator these are nearer one half and several hundred.
    """
    touched = {
        BlockKind.EMBEDDING: 6 * model.embed,
        BlockKind.ATTENTION: 10 * model.embed + 10 * model.heads * model.head_dim,
        BlockKind.FEED_FORWARD: 10 * model.embed + 6 * model.ff,
        BlockKind.EXPERTS: 10 * model.embed + 6 * (model.top_k * model.expert_ff + model.shared_ff),
        BlockKind.JOIN: 16 * model.embed,
        BlockKind.HEAD: 6 * model.embed + 2 * model.vocab,
    }[block.kind]
    products = model.block_flops(block, positions=positions)
    attention = 0.0
    if block.kind is BlockKind.ATTENTION:
        attended = model.attends_to(block.layer, positions=positions)
        attention = 2 * 4 * model.heads * model.head_dim * attended
    return products + attention + 48 * touched
