"""Configs of models that are planned and priced, but do not run here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from stretto.errors import ModelError, Problem
from stretto.huggingface import FAMILIES, RUNNABLE, read_config, sources, write_config
from stretto.model import Latent, Model
from stretto.presets import preset

# Excerpts of published files, as they are.
MIXTRAL = {
    "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32,
    "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "num_local_experts": 8, "output_router_logits": False, "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02, "sliding_window": None,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": 32000,
}  # fmt: skip
QWEN3 = {
    "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "decoder_sparse_step": 1, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
    "initializer_range": 0.02, "intermediate_size": 6144, "max_position_embeddings": 40960,
    "max_window_layers": 48, "mlp_only_layers": [], "model_type": "qwen3_moe",
    "moe_intermediate_size": 768, "norm_topk_prob": True, "num_attention_heads": 32,
    "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
    "num_key_value_heads": 4, "output_router_logits": False, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001,
    "sliding_window": None, "tie_word_embeddings": False, "use_sliding_window": False,
    "vocab_size": 151936,
}  # fmt: skip
GPT_OSS = {
    "architectures": ["GptOssForCausalLM"], "attention_bias": True, "attention_dropout": 0.0,
    "eos_token_id": 200002, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu",
    "hidden_size": 2880, "initial_context_length": 4096, "initializer_range": 0.02,
    "intermediate_size": 2880, "layer_types": ["sliding_attention", "full_attention"] * 12,
    "max_position_embeddings": 131072, "model_type": "gpt_oss", "num_attention_heads": 64,
    "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 8,
    "num_local_experts": 32, "quantization_config": {"quant_method": "mxfp4"},
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
        "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": False,
    },
    "rope_theta": 150000, "sliding_window": 128, "swiglu_limit": 7.0,
    "tie_word_embeddings": False, "vocab_size": 201088,
}  # fmt: skip
LLAMA4 = {
    "architectures": ["Llama4ForConditionalGeneration"], "image_token_index": 200092,
    "model_type": "llama4", "tie_word_embeddings": False,
    "text_config": {
        "attention_bias": False, "attention_chunk_size": 8192, "attention_dropout": 0.0,
        "for_llm_compressor": False, "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120,
        "initializer_range": 0.02, "interleave_moe_layer_step": 1, "intermediate_size": 8192,
        "intermediate_size_mlp": 16384, "max_position_embeddings": 262144,
        "model_type": "llama4_text", "no_rope_layers": [], "num_attention_heads": 40,
        "num_experts_per_tok": 1, "num_hidden_layers": 48, "num_key_value_heads": 8,
        "num_local_experts": 16, "output_router_logits": False, "rms_norm_eps": 1e-05,
        "rope_scaling": None, "rope_theta": 500000.0, "use_qk_norm": True, "vocab_size": 202048,
    },
    "vision_config": {"hidden_size": 1408, "num_hidden_layers": 34},
}  # fmt: skip
DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "ep_size": 1, "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168,
    "initializer_range": 0.02, "intermediate_size": 18432, "kv_lora_rank": 512,
    "max_position_embeddings": 163840, "model_type": "deepseek_v3", "moe_intermediate_size": 2048,
    "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1,
    "norm_topk_prob": True, "num_attention_heads": 128, "num_experts_per_tok": 8,
    "num_hidden_layers": 61, "num_key_value_heads": 128, "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "quantization_config": {"quant_method": "fp8"}, "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096, "type": "yarn",
    },
    "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
    "tie_word_embeddings": False, "topk_group": 4, "topk_method": "noaux_tc", "v_head_dim": 128,
    "vocab_size": 129280,
}  # fmt: skip
NEMOTRON = {
    "architectures": ["NemotronForCausalLM"], "attention_bias": False, "hidden_act": "relu2",
    "hidden_size": 6144, "initializer_range": 0.0134, "intermediate_size": 24576,
    "max_position_embeddings": 4096, "mlp_bias": False, "model_type": "nemotron",
    "norm_eps": 1e-05, "num_attention_heads": 48, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "partial_rotary_factor": 0.5, "rope_theta": 10000,
    "tie_word_embeddings": False, "vocab_size": 256000,
}  # fmt: skip

# A small model of each family.
_SIZES = {
    "vocab_size": 48, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
_SOME = {"num_experts_per_tok": 2, "moe_intermediate_size": 12}
SMALL: dict[str, dict[str, Any]] = {
    "mixtral": _SIZES | _SOME | {"num_local_experts": 3},
    "qwen3_moe": _SIZES | _SOME | {"num_experts": 3, "head_dim": 6, "mlp_only_layers": [1]},
    "qwen3_moe stepped": _SIZES | _SOME | {"num_experts": 3, "decoder_sparse_step": 2},
    "gpt_oss": _SIZES | _SOME | {"num_local_experts": 3, "head_dim": 6},
    "llama4_text": _SIZES | _SOME | {
        "num_local_experts": 3, "head_dim": 8, "intermediate_size_mlp": 56,
        "interleave_moe_layer_step": 2,
    },
    "deepseek_v3": _SIZES | _SOME | {
        "n_routed_experts": 6, "n_shared_experts": 2, "q_lora_rank": 14, "kv_lora_rank": 10,
        "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 7, "n_group": 2,
        "topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 4,
    },
    "deepseek_v2": _SIZES | _SOME | {
        "n_routed_experts": 6, "n_shared_experts": 1, "q_lora_rank": None, "kv_lora_rank": 10,
        "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 7,
        "first_k_dense_replace": 2, "num_key_value_heads": 4,
    },
    "nemotron": _SIZES,
    "nemotron biased": _SIZES | {"attention_bias": True, "mlp_bias": True, "head_dim": 12},
    "gemma": _SIZES | {"head_dim": 6},
    "opt": _SIZES | {"ffn_dim": 40},
}  # fmt: skip


def problems_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Give the rule for each field that is wrong, without ``config.json: ``."""
    with pytest.raises(ModelError) as caught:
        read_config(config)
    return {p.field.removeprefix("config.json: "): p.rule for p in caught.value.problems}


