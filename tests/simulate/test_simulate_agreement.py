"""What is simulated is what the closed forms say, where there is one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulate.toy import model, modern, plan, silent, software

from stretto.cluster import Cluster, find, local
from stretto.cost import Machine, cost
from stretto.cost.instruction import Prices
from stretto.cost.stacks import own
from stretto.model import Model
from stretto.plan import Batch, Memory, Numerics, Pipeline, Plan
from stretto.presets import preset
from stretto.program.instruction import Compute, Phase, Program
from stretto.program.lower import lower
from stretto.schedule import SCHEDULES, Action, Pass
from stretto.simulate import simulate
from stretto.timeline import Timeline
from stretto.timeline.memory import curve

# ── the estimate ─────────────────────────────────────────────────────────────────────────────────

LAYERS = 16


def even(
    name: str, *, micro_batches: int, micro_batch: int, recompute: Any, schedule: Any,
    seq: int = 4096, **words: Any,
) -> tuple[Model, Plan]:  # fmt: skip
    """Give a model and a plan whose stages have equally many layers."""
    words = {"pp": 1, "dp": 1, "tp": 1, "zero": 0, "sequence": True} | words
    pp, dp = words["pp"], words["dp"]
    chosen = Plan.of(
        **words,
        pipeline=Pipeline(schedule, (0, *(1 + 2 * LAYERS // pp * i for i in range(1, pp)))),
        memory=Memory(recompute),
        numerics=Numerics("bfloat16"),
        batch=Batch(dp * micro_batches * micro_batch, micro_batch, seq),
    )
    return replace(preset(name), layers=LAYERS), chosen


def owned(
    name: str, *, micro_batches: int = 4, recompute: Any = "none", schedule: Any = "1f1b",
    sequence: bool = True, seq: int = 2048, **words: Any,
) -> tuple[Model, Plan, Cluster]:  # fmt: skip
    """Give a model as it is, a plan that runs, and where."""
    chosen = Plan.of(
        **words, sequence=sequence, pipeline=Pipeline(schedule), memory=Memory(recompute),
        numerics=Numerics("bfloat16"),
        batch=Batch(words.get("dp", 1) * micro_batches, 1, seq),
    )  # fmt: skip
    return preset(name), chosen, find("dgx-h100", devices=chosen.mesh.size)


def difference(name: str, *, micro_batches: int, micro_batch: int = 4, recompute: Any = "none",
               schedule: Any = "1f1b", on: str = "dgx-h100", **words: Any) -> float:  # fmt: skip
    """Give how much longer the simulated step of a plan is than the estimated one, relatively.

    Stages have equally many layers, as the closed form takes them to have.
    """
    subject, chosen = even(
        name, micro_batches=micro_batches, micro_batch=micro_batch, recompute=recompute,
        schedule=schedule, **words,
    )  # fmt: skip
    here = find(on, devices=chosen.mesh.size)
    line = simulate(lower(subject, chosen), here, stack=modern())
    estimated = cost(subject, chosen, cluster=here, stack=modern()).time.total_s
    return line.step_s / float(estimated) - 1


# No level of links carries two kinds of message at a time, and embeddings are not tied.
ALONE: tuple[dict[str, Any], ...] = (
    {},
    {"recompute": "full"},
    {"recompute": "selective"},
    {"pp": 2, "micro_batches": 4},
    {"pp": 4, "micro_batches": 8},
    {"pp": 4, "micro_batches": 4, "schedule": "gpipe"},
    {"pp": 2, "micro_batches": 4, "recompute": "full"},
    {"tp": 2},
    {"tp": 8},
    {"tp": 4, "sequence": False},
    {"dp": 8},
    {"dp": 8, "zero": 1},
    {"dp": 8, "zero": 2},
    {"dp": 8, "zero": 3},
    {"dp": 16, "zero": 1, "recompute": "full"},
    {"tp": 8, "dp": 2},
    {"tp": 8, "dp": 2, "zero": 1},
    {"tp": 8, "pp": 2, "micro_batches": 4},
)


# Stages as a run has them, cut by cost: the last has the head, and fewer layers.
OWN = (*ALONE, {"pp": 4, "micro_batches": 16}, {"pp": 8, "micro_batches": 8}, {"pp": 8, "tp": 2},
       {"dp": 8, "zero": 1, "micro_batches": 1}, {"dp": 64, "zero": 3, "recompute": "full"},
       {"pp": 4, "dp": 2, "zero": 1, "micro_batches": 16})  # fmt: skip


@pytest.mark.parametrize("words", OWN, ids=str)
@pytest.mark.parametrize("name", ["llama-3-8b", "llama-3-70b"])
def test_what_our_own_software_is_estimated_to_allocate_its_program_allocates_within_6_percent(
    name: str, words: dict[str, Any]
) -> None:
    subject, chosen, here = owned(name, **words)
    program = lower(subject, chosen)
    line = simulate(program, here, stack=own(here))
    played = max(curve(line, program, i).total_bytes.max() for i in range(len(line.alike)))
    use = cost(subject, chosen, cluster=here, stack=own(here)).memory
    assert float(use.allocated_bytes) == pytest.approx(float(played), rel=0.06)


@pytest.mark.parametrize("words", OWN, ids=str)
@pytest.mark.parametrize("name", ["llama-3-8b", "llama-3-70b"])
def test_a_step_of_our_own_software_takes_what_is_estimated_within_4_percent(
    name: str, words: dict[str, Any]
) -> None:
    subject, chosen, here = owned(name, **words)
    assert 1 / 1.04 < stretched(subject, chosen, here) < 1.04


@pytest.mark.parametrize("name", ["stretto-1m", "smollm2-135m", "gpt2"])
@pytest.mark.parametrize("pp", [1, 2, 4])
@pytest.mark.parametrize("micro_batches", [4, 16])
def test_so_does_that_of_a_small_model_with_a_large_vocabulary_on_cores(
    name: str, pp: int, micro_batches: int
) -> None:
    subject, chosen, _ = owned(name, pp=pp, micro_batches=micro_batches, seq=256)
    assert 1 / 1.05 < stretched(subject, chosen, local(devices=pp)) < 1.05


def stretched(subject: Model, chosen: Plan, here: Cluster) -> float:
    """Give a simulated step of our own software over the estimated one."""
    line = simulate(lower(subject, chosen), here, stack=own(here))
    return line.step_s / float(cost(subject, chosen, cluster=here, stack=own(here)).time.total_s)


@pytest.mark.parametrize("words", ALONE, ids=str)
def test_a_step_without_contention_takes_what_is_estimated_within_2_percent(
    words: dict[str, Any],
) -> None:
    assert abs(difference("llama-3-8b", **({"micro_batches": 2} | words))) < 0.02


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(("llama-2-7b", "llama-3-70b", "qwen3-8b", "mistral-7b")),
    st.sampled_from([words for words in ALONE if words.get("zero") != 3]),
    st.sampled_from((2, 4)),
    st.sampled_from(("dgx-h100", "dgx-a100")),
)
def test_so_does_that_of_any_dense_model_on_any_cluster(
    name: str, words: dict[str, Any], micro_batch: int, on: str
) -> None:
    count = {"micro_batches": 4, "micro_batch": micro_batch, "on": on}
    assert abs(difference(name, **(count | words))) < 0.02


# ── schedules ────────────────────────────────────────────────────────────────────────────────────


_PHASES = {Pass.FORWARD: Phase.FORWARD, Pass.BACKWARD: Phase.BACKWARD}


def seconds_of(program: Program, line: Timeline, action: Action) -> tuple[float, float]:
    """Give when a stage begins and ends an action."""
    stage = program.stages[action.stage]
    wanted = {
        i
        for i, x in enumerate(stage.instructions)
        if isinstance(x, Compute)
        and x.micro_batch == action.micro_batch
        and x.phase is _PHASES[action.direction]
    }
    rows = [
        row
        for row in range(len(line.player))
        if line.player[row] == action.stage and line.instruction[row] in wanted
    ]
    return line.start_s[rows].min(), line.stop_s[rows].max()


@settings(max_examples=20, deadline=None)
@given(
    st.integers(2, 4), st.integers(1, 6), st.sampled_from(("gpipe", "1f1b")),
    st.data(),
)  # fmt: skip
def test_without_communication_the_step_is_the_schedule_played(
    pp: int, micro_batches: int, schedule: Any, data: st.DataObject
) -> None:
    subject = model(layers=4)
    cut = data.draw(st.sets(st.integers(1, 9), min_size=pp - 1, max_size=pp - 1))
    chosen = plan(pp=pp, micro_batches=micro_batches, schedule=schedule, cut=(0, *sorted(cut)))
    program, stack = lower(subject, chosen), software(optimizer_bytes=0)
    line = simulate(program, silent(pp), stack=stack)
    prices = Prices(program, Machine.of(silent(pp)), stack)
    costs = {
        direction: [
            sum(
                prices.compute_s(x)
                for x in stage.instructions
                if isinstance(x, Compute) and x.micro_batch == 0 and x.phase is _PHASES[direction]
            )
            for stage in program.stages
        ]
        for direction in (Pass.FORWARD, Pass.BACKWARD)
    }
    times = SCHEDULES[schedule](pp, micro_batches).times(costs)
    assert line.step_s == pytest.approx(max(stop for _, stop in times.values()), rel=1e-9)
    for action, (start, stop) in times.items():
        assert seconds_of(program, line, action) == pytest.approx((start, stop), rel=1e-9)
