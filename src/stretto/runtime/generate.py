"""Text from a model on one device: decoding with a cache of keys and values, and sampling.

Dimensions: B batch, T time, E embed, K key heads, H head_dim, V vocabulary, L layers, S positions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stretto import nn
from stretto.errors import InputError, Problem
from stretto.model import BlockKind, Model


@dataclass(slots=True)
class KeyValueCache:
    """Keys and values of the positions so far, in memory that is taken once.

    Attributes:
        keys_LBKSH: Keys.
        values_LBKSH: Values.
        windows: For each layer, how many positions one attends to; 0 for all.
        start: The position at which the next ones begin.
    """

    keys_LBKSH: Tensor
    values_LBKSH: Tensor
    windows: tuple[int, ...]
    start: int = 0

    def extend(self, layer: int, *, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add the (B, K, T, H) keys and values of new positions; give all to attend to."""
        stop, window = self.start + key.shape[2], self.windows[layer]
        self.keys_LBKSH[layer, :, :, self.start : stop] = key
        self.values_LBKSH[layer, :, :, self.start : stop] = value
        # Several positions at once come with a mask for their windows.
        first = max(stop - window, 0) if window and key.shape[2] == 1 else 0
        seen = layer, slice(None), slice(None), slice(first, stop)
        return self.keys_LBKSH[seen], self.values_LBKSH[seen]


def empty_cache(
    model: Model, *, positions: int, device: torch.device, dtype: torch.dtype
) -> KeyValueCache:
    """Give a cache with room for `positions` of one sequence."""
    shape = model.layers, 1, model.kv_heads, positions, model.head_dim
    windows = tuple(0 if i in model.full_layers else model.window for i in range(model.layers))
    keys, values = (torch.empty(shape, device=device, dtype=dtype) for _ in range(2))
    return KeyValueCache(keys, values, windows)


def forward(
    model: Model,
    parameters: Mapping[str, Tensor],
    tokens_BT: Tensor,
    *,
    mask: nn.AttentionInput,
    start: int = 0,
    last: bool = False,
) -> Tensor:
    """Give the logits (B, T, V) of the next tokens, or (B, 1, V) of the last position only.

    Args:
        model: The model.
        parameters: Every parameter, whole, by name.
        tokens_BT: Tokens.
        mask: From `nn.attention_input`, for these positions.
        start: The position of the first token.
        last: Whether only the last position is wanted.
    """
    positions_T = torch.arange(start, start + tokens_BT.shape[1], device=tokens_BT.device)
    values: dict[str, Tensor | nn.AttentionInput] = {
        "tokens": tokens_BT,
        "positions": positions_T.expand_as(tokens_BT),
        "mask": mask,
    }
    local = nn.Local(leads=True, vocab_start=0, vocab_stop=model.vocab)
    for block in model.blocks:
        for segment in block.segments:
            if segment.name == "sums":
                break
            if block.kind is BlockKind.HEAD and last and segment.name == "norm":
                x_BTE = values["x"]
                assert isinstance(x_BTE, Tensor)
                values["x"] = x_BTE[:, -1:]
            values |= nn.run(
                segment,
                model=model,
                layer=block.layer,
                parameters=parameters,
                values=values,
                local=local,
            )
    logits_BTV = values["logits"]
    assert isinstance(logits_BTV, Tensor)
    return logits_BTV


def generate(
    model: Model,
    parameters: Mapping[str, Tensor],
    prompt: Sequence[int],
    *,
    tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Collection[int] = (),
) -> Iterator[int]:
    """Give the tokens that follow a prompt, one by one as they come.

    Args:
        model: The model.
        parameters: Every parameter, whole, by name, on one device.
        prompt: At least one token.
        tokens: The most to give; the positions of the model may end before.
        temperature: Logits are divided by it; 0 takes the likeliest token each time.
        top_p: Only the likeliest tokens, together this probable, are drawn from (Holtzman et al.,
            2020).
        seed: The same seed gives the same tokens.
        stop: Tokens that end the text; not given.

    Raises:
        InputError: All that is wrong with the request.
    """
    problems = list(_problems(model, prompt, temperature=temperature, top_p=top_p))
    if problems:
        raise InputError(problems)
    return _tokens(
        model,
        parameters,
        prompt,
        tokens=min(tokens, model.positions - len(prompt)),
        choose=_chooser(temperature=temperature, top_p=top_p, seed=seed),
        stop=stop,
    )


