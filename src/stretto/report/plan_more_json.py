"""The same as JSON: plans whose layers, devices or links differ, and what survivors do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stretto.presets import name_of
from stretto.search import Priced, Task, words
from stretto.search.assign import Assignment
from stretto.search.confirm import Confirmed
from stretto.search.layerwise import Layerwise
from stretto.search.staged import Staged
from stretto.search.survivors import Survivors, tokens_per_s
from stretto.search.task import RECOMPUTES
from stretto.search.uneven import Across

Tree = Mapping[str, Any]


def layerwise(found: Layerwise) -> Tree:
    """Give the best plan whose layers differ beside the best whose do not."""
    return {
        "speedup": found.speedup,
        "best": staged(found.best),
        "uniform": staged(found.uniform),
    }


def across(found: Across, task: Task) -> Tree:
    """Give the best plan over the parts of a cluster, and what it is to be compared with."""
    return {
        "plan": staged(found.plan) if found.plan else None,
        "as_if_all_were_the_slowest": staged(found.alike) if found.alike else None,
        "alone": [
            {"device": part.device.name, "devices": part.devices, "plan": _line(alone)}
            for part, alone in zip(task.cluster.parts, found.alone, strict=True)
        ],
        "a_part_alone_is_faster": found.best_alone,
    }


def assignment(found: Assignment) -> Tree:
    """Give the order of nodes with which a plan is fastest over measured links."""
    return {
        "order": found.order,
        "plan": staged(found.plan),
        "step_s_as_numbered": found.as_is_s,
        "step_s_at_random": found.random_s,
        "all_orders_tried": found.exact,
    }


def confirmed(found: Sequence[Confirmed]) -> list[Tree]:
    """Give what the simulator makes of the best plans that run today, the fastest first."""
    return [{"simulated_step_s": one.step_s, "plan": _line(one.estimated)} for one in found]


def survivors(found: Sequence[Survivors]) -> list[Tree]:
    """Give what to go on with for each number of devices that are left."""
    return [
        {
            "devices": one.devices,
            "spares": one.spares,
            "plan": _line(one.best),
            "with_another_batch": _line(one.other),
        }
        for one in found
    ]


def staged(plan: Staged) -> Tree:
    """Give a plan priced rank by rank."""
    load, memory = plan.cost.load, plan.memory_bytes
    ranks = range(len(plan.wires.parts))
    return {
        "toml": plan.plan.to_toml(),
        "step_s": plan.step_s,
        "tokens_per_s": plan.tokens_per_s,
        "money": plan.money,
        "fits": plan.fits,
        "layers": plan.layers,
        "ranks": [
            {
                "part": plan.wires.parts[r],
                "layers": float(plan.share.layers[r].sum()),
                "run_again": dict(zip(RECOMPUTES, map(float, plan.share.layers[r].sum(-1)),
                                      strict=True)),
                "by_another_zero_stage": float(plan.share.other[r]),
                "micro_batch_s": float(load.total_s[r]),
                "memory_bytes": float(memory[r]),
                "limit_bytes": float(plan.limit_bytes[r]),
            }
            for r in ranks
        ],
        "send_s": [float(seconds) for seconds in plan.wires.send_s],
    }  # fmt: skip


def _line(plan: Priced | None) -> Tree | None:
    """Give a plan of a search, and how fast it is."""
    if plan is None:
        return None
    return {
        "words": words(plan.row),
        "toml": plan.plan.to_toml(model=name_of(plan.task.model)),
        "devices": plan.task.devices,
        "sequences": plan.task.sequences,
        "step_s": plan.step_s,
        "tokens_per_s": tokens_per_s(plan),
        "memory_bytes": plan.memory_bytes,
    }
