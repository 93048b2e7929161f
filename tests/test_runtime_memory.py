"""What a program frees is freed: nothing else keeps its storage."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# Every rank looks, at each `Free`, whether the storage of what it gave back is gone.
SCRIPT = """
import json, sys
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from stretto.plan import Batch, Memory, Plan
from stretto.presets import preset
from stretto.program.instruction import Role
from stretto.program.lower import lower
from stretto.recipe import Recipe
from stretto.runtime.executor import Executor
from stretto.runtime.launch import spawn
from stretto.runtime.parity import invented
from stretto.runtime.rank import Rank
from stretto.runtime.state import fill, fresh
from stretto.runtime.world import process_groups

options, role = json.loads(sys.argv[1]), Role(sys.argv[2])
model = preset("tiny")
plan = Plan.of(batch=Batch(4, 1, 16), **options)
program, batches = lower(model, plan), invented(model, plan, seed=0)
seen = {"freed": 0, "kept": []}

class Watched(Rank):
    __slots__ = ()

    def free(self, names):
        mine = [n for n in names if self.stage.buffers[n].role is role]
        for name in mine:
            self.read(name)
        storages = {n: StorageWeakRef(self.buffers[n].untyped_storage()) for n in mine}
        Rank.free(self, names)
        seen["freed"] += len(mine)
        seen["kept"] += [n for n, s in storages.items() if not s.expired()]

def work(world):
    torch.set_num_threads(1)
    groups = process_groups(program, world)
    rank = Watched(program, world.rank, torch.device("cpu"), groups, Recipe())
    fill(rank, fresh(seed=0, shape=model.shape))
    executor = Executor(rank)
    for step in range(2):
        micro = [batches(step, world.rank, m) for m in range(plan.micro_batches)]
        executor.step(micro, step=step)
    if world.rank == 0:
        print(json.dumps(seen), flush=True)

spawn(work, nproc=plan.mesh.size)
"""


def freed(role: str, **options: object) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(options), role],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_gathered_weights_are_gone_once_freed_though_their_backward_is_still_to_come() -> None:
    found = freed("working", dp=2, zero=3)
    assert found["freed"] != 0
    assert found["kept"] == []


@pytest.mark.parametrize("zero", [0, 2])
def test_gradients_are_gone_once_they_are_on_their_way_or_used(zero: int) -> None:
    found = freed("gradient", dp=2, zero=zero)
    assert found["freed"] != 0
    assert found["kept"] == []
