"""What a plan decides, part by part, and the numbers that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from stretto.mesh import Mesh
from stretto.model import BlockKind
from stretto.plan.words import Words, words_of
from stretto.rules import Rules

Recompute = Literal["none", "selective", "full"]
DType = Literal["float64", "float32", "bfloat16"]
ScheduleName = Literal[
    "gpipe", "1f1b", "interleaved", "breadth-first", "zb-1p", "zb-2p", "zb-v", "vocabulary"
]
Codec = Literal["none", "bfloat16", "int8", "powersgd"]
Hierarchy = Literal["flat", "two-level"]
Matrix = Literal["same", "float8", "float4"]

DTYPE_BYTES: Mapping[str, int] = {"float64": 8, "float32": 4, "bfloat16": 2, "int64": 8}

POWERSGD_RANK = 4
"""The rank of the factors to which the codec ``powersgd`` reduces a matrix."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How the chain of blocks is cut over ``pp`` and in what order it runs.

    Attributes:
        schedule: Name of the schedule: ``gpipe`` (Huang et al., 2019); ``1f1b`` and ``interleaved``
            (Narayanan et al., 2021); ``breadth-first`` (Lamy-Poirier, 2023); ``zb-1p``, ``zb-2p``
            and ``zb-v`` (Qi et al., 2023; 2024); ``vocabulary``: 1F1B in which all ranks share the
            head and the loss (Yeung et al., 2024).
        cut: First block of each stage, beginning with 0; empty to balance the stages by cost.
        interleave: Stages of a rank, of ``interleaved`` and ``breadth-first``: stage s runs on
            pipeline rank s % pp. ``zb-v`` has two, the second in the opposite order.
    """

    schedule: ScheduleName = "1f1b"
    cut: tuple[int, ...] = ()
    interleave: int = 1

    @property
    def chunks(self) -> int:
        """The number of stages that a pipeline rank runs."""
        return 2 if self.schedule == "zb-v" else self.interleave


@dataclass(frozen=True, slots=True)
class Memory:
    """What is kept for the backward pass, and where.

    Attributes:
        recompute: ``none``; ``selective``: attention blocks are run again in the backward pass,
            projections and norm included, not their core alone as in (Korthikanti et al., 2022),
            because a fused core keeps no scores anyway; ``full``: every block but the embedding is
            (Chen et al., 2016).
        recompute_layers: With ``full``, how many layers of each stage, counted from its first, run
            again, and nothing but layers; None for all blocks.
        offload: Share of the activations kept for the backward pass, from 0 to 1, that waits in the
            host's memory.
        optimizer_offload: Share of master weights and moments, from 0 to 1, that rests in the
            host's memory.
        regather: Whether parameters that rest in shards are gathered again for the backward pass;
            otherwise they stay gathered from the forward pass on.
    """

    recompute: Recompute = "none"
    recompute_layers: int | None = None
    offload: float = 0.0
    optimizer_offload: float = 0.0
    regather: bool = True

    @property
    def kinds(self) -> frozenset[BlockKind]:
        """The kinds of block that run again in the backward pass."""
        match self.recompute:
            case "none":
                return frozenset()
            case "selective":
                return frozenset({BlockKind.ATTENTION})
            case "full":
                return frozenset(BlockKind) - {BlockKind.EMBEDDING}


@dataclass(frozen=True, slots=True)
class Communication:
    """How moves are grouped and carried.

    Attributes:
        bucket_bytes: Gradients and parameters move together in buckets of about this size.
        codec: What gradients are turned into to be reduced: ``none``, as they accumulate;
            ``bfloat16``; ``int8``, with a scale for each block; ``powersgd``, factors of rank 4
            with error feedback (Vogels et al., 2019).
        hierarchy: How gradients are reduced: ``flat``, over all ranks at once; ``two-level``,
            within each node first, then between nodes.
        tensor_overlap: Whether moves over tensor-parallel ranks are cut up and overlap with the
            matrix products beside them (Wang et al., 2023).
    """

    bucket_bytes: int = 25 * 2**20
    codec: Codec = "none"
    hierarchy: Hierarchy = "flat"
    tensor_overlap: bool = False


@dataclass(frozen=True, slots=True)
class Numerics:
    """Precision and compilation.

    Attributes:
        dtype: In which blocks compute. With ``bfloat16``, master weights, gradient accumulation and
            reduction are in float32.
        compile: Whether each block goes through ``torch.compile``.
        matrix: In which the matrix products of layers multiply: ``same`` as `dtype`, ``float8``
            (Micikevicius et al., 2022) or ``float4`` with scales for each block; all else is in
            `dtype`.
    """

    dtype: DType = "float32"
    compile: bool = False
    matrix: Matrix = "same"

    @property
    def master(self) -> DType:
        """The precision of master weights, optimizer state and reductions."""
        return "float64" if self.dtype == "float64" else "float32"


@dataclass(frozen=True, slots=True)
class Batch:
    """What one optimizer step sees.

    Attributes:
        sequences: Sequences in a step, over all ranks.
        micro_batch: Sequences that one replica runs at once.
        seq: Positions of a sequence.
    """

    sequences: int = 16
    micro_batch: int = 8
    seq: int = 256


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that differ from the rest of the plan (Miao et al., 2022).

    Attributes:
        layers: The first layer, and the first after it that is not of the group.
        recompute: What of these layers runs again; None for what the plan says.
        rules: Where their tensors lie, in place of all rules of the plan; None for those.
    """

    layers: tuple[int, int]
    recompute: Recompute | None = None
    rules: Rules | None = None

    def __contains__(self, layer: int) -> bool:
        return self.layers[0] <= layer < self.layers[1]


