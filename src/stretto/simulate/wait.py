"""Who waits for whom in a step that does not end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stretto.simulate.graph import Graph
from stretto.timeline.value import Floats, Wait


def waits(graph: Graph, done_s: Floats) -> tuple[Wait, ...]:
    """Give what every rank that is played waits for; nothing for those that are done or halted.

    Args:
        graph: The tasks.
        done_s: When they were done; infinite for those that never are.
    """
    if np.isfinite(done_s).all():
        return ()
    return tuple(_Waiting(graph, done_s).find())


class _Waiting:
    """What is known of a step that does not end."""

    def __init__(self, graph: Graph, done_s: Floats) -> None:
        self.graph, self.missing = graph, ~np.isfinite(done_s)
        unmet = self.missing[graph.before] & self.missing[graph.after]
        self.unmet: dict[int, list[int]] = {}
        for before, after in zip(
            graph.before[unmet].tolist(), graph.after[unmet].tolist(), strict=True
        ):
            self.unmet.setdefault(after, []).append(before)

    def find(self) -> Iterator[Wait]:
        """Give a wait for each player that is neither done nor halted."""
        for number, player in enumerate(self.graph.players):
            place = player.place
            # The device's tasks and the vote stand in a row; messages between wait on their own.
            heads = (self.graph.device[place] == number) | np.array(
                [player.tasks.lanes[lane].way == "all" for lane in player.tasks.lane]
            )
            stuck = np.flatnonzero(heads & self.missing[place])
            if len(stuck) and stuck[0] < player.halts:
                at = int(stuck[0])
                on = self._on(int(place[at]), number)
                yield Wait(player.ranks[0], player.tasks.instruction[at], on)

    def _on(self, task: int, number: int) -> tuple[int, ...]:
        """Give the ranks that hold up a task of a player."""
        found: set[int] = set()
        seen, stack = {task}, [task]
        while stack:
            at = stack.pop()
            others = self.unmet.get(at, [])
            devices = {self.graph.device[o] for o in others if self.graph.device[o] >= 0}
            found |= {int(d) for d in devices} - {number}
            if not others:  # it was lost, or a rank in it has halted
                found |= {p for p, _, _ in self.graph.ends[at] if self._halted(p)}
            fresh = [o for o in others if self.graph.device[o] < 0 and o not in seen]
            seen.update(fresh)
            stack += fresh
        return tuple(r for p in sorted(found) for r in self.graph.players[p].ranks)

    def _halted(self, number: int) -> bool:
        player = self.graph.players[number]
        return player.halts < len(player.place)
