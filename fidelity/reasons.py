"""What is known of rows that are predicted badly."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stretto.fidelity.predict import Prediction

_REGRESSED = (
    "the source's own: the same plan reached {} in another container; the loss was in the software"
)
_MANY_RANKS = (
    "all-gather over thousands of ranks for one sequence a device: the model underestimates what "
    "ZeRO-3 of 2021 lost there; the source's rows of this kind with more sequences are too fast too"
)
_OWNERS = (
    "optimizer state over all ranks, whose owners, it seems, broadcast whole parameters in turn; "
    "rows with groups of 8 are within 13 %"
)
_UNEVEN = (
    "measured times of these 512 devices scatter by 40 % between plans that differ little, with no "
    "order in the micro-batch"
)
_SLOWING = (
    "in this sheet flash-attention 2 with two stages slows by 30 to 40 % as the micro-batch grows, "
    "which no other kernel in it does"
)
_ROWWISE = "row-wise float8, whose casts the source itself calls slow"
_STRONG = "strong scaling to its limit: a step is one micro-batch, and waits for messages"

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "nanotron_playbook-62a02b9cee": (
            "not explained: 15 % of peak with one replica and 256 micro-batches, where the same "
            "source reaches twice as much on more nodes"
        ),
        "megatron_bridge-59654e5941": _REGRESSED.format("9,058 tokens/s (26.02.01)"),
        "megatron_bridge-23506c5fd8": _REGRESSED.format("10,494 tokens/s (25.09)"),
        "nanotron_playbook-c25c437a9b": _STRONG,
        "nanotron_playbook-e384dba6f3": _STRONG,
        "nanotron_playbook-77c062fffe": "tensor parallelism of 16 across two nodes",
        "ptdp2021-b206ebc49d": _MANY_RANKS,
        "ptdp2021-deeecd47f4": _MANY_RANKS,
        "ptdp2021-0371956c47": "ZeRO-3 over 768 ranks, two sequences a device",
        "vtrain_multi-b2f456f12e": (
            "an outlier of the source: half of what it measured with a micro-batch of 32"
        ),
        "vtrain_multi-af1e13a16a": "eight ranks share two short sequences: kernels of microseconds",
        "vtrain_multi-63378be76d": "four ranks share two short sequences: kernels of microseconds",
        "vtrain_multi-798e8ae6d2": _UNEVEN,
        "vtrain_multi-fbf106c650": _UNEVEN,
        "vtrain_multi-d442e965a7": _UNEVEN,
        "vtrain_multi-d0c254e048": _UNEVEN,
        "vtrain_multi-eef6bccb9d": _UNEVEN,
        "vtrain_multi-daece85c59": _UNEVEN,
        "alephalpha2023-1a1108faa7": _SLOWING,
        "alephalpha2023-279dce256a": _SLOWING,
        "alephalpha2023-885114dabb": _SLOWING,
        "internevo-3dd1c18030": _OWNERS,
        "internevo-817f109138": _OWNERS,
        "torchtitan-f3a2ceb9ac": _ROWWISE,
        "torchtitan-a2d9434a03": _ROWWISE,
        "torchtitan-f3a636ce2a": _ROWWISE,
        "torchtitan-50adcf0eb7": _ROWWISE,
    }
)
"""What is known, by the row's name."""


def reason(p: Prediction) -> str:
    """Give what is known of a row; that nothing is, where nothing is."""
    doubt = p.row.tree.get("suspicious")
    return REASONS.get(p.row.id) or (f"doubtful: {doubt}" if doubt else "not explained")
