"""The plan explorer's answers: those of ``stretto plan``, a front, and where one is."""

from __future__ import annotations

import itertools
import json
import random
import shlex
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import PLAN, a_run

from stretto.cli import main
from stretto.cli.shown import of_run
from stretto.cluster import Cluster, find, load
from stretto.cost import cost, stack
from stretto.errors import InputError, MachineError
from stretto.page.explorer import answer, data
from stretto.page.explorer import section as section_module
from stretto.page.explorer.asked import Asked
from stretto.page.explorer.explore import LIVE, STILL, Most, explore, searched
from stretto.page.explorer.start import Links, Start, linked
from stretto.page.subject import Subject
from stretto.plan import Batch, Memory, Numerics, Plan
from stretto.presets import preset
from stretto.search import Constraint, search

Streams = pytest.CaptureFixture[str]
BATCH = Batch(64, 1, 4096)


def subject(
    cluster: str = "h100x16", *, model: str = "llama-3-8b", plan: Plan | None = None
) -> Subject:
    """Give a plan for a cluster as its page reads it; by default ZeRO-3 on all devices."""
    own, where, software = preset(model), find(cluster), stack()
    plan = plan or Plan.of(dp=where.devices, zero=3, batch=BATCH, numerics=Numerics("bfloat16"))
    priced = cost(own, plan, cluster=where, stack=software)
    return Subject(model, own, plan, where, software, priced)


