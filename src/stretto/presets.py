"""Models by name: small ones of our own, and published ones with the numbers of their sources."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stretto.errors import ModelError, Problem
from stretto.model import Latent, Model, Rope

FILE = Path(__file__).with_name("presets.toml")
"""Where they stand, each with its source."""


def _models() -> Iterator[Model]:
    groups = tomllib.loads(FILE.read_text(encoding="utf-8"))
    for group in groups.values():
        inherited = groups[group["like"]]["shared"] if "like" in group else {}
        for name, own in group["models"].items():
            yield _model(name, {**inherited, **group.get("shared", {}), **own})


def _model(name: str, stated: Mapping[str, Any]) -> Model:
    """Give the model of a table; what it leaves out follows from heads and width."""
    embed, heads = stated["embed"], stated["heads"]
    implied = {"kv_heads": heads, "head_dim": embed // heads, "ff": 4 * embed}
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in (implied | dict(stated)).items()
    }
    if "rope" in values:
        values["rope"] = Rope(**values["rope"]) if values["rope"] else None
    if "latent" in values:
        values["latent"] = Latent(**values["latent"])
    return Model(name, **values)


PRESETS: Mapping[str, Model] = MappingProxyType({model.name: model for model in _models()})
"""Every preset by its name, the smallest of each kind first."""


def preset(name: str) -> Model:
    """Give a model by name.

    Raises:
        ModelError: No preset has that name.
    """
    if name in PRESETS:
        return PRESETS[name]
    close = difflib.get_close_matches(name, PRESETS, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"choose from {', '.join(PRESETS)}"
    raise ModelError(Problem("model", f"there is no preset {name!r}", remedy))


def name_of(model: Model) -> str:
    """Give the name of the preset that a model is; empty if it is none."""
    return model.name if PRESETS.get(model.name) == model else ""
