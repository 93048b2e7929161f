"""All that can be measured of the machines that these ranks stand on, within a time."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.distributed as dist

from stretto.cluster import Device, Power, accelerator, local, of_driver
from stretto.errors import InputError, Problem
from stretto.runtime.environment import World
from stretto.runtime.measure import Measured, Meter, Tell
from stretto.runtime.measure_compute import PRECISIONS, copies, matrices
from stretto.runtime.measure_links import Matrix, between, collectives, within

_NAME_BYTES = 128
_WEIGHTS = {"matrices": 3.0, "copies": 0.5, "within": 1.0, "between": 2.0, "collectives": 4.5}
"""How the time is shared; collectives come last and have what the others leave."""

_UNKNOWN_TILE = (128, 128, 64)
_UNKNOWN_LIMIT_W = 300.0


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found.

    Attributes:
        host: The name of the first rank's host.
        backend: What carries messages: gloo or nccl.
        ranks: How many there are, a device each.
        per_node: How many of them each host has.
        device: A rank's device; its rates are a guess unless `known`.
        known: Whether its constants are a data sheet's.
        measured: All that was timed.
        within: Of each node, the bandwidth between its devices.
        between: The bandwidth between the first devices of nodes.
        took_s: How long it took.
    """

    host: str
    backend: str
    ranks: int
    per_node: int
    device: Device
    known: bool
    measured: tuple[Measured, ...]
    within: tuple[Matrix, ...]
    between: Matrix
    took_s: float


def survey(world: World, *, budget_s: float, tell: Tell) -> Survey:
    """Measure all there is; every rank calls this, and all get the same.

    Args:
        world: This process.
        budget_s: About how long to take.
        tell: Is told of progress, on rank 0.

    Raises:
        InputError: Hosts or devices differ, of which a fit knows nothing.
    """
    host, device, known = _here(world)
    _alike(world, device)
    meter = Meter(world, tell=tell)
    per_node, nodes = world.local_size, world.size // world.local_size
    names = ["matrices", "copies"]
    names += [name for name, count in (("within", per_node), ("between", nodes)) if count > 1]
    names += ["collectives"] if world.size > 1 else []
    ends = accumulate(_WEIGHTS[name] for name in names)
    total = sum(_WEIGHTS[name] for name in names)
    until_s = {name: budget_s * end / total for name, end in zip(names, ends, strict=True)}
    tried = tuple(p for p in PRECISIONS[world.device.type] if not known or _has(device, p))
    found = [*matrices(meter, tried, until_s=until_s["matrices"])]
    found += copies(meter, until_s=until_s["copies"])
    nodes_within: tuple[Matrix, ...] = ()
    nodes_between: Matrix = ()
    if "within" in until_s:
        nodes_within = within(meter, per_node=per_node, until_s=until_s["within"])
    if "between" in until_s:
        nodes_between = between(meter, per_node=per_node, until_s=until_s["between"])
    if "collectives" in until_s:
        found += collectives(meter, per_node=per_node, until_s=until_s["collectives"])
    backend = "nccl" if world.device.type == "cuda" else "gloo"
    return Survey(
        host, backend, world.size, per_node, device, known, tuple(found), nodes_within,
        nodes_between, meter.now_s,
    )  # fmt: skip


def _has(device: Device, precision: str) -> bool:
    return precision in dict(device.flops_per_s)


def _here(world: World) -> tuple[str, Device, bool]:
    """Give this host's name, this rank's device, and whether its constants are a data sheet's."""
    threads = torch.get_num_threads()
    usual = local(devices=world.local_size, threads=threads)
    if world.device.type == "cuda":
        name = torch.cuda.get_device_name(world.device)
        preset = of_driver(name)
        device = accelerator(preset) if preset else _unknown(name, world.device)
        return usual.name, device, preset is not None
    said = f"usual values of a core, of which a rank has {threads}"
    return usual.name, replace(usual.device, source=said), False


def _unknown(name: str, device: torch.device) -> Device:
    """Give a CUDA device that no preset knows; its rates are still to be measured."""
    properties = torch.cuda.get_device_properties(device)
    limit_w = _power_limit_w(device) or _UNKNOWN_LIMIT_W
    return Device(
        name,
        float(properties.total_memory),
        1.0,
        (("float32", 1.0),),
        properties.multi_processor_count,
        _UNKNOWN_TILE,
        (("float32", 1.0),),
        Power(0.1 * limit_w, 0.6 * limit_w, limit_w),
        0.0,
        5e-6,
        "its driver",
        (
            ("tile", "default"),
            ("power", "limit: its driver, or 300 W; a tenth idle, 60 % bound by memory: default"),
            ("price_usd_per_hour", "not known: write what it costs"),
        ),
    )


def _power_limit_w(device: torch.device) -> float | None:
    """Give the power limit in W as the driver's tool says it; None if it does not."""
    query = ("nvidia-smi", "--query-gpu=power.limit", "--format=csv,noheader,nounits")
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout
        return float(said.splitlines()[device.index or 0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _alike(world: World, device: Device) -> None:
    """Refuse hosts with different numbers of ranks, and devices of different kinds.

    Raises:
        InputError: The same on every rank.
    """
    text = f"{world.local_size} {device.units} {device.name}"
    ranks = [frame.split(" ", 2) for frame in _from_all(text, world.size)]
    alike = (
        ("ranks of a host", "start as many on each host"),
        ("units of a device", "give each rank as many threads"),
        ("devices", "measure those of one kind at a time"),
    )
    problems = [
        Problem(name, f"must be alike, but are {' and '.join(kinds)}", remedy)
        for (name, remedy), column in zip(alike, zip(*ranks, strict=True), strict=True)
        if len(kinds := [*dict.fromkeys(column)]) > 1
    ]
    if problems:
        raise InputError(problems)


def _from_all(text: str, ranks: int) -> Iterator[str]:
    """Give the text that each rank has."""
    said = text.encode()[:_NAME_BYTES]
    mine = torch.tensor([*said, *bytes(_NAME_BYTES - len(said))], dtype=torch.uint8)
    every = mine.new_empty(ranks * _NAME_BYTES)
    dist.all_gather_single(every, mine)
    rows: Iterable[list[int]] = every.view(ranks, _NAME_BYTES).tolist()
    return (bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows)
