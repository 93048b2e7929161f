"""The end of a step: the vote, and the optimizer's update of what this rank owns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from stretto.program.instruction import Update, Vote
from stretto.runtime.optimizer import adamw
from stretto.runtime.rank import Outcome, Rank


def vote(rank: Rank, vote: Vote) -> Callable[[], None]:
    """Bind a vote: one small sum over all ranks, after which all know the same."""
    owned = [g for g in vote.gradients if rank.owns(g)]
    speaks = bool(vote.loss) and rank.owns(vote.loss[0])
    world = rank.groups[()]
    updates = [i for i in rank.stage.instructions if isinstance(i, Update)]
    finals = [weight.gradient for update in updates for weight in update.weights]

    def go() -> None:
        gradients = [rank.read(g) for g in owned]
        began = time.perf_counter()
        votes = torch.zeros(4, dtype=torch.float64, device=rank.device)
        if speaks:
            votes[0] = rank.read(vote.loss[0])
            votes[1] = sum(rank.read(c) for c in vote.counts)
        if gradients:
            votes[2] = torch.stack(torch._foreach_norm(gradients)).double().square().sum()
        votes[3] = float(rank.stop)
        rank.clock.compute_s += time.perf_counter() - began
        began = time.perf_counter()
        if world.size > 1:
            dist.all_reduce(votes, group=world.handle)
        rank.outcome, unscale, factor = _decided(rank, votes)
        rank.clock.communication_s += time.perf_counter() - began
        rank.buffers[vote.verdict] = factor
        for name in finals if rank.gradients is not None else ():
            spec = rank.stage.buffers[name]
            assert rank.gradients is not None
            rank.gradients(spec.parameter, spec.layout, rank.read(name) * unscale)

    return go


def _decided(rank: Rank, votes: Tensor) -> tuple[Outcome, float, float]:
    """Give the outcome, what makes gradients means over targets, and what clips them too.

    The second factor is zero if the step does not count.
    """
    loss, count, squares, stop = votes.tolist()
    unscale = 1.0 / (rank.program.loss_scale * count) if count else math.nan
    norm = math.sqrt(squares) * unscale if squares >= 0 else math.nan
    mean = loss / count if count else math.nan
    applied = math.isfinite(mean) and math.isfinite(norm)
    clip = rank.recipe.clip
    shrink = min(1.0, clip / (norm + 1e-6)) if clip and applied else 1.0
    outcome = Outcome(mean, int(count), norm, applied, stop > 0)
    return outcome, unscale, unscale * shrink if applied else 0.0


def update(rank: Rank, update: Update) -> Callable[[], None]:
    """Bind an update; new weights are copied to where they are used, or handed to their move."""
    decays = {p.name: p.decay for p in rank.program.model.parameters}

    def go() -> None:
        factor = rank.read(update.verdict)
        owned = [
            (decays[w.parameter], rank.read(w.gradient), *(rank.read(s) for s in w.state))
            for w in update.weights
        ]
        began = time.perf_counter()
        if factor:
            adamw(owned, recipe=rank.recipe, lr=rank.recipe.lr_at(rank.step), step=rank.step + 1,
                  factor=factor)  # fmt: skip
        for weight, (_, _, master, _, _) in zip(update.weights, owned, strict=True):
            if weight.weight in rank.buffers:
                if weight.weight != weight.state[0]:
                    rank.buffers[weight.weight].copy_(master)
            else:
                rank.put(weight.weight, master)
        rank.clock.compute_s += time.perf_counter() - began

    return go
