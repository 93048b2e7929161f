"""The model: an architecture, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from stretto.errors import Problem
from stretto.model.architecture import Architecture, Runnable
from stretto.model.block import Block, BlockKind, Parameter
from stretto.model.chain import chain


@dataclass(frozen=True, slots=True)
class Model(Architecture):
    """A decoder-only transformer: the fields of `Architecture`, and what follows from them."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The chain: embedding; attention and feed-forward or experts of each layer; head."""
        return chain(self)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter once, in the order of the chain."""
        return tuple(dict.fromkeys(p for b in self.blocks for p in b.parameters))

    def shape(self, parameter: Parameter) -> tuple[int, ...]:
        """Give the shape of a parameter."""
        sizes = self.sizes
        return tuple(sizes[d] for d in parameter.dims)

    @property
    def parameter_count(self) -> int:
        """The number of learned numbers, tied ones once; with what predicts further ahead."""
        return sum(math.prod(self.shape(p)) for p in self.parameters)

    @property
    def active_parameter_count(self) -> int:
        """The number of learned numbers that a token passes: of the experts, `top_k`.

        The whole embedding counts, as in most publications (DeepSeek-AI, 2024b).
        """
        return sum(self._passed(p) for p in self.parameters)

    def _passed(self, parameter: Parameter) -> int:
        """Give how many numbers of a parameter a token passes."""
        count = math.prod(self.shape(parameter))
        return count // self.experts * self.top_k if "expert" in parameter.dims else count

    def attends_to(self, layer: int, *, positions: int) -> float:
        """Give the mean number of positions that one of `positions` attends to, causally."""
        local = layer not in self.full_layers
        if local and 0 < self.chunk < positions:
            whole, rest = divmod(positions, self.chunk)
            return (whole * self.chunk * (self.chunk + 1) + rest * (rest + 1)) / (2 * positions)
        window = min(self.window, positions) if local and self.window else positions
        return window - window * (window - 1) / (2 * positions)

    def block_flops(self, block: Block, *, positions: int) -> float:
        """Give the forward FLOPs of a block for one token: matrix products and attention.

        A product with an (m, n) matrix is 2·m·n, of experts' matrices `top_k` each; attention is
        2·heads·(head_dim + value_dim) for each position attended to, of which a causal one has
        (positions + 1)/2 on average. Norms, activations and the embedding lookup are not counted
        (Narayanan et al., 2021).
        """
        products = sum(2 * self._passed(p) for p in block.matrices)
        if block.kind is not BlockKind.ATTENTION:
            return float(products)
        attended = self.attends_to(block.layer, positions=positions)
        return products + 2 * self.heads * (self.head_dim + self.value_dim) * attended

    def step_flops(self, *, tokens: int, positions: int) -> float:
        """Give the model FLOPs of a training step: forward once, backward twice that.

        This is 6·active parameters·tokens plus causal attention, the numerator of MFU (Chowdhery
        et al., 2022); recomputation is not in it.
        """
        return 3 * tokens * sum(self.block_flops(b, positions=positions) for b in self.blocks)

    @property
    def unsupported(self) -> tuple[Problem, ...]:
        """What keeps the model from being run here; it can be planned and priced all the same."""
        return tuple(_unsupported(self))


def _unsupported(model: Model) -> Iterator[Problem]:
    parts = (
        ("experts", model.experts > 0, f"a mixture of {model.experts} experts"),
        ("latent", model.latent is not None, "latent attention"),
        ("mtp_layers", model.mtp_layers > 0, "multi-token prediction"),
        ("chunk", model.chunk > 0, f"attention in chunks of {model.chunk} positions"),
    )
    families = get_args(Runnable)
    lacking = [(field, what) for field, there, what in parts if there]
    if not lacking and model.family not in families:
        lacking = [("family", f"weights of the family {model.family}")]
    for field, what in lacking:
        rule = f"{model.name} has {what}, which can be planned, but is not run yet"
        remedy = f"run a dense model of the families {', '.join(families)}"
        yield Problem(f"model.{field}", rule, remedy)
