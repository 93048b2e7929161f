"""The plan as a picture: every number is one that the plan says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stretto.cli.shown import Where, of_plan
from stretto.cluster import find
from stretto.cost import stack
from stretto.page.plan import data, lies
from stretto.page.subject import Subject
from stretto.plan import Batch, Pipeline, Plan
from stretto.presets import preset

MODEL = preset("gpt2")  # 12 layers: 26 blocks with embedding and head
BATCH = Batch(sequences=64, micro_batch=4, seq=256)


def shown(plan: Plan, *, cluster: str = "h100x16") -> Subject:
    where = Where(find(cluster), stack(), "modern")
    return of_plan("gpt2", MODEL, plan, where=where, say=lambda _: None)


def test_groups_are_the_axes_along_which_ranks_differ() -> None:
    found = data(shown(Plan.of(pp=2, dp=2, tp=4, zero=1, batch=BATCH)))
    split = [axis for axis in found["axes"] if axis[1] > 1]
    assert split == [["pp", 2], ["dp", 2], ["tp", 4]]
    assert [(g["name"], g["axes"]) for g in found["groups"]] == [
        ("pp", ["pp"]), ("dp", ["dp"]), ("tp", ["tp"]),
    ]  # fmt: skip
    assert found["levels"][0] == {"name": "node", "devices": 8}
    assert found["levels"][-1]["devices"] == 16


def test_hybrid_shards_are_a_group_within_the_replicas() -> None:
    found = data(shown(Plan.of(dp=16, zero=1, shard=4, batch=BATCH)))
    groups = {g["name"]: g["axes"] for g in found["groups"]}
    assert groups == {"dp": ["replica", "shard"], "replica": ["replica"], "shard": ["shard"]}


def test_stages_hold_every_block_once_and_all_of_the_work() -> None:
    subject = shown(Plan.of(pp=4, dp=4, batch=BATCH))
    stages = data(subject)["stages"]
    assert [s["rank"] for s in stages] == [0, 1, 2, 3]
    assert sum(s["blocks"] for s in stages) == 26
    assert sum(s["share"] for s in stages) == pytest.approx(1)
    assert stages[0]["first"] == "embedding" and stages[0]["layers"][0] == 0
    assert stages[-1]["last"] == "head"
    # The embedding is the head's too: the first and the last stage hold it both.
    tied = MODEL.vocab * MODEL.embed
    assert sum(s["parameters"] for s in stages) == MODEL.parameter_count + tied


def test_stages_go_around_the_pipeline_ranks_or_back_again() -> None:
    plan = Plan.of(pp=2, batch=BATCH)
    around = replace(plan, pipeline=Pipeline("interleaved", interleave=2))
    back = replace(plan, pipeline=Pipeline("zb-v"))
    assert [s["rank"] for s in data(shown(around))["stages"]] == [0, 1, 0, 1]
    assert [s["rank"] for s in data(shown(back))["stages"]] == [0, 1, 1, 0]


def test_a_plan_that_cannot_be_run_yet_is_drawn_without_a_program() -> None:
    subject = shown(replace(Plan.of(pp=2, batch=BATCH), pipeline=Pipeline("zb-v")))
    assert subject.program is None
    assert subject.notes[0].startswith("Priced in closed form only: pipeline.schedule: zb-v")
    assert [s["peak_bytes"] for s in data(subject)["stages"]] == [None] * 4


def test_that_a_plan_is_not_run_yet_is_said_once_with_what_there_is_all_the_same() -> None:
    plan = replace(Plan.of(pp=2, cp=2, batch=BATCH), pipeline=Pipeline("zb-v"))
    (note,) = shown(plan).notes
    assert "pipeline.schedule: zb-v; rules.compute.time: context parallelism" in note
    assert note.count("is not run yet") == 1
    assert note.endswith("are estimated below; there is no step on a clock.")


def test_kinds_of_memory_sum_to_the_estimate() -> None:
    subject = shown(Plan.of(dp=4, tp=4, zero=1, batch=BATCH))
    total = float(subject.estimate.memory.total_bytes)
    assert sum(data(subject)["memory"].values()) == pytest.approx(total)


def test_what_lies_where_is_said_in_words() -> None:
    assert dict(lies(Plan.of(pp=2, dp=4, tp=2, zero=1, batch=BATCH))) == {
        "sequences": "split 4 ways over dp",
        "positions between blocks, attention heads, feed-forward units, the vocabulary": (
            "split 2 ways over tp"
        ),
        "layers": "in 2 stages",
        "parameters at rest": "as in use, the same on every replica",
        "gradients at rest": "as in use, the same on every replica",
        "optimizer state": "sharded 4 ways more over dp",
    }


def test_one_rank_has_nothing_to_split() -> None:
    found = data(shown(Plan.of(batch=BATCH), cluster="h100x1"))
    assert (found["groups"], found["levels"], found["ranks"]) == ([], [], 1)