def _problems(
    model: Model, prompt: Sequence[int], *, temperature: float, top_p: float
) -> Iterator[Problem]:
    if not prompt:
        yield Problem("prompt", "has no token", "begin with one, or with the end-of-text token")
    if len(prompt) >= model.positions:
        rule = f"has {len(prompt)} tokens, and the model {model.positions} positions"
        yield Problem("prompt", rule, f"use at most {model.positions - 1} tokens")
    strange = sorted({t for t in prompt if not 0 <= t < model.vocab})
    if strange:
        rule = f"has tokens {strange[:4]} outside the vocabulary of {model.vocab}"
        yield Problem("prompt", rule, "use the tokenizer of the model")
    if not temperature >= 0:
        yield Problem("temperature", f"is {temperature}, below 0", "use 0 or more")
    if not 0 < top_p <= 1:
        yield Problem("top_p", f"must be above 0 and at most 1, is {top_p}", "use 1 for all")


def _tokens(
    model: Model,
    parameters: Mapping[str, Tensor],
    prompt: Sequence[int],
    *,
    tokens: int,
    choose: Callable[[Tensor], int],
    stop: Collection[int],
) -> Iterator[int]:
    weight = parameters["embedding.token"]
    length = len(prompt) + tokens
    cache = empty_cache(model, positions=length, device=weight.device, dtype=weight.dtype)
    new = list(prompt)
    for _ in range(tokens):
        mask = nn.attention_input(
            model,
            positions=len(new),
            documents_BT=None,
            device=weight.device,
            dtype=weight.dtype,
            start=cache.start,
            length=length,
            cache=cache,
        )
        tokens_BT = torch.tensor([new], device=weight.device)
        with torch.no_grad():
            logits_BTV = forward(
                model, parameters, tokens_BT, mask=mask, start=cache.start, last=True
            )
        cache.start += len(new)
        new = [choose(logits_BTV[0, -1])]
        if new[0] in stop:
            return
        yield new[0]


def _chooser(*, temperature: float, top_p: float, seed: int) -> Callable[[Tensor], int]:
    """Give a function from logits (V) to a token; it draws from its own random numbers."""
    generator = torch.Generator().manual_seed(seed)

    def choose(logits_V: Tensor) -> int:
        if temperature == 0:
            return int(logits_V.argmax())
        scaled_V = logits_V.to("cpu", torch.float64)
        scaled_V = (scaled_V - scaled_V.max()) / temperature
        share_V, order_V = scaled_V.softmax(-1).sort(descending=True, stable=True)
        below_V = share_V.cumsum(-1) - share_V
        share_V = share_V.where(below_V < top_p, 0)
        at = torch.rand((), generator=generator, dtype=torch.float64) * share_V.sum()
        index = int(torch.searchsorted(share_V.cumsum(-1), at, right=True))
        return int(order_V[min(index, int(share_V.count_nonzero()) - 1)])

    return choose


def text_of(tokens: Iterable[int], decode: Callable[[Sequence[int]], str]) -> Iterator[str]:
    """Give the text of tokens as they come, never part of a character.

    Args:
        tokens: Tokens.
        decode: Gives the text of several; bytes that are no character yet come out as U+FFFD.
    """
    ids: list[int] = []
    # Decoding begins a piece early, since how a token reads may depend on the one before.
    context = shown = 0
    for token in tokens:
        ids.append(token)
        before, now = decode(ids[context:shown]), decode(ids[context:])
        if len(now) > len(before) and not now.endswith("\ufffd"):
            yield now[len(before) :]
            context, shown = shown, len(ids)
    rest = decode(ids[context:])[len(decode(ids[context:shown])) :]
    if rest:
        yield rest