def told(command: str, capsys: Streams) -> dict[str, Any]:
    """Give what a command prints with ``--json``."""
    words = shlex.split(command)
    assert words[0] == "stretto"
    assert main([*words[1:], "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def best(answered: dict[str, Any]) -> dict[str, Any]:
    plan: dict[str, Any] = answered["plans"][answered["best"]]
    return plan


# ── the same as stretto plan ─────────────────────────────────────────────────────────────────────

ASKED = (
    {},
    {"objective": "memory-headroom"},
    {"objective": "energy"},
    {"objective": "cost"},
    {"devices": "24", "sequences": "96"},
    {"seq": "8192", "sequences": "32"},
    {"devices": "2"},
)


@pytest.mark.parametrize("query", ASKED, ids=str)
def test_the_best_plan_is_the_one_that_stretto_plan_gives(
    query: dict[str, str], capsys: Streams
) -> None:
    answered = answer(subject(), query)
    planned = told(answered["command"], capsys)["best"]
    mine = best(answered)
    assert mine["toml"] == planned["toml"]
    assert mine["step_s"] == pytest.approx(planned["step_s"], rel=1e-5)
    assert mine["memory_bytes"] == pytest.approx(planned["memory_bytes"], rel=1e-5)
    assert mine["energy_j"] == pytest.approx(planned["energy_j"], rel=1e-5)
    assert mine["money"] == pytest.approx(planned["money"], rel=1e-5)
    assert mine["mfu"] == pytest.approx(planned["mfu"], rel=1e-5)


@pytest.mark.parametrize("objective", ["time", "energy", "cost"])
def test_every_command_makes_its_plan_the_answer(objective: str, capsys: Streams) -> None:
    answered = answer(subject(), {"objective": objective})
    for i in {*answered["front"][::4], answered["best"], answered["running"]}:
        plan = answered["plans"][i]
        assert told(plan["command"], capsys)["best"]["toml"] == plan["toml"]


def test_with_another_network_the_command_names_the_cluster_that_the_answer_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    answered = answer(subject(), {"network": "0.25"})
    monkeypatch.chdir(tmp_path)
    Path("cluster.toml").write_text(answered["cluster_toml"], encoding="utf-8")
    planned = told(answered["command"], capsys)["best"]
    assert planned["toml"] == best(answered)["toml"]
    assert planned["step_s"] == pytest.approx(best(answered)["step_s"], rel=1e-5)


def test_a_cluster_of_a_file_is_told_as_a_file() -> None:
    where = find("h100x16")
    own = replace(subject(), cluster=replace(where, name="ours"))
    answered = answer(own, {})
    assert "--cluster cluster.toml" in answered["command"]
    assert 'name = "ours"' in answered["cluster_toml"]
    assert data(own)["limits"]["devices"] == (1, 16)


def test_the_model_of_a_run_is_told_as_its_directory() -> None:
    model = replace(preset("llama-3-8b"), layers=2)
    run = replace(subject(), model=model, run=Path("runs/my run"))
    assert "stretto plan 'runs/my run' " in answer(run, {})["command"]


def test_a_run_on_this_machine_is_told_by_its_own_cluster_and_software(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    answered = answer(of_run(a_run(tmp_path / "run", steps=1)), {})
    monkeypatch.chdir(tmp_path)
    Path("cluster.toml").write_text(answered["cluster_toml"], encoding="utf-8")
    planned = told(answered["command"], capsys)["best"]
    assert planned["toml"] == best(answered)["toml"]
    assert planned["step_s"] == pytest.approx(best(answered)["step_s"], rel=1e-5)
    assert answered["plans"][answered["here"]]["toml"] == PLAN.to_toml(model="tiny")


# ── the front ────────────────────────────────────────────────────────────────────────────────────


def test_no_plan_that_can_be_is_better_than_one_of_the_front_in_both() -> None:
    draw, own = random.Random(4), subject()
    for _ in range(8):
        query = {
            "devices": str(draw.choice((4, 8, 12, 16))),
            "sequences": str(draw.choice((48, 96))),
            "seq": str(draw.choice((2048, 4096))),
            "network": str(draw.choice((0.5, 1, 4))),
        }
        answered = answer(own, query)
        every = search(Asked.read(query, Start.of(own)).task(Start.of(own))).candidates
        front = [answered["plans"][i] for i in answered["front"]]
        assert len(front) > 1
        for plan in front:
            time_s, memory_bytes = (plan[key] * (1 - 1e-5) for key in ("step_s", "memory_bytes"))
            assert not np.any((every.time_s < time_s) & (every.memory_bytes < memory_bytes))
        assert front == sorted(front, key=lambda plan: plan["step_s"])
        assert front == sorted(front, key=lambda plan: -plan["memory_bytes"])
        assert front[0]["step_s"] == pytest.approx(float(every.time_s.min()), rel=1e-5)


@pytest.mark.parametrize("most", [LIVE, STILL], ids=["live", "file"])
def test_what_no_plan_beats_in_both_is_on_the_front_but_for_a_hundredth(most: Most) -> None:
    start = Start.of(subject())
    asked = Asked.of(start)
    whole = searched(start, asked)
    answered = explore(start, asked, whole=whole, most=most)
    cloud, own = answered["cloud"], [answered["plans"][i] for i in answered["front"]]
    front = [(plan["step_s"], plan["memory_bytes"]) for plan in own]
    front += [(cloud["time_s"][i], cloud["against"][i]) for i in cloud["front"]]
    every = zip(whole.candidates.time_s, whole.candidates.memory_bytes, strict=True)
    least, unbeaten = float("inf"), 0
    for time_s, memory_bytes in sorted((float(a), float(b)) for a, b in every):
        if memory_bytes >= least or time_s > 10 * front[0][0]:
            continue
        least, unbeaten = memory_bytes, unbeaten + 1
        assert any(
            a <= time_s * (1 + 1e-5) and 0.99 * b <= memory_bytes * (1 + 1e-5) for a, b in front
        )
    assert 8 < len(front) <= unbeaten
    assert len(cloud["time_s"]) <= most.cloud


def test_the_next_of_a_plan_of_a_file_is_the_next_of_the_front_and_not_of_those_told() -> None:
    start = Start.of(subject())
    asked = Asked.of(start)
    whole = searched(start, asked)
    live, file = (explore(start, asked, whole=whole, most=most) for most in (LIVE, STILL))
    assert len(live["front"]) > len(file["front"])
    gives = {plan["toml"]: plan["gives"] for plan in live["plans"]}
    for i in file["front"]:
        assert file["plans"][i]["gives"] == gives[file["plans"][i]["toml"]]


def test_the_parts_of_a_plan_sum_to_its_step_and_to_its_memory() -> None:
    own = subject()
    answered = answer(own, {})
    names = data(own)["names"]
    for plan in answered["plans"]:
        assert sum(plan["time"]) == pytest.approx(plan["step_s"], rel=1e-4)
        assert sum(plan["memory"]) == pytest.approx(plan["memory_bytes"], rel=1e-4)
        assert len(plan["time"]) == len(names["time"])
        assert len(plan["memory"]) == len(names["memory"])


def test_no_plan_of_the_front_saves_less_than_a_hundredth(tmp_path: Path) -> None:
    for own in (subject(), of_run(a_run(tmp_path / "run", steps=1))):
        answered = answer(own, {})
        held = [answered["plans"][i]["memory_bytes"] for i in answered["front"]]
        assert all(less <= 0.99 * more * (1 + 1e-5) for more, less in itertools.pairwise(held))


def test_every_plan_of_the_front_says_why_it_wins_and_what_it_gives_up() -> None:
    answered = answer(subject(), {})
    front = [answered["plans"][i] for i in answered["front"]]
    assert front[0]["gives"][0] == "No plan that fits is faster."
    assert front[-1]["gives"][1] == "No plan that is worth its time needs less."
    for plan in front:
        assert "that need at most" in plan["wins"][0] or "No other plan" in plan["wins"][0]
        assert len(plan["gives"]) == 2


def test_of_equals_the_simplest_is_the_best_and_says_which_is_as_good(tmp_path: Path) -> None:
    answered = answer(of_run(a_run(tmp_path / "run", steps=1)), {})
    mine, front = best(answered), [answered["plans"][i] for i in answered["front"]]
    if mine in front:
        assert front[0]["step_s"] <= mine["step_s"]
    else:
        assert mine["wins"][0].startswith(
            "No plan is faster. Another is just as good at that and needs less"
        )
        assert front[0]["step_s"] == mine["step_s"]
        assert front[0]["memory_bytes"] < mine["memory_bytes"]


def test_a_plan_of_the_cloud_in_full_takes_what_the_cloud_says() -> None:
    own, draw = subject(), random.Random(1)
    for query in ({}, {"objective": "energy"}):
        answered = answer(own, query)
        cloud = answered["cloud"]
        for i in draw.sample(range(len(cloud["time_s"])), 6):
            columns = cloud["decisions"].values()
            numbers = ",".join(str(c[i] if isinstance(c, list) else c) for c in columns)
            one = answer(own, {**query, "plan": numbers})["plan"]
            key = "energy_j" if query else "memory_bytes"
            assert one["step_s"] == pytest.approx(cloud["time_s"][i], rel=1e-5)
            assert one[key] == pytest.approx(cloud["against"][i], rel=1e-5)
            assert one["kind"] == cloud["kinds"][cloud["kind"][i]]
            assert (one["lacks"] == []) == bool(cloud["runs"][i])


def test_the_cloud_is_a_bounded_sample_of_plans_that_can_be() -> None:
    answered = answer(subject(), {})
    count = len(answered["cloud"]["time_s"])
    assert 100 < count <= 1500
    assert count < answered["can_be"]
    assert max(answered["cloud"]["against"]) <= answered["limit_bytes"]


def test_the_plan_that_runs_today_lacks_nothing_and_none_that_does_is_faster() -> None:
    own = subject()
    start = Start.of(own)
    answered = answer(own, {})
    running = answered["plans"][answered["running"]]
    assert running["lacks"] == []
    runs = Constraint.read("runs=true")
    found = search(Asked.of(start).task(start), constraints=[runs])
    assert running["step_s"] == pytest.approx(float(found.candidates.time_s.min()), rel=1e-5)


# ── you are here ─────────────────────────────────────────────────────────────────────────────────


def test_the_plan_of_the_page_is_where_its_own_estimate_puts_it() -> None:
    own = subject()
    answered = answer(own, {})
    here = answered["plans"][answered["here"]]
    assert here["toml"] == own.plan.to_toml(model="llama-3-8b")
    assert here["step_s"] == pytest.approx(own.predicted_s, rel=1e-5)
    saved = 1 - best(answered)["step_s"] / here["step_s"]
    assert saved > 0.01
    assert here["wins"][0].startswith("The best plan saves ")


def test_the_plan_of_the_page_is_nowhere_where_another_batch_is_asked_about() -> None:
    assert answer(subject(), {"sequences": "128"})["here"] is None
    assert answer(subject(), {"devices": "8"})["here"] is None
    assert answer(subject(), {"network": "2"})["here"] is not None


def test_a_page_about_the_best_plan_has_it_once() -> None:
    answered = answer(subject(), {})
    start = Start.of(subject())
    found = search(Asked.of(start).task(start)).best
    assert found is not None
    again = answer(subject(plan=found.plan), {})
    assert again["here"] == again["best"]
    assert len(again["plans"]) == len(answered["plans"]) - 1


def test_a_plan_that_does_not_fit_is_said_not_to() -> None:
    plan = Plan.of(dp=16, batch=BATCH, numerics=Numerics("bfloat16"), memory=Memory("full"))
    answered = answer(subject(plan=plan), {})
    (said,) = answered["plans"][answered["here"]]["wins"]
    assert said.startswith("It needs ")
    assert "but a device has 79.1" in said or "but a device has 79" in said


# ── the network ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("links", ["between", "within", "all"])
def test_a_faster_network_makes_the_best_plan_no_slower(links: str) -> None:
    steps = [
        best(answer(subject(), {"network": str(times), "links": links}))["step_s"]
        for times in (0.125, 1, 8)
    ]
    assert steps[0] >= steps[1] >= steps[2]
    assert steps[0] > steps[2]


@pytest.mark.parametrize(
    ("links", "node", "spine"), [("between", 1, 3), ("within", 3, 1), ("all", 3, 3)]
)
def test_only_the_links_that_are_meant_change(links: Links, node: float, spine: float) -> None:
    before = find("h100x16")
    after = linked(before, 3.0, links=links)
    ratios = [
        b.bytes_per_s / a.bytes_per_s for a, b in zip(before.levels, after.levels, strict=True)
    ]
    assert ratios == pytest.approx([node, spine])
    assert linked(after, 1 / 3, links=links).levels[1].bytes_per_s == pytest.approx(
        before.levels[1].bytes_per_s
    )


def test_one_node_has_no_links_between_nodes_unless_it_is_one_of_many() -> None:
    assert data(subject("h100x8"))["values"]["links"] == ("between", "within", "all")
    alone = replace(find("h100x8"), name="mine")
    plan = Plan.of(dp=8, zero=3, batch=BATCH, numerics=Numerics("bfloat16"))
    own = replace(subject("h100x8", plan=plan), cluster=alone)
    assert data(own)["values"]["links"] == ("within",)


# ── what cannot be asked ─────────────────────────────────────────────────────────────────────────


def refused(query: dict[str, str]) -> list[str]:
    with pytest.raises(InputError) as caught:
        answer(subject(), query)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({"devices": "0"}, "devices: is 0, below 1; use 1 to 65,536"),
        ({"devices": "65537"}, "devices: is 65,537, above 65,536; use 1 to 65,536"),
        ({"devices": "many"}, "devices: 'many' is no number; use 1 to 65,536"),
        ({"sequences": "-3"}, "sequences: is -3, below 1; use 1 to 1,048,576"),
        ({"seq": "1048577"}, "seq: is 1,048,577, above 1,048,576; use 1 to 1,048,576"),
        ({"network": "100"}, "network: is 100.0, above 64.0; use 0.015625 to 64.0"),
        ({"network": "nan"}, "network: is nan, above 64.0; use 0.015625 to 64.0"),
        ({"links": "some"}, "links: 'some' is none here; choose from between, within, all"),
        (
            {"objective": "beauty"},
            "objective: 'beauty' is none here; choose from time, cost, energy, memory-headroom",
        ),
        (
            {"sequences": "1048576", "seq": "4096"},
            "sequences: 1,048,576 × 4,096 tokens a step are more than 1,073,741,824; use at most "
            "262,144",
        ),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_the_bounds(
    query: dict[str, str], problem: str
) -> None:
    assert refused(query) == [problem]


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert len(refused({"devices": "x", "seq": "0", "links": "y"})) == 3


@pytest.mark.parametrize("plan", ["", "1,2", "1," * 30, "8;rm", "8," + ",".join(["nan"] * 18)])
def test_what_is_no_plan_of_the_cloud_is_refused(plan: str) -> None:
    assert refused({"plan": plan})


def test_what_no_plan_can_do_has_its_reasons() -> None:
    answered = answer(subject(), {"devices": "1", "seq": "1048576", "sequences": "1"})
    assert answered["problems"]
    assert all(p["rule"] and p["remedy"] for p in answered["problems"])
    assert "plans" not in answered


def test_what_has_no_price_cannot_cost_least() -> None:
    where = find("h100x16")
    free = replace(where.device, price_per_hour=0.0)
    parts = tuple(replace(part, device=free) for part in where.parts)
    own = replace(subject(), cluster=replace(where, parts=parts))
    assert "cost" not in data(own)["values"]["objective"]


def test_a_precision_that_the_devices_lack_is_said_in_place_of_the_explorer() -> None:
    plan = Plan.of(dp=16, zero=3, batch=BATCH, numerics=Numerics("bfloat16", matrix="float4"))
    (problem,) = data(subject(plan=plan))["problems"]
    assert problem["field"] == "precision"


# ── who asks ─────────────────────────────────────────────────────────────────────────────────────


def test_the_same_question_is_searched_for_once() -> None:
    first = answer(subject(), {"network": "3"})
    assert answer(subject(), {"network": "3.0", "devices": "16"}) is first


def test_searches_beyond_those_that_may_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    places = threading.BoundedSemaphore(1)
    monkeypatch.setattr(section_module, "_places", places)
    with places, pytest.raises(MachineError, match="ask again in a moment"):
        answer(subject(), {})
    assert answer(subject(), {})["plans"]


def test_unlike_devices_and_measured_links_are_told_of() -> None:
    uneven: Cluster = find("two-sites")
    plan = Plan.of(dp=uneven.devices, zero=3, batch=Batch(uneven.devices, 1, 1024),
                   numerics=Numerics("bfloat16"))  # fmt: skip
    own = replace(subject(plan=plan), cluster=uneven)
    assert any("sizes stages to each part" in note for note in data(own)["notes"])


def test_the_file_of_a_cluster_gives_it_back(tmp_path: Path) -> None:
    start = Start.of(subject())
    asked = Asked.read({"network": "0.3", "devices": "12"}, start)
    file = asked.file(start)
    assert file is not None
    (tmp_path / "cluster.toml").write_text(file, encoding="utf-8")
    assert load(tmp_path / "cluster.toml") == asked.cluster(start)
