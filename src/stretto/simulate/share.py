"""How messages share links: max-min fair, flow by flow."""

from __future__ import annotations

from collections.abc import Sequence

from stretto.simulate.route import Route


class Shares:
    """The pace of every message that is under way, at most 1: as if it were alone.

    Flows through a link share it evenly, but for those that a slower link elsewhere, or their own
    end, holds back (Bertsekas and Gallager, 1992). All flows of a message move at the pace of the
    slowest, as the ranks of a ring do.

    Attributes:
        pace: Of each message.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        route: Sequence[int],
        rate: Sequence[float],
        capacity: Sequence[float],
    ) -> None:
        """Begin with nothing under way.

        Args:
            routes: What messages take of links.
            route: Of each message an index into `routes`; -1 for none.
            rate: Of each message what a rank sends to its neighbour in a second if alone, in bytes.
            capacity: Of each link, in bytes per second.
        """
        self.routes, self.route, self.rate, self.capacity = routes, route, rate, capacity
        self.pace = [1.0] * len(route)
        self.on: list[dict[int, float]] = [{} for _ in capacity]
        self.load = [0.0] * len(capacity)  # if all were alone, in bytes per second

    def begin(self, message: int) -> list[int]:
        """Let a message begin, and give those whose pace changes."""
        return self._change(message, 1)

    def end(self, message: int) -> list[int]:
        """Let a message end, and give those whose pace changes."""
        changed = self._change(message, -1)
        self.pace[message] = 1.0
        return changed

    def _change(self, message: int, sign: int) -> list[int]:
        if self.route[message] < 0:
            return []
        way, rate = self.routes[self.route[message]], self.rate[message]
        full = []
        for link, flows, share in zip(way.links, way.flows, way.shares, strict=True):
            was = self.load[link] > self.capacity[link]
            self.load[link] += sign * flows * share * rate
            if sign > 0:
                self.on[link][message] = share * rate
            else:
                del self.on[link][message]
                if not self.on[link]:
                    self.load[link] = 0.0  # so that rounding does not add up
            if was or self.load[link] > self.capacity[link]:
                full.append(link)
        return self._settle(full) if full else []

    def _settle(self, links: Sequence[int]) -> list[int]:
        """Share anew all links that full ones join to `links`, and give whose pace changes."""
        seen, messages, todo = set(links), set[int](), list(links)
        while todo:
            for message in self.on[todo.pop()]:
                if message in messages:
                    continue
                messages.add(message)
                for link in self.routes[self.route[message]].links:
                    if link not in seen and self.load[link] > self.capacity[link]:
                        seen.add(link)
                        todo.append(link)
        new = self._filled(messages, seen)
        changed = [m for m in messages if self.pace[m] != new[m]]
        for message in changed:
            self.pace[message] = new[message]
        return changed

    def _filled(self, messages: set[int], links: set[int]) -> dict[int, float]:
        """Give the max-min fair paces: the fullest link is divided first, then the next."""
        left = {link: self.capacity[link] for link in links}
        flows = dict.fromkeys(links, 0.0)
        own: dict[int, list[tuple[int, float, float]]] = {}
        for m in messages:
            way = self.routes[self.route[m]]
            own[m] = [
                (link, count, share * self.rate[m])
                for link, count, share in zip(way.links, way.flows, way.shares, strict=True)
                if link in links
            ]
            for link, count, _ in own[m]:
                flows[link] += count
        pace: dict[int, float] = {}
        while len(pace) < len(own):
            fair = {link: left[link] / flows[link] for link in links if flows[link] > 0.5}
            at = {
                m: min([1.0, *(fair[link] / rate for link, _, rate in rows)])
                for m, rows in own.items()
                if m not in pace
            }
            done = [m for m, value in at.items() if value == 1.0]  # who asks for less than its part
            if not done:
                least = min(fair, key=lambda link: fair[link])
                done = [m for m in at if any(link == least for link, _, _ in own[m])]
            for m in done:
                pace[m] = at[m]
                for link, count, rate in own[m]:
                    left[link] = max(0.0, left[link] - count * rate * pace[m])
                    flows[link] -= count
        return pace
