from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.emit.cases import EXPERTS, LLAMA, fields_refused, plan_of, written
from tests.emit.reading import command, parser

from stretto.emit import emit
from stretto.errors import PlanError
from stretto.model import Model, Rope
from stretto.plan import Communication, Memory, Numerics, Pipeline, Plan
from stretto.recipe import Recipe


def configured(plan: Plan) -> dict[str, Any]:
    """Give ds_config.json."""
    found: dict[str, Any] = json.loads(written("deepspeed", plan)["ds_config.json"])
    return found


def told(plan: Plan, *, model: Model = LLAMA) -> dict[str, Any]:
    """Give what Megatron-DeepSpeed is told, as its own parser would give it."""
    started = command(written("deepspeed", plan, model=model)["deepspeed.sh"])
    return vars(parser("megatron-deepspeed").parse_args(started.arguments))


def test_the_command_names_the_configuration_beside_it() -> None:
    given = told(plan_of(dp=2, zero=1))
    assert given["deepspeed"] and given["deepspeed_config"] == "ds_config.json"


def test_gradients_of_bfloat16_accumulate_in_float32() -> None:
    config = configured(plan_of(dp=2, zero=2))
    assert config["bf16"] == {"enabled": True}
    assert config["data_types"] == {"grad_accum_dtype": "fp32"}


def test_buckets_are_counted_in_float32_numbers() -> None:
    plan = plan_of(dp=2, zero=2, communication=Communication(bucket_bytes=4_000_000))
    assert configured(plan)["zero_optimization"]["reduce_bucket_size"] == 1_000_000


def test_gradients_may_be_sent_in_bfloat16() -> None:
    plan = plan_of(dp=2, zero=1, communication=Communication(codec="bfloat16"))
    assert configured(plan)["communication_data_type"] == "bf16"


def test_a_part_of_the_optimizer_goes_to_the_host_with_zero_3() -> None:
    plan = plan_of(dp=2, zero=3, memory=Memory(optimizer_offload=0.5))
    offload = configured(plan)["zero_optimization"]["offload_optimizer"]
    assert offload == {"device": "cpu", "pin_memory": True, "ratio": 0.5}
    assert told(plan)["cpu_optimizer"]


def test_what_recomputation_starts_from_goes_to_the_host() -> None:
    plan = plan_of(dp=2, zero=1, memory=Memory("full", offload=1.0))
    assert configured(plan)["activation_checkpointing"] == {"cpu_checkpointing": True}
    given = told(plan)
    assert given["checkpoint_activations"] and given["checkpoint_in_cpu"]


def test_a_pipeline_is_switched_off_where_there_is_none() -> None:
    assert told(plan_of(dp=2, zero=1))["no_pipeline_parallel"]
    given = told(plan_of(pp=2, dp=2, zero=1))
    assert not given["no_pipeline_parallel"] and given["pipeline_model_parallel_size"] == 2


def test_zero_bubble_is_a_flag_and_a_note() -> None:
    plan = plan_of(pp=2, dp=2, zero=1, pipeline=Pipeline("zb-1p"))
    assert told(plan)["enable_zbh1_pipeline"]
    notes = emit("deepspeed", model=LLAMA, plan=plan).notes
    assert "pipeline.schedule" in {note.field for note in notes}


def test_context_ranks_are_sequence_parallel_ranks() -> None:
    plan = plan_of(dp=2, cp=4, zero=3)
    assert told(plan)["ds_sequence_parallel_size"] == 4
    assert "mesh.cp" in {n.field for n in emit("deepspeed", model=LLAMA, plan=plan).notes}


def test_float8_needs_transformer_engine() -> None:
    given = told(plan_of(dp=2, zero=1, numerics=Numerics("bfloat16", matrix="float8")))
    assert given["fp8_hybrid"] and given["transformer_impl"] == "transformer_engine"


ONE = {"dp": 2, "zero": 1}


@pytest.mark.parametrize(
    ("plan", "model", "field"),
    [
        (plan_of(dp=2), LLAMA, "zero"),
        (plan_of(pp=2, dp=2, zero=2), LLAMA, "zero"),
        (plan_of(pp=2, **ONE, pipeline=Pipeline("interleaved", interleave=2)), LLAMA,
         "pipeline.schedule"),
        (plan_of(pp=2, tp=2, **ONE, pipeline=Pipeline("zb-1p")), LLAMA, "sequence"),
        (plan_of(pp=2, **ONE, pipeline=Pipeline(cut=(0, 7))), LLAMA, "pipeline.cut"),
        (plan_of(dp=4, zero=3, shard=2), LLAMA, "shard"),
        (plan_of(**ONE, tp=2, cp=2), LLAMA, "mesh.cp"),
        (plan_of(**ONE, cp=16), LLAMA, "mesh.cp"),
        (plan_of(dp=2, zero=3, memory=Memory(regather=False)), LLAMA, "memory.regather"),
        (plan_of(**ONE, memory=Memory("full", recompute_layers=1)), LLAMA,
         "memory.recompute_layers"),
        (plan_of(**ONE, memory=Memory("full", offload=0.5)), LLAMA, "memory.offload"),
        (plan_of(**ONE, memory=Memory(offload=1.0)), LLAMA, "memory.offload"),
        (plan_of(**ONE, memory=Memory(optimizer_offload=0.5)), LLAMA, "memory.optimizer_offload"),
        (plan_of(dp=2, numerics=Numerics("float32"), memory=Memory(optimizer_offload=1.0)), LLAMA,
         "memory.optimizer_offload"),
        (plan_of(**ONE, tp=2, communication=Communication(tensor_overlap=True)), LLAMA,
         "communication.tensor_overlap"),
        (plan_of(**ONE, numerics=Numerics("bfloat16", matrix="float4")), LLAMA, "numerics.matrix"),
        (plan_of(**ONE), EXPERTS, "model.experts"),
        (plan_of(**ONE), replace(LLAMA, window=8), "model"),
        (plan_of(**ONE), replace(LLAMA, rope=Rope(scaling="linear")), "model.rope.scaling"),
        (plan_of(**ONE), replace(LLAMA, qkv_bias=True), "model.out_bias"),
    ],
)  # fmt: skip
def test_what_deepspeed_cannot_do_is_refused(plan: Plan, model: Model, field: str) -> None:
    assert field in fields_refused("deepspeed", plan, model=model)
    assert len(fields_refused("deepspeed", plan, model=model)) == 1 + (model is EXPERTS)


def test_a_schedule_of_the_recipe_that_deepspeed_lacks_is_refused() -> None:
    with pytest.raises(PlanError, match=r"recipe\.schedule: Megatron-DeepSpeed has no wsd"):
        emit("deepspeed", model=LLAMA, plan=plan_of(**ONE), recipe=Recipe(schedule="wsd"))
