"""The software that runs a plan: constants of a generation of it, fitted to measurements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto.cost.numbers import Number


@dataclass(frozen=True, slots=True)
class Stack:
    """A generation of software.

    Attributes:
        matrix: What its matrix products reach of the device's.
        grouped: How much longer products of many experts take than one of the same size.
        fused_attention: 1 where attention never writes its scores (Dao et al., 2022).
        attention: What attention's products reach, forward, of the rate of a large product.
        attention_cap_flops_per_s: What it reaches at most, if it does not use the instructions of
            newer devices.
        attention_backward: Time of its backward pass over that of its forward one.
        attention_ramp: Positions that the start and end of a row of blocks cost.
        score_bytes: Bytes moved for each score, forward, where attention is not fused.
        pointwise: Bytes that norms, activations and additions move, relative to each operand being
            read once and each result written once.
        pointwise_backward: Those of the backward pass over those of the forward one.
        cast: Values read and written for each that is cast to 8 bits or fewer.
        accumulate_bytes: Bytes moved for each weight to add a micro-batch's gradient.
        loss_bytes: Bytes moved for each logit in both passes.
        kernels: That a layer starts in a forward pass.
        expert_kernels: More of them in a layer of experts, relative to `kernels`.
        collective_s: Seconds of a blocking collective besides those of its links.
        tensor_overlap: Share of tensor-parallel moves hidden where the plan pipelines them.
        context_overlap: Share of the time of attention in which its ring can hide.
        context_step_s: Seconds that each step of the ring costs.
        expert_overlap: Share of the dispatch hidden.
        send_overlap: Share of sends between stages hidden.
        data_overlap: Share of the backward pass in which reductions can hide.
        gather_overlap: Share of a pass in which gathering its parameters can hide.
        contention: Share of a hidden transfer's time that it takes from the products beside it.
        optimizer_bytes: Bytes moved for each element of the optimizer's state.
        kept_copies: Copies that rotations of queries and keys, and activations of gates, keep
            beside what fused ones do.
        kept_inputs: Kept of a layer where all of it runs again: its input, or 2 where each of its
            blocks runs again by itself.
        kept_norm: Values of the stream's width that a norm keeps besides its input and result.
        kept_gathered: 1 where the inputs of products, split between tensor-parallel ranks, are kept
            gathered rather than gathered again (Korthikanti et al., 2022).
        kept_mask_bytes: Of dropout's mask, kept for each value that is added to the stream.
        kept_score_bytes: Kept for each score where attention is not fused.
        logit_bytes: Held for each logit at the loss; at least its own are.
        logits_split: 1 where tensor-parallel ranks split the logits.
        cut_by_cost: 1 where stages of a pipeline are cut between blocks so that the dearest is as
            cheap as can be; else layers are dealt whole and evenly.
        gathers_blocks: 1 where ZeRO-3 gathers block by block, one ahead, and gradients on their way
            are as precise as weights; else layer by layer, with gradients as they rest.
        late_gradients: 1 where a step begins without gradients, and the first backward makes them.
        update_bytes: Held for each element that the optimizer updates, besides its state.
        step_s: Seconds of a step that depend on nothing else.
        straggle: Share of a step lost to the slowest rank each time the ranks double beyond 8.
    """

    matrix: Number
    grouped: Number
    fused_attention: Number
    attention: Number
    attention_cap_flops_per_s: Number
    attention_backward: Number
    attention_ramp: Number
    score_bytes: Number
    pointwise: Number
    pointwise_backward: Number
    cast: Number
    accumulate_bytes: Number
    loss_bytes: Number
    kernels: Number
    expert_kernels: Number
    collective_s: Number
    tensor_overlap: Number
    context_overlap: Number
    context_step_s: Number
    expert_overlap: Number
    send_overlap: Number
    data_overlap: Number
    gather_overlap: Number
    contention: Number
    optimizer_bytes: Number
    kept_copies: Number
    kept_inputs: Number
    kept_norm: Number
    kept_gathered: Number
    kept_mask_bytes: Number
    kept_score_bytes: Number
    logit_bytes: Number
    logits_split: Number
    cut_by_cost: Number
    gathers_blocks: Number
    late_gradients: Number
    update_bytes: Number
    step_s: Number
    straggle: Number

    @property
    def by_program(self) -> NDArray[np.bool_]:
        """Where it runs a step as our own programs list it, so that they say what overlaps."""
        return np.asarray(self.gathers_blocks > 0)
