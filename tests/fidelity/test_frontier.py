"""The regime of Dash et al. (2023) on Frontier: shares of peak as their abstract prints them.

Their plans are those of their best runs: tensor and pipeline parallelism, ZeRO-1, flash attention,
everything recomputed, 640 and 1,600 sequences a replica.
"""

from __future__ import annotations

import pytest

from stretto.cluster import find
from stretto.cost import cost, stack
from stretto.plan import Batch, Memory, Numerics, Plan
from stretto.presets import preset
from stretto.search import Task, search

STUDY = (
    # model, devices, tp, pp, micro-batch, sequences, share of the peak
    ("frontier-22b", 64, 2, 4, 2, 512, 0.3838),
    ("frontier-175b", 1024, 4, 16, 1, 16 * 640, 0.3614),
    ("frontier-1t", 3072, 8, 64, 1, 6 * 1600, 0.3196),
)


@pytest.mark.parametrize(("name", "devices", "tp", "pp", "micro", "sequences", "share"), STUDY)
def test_the_studys_share_of_the_peak_is_met_within_a_tenth_and_a_better_plan_is_found(
    name: str, devices: int, tp: int, pp: int, micro: int, sequences: int, share: float
) -> None:
    model, cluster, software = preset(name), find("frontier", devices=devices), stack("eager")
    plan = Plan.of(
        pp=pp, dp=devices // (tp * pp), tp=tp, zero=1, sequence=False,
        batch=Batch(sequences, micro, 2048), memory=Memory(recompute="full"),
        numerics=Numerics("bfloat16"),
    )  # fmt: skip
    theirs = cost(model, plan, cluster=cluster, stack=software)
    assert float(theirs.mfu) == pytest.approx(share, rel=0.1)
    found = search(Task(model, cluster, sequences=sequences, seq=2048, stack=software))
    assert found.best is not None
    assert found.best.step_s <= float(theirs.time.total_s)
