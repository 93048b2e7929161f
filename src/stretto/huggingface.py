"""Models in the format of Hugging Face: ``config.json`` in and out, and where weights lie.

The families are ``gpt2``, ``llama``, ``mistral``, ``qwen2`` and ``qwen3`` (``model_type``). What a
config leaves out has the value that `transformers` gives it, but for sizes, which it must state.
Dropout is not read: Stretto has none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

from stretto.errors import ModelError, Problem
from stretto.model import Dims, Model, Parameter, Rope

Family = Literal["gpt2", "llama", "mistral", "qwen2", "qwen3"]
Scaling = Literal["none", "linear", "dynamic", "yarn", "llama3", "longrope"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]
FAMILIES: tuple[Family, ...] = get_args(Family)

_CLASSES: Mapping[Family, str] = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}
_SCALINGS: Mapping[str, Scaling] = {
    "default": "none",
    "linear": "linear",
    "dynamic": "dynamic",
    "yarn": "yarn",
    "llama3": "llama3",
    "longrope": "longrope",
}


# Reading a config


def read_config(source: Path | str | Mapping[str, Any]) -> Model:
    """Give the model of a ``config.json``.

    Args:
        source: The file, a directory with one, or its contents.

    Raises:
        ModelError: All that is wrong with it.
    """
    if isinstance(source, Mapping):
        return _Config(source).model(name="")
    path = Path(source)
    path = path / "config.json" if path.is_dir() else path
    return _Config(_load(path)).model(name=path.resolve().parent.name)


def _load(path: Path) -> Mapping[str, Any]:
    """Give the object in a file."""
    remedy = "name the config.json of a Hugging Face model, or a directory with one"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        rule = f"cannot be read: {error.strerror}"
        raise ModelError(Problem(str(path), rule, remedy)) from error
    except ValueError as error:
        raise ModelError(Problem(str(path), f"is not JSON: {error}", remedy)) from error
    if not isinstance(value, dict):
        raise ModelError(Problem(str(path), f"is not an object but {value!r:.40}", remedy))
    return value


@dataclass(frozen=True, slots=True)
class _Config:
    """A config and what is wrong with it; a wrong integer reads as 0, and reading goes on.

    Attributes:
        values: What the config says.
        where: How problems call it.
        problems: What is wrong so far.
    """

    values: Mapping[str, Any]
    where: str = "config.json"
    problems: list[Problem] = field(default_factory=list)

    def reject(self, key: str, rule: str, remedy: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(f"{self.where}: {key}", rule, remedy))

    def integer(self, key: str, default: int | None = None) -> int:
        """Read a positive integer; one without a default must be there."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if value is None:
            self.reject(key, "is missing", "state it as a positive integer")
        elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.reject(key, f"must be a positive integer, is {value!r:.40}", "write one")
        else:
            return value
        return 0

    def number(self, key: str, default: float | None = None, *, least: float = 0.0) -> float:
        """Read a finite number of at least `least`; one without a default must be there."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if value is None:
            self.reject(key, "is missing", "state it as a number")
        elif not _is_number(value) or value < least:
            self.reject(
                key, f"must be a number of {least:g} or more, is {value!r:.40}", "write one"
            )
        else:
            return float(value)
        return default if default is not None else max(least, 1.0)

    def flag(self, key: str, default: bool) -> bool:
        """Read true or false."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.reject(key, f"must be true or false, is {value!r:.40}", "write one of them")
        return default

    def choice(self, key: str, choices: Mapping[str, Any], default: str) -> Any:
        """Read one of several words, as what it stands for."""
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, str) and value in choices:
            return choices[value]
        self.reject(key, f"{value!r:.40} is not supported", f"choose from {', '.join(choices)}")
        return choices[default]

    def only(self, key: str, expected: object, *, default: object) -> None:
        """Reject a key whose value would make another model than the ones here."""
        value = self.values.get(key, default)
        if value is not None and value != expected:
            rule = f"{value!r:.40} is not supported"
            self.reject(key, rule, f"only {json.dumps(expected)} is: choose another model")

    def divides(self, part: str, whole: str, sizes: tuple[int, int]) -> None:
        """Reject sizes of which one does not divide the other; 0 is rejected already."""
        if all(sizes) and sizes[1] % sizes[0]:
            rule = f"must divide {whole}, but {sizes[1]} % {sizes[0]} = {sizes[1] % sizes[0]}"
            self.reject(part, rule, f"make {whole} a multiple of {part}")

    def model(self, *, name: str) -> Model:
        """Give the model.

        Raises:
            ModelError: All problems.
        """
        family = self.values.get("model_type")
        if family not in FAMILIES:
            rule = "is missing" if family is None else f"{family!r:.40} is not supported"
            self.reject("model_type", rule, f"choose from {', '.join(FAMILIES)}")
            raise ModelError(self.problems)
        self.only("quantization_config", None, default=None)
        name = name or str(self.values.get("_name_or_path") or family).rstrip("/").split("/")[-1]
        parts = _gpt2(self) if family == "gpt2" else _llama(self, family)
        if self.problems:
            raise ModelError(self.problems)
        return Model(name=name, family=family, **parts)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _gpt2(config: _Config) -> dict[str, Any]:
    """Read what is particular to GPT-2 (Radford et al., 2019)."""
    embed, heads = config.integer("n_embd"), config.integer("n_head")
    config.divides("n_head", "n_embd", (heads, embed))
    config.only("scale_attn_weights", True, default=True)
    config.only("scale_attn_by_inverse_layer_idx", False, default=False)
    config.only("add_cross_attention", False, default=False)
    return {
        "layers": config.integer("n_layer"),
        "embed": embed,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": embed // (heads or 1),
        "ff": config.integer("n_inner", 4 * embed),
        "vocab": config.integer("vocab_size"),
        "positions": config.integer("n_positions"),
        "norm": "layer",
        "norm_eps": config.number("layer_norm_epsilon", 1e-5),
        "rope": None,
        "activation": config.choice("activation_function", _ACTIVATIONS, "gelu_new"),
        "gated": False,
        "qkv_bias": True,
        "out_bias": True,
        "ff_bias": True,
        "tied": config.flag("tie_word_embeddings", True),
        "init_std": config.number("initializer_range", 0.02),
    }


