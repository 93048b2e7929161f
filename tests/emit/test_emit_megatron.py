from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.emit.cases import EXPERTS, LLAMA, fields_refused, plan_of, written
from tests.emit.reading import Command, command, parser

from stretto.emit import Trainer, emit
from stretto.model import Latent, Model, Rope
from stretto.plan import Communication, Memory, Numerics, Pipeline, Plan

LATENT = replace(
    LLAMA,
    name="latent",
    head_dim=12,
    latent=Latent(0, 16, 8, 4, 8),
    rope=Rope(scaling="yarn", factor=40.0),
)


def started(plan: Plan, **more: Any) -> Command:
    return command(written("megatron", plan, **more)["megatron.sh"])


def told(plan: Plan, **more: Any) -> dict[str, Any]:
    """Give what Megatron-LM is told, as its own parser would give it."""
    return vars(parser("megatron").parse_args(started(plan, **more).arguments))


def test_zero_1_is_the_distributed_optimizer() -> None:
    assert not told(plan_of(dp=4))["use_distributed_optimizer"]
    given = told(plan_of(dp=4, zero=1))
    assert given["use_distributed_optimizer"] and not given["use_megatron_fsdp"]


@pytest.mark.parametrize(("zero", "strategy"), [(2, "optim_grads"), (3, "optim_grads_params")])
def test_zero_2_and_3_are_megatron_fsdp(zero: int, strategy: str) -> None:
    given = told(plan_of(dp=4, zero=zero))
    assert given["use_megatron_fsdp"] and given["ckpt_format"] == "fsdp_dtensor"
    assert given["data_parallel_sharding_strategy"] == strategy


