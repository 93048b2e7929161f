"""A tokenizer: trained here as byte-level BPE, or given as a ``tokenizer.json``.

Byte-level BPE (Sennrich et al., 2016; Radford et al., 2019) splits every text into known tokens,
and joins them to the very same text. The work is done by the library `tokenizers`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stretto.errors import DataError, Problem

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
"""The token that ends every document, in tokenizers that are trained here."""

SMALLEST = 257
"""The smallest vocabulary: every byte, and the end of text."""

# What published tokenizers call the end of a text, the likeliest first.
_KNOWN = (
    END_OF_TEXT,
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
    "[EOS]",
    "<|im_end|>",
)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Text to tokens and back.

    Attributes:
        library: The tokenizer of the library `tokenizers`.
        end_of_text: The id of the token that ends a document.
        size: One more than the largest id: the rows that an embedding needs.
    """

    library: tokenizers.Tokenizer
    end_of_text: int
    size: int

    def encode(self, text: str) -> list[int]:
        """Give the ids of a text; special tokens written in it count as such, none are added."""
        ids: list[int] = self.library.encode(text, add_special_tokens=False).ids
        return ids

    def encode_documents(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Give the ids of documents, each ended by the end of text; uses all cores.

        Special tokens that are written in a document are text like any other: only the last token
        of a document is an end of text.
        """
        before = self.library.encode_special_tokens
        self.library.encode_special_tokens = True
        try:
            found = self.library.encode_batch_fast(list(texts), add_special_tokens=False)
        finally:
            self.library.encode_special_tokens = before
        return [np.array([*each.ids, self.end_of_text], np.uint32) for each in found]

    def decode(self, ids: Sequence[int]) -> str:
        """Give the text of ids, special tokens left out."""
        text: str = self.library.decode(list(ids), skip_special_tokens=True)
        return text

    def save(self, directory: Path) -> Path:
        """Write ``tokenizer.json``, and ``tokenizer_config.json`` with the end of text.

        `transformers` reads these two, and so does `load`.

        Returns:
            The path of ``tokenizer.json``.
        """
        path = directory / "tokenizer.json"
        path.write_text(self.library.to_str(pretty=True), encoding="utf-8")
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": self.library.id_to_token(self.end_of_text),
        }
        path.with_name("tokenizer_config.json").write_text(
            json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        return path


def learn(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Give a byte-level BPE trained on `texts`: the same texts give the same tokenizer.

    Args:
        texts: Documents, read once.
        vocab_size: Tokens that are wanted, the end of text and the 256 bytes included. A small text
            gives fewer: `Tokenizer.size` is what counts.

    Raises:
        DataError: A vocabulary too small to hold every byte.
    """
    if vocab_size < SMALLEST:
        rule = f"{vocab_size} tokens cannot hold 256 bytes and the end of text"
        raise DataError(Problem("vocab_size", rule, f"ask for at least {SMALLEST}"))
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        # Sorted: the library gives a set, whose order differs from process to process.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,  # a token that is seen once teaches nothing
        show_progress=False,
    )
    library.train_from_iterator(iter(texts), trainer)
    return _tokenizer(library, end_of_text=_end_of_text(library, END_OF_TEXT, where="trained"))


def load(path: Path, *, end_of_text: str | int | None = None) -> Tokenizer:
    """Give the tokenizer of a file.

    Args:
        path: A ``tokenizer.json``, or a directory with one.
        end_of_text: The token or the id that ends a document. If it is not given:
            ``eos_token`` of a ``tokenizer_config.json`` beside it; else ``eos_token_id`` of a
            ``generation_config.json``; else a special token with a name in use, such as
            ``<|endoftext|>`` or ``</s>``.

    Raises:
        DataError: No such file, no tokenizer in it, or no end of text.
    """
    path = path / "tokenizer.json" if path.is_dir() else path
    from tokenizers import Tokenizer as Library

    try:
        library = Library.from_str(path.read_text(encoding="utf-8"))
    except OSError as error:
        remedy = "name a tokenizer.json, or a directory with one"
        raise DataError(Problem(str(path), f"cannot be read: {error.strerror}", remedy)) from error
    except Exception as error:  # the library raises nothing narrower
        remedy = "name the tokenizer.json of a Hugging Face model, or let one be trained"
        raise DataError(Problem(str(path), f"no tokenizer: {error}", remedy)) from error
    library.no_truncation()
    library.no_padding()
    wanted = _configured(path) if end_of_text is None else end_of_text
    return _tokenizer(library, end_of_text=_end_of_text(library, wanted, where=str(path)))


def _tokenizer(library: tokenizers.Tokenizer, *, end_of_text: int) -> Tokenizer:
    return Tokenizer(library, end_of_text, max(library.get_vocab().values()) + 1)


def _configured(path: Path) -> str | int | None:
    """Give the end of text that the files beside a tokenizer.json name."""
    token = _json(path.with_name("tokenizer_config.json")).get("eos_token")
    if isinstance(token, dict):
        token = token.get("content")
    if isinstance(token, str):
        return token
    ids = _json(path.with_name("generation_config.json")).get("eos_token_id")
    if isinstance(ids, list) and ids:
        ids = ids[0]
    return ids if isinstance(ids, int) else None


def _json(path: Path) -> dict[str, Any]:
    """Give the object in a file, empty where there is no such file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        remedy = "mend it, delete it, or name the end of text"
        raise DataError(Problem(str(path), f"cannot be read: {error}", remedy)) from error
    return value if isinstance(value, dict) else {}


def _end_of_text(library: tokenizers.Tokenizer, wanted: str | int | None, *, where: str) -> int:
    special = [t.content for t in library.get_added_tokens_decoder().values() if t.special]
    if isinstance(wanted, str):
        found = library.token_to_id(wanted)
    elif isinstance(wanted, int):
        found = wanted if library.id_to_token(wanted) is not None else None
    else:
        found = next((library.token_to_id(name) for name in _KNOWN if name in special), None)
    if found is not None:
        return found
    what = "no end of text is named or known" if wanted is None else f"there is no token {wanted!r}"
    rule = f"{what}; its special tokens: {', '.join(special[:8]) or 'none'}"
    raise DataError(Problem(where, rule, "name the token that ends a document"))
