"""What `plan` tells besides: layers, devices and links that differ, and what survivors do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from stretto.errors import Problem
from stretto.search import Found, Task, line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from stretto.search.confirm import Confirmed
    from stretto.search.staged import Staged


@dataclass(frozen=True)
class More:
    """What is told besides the best plan of a search.

    Attributes:
        pages: For a terminal.
        tree: As JSON.
        plan: The fastest of the plans that are told, to be saved in place of the best of the
            search; None for that.
        running: What is to be said of the best plan that runs today.
    """

    pages: tuple[RenderableType, ...] = ()
    tree: Mapping[str, Any] = field(default_factory=dict)
    plan: Staged | Confirmed | None = None
    running: tuple[str, ...] = ()


def more(found: Found, asked: argparse.Namespace) -> More:
    """Give what is told besides the best plan of a search.

    Over several parts stages are sized to their devices, and over measured links nodes are put in
    order, whether that is asked for or not.

    Args:
        found: The search.
        asked: The options of the command: ``layerwise``, ``survivors`` and ``confirm``.
    """
    told = [over_parts(found), _over_links(found)]
    if asked.layerwise:
        told.append(_layerwise(found))
    if asked.survivors is not None:
        told.append(_survivors(found, asked.survivors))
    if asked.confirm is not None:
        told.append(_confirmed(found, asked.confirm))
    plans = [one.plan for one in told if one.plan is not None]
    return More(
        tuple(page for one in told for page in one.pages),
        {name: tree for one in told for name, tree in one.tree.items()},
        min(plans, key=lambda plan: plan.step_s, default=None),
        tuple(text for one in told for text in one.running),
    )


def survivor_problems(least: int | None, task: Task | None) -> tuple[Problem, ...]:
    """Give what is wrong with a number of devices down to which to tell what survivors do."""
    if least is None or task is None or 0 <= least <= task.devices:
        return ()
    rule = f"is {least}, but there are {task.devices} devices"
    return (Problem("--survivors", rule, f"use 1 to {task.devices}"),)


def over_parts(found: Found) -> More:
    """Give the best plan whose stages are sized to the devices of each part, if there are several.

    Args:
        found: A search on all devices as if they were the slowest, whether it found a plan or not.
    """
    task = found.task
    if len(task.cluster.parts) < 2:
        return More()
    from stretto.report import plan_more, plan_more_json
    from stretto.search.uneven import across

    parts = across(found)
    return More(
        (plan_more.across(parts, task),),
        {"across_parts": plan_more_json.across(parts, task)},
        parts.plan,
    )


def _over_links(found: Found) -> More:
    cluster = found.task.cluster
    if not cluster.links or cluster.nodes == 1 or len(cluster.parts) > 1:
        return More()
    from stretto.report import plan_more, plan_more_json
    from stretto.search.assign import over_links

    order = over_links(found)
    return More(
        (plan_more.assignment(order),),
        {"over_links": plan_more_json.assignment(order)},
        order.plan,
    )


def _layerwise(found: Found) -> More:
    from stretto.report import plan_more, plan_more_json
    from stretto.search.layerwise import layerwise

    both = layerwise(found)
    page, tree = plan_more.layerwise(both), plan_more_json.layerwise(both)
    return More((page,), {"layerwise": tree}, None if both.best is both.uniform else both.best)


def _survivors(found: Found, least: int) -> More:
    from stretto.report import plan_more, plan_more_json
    from stretto.search.survivors import survivors

    table = survivors(found, least=least or None)
    return More((plan_more.survivors(table),), {"survivors": plan_more_json.survivors(table)})


def _confirmed(found: Found, most: int) -> More:
    from stretto.report import plan_more, plan_more_json
    from stretto.search.confirm import confirm

    live = sys.stderr.isatty()
    say = partial(print, end="", file=sys.stderr, flush=True)
    played = confirm(
        found,
        most=most,
        begin=lambda p: say(f"\r\x1b[Ksimulating {line(p.row)} …") if live else None,
    )
    if live:
        say("\r\x1b[K")
    best, running = found.best, found.best_running
    runs = best is not None and running is not None and best.plan == running.plan
    return More(
        (plan_more.confirmed(played),),
        {"confirmed": plan_more_json.confirmed(played)},
        played[0] if runs else None,
        plan_more.overtaken(played, running.plan) if running is not None else (),
    )
