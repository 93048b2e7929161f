"""Micro-batches: fixed windows of tokens, in an order that depends on seed and step only.

Legend: B sequences, T positions, S = T + 1 tokens of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from stretto.data.order import permute
from stretto.data.tokens import TokenSet
from stretto.errors import DataError, Problem

IGNORE = -100
"""The target of a position that is not predicted."""


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """What one replica reads at once.

    Attributes:
        tokens_BT: Tokens; int64.
        targets_BT: The token that follows each; `IGNORE` where that belongs to another document, or
            there is none; int64.
        documents_BT: Which document of its row a position belongs to, from 0; int32. None where
            every row lies within one document, or documents are not told apart.
        positions_BT: The distance to the start of the document, or of the row if that is nearer:
            less than T; int64.
    """

    tokens_BT: NDArray[np.int64]
    targets_BT: NDArray[np.int64]
    documents_BT: NDArray[np.int32] | None
    positions_BT: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Feed:
    """Micro-batches of a set of tokens, without end, each found at once.

    The tokens are cut into fixed windows of ``seq + 1`` that share one token with the next. Each
    epoch runs through all of them in an order of its own. Row k of micro-batch m on replica r at a
    step is number ``step·G + (m·replicas + r)·size + k`` of the run, where ``G = micro_batches ·
    replicas · size``: what a step reads depends on the seed, the step and G, not on how G is dealt
    out.

    Attributes:
        tokens: What is read.
        seq: Positions of a row.
        seed: Of the order.
        mask_documents: Tell documents apart: positions count from the start of each, and the last
            token of each predicts nothing.
    """

    tokens: TokenSet
    _: KW_ONLY
    seq: int
    seed: int
    mask_documents: bool = True

    def __post_init__(self) -> None:
        """Check that there is a window to read.

        Raises:
            DataError: Fewer tokens than a window.
        """
        if self.tokens.size <= self.seq:
            rule = f"{self.tokens.size} tokens do not fill one window of seq + 1 = {self.seq + 1}"
            remedy = f"give more text, or a sequence of at most {self.tokens.size - 1}"
            raise DataError(Problem(str(self.tokens.path), rule, remedy))

    @property
    def samples(self) -> int:
        """The number of windows: how many rows an epoch has."""
        return (self.tokens.size - 1) // self.seq

    def micro_batch(
        self,
        step: int,
        micro_batch: int,
        *,
        size: int,
        replica: int,
        replicas: int,
        micro_batches: int,
    ) -> MicroBatch:
        """Give what one replica reads.

        Args:
            step: The optimizer step, from 0.
            micro_batch: Which one of the step, in ``range(micro_batches)``.
            size: Rows of a micro-batch.
            replica: Which data replica, in ``range(replicas)``.
            replicas: Data replicas.
            micro_batches: Micro-batches of a step on each replica.
        """
        assert 0 <= micro_batch < micro_batches
        assert 0 <= replica < replicas
        first = ((step * micro_batches + micro_batch) * replicas + replica) * size
        epochs_B, places_B = np.divmod(np.arange(first, first + size), self.samples)
        windows_B = permute(places_B, size=self.samples, seed=self.seed, epoch=epochs_B)
        return _read(
            self.tokens, windows_B * self.seq, seq=self.seq, mask_documents=self.mask_documents
        )


def valid_batches(
    tokens: TokenSet, *, seq: int, size: int, mask_documents: bool = True
) -> Iterator[MicroBatch]:
    """Give all tokens once, in order, in micro-batches of one shape.

    Every token but the first, and with `mask_documents` the first of each document, is a target
    exactly once. Where the last window and the last micro-batch reach past the end, targets are
    `IGNORE`.

    Args:
        tokens: What is read; two tokens at least.
        seq: Positions of a row.
        size: Rows of a micro-batch.
        mask_documents: Tell documents apart, as `Feed` does.
    """
    for start in range(0, tokens.size - 1, seq * size):
        starts_B = start + seq * np.arange(size)
        yield _read(tokens, starts_B, seq=seq, mask_documents=mask_documents)


def _read(
    tokens: TokenSet, starts_B: NDArray[np.int64], *, seq: int, mask_documents: bool
) -> MicroBatch:
    """Give the windows that start at `starts_B`; past the last token nothing is predicted."""
    last = tokens.size - 1
    at_BS = starts_B[:, None] + np.arange(seq + 1)
    tokens_BS = tokens[np.minimum(at_BS, last)]
    targets_BT = np.where(at_BS[:, 1:] <= last, tokens_BS[:, 1:], IGNORE)
    documents_BS, positions_BS = (
        _documents(tokens.documents, starts_B, seq=seq)
        if mask_documents
        else (np.zeros(at_BS.shape, np.int32), np.tile(np.arange(seq + 1), (len(at_BS), 1)))
    )
    targets_BT[documents_BS[:, 1:] != documents_BS[:, :-1]] = IGNORE
    return MicroBatch(
        tokens_BT=np.ascontiguousarray(tokens_BS[:, :-1]),
        targets_BT=targets_BT,
        documents_BT=(
            np.ascontiguousarray(documents_BS[:, :-1]) if documents_BS[:, :-1].any() else None
        ),
        positions_BT=np.ascontiguousarray(positions_BS[:, :-1]),
    )


def _documents(
    document_starts: NDArray[np.int64], starts_B: NDArray[np.int64], *, seq: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Give the number of its document in the row, and the position in it, of each token."""
    first_B = np.searchsorted(document_starts, starts_B, side="right")
    after_B = np.searchsorted(document_starts, starts_B + seq, side="right")
    # One item for each document that starts inside a window: its row and its column.
    counts_B = after_B - first_B
    rows = np.repeat(np.arange(len(starts_B)), counts_B)
    before_B = np.cumsum(counts_B) - counts_B
    which = np.arange(len(rows)) + (first_B - before_B)[rows]
    columns = document_starts[which] - starts_B[rows]
    documents_BS = np.zeros((len(starts_B), seq + 1), np.int32)
    documents_BS[rows, columns] = 1
    begins_BS = np.zeros(documents_BS.shape, np.int64)
    begins_BS[rows, columns] = columns
    np.maximum.accumulate(begins_BS, axis=1, out=begins_BS)
    return np.cumsum(documents_BS, axis=1, dtype=np.int32), np.arange(seq + 1) - begins_BS
