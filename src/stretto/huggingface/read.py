"""A config.json as a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from stretto.errors import ModelError, Problem
from stretto.huggingface import dense, experts
from stretto.huggingface.config import Config
from stretto.model import Family, Model, Runnable

_READERS: Mapping[str, tuple[Family, Callable[[Config], dict[str, Any]]]] = MappingProxyType(
    {
        "gpt2": ("gpt2", dense.gpt2),
        "llama": ("llama", dense.llama),
        "mistral": ("mistral", dense.mistral),
        "qwen2": ("qwen2", dense.qwen2),
        "qwen3": ("qwen3", dense.qwen3),
        "gemma": ("gemma", dense.gemma),
        "nemotron": ("nemotron", dense.nemotron),
        "opt": ("opt", dense.opt),
        "mixtral": ("mixtral", experts.mixtral),
        "qwen3_moe": ("qwen3_moe", experts.qwen3_moe),
        "gpt_oss": ("gpt_oss", experts.gpt_oss),
        "llama4": ("llama4", experts.llama4),
        "llama4_text": ("llama4", experts.llama4),
        "deepseek_v2": ("deepseek_v2", experts.deepseek),
        "deepseek_v3": ("deepseek_v3", experts.deepseek),
    }
)
"""For each ``model_type`` the family and what reads it."""

FAMILIES: tuple[str, ...] = tuple(_READERS)
"""Every ``model_type`` that is read."""


def read_config(source: Path | str | Mapping[str, Any]) -> Model:
    """Give the model of a ``config.json``; `Model.unsupported` says whether it runs here.

    Args:
        source: The file, a directory with one, or its contents.

    Raises:
        ModelError: All that is wrong with it.
    """
    if isinstance(source, Mapping):
        return _model(Config(source), name="")
    path = Path(source)
    path = path / "config.json" if path.is_dir() else path
    return _model(Config(_load(path)), name=path.resolve().parent.name)


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


def _model(config: Config, *, name: str) -> Model:
    """Give the model.

    Raises:
        ModelError: All problems.
    """
    said = config.values.get("model_type")
    if not isinstance(said, str) or said not in _READERS:
        rule = "is missing" if said is None else f"{said!r:.40} is not supported"
        config.reject("model_type", rule, f"choose from {', '.join(FAMILIES)}")
        raise ModelError(config.problems)
    family, reader = _READERS[said]
    name = name or str(config.values.get("_name_or_path") or family).rstrip("/").split("/")[-1]
    if family in get_args(Runnable):  # of the others no weights are read
        config.only("quantization_config", None, default=None)
    fields = reader(config)
    if config.problems:
        raise ModelError(config.problems)
    return Model(name=name, family=family, **fields)
