"""Steps of real runs, recorded: what holds for a simulated timeline holds for them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stretto.cluster import local
from stretto.cost import stack
from stretto.errors import Problem
from stretto.plan import Batch, Plan
from stretto.presets import preset
from stretto.program.draw import draw
from stretto.program.instruction import Free, Program, Vote
from stretto.program.lower import lower
from stretto.recipe import Recipe
from stretto.report.step import step_lines
from stretto.runtime.collective import issue
from stretto.runtime.rank import Rank
from stretto.runtime.recorder import Parts, Recorder, recorder
from stretto.runtime.world import World
from stretto.simulate import simulate
from stretto.timeline import KINDS, usages
from stretto.timeline.chrome import chrome
from stretto.timeline.memory import curve
from stretto.timeline.recorded import Recording, plan_of, read, recorded_steps
from stretto.timeline.rows import rows
from stretto.timeline.value import HEADS

SEEDS = (3, 8, 11, 17, 23, 33, 35, 41)
STEPS = 5
EPS = 1e-9

# One parent that has imported torch forks the ranks of one plan after the other.
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from stretto.program.draw import draw
from stretto.program.lower import lower
from stretto.recipe import Recipe
from stretto.runtime.executor import Executor
from stretto.runtime.launch import spawn
from stretto.runtime.parity import invented
from stretto.runtime.rank import Rank
from stretto.runtime.recorder import recorder
from stretto.runtime.state import fill, fresh
from stretto.runtime.world import process_groups

home, steps = Path(sys.argv[1]), int(sys.argv[2])
for seed in json.loads(sys.argv[3]):
    model, plan = draw(seed, ranks=4)
    program, batches = lower(model, plan), invented(model, plan, seed=0)

    def work(world):
        torch.set_num_threads(1)
        rank = Rank(
            program, world.rank, torch.device("cpu"), process_groups(program, world), Recipe()
        )
        fill(rank, fresh(seed=0, shape=model.shape))
        found = recorder(rank, world, home / str(seed), every=4, first=0, note=print)
        executor = Executor(rank, found)
        for step in range(steps):
            micro = [batches(step, rank.replica, m) for m in range(plan.micro_batches)]
            executor.step(micro, step=step, waited_s=1e-5)

    spawn(work, nproc=program.placement.mesh.size)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of random plans over up to four ranks; every fourth step is recorded, and the third."""
    path = tmp_path_factory.mktemp("recorded")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), str(STEPS), json.dumps(SEEDS)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return path


def recordings(home: Path) -> Iterator[tuple[Program, Recording]]:
    """Give every step that was recorded, with its program."""
    for seed in SEEDS:
        program = lower(*draw(seed, ranks=4))
        for step in recorded_steps(home / str(seed)):
            yield program, read(home / str(seed), step, program=program)


def test_the_third_step_is_recorded_and_then_every_so_many(home: Path) -> None:
    for seed in SEEDS:
        assert recorded_steps(home / str(seed)) == (3, 4)
        assert Plan.from_toml(plan_of(home / str(seed), 3)) == draw(seed, ranks=4)[1]


def test_every_instruction_is_there_once_and_a_move_once_for_each_message(home: Path) -> None:
    for program, recording in recordings(home):
        line = recording.timeline
        assert line.finished
        assert list(line.alike) == [(r,) for r in range(program.placement.mesh.size)]
        for rank in range(len(line.alike)):
            mine = (line.rank == rank) & (line.instruction >= 0)
            listed = rows(program, program.of(rank))
            assert np.array_equal(line.instruction[mine], listed.instruction)
            assert np.array_equal(line.kind[mine], listed.kind)
            assert np.array_equal(line.sent_bytes[mine], listed.sent_bytes)


