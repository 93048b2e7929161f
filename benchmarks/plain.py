"""A decoder and its training loop in plain PyTorch, as a good engineer writes them by hand.

The form is the fastest of those tried on CPU: separate projections (against one for q, k and v,
and one for gate and up), RoPE as one complex product (3 % of a step against rotating halves), and
in bf16 attention in float32 (12 %), to which RoPE has widened queries and keys anyway.

Shapes: B sequences, T tokens of each, W width, H heads, D width of a head, P = D / 2 pairs,
V vocabulary, N batches, U = T + 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.config import Config, Step


def rotations(config: Config) -> Tensor:
    """The unit complex number by which RoPE turns each pair at each position (T, 1, P)."""
    pairs = config.width // config.heads // 2
    frequency_P = 10_000.0 ** -(torch.arange(pairs) / pairs)
    angle_TP = torch.outer(torch.arange(config.length).float(), frequency_P)
    return torch.polar(torch.ones_like(angle_TP), angle_TP)[:, None]


def _rotate(x_BTHD: Tensor, rotations_T1P: Tensor) -> Tensor:
    x_BTHP = torch.view_as_complex(x_BTHD.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(x_BTHP * rotations_T1P).flatten(-2)


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, config: Config) -> None:
        """Build the four projections."""
        super().__init__()
        self.head_width = config.width // config.heads
        self.q, self.k, self.v, self.o = (
            nn.Linear(config.width, config.width, bias=False) for _ in range(4)
        )

    def forward(self, x_BTW: Tensor, rotations_T1P: Tensor) -> Tensor:
        """Mix tokens with those before them (B, T, W)."""
        # -1: a rank of a tensor-parallel rival holds only some of the heads.
        q_BTHD, k_BTHD, v_BTHD = (
            linear(x_BTW).unflatten(-1, (-1, self.head_width))
            for linear in (self.q, self.k, self.v)
        )
        q_BTHD, k_BTHD = _rotate(q_BTHD, rotations_T1P), _rotate(k_BTHD, rotations_T1P)
        with torch.autocast("cpu", enabled=False):
            y_BHTD = F.scaled_dot_product_attention(
                q_BTHD.transpose(1, 2),
                k_BTHD.transpose(1, 2),
                v_BTHD.float().transpose(1, 2),
                is_causal=True,
            )
        out: Tensor = self.o(y_BHTD.transpose(1, 2).flatten(-2).type_as(v_BTHD))
        return out


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: Config) -> None:
        """Build the three projections."""
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Transform each token (B, T, W)."""
        out: Tensor = self.down(F.silu(self.gate(x_BTW)) * self.up(x_BTW))
        return out


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a residual."""

    def __init__(self, config: Config) -> None:
        """Build both halves."""
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=1e-5)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.width, eps=1e-5)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BTW: Tensor, rotations_T1P: Tensor) -> Tensor:
        """Apply the layer (B, T, W)."""
        x_BTW = x_BTW + self.attention(self.attention_norm(x_BTW), rotations_T1P)
        out: Tensor = x_BTW + self.feed_forward(self.feed_forward_norm(x_BTW))
        return out


class Decoder(nn.Module):
    """The whole model: tokens in, logits out."""

    rotations_T1P: Tensor

    def __init__(self, config: Config) -> None:
        """Draw the weights from `config.seed`: the same for every contender."""
        super().__init__()
        torch.manual_seed(config.seed)
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-5)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.register_buffer("rotations_T1P", rotations(config), persistent=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Give the logits of each next token (B, T, V)."""
        x_BTW = self.embedding(tokens_BT)
        for layer in self.layers:
            x_BTW = layer(x_BTW, self.rotations_T1P)
        out: Tensor = self.head(self.norm(x_BTW))
        return out


def batches(config: Config, *, share: int = 0, shares: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """Random tokens without end, the same for every contender.

    Args:
        config: Their seed, number and shape.
        share: Which part of each batch's sequences to give.
        shares: Equal parts in a batch.

    Yields:
        Inputs and targets (B, T), int64.
    """
    generator = torch.Generator().manual_seed(config.seed)
    shape = (config.batches, config.sequences, config.length + 1)
    tokens_NBU = torch.randint(config.vocabulary, shape, generator=generator)
    for tokens_BU in itertools.cycle(tokens_NBU.tensor_split(shares, dim=1)[share]):
        yield tokens_BU[:, :-1], tokens_BU[:, 1:]


def loss_of(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """The mean cross-entropy, in float32."""
    return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())


def adamw(
    parameters: list[Tensor] | list[dict[str, list[Tensor]]], config: Config
) -> torch.optim.AdamW:
    """The optimizer of every contender; fused, which is four times faster than the default."""
    return torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )


def build(rank: int, world: int, *, config: Config) -> Step:
    """The plain loop on one process; in bf16 under autocast."""
    model = Decoder(config)
    return loop(model, config, batches(config))


def loop(model: nn.Module, config: Config, source: Iterator[tuple[Tensor, Tensor]]) -> Step:
    """The plain loop around a model that may be wrapped."""
    parameters: list[Tensor] = list(model.parameters())
    optimizer = adamw(parameters, config)

    def step() -> Tensor:
        inputs_BT, targets_BT = next(source)
        mixed = torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16")
        with mixed:
            loss = loss_of(model(inputs_BT), targets_BT)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def build_master(rank: int, world: int, *, config: Config) -> Step:
    """The plain loop with bf16 weights and gradients; the optimizer keeps float32 masters."""
    model = Decoder(config)
    masters = [p.detach().clone() for p in model.parameters()]
    model.bfloat16()
    weights: list[Tensor] = list(model.parameters())
    optimizer, source = adamw(masters, config), batches(config)

    def step() -> Tensor:
        inputs_BT, targets_BT = next(source)
        loss = loss_of(model(inputs_BT), targets_BT)
        loss.backward()
        for master, weight in zip(masters, weights, strict=True):
            assert weight.grad is not None
            master.grad, weight.grad = weight.grad.float(), None
        nn.utils.clip_grad_norm_(masters, config.clip)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_copy_(weights, masters)
        return loss.detach()

    return step
