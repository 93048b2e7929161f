"""Real ranks with which one thing is wrong, recorded; run as a module, in a process of its own.

The parent has imported torch and forks the ranks of one case after the other.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from benchmarks.hosts import Host, hosts

from stretto.cluster import Cluster, Level, local
from stretto.data.feed import MicroBatch
from stretto.data.prefetch import Prefetch
from stretto.model import Model
from stretto.plan import Batch, Numerics, Plan
from stretto.presets import preset
from stretto.program.lower import lower
from stretto.recipe import Recipe
from stretto.runtime.environment import World
from stretto.runtime.executor import Executor
from stretto.runtime.parity import invented
from stretto.runtime.rank import Rank
from stretto.runtime.recorder import WARM, recorder
from stretto.runtime.state import fill, fresh
from stretto.runtime.world import join, process_groups

CASES = ("slow rank", "slow link", "wrong constant", "data wait", "host", "memory pressure")

NETWORKED = {
    "slow link": ("1gbit", "1gbit", "20mbit"),
    "wrong constant": ("40mbit", "40mbit", "40mbit"),
}
"""Cases on hosts, with the rate of the link of each."""

PAUSE_S = 2.0
PAGES_BYTES, CHUNK_BYTES, PAGE_US = 64 << 20, 1 << 20, 3000


def case(name: str) -> tuple[Model, Plan, Cluster]:
    """Give what is trained in a case, and on what it is said to run: hosts with 1 Gbit/s."""
    wide = {"embed": 256, "heads": 4, "kv_heads": 4, "head_dim": 64, "ff": 768}
    model = replace(preset("tiny"), layers=3, **wide)
    stages = 3 if name in NETWORKED else 1
    plan = Plan.of(
        pp=stages, dp=1 if stages > 1 else 2, tp=1, zero=0, numerics=Numerics("float32"),
        batch=Batch(8, 2 if stages > 1 else 1, 128),
    )  # fmt: skip
    here = local(devices=max(stages, 2))
    if name in NETWORKED:
        here = replace(here, levels=(Level("spine", stages, 125e6, 2e-4),))
    return model, plan, here


def main(home: Path, names: Sequence[str]) -> None:
    """Run cases, each recorded in a directory of its name."""
    # Before all else that the machine does, or it would be that which is found.
    os.setpriority(os.PRIO_PROCESS, 0, -15)
    for name in names:
        (home / name).mkdir()
        if name in NETWORKED:
            rates = NETWORKED[name]
            with hosts(len(rates), rate="1gbit") as places:
                for place, rate in zip(places, rates, strict=True):
                    _narrow(place, rate)
                _run(name, home / name, places)
        else:
            _run(name, home / name, ())


def _narrow(host: Host, rate: str) -> None:
    """Limit what a host sends, and what is sent to it."""
    name, number = host.name.rsplit("-", 1)
    for where, device in ((host.name, host.interface), (f"{name}-switch", f"port{number}")):
        limit = f"root tbf rate {rate} burst 32kb latency 50ms"
        command = f"tc -n {where} qdisc change dev {device} {limit}"
        subprocess.run(command.split(), check=True)


def _run(name: str, home: Path, places: Sequence[Host]) -> None:
    """Fork the ranks and wait for them."""
    _, plan, _ = case(name)
    if name == "memory pressure":
        with (home / "pages").open("wb") as file:
            file.write(os.urandom(PAGES_BYTES))
            os.fsync(file.fileno())
    pids = []
    for number in range(plan.mesh.size):
        if not (pid := os.fork()):
            status = 1
            try:
                if places:
                    places[number].enter()
                interface = places[number].interface if places else "lo"
                os.environ["GLOO_SOCKET_IFNAME"] = interface
                size = plan.mesh.size
                world = World(number, size, number, size, f"file://{home}/store")
                join(world, timeout_s=60)
                _work(name, world, home)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    if name == "slow rank":
        _interrupt(pids[1], once=home / "begun")
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        assert status == 0, f"a rank of {name} ended with {status}"


def _interrupt(pid: int, *, once: Path) -> None:
    """Stop a rank for nine tenths of its time, as busy neighbours on its core would."""
    while not once.exists():
        time.sleep(0.01)
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.018)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.002)


def _thrash(file: Path) -> None:
    """Read pages that the kernel has dropped, again and again, as where memory is short.

    All of the process waits for the disk, and for as long again as a slower one would take.
    """
    descriptor = os.open(file, os.O_RDONLY)
    pages = mmap.mmap(descriptor, PAGES_BYTES, prot=mmap.PROT_READ)
    holding = ctypes.PyDLL(None)  # calls keep the interpreter, unlike those of a CDLL
    pages.madvise(mmap.MADV_RANDOM)
    for at in itertools.cycle(range(0, PAGES_BYTES, CHUNK_BYTES)):
        pages.madvise(mmap.MADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, PAGES_BYTES, os.POSIX_FADV_DONTNEED)
        pages[at]
        holding.usleep(PAGE_US)


def _work(name: str, world: World, home: Path) -> None:
    torch.set_num_threads(1)
    model, plan, _ = case(name)
    program, batches = lower(model, plan), invented(model, plan, seed=0)
    rank = Rank(program, world.rank, torch.device("cpu"), process_groups(program, world), Recipe())
    fill(rank, fresh(seed=0, shape=model.shape))
    executor = Executor(rank, recorder(rank, world, home, every=WARM, first=0, note=print))
    axes = dict(plan.rules.compute).get("batch", ())
    replica = program.placement.mesh.index(world.rank, axes)

    def build(step: int) -> list[MicroBatch]:
        if name == "data wait" and world.rank == 1 and step == WARM - 1:
            time.sleep(PAUSE_S)  # longer than the step before, which hides it
        return [batches(step, replica, m) for m in range(plan.micro_batches)]

    if name == "memory pressure" and world.rank == 1:
        threading.Thread(target=_thrash, args=(home / "pages",), daemon=True).start()
    if world.rank == 1:
        (home / "begun").touch()
    waited = 0.0
    gc.freeze()  # as `train` does
    with Prefetch(build, start=0, stop=WARM, ahead=1) as ready:
        for step, some in enumerate(ready):
            before, waited = waited, ready.wait_s
            executor.step(some, step=step, waited_s=waited - before)
            if name == "host" and step == WARM - 2:
                time.sleep(PAUSE_S)  # as if it saved


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