def small(name: str) -> dict[str, Any]:
    return {"model_type": name.split()[0]} | SMALL[name]


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (MIXTRAL, "mixtral-8x7b"),
        (QWEN3, "qwen3-30b-a3b"),
        (GPT_OSS, "gpt-oss-20b"),
        (LLAMA4, "llama-4-scout"),
        (DEEPSEEK, "deepseek-v3"),
        (NEMOTRON, "nemotron-4-15b"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_published_config_reads_as_the_preset(config: dict[str, Any], name: str) -> None:
    assert replace(read_config(config), name=name) == preset(name)


@pytest.mark.parametrize("name", SMALL)
def test_a_model_has_as_many_parameters_as_transformers_makes(name: str) -> None:
    config = transformers.AutoConfig.for_model(**small(name))
    with torch.device("meta"):
        twin = transformers.AutoModelForCausalLM.from_config(config)
    model = read_config(small(name))
    left_out = {
        "gpt_oss": model.heads * model.layers,  # sinks of attention
        "opt": 2 * model.embed,  # positions that no token uses
    }
    count = sum(p.numel() for p in twin.parameters())
    assert model.parameter_count == count - left_out.get(name, 0)


def test_the_layer_that_predicts_further_has_a_join_and_norms_besides() -> None:
    config = small("deepseek_v3")
    none, one = (read_config(config | {"num_nextn_predict_layers": n}) for n in (0, 1))
    last = {p.name: p for p in none.parameters if p.name.startswith("layers.3.")}
    layer = sum(_count(none, name) for name in last)
    embed = 32  # two norms before the join, its matrix, and the norm of the head
    assert one.parameter_count - none.parameter_count == layer + 3 * embed + 2 * embed**2


def _count(model: Model, name: str) -> int:
    shape = next(model.shape(p) for p in model.parameters if p.name == name)
    return int(torch.Size(shape).numel())


def test_deepseek_v2_lite_does_not_compress_queries() -> None:
    model = read_config(small("deepseek_v2"))
    assert model.latent == Latent(q_rank=0, kv_rank=10, nope_dim=6, rope_dim=4, value_dim=7)
    assert model.dense_layers == (0, 1)
    assert (model.expert_ff, model.shared_ff) == (12, 12)


def test_qwen_has_feed_forward_layers_where_it_is_told_and_between_steps() -> None:
    config = small("qwen3_moe") | {"decoder_sparse_step": 2, "mlp_only_layers": [3]}
    assert read_config(config).dense_layers == (0, 2, 3)


def test_llama_4_attends_to_everything_where_it_has_no_rotary_positions() -> None:
    config = small("llama4_text")
    assert read_config(config).full_layers == (3,)
    assert read_config(config | {"no_rope_layers": [1, 0, 0, 1]}).full_layers == (1, 2)
    assert read_config(config | {"moe_layers": [0]}).dense_layers == (1, 2, 3)
    everywhere = read_config(config | {"attention_chunk_size": None})
    assert (everywhere.chunk, everywhere.full_layers) == (0, ())


def test_gpt_oss_alternates_where_it_does_not_say() -> None:
    model = read_config(small("gpt_oss"))
    assert (model.window, model.full_layers) == (128, (1, 3))
    rope = model.rope
    assert rope is not None
    assert (rope.theta, rope.scaling, rope.factor) == (150_000.0, "yarn", 32.0)


def test_what_does_not_run_is_read_but_neither_written_nor_located() -> None:
    for name in SMALL:
        model = read_config(small(name))
        assert model.unsupported
        with pytest.raises(ModelError) as caught:
            write_config(model)
        assert caught.value.problems == model.unsupported
        with pytest.raises(ModelError):
            sources(model, model.parameters[0])
    families = {read_config(small(name)).family for name in SMALL}
    assert families == {"llama4" if f == "llama4_text" else f for f in FAMILIES} - set(RUNNABLE)


def test_all_that_is_wrong_with_experts_is_listed() -> None:
    assert problems_of(
        small("qwen3_moe") | {"num_experts": 1, "moe_intermediate_size": 0, "mlp_only_layers": [4]}
    ) == {
        "num_experts_per_tok": "must be at most num_experts, but 2 is above 1",
        "moe_intermediate_size": "must be a positive integer, is 0",
        "mlp_only_layers": "must list layers from 0 to 3, is [4]",
    }
    assert problems_of(
        small("deepseek_v3")
        | {"attention_bias": True, "kv_lora_rank": None, "n_shared_experts": -1,
           "qk_rope_head_dim": 3, "moe_layer_freq": 2}
    ) == {
        "attention_bias": "True is not supported",
        "moe_layer_freq": "2 is not supported",
        "kv_lora_rank": "is missing",
        "qk_rope_head_dim": "must be even for rotary positions, like qk_nope_head_dim, is 3",
        "n_shared_experts": "must be an integer of 0 or more, is -1",
    }  # fmt: skip
    assert problems_of(small("llama4_text") | {"no_rope_layers": [2]}) == {
        "no_rope_layers": "must be 0 or 1 for each of 4 layers, is [2]"
    }
    assert problems_of(small("nemotron") | {"partial_rotary_factor": 1.0}) == {
        "rope_parameters: partial_rotary_factor": "1.0 is not supported"
    }


@given(
    st.sampled_from(sorted(SMALL)),
    st.dictionaries(
        st.sampled_from(
            sorted({*MIXTRAL, *QWEN3, *GPT_OSS, *LLAMA4["text_config"], *DEEPSEEK, "moe_layers"})
        ),
        st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.lists(st.integers(-1, 5)),
    ),
)
def test_whatever_a_config_says_is_a_model_or_a_list_of_problems(
    name: str, changes: dict[str, Any]
) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        read_config(small(name) | changes | {"model_type": name.split()[0]})
    except ModelError as error:
        problems = error.problems
    assert all(p.field.startswith("config.json: ") and p.rule and p.remedy for p in problems)
