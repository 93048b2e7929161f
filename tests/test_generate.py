from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stretto import nn
from stretto.errors import InputError
from stretto.model import Model, Rope
from stretto.presets import preset
from stretto.runtime.generate import empty_cache, forward, generate, text_of

CPU = torch.device("cpu")
LLAMA = replace(preset("tiny"), vocab=50, positions=24, rope=Rope(theta=100.0))
MODELS = {
    "llama": LLAMA,
    "gpt2": replace(
        preset("gpt2"),
        layers=2, embed=24, heads=3, kv_heads=3, head_dim=8, ff=40, vocab=50, positions=24,
    ),
    "window": replace(LLAMA, family="qwen3", qk_norm=True, layers=3, window=4, full_layers=(1,)),
    "longrope": replace(
        LLAMA,
        rope=Rope(
            scaling="longrope", factor=2.0, original_positions=8,
            long_factor=(4.0,) * 4, short_factor=(1.0,) * 4,
        ),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_parameters(model: Model, *, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        p.name: torch.randn(model.shape(p), generator=generator, dtype=torch.float64) * 0.3
        + p.constant
        for p in model.parameters
    }


def uncached(model: Model, parameters: dict[str, Tensor], tokens: Sequence[int]) -> Tensor:
    """Give the logits (T, V) of a whole sequence at once."""
    mask = nn.attention_input(
        model,
        positions=len(tokens),
        documents_BT=None,
        device=CPU,
        dtype=torch.float64,
        length=model.positions,
    )
    with torch.no_grad():
        return forward(model, parameters, torch.tensor([tokens]), mask=mask)[0]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
@given(first=st.integers(1, 12))
def test_cached_logits_are_the_uncached_ones(model: Model, first: int) -> None:
    parameters = random_parameters(model)
    tokens = torch.randint(0, 50, (16,), generator=torch.Generator().manual_seed(3)).tolist()
    cache = empty_cache(model, positions=24, device=CPU, dtype=torch.float64)
    rows = []
    for part in [tokens[:first], *([t] for t in tokens[first:])]:
        mask = nn.attention_input(
            model,
            positions=len(part),
            documents_BT=None,
            device=CPU,
            dtype=torch.float64,
            start=cache.start,
            length=24,
            cache=cache,
        )
        rows.append(
            forward(model, parameters, torch.tensor([part]), mask=mask, start=cache.start)[0]
        )
        cache.start += len(part)
    expected = uncached(model, parameters, tokens)
    torch.testing.assert_close(torch.cat(rows), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_temperature_zero_takes_the_likeliest_token_each_time(model: Model) -> None:
    parameters = random_parameters(model)
    tokens = [7, 1, 4]
    # As many tokens as there are positions, so that frequencies are those of the longest text.
    found = list(generate(model, parameters, tokens, tokens=21, temperature=0))
    for token in found:
        assert token == int(uncached(model, parameters, tokens)[-1].argmax())
        tokens.append(token)
    assert len(found) == 21


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others() -> None:
    parameters = random_parameters(LLAMA)
    one, same, other = (
        list(generate(LLAMA, parameters, [1], tokens=20, temperature=2.0, seed=seed))
        for seed in (5, 5, 6)
    )
    assert one == same != other


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    parameters = random_parameters(LLAMA)
    expected = (uncached(LLAMA, parameters, [1])[-1] / 1.5).softmax(-1)
    draws = [
        next(generate(LLAMA, parameters, [1], tokens=1, temperature=1.5, seed=seed))
        for seed in range(400)
    ]
    found = torch.tensor(draws).bincount(minlength=50) / 400
    # Five standard deviations of a share in 400 draws.
    assert (
        (found - expected).abs() <= 5 * (expected * (1 - expected) / 400).sqrt() + 1 / 400
    ).all()


def test_top_p_draws_only_from_the_fewest_likely_tokens_that_reach_it() -> None:
    parameters = random_parameters(LLAMA)
    share, order = uncached(LLAMA, parameters, [1])[-1].softmax(-1).sort(descending=True)
    count = int((share.cumsum(-1) < 0.6).sum()) + 1
    drawn = {
        next(generate(LLAMA, parameters, [1], tokens=1, top_p=0.6, seed=seed))
        for seed in range(300)
    }
    assert drawn <= set(order[:count].tolist())
    assert len(drawn) > 1
    least = {
        next(generate(LLAMA, parameters, [1], tokens=1, top_p=1e-9, seed=seed)) for seed in range(9)
    }
    assert least == {int(order[0])}


def test_the_token_that_ends_the_text_is_not_given_and_nothing_after_it() -> None:
    parameters = random_parameters(LLAMA)
    found = list(generate(LLAMA, parameters, [1], tokens=20, temperature=0))
    stop = found[4]
    ended = list(generate(LLAMA, parameters, [1], tokens=20, temperature=0, stop={stop}))
    assert ended == found[: found.index(stop)]


def test_a_text_ends_where_the_positions_of_the_model_end() -> None:
    parameters = random_parameters(LLAMA)
    assert len(list(generate(LLAMA, parameters, [1] * 20, tokens=99))) == 4


def test_tokens_come_one_by_one() -> None:
    parameters = random_parameters(LLAMA)
    found = generate(LLAMA, parameters, [1], tokens=2, temperature=0)
    before = next(found)
    expected = uncached(LLAMA, parameters, [1, before])[-1]
    parameters["head.norm.weight"].neg_()  # what is computed only now sees this
    assert next(found) == int(expected.argmin())


def test_all_that_is_wrong_with_a_request_is_listed_before_anything_is_computed() -> None:
    with pytest.raises(InputError) as caught:
        generate(LLAMA, {}, [1] * 24 + [50], tokens=1, temperature=-1, top_p=0)
    assert [str(p) for p in caught.value.problems] == [
        "prompt: has 25 tokens, and the model 24 positions; use at most 23 tokens",
        "prompt: has tokens [50] outside the vocabulary of 50; use the tokenizer of the model",
        "temperature: is -1, below 0; use 0 or more",
        "top_p: must be above 0 and at most 1, is 0; use 1 for all",
    ]
    with pytest.raises(InputError, match="prompt: has no token; begin with one"):
        generate(LLAMA, {}, [], tokens=1)


# Text


def decode(tokens: Sequence[int]) -> str:
    """Decode tokens that are bytes."""
    return bytes(tokens).decode(errors="replace")


@given(st.text())
def test_pieces_of_text_join_to_the_whole_whatever_the_bytes_of_its_characters(text: str) -> None:
    assert "".join(text_of(text.encode(), decode)) == text


@given(st.text(st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"])))
def test_no_piece_is_part_of_a_character_and_none_waits_longer_than_it_must(text: str) -> None:
    assert list(text_of(text.encode(), decode)) == list(text)


@given(st.binary())
def test_bytes_that_are_no_text_come_out_as_decoded_together(tokens: bytes) -> None:
    assert "".join(text_of(tokens, decode)) == decode(tokens)


def test_a_decoder_that_drops_the_first_space_joins_alike() -> None:
    words = [" In", " the", " beginning", ",", " God"]
    pieces = list(text_of(range(5), lambda ids: "".join(words[i] for i in ids).removeprefix(" ")))
    assert pieces == ["In", " the", " beginning", ",", " God"]
