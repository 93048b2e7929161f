"""The plan as a picture: the mesh on the cluster's tree, what lies where, stages and layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from stretto.page.subject import Subject
from stretto.plan import Plan
from stretto.presets import name_of
from stretto.program.cut import block_cost, stage_cut
from stretto.rules import Rules, Store

AXES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "pp": ("pipeline rank", "pipeline"),
        "dp": ("data-parallel replica", "gradient"),
        "cp": ("context-parallel rank", "host"),
        "tp": ("tensor-parallel rank", "activation"),
        "ep": ("expert-parallel rank", "parameter"),
    }
)
"""What people call the axes, and the page's colour of what moves along them."""

_PARTS = ("weights", "master", "gradient", "optimizer", "kept", "work", "transfer", "loss",
          "update", "fragment", "reserve")  # fmt: skip
_KINDS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("weights",), "parameters")
    | dict.fromkeys(("master", "optimizer", "update"), "optimizer")
    | dict.fromkeys(("gradient",), "gradients")
    | dict.fromkeys(("kept", "work", "loss"), "activations")
    | dict.fromkeys(("transfer",), "communication")
    | dict.fromkeys(("fragment", "reserve"), "other")
)
_ALL = ("batch", "seq", "time", "heads", "ff", "vocab", "expert", "expert_ff")
_DIMS: Mapping[str, str] = MappingProxyType(
    {
        "batch": "sequences",
        "seq": "positions between blocks",
        "time": "positions",
        "heads": "attention heads",
        "ff": "feed-forward units",
        "vocab": "the vocabulary",
        "expert": "experts",
        "expert_ff": "units of experts",
    }
)


def data(subject: Subject) -> dict[str, Any]:
    """Give the picture."""
    plan, cluster = subject.plan, subject.cluster
    return {
        "ranks": plan.mesh.size,
        "axes": [list(axis) for axis in plan.mesh.axes],
        "groups": [*_groups(plan)],
        "levels": [{"name": level.name, "devices": level.devices} for level in cluster.levels],
        "parts": [{"device": p.device.name, "devices": p.devices} for p in cluster.parts],
        "cluster": cluster.name,
        "stages": [*_stages(subject)],
        "memory": _memory(subject),
        "limit_bytes": float(cluster.memory_bytes),
        "lies": [list(row) for row in lies(plan)],
        "toml": plan.to_toml(model=name_of(subject.model)),
    }


def lies(plan: Plan) -> Iterator[tuple[str, str]]:
    """Give what is split, and over what, in words."""
    rules, mesh = plan.rules, plan.mesh
    over: dict[tuple[str, ...], list[str]] = {}
    for dim in _ALL:
        if dim in dict(rules.compute) and mesh.extent(*rules.axes(dim)) > 1:
            over.setdefault(rules.axes(dim), []).append(_DIMS[dim])
    for axes, dims in over.items():
        yield ", ".join(dims), f"split {mesh.extent(*axes)} ways over {' and '.join(axes)}"
    if plan.stages > 1:
        each = f", {plan.pipeline.chunks} to a rank" if plan.pipeline.chunks > 1 else ""
        yield "layers", f"in {plan.stages} stages{each}"
    for store, what in (
        (Store.PARAMETER, "parameters at rest"),
        (Store.GRADIENT, "gradients at rest"),
        (Store.OPTIMIZER, "optimizer state"),
    ):
        yield what, _rest(rules, store, plan)


def _rest(rules: Rules, store: Store, plan: Plan) -> str:
    axes = {axis for _, names in rules.storage(store) for axis in plan.mesh.expand(names)}
    if not axes:
        return "as in use, the same on every replica"
    ways = plan.mesh.extent(*axes)
    ordered = [name for name, _ in plan.mesh.axes if name in axes]
    return f"sharded {ways} ways more over {' and '.join(ordered)}"


def _groups(plan: Plan) -> Iterator[dict[str, Any]]:
    """Give the axes and views along which ranks differ, each once."""
    seen: list[frozenset[str]] = []
    for name in (*AXES, *plan.mesh.names):
        axes = plan.mesh.expand((name,)) if name in plan.mesh.names else ()
        if axes and frozenset(axes) not in seen:
            seen.append(frozenset(axes))
            title, kind = AXES.get(name, (name, "vote"))
            yield {"name": name, "title": title, "kind": kind, "axes": list(axes)}


def _stages(subject: Subject) -> Iterator[dict[str, Any]]:
    """Give the blocks of every stage, its share of the work, and what a rank of it holds."""
    model, plan = subject.model, subject.plan
    chain = model.blocks
    costs = [block_cost(model, block, positions=plan.batch.seq) for block in chain]
    sizes = {p: _count(model.shape(p)) for block in chain for p in block.parameters}
    for stage, (first, stop) in enumerate(
        itertools.pairwise((*stage_cut(model, plan), len(chain)))
    ):
        blocks = chain[first:stop]
        layers = sorted({block.layer for block in blocks if block.layer >= 0})
        held = dict.fromkeys(p for block in blocks for p in block.parameters)
        yield {
            "stage": stage,
            "rank": _pipeline_rank(plan, stage),
            "first": blocks[0].name,
            "last": blocks[-1].name,
            "blocks": len(blocks),
            "kinds": [[block.kind.value, block.layer] for block in blocks],
            "layers": [layers[0], layers[-1]] if layers else None,
            "parameters": sum(sizes[p] for p in held),
            "share": sum(costs[first:stop]) / sum(costs),
            "peak_bytes": _peak(subject, stage),
        }


def _pipeline_rank(plan: Plan, stage: int) -> int:
    """Give the pipeline rank that runs a stage: `zb-v` folds the second half back."""
    ranks = plan.mesh.extent("pp")
    if plan.pipeline.schedule == "zb-v" and stage >= ranks:
        return 2 * ranks - 1 - stage
    return stage % ranks


def _peak(subject: Subject, stage: int) -> dict[str, int] | None:
    """Give what a rank of a stage holds at its fullest moment, by kind; None if it is not known."""
    line, program = subject.predicted, subject.program
    if line is None or program is None or not line.finished:
        return None
    mesh = program.placement.mesh
    players = [
        player
        for player, ranks in enumerate(line.alike)
        if mesh.coordinate(ranks[0]).get("pp", 0) == stage
    ]
    held = subject.held(players[0])
    found = {kind: int(values[held.peak]) for kind, values in held.held_bytes.items()}
    use = subject.estimate.memory  # the program does not know what libraries and gaps take
    return found | {"other": found["other"] + round(float(use.reserve_bytes + use.fragment_bytes))}


def _memory(subject: Subject) -> dict[str, float]:
    """Give what the fullest rank holds at its fullest moment by kind, in closed form."""
    use = subject.estimate.memory
    found: dict[str, float] = {}
    for part in _PARTS:
        kind = _KINDS[part]
        found[kind] = found.get(kind, 0.0) + float(getattr(use, f"{part}_bytes"))
    return found


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for extent in shape:
        total *= extent
    return total
