"""Searches for the best plan of every published configuration: ``python -m fidelity.published``.

Both plans are priced alike: the published one with the precision of gradients and master weights
that a plan of ours has. Writes published.json: for each model, cluster, batch and software the
published plan's estimate, the best one's, and how the best one is laid out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stretto.cost import estimate
from stretto.errors import StrettoError
from stretto.fidelity.hardware import cluster_of
from stretto.fidelity.rows import Row, read
from stretto.model import Latent, Model, Rope
from stretto.search import Task, line, search

HERE = Path(__file__).parent
OUT = HERE / "published.json"
TASK = (
    "layers", "hidden", "ffn", "vocab", "n_experts", "seq_len", "hardware", "n_gpus", "gbs",
    "inter_node_gbps_per_gpu", "gpus_per_node",
)  # fmt: skip
"""What a row must share with another to be of the same task."""


def model_of(row: Row) -> Model:
    """Give the model of a row as a user would bring it."""
    s, tree = row.pricing.shape, row.tree
    whole = {name: int(getattr(s, name)) for name in s.__slots__}
    predicts = whole["heads_out"] - 1
    layers = whole["layers"] - predicts
    plain = whole["layers"] - whole["expert_layers"] if whole["experts"] else 0
    latent = None
    if whole["kv_rank"]:
        latent = Latent(
            q_rank=whole["q_rank"], kv_rank=whole["kv_rank"], rope_dim=whole["rope_dim"],
            nope_dim=whole["head_dim"] - whole["rope_dim"], value_dim=whole["value_dim"],
        )  # fmt: skip
    full = tuple(range(0, layers, 2)) if whole["window"] else ()
    return Model(
        str(tree.get("model_name") or "published"),
        layers=layers,
        embed=whole["embed"],
        heads=whole["heads"],
        kv_heads=whole["heads"] if latent else whole["kv_heads"],
        head_dim=whole["head_dim"],
        ff=whole["ff"],
        vocab=whole["vocab"],
        positions=int(tree["seq_len"]),
        rope=Rope(),
        gated=whole["ups"] == 2,
        tied=bool(whole["tied"]),
        window=whole["window"],
        full_layers=full,
        experts=whole["experts"],
        top_k=whole["top_k"],
        expert_ff=whole["expert_ff"],
        shared_ff=whole["shared_ff"],
        dense_layers=tuple(range(plain)) if whole["experts"] else (),
        latent=latent,
        mtp_layers=predicts,
        family="deepseek_v3" if latent else "mixtral" if whole["experts"] else "llama",
    )


def compared(rows: tuple[Row, ...]) -> Iterator[dict[str, Any]]:
    """Give each published plan and the best, once for a model, cluster, batch and software."""
    tasks: dict[Any, dict[str, Any]] = {}
    for row in rows:
        tree = row.tree
        if row.status != "ok" or not tree.get("gbs"):
            continue
        key = (
            *(str(tree.get(name)) for name in TASK),
            row.software.stack,
            row.software.kernel,
            float(row.pricing.choice.precision),
        )
        choice = replace(
            row.pricing.choice, gradient_bytes=np.asarray(4.0), master_bytes=np.asarray(4.0)
        )
        own = estimate(replace(row.pricing, choice=choice))
        seconds = float(own.time.total_s)
        before = tasks.get(key)
        if before is None or seconds < before["published_s"]:
            tasks[key] = {"row": row, "published_s": seconds, "fits": bool(own.fits)}
    for i, found in enumerate(tasks.values()):
        row = found["row"]
        print(f"\r{i + 1}/{len(tasks)} {row.id}\033[K", end="", file=sys.stderr, flush=True)
        yield _best(row, found)
    print(file=sys.stderr)


def _best(row: Row, found: Mapping[str, Any]) -> dict[str, Any]:
    entry = {"id": row.id, "source": row.source, "published_s": found["published_s"],
             "published_fits": found["fits"]}  # fmt: skip
    matrix = ("same", "same", "float8", "float4")[int(row.pricing.choice.precision)]
    try:
        cluster, _ = cluster_of(row.tree)
        model = model_of(row)
        task = Task(
            model, cluster, sequences=int(row.tree["gbs"]), seq=int(row.tree["seq_len"]),
            matrix=matrix, stack=row.pricing.stack,
        )  # fmt: skip
        result = search(task)
    except StrettoError as error:
        return entry | {"problem": str(error)}
    if not len(result.candidates):
        return entry | {"problem": "nothing fits"}
    best = result.best
    return entry | {
        "best_s": best.step_s,
        "best": line(best.row),
        "faster": found["published_s"] / best.step_s,
        "tried": result.tried,
        "search_s": round(result.search_s, 2),
    }


def main() -> None:
    """Write published.json."""
    entries = list(compared(read(HERE / "rows.jsonl")))
    OUT.write_text("[\n" + ",\n".join(json.dumps(e) for e in entries) + "\n]\n", "utf-8")
    known = [e for e in entries if "faster" in e]
    slower = [e for e in known if e["faster"] < 0.999]
    print(
        f"{len(known)} of {len(entries)} searched; best plan slower than published: {len(slower)}"
    )
    for e in slower:
        print(f"  {e['id']}: {e['faster']:.3f} of published; {e['best']}")


if __name__ == "__main__":
    main()
