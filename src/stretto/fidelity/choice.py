"""The plan that a row states."""

from __future__ import annotations

import re
from typing import Any

from stretto.cost import PRECISIONS, SCHEDULES, Choice, record
from stretto.errors import InputError, Problem
from stretto.fidelity.fields import Fields
from stretto.fidelity.software import Software
from stretto.plan import ScheduleName


def choice_of(f: Fields, software: Software) -> Choice:
    """Give the numbers of a row's plan.

    Args:
        f: The row.
        software: Which says what the plan has where the row is silent.

    Raises:
        InputError: It takes more devices than there are.
    """
    tree = f.tree
    tp, pp, cp = (f.get(name, 1) for name in ("tp", "pp", "cp"))
    dp = _replicas(f, tp * pp * cp)
    interleave = _interleave(f, software, pp)
    schedule = _schedule(f.text("schedule"), interleave)
    micro, count = _batch(f, dp=dp, pp=pp)
    zero, shard = _sharding(f, dp=dp, cp=cp)
    if zero == 2 and pp > 1:
        zero = 1
        f.assumed.append("gradients are reduced once in a step, as pipelines do")
    core, matrix, pointwise = _recompute(f, software)
    sequence = tree.get("sequence_parallel")
    if sequence is None:
        sequence = tp > 1 and f.get("sequence_parallel", software.sequence)
    overlap = tree.get("tp_comm_overlap")
    if overlap is None:
        overlap = f.extra("async_tp")
    if overlap is None:
        overlap = tp > 1 and f.get("tp_comm_overlap", software.tensor_overlap)
    ep = tree.get("ep") or 1
    return record(
        Choice,
        pp=pp,
        interleave=2 if schedule == "zb-v" else interleave,
        dp=dp,
        cp=cp,
        tp=tp,
        ep=ep,
        etp=tree.get("etp") or (1 if ep > 1 else tp),
        pp_stride=dp * cp * tp,
        dp_stride=cp * tp,
        cp_stride=tp,
        tp_stride=1,
        micro_batch=micro,
        micro_batches=count,
        seq=tree["seq_len"],
        zero=zero,
        shard=shard,
        regather="shard_grad_op" not in f.text("dp_sharding") and (pp == 1 or software.regather),
        sequence=bool(sequence),
        schedule=SCHEDULES.index(schedule),
        again_core=core,
        again_matrix=matrix,
        again_pointwise=pointwise,
        precision=PRECISIONS.index(_precision(f)),
        value_bytes=2,
        master_bytes=software.master_bytes,
        gradient_bytes=software.gradient_bytes,
        tensor_overlap=bool(overlap),
        offload=_share(tree.get("activation_offload")),
        optimizer_offload=0,
        codec=1,
        two_level=False,
    )


def _interleave(f: Fields, software: Software, pp: int) -> int:
    """Give the stages of a pipeline rank."""
    stated = f.tree.get("vpp")
    if stated is not None or pp == 1:
        return int(stated or 1)
    text = f.text("schedule").lower()
    if software.interleaves and (not text or "interleaved" in text):
        # Who can interleave does, down to about two layers a stage (Narayanan et al., 2021).
        usual = max(1, round(f.tree["layers"] / pp / 2))
    else:
        # PyTorch's interleaved schedule has two stages a rank unless told otherwise.
        usual = 2 if "interleaved" in text else 1
    return int(f.get("vpp", usual))


def _replicas(f: Fields, inner: int) -> int:
    """Give the data-parallel replicas: what `inner` devices of each leave of all."""
    devices, stated = f.tree["n_gpus"], f.tree.get("dp")
    if inner > devices:
        rule = f"tp × pp × cp is {inner}, but n_gpus is {devices}"
        raise InputError(Problem("n_gpus", rule, f"state {inner} or more"))
    left = int(devices // inner)
    if stated is None:
        f.assumed.append(f"dp = {left}")
        return left
    if stated * inner != devices and left * inner == devices:
        f.assumed.append(f"dp = {left}, not {stated}: n_gpus is {devices}")
        return left
    return int(stated)


def _batch(f: Fields, *, dp: int, pp: int) -> tuple[float, float]:
    """Give sequences of a micro-batch and micro-batches of a replica."""
    tree = f.tree
    total, micro = tree.get("gbs"), tree.get("mbs")
    local = f.extra("local_batch_size")
    if micro is None and local and pp > 1:
        # A pipeline that is given a local batch cuts it into as many micro-batches as ranks.
        f.assumed.append(f"mbs = {local / pp:g}: local_batch_size over pp")
        return local / pp, pp
    if micro is None:
        micro = f.get("mbs", 1)
    if total is None:
        return micro, f.get("grad_accum", 4 * pp if pp > 1 else 1)
    if total < dp * micro:
        f.assumed.append(f"mbs = {total / dp:g}, as gbs is {total:g} for {dp} replicas")
        return total / dp, 1.0
    return micro, total / (dp * micro)


def _sharding(f: Fields, *, dp: int, cp: int) -> tuple[int, int]:
    """Give ZeRO's stage and the ranks that cut a tensor."""
    text = f.text("dp_sharding").lower()
    if not text:
        text = f.get("dp_sharding", "zero1")
    match = re.search(r"zero\D{0,9}(\d)", text)
    if match:
        zero = min(int(match[1]), 3)
    elif re.search("fsdp|hsdp|shard_grad_op|full_shard", text):
        zero = 3
    else:
        zero = 1 if "distributed" in text and "optimizer" in text else 0
    group = re.search(r"groups of (\d+)", text)
    ranks = dp * cp
    return zero, min(int(group[1]), ranks) if group else ranks


def _recompute(f: Fields, software: Software) -> tuple[float, float, float]:
    """Give the shares of scores, products and all else that are run again."""
    text = str(f.get("recompute", software.recompute)).lower()
    if text.startswith("full") or text in ("true", "yes", "on"):
        return 1.0, 1.0, 1.0
    if "every other" in text:
        return 0.5, 0.5, 0.5
    if "per-op" in text or (text == "selective" and software.stack.startswith("torchtitan")):
        return 0.0, 0.5, 1.0  # every second product and all attention is kept
    if text == "selective" or (
        text.startswith("selective") and ("attention" in text or "core" in text)
    ):
        return 1.0, 0.0, 0.0
    return 0.0, 0.0, 0.0


_NAMES: tuple[tuple[str, ScheduleName], ...] = (
    ("zb-1p", "zb-1p"), ("zb-h1", "zb-1p"), ("zb-2p", "zb-2p"), ("zb-h2", "zb-2p"),
    ("zb-v", "zb-v"), ("zbv", "zb-v"), ("breadth", "breadth-first"), ("gpipe", "gpipe"),
    ("vocab", "vocabulary"),
)  # fmt: skip


def _schedule(text: str, interleave: float) -> ScheduleName:
    for words, name in _NAMES:
        if words in text.lower():
            return name
    return "interleaved" if interleave > 1 else "1f1b"


def _precision(f: Fields) -> str:
    text = str(f.get("precision", "bf16"))
    word = text.lower().split()[0] if text.split() else ""
    if "fp4" in word or "float4" in word:
        return "float4"
    if any(name in word for name in ("fp8", "float8", "int8")):
        return "float8"
    if any(name in word for name in ("fp32", "float32", "tf32")):
        return "float32"
    if "16" not in word:
        f.assumed.append(f"precision = bf16, not {text!r}")
    return "bfloat16"


def _share(value: Any) -> float:
    """Give the share that a row offloads; none where it says it in words."""
    if isinstance(value, (bool, int, float)):
        return min(max(float(value), 0.0), 1.0)
    return 0.0
