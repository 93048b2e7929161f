"""A few sentences that a model wrote, to see what it has learnt."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from stretto.cli.pretrained import Loaded
from stretto.data.tokens import TokenSet
from stretto.runtime.generate import generate

_PROMPT, _LONGEST = 16, 80  # tokens
_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")


def samples(loaded: Loaded, valid: TokenSet, *, seed: int, count: int = 3) -> Iterator[str]:
    """Give beginnings of held-out documents and how the model goes on, to the end of a sentence.

    Args:
        loaded: The model.
        valid: The documents.
        seed: Of what it draws.
        count: How many.
    """
    decode = loaded.tokenizer.decode
    starts = [int(s) for s in valid.documents]
    for start in starts[:: max(1, len(starts) // count)][:count]:
        end = next((s for s in starts if s > start), valid.size)
        prompt = [int(t) for t in valid[range(start, min(end - 1, start + _PROMPT))]]
        prompt = prompt[: loaded.model.positions - 1]
        if not prompt:
            continue
        tokens = generate(
            loaded.model, loaded.parameters, prompt, tokens=_LONGEST, temperature=0.8, top_p=0.9,
            seed=seed, stop={loaded.tokenizer.end_of_text},
        )  # fmt: skip
        begun = decode(prompt)
        written = decode([*prompt, *tokens])[len(begun) :]
        yield f"  {_joined(begun)} ▸{_joined(_sentences(written), strip=False)}"


def _sentences(text: str) -> str:
    """Give a text up to the end of its last whole sentence, if it has one."""
    ends = [match.end() for match in _END.finditer(text)]
    return text[: ends[-1]] if ends else text


def _joined(text: str, *, strip: bool = True) -> str:
    joined = re.sub(r"\s+", " ", printable(text))
    return joined.strip() if strip else joined


def printable(text: str) -> str:
    """Give a text without what would move a terminal's cursor, but for tabs and line ends."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