def _llama(config: _Config, family: Family) -> dict[str, Any]:
    """Read what Llama (Touvron et al., 2023) and its kin have in common."""
    layers, embed = config.integer("num_hidden_layers"), config.integer("hidden_size")
    heads = config.integer("num_attention_heads")
    shared = {"mistral": 8, "qwen2": 32, "qwen3": 32}  # where it is left out; null means all
    told = "num_key_value_heads" in config.values
    kv_heads = config.integer("num_key_value_heads", heads if told else shared.get(family, heads))
    config.divides("num_key_value_heads", "num_attention_heads", (kv_heads, heads))
    implied = 128 if family == "qwen3" else embed // (heads or 1)
    head_dim = config.integer("head_dim", implied)
    if family == "llama" or (config.values.get("head_dim") is None and family != "qwen3"):
        config.divides("num_attention_heads", "hidden_size", (heads, embed))
    if head_dim % 2:
        rule = f"must be even for rotary positions, is {head_dim}"
        config.reject("head_dim", rule, f"use {head_dim + 1}")
    biases = {"qwen2": True, "mistral": False}
    bias = biases[family] if family in biases else config.flag("attention_bias", False)
    window, full_layers = _window(config, family, layers)
    positions = config.integer("max_position_embeddings")
    return {
        "layers": layers,
        "embed": embed,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "ff": config.integer("intermediate_size"),
        "vocab": config.integer("vocab_size"),
        "positions": positions,
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        "rope": _rope(config, positions=positions, head_dim=head_dim),
        "activation": config.choice("hidden_act", _ACTIVATIONS, "silu"),
        "qkv_bias": bias,
        "out_bias": bias and family != "qwen2",
        "ff_bias": family == "llama" and config.flag("mlp_bias", False),
        "qk_norm": family == "qwen3",
        "window": window,
        "full_layers": full_layers,
        "tied": config.flag("tie_word_embeddings", False),
        "init_std": config.number("initializer_range", 0.02),
    }


def _window(config: _Config, family: Family, layers: int) -> tuple[int, tuple[int, ...]]:
    """Read the sliding window, and the layers that have none."""
    if family == "llama":
        return 0, ()
    told = "sliding_window" in config.values
    window = 0
    if not told or config.values["sliding_window"] is not None:
        window = config.integer("sliding_window", 4096)
    if family == "mistral":
        return window, ()
    if not config.flag("use_sliding_window", False):
        window = 0
    kinds = config.values.get("layer_types")
    if kinds is None:
        first = config.values.get("max_window_layers", 28)
        if not isinstance(first, int) or isinstance(first, bool) or first < 0:
            rule = f"must be a number of layers, is {first!r:.40}"
            config.reject("max_window_layers", rule, "write one")
            first = 0
        full = tuple(range(min(first, layers)))
    else:
        full = _full_layers(config, kinds, layers, window)
    return (window, full) if window and len(full) < layers else (0, ())


