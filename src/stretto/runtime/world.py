"""Where this process stands among the ranks, and the process groups that a program needs.

The same command runs under torchrun, under Slurm, or starts its ranks itself (`launch`).
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from stretto.errors import InputError, MachineError, Problem
from stretto.program.instruction import Move, Program
from stretto.runtime.collective import Group

DEFAULT_PORT = 29_500


@dataclass(frozen=True, slots=True)
class World:
    """This process among the ranks.

    Attributes:
        rank: Its number.
        size: How many there are.
        local_rank: Its number on its host.
        local_size: How many there are on its host.
        rendezvous: Where ranks meet: a URL of `torch.distributed`.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    rendezvous: str

    @property
    def device(self) -> torch.device:
        """The device of this rank."""
        if torch.cuda.is_available():
            return torch.device("cuda", self.local_rank)
        return torch.device("cpu")


def from_environment(variables: Mapping[str, str]) -> World | None:
    """Give the world that torchrun's or Slurm's variables describe; None if there are none.

    Args:
        variables: The environment.

    Raises:
        InputError: Variables that are missing or are not numbers.
    """
    if "RANK" in variables and "WORLD_SIZE" in variables:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        defaults: dict[str, str] = {}
    elif "SLURM_PROCID" in variables and int(variables.get("SLURM_NTASKS", "1")) > 1:
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE")
        nodes = variables.get("SLURM_STEP_NODELIST", variables.get("SLURM_JOB_NODELIST", ""))
        port = DEFAULT_PORT + int(re.sub(r"\D", "", variables.get("SLURM_JOB_ID", "0")) or 0) % 1000
        defaults = {"MASTER_ADDR": first_host(nodes), "MASTER_PORT": str(port)}
    else:
        return None
    found = defaults | {k: variables[k] for k in ("MASTER_ADDR", "MASTER_PORT") if k in variables}
    problems, numbers = [], []
    for name, fallback in zip(names, (None, None, "0", "1"), strict=True):
        text = variables.get(name, fallback) or ""
        digits = re.match(r"\d+", text)
        if digits is None:
            problems.append(Problem(name, f"is {text!r}, not a number", "set it"))
        numbers.append(int(digits.group()) if digits else 0)
    problems += [
        Problem(name, "is not set", "set it to where rank 0 listens")
        for name in ("MASTER_ADDR", "MASTER_PORT")
        if not found.get(name)
    ]
    if not problems and numbers[0] >= numbers[1]:
        problems.append(
            Problem(names[0], f"rank {numbers[0]} of {numbers[1]}", "ranks count from 0")
        )
    if problems:
        raise InputError(problems)
    address = f"tcp://{found['MASTER_ADDR']}:{found['MASTER_PORT']}"
    return World(numbers[0], numbers[1], numbers[2], numbers[3], address)


def first_host(nodes: str) -> str:
    """Give the first host of a Slurm node list: ``gpu[003-010,12],x1`` → ``gpu003``."""
    match = re.match(r"([^\[,]+)(?:\[([^\],-]+))?", nodes)
    return (match.group(1) + (match.group(2) or "")) if match else ""


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
    if world.rank == 0 and "TORCHELASTIC_RUN_ID" not in os.environ:
        _check_port(world.rendezvous)
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
                "check MASTER_ADDR, MASTER_PORT, GLOO_SOCKET_IFNAME and that every rank was started",
            )
        ) from None


def _check_port(rendezvous: str) -> None:
    """Say so at once if the port where rank 0 listens is taken."""
    match = re.match(r"tcp://(.*):(\d+)$", rendezvous)
    if match is None:
        return
    host, port = match.group(1), int(match.group(2))
    try:
        with socket.create_server((host, port)):
            return
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            rule = f"port {port} on {host} is in use"
            remedy = "set MASTER_PORT to another"
        else:
            rule = f"rank 0 cannot listen on {host}:{port}: {error.strerror or error}"
            remedy = "set MASTER_ADDR to an address of rank 0's host"
        raise MachineError(Problem("MASTER_PORT", rule, remedy)) from None


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
    found = {(): Group(_world(), world.size, world.rank, exchanges)}
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
