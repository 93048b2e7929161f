"""Rotary positions in a config.json, in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from stretto.huggingface.config import Config, is_number
from stretto.model import Rope

Scaling = Literal["none", "linear", "dynamic", "yarn", "llama3", "longrope"]

_SCALINGS: Mapping[str, Scaling] = {
    "default": "none",
    "linear": "linear",
    "dynamic": "dynamic",
    "yarn": "yarn",
    "llama3": "llama3",
    "longrope": "longrope",
}


def _told(config: Config) -> Config:
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
    return Config(values, f"{config.where}: {key}", config.problems)


def read_rope(
    config: Config, *, positions: int, head_dim: int, theta: float = 10_000.0, part: float = 1.0
) -> Rope:
    """Read rotary positions and their scaling.

    Args:
        config: Where they stand.
        positions: The longest sequence.
        head_dim: Width of a head.
        theta: Base of the frequencies where it is left out.
        part: The part of a head that must be rotated.
    """
    rope = _told(config)
    rope.only("partial_rotary_factor", part, default=part)
    scaling: Scaling = rope.choice("rope_type", _SCALINGS, "default")
    theta = rope.number("rope_theta", theta, least=1.0)
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


def _llama3(config: Config, theta: float, *, positions: int) -> Rope:
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


def _yarn(config: Config, theta: float, *, positions: int) -> Rope:
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


def _longrope(config: Config, theta: float, *, positions: int, head_dim: int) -> Rope:
    original = config.integer("original_max_position_embeddings", positions)
    fixed = config.values.get("attention_factor") is not None
    factors = []
    for key in ("long_factor", "short_factor"):
        value = config.values.get(key)
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        numbers = tuple(value) if listed and value is not None else ()
        positive = all(is_number(n) and n > 0 for n in numbers)
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


def rope_keys(rope: Rope) -> dict[str, Any]:
    """Give the keys that say rotary positions, as all versions of `transformers` read them."""
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