def _full_layers(config: _Config, kinds: object, layers: int, window: int) -> tuple[int, ...]:
    known = ("full_attention", "sliding_attention")
    if not layers:
        return ()
    if not isinstance(kinds, Sequence) or isinstance(kinds, str) or len(kinds) != layers:
        rule = f"must list the kind of each of {layers} layers, is {kinds!r:.60}"
        config.reject("layer_types", rule, f"write {layers} of {', '.join(known)}")
        return ()
    strange = sorted({repr(k) for k in kinds if k not in known})
    if strange:
        rule = f"{', '.join(strange)} is not supported"
        config.reject("layer_types", rule, f"choose from {', '.join(known)}")
    if "sliding_attention" in kinds and not window:
        rule = "has sliding_attention, but there is no window"
        config.reject("layer_types", rule, "set use_sliding_window and sliding_window")
    return tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")


def _rope_keys_of(config: _Config) -> _Config:
    """Give what a config says of rotary positions: ``rope_scaling`` or ``rope_parameters``."""
    key = "rope_scaling" if config.values.get("rope_scaling") else "rope_parameters"
    told = config.values.get(key)
    if told is not None and not isinstance(told, Mapping):
        config.reject(key, f"must be an object, is {told!r:.40}", "write one, or leave it out")
        told = None
    values = dict(told or {})
    nested = [k for k, v in values.items() if isinstance(v, Mapping)]
    if nested:
        rule = f"differs by kind of layer ({', '.join(nested)}), which is not supported"
        config.reject(key, rule, "choose a model with one set of rotary positions")
    values.setdefault("rope_type", values.get("type"))
    for outer in ("rope_theta", "partial_rotary_factor"):
        values.setdefault(outer, config.values.get(outer))
    original = "original_max_position_embeddings"
    if config.values.get(original) is not None:
        values[original] = config.values[original]
    return _Config(values, f"{config.where}: {key}", config.problems)


def _rope(config: _Config, *, positions: int, head_dim: int) -> Rope:
    """Read rotary positions and their scaling."""
    rope = _rope_keys_of(config)
    rope.only("partial_rotary_factor", 1.0, default=1.0)
    scaling: Scaling = rope.choice("rope_type", _SCALINGS, "default")
    theta = rope.number("rope_theta", 10_000.0, least=1.0)
    match scaling:
        case "none":
            return Rope(theta)
        case "linear":
            return Rope(theta, "linear", rope.number("factor", least=1.0))
        case "dynamic":
            return Rope(theta, "dynamic", rope.number("factor", least=1.0), positions)
        case "llama3":
            return _llama3(rope, theta, positions=positions)
        case "yarn":
            return _yarn(rope, theta, positions=positions)
        case "longrope":
            return _longrope(rope, theta, positions=positions, head_dim=head_dim)


def _llama3(config: _Config, theta: float, *, positions: int) -> Rope:
    before = len(config.problems)
    low, high = config.number("low_freq_factor"), config.number("high_freq_factor")
    if high <= low and len(config.problems) == before:
        rule = f"must be above low_freq_factor, but {high:g} <= {low:g}"
        config.reject("high_freq_factor", rule, "raise it")
    return Rope(
        theta,
        "llama3",
        config.number("factor", least=1.0),
        config.integer("original_max_position_embeddings", positions),
        low_freq_factor=low,
        high_freq_factor=high,
    )


def _yarn(config: _Config, theta: float, *, positions: int) -> Rope:
    original = config.integer("original_max_position_embeddings", positions)
    fixed = config.values.get("attention_factor") is not None
    return Rope(
        theta,
        "yarn",
        config.number("factor", positions / (original or 1), least=1.0),
        original,
        beta_fast=config.number("beta_fast", 32.0) or 32.0,
        beta_slow=config.number("beta_slow", 1.0) or 1.0,
        attention_factor=config.number("attention_factor", 1.0) if fixed else None,
        mscale=config.number("mscale", 0.0),
        mscale_all_dim=config.number("mscale_all_dim", 0.0),
        truncate=config.flag("truncate", True),
    )


