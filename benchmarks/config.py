"""What every contender of a benchmark shares: the model, the batch, the optimizer, the contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch

Precision = Literal["float32", "bf16"]


@dataclass(frozen=True, slots=True)
class Config:
    """A Llama-style decoder of 10.5 M parameters, and one optimizer step of it.

    Attributes:
        vocabulary: Rows of the embedding and of the head, which are not tied.
        width: Size of the residual stream.
        layers: Decoder layers.
        heads: Attention heads, each with its own key and value.
        hidden: Size of SwiGLU's hidden layer.
        length: Tokens in a sequence.
        sequences: Sequences in an optimizer step, over all ranks.
        micro_batches: Parts into which a pipeline cuts the batch.
        precision: ``bf16`` computes matrix products in bfloat16; weights that the optimizer
            updates, its state and the loss stay float32.
        threads: Threads of each rank.
        batches: Different batches; after them the first comes again.
        seed: Of the weights and of the tokens.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW, on every parameter.
        clip: The largest global norm of the gradient.
    """

    vocabulary: int = 8192
    width: int = 256
    layers: int = 8
    heads: int = 8
    hidden: int = 688
    length: int = 256
    sequences: int = 8
    micro_batches: int = 8
    precision: Precision = "float32"
    threads: int = 1
    batches: int = 16
    seed: int = 0
    learning_rate: float = 3e-4
    weight_decay: float = 0.1
    clip: float = 1.0

    @property
    def tokens(self) -> int:
        """Tokens in an optimizer step, over all ranks."""
        return self.sequences * self.length


class Step(Protocol):
    """One optimizer step on the next batch.

    What it leaves running must be on the default process group, for the barrier that stops the
    clock waits for that group's work only; of any other group it waits by itself.
    """

    def __call__(self) -> torch.Tensor | None:
        """Train one step.

        Returns:
            The mean loss over this rank's tokens; None on a rank that does not see it.
        """


class Build(Protocol):
    """What a contender is: a function that prepares one rank and gives its step.

    It is called in a process of its own, after `torch.set_num_threads` and with the default
    process group (gloo) initialised.
    """

    def __call__(self, rank: int, world: int, *, config: Config) -> Step:
        """Build model and optimizer.

        Args:
            rank: This process, from 0.
            world: Processes.
            config: The model, the batch and the optimizer.

        Returns:
            The step.
        """
