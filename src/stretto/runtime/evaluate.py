"""How well a model does on held-out text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stretto.data.feed import IGNORE, MicroBatch, valid_batches
from stretto.data.tokens import TokenSet
from stretto.plan import Plan
from stretto.runtime.executor import Executor

EVALUATED = 2**17
"""Held-out targets that an evaluation reads at most."""


def evaluate(trial: Executor, valid: TokenSet, *, mask_documents: bool) -> float:
    """Give the mean loss over held-out text: the same windows whatever the plan.

    Args:
        trial: The forward half of the program, on the weights of the run.
        valid: Held-out tokens.
        mask_documents: Whether attention stays within a document.
    """
    plan = trial.rank.program.plan
    batch = plan.batch
    windows = -(-(valid.size - 1) // batch.seq)
    most = max(1, EVALUATED // (batch.seq * batch.sequences))
    steps = min(-(-windows // batch.sequences), most)
    dealt = _dealt(plan, valid, steps=steps, mask_documents=mask_documents)
    total, count = 0.0, 0
    for step in range(steps):
        mine = [next(dealt)[trial.rank.replica] for _ in range(plan.micro_batches)]
        outcome = trial.step(mine, step=step)
        total += outcome.loss * outcome.targets if outcome.targets else 0.0
        count += outcome.targets
    return total / max(1, count)


def _dealt(
    plan: Plan, valid: TokenSet, *, steps: int, mask_documents: bool
) -> Iterator[list[MicroBatch]]:
    """Give held-out micro-batches, one for each replica at a time; blank ones at the end."""
    batch = plan.batch
    batches = valid_batches(
        valid, seq=batch.seq, size=batch.micro_batch, mask_documents=mask_documents
    )
    first = next(batches)
    blank = replace(first, targets_BT=np.full_like(first.targets_BT, IGNORE))
    everything = itertools.chain([first], batches, itertools.repeat(blank))
    for _ in range(steps * plan.micro_batches):
        yield list(itertools.islice(everything, plan.replicas))