def _longrope(config: _Config, theta: float, *, positions: int, head_dim: int) -> Rope:
    original = config.integer("original_max_position_embeddings", positions)
    fixed = config.values.get("attention_factor") is not None
    factors = []
    for key in ("long_factor", "short_factor"):
        value = config.values.get(key)
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        numbers = tuple(value) if listed and value is not None else ()
        positive = all(_is_number(n) and n > 0 for n in numbers)
        if head_dim and (len(numbers) != head_dim // 2 or not positive):
            rule = f"must list head_dim / 2 = {head_dim // 2} positive numbers, is {value!r:.60}"
            config.reject(key, rule, "write one for each frequency")
            numbers = (1.0,) * (head_dim // 2)
        factors.append(tuple(float(n) for n in numbers))
    return Rope(
        theta,
        "longrope",
        config.number("factor", positions / (original or 1), least=1.0),
        original,
        attention_factor=config.number("attention_factor", 1.0) if fixed else None,
        long_factor=factors[0],
        short_factor=factors[1],
    )


# Writing a config


def write_config(model: Model) -> dict[str, Any]:
    """Give the contents of a ``config.json`` from which `transformers` builds the model.

    Rotary positions are stated as ``rope_theta`` and ``rope_scaling``, which all its versions read.

    Raises:
        ModelError: What the family of the model cannot express.
    """
    config = {
        "architectures": [_CLASSES[model.family]],
        "model_type": model.family,
        "vocab_size": model.vocab,
        "initializer_range": model.init_std,
        "tie_word_embeddings": model.tied,
        "bos_token_id": None,
        "eos_token_id": None,
        **(_gpt2_keys(model) if model.family == "gpt2" else _llama_keys(model)),
    }
    problems = []
    try:
        again = replace(read_config(config), name=model.name)
    except ModelError as error:
        raise ModelError(error.problems) from None
    for part in fields(Model):
        wanted, found = getattr(model, part.name), getattr(again, part.name)
        if wanted != found:
            rule = f"{wanted} cannot be said in the config of a {model.family} model"
            problems.append(Problem(part.name, rule, f"use {found}, or another family"))
    if problems:
        raise ModelError(problems)
    return config


def _hf_activation(model: Model) -> str:
    return "gelu_new" if model.activation == "gelu_tanh" else model.activation


def _gpt2_keys(model: Model) -> dict[str, Any]:
    return {
        "n_layer": model.layers,
        "n_embd": model.embed,
        "n_head": model.heads,
        "n_inner": model.ff,
        "n_positions": model.positions,
        "layer_norm_epsilon": model.norm_eps,
        "activation_function": _hf_activation(model),
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def _llama_keys(model: Model) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "num_hidden_layers": model.layers,
        "hidden_size": model.embed,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "intermediate_size": model.ff,
        "max_position_embeddings": model.positions,
        "rms_norm_eps": model.norm_eps,
        "hidden_act": _hf_activation(model),
        **(_rope_keys(model.rope) if model.rope else {}),
    }
    if model.family in ("llama", "qwen3"):
        keys["attention_bias"] = model.qkv_bias
    if model.family == "llama":
        keys["mlp_bias"] = model.ff_bias
    if model.family in ("mistral", "qwen2", "qwen3"):
        keys["sliding_window"] = model.window or None
    if model.family in ("qwen2", "qwen3"):
        keys["use_sliding_window"] = model.window > 0
        keys["layer_types"] = [
            "sliding_attention" if model.window and i not in model.full_layers else "full_attention"
            for i in range(model.layers)
        ]
    return keys


def _rope_keys(rope: Rope) -> dict[str, Any]:
    scaling: dict[str, Any] = {"rope_type": rope.scaling, "factor": rope.factor}
    if rope.scaling in ("llama3", "yarn", "longrope"):
        scaling["original_max_position_embeddings"] = rope.original_positions
    if rope.scaling in ("yarn", "longrope") and rope.attention_factor is not None:
        scaling["attention_factor"] = rope.attention_factor
    own: Mapping[str, tuple[str, ...]] = {
        "llama3": ("low_freq_factor", "high_freq_factor"),
        "yarn": ("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
        "longrope": ("long_factor", "short_factor"),
    }
    for key in own.get(rope.scaling, ()):
        value = getattr(rope, key)
        if value != 0 or key == "truncate":
            scaling[key] = list(value) if isinstance(value, tuple) else value
    return {
        "rope_theta": rope.theta,
        "rope_scaling": None if rope.scaling == "none" else scaling,
    }


# Where weights lie


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of Hugging Face that holds a parameter or, of one with a ``pair``, one of the two.

    Attributes:
        tensor: Its name.
        axes: For each dimension of the tensor, the logical dimensions that it flattens, the
            outermost first: query head h of Hugging Face is query head h % group of key head
            h // group.
        pair: Which of the two it holds; -1 for a parameter without a ``pair``.
        offset: Where the parameter begins in the last dimension of the tensor.
    """

    tensor: str
    axes: tuple[Dims, ...]
    pair: int = -1
    offset: int = 0

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Give the shape of the part that it holds, by the sizes of logical dimensions."""
        return tuple(math.prod(sizes[d] for d in dims) for dims in self.axes)


# For each parameter, tensors and in which third of them it begins (of GPT-2's fused projection).
_Places = Mapping[str, tuple[tuple[str, int], ...]]

_OF_LLAMA: _Places = {
    "embedding.token": (("model.embed_tokens.weight", 0),),
    "attention.norm.weight": (("input_layernorm.weight", 0),),
    "attention.query": (("self_attn.q_proj.weight", 0),),
    "attention.query_bias": (("self_attn.q_proj.bias", 0),),
    "attention.query_norm": (("self_attn.q_norm.weight", 0),),
    "attention.key_value": (("self_attn.k_proj.weight", 0), ("self_attn.v_proj.weight", 0)),
    "attention.key_value_bias": (("self_attn.k_proj.bias", 0), ("self_attn.v_proj.bias", 0)),
    "attention.key_norm": (("self_attn.k_norm.weight", 0),),
    "attention.out": (("self_attn.o_proj.weight", 0),),
    "attention.out_bias": (("self_attn.o_proj.bias", 0),),
    "feed_forward.norm.weight": (("post_attention_layernorm.weight", 0),),
    "feed_forward.up": (("mlp.gate_proj.weight", 0), ("mlp.up_proj.weight", 0)),
    "feed_forward.up_bias": (("mlp.gate_proj.bias", 0), ("mlp.up_proj.bias", 0)),
    "feed_forward.down": (("mlp.down_proj.weight", 0),),
    "feed_forward.down_bias": (("mlp.down_proj.bias", 0),),
    "head.norm.weight": (("model.norm.weight", 0),),
    "head.weight": (("lm_head.weight", 0),),
}
_OF_GPT2: _Places = {
    "embedding.token": (("transformer.wte.weight", 0),),
    "embedding.position": (("transformer.wpe.weight", 0),),
    "attention.norm.weight": (("ln_1.weight", 0),),
    "attention.norm.bias": (("ln_1.bias", 0),),
    "attention.query": (("attn.c_attn.weight", 0),),
    "attention.query_bias": (("attn.c_attn.bias", 0),),
    "attention.key_value": (("attn.c_attn.weight", 1), ("attn.c_attn.weight", 2)),
    "attention.key_value_bias": (("attn.c_attn.bias", 1), ("attn.c_attn.bias", 2)),
    "attention.out": (("attn.c_proj.weight", 0),),
    "attention.out_bias": (("attn.c_proj.bias", 0),),
    "feed_forward.norm.weight": (("ln_2.weight", 0),),
    "feed_forward.norm.bias": (("ln_2.bias", 0),),
    "feed_forward.up": (("mlp.c_fc.weight", 0),),
    "feed_forward.up_bias": (("mlp.c_fc.bias", 0),),
    "feed_forward.down": (("mlp.c_proj.weight", 0),),
    "feed_forward.down_bias": (("mlp.c_proj.bias", 0),),
    "head.norm.weight": (("transformer.ln_f.weight", 0),),
    "head.norm.bias": (("transformer.ln_f.bias", 0),),
    "head.weight": (("lm_head.weight", 0),),
}


def sources(model: Model, parameter: Parameter) -> tuple[Source, ...]:
    """Give the tensors that hold a parameter: one, or one for each of a ``pair``."""
    gpt2 = model.family == "gpt2"
    name, prefix = parameter.name, ""
    if name.startswith("layers."):
        _, layer, name = name.split(".", 2)
        prefix = f"transformer.h.{layer}." if gpt2 else f"model.layers.{layer}."
    paired = parameter.dims[0] == "pair"
    dims = parameter.dims[1:] if paired else parameter.dims
    axes = tuple(tuple(group) for _, group in groupby(dims, lambda d: d == "embed"))
    if gpt2 and prefix and len(axes) == 2:  # GPT-2 stores (in, out)
        axes = axes[::-1]
    third = model.heads * model.head_dim
    return tuple(
        Source(prefix + tensor, axes, index if paired else -1, nth * third)
        for index, (tensor, nth) in enumerate((_OF_GPT2 if gpt2 else _OF_LLAMA)[name])
    )


def tensor_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Give the name and shape of every tensor that `transformers` has for the model, in order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for parameter in model.parameters:
        for source in sources(model, parameter):
            shape = source.shape(model.sizes)
            end = max(source.offset + shape[-1], shapes.get(source.tensor, (0,))[-1])
            shapes[source.tensor] = (*shape[:-1], end)
    return shapes
