"""The cheapest choice of spans: as good as any."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from stretto.search.partition import Choices, cheapest


def drawn(random: np.random.Generator) -> Choices:
    """Give choices of which any span may be without a way."""
    ranks = int(random.integers(1, 4))
    layers, ways = int(random.integers(ranks, 7)), int(random.integers(1, 4))
    sizes = np.arange(layers + 1)
    spans = [(i, n) for i in range(layers + 1) for n in sizes if i + n <= layers]
    kinds = np.full((layers + 1, layers + 1), -1)
    for number, (first, size) in enumerate(spans):
        kinds[first, size] = number
    shape = (ranks, len(spans), ways)
    cannot = random.random(shape) < 0.3
    spread, peak = (
        np.where(cannot, np.inf, random.integers(0, 20, shape).astype(float)) for _ in range(2)
    )
    return Choices(spread, peak, sizes, kinds)


def least(choices: Choices) -> float:
    """Give the least sum of spreads and greatest peak of all that can be chosen."""
    ranks, _, ways = choices.spread.shape
    found = np.inf
    for inner in itertools.combinations_with_replacement(range(choices.layers + 1), ranks - 1):
        stops = itertools.pairwise((0, *inner, choices.layers))
        kinds = [choices.kinds[a, b - a] for a, b in stops]
        for chosen in itertools.product(range(ways), repeat=ranks):
            places = (np.arange(ranks), kinds, chosen)
            found = min(found, choices.spread[places].sum() + choices.peak[places].max())
    return float(found)


@pytest.mark.parametrize("seed", range(150))
def test_no_choice_is_cheaper(seed: int) -> None:
    choices = drawn(np.random.default_rng(seed))
    picks = cheapest(choices)
    expected = least(choices)
    if not picks:
        assert expected == np.inf
        return
    places = tuple(np.array([(r, p.kind, p.way) for r, p in enumerate(picks)]).T)
    assert choices.spread[places].sum() + choices.peak[places].max() == expected


@pytest.mark.parametrize("seed", range(30))
def test_the_spans_follow_each_other_and_have_all_layers(seed: int) -> None:
    choices = drawn(np.random.default_rng(seed))
    picks = cheapest(choices)
    if picks:
        assert [p.first for p in picks] == [0, *(p.stop for p in picks[:-1])]
        assert picks[-1].stop == choices.layers
