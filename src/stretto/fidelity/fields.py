"""The fields of a row: cleaned, and with defaults that are remembered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stretto.errors import InputError, Problem

WHOLE = (
    "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "seq_len", "n_experts",
    "top_k", "moe_ffn", "shared_expert_ffn", "n_gpus", "gpus_per_node", "tp", "pp", "vpp", "cp",
    "ep", "etp", "dp", "year",
)  # fmt: skip
"""Keys whose values are whole numbers of 1 or more; 0 means that there is none."""

NUMBER = (
    "mbs", "gbs", "grad_accum", "accel_mem_gb", "inter_node_gbps_per_gpu", "step_time_s",
    "tokens_per_s", "tokens_per_s_per_gpu", "samples_per_s", "samples_per_s_per_gpu",
    "tflops_per_gpu", "mfu", "hfu", "peak_mem_gb", "peak_tflops_assumed",
)  # fmt: skip
"""Keys whose values are numbers above 0."""

TEXT = (
    "id", "source_key", "group", "config_key", "status", "measurement_kind", "flops_def",
    "attn_flops", "framework", "software_version", "attention_kernel", "model_name", "model_extra",
    "arch_family", "hardware", "intra_node_interconnect", "dp_sharding", "schedule", "recompute",
    "precision", "mem_kind",
)  # fmt: skip
"""Keys whose values are text; a number or a truth is written out."""

TABLES = ("config_extra", "derived")

NEEDED = ("layers", "hidden", "seq_len", "hardware", "n_gpus")
"""Keys without which nothing can be predicted."""


class Fields:
    """The fields of a row, and what was assumed where it is silent."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        """Clean a row.

        Args:
            tree: The row as it was read.

        Raises:
            InputError: What it must state and does not.
        """
        self.assumed: list[str] = []
        self.tree = self._cleaned(tree)
        problems = [
            Problem(name, f"is {tree.get(name)!r}", "a row must state it")
            for name in NEEDED
            if not self.tree.get(name)
        ]
        if problems:
            raise InputError(problems)

    def get(self, name: str, default: Any) -> Any:
        """Give a field; a default where the row does not state it."""
        value = self.tree.get(name)
        if value is None:
            self.assumed.append(f"{name} = {default}")
            return default
        return value

    def text(self, name: str) -> str:
        """Give a field as text; none where the row does not state it."""
        return str(self.tree.get(name) or "")

    def extra(self, name: str) -> Any:
        """Give a field of the row's ``config_extra``."""
        return (self.tree.get("config_extra") or {}).get(name)

    def _cleaned(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """Give a row whose fields are of their kinds; others are left out, and that is noted."""
        made = dict(tree)
        for names, kind, convert in (
            (WHOLE, "whole number above 0", _whole),
            (NUMBER, "number above 0", _number),
            (TEXT, "text", _text),
        ):
            for name in names:
                value = tree.get(name)
                made[name] = convert(value)
                if made[name] is None and value not in (None, 0):
                    self.assumed.append(f"{name} left out: {value!r} is no {kind}")
        for name in TABLES:
            if not isinstance(made.get(name), Mapping):
                made[name] = {}
        rate = "tokens_per_s_per_gpu"
        stated = made["derived"].get(rate)
        made["derived"] = {**made["derived"], rate: _number(stated)}
        if made["derived"][rate] is None and stated not in (None, 0):
            self.assumed.append(f"derived.{rate} left out: {stated!r} is no number above 0")
        for name in ("mfu", "hfu"):
            if made[name] and made[name] > 1:
                self.assumed.append(f"{name} = {made[name]:g} %")
                made[name] /= 100
        return made


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, (list, dict)) else str(value)


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) else None


def _number(value: Any) -> float | None:
    """Give a number above 0 as it is; None for what is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if 0 < value < 1e15 else None
