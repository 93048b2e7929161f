"""Where this process stands among the ranks, as torchrun, Slurm or nobody says. Without torch.

So what is wrong with it is found before torch is imported.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stretto.errors import InputError, MachineError, Problem

if TYPE_CHECKING:
    import torch

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
        import torch

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
    elif "SLURM_PROCID" in variables and variables.get("SLURM_NTASKS", "1") != "1":
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", _slurm_tasks_per_node(variables))
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


def _slurm_tasks_per_node(variables: Mapping[str, str]) -> str:
    """Give the variable that says how many tasks a host has: ``2(x3)`` is two on each of three."""
    names = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE")
    return next((name for name in names if name in variables), names[-1])


def first_host(nodes: str) -> str:
    """Give the first host of a Slurm node list: ``gpu[003-010,12],x1`` → ``gpu003``."""
    match = re.match(r"([^\[,]+)(?:\[([^\],-]+))?", nodes)
    return (match.group(1) + (match.group(2) or "")) if match else ""


def check_port(world: World, variables: Mapping[str, str]) -> None:
    """Say so at once if the port where rank 0 is to listen is taken.

    Args:
        world: This process; only rank 0 looks.
        variables: The environment. Under torchrun its agent listens there already.

    Raises:
        MachineError: It is taken, or not this machine's.
    """
    match = re.match(r"tcp://(.*):(\d+)$", world.rendezvous)
    if match is None or world.rank or "TORCHELASTIC_RUN_ID" in variables:
        return
    host, port = match.group(1), int(match.group(2))
    try:
        with socket.create_server((host, port)):
            return
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            rule = f"port {port} on {host} is in use"
            remedy = "set MASTER_PORT to another"
        else:
            reason = getattr(error, "strerror", None) or error
            rule = f"rank 0 cannot listen on {host}:{port}: {reason}"
            remedy = "set MASTER_ADDR to an address of rank 0's host"
        raise MachineError(Problem("MASTER_PORT", rule, remedy)) from None