def test_fsdp_runs_without_the_single_connection_that_tensor_parallelism_needs() -> None:
    assert started(plan_of(dp=2, tp=2)).environment == {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    assert started(plan_of(dp=4, zero=3)).environment == {}


def test_hybrid_sharding_is_so_many_instances_of_the_optimizer() -> None:
    given = told(plan_of(dp=8, zero=1, shard=2))
    assert given["num_distributed_optimizer_instances"] == 4


def test_data_parallel_ranks_outermost_are_a_flag() -> None:
    assert not told(plan_of(pp=2, dp=2))["use_tp_pp_dp_mapping"]
    assert told(plan_of(pp=2, dp=2, order=("dp", "pp", "cp", "tp")))["use_tp_pp_dp_mapping"]


def test_even_stages_need_no_layout() -> None:
    # Eight layers, two in each of four stages; the embedding goes with the first.
    given = told(plan_of(pp=4, pipeline=Pipeline(cut=(0, 5, 9, 13))))
    assert given["pipeline_model_parallel_layout"] is None
    assert given["num_virtual_stages_per_pipeline_rank"] is None


def test_even_chunks_are_counted_by_rank() -> None:
    pipeline = Pipeline("interleaved", cut=(0, 5, 9, 13), interleave=2)
    given = told(plan_of(pp=2, pipeline=pipeline))
    assert given["num_virtual_stages_per_pipeline_rank"] == 2


def test_uneven_stages_are_a_layout() -> None:
    # Blocks: the embedding, two for each of eight layers, the head.
    given = told(plan_of(pp=2, pipeline=Pipeline(cut=(0, 11))))
    assert given["pipeline_model_parallel_layout"] == "Et*5|t*3L"


def test_an_embedding_and_a_head_alone_are_stages_too() -> None:
    given = told(plan_of(pp=4, pipeline=Pipeline(cut=(0, 1, 9, 17))))
    assert given["pipeline_model_parallel_layout"] == "E|t*4|t*4|L"


def test_a_heavy_head_leaves_its_stage_fewer_layers() -> None:
    # A head of 65,536 × 64 costs as much as some hundred layers of 33,000 numbers.
    given = told(plan_of(pp=2), model=replace(LLAMA, vocab=65_536))
    assert given["pipeline_model_parallel_layout"] == "Et*8|L"


def test_recomputation_of_some_layers_is_by_block() -> None:
    given = told(plan_of(memory=Memory("full", recompute_layers=3)))
    assert (given["recompute_granularity"], given["recompute_method"]) == ("full", "block")
    assert given["recompute_num_layers"] == 3


def test_offload_is_by_layer() -> None:
    assert told(plan_of(memory=Memory(offload=0.25)))["cpu_offloading_num_layers"] == 2


def test_optimizer_offload_is_by_share() -> None:
    given = told(plan_of(dp=2, zero=1, memory=Memory(optimizer_offload=0.5)))
    assert given["optimizer_cpu_offload"] and given["use_precision_aware_optimizer"]
    assert given["optimizer_offload_fraction"] == 0.5


@pytest.mark.parametrize(
    ("matrix", "name", "form"), [("float8", "fp8", "hybrid"), ("float4", "fp4", "e2m1")]
)
def test_low_precision_is_a_format(matrix: Any, name: str, form: str) -> None:
    given = told(plan_of(numerics=Numerics("bfloat16", matrix=matrix)))
    assert given["bf16"] and given[f"{name}_format"] == form


def test_buckets_are_counted_in_float32_gradients() -> None:
    given = told(plan_of(dp=2, communication=Communication(bucket_bytes=4_000_000)))
    assert given["ddp_bucket_size"] == 1_000_000


def test_a_window_counts_the_positions_before_and_skips_full_layers() -> None:
    model = replace(LLAMA, window=16, full_layers=(0, 4))
    given = told(plan_of(), model=model)
    assert given["window_size"] == "15,0"
    assert given["window_attn_skip_freq"] == "[0,1,1,1,0,1,1,1]"


def test_experts_have_widths_of_their_own() -> None:
    model = replace(EXPERTS, shared_ff=48, dense_layers=(0,))
    given = told(plan_of(dp=4, ep=4), model=model)
    assert (given["num_experts"], given["moe_router_topk"]) == (8, 2)
    assert (given["moe_ffn_hidden_size"], given["ffn_hidden_size"]) == (32, 128)
    assert given["moe_shared_expert_intermediate_size"] == 48
    assert given["moe_layer_freq"] == "[0,1,1,1,1,1,1,1]"


def test_latent_attention_has_five_widths() -> None:
    given = told(plan_of(), model=LATENT)
    assert given["multi_latent_attention"] and given["rope_type"] == "yarn"
    assert (given["kv_lora_rank"], given["q_lora_rank"]) == (16, None)
    assert (given["qk_head_dim"], given["qk_pos_emb_head_dim"], given["v_head_dim"]) == (8, 4, 8)


def test_gpt_2_is_told_by_what_it_lacks() -> None:
    gpt2 = replace(
        LLAMA, norm="layer", rope=None, gated=False, activation="gelu_tanh", tied=True,
        qkv_bias=True, out_bias=True, ff_bias=True,
    )  # fmt: skip
    given = told(plan_of(), model=gpt2)
    assert given["position_embedding_type"] == "learned_absolute"
    assert not given["swiglu"] and not given["disable_bias_linear"]
    assert not given["untie_embeddings_and_output_weights"]


@pytest.mark.parametrize("trainer", ["megatron", "deepspeed"])
def test_the_exact_gelu_is_noted_to_be_another(trainer: Trainer) -> None:
    model = replace(LLAMA, gated=False, activation="gelu")
    notes = emit(trainer, model=model, plan=plan_of(dp=2, zero=1)).notes
    assert "model.activation" in {note.field for note in notes}


def test_the_tokenizer_that_adds_a_token_is_told_of_one_less() -> None:
    given = told(plan_of())
    assert (given["tokenizer_type"], given["vocab_size"]) == ("NullTokenizer", 255)


MTP = replace(LLAMA, mtp_layers=2)


@pytest.mark.parametrize(
    ("plan", "model", "field"),
    [
        (plan_of(pp=2, pipeline=Pipeline("gpipe")), LLAMA, "pipeline.schedule"),
        (plan_of(pp=2, pipeline=Pipeline("zb-v")), LLAMA, "pipeline.schedule"),
        (plan_of(pipeline=Pipeline("interleaved", interleave=2)), LLAMA, "pipeline.interleave"),
        (plan_of(pp=2, dp=2, zero=3), LLAMA, "mesh.pp"),
        (plan_of(dp=4, zero=3, shard=2), LLAMA, "shard"),
        (plan_of(dp=4, zero=3, memory=Memory(regather=False)), LLAMA, "memory.regather"),
        (plan_of(tp=2, sequence=False, communication=Communication(tensor_overlap=True)), LLAMA,
         "communication.tensor_overlap"),
        (plan_of(memory=Memory("full", recompute_layers=9)), LLAMA, "memory.recompute_layers"),
        (plan_of(pp=2, memory=Memory(offload=0.5)), LLAMA, "memory.offload"),
        (plan_of(memory=Memory(offload=1.0)), LLAMA, "memory.offload"),
        (plan_of(dp=2, memory=Memory(optimizer_offload=1.0)), LLAMA, "memory.optimizer_offload"),
        (plan_of(pp=2, pipeline=Pipeline(cut=(0, 19))), MTP, "pipeline.cut"),
        (plan_of(), replace(LLAMA, rope=Rope(scaling="longrope")), "model.rope.scaling"),
        (plan_of(), replace(LLAMA, activation="gelu"), "model.activation"),
        (plan_of(), replace(LLAMA, out_bias=True), "model.out_bias"),
    ],
)  # fmt: skip
def test_what_megatron_cannot_do_is_refused(plan: Plan, model: Model, field: str) -> None:
    assert fields_refused("megatron", plan, model=model) == {field}
