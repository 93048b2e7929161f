from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.errors import ModelError, Problem
from stretto.huggingface import RUNNABLE, read_config, sources, tensor_shapes, write_config
from stretto.model import Model, Rope
from stretto.presets import PRESETS, preset

TINY = preset("tiny")

# Excerpts of published files, as they are.
GPT2 = {
    "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
    "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12,
    "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1, "vocab_size": 50257,
}  # fmt: skip
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536, "is_llama_config": True, "max_position_embeddings": 8192,
    "mlp_bias": False, "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30,
    "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "vocab_size": 49152,
}  # fmt: skip
LLAMA31 = {
    "attention_bias": False, "hidden_act": "silu", "hidden_size": 4096,
    "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072,
    "mlp_bias": False, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3",
    },
    "rope_theta": 500000.0, "tie_word_embeddings": False, "vocab_size": 128256,
}  # fmt: skip
MISTRAL = {
    "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
    "tie_word_embeddings": False, "vocab_size": 32000,
}  # fmt: skip
QWEN3 = {
    "attention_bias": False, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
    "initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 40960,
    "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 16,
    "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
    "tie_word_embeddings": True, "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
QWEN25 = {
    "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
    "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 21,
    "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "sliding_window": 32768, "tie_word_embeddings": True, "use_sliding_window": False,
    "vocab_size": 151936,
}  # fmt: skip


def problems_of(config: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Give the rule and the remedy for each field that is wrong, without ``config.json: ``."""
    with pytest.raises(ModelError) as caught:
        read_config(config)
    return {
        p.field.removeprefix("config.json: "): (p.rule, p.remedy) for p in caught.value.problems
    }


# Reading


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (GPT2, "gpt2"),
        (SMOLLM2, "smollm2-135m"),
        (MISTRAL, "mistral-7b"),
        (QWEN3, "qwen3-0.6b"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_published_config_reads_as_the_preset(config: dict[str, Any], name: str) -> None:
    assert replace(read_config(config), name=name) == preset(name)


def test_llama_3_1_reads_with_its_scaled_positions() -> None:
    model = read_config(LLAMA31)
    assert model.positions == 131_072
    assert model.rope == Rope(
        500_000.0, "llama3", 8.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0
    )
    assert model.parameter_count == 8_030_261_248


def test_qwen2_5_has_biases_in_query_key_and_value_only() -> None:
    model = read_config(QWEN25)
    assert (model.qkv_bias, model.out_bias, model.ff_bias, model.window) == (True, False, False, 0)
    assert model.parameter_count == 494_032_768


def test_a_model_is_called_by_its_directory_else_by_what_the_config_says(tmp_path: Path) -> None:
    directory = tmp_path / "my-model"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(GPT2))
    assert read_config(directory).name == "my-model"
    assert read_config(directory / "config.json").name == "my-model"
    assert read_config(GPT2 | {"_name_or_path": "openai/gpt2-small"}).name == "gpt2-small"
    assert read_config(GPT2).name == "gpt2"


def test_what_is_left_out_is_what_transformers_assumes() -> None:
    needed = {
        "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 30,
        "num_attention_heads": 32, "max_position_embeddings": 50,
    }  # fmt: skip
    llama = read_config(needed | {"model_type": "llama"})
    assert (llama.kv_heads, llama.head_dim, llama.norm_eps, llama.tied) == (32, 2, 1e-6, False)
    assert llama.rope == Rope(theta=10_000.0)
    mistral = read_config(needed | {"model_type": "mistral"})
    assert (mistral.kv_heads, mistral.window) == (8, 4096)
    assert read_config(needed | {"model_type": "qwen3"}).head_dim == 128
    assert read_config(
        needed | {"model_type": "qwen2", "use_sliding_window": True}
    ).full_layers == (tuple(range(28)))
    gpt2 = read_config(
        {k: v for k, v in GPT2.items() if k in ("model_type", "vocab_size") or k[1] == "_"}
    )
    assert (gpt2.ff, gpt2.tied, gpt2.activation) == (3072, True, "gelu_tanh")


@pytest.mark.parametrize(
    ("keys", "window", "full"),
    [
        ({"use_sliding_window": False, "sliding_window": 8}, 0, ()),
        ({"use_sliding_window": True, "sliding_window": None}, 0, ()),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}, 8, (0, 1)),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, 8, ()),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 9}, 0, ()),
        (
            {
                "use_sliding_window": True,
                "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
            },
            8,
            (1, 3),
        ),
    ],
)
def test_the_window_of_qwen_is_in_the_layers_that_have_it(
    keys: dict[str, Any], window: int, full: tuple[int, ...]
) -> None:
    model = read_config(QWEN25 | {"num_hidden_layers": 4} | keys)
    assert (model.window, model.full_layers) == (window, full)


SCALINGS: dict[str, tuple[dict[str, Any], Rope]] = {
    "linear": ({"factor": 2.0}, Rope(5e5, "linear", 2.0)),
    "dynamic": ({"factor": 2.0}, Rope(5e5, "dynamic", 2.0, 131_072)),
    "yarn": ({"original_max_position_embeddings": 32_768}, Rope(5e5, "yarn", 4.0, 32_768)),
    "longrope": (
        {
            "long_factor": [2.0] * 64,
            "short_factor": [1] * 64,
            "original_max_position_embeddings": 65_536,
            "attention_factor": 1.5,
        },
        Rope(
            5e5, "longrope", 2.0, 65_536, attention_factor=1.5, long_factor=(2.0,) * 64,
            short_factor=(1.0,) * 64,
        ),
    ),
    "llama3": (LLAMA31["rope_scaling"], read_config(LLAMA31).rope or Rope()),  # type: ignore[dict-item]
}  # fmt: skip


@pytest.mark.parametrize("kind", SCALINGS)
def test_old_and_new_keys_of_rotary_positions_say_the_same(kind: str) -> None:
    said, expected = SCALINGS[kind]
    rest = {k: v for k, v in LLAMA31.items() if not k.startswith("rope")}
    old = rest | {"rope_theta": 5e5, "rope_scaling": said | {"rope_type": kind}}
    older = rest | {
        "rope_theta": 5e5,
        "rope_scaling": {k: v for k, v in said.items() if k != "rope_type"} | {"type": kind},
    }
    new = rest | {"rope_parameters": said | {"rope_type": kind, "rope_theta": 5e5}}
    assert read_config(old).rope == read_config(older).rope == read_config(new).rope == expected


def test_the_original_length_beside_the_scaling_counts_more() -> None:
    config = LLAMA31 | {"original_max_position_embeddings": 4096}
    rope = read_config(config).rope
    assert rope is not None
    assert rope.original_positions == 4096


# What is wrong


def test_every_missing_size_is_listed_and_nothing_that_follows_from_it() -> None:
    sizes = (
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "max_position_embeddings",
        "intermediate_size",
        "vocab_size",
    )
    missing = ("is missing", "state it as a positive integer")
    assert problems_of({"model_type": "llama"}) == dict.fromkeys(sizes, missing)


def test_values_of_wrong_types_are_all_listed() -> None:
    found = problems_of(
        LLAMA31
        | {
            "hidden_size": "4096",
            "vocab_size": True,
            "num_hidden_layers": 0,
            "intermediate_size": 1.5,
            "rms_norm_eps": -1e-5,
            "tie_word_embeddings": "no",
            "rope_theta": "big",
        }
    )
    rules = {key: rule for key, (rule, _) in found.items()}
    assert rules == {
        "hidden_size": "must be a positive integer, is '4096'",
        "vocab_size": "must be a positive integer, is True",
        "num_hidden_layers": "must be a positive integer, is 0",
        "intermediate_size": "must be a positive integer, is 1.5",
        "rms_norm_eps": "must be a number of 0 or more, is -1e-05",
        "tie_word_embeddings": "must be true or false, is 'no'",
        "rope_scaling: rope_theta": "must be a number of 1 or more, is 'big'",
    }


def test_numbers_that_do_not_fit_each_other_are_all_listed() -> None:
    found = problems_of(LLAMA31 | {"num_attention_heads": 12, "num_key_value_heads": 5})
    assert found == {
        "num_attention_heads": (
            "must divide hidden_size, but 4096 % 12 = 4",
            "make hidden_size a multiple of num_attention_heads",
        ),
        "num_key_value_heads": (
            "must divide num_attention_heads, but 12 % 5 = 2",
            "make num_attention_heads a multiple of num_key_value_heads",
        ),
        "head_dim": ("must be even for rotary positions, is 341", "use 342"),
    }


def test_an_unknown_model_is_answered_with_those_that_are_known() -> None:
    known = (
        "choose from gpt2, llama, mistral, qwen2, qwen3, gemma, nemotron, opt, mixtral, qwen3_moe, "
        "gpt_oss, llama4, llama4_text, deepseek_v2, deepseek_v3"
    )
    assert problems_of({"model_type": "mamba"}) == {
        "model_type": ("'mamba' is not supported", known)
    }
    assert problems_of({}) == {"model_type": ("is missing", known)}


def test_variants_that_would_be_another_model_are_all_refused() -> None:
    found = problems_of(
        LLAMA31
        | {
            "hidden_act": "xielu",
            "partial_rotary_factor": 0.5,
            "quantization_config": {"bits": 4},
            "rope_scaling": {"rope_type": "proportional"},
        }
    )
    assert {key: rule for key, (rule, _) in found.items()} == {
        "hidden_act": "'xielu' is not supported",
        "quantization_config": "{'bits': 4} is not supported",
        "rope_scaling: partial_rotary_factor": "0.5 is not supported",
        "rope_scaling: rope_type": "'proportional' is not supported",
    }
    assert found["hidden_act"][1].startswith("choose from silu, swish, gelu, ")
    found = problems_of(
        GPT2
        | {
            "scale_attn_weights": False,
            "scale_attn_by_inverse_layer_idx": True,
            "add_cross_attention": True,
            "n_head": 7,
        }
    )
    assert {key: rule for key, (rule, _) in found.items()} == {
        "scale_attn_weights": "False is not supported",
        "scale_attn_by_inverse_layer_idx": "True is not supported",
        "add_cross_attention": "True is not supported",
        "n_head": "must divide n_embd, but 768 % 7 = 5",
    }


def test_wrong_scalings_of_rotary_positions_are_all_listed() -> None:
    def rules(scaling: object) -> dict[str, str]:
        return {k: r for k, (r, _) in problems_of(LLAMA31 | {"rope_scaling": scaling}).items()}

    assert rules(3) == {"rope_scaling": "must be an object, is 3"}
    assert rules({"rope_type": "linear"}) == {"rope_scaling: factor": "is missing"}
    assert rules({"rope_type": "dynamic", "factor": 0.5}) == {
        "rope_scaling: factor": "must be a number of 1 or more, is 0.5"
    }
    assert rules({"rope_type": "llama3", "factor": 8.0}) == {
        "rope_scaling: low_freq_factor": "is missing",
        "rope_scaling: high_freq_factor": "is missing",
    }
    assert rules(
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4, "high_freq_factor": 1}
    ) == {"rope_scaling: high_freq_factor": "must be above low_freq_factor, but 1 <= 4"}
    assert rules({"rope_type": "longrope", "long_factor": [1.0] * 64}) == {
        "rope_scaling: short_factor": "must list head_dim / 2 = 64 positive numbers, is None"
    }
    assert rules({"rope_type": "yarn", "truncate": 1}) == {
        "rope_scaling: truncate": "must be true or false, is 1"
    }
    assert rules({"full_attention": {}, "sliding_attention": {}}) == {
        "rope_scaling": "differs by kind of layer (full_attention, sliding_attention), "
        "which is not supported"
    }


def test_wrong_windows_are_all_listed() -> None:
    config = QWEN25 | {"num_hidden_layers": 2}
    assert problems_of(config | {"layer_types": ["full_attention"]}) == {
        "layer_types": (
            "must list the kind of each of 2 layers, is ['full_attention']",
            "write 2 of full_attention, sliding_attention",
        )
    }
    found = problems_of(config | {"layer_types": ["sliding_attention", "linear_attention"]})
    assert found["layer_types"][0] == "has sliding_attention, but there is no window"
    assert problems_of(config | {"max_window_layers": -1, "sliding_window": "wide"}) == {
        "sliding_window": ("must be a positive integer, is 'wide'", "write one"),
        "max_window_layers": ("must be a number of layers, is -1", "write one"),
    }


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, rule in (
        (tmp_path / "absent", "cannot be read: No such file or directory"),
        (tmp_path / "list.json", "is not an object but [1, 2]"),
        (tmp_path / "text.json", "is not JSON: "),
        (tmp_path / "binary.json", "is not JSON: "),
    ):
        if path.name == "list.json":
            path.write_text("[1, 2]")
        if path.name == "text.json":
            path.write_text("hello")
        if path.name == "binary.json":
            path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ModelError) as caught:
            read_config(path)
        (problem,) = caught.value.problems
        assert problem.field == str(path)
        assert problem.rule.startswith(rule)
        assert "config.json" in problem.remedy


@given(
    st.dictionaries(
        st.sampled_from(sorted({*LLAMA31, *QWEN25, *GPT2, "rope_parameters", "layer_types"})),
        st.recursive(
            st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=3),
            lambda v: (
                st.lists(v, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["rope_type", "factor", "long_factor", "type"]),
                    v | st.sampled_from(["yarn", "longrope", "llama3"]),
                )
            ),
        ),
    ),
    st.sampled_from([LLAMA31, GPT2, QWEN25, MISTRAL, QWEN3]),
)
def test_whatever_a_config_says_is_a_model_or_a_list_of_problems(
    changes: dict[str, Any], config: dict[str, Any]
) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        read_config(config | changes)
    except ModelError as error:
        problems = error.problems
    assert all(p.field.startswith("config.json: ") and p.rule and p.remedy for p in problems)


# Writing


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Draw a model that its family can express."""
    family: Any = draw(st.sampled_from(RUNNABLE))
    group, kv = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    layers, head_dim = draw(st.integers(1, 3)), draw(st.sampled_from([2, 4, 8]))
    heads, positions = group * kv, draw(st.sampled_from([16, 64]))
    tied, bias = draw(st.booleans()), draw(st.booleans())
    sizes = {"layers": layers, "vocab": draw(st.integers(2, 50)), "ff": draw(st.integers(1, 30))}
    if family == "gpt2":
        return replace(
            preset("gpt2"), **sizes, embed=heads * head_dim, heads=heads, kv_heads=heads,
            head_dim=head_dim, positions=positions, tied=tied,
        )  # fmt: skip
    windowed = family != "llama" and draw(st.booleans())
    full = draw(st.sets(st.integers(0, layers - 1), max_size=layers - 1)) if windowed else ()
    rope = draw(
        st.sampled_from(
            [
                Rope(theta=7.0),
                Rope(scaling="linear", factor=3.0),
                Rope(scaling="dynamic", factor=3.0, original_positions=positions),
                Rope(9.0, "llama3", 2.0, 8, low_freq_factor=0.5, high_freq_factor=2.0),
                Rope(scaling="yarn", factor=2.0, original_positions=8, beta_fast=9.0, mscale=0.5),
                Rope(scaling="yarn", factor=2.0, original_positions=8, truncate=False),
                Rope(
                    scaling="longrope", factor=2.0, original_positions=8, attention_factor=1.1,
                    long_factor=(2.0,) * (head_dim // 2), short_factor=(1.0,) * (head_dim // 2),
                ),
            ]
        )
    )  # fmt: skip
    biased = bias and family in ("llama", "qwen3")
    return Model(
        "drawn",
        **sizes,
        embed=heads * draw(st.integers(1, 5)),
        heads=heads,
        kv_heads=kv,
        head_dim=head_dim,
        positions=positions,
        rope=rope,
        activation=draw(st.sampled_from(["silu", "gelu", "gelu_tanh", "relu", "relu2"])),
        qkv_bias=biased or family == "qwen2",
        out_bias=biased,
        ff_bias=family == "llama" and draw(st.booleans()),
        qk_norm=family == "qwen3",
        window=5 if windowed else 0,
        full_layers=tuple(sorted(full)) if family in ("qwen2", "qwen3") else (),
        tied=tied,
        family=family,
    )


@given(models())
def test_what_is_written_reads_as_the_same_model(model: Model) -> None:
    text = json.dumps(write_config(model), allow_nan=False)
    assert replace(read_config(json.loads(text)), name=model.name) == model


def test_what_a_family_cannot_express_is_all_listed() -> None:
    with pytest.raises(ModelError) as caught:
        write_config(replace(TINY, qk_norm=True, gated=False, window=8))
    assert {p.field: p.rule for p in caught.value.problems} == {
        "gated": "False cannot be said in the config of a llama model",
        "qk_norm": "True cannot be said in the config of a llama model",
        "window": "8 cannot be said in the config of a llama model",
    }


# Where weights lie


@given(models())
def test_sources_fill_every_tensor_exactly_once(model: Model) -> None:
    shapes = tensor_shapes(model)
    filled = dict.fromkeys(shapes, 0)
    runs: dict[str, list[tuple[int, int]]] = {name: [] for name in shapes}
    for parameter in model.parameters:
        held = sources(model, parameter)
        assert [s.pair for s in held] == ([0, 1] if parameter.dims[0] == "pair" else [-1])
        for source in held:
            shape = source.shape(model.sizes)
            assert shape[:-1] == shapes[source.tensor][:-1]
            filled[source.tensor] += math.prod(shape)
            runs[source.tensor].append((source.offset, source.offset + shape[-1]))
    assert filled == {name: math.prod(shape) for name, shape in shapes.items()}
    for ends in runs.values():
        assert all(a[1] == b[0] for a, b in zip(sorted(ends), sorted(ends)[1:], strict=False))
    assert sum(filled.values()) == model.parameter_count


@pytest.mark.parametrize("name", [n for n, m in PRESETS.items() if not m.unsupported])
def test_every_preset_that_runs_can_be_written(name: str) -> None:
    assert replace(read_config(write_config(preset(name))), name=name) == preset(name)
