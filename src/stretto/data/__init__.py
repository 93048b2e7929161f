"""Text to tokens to micro-batches: what training reads, and in what order.

    files of text ── prepare ──▶ two TokenSets ── Feed, Prefetch ──▶ MicroBatches

A name is imported when it is first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stretto.data.corpus import documents as documents
    from stretto.data.corpus import shipped as shipped
    from stretto.data.feed import IGNORE as IGNORE
    from stretto.data.feed import Feed as Feed
    from stretto.data.feed import MicroBatch as MicroBatch
    from stretto.data.feed import valid_batches as valid_batches
    from stretto.data.order import permute as permute
    from stretto.data.prefetch import Prefetch as Prefetch
    from stretto.data.prepared import Prepared as Prepared
    from stretto.data.prepared import prepare as prepare
    from stretto.data.tokenizer import Tokenizer as Tokenizer
    from stretto.data.tokenizer import learn as learn
    from stretto.data.tokenizer import load as load
    from stretto.data.tokens import TokenSet as TokenSet
    from stretto.data.tokens import unigram_loss as unigram_loss

_NAMES = {
    "corpus": ("documents", "shipped"),
    "feed": ("IGNORE", "Feed", "MicroBatch", "valid_batches"),
    "order": ("permute",),
    "prefetch": ("Prefetch",),
    "prepared": ("Prepared", "prepare"),
    "tokenizer": ("Tokenizer", "learn", "load"),
    "tokens": ("TokenSet", "unigram_loss"),
}


def __getattr__(name: str) -> Any:
    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"stretto.data.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(name for names in _NAMES.values() for name in names)
