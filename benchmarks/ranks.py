"""The rank processes of a contender: started once, then asleep on a pipe but for their turn."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import json
import multiprocessing
import os
import signal
import statistics
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the first optimizer imports it: once here, not in every rank
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from benchmarks.config import Step
from benchmarks.groups import Contender
from benchmarks.hosts import Host
from stretto.errors import Problem, RankError

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Window:
    """What one turn of a contender showed.

    Attributes:
        elapsed_s: From the barrier before the first step to the one after the last; the longest
            of the ranks.
        peak_bytes: The largest resident set of a rank since its model was built.
        base_bytes: The largest resident set of a rank before its model was built.
        others: The part of the machine's CPU time that processes other than the ranks took.
        losses: Of each step, the mean over the ranks that saw it.
    """

    elapsed_s: float
    peak_bytes: int
    base_bytes: int
    others: float
    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of one contender and the pipes to them."""

    contender: Contender
    processes: tuple[ForkProcess, ...]
    pipes: tuple[Connection, ...]

    def run(self, steps: int) -> Window:
        """Train, while nobody else does: one step to warm the caches, then `steps` on the clock.

        Raises:
            RankError: A rank failed.
        """
        for pipe in self.pipes:
            pipe.send_bytes(json.dumps({"steps": steps}).encode())
        answers = self._answers()
        losses = zip(*(a["losses"] for a in answers if a["losses"]), strict=True)
        return Window(
            elapsed_s=max(a["elapsed_s"] for a in answers),
            peak_bytes=max(a["peak_bytes"] for a in answers),
            base_bytes=max(a["base_bytes"] for a in answers),
            others=_others(answers),
            losses=tuple(sum(of_ranks) / len(of_ranks) for of_ranks in losses),
        )

    def _answers(self) -> list[dict[str, Any]]:
        """Wait for every rank; the first that fails ends it, for the others may wait for it."""
        answers: dict[int, dict[str, Any]] = {}
        while waiting := [rank for rank in range(len(self.pipes)) if rank not in answers]:
            wait(
                [self.pipes[rank] for rank in waiting]
                + [self.processes[rank].sentinel for rank in waiting]
            )
            for rank in waiting:
                if (answer := self._answer(rank)) is None:
                    continue
                answers[rank] = answer
                if error := answer.get("error"):
                    rule = f"rank {rank} failed: {error}"
                    raise RankError(Problem(self.contender.name, rule, "mend the contender"))
        return [answers[rank] for rank in range(len(self.pipes))]

    def _answer(self, rank: int) -> dict[str, Any] | None:
        alive = self.processes[rank].is_alive()  # asked first: its last word may be in the pipe
        with contextlib.suppress(EOFError):
            if self.pipes[rank].poll():
                answer: dict[str, Any] = json.loads(self.pipes[rank].recv_bytes())
                return answer
        return None if alive else {"error": "it ended without a word"}


@contextlib.contextmanager
def team(
    contender: Contender, *, world: int, folder: Path, hosts: tuple[Host, ...]
) -> Iterator[Team]:
    """Start the ranks of a contender and build it; end them when the context ends.

    Args:
        contender: What to build.
        world: Ranks.
        folder: An empty directory, for their rendezvous.
        hosts: Where each rank lives; empty: all here.

    Raises:
        RankError: A rank failed while it built.
    """
    context = multiprocessing.get_context("fork")  # so that all start from the same imports
    ours, theirs = zip(*(context.Pipe() for _ in range(world)), strict=True)
    processes = tuple(
        context.Process(
            target=_serve,
            args=(theirs[rank], contender),
            kwargs={
                "rank": rank,
                "world": world,
                "store": folder / "store",
                "host": hosts[rank] if hosts else None,
                "parent": os.getpid(),
            },
            daemon=True,
        )
        for rank in range(world)
    )
    try:
        for process, pipe in zip(processes, theirs, strict=True):
            process.start()
            pipe.close()
        made = Team(contender, processes, ours)
        made._answers()
        yield made
        for pipe in ours:
            pipe.send_bytes(json.dumps({"steps": 0}).encode())
        for process in processes:
            process.join(timeout=20)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
        for process in processes:
            if process.pid is not None:
                process.join()


def _serve(
    pipe: Connection,
    contender: Contender,
    *,
    rank: int,
    world: int,
    store: Path,
    host: Host | None,
    parent: int,
) -> None:
    """Be one rank: build, then obey the pipe until it says 0."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be heard
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, and ends its ranks
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        if host:
            host.enter()
        os.environ["GLOO_SOCKET_IFNAME"] = host.interface if host else "lo"
        torch.set_num_threads(contender.config.threads)
        dist.init_process_group(
            "gloo",
            store=FileStore(str(store), world),
            rank=rank,
            world_size=world,
            timeout=datetime.timedelta(minutes=2),
        )
        base_bytes = _memory("VmRSS")
        step = contender.build(rank, world, config=contender.config)
        Path("/proc/self/clear_refs").write_text("5")  # the peak shall be that of training
        pipe.send_bytes(b"{}")
        while steps := json.loads(pipe.recv_bytes())["steps"]:
            answer = {**_turn(step, steps), "base_bytes": base_bytes}
            pipe.send_bytes(json.dumps(answer).encode())
        dist.destroy_process_group()
    except Exception:  # whatever it is, the parent must hear of it
        pipe.send_bytes(json.dumps({"error": traceback.format_exc()}).encode())


def _turn(step: Step, steps: int) -> dict[str, Any]:
    found = [step()]
    dist.barrier()
    busy_s, own_s, begin_s = _busy_s(), time.process_time(), time.perf_counter()
    found += [step() for _ in range(steps)]
    dist.barrier()
    elapsed_s = time.perf_counter() - begin_s
    return {
        "elapsed_s": elapsed_s,
        "own_s": time.process_time() - own_s,
        "busy_s": _busy_s() - busy_s,
        "peak_bytes": _memory("VmHWM"),
        "losses": [float(loss) for loss in found if loss is not None],
    }


def _busy_s() -> float:
    """The CPU time that all processes of this machine have taken, in seconds."""
    user, nice, system = map(int, Path("/proc/stat").read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def _others(answers: list[dict[str, Any]]) -> float:
    own_s: float = sum(a["own_s"] for a in answers)
    busy_s: float = statistics.median(a["busy_s"] for a in answers) - own_s
    elapsed_s: float = max(a["elapsed_s"] for a in answers)
    return max(0.0, busy_s) / (elapsed_s * (os.cpu_count() or 1))


def _memory(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
