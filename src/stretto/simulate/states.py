"""What the devices of a step that was played do, by what they draw meanwhile."""

from __future__ import annotations

import numpy as np

from stretto.cost.energy import States
from stretto.simulate.graph import Floats, Graph
from stretto.simulate.timeline import timeline
from stretto.timeline.usage import usages

MESSAGES = ("activation", "parameter", "gradient", "pipeline")
"""Kinds of messages with which a device is busy, if it is with nothing else; who votes waits."""


def states(
    whole: Graph, begun_s: Floats, done_s: Floats, *, products_s: Floats, lost: float
) -> States:
    """Give the seconds of each player's device by what it does in them.

    Args:
        whole: What is done.
        begun_s: Of each task when it begins.
        done_s: When it is done.
        products_s: Seconds of it that the clock of its device decides.
        lost: Share of a step that is lost to the slowest of many ranks, by chance.
    """
    line = timeline(whole, begun_s, done_s, straggle=lost, waits=())
    used = usages(line)
    messages = np.array([sum(one.exposed_s[kind] for kind in MESSAGES) for one in used])
    # A task that is done when its host is was done before, and its device waited for that.
    stretched_s = np.maximum(done_s - begun_s - whole.work_s, 0.0)
    host = by_player(whole, np.where(done_s <= whole.floor_s, stretched_s, 0.0))
    products = by_player(whole, products_s)
    streams = np.array([one.busy_s for one in used]) - host - products + messages
    return States(products, streams, line.expected_s - products - streams)


def by_player(whole: Graph, seconds: Floats) -> Floats:
    """Give for each player the sum of seconds of the tasks on its device."""
    busy, found = whole.device >= 0, np.zeros(len(whole.players))
    np.add.at(found, whole.device[busy], seconds[busy])
    return found