def test_a_rank_does_one_thing_after_the_other_and_so_does_a_queue(home: Path) -> None:
    for _, recording in recordings(home):
        line = recording.timeline
        heads = np.isin(line.kind, HEADS)
        for rank in range(len(line.alike)):
            streams = [line.stream == s for s in range(3, len(line.streams))]
            for mine in (heads, *streams):
                at = np.flatnonzero(mine & (line.rank == rank))
                at = at[np.lexsort((line.stop_s[at], line.start_s[at]))]
                assert (line.start_s[at][1:] >= line.stop_s[at][:-1] - EPS).all()


def test_nothing_is_read_before_it_is_there(home: Path) -> None:
    for program, recording in recordings(home):
        line = recording.timeline
        for rank in range(len(line.alike)):
            stage = program.of(rank)
            mine = np.flatnonzero(line.rank == rank)
            first = {int(line.instruction[r]): r for r in mine[::-1]}
            last = {int(line.instruction[r]): r for r in mine}
            there: dict[str, float] = {}
            count = len(stage.instructions)
            vote = max(i for i, x in enumerate(stage.instructions) if isinstance(x, Vote))
            for i in (*range(vote + 1, count), *range(vote + 1)):
                x = stage.instructions[i]
                start, stop = float(line.start_s[first[i]]), float(line.stop_s[last[i]])
                # A rank votes on what it owns; of the rest it need not have heard by then.
                waits = () if isinstance(x, Free) else x.input
                if isinstance(x, Vote):
                    mesh, known = program.placement.mesh, stage.buffers
                    waits = tuple(
                        b
                        for b in waits
                        if known[b].layout.owns(mesh=mesh, rank=rank, besides=("pp",))
                    )
                late = [name for name in waits if there.get(name, 0.0) > start + EPS]
                assert not late, (x, late)
                there |= dict.fromkeys(x.output, stop)


def test_a_step_begins_and_ends_with_a_vote(home: Path) -> None:
    for _, recording in recordings(home):
        line = recording.timeline
        votes = line.kind == KINDS.index("vote")
        assert (line.stop_s[votes] == line.step_s).all()
        assert votes.sum() == len(line.alike)
        assert line.start_s.min() >= 0.0
        assert line.stop_s.max() == line.step_s


def test_where_a_ranks_time_goes_sums_to_the_step(home: Path) -> None:
    for _, recording in recordings(home):
        for usage in usages(recording.timeline):
            parts = (usage.busy_s, usage.bubble_s, *usage.exposed_s.values())
            assert min(parts) >= 0.0
            assert sum(parts) == pytest.approx(recording.timeline.step_s, rel=1e-9)
            assert usage.busy_s > 0.0


def test_the_critical_path_goes_back_to_the_beginning(home: Path) -> None:
    for _, recording in recordings(home):
        line = recording.timeline
        path = line.critical()
        assert line.stop_s[path[-1]] == line.step_s
        first = line.start_s[line.rank == line.rank[path[0]]].min()
        assert line.start_s[path[0]] == first
        assert len(path) == len(set(path))


def test_what_is_counted_is_a_ranks_own(home: Path) -> None:
    for _, recording in recordings(home):
        for rank, counters in enumerate(recording.counters):
            assert counters.rank == rank
            assert counters.data_s == pytest.approx(1e-5, rel=1e-6)
            assert 0.0 <= counters.host_s < recording.timeline.step_s
            assert min(counters.minor_faults, counters.major_faults) >= 0
        assert (recording.memory_bytes > 2**24).all()  # of a process with torch in it
        assert (recording.resting_bytes > 2**24).all()


# ── for people ───────────────────────────────────────────────────────────────────────────────────


def pieces(document: str, rank: int) -> set[str]:
    """Give the names of what is drawn of the instructions of a rank."""
    return {
        event["name"]
        for event in json.loads(document)["traceEvents"]
        if event["ph"] == "X" and event["pid"] == rank and event["cat"] not in ("step", "none")
        and event["args"]["instruction"] >= 0
    }  # fmt: skip


