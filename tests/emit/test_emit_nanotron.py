from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from tests.emit.cases import EXPERTS, LLAMA, fields_refused, plan_of, written
from tests.emit.reading import command

from stretto.emit import emit
from stretto.model import Model, Rope
from stretto.plan import Communication, Memory, Numerics, Pipeline, Plan
from stretto.recipe import Recipe


def configured(plan: Plan, **more: Any) -> dict[str, Any]:
    """Give nanotron.yaml."""
    found: dict[str, Any] = yaml.safe_load(written("nanotron", plan, **more)["nanotron.yaml"])
    return found


def test_the_command_names_the_configuration_beside_it() -> None:
    started = command(written("nanotron", plan_of(dp=2))["nanotron.sh"])
    assert started.script == "run_train.py"
    assert started.arguments == ("--config-file", "nanotron.yaml")


@pytest.mark.parametrize(("schedule", "engine"), [("gpipe", "afab"), ("1f1b", "1f1b")])
def test_a_schedule_is_an_engine(schedule: Any, engine: str) -> None:
    plan = plan_of(pp=2, pipeline=Pipeline(schedule))
    assert configured(plan)["parallelism"]["pp_engine"] == engine


@pytest.mark.parametrize(("sequence", "mode"), [(True, "REDUCE_SCATTER"), (False, "ALL_REDUCE")])
def test_splitting_activations_over_tp_is_a_mode(sequence: bool, mode: str) -> None:
    plan = plan_of(tp=2, sequence=sequence)
    assert configured(plan)["parallelism"]["tp_mode"] == mode


def test_a_bias_or_a_window_makes_it_a_qwen() -> None:
    plain = configured(plan_of())["model"]["model_config"]
    assert plain["is_llama_config"] and "is_qwen2_config" not in plain
    model = replace(LLAMA, qkv_bias=True, window=16)
    found = configured(plan_of(), model=model)["model"]["model_config"]
    assert found["is_qwen2_config"] and "is_llama_config" not in found
    assert (found["attention_bias"], found["sliding_window_size"]) == (True, 16)


def test_buckets_are_counted_in_mebibytes() -> None:
    plan = plan_of(communication=Communication(bucket_bytes=7 * 2**20))
    assert configured(plan)["model"]["ddp_bucket_cap_mb"] == 7


def test_the_learning_rate_of_wsd_falls_in_its_last_part() -> None:
    recipe = Recipe(steps=100, schedule="wsd", decay=0.2, lr=1e-3, final_lr=0.1)
    found = configured(plan_of(), recipe=recipe)["optimizer"]["learning_rate_scheduler"]
    assert (found["lr_decay_starting_step"], found["lr_decay_steps"]) == (80, 20)
    assert (found["lr_decay_style"], found["min_decay_lr"]) == ("linear", 1e-4)


def test_where_stages_are_cut_is_noted_to_be_for_nanotron() -> None:
    assert "pipeline.cut" in {
        n.field for n in emit("nanotron", model=LLAMA, plan=plan_of(pp=2)).notes
    }


@pytest.mark.parametrize(
    ("plan", "model", "field"),
    [
        (plan_of(pp=2, pipeline=Pipeline("zb-1p")), LLAMA, "pipeline.schedule"),
        (plan_of(pp=2, pipeline=Pipeline(cut=(0, 7))), LLAMA, "pipeline.cut"),
        (plan_of(dp=2, zero=2), LLAMA, "zero"),
        (plan_of(dp=2, zero=3), LLAMA, "zero"),
        (plan_of(dp=2, cp=2, zero=1), LLAMA, "zero"),
        (plan_of(dp=4, zero=1, shard=2), LLAMA, "shard"),
        (plan_of(memory=Memory("selective")), LLAMA, "memory.recompute"),
        (plan_of(memory=Memory("full", recompute_layers=1)), LLAMA, "memory.recompute"),
        (plan_of(memory=Memory(offload=0.5)), LLAMA, "memory.offload"),
        (plan_of(dp=2, zero=1, memory=Memory(optimizer_offload=1.0)), LLAMA,
         "memory.optimizer_offload"),
        (plan_of(communication=Communication(codec="bfloat16")), LLAMA, "communication.codec"),
        (plan_of(numerics=Numerics("bfloat16", matrix="float8")), LLAMA, "numerics.matrix"),
        (plan_of(tp=2, sequence=False, communication=Communication(tensor_overlap=True)), LLAMA,
         "communication.tensor_overlap"),
        (plan_of(), replace(LLAMA, norm="layer"), "model"),
        (plan_of(), replace(LLAMA, mtp_layers=1), "model"),
        (plan_of(), replace(LLAMA, rope=None), "model.rope"),
        (plan_of(), replace(LLAMA, rope=Rope(scaling="yarn")), "model.rope"),
        (plan_of(), replace(EXPERTS, qk_norm=False), "model.experts"),
        (plan_of(), replace(LLAMA, head_dim=16), "model.head_dim"),
        (plan_of(), replace(LLAMA, window=8, full_layers=(0,)), "model.full_layers"),
        (plan_of(tp=4), replace(LLAMA, kv_heads=2), "mesh.tp"),
        (plan_of(), replace(LLAMA, activation="relu", gated=False), "model.activation"),
    ],
)  # fmt: skip
def test_what_nanotron_cannot_do_is_refused(plan: Plan, model: Model, field: str) -> None:
    assert fields_refused("nanotron", plan, model=model) == {field}
