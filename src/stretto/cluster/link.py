"""The tree of links: what joins devices, from the inside out.

Bandwidth is always of **one link in one direction**, in bytes per second. A data sheet's "900 GB/s
NVLink" counts both directions: it is 450e9 here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

from stretto.cluster.device import positive_problems
from stretto.errors import ClusterError, Problem

LevelName = Literal["device", "package", "node", "rail", "leaf", "spine", "wide"]
Contention = Literal["switched", "shared"]

LEVELS: tuple[str, ...] = get_args(LevelName)


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the tree of links: what joins the instances of the level inside it.

    Attributes:
        name: Which level, from the inside out.
        devices: Devices below one instance of it.
        bytes_per_s: Of **one link, in one direction**. A link serves `sharers` devices.
        latency_s: From one device to another for a message without length.
        sharers: Devices behind one link: 1 where each has a port of its own, 8 for one network
            card for a node of 8, all devices of the level for a bus.
        oversubscription: How many times more the links below could send than what joins them
            carries; 1 for full bisection.
        rail: Whether it joins only devices at the same index of the level inside it; others pass
            through that level first.
        efficiency: The fraction of `bytes_per_s` that large messages reach.
        source: Where its constants are from.
    """

    name: LevelName
    devices: int
    bytes_per_s: float
    latency_s: float
    sharers: int = 1
    oversubscription: float = 1.0
    rail: bool = False
    efficiency: float = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse a level that cannot be.

        Raises:
            ClusterError: All that is wrong.
        """
        problems = [*_level_problems(self)]
        if problems:
            raise ClusterError(problems)

    @property
    def contention(self) -> Contention:
        """Whether each device has a port of its own, or several share one link."""
        return "switched" if self.sharers == 1 else "shared"

    @property
    def alone_bytes_per_s(self) -> float:
        """What one device can send across while all others are silent."""
        return self.bytes_per_s * self.efficiency

    @property
    def share_bytes_per_s(self) -> float:
        """What every device can send across while all do."""
        return self.alone_bytes_per_s / (self.sharers * self.oversubscription)


def resized(levels: Sequence[Level], devices: int) -> tuple[Level, ...]:
    """Give the tree that `devices` of a system need: its outermost level holds them all.

    Args:
        levels: The tree of the system.
        devices: How many there are to be.
    """
    kept: list[Level] = []
    for level in levels:
        size = devices if level is levels[-1] else min(level.devices, devices)
        if size > (kept[-1].devices if kept else 1):
            kept.append(replace(level, devices=size, sharers=min(level.sharers, size)))
    return tuple(kept)


def common(trees: Sequence[Sequence[Level]]) -> tuple[Level, ...]:
    """Give the tree that holds in each of several: no block is larger and no link is faster in it.

    Blocks of an inner level fit into those of every tree; of the outermost, into the smallest.

    Args:
        trees: The tree of each part, from the inside out; empty ones, of one device, say nothing.
    """
    trees = [tree for tree in trees if tree]
    names = [n for n in LEVELS if trees and all(n in [v.name for v in tree] for tree in trees)]
    found: list[Level] = []
    for name in names:
        alike = [level for tree in trees for level in tree if level.name == name]
        held = found[-1].devices if found else 1
        sizes = [level.devices for level in alike]
        whole = any(level is tree[-1] for level in alike for tree in trees)
        size = min(sizes) // held * held if whole else math.gcd(*sizes)
        if size > held:
            slowest = min(alike, key=lambda level: level.share_bytes_per_s)
            # Fewer devices share no more of a link than all of them did.
            sharers = min(slowest.sharers, size)
            bytes_per_s = slowest.bytes_per_s * (sharers / slowest.sharers)
            latency_s = max(level.latency_s for level in alike)
            found.append(
                replace(
                    slowest,
                    devices=size,
                    bytes_per_s=bytes_per_s,
                    latency_s=latency_s,
                    sharers=sharers,
                )
            )
    return tuple(found)


def count_problems(devices: int) -> Iterator[Problem]:
    """Give what is wrong with a number of devices."""
    if devices < 1:
        yield Problem("devices", f"is {devices}, below 1", "use 1 or more")


def _level_problems(level: Level) -> Iterator[Problem]:
    if level.name not in LEVELS:
        yield Problem("name", f"{level.name!r} is no level", f"use {', '.join(LEVELS)}")
    yield from count_problems(level.devices)
    yield from positive_problems(level, ("bytes_per_s",))
    if not (math.isfinite(level.latency_s) and level.latency_s >= 0):
        yield Problem("latency_s", f"is {level.latency_s:g}, below 0", "write 0 or more")
    if not 1 <= level.sharers <= max(1, level.devices):
        yield Problem(
            "sharers", f"is {level.sharers}", f"write 1 to {level.devices}, the level's devices"
        )
    if not 1 <= level.oversubscription < math.inf:
        yield Problem(
            "oversubscription", f"is {level.oversubscription:g}", "write 1 or more: 2 for 2:1"
        )
    if not 0 < level.efficiency <= 1:
        yield Problem("efficiency", f"is {level.efficiency:g}", "write a fraction up to 1")


def tree_problems(levels: Sequence[Level], devices: int) -> Iterator[Problem]:
    """Give what is wrong with the tree of links among `devices`."""
    for inner, outer in pairwise(levels):
        if LEVELS.index(outer.name) <= LEVELS.index(inner.name):
            order = ", ".join(LEVELS)
            yield Problem(
                f"levels.{outer.name}", f"stands outside {inner.name}", f"order them as {order}"
            )
        if outer.devices <= inner.devices:
            yield Problem(
                f"levels.{outer.name}",
                f"must hold more devices than {inner.name}, but {outer.devices} ≤ {inner.devices}",
                "give each level more devices than the one inside it, or leave it out",
            )
        elif outer is not levels[-1] and outer.devices % inner.devices:
            rest = outer.devices % inner.devices
            yield Problem(
                f"levels.{outer.name}",
                f"must hold whole {inner.name}s, but {outer.devices} % {inner.devices} = {rest}",
                f"use a multiple of {inner.devices}",
            )
    if levels and levels[-1].devices != devices:
        yield Problem(
            f"levels.{levels[-1].name}",
            f"the outermost level must hold all {devices} devices, but holds {levels[-1].devices}",
            "leave out its devices, or make them agree",
        )