def test_what_is_recorded_has_the_names_of_what_is_simulated(home: Path) -> None:
    for program, recording in recordings(home):
        size = program.placement.mesh.size
        line = simulate(program, local(devices=size), stack=stack("modern"))
        told = ["".join(chrome(t, program, name="x")) for t in (line, recording.timeline)]
        for ranks in line.alike:
            assert pieces(told[0], ranks[0]) == pieces(told[1], ranks[0])


def test_a_recorded_step_is_told_in_words(home: Path) -> None:
    for program, recording in recordings(home):
        line = recording.timeline
        held = [
            curve(line, program, player, measured_bytes=recording.memory_bytes)
            for player in range(len(line.alike))
        ]
        text = "\n".join(step_lines(line, program, memory=held))
        assert text.count("busy") == len(line.alike)
        assert "critical path" in text
        for one in held:
            assert (np.diff(one.times_s) >= 0).all()
            assert one.total_bytes.min() > 2**24


# ── when nothing is recorded ─────────────────────────────────────────────────────────────────────


def alone() -> Rank:
    program = lower(preset("tiny"), Plan.of(batch=Batch(2, 2, 16)))
    return Rank(program, 0, torch.device("cpu"), {}, Recipe())


def actions(rank: Rank, done: list[int]) -> Parts:
    """Give actions that do nothing but count, in place of a rank's."""
    instructions = rank.stage.instructions
    bound = tuple(lambda i=i: done.append(i) for i in range(len(instructions)))  # type: ignore[misc]
    voted = max(i for i, x in enumerate(instructions) if isinstance(x, Vote)) + 1
    return bound[:voted], bound[voted:]


def walked(found: Recorder, plain: Parts, *, steps: int) -> list[bool]:
    """Run steps as an executor does; give for each whether its actions are called as they are."""
    bare = []
    for step in range(steps):
        found.came(0.0)
        bare.append(found.actions(plain) is plain and found.rank.issue is issue)
        for action in found.actions(plain)[0]:
            action()
        found.voted(step + 1)
        for action in found.actions(plain)[1]:
            action()
        found.left()
    return bare


def made(home: Path, *, every: int, note: Callable[[Problem], Any] = print) -> Recorder:
    rank, world = alone(), World(0, 1, 0, 1, "")
    return Recorder(rank, world, directory=home, every=every, first=0, note=note)


def test_a_step_that_is_not_recorded_calls_its_actions_as_they_are(tmp_path: Path) -> None:
    done: list[int] = []
    found = made(tmp_path, every=5)
    plain = actions(found.rank, done)
    # The third is recorded, for it is warm, then every fifth.
    assert walked(found, plain, steps=11) == [
        step not in (3, 5, 10) for step in range(1, 12)
    ]  # fmt: skip
    assert recorded_steps(tmp_path) == (3, 5, 10)
    assert done == 11 * [*range(len(found.rank.stage.instructions))]


def test_nothing_is_recorded_where_nobody_asked(tmp_path: Path) -> None:
    world = World(0, 1, 0, 1, "")
    for directory, every in ((None, 50), (tmp_path, 0)):
        assert recorder(alone(), world, directory, every=every, first=0, note=print) is None


def test_a_run_that_goes_on_records_its_third_step_and_forgets_what_comes_again(
    tmp_path: Path,
) -> None:
    found = made(tmp_path, every=2)
    walked(found, actions(found.rank, []), steps=8)
    assert recorded_steps(tmp_path) == (2, 3, 4, 6, 8)
    again = recorder(alone(), World(0, 1, 0, 1, ""), tmp_path, every=10, first=4, note=print)
    assert again is not None
    assert recorded_steps(tmp_path) == (2, 3, 4)
    assert [step for step in range(5, 21) if again.due(step)] == [7, 10, 20]


def test_a_disk_that_refuses_is_told_of_once_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "timeline").write_text("in the way")
    told: list[Problem] = []
    found = made(tmp_path, every=2, note=told.append)
    walked(found, actions(found.rank, []), steps=8)
    (problem,) = told
    assert problem.field == str(tmp_path)
    assert problem.rule.startswith("step 2 could not be recorded: ")
    assert "training goes on" in problem.remedy
