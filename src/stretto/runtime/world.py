"""The world: ranks meet, and make the process groups that a program needs."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from stretto.errors import MachineError, Problem
from stretto.program.instruction import Move, Program
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
        Groups by axes; the world under (), the two directions along ``pp`` under ``("forward",)``
        and ``("backward",)``: a group each, so that neither waits for the other.
    """
    mesh = program.placement.mesh
    axes = {
        step.axes
        for stage in program.stages
        for instruction in stage.instructions
        if isinstance(instruction, Move)
        for leg in instruction.legs
        for step in leg.steps
        if step.communicates
    }
    exchanges = world.device.type == "cpu"
    everyone = Group(_world(), world.size, world.rank, exchanges)
    found: dict[tuple[str, ...], Group] = {(): everyone}
    directions = [("forward",), ("backward",)] if mesh.extent("pp") > 1 else []
    for names in [*sorted(axes), *directions]:
        along = ("pp",) if names in directions else names
        for ranks in mesh.groups(along):
            handle = dist.new_group(list(ranks))
            if world.rank in ranks:
                index = ranks.index(world.rank)
                found[names] = Group(handle, len(ranks), index, exchanges)
    local = {
        step.axes
        for stage in program.stages
        for instruction in stage.instructions
        if isinstance(instruction, Move)
        for leg in instruction.legs
        for step in leg.steps
        if not step.communicates
    }
    for names in local - set(found):
        size, index = mesh.extent(*names), mesh.index(world.rank, names)
        found[names] = Group(_world(), size, index, exchanges)
    return found


def _world() -> dist.ProcessGroup:
    group = dist.group.WORLD
    assert group is not None, "join the world first"
    return group
