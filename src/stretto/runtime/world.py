"""The world: ranks meet, and make the process groups that a program needs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist

from stretto.errors import MachineError, Problem
from stretto.program.instruction import Move, Program, Send
from stretto.runtime.collective import Group
from stretto.runtime.environment import World, check_port

__all__ = ["World", "join", "process_groups"]


def join(world: World, *, timeout_s: float = 600.0) -> None:
    """Meet the other ranks.

    Args:
        world: This process.
        timeout_s: How long to wait for them, and for any message later.

    Raises:
        MachineError: The port is taken, or not everybody came.
    """
    backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    check_port(world, os.environ)
    method = "env://" if "TORCHELASTIC_RUN_ID" in os.environ else world.rendezvous
    try:
        dist.init_process_group(
            backend, init_method=method, rank=world.rank, world_size=world.size,
            timeout=timedelta(seconds=timeout_s),
        )  # fmt: skip
    except (dist.DistError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise MachineError(
            Problem(
                "rendezvous",
                f"rank {world.rank} of {world.size} could not meet the others at "
                f"{world.rendezvous}: {reason}",
                "check MASTER_ADDR, MASTER_PORT, GLOO_SOCKET_IFNAME, and that all ranks started",
            )
        ) from None


def process_groups(program: Program, world: World) -> dict[tuple[str, ...], Group]:
    """Make the process groups that a program's moves need; every rank makes all, in one order.

    Returns:
        Groups by axes; the world under (), the two directions along ``pp`` under ``("pp",
        "forward")`` and ``("pp", "backward")``: a group each, so that neither waits for the other.
    """
    mesh = program.placement.mesh
    steps = [
        step
        for stage in program.stages
        for instruction in stage.instructions
        if isinstance(instruction, Move)
        for leg in instruction.legs
        for step in leg.steps
    ]
    speaking = {step.axes for step in steps if step.communicates}
    exchanges = world.device.type == "cpu"
    found: dict[tuple[str, ...], Group] = {(): Group(_world(), world.size, world.rank, exchanges)}
    for names in sorted({step.axes for step in steps} - speaking):
        size, index = mesh.extent(*names), mesh.index(world.rank, names)
        found[names] = Group(_world(), size, index, exchanges)
    directions = [("pp", "forward"), ("pp", "backward")] if mesh.extent("pp") > 1 else []
    for names in [*sorted(speaking), *directions]:
        for ranks in mesh.groups(names if names in speaking else ("pp",)):
            handle = dist.new_group(list(ranks))
            if world.rank in ranks:
                found[names] = Group(handle, len(ranks), ranks.index(world.rank), exchanges)
    _introduce(program, world, found)
    return found


def _introduce(program: Program, world: World, groups: Mapping[tuple[str, ...], Group]) -> None:
    """Have the ranks that will send to each other meet, in one order.

    NCCL makes the connection of a pair when it first speaks and blocks meanwhile; two ranks that
    began with different directions would wait for each other.
    """
    mesh = program.placement.mesh
    pairs = {
        (stage.stage, stage.stage + instruction.by)
        for stage in program.stages
        for instruction in stage.instructions
        if isinstance(instruction, Send)
    }
    here = mesh.coordinate(world.rank).get("pp", 0)
    word = torch.zeros(1, device=world.device)
    for source, target in sorted(pairs):
        by = target - source
        group = groups["pp", "forward" if by > 0 else "backward"].handle
        if here == source:
            dist.send(word, mesh.shift(world.rank, "pp", by=by), group=group)
        elif here == target:
            dist.recv(word, mesh.shift(world.rank, "pp", by=-by), group=group)


def _world() -> dist.ProcessGroup:
    group = dist.group.WORLD
    assert group is not None, "join the world first"
    return group
