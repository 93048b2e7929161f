"""The numbers of a model that a price depends on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stretto.cost.numbers import Number, record
from stretto.model import Model


@dataclass(frozen=True, slots=True)
class Shape:
    """A model, or an array of models.

    Attributes:
        layers: All layers, those of multi-token prediction included.
        expert_layers: Those with experts.
        full_layers: Those that attend to every position before.
        window: Positions that the others attend to; 0 for all.
        embed: Width of the residual stream.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of a query and a key.
        value_dim: Width of a value.
        q_rank: Rank of latent queries (DeepSeek-AI, 2024); 0 for plain ones.
        kv_rank: Rank of latent keys and values; 0 for plain ones.
        rope_dim: Part of a latent key that carries positions and is shared by the heads.
        ff: Width of a plain feed-forward block.
        ups: Matrices into a feed-forward block: 2 where it is gated, else 1.
        vocab: Tokens.
        heads_out: Output layers: 1, and one for each layer of multi-token prediction.
        tied: 1 where the head uses the token embedding.
        positions: Learned positions.
        experts: Experts of a layer.
        top_k: Experts that a token visits.
        expert_ff: Width of an expert.
        shared_ff: Width of all shared experts together.
        chunk: Positions within which those that are not full attend; 0 for no bound.
        qk_norm: 1 where the heads of queries and keys are normalised.
    """

    layers: Number
    expert_layers: Number
    full_layers: Number
    window: Number
    embed: Number
    heads: Number
    kv_heads: Number
    head_dim: Number
    value_dim: Number
    q_rank: Number
    kv_rank: Number
    rope_dim: Number
    ff: Number
    ups: Number
    vocab: Number
    heads_out: Number
    tied: Number
    positions: Number
    experts: Number
    top_k: Number
    expert_ff: Number
    shared_ff: Number
    chunk: Number = field(default_factory=lambda: np.zeros(()))
    qk_norm: Number = field(default_factory=lambda: np.zeros(()))

    @staticmethod
    def of(model: Model) -> Shape:
        """Give the numbers of `model`."""
        layers = model.layers + model.mtp_layers
        plain = len(model.dense_layers) if model.experts else layers
        full = len(model.full_layers) if model.window or model.chunk else layers
        latent = model.latent
        return record(
            Shape,
            layers=layers,
            expert_layers=layers - plain,
            full_layers=full,
            window=model.window,
            embed=model.embed,
            heads=model.heads,
            kv_heads=model.kv_heads,
            head_dim=latent.nope_dim + latent.rope_dim if latent else model.head_dim,
            value_dim=latent.value_dim if latent else model.head_dim,
            q_rank=latent.q_rank if latent else 0,
            kv_rank=latent.kv_rank if latent else 0,
            rope_dim=latent.rope_dim if latent else 0,
            ff=model.ff,
            ups=2 if model.gated else 1,
            vocab=model.vocab,
            heads_out=1 + model.mtp_layers,
            tied=model.tied,
            positions=model.positions if model.rope is None else 0,
            experts=model.experts,
            top_k=model.top_k,
            expert_ff=model.expert_ff,
            shared_ff=model.shared_ff,
            chunk=model.chunk,
            qk_norm=model.qk_norm,
        )

    @property
    def attention_parameters(self) -> Number:
        """Matrix elements of one attention block."""
        return self.query_parameters + self.key_parameters + self.out_parameters

    @property
    def query_parameters(self) -> Number:
        """Matrix elements that make the queries."""
        plain = self.embed * self.heads * self.head_dim
        return np.where(
            self.q_rank > 0,
            self.embed * self.q_rank + self.q_rank * self.heads * self.head_dim,
            plain,
        )

    @property
    def key_parameters(self) -> Number:
        """Matrix elements that make keys and values."""
        plain = self.embed * self.kv_heads * (self.head_dim + self.value_dim)
        into = self.embed * (self.kv_rank + self.rope_dim)
        out_of = self.kv_rank * self.heads * (self.head_dim - self.rope_dim + self.value_dim)
        return np.where(self.kv_rank > 0, into + out_of, plain)

    @property
    def out_parameters(self) -> Number:
        """Matrix elements from the heads back to the residual stream."""
        return self.heads * self.value_dim * self.embed

    @property
    def plain_parameters(self) -> Number:
        """Matrix elements of a plain feed-forward block."""
        return (self.ups + 1) * self.embed * self.ff

    @property
    def routed_parameters(self) -> Number:
        """Matrix elements of all experts of a layer, without the shared ones."""
        return self.experts * (self.ups + 1) * self.embed * self.expert_ff

    @property
    def shared_parameters(self) -> Number:
        """Matrix elements of the shared experts of a layer and of its router."""
        return (self.ups + 1) * self.embed * self.shared_ff + self.embed * self.experts

    @property
    def vocabulary_parameters(self) -> Number:
        """Elements of the token embedding; an untied head has as many."""
        return self.vocab * self.embed

    @property
    def join_parameters(self) -> Number:
        """Matrix elements that join two embeddings, in all layers of multi-token prediction."""
        return (self.heads_out - 1) * 2 * self.embed**2

    @property
    def parameters(self) -> Number:
        """All elements of matrices and embeddings; those of norms and biases are left out."""
        layers = (
            self.layers * self.attention_parameters
            + (self.layers - self.expert_layers) * self.plain_parameters
            + self.expert_layers * (self.routed_parameters + self.shared_parameters)
        )
        ends = (2 - self.tied) * self.vocabulary_parameters + self.positions * self.embed
        return layers + ends + self.join_parameters

    def attended(self, seq: Number) -> Number:
        """Give the mean number of positions that one of `seq` attends to, over layers."""
        window = np.where(self.window > 0, np.minimum(self.window, seq), seq)
        windowed = window - window * (window - 1) / (2 * seq)
        chunk = np.where(self.chunk > 0, np.minimum(self.chunk, seq), seq)
        whole, rest = np.floor(seq / chunk), np.mod(seq, chunk)
        chunked = (whole * chunk * (chunk + 1) + rest * (rest + 1)) / (2 * seq)
        local = np.where(self.chunk > 0, chunked, windowed)
        full = (seq + 1) / 2
        both = self.full_layers * full + (self.layers - self.full_layers) * local
        return np.asarray(both / self.layers)

    def step_flops(self, *, tokens: Number, seq: Number) -> Number:
        """Give the model FLOPs of a step: a forward, and a backward of twice that.

        Those of layers and output layers (Chowdhery et al., 2022); causal attention by half.
        """
        outputs = self.heads_out * self.vocabulary_parameters + self.join_parameters
        layers = self.layer_flops(tokens=tokens) + self.score_flops(tokens=tokens, seq=seq)
        return layers + 6 * tokens * outputs

    def layer_flops(self, *, tokens: Number) -> Number:
        """Give those of the matrix products of all layers."""
        ff = (self.ups + 1) * self.embed * (self.top_k * self.expert_ff) + self.shared_parameters
        return (6 * tokens) * (
            self.layers * self.attention_parameters
            + (self.layers - self.expert_layers) * self.plain_parameters
            + self.expert_layers * ff
        )

    def score_flops(self, *, tokens: Number, seq: Number) -> Number:
        """Give those of attention scores, and of what they weigh."""
        width = self.heads * (self.head_dim + self.value_dim)
        return 6 * tokens * self.layers * width * self.attended(seq)