@dataclass(frozen=True, slots=True)
class Decisions:
    """All that a plan decides, and what follows from it alone.

    Attributes:
        mesh: The ranks as a grid.
        rules: Where tensors lie.
        pipeline: Stages and their schedule.
        memory: What is kept for the backward pass.
        communication: How moves are grouped and carried.
        numerics: Precision and compilation.
        batch: What a step sees.
        groups: Layers for which other rules or another recomputation hold.
    """

    mesh: Mesh = field(default_factory=lambda: Mesh((("dp", 1),)))
    rules: Rules = field(default_factory=Rules)
    pipeline: Pipeline = field(default_factory=Pipeline)
    memory: Memory = field(default_factory=Memory)
    communication: Communication = field(default_factory=Communication)
    numerics: Numerics = field(default_factory=Numerics)
    batch: Batch = field(default_factory=Batch)
    groups: tuple[Group, ...] = ()

    def extent(self, *names: str) -> int:
        """Give the product of the extents of axes or views; 1 for one that the mesh lacks."""
        return self.mesh.extent(*names)

    def split(self, dim: str) -> int:
        """Give the number of ranks that split a logical dimension while it is used."""
        return self.mesh.extent(*self.rules.axes(dim))

    @property
    def replicas(self) -> int:
        """The number of ranks that see different sequences."""
        return self.split("batch")

    @property
    def stages(self) -> int:
        """The number of stages: those of a pipeline rank times pipeline ranks."""
        return self.mesh.extent("pp") * self.pipeline.chunks

    @property
    def micro_batches(self) -> int:
        """The number of micro-batches that each replica runs in a step."""
        return self.batch.sequences // (self.replicas * self.batch.micro_batch)

    @property
    def words(self) -> Words:
        """The usual words for its mesh and rules: what `Plan.of` makes them of, where it can."""
        return words_of(self.mesh, self.rules)

    def at(self, layer: int) -> Self:
        """Give what holds for `layer`, without groups; for -1, what does outside the layers."""
        rules, memory = self.rules, self.memory
        for group in self.groups:
            if layer in group:
                rules = group.rules or rules
                if group.recompute is not None:
                    memory = replace(memory, recompute=group.recompute, recompute_layers=None)
        return replace(self, rules=rules, memory=memory, groups=())
