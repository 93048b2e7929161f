"""Which model is meant, and how it is trained where nobody says."""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import replace
from pathlib import Path

from stretto.cluster.names import split
from stretto.errors import ClusterError, ModelError, Problem
from stretto.huggingface import read_config
from stretto.model import Model
from stretto.plan import Batch
from stretto.presets import PRESETS, preset
from stretto.recipe import Recipe

DEFAULT = "stretto-1m"
"""The preset that is trained where none is named."""

_SHORT = Recipe(steps=1400, lr=4e-3)  # two cores take about two minutes for the shipped model
_SMALL = Batch(sequences=4, micro_batch=4, seq=256)


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
        return called(path)
    if "/" in name or path.suffix:
        remedy = f"name a config.json, a directory with one, or one of {', '.join(PRESETS)}"
        beside = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        if near := difflib.get_close_matches(path.name, beside, n=1):
            remedy = f"did you mean {path.parent / near[0]}?"
        raise ModelError(Problem(name, "no such file or directory", remedy))
    if problem := cluster_word(name):
        raise ModelError(problem)
    return preset(name)


def cluster_word(word: str) -> Problem | None:
    """Give what is wrong with a word that names a cluster where a model is meant."""
    try:
        split(word)
    except ClusterError:
        return None
    return Problem(word, "is a cluster, and no model", f"write --cluster {word}")


def called(path: Path) -> Model:
    """Give the model of a config.json, or of a directory with one, called what it is.

    That is what the file says, where it is a name and no path; else the name of a file that is not
    called config.json; else that of the directory.

    Raises:
        ModelError: What is wrong with the file.
    """
    model = read_config(path)
    file = path if path.is_file() else path / "config.json"
    name = json.loads(file.read_text(encoding="utf-8")).get("_name_or_path")
    if isinstance(name, str) and name.strip(".") and "/" not in name:
        return replace(model, name=name)
    return replace(model, name=file.stem) if file.name != "config.json" else model


def word_of(name: str, *, file: Path) -> str:
    """Give how a plan's file names a model that a word on the command line names.

    Args:
        name: As for `model_of`.
        file: Of the plan.
    """
    if name in PRESETS:
        return name
    path = os.path.relpath(Path(name).resolve(), file.parent.resolve())
    return f"./{path}" if path in PRESETS else path


def recipe_for(model: Model | None) -> Recipe:
    """Give the recipe for a model of which nobody states one; the shipped model has its own."""
    return _SHORT if model is not None and model.name == DEFAULT else Recipe()


def batch_for(model: Model | None) -> Batch:
    """Give the batch for a model of which nobody states one; the shipped model has its own."""
    if model is None or model.name == DEFAULT:
        return _SMALL
    return Batch(sequences=16, micro_batch=8, seq=min(256, model.positions))
