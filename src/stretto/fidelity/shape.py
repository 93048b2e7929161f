"""The model that a row states."""

from __future__ import annotations

import re

from stretto.cost import Shape, record
from stretto.fidelity.fields import Fields


def shape_of(f: Fields) -> Shape:
    """Give the numbers of a row's model."""
    tree, extra = f.tree, f.text("model_extra")
    hidden, layers = tree["hidden"], tree["layers"]
    heads = f.get("heads", max(1, hidden // (tree.get("head_dim") or 128)))
    experts = tree.get("n_experts") or 0
    if tree.get("arch_family") == "moe" and not experts:
        f.assumed.append("arch_family = dense, as n_experts is not stated")
    latent = "MLA" in extra
    ranks = {k: int(m[1]) for k in ("q_lora", "kv_lora", "rope", "v")
             if (m := re.search(rf"\b{k} (\d+)", extra))}  # fmt: skip
    predicts = 1 if re.search(r"MTP 1", extra) and "w/o MTP" not in f.text("model_name") else 0
    plain = int(m[1]) if (m := re.search(r"(\d+) dense layers", extra)) else 0
    window = int(m[1]) if (m := re.search(r"sliding[- ]window \((\d+)\)", extra)) else 0
    width = f.get("head_dim", max(1, hidden // heads))
    rope = ranks.get("rope", 64) if latent else 0
    ff = f.get("ffn", 4 * hidden)
    total = layers + predicts
    return record(
        Shape,
        layers=total,
        expert_layers=max(0, total - plain) if experts else 0,
        full_layers=total / 2 if window else total,
        window=window,
        embed=hidden,
        heads=heads,
        kv_heads=f.get("kv_heads", heads),
        head_dim=width + rope,
        value_dim=ranks.get("v", width) if latent else width,
        q_rank=ranks.get("q_lora", 1536) if latent else 0,
        kv_rank=ranks.get("kv_lora", 512) if latent else 0,
        rope_dim=rope,
        ff=ff,
        ups=2 if f.get("ffn_gated", False) else 1,
        vocab=f.get("vocab", 51_200),
        heads_out=1 + predicts,
        tied=bool(f.get("tied_embeddings", False)),
        positions=tree["seq_len"] if "learned position" in extra else 0,
        experts=experts,
        top_k=f.get("top_k", 1) if experts else 0,
        expert_ff=f.get("moe_ffn", ff) if experts else 0,
        shared_ff=tree.get("shared_expert_ffn") or 0,
    )
