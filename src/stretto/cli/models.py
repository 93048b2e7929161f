"""Which model is meant: a preset, a config.json, or a directory with one."""

from __future__ import annotations

from pathlib import Path

from stretto.errors import ModelError, Problem
from stretto.huggingface import read_config
from stretto.model import Model
from stretto.presets import PRESETS, preset

DEFAULT = "tiny"
"""The preset that is trained where none is named."""


def model_of(name: str | None) -> Model:
    """Give the model that a word on the command line names.

    Args:
        name: A preset, a config.json, or a directory with one; None for the shipped small model.

    Raises:
        ModelError: There is no such model, or what is wrong with its config.json.
    """
    if name is None:
        return preset(DEFAULT)
    path = Path(name)
    if name in PRESETS:
        return PRESETS[name]
    if path.exists():
        return read_config(path)
    if "/" in name or path.suffix:
        remedy = f"name a config.json, a directory with one, or one of {', '.join(PRESETS)}"
        raise ModelError(Problem(name, "no such file or directory", remedy))
    return preset(name)
