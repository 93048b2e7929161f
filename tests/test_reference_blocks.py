"""Segments: values against loops over their definitions, backward against differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from stretto.model import Block, BlockKind, Model, Rope, Segment
from stretto.reference.arrays import Array
from stretto.reference.blocks import IGNORE, Local, run
from stretto.reference.rope import rotation

B, T = 2, 5
GPT = Model(
    "gpt", 2, 6, 4, 4, 2, 5, 7, 8, norm="layer", rope=None, activation="gelu_tanh", gated=False,
    qkv_bias=True, out_bias=True, ff_bias=True, tied=True, init_std=0.5,
)  # fmt: skip
LLAMA = Model("llama", 2, 6, 6, 2, 4, 5, 7, 8, init_std=0.5)
MODELS = {
    "gpt": GPT,
    "llama": LLAMA,
    "mistral": replace(LLAMA, window=2, full_layers=(1,)),
    "qwen": replace(LLAMA, qkv_bias=True, qk_norm=True),
    "gelu": replace(LLAMA, activation="gelu"),
    "relu": replace(GPT, activation="relu", norm="rms", rope=Rope()),
    "relu2": replace(LLAMA, activation="relu2"),
    "biases": replace(LLAMA, ff_bias=True, out_bias=True, activation="gelu_tanh"),
    "yarn": replace(LLAMA, rope=Rope(100.0, "yarn", 2.0, 4)),
}


def local(model: Model, layer: int = 0) -> Local:
    return Local(model, layer, True, (0, model.vocab), model.heads // model.kv_heads)


def drawn(model: Model, block: Block, *, seed: int) -> dict[str, Array]:
    """Parameters of a block: what is constant at first is near that."""
    rng = np.random.default_rng(seed)
    return {p.name: rng.normal(p.constant, p.std or 0.3, model.shape(p)) for p in block.parameters}


def given(model: Model, segments: Sequence[Segment], *, seed: int) -> dict[str, Array]:
    """Values that segments read: real ones drawn, ids within range, three documents."""
    rng = np.random.default_rng(seed)
    sizes = {"batch": B, "seq": T, "time": T, **model.sizes}
    reads = {v.name: v for s in segments for v in s.reads}
    values = {n: rng.normal(size=[sizes[d] for d in v.dims]) for n, v in reads.items()}
    ids = {
        "tokens": rng.integers(0, model.vocab, (B, T)),
        "targets": np.where(rng.random((B, T)) < 0.3, IGNORE, rng.integers(0, model.vocab, (B, T))),
        "positions": rng.integers(0, model.positions, (B, T)),
        "mask": np.array([[0, 0, 0, 0, 0], [0, 0, 1, 1, 2]]),
        "total": 1 + rng.random((B, T)),
    }
    return values | {name: array for name, array in ids.items() if name in values}


def assert_backward(
    parts: list[tuple[Segment, Local]], parameters: dict[str, Array], values: dict[str, Array]
) -> None:
    """Compare the pullback with central differences, element by element."""
    segments = [segment for segment, _ in parts]
    made = {v.name for s in segments for v in s.writes}
    ends = [v for v in segments[-1].writes if v.kind == "real"]
    reads = {v.name for s in segments for v in s.reads if v.kind == "real" and v.name in values}
    written, pull = run(parts, parameters=parameters, values=values)
    rng = np.random.default_rng(7)
    weights = {
        v.name: np.where(np.isfinite(written[v.name]), rng.normal(size=written[v.name].shape), 0)
        for v in ends
    }

    def total() -> float:
        now, _ = run(parts, parameters=parameters, values=values)
        return sum(
            float(np.where(w == 0, 0, now[n]).ravel() @ w.ravel()) for n, w in weights.items()
        )

    cotangents, gradients = pull(parameters, weights)
    assert reads <= set(cotangents) <= reads | made
    assert set(gradients) == set(parameters)
    found = {**gradients, **{n: cotangents[n] for n in reads}}
    for name, analytic in found.items():
        array = (parameters if name in parameters else values)[name]
        assert analytic.shape == array.shape
        numeric, step = np.zeros(array.shape), 1e-5
        for place in np.ndindex(array.shape):
            kept = array[place]
            array[place] = kept + step
            above = total()
            array[place] = kept - step
            numeric[place] = (above - total()) / (2 * step)
            array[place] = kept
        np.testing.assert_allclose(analytic, numeric, rtol=1e-6, atol=1e-8, err_msg=name)


def blocks(model: Model) -> list[Block]:
    """The blocks that differ in what they compute."""
    chain = model.blocks
    layers = (0, 1) if model.full_layers else (0,)
    return [chain[0], *(chain[1 + 2 * i] for i in layers), chain[2], chain[-1]]


# ── backward ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", MODELS)
def test_the_backward_of_every_segment_is_its_derivative(name: str) -> None:
    model = MODELS[name]
    for block in blocks(model):
        parameters = drawn(model, block, seed=0)
        for segment in block.segments:
            own = {p.name: parameters[p.name] for p in segment.parameters}
            values = given(model, [segment], seed=1)
            assert_backward([(segment, local(model, block.layer))], own, values)


@pytest.mark.parametrize("kind", [BlockKind.ATTENTION, BlockKind.HEAD])
@pytest.mark.parametrize("name", ["gpt", "qwen"])
def test_the_backward_of_a_whole_block_is_its_derivative(name: str, kind: BlockKind) -> None:
    # the residual stream is read twice; nothing flows through the peak, and nothing should
    model = MODELS[name]
    block = next(b for b in model.blocks if b.kind is kind)
    values = given(model, block.segments, seed=1)
    made = {v.name for s in block.segments for v in s.writes} - {"x"}
    values = {n: v for n, v in values.items() if n not in made}
    parts = [(s, local(model, block.layer)) for s in block.segments]
    assert_backward(parts, drawn(model, block, seed=0), values)


@pytest.mark.parametrize("name", ["gpt", "biases"])
def test_the_backward_of_a_rank_that_does_not_lead_is_the_derivative_too(name: str) -> None:
    model = MODELS[name]
    for block in blocks(model)[:3]:
        segment = next(s for s in block.segments if s.name in ("lookup", "attend", "transform"))
        parameters = {p.name: drawn(model, block, seed=0)[p.name] for p in segment.parameters}
        follower = replace(local(model), leads=False)
        assert_backward([(segment, follower)], parameters, given(model, [segment], seed=1))


def test_the_backward_of_padded_blocks_is_the_derivative_too() -> None:
    model = MODELS["qwen"]
    for kind in (BlockKind.EMBEDDING, BlockKind.ATTENTION, BlockKind.HEAD):
        block = next(b for b in model.blocks if b.kind is kind)
        for segment in block.segments:
            if "logits" in {v.name for v in segment.reads}:
                continue  # what is padded there is infinite
            own = {p.name: drawn(model, block, seed=0)[p.name] for p in segment.parameters}
            cut = replace(local(model), vocab=(3, 8), groups=2)
            assert_backward([(segment, cut)], own, given(model, [segment], seed=1))


# ── values ───────────────────────────────────────────────────────────────────────────────────────


def one(
    model: Model, kind: BlockKind, name: str, *, layer: int = 0
) -> tuple[Segment, dict[str, Array]]:
    """A segment and parameters of it by the last part of their names."""
    block = next(b for b in model.blocks if b.kind is kind and b.layer in (-1, layer))
    segment = next(s for s in block.segments if s.name == name)
    return segment, {p.name: drawn(model, block, seed=0)[p.name] for p in segment.parameters}


def short(parameters: dict[str, Array]) -> dict[str, Array]:
    return {name.rpartition(".")[2]: array for name, array in parameters.items()}


@pytest.mark.parametrize(("window", "full"), [(0, ()), (2, ()), (2, (0,))])
def test_attention_is_what_loops_over_its_definition_give(window: int, full: tuple[int]) -> None:
    model = replace(MODELS["qwen"], window=window, full_layers=full, out_bias=True)
    segment, parameters = one(model, BlockKind.ATTENTION, "attend")
    values, own = given(model, [segment], seed=1), short(parameters)
    written, _ = run([(segment, local(model))], parameters=parameters, values=values)
    cos, sin = rotation(model, positions=T)

    def head(weight: Array, bias: Array, n: Array) -> Array:
        return np.array([row @ n for row in weight]) + bias

    def normed(x: Array, weight: Array) -> Array:
        return x / math.sqrt(sum(v * v for v in x) / len(x) + model.norm_eps) * weight

    def turn(x: Array, t: int) -> Array:
        half = len(x) // 2
        pairs = [
            (x[i] * cos[t, i] - x[i + half] * sin[t, i], x[i + half] * cos[t, i] + x[i] * sin[t, i])
            for i in range(half)
        ]
        return np.array([a for a, _ in pairs] + [b for _, b in pairs])

    def key(n: Array, k: int, s: int) -> Array:
        raw = head(own["key_value"][0, k], own["key_value_bias"][0, k], n)
        return turn(normed(raw, own["key_norm"]), s)

    near = T if not window or full else window
    for b, t in itertools.product(range(B), range(T)):
        n = values["n"][b]
        wanted = own["out_bias"].copy()
        for k, g in itertools.product(range(2), range(3)):
            raw = head(own["query"][k, g], own["query_bias"][k, g], n[t])
            q = turn(normed(raw, own["query_norm"]), t)
            seen = [
                s for s in range(T)
                if t - near < s <= t and values["mask"][b, s] == values["mask"][b, t]
            ]  # fmt: skip
            scores = [math.exp(q @ key(n[s], k, s) / math.sqrt(4)) for s in seen]
            y = sum(
                score
                / sum(scores)
                * head(own["key_value"][1, k], own["key_value_bias"][1, k], n[s])
                for s, score in zip(seen, scores, strict=True)
            )
            wanted += own["out"][:, k, g] @ y
        np.testing.assert_allclose(written["d"][b, t], wanted, rtol=1e-10, atol=1e-12)


ACTIVATIONS = {
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: max(x, 0.0),
    "relu2": lambda x: max(x, 0.0) ** 2,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gated", [True, False])
def test_feed_forward_is_what_its_definition_gives(activation: str, gated: bool) -> None:
    model = replace(LLAMA, activation=activation, gated=gated, ff_bias=True)
    segment, parameters = one(model, BlockKind.FEED_FORWARD, "transform")
    values, own = given(model, [segment], seed=1), short(parameters)
    written, _ = run([(segment, local(model))], parameters=parameters, values=values)
    act = np.vectorize(ACTIVATIONS[activation])
    n = values["n"][1, 3]
    if gated:
        gate, up = (own["up"][i] @ n + own["up_bias"][i] for i in range(2))
        hidden = act(gate) * up
    else:
        hidden = act(own["up"] @ n + own["up_bias"])
    wanted = own["down"] @ hidden + own["down_bias"]
    np.testing.assert_allclose(written["d"][1, 3], wanted, rtol=1e-12)


def test_norms_are_what_their_definitions_give() -> None:
    x = np.array([[[1.0, 2.0, 3.0, 6.0]]])
    rms, layer = (replace(LLAMA, embed=4, norm=norm, norm_eps=0.5) for norm in ("rms", "layer"))
    results = []
    for model in (rms, layer):
        segment, parameters = one(model, BlockKind.HEAD, "norm")
        own = {n: np.arange(4.0) + n.endswith("bias") for n in parameters}
        written, _ = run([(segment, local(model))], parameters=own, values={"x": x})
        results.append(written["n"][0, 0])
    # mean square 12.5; mean 3, variance 3.5
    np.testing.assert_allclose(results[0], np.array([0, 2, 6, 18]) / math.sqrt(13))
    np.testing.assert_allclose(results[1], np.array([0, -1, 0, 9]) / 2 + np.arange(4) + 1)


def test_the_loss_over_a_split_vocabulary_is_the_cross_entropy() -> None:
    model, rng = LLAMA, np.random.default_rng(0)
    n, targets = rng.normal(size=(B, T, 6)), rng.integers(0, 7, (B, T))
    targets[0, 1] = IGNORE
    weight = rng.normal(size=(7, 6))
    (_, logits, sums, loss) = model.blocks[-1].segments
    padded = np.concatenate((weight, np.zeros((2, 6))))
    parts = []
    for start in (0, 3, 6):  # two of the last three rows are padding
        cut = replace(local(model), vocab=(start, min(start + 3, 7)))
        own = {"head.weight": padded[start : start + 3]}
        parts.append((cut, run([(logits, cut)], parameters=own, values={"n": n})[0]))
    peak = np.max([written["peak"] for _, written in parts], axis=0)
    halves = [
        run([(sums, cut)], parameters={}, values={**written, "peak": peak, "targets": targets})[0]
        for cut, written in parts
    ]
    whole = {name: sum(half[name] for half in halves) for name in ("total", "hit")}
    values = {**whole, "peak": peak, "targets": targets}
    written, _ = run([(loss, local(model))], parameters={}, values=values)
    scores = np.exp(n @ weight.T)
    wanted = -sum(
        math.log(scores[b, t, targets[b, t]] / scores[b, t].sum())
        for b, t in itertools.product(range(B), range(T))
        if targets[b, t] != IGNORE
    )
    assert float(written["loss"]) == pytest.approx(wanted, rel=1e-12)


def test_lookup_gives_zero_for_tokens_that_lie_elsewhere_and_adds_positions_where_it_leads() -> (
    None
):
    segment, _ = one(GPT, BlockKind.EMBEDDING, "lookup")
    own = {"embedding.token": np.full((4, 6), 2.0), "embedding.position": np.eye(8, 6)}
    values = {"tokens": np.array([[2, 3, 6, 1]]), "positions": np.array([[0, 1, 2, 3]])}
    for leads in (True, False):
        cut = replace(local(GPT), vocab=(3, 7), leads=leads)
        written, _ = run([(segment, cut)], parameters=own, values=values)
        wanted = np.array([0, 2, 2, 0])[:, None] + leads * np.eye(4, 6)
        assert written["x"][0].tolist() == wanted.tolist()


def test_padded_query_heads_add_nothing_though_they_attend_to_real_keys() -> None:
    segment, parameters = one(LLAMA, BlockKind.ATTENTION, "attend")
    values = given(LLAMA, [segment], seed=1)
    kept = run([(segment, local(LLAMA))], parameters=parameters, values=values)[0]["d"]
    wide = {
        name: np.concatenate((array, np.full(array[:, :1].shape, 9.0)), axis=1)
        if name.endswith("query")
        else np.concatenate((array, np.full(array[:, :, :1].shape, 9.0)), axis=2)
        if name.endswith("out")
        else array
        for name, array in parameters.items()
    }
    padded, pull = run([(segment, local(LLAMA))], parameters=wide, values=values)
    np.testing.assert_allclose(padded["d"], kept, rtol=1e-12)
    _, gradients = pull(wide, {"d": np.ones(kept.shape)})
    own = short(gradients)
    assert not own["query"][:, 3].any() and not own["out"][:, :, 3].any()
