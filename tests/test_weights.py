"""Weights against `transformers`, which is slow to import: all tests that need it are here."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from stretto import nn
from stretto.data.tokenizer import learn
from stretto.errors import MachineError, ModelError
from stretto.huggingface import read_config, tensor_shapes, write_config
from stretto.layout import Box
from stretto.model import Model, Parameter, Rope
from stretto.presets import preset
from stretto.runtime.generate import forward, generate
from stretto.runtime.weights import check_weights, read_box, read_weights, write_pretrained

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TINY = preset("tiny")
GPT2 = replace(
    preset("gpt2"),
    layers=2, embed=32, heads=4, kv_heads=4, head_dim=8, ff=48, vocab=320, positions=128,
)  # fmt: skip
ROPES = {
    "plain": Rope(theta=5000.0),
    "linear": Rope(scaling="linear", factor=3.0),
    "dynamic": Rope(scaling="dynamic", factor=2.0, original_positions=128),
    "dynamic-beyond": Rope(scaling="dynamic", factor=2.0, original_positions=16),
    "llama3": Rope(
        500.0, "llama3", 8.0, original_positions=32, low_freq_factor=1.0, high_freq_factor=4.0
    ),
    "yarn": Rope(scaling="yarn", factor=4.0, original_positions=32),
    "yarn-told": Rope(
        scaling="yarn", factor=4.0, original_positions=32, beta_fast=8.0, beta_slow=2.0,
        attention_factor=1.3, truncate=False,
    ),
    "yarn-mscale": Rope(
        scaling="yarn", factor=4.0, original_positions=32, mscale=0.7, mscale_all_dim=1.2
    ),
    "longrope-short": Rope(
        scaling="longrope", factor=4.0, original_positions=64,
        long_factor=(1.0, 2.0, 3.0, 4.0), short_factor=(1.0, 1.1, 1.2, 1.3),
    ),
    "longrope-long": Rope(
        scaling="longrope", factor=4.0, original_positions=32, attention_factor=1.1,
        long_factor=(1.0, 2.0, 3.0, 4.0), short_factor=(1.0, 1.1, 1.2, 1.3),
    ),
}  # fmt: skip
MODELS = {
    "gpt2": GPT2,
    "gpt2-untied": replace(GPT2, tied=False, activation="relu", norm_eps=1e-3),
    **{
        f"llama-{name}": replace(
            TINY, rope=rope, positions=16 if name == "dynamic-beyond" else 128
        )
        for name, rope in ROPES.items()
    },
    "llama-biases": replace(TINY, qkv_bias=True, out_bias=True, ff_bias=True, tied=True),
    "llama-one-key-head": replace(TINY, kv_heads=1, activation="gelu_tanh"),
    "llama-own-head-dim": replace(TINY, head_dim=12),
    "mistral": replace(TINY, family="mistral"),
    "mistral-window": replace(TINY, family="mistral", window=7),
    "qwen2": replace(TINY, family="qwen2", qkv_bias=True, norm_eps=1e-6),
    "qwen2-window": replace(
        TINY, family="qwen2", qkv_bias=True, layers=3, window=5, full_layers=(0, 2)
    ),
    "qwen3": replace(TINY, family="qwen3", qk_norm=True, head_dim=16, tied=True),
    "qwen3-window": replace(
        TINY, family="qwen3", qk_norm=True, qkv_bias=True, out_bias=True, window=9, full_layers=(1,)
    ),
}  # fmt: skip


def random_parameters(model: Model, *, seed: int = 0) -> dict[str, Tensor]:
    """Give values in which nothing is zero or one, so that nothing can hide."""
    generator = torch.Generator().manual_seed(seed)
    return {
        p.name: torch.randn(model.shape(p), generator=generator) * 0.15 + p.constant
        for p in model.parameters
    }


def reader(parameters: dict[str, Tensor]) -> Callable[[Parameter, Box], Tensor]:
    return lambda p, box: parameters[p.name][tuple(slice(*run) for run in box)]


def random_tokens(model: Model, *, length: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, model.vocab, (2, length), generator=generator)


def stretto_logits(model: Model, parameters: dict[str, Tensor], tokens: Tensor) -> Tensor:
    mask = nn.attention_input(
        model,
        positions=tokens.shape[1],
        documents_BT=None,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    with torch.no_grad():
        return forward(model, parameters, tokens, mask=mask)


def their_logits(theirs: Any, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = theirs(tokens).logits
    return logits


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_transformers_computes_the_same_logits_from_what_stretto_wrote(
    model: Model, tmp_path: Path
) -> None:
    parameters = random_parameters(model)
    path = tmp_path / "model"
    write_pretrained(path, model, reader(parameters), dtype=torch.float32, shard_bytes=40_000)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        path, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info.values()), info
    assert theirs.dtype == torch.float32
    tokens = random_tokens(model)
    ours = stretto_logits(model, parameters, tokens)
    assert (ours - their_logits(theirs.eval(), tokens)).abs().max() < 1e-5
    assert sum(p.numel() for p in theirs.parameters()) == model.parameter_count


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_stretto_computes_the_same_logits_from_what_transformers_wrote(
    model: Model, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    config = transformers.AutoConfig.for_model(**write_config(model))
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(torch.randn_like(p) * 0.15)
    theirs.eval().save_pretrained(tmp_path, max_shard_size="40kB")
    read = read_config(tmp_path)
    assert replace(read, name=model.name) == model
    parameters = read_weights(tmp_path, read, dtype=torch.float32)
    tokens = random_tokens(model)
    ours = stretto_logits(read, parameters, tokens)
    assert (ours - their_logits(theirs, tokens)).abs().max() < 1e-5


def test_transformers_and_stretto_continue_a_text_alike(tmp_path: Path) -> None:
    parameters = random_parameters(TINY)
    write_pretrained(tmp_path / "model", TINY, reader(parameters), dtype=torch.float32)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    prompt = torch.tensor([[5, 6, 7]])
    expected = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False
    )
    found = list(generate(TINY, parameters, [5, 6, 7], tokens=20, temperature=0))
    assert found == expected[0, 3:].tolist()


# Reading boxes


@pytest.fixture(scope="module", params=[GPT2, MODELS["llama-biases"]], ids=["gpt2", "llama"])
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Model, dict[str, Tensor]]:
    """Give a directory of sharded weights, the model, and its parameters."""
    model: Model = request.param
    parameters = random_parameters(model)
    path = tmp_path_factory.mktemp("stored") / "model"
    write_pretrained(path, model, reader(parameters), dtype=torch.float32, shard_bytes=20_000)
    return path, model, parameters


@given(st.data())
def test_a_box_is_that_part_of_the_parameter_and_zero_in_the_padding(
    stored: tuple[Path, Model, dict[str, Tensor]], data: st.DataObject
) -> None:
    path, model, parameters = stored
    parameter = data.draw(st.sampled_from(model.parameters))
    box: Box = tuple(
        (start, data.draw(st.integers(start + 1, size + 3)))
        for size in model.shape(parameter)
        for start in [data.draw(st.integers(0, size + 2))]
    )
    padded = torch.zeros([size + 5 for size in model.shape(parameter)])
    padded[tuple(slice(size) for size in model.shape(parameter))] = parameters[parameter.name]
    found = read_box(path, model, parameter, box)
    assert torch.equal(found, padded[tuple(slice(*run) for run in box)])


def test_no_bytes_are_read_but_those_of_the_box(
    stored: tuple[Path, Model, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model, _ = stored
    read = []

    class Slice:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getitem__(self, at: tuple[slice, ...]) -> Tensor:
            tensor: Tensor = self.inner[at]
            read.append(tensor.numel())
            return tensor

    class File:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.inner = safe_open(*arguments, **options)

        def __enter__(self) -> File:
            self.opened = self.inner.__enter__()
            return self

        def __exit__(self, *arguments: object) -> None:
            self.inner.__exit__(*arguments)

        def get_slice(self, name: str) -> Slice:
            return Slice(self.opened.get_slice(name))

    safe_open = safetensors.safe_open
    monkeypatch.setattr(safetensors, "safe_open", File)
    for parameter in model.parameters:
        box = tuple((size // 2, size) for size in model.shape(parameter))
        read.clear()
        assert sum(read_box(path, model, parameter, box).shape) > 0
        assert sum(read) == math.prod(stop - start for start, stop in box)


def test_weights_of_an_older_gpt2_read_without_the_name_of_the_base_model(tmp_path: Path) -> None:
    parameters = random_parameters(GPT2)
    write_pretrained(tmp_path / "new", GPT2, reader(parameters), dtype=torch.float32)
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    older = {name.removeprefix("transformer."): t for name, t in tensors.items()}
    older["h.0.attn.bias"] = torch.ones(1, 1, 4, 4)
    save_file(older, tmp_path / "model.safetensors")
    found = read_weights(tmp_path, GPT2, dtype=torch.float32)
    assert all(torch.equal(found[name], parameters[name]) for name in parameters)


# Checking


def rules(directory: Path, model: Model) -> dict[str, str]:
    with pytest.raises(ModelError) as caught:
        check_weights(directory, model)
    return {p.field.removeprefix(f"{directory}/"): p.rule for p in caught.value.problems}


def test_tensors_that_do_not_fit_the_model_are_all_listed(tmp_path: Path) -> None:
    write_pretrained(tmp_path / "whole", TINY, reader(random_parameters(TINY)), dtype=torch.float32)
    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.layers.0.self_attn.sinks"] = torch.zeros(4)
    tensors["lm_head.weight"] = torch.zeros(320, 31)
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(48, 32, dtype=torch.int8)
    save_file(tensors, tmp_path / "model.safetensors")
    assert rules(tmp_path, TINY) == {
        "model.norm.weight": "is missing from the weights",
        "model.layers.0.self_attn.sinks": "is no tensor of tiny",
        "lm_head.weight": "has shape (320, 31), but config.json gives it (320, 32)",
        "model.layers.1.mlp.up_proj.weight": "is stored as I8",
    }


def test_of_many_misfits_the_first_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    write_pretrained(tmp_path / "whole", TINY, reader(random_parameters(TINY)), dtype=torch.float32)
    with pytest.raises(ModelError) as caught:
        check_weights(tmp_path / "whole", replace(TINY, layers=3, embed=64))
    fields = [p.field for p in caught.value.problems]
    missing = [f for f in fields if f.startswith("model.layers.2.")]
    assert len(missing) == 9
    assert len(fields) == 9 + 10 + 1
    assert str(caught.value.problems[-1]) == "…: and 11 more like the last; see above"


def test_files_that_are_damaged_or_missing_are_all_listed(tmp_path: Path) -> None:
    path = tmp_path / "model"
    parameters = random_parameters(TINY)
    write_pretrained(path, TINY, reader(parameters), dtype=torch.float32, shard_bytes=30_000)
    shards = sorted(path.glob("*.safetensors"))
    assert len(shards) == 5
    shards[0].unlink()
    sizes = [shard.stat().st_size for shard in shards[1:]]
    os.truncate(shards[1], sizes[0] - 1)
    os.truncate(shards[2], 100)
    with shards[3].open("ab") as file:
        file.write(b"more")
    shards[4].write_bytes(b"\2\0\0\0\0\0\0\0[]")
    found = rules(path, TINY)
    assert list(found) == [shard.name for shard in shards]
    assert found[shards[0].name] == "cannot be read: No such file or directory"
    assert found[shards[1].name] == (
        f"is truncated: {sizes[0] - 1} bytes where its header says {sizes[0]}"
    )
    assert found[shards[2].name].startswith("is truncated: 100 bytes, of which the header alone")
    assert found[shards[3].name] == (
        f"is too long: {sizes[2] + 4} bytes where its header says {sizes[2]}"
    )
    assert found[shards[4].name].startswith("is no safetensors file: ")


def test_a_directory_without_weights_or_with_a_broken_index_is_named(tmp_path: Path) -> None:
    assert rules(tmp_path, TINY) == {
        "model.safetensors": "cannot be read: No such file or directory"
    }
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    (rule,) = rules(tmp_path, TINY).values()
    assert rule.startswith("is no index of weights: ")


# Writing


@pytest.mark.parametrize("shard_bytes", [1, 5_000, 40_000, 10**9])
def test_no_shard_is_larger_than_asked_unless_it_holds_one_tensor(
    shard_bytes: int, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    write_pretrained(
        path,
        TINY,
        reader(random_parameters(TINY)),
        dtype=torch.bfloat16,
        shard_bytes=shard_bytes,
    )
    files = sorted(path.glob("*.safetensors"))
    held = {file.name: load_file(file) for file in files}
    for tensors in held.values():
        size = sum(t.numel() * 2 for t in tensors.values())
        assert size <= shard_bytes or len(tensors) == 1
    assert {n: tuple(t.shape) for ts in held.values() for n, t in ts.items()} == tensor_shapes(TINY)
    if shard_bytes == 10**9:
        assert list(held) == ["model.safetensors"]
    else:
        count = len(files)
        assert list(held) == [
            f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)
        ]
        index = json.loads((path / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == 2 * TINY.parameter_count
        assert index["weight_map"] == {n: file for file, ts in held.items() for n in ts}


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(parameter: Parameter, box: Box) -> Tensor:
        if "layers.1" in parameter.name:
            raise RuntimeError("a rank died")
        return torch.zeros([stop - start for start, stop in box])

    with pytest.raises(RuntimeError, match="a rank died"):
        write_pretrained(tmp_path / "model", TINY, fail, dtype=torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match="exists already; name a new directory"):
        write_pretrained(tmp_path, TINY, reader({}), dtype=torch.float32)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_disk_that_refuses_is_a_problem_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be written: Not a directory"):
        write_pretrained(tmp_path / "file" / "model", TINY, reader({}), dtype=torch.float32)


def test_the_tokenizer_is_written_beside_the_weights_and_names_the_end_of_text(
    tmp_path: Path,
) -> None:
    trained = learn(["in the beginning was the word"] * 9, vocab_size=300)
    trained.save(tmp_path)
    parameters = random_parameters(TINY)
    path = tmp_path / "model"
    write_pretrained(
        path, TINY, reader(parameters), dtype=torch.float32, tokenizer=tmp_path / "tokenizer.json"
    )
    assert read_config(path) == replace(TINY, name="model")
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    assert theirs("the word").input_ids == trained.encode("the word")
    assert theirs.eos_token_id == trained.end_of_text
    for name in ("config.json", "generation_config.json"):
        assert json.loads((path / name).read_text())["eos_token_id"] == trained.end_of_text
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    assert model.generation_config.eos_token_id == trained.end_of_text
