from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_mask
from torch.utils.flop_counter import FlopCounterMode

from stretto import nn
from stretto.errors import ModelError
from stretto.model import Block, BlockKind, Model, Rope, Segment
from stretto.presets import preset

CPU = torch.device("cpu")
TINY = preset("tiny")
GPT2 = replace(
    preset("gpt2"),
    layers=2, embed=24, heads=3, kv_heads=3, head_dim=8, ff=40, vocab=50, positions=32,
)  # fmt: skip
LLAMA = replace(TINY, vocab=50, rope=Rope(theta=100.0))
MODELS = {
    "gpt2": GPT2,
    "gpt2-relu-untied": replace(GPT2, activation="relu", tied=False),
    "llama": LLAMA,
    "llama-biases": replace(LLAMA, qkv_bias=True, out_bias=True, ff_bias=True, tied=True),
    "llama-gelu": replace(LLAMA, activation="gelu", kv_heads=1),
    "llama-relu2": replace(LLAMA, activation="relu2", gated=False),
    "llama-yarn": replace(LLAMA, rope=Rope(scaling="yarn", factor=4.0, original_positions=16)),
    "qwen3-window": replace(
        LLAMA, family="qwen3", qk_norm=True, layers=3, window=5, full_layers=(1,)
    ),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_parameters(
    model: Model, *, dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, Tensor]:
    """Give leaves in which nothing is zero or one, so that nothing can hide."""
    generator = torch.Generator().manual_seed(seed)
    return {
        p.name: (torch.randn(model.shape(p), generator=generator) * 0.3 + p.constant)
        .to(dtype)
        .requires_grad_()
        for p in model.parameters
    }


def batch(model: Model, *, rows: int = 2, length: int = 12) -> tuple[Tensor, Tensor]:
    """Give tokens and targets, some of the latter ignored."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, model.vocab, (rows, length + 1), generator=generator)
    targets = tokens[:, 1:].masked_fill(torch.arange(length) % 5 == 3, nn.IGNORE)
    return tokens[:, :-1], targets


def whole(model: Model) -> nn.Local:
    return nn.Local(leads=True, vocab_start=0, vocab_stop=model.vocab)


def run_all(
    model: Model,
    parameters: Mapping[str, Tensor],
    tokens: Tensor,
    targets: Tensor,
    *,
    documents: Tensor | None = None,
    positions: Tensor | None = None,
) -> dict[str, Tensor]:
    """Run every segment in order on one rank; give all values and, before they go, the logits."""
    dtype = next(iter(parameters.values())).dtype
    if positions is None:
        positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    mask = nn.attention_input(
        model, positions=tokens.shape[1], documents_BT=documents, device=CPU, dtype=dtype
    )
    values: dict[str, Tensor | nn.AttentionInput] = {
        "tokens": tokens, "targets": targets, "positions": positions, "mask": mask
    }  # fmt: skip
    for block in model.blocks:
        for segment in block.segments:
            if segment.name == "sums":
                logits = values["logits"]
                assert isinstance(logits, Tensor)
                values["kept"] = logits.detach().clone()
            values |= nn.run(
                segment,
                model=model,
                layer=block.layer,
                parameters=parameters,
                values=values,
                local=whole(model),
            )
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


# A second implementation, as plain as can be, to compare with


def naive_loss(model: Model, p: Mapping[str, Tensor], tokens: Tensor, targets: Tensor) -> Tensor:
    length = tokens.shape[1]
    x = p["embedding.token"][tokens]
    if model.rope is None:
        x = x + p["embedding.position"][:length]
    for i in range(model.layers):
        a, f = f"layers.{i}.attention", f"layers.{i}.feed_forward"
        x = x + naive_attention(model, p, naive_norm(model, p, f"{a}.norm", x), i)
        n = naive_norm(model, p, f"{f}.norm", x)
        act = {
            "silu": lambda z: z / (1 + torch.exp(-z)),
            "relu": lambda z: torch.clamp(z, min=0),
            "relu2": lambda z: torch.clamp(z, min=0) ** 2,
            "gelu": lambda z: z * (1 + torch.erf(z / math.sqrt(2))) / 2,
            "gelu_tanh": lambda z: (
                z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2
            ),
        }[model.activation]
        up = p[f"{f}.up"]
        up_bias = p.get(f"{f}.up_bias", torch.zeros(up.shape[:-1], dtype=up.dtype))
        h = torch.einsum("bte,...fe->...btf", n, up)
        h = act(h[0] + up_bias[0]) * (h[1] + up_bias[1]) if model.gated else act(h + up_bias)
        x = x + torch.einsum("btf,ef->bte", h, p[f"{f}.down"]) + p.get(f"{f}.down_bias", 0.0)
    head = p["embedding.token" if model.tied else "head.weight"]
    logits = torch.einsum("bte,ve->btv", naive_norm(model, p, "head.norm", x), head)
    log_p = logits - torch.logsumexp(logits, -1, keepdim=True)
    return -sum((log_p[b, t, v] for (b, t), v in naive_targets(targets)), start=torch.tensor(0.0))


def naive_targets(targets: Tensor) -> Iterator[tuple[tuple[int, int], int]]:
    for b, row in enumerate(targets.tolist()):
        yield from (((b, t), v) for t, v in enumerate(row) if v >= 0)


def naive_norm(model: Model, p: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    if model.norm == "layer":
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + model.norm_eps)
        return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + model.norm_eps) * p[f"{name}.weight"]


def naive_attention(model: Model, p: Mapping[str, Tensor], n: Tensor, layer: int) -> Tensor:
    a = f"layers.{layer}.attention"
    q = torch.einsum("bte,kghe->bkgth", n, p[f"{a}.query"])
    kv = torch.einsum("bte,pkhe->pbkth", n, p[f"{a}.key_value"])
    if model.qkv_bias:
        q = q + p[f"{a}.query_bias"][:, :, None]
        kv = kv + p[f"{a}.key_value_bias"][:, None, :, None]
    k, v = kv[0], kv[1]
    if model.qk_norm:
        q = q / torch.sqrt((q**2).mean(-1, keepdim=True) + model.norm_eps)
        k = k / torch.sqrt((k**2).mean(-1, keepdim=True) + model.norm_eps)
        q, k = q * p[f"{a}.query_norm"], k * p[f"{a}.key_norm"]
    if model.rope is not None:
        q, k = naive_rotation(model, q), naive_rotation(model, k)
    scores = torch.einsum("bkgth,bksh->bkgts", q, k) / math.sqrt(model.head_dim)
    window = model.window if model.window and layer not in model.full_layers else 10**9
    t = torch.arange(n.shape[1])
    seen = (t[:, None] >= t) & (t[:, None] - t < window)
    weights = torch.softmax(scores.masked_fill(~seen, -math.inf), -1)
    y = torch.einsum("bkgts,bksh->btkgh", weights, v)
    return torch.einsum("btkgh,ekgh->bte", y, p[f"{a}.out"]) + p.get(f"{a}.out_bias", 0.0)


def naive_rotation(model: Model, x: Tensor) -> Tensor:
    frequencies, factor = nn.rope_frequencies(model, length=x.shape[-2])
    angle = torch.arange(x.shape[-2])[:, None] * torch.tensor(frequencies, dtype=torch.float64)
    first, second = x.chunk(2, -1)
    turned = torch.complex(first, second) * torch.polar(torch.full_like(angle, factor), angle)
    return torch.cat((turned.real, turned.imag), -1)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_loss_and_every_gradient_are_those_of_a_naive_implementation(model: Model) -> None:
    ours, theirs = random_parameters(model), random_parameters(model)
    tokens, targets = batch(model)
    loss = run_all(model, ours, tokens, targets)["loss"]
    expected = naive_loss(model, theirs, tokens, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    loss.backward()
    expected.backward()
    for name, parameter in ours.items():
        torch.testing.assert_close(
            parameter.grad, theirs[name].grad, rtol=1e-9, atol=1e-11, msg=name
        )


def test_low_precision_is_near_the_exact_loss_and_sums_it_in_float32() -> None:
    exact = random_parameters(LLAMA)
    tokens, targets = batch(LLAMA)
    expected = run_all(LLAMA, exact, tokens, targets)["loss"]
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        parameters = {n: t.detach().to(dtype).requires_grad_() for n, t in exact.items()}
        values = run_all(LLAMA, parameters, tokens, targets)
        assert values["logits"].dtype == dtype
        assert {values[n].dtype for n in ("peak", "total", "hit", "loss")} == {torch.float32}
        torch.testing.assert_close(values["loss"].double(), expected, rtol=tolerance, atol=0)
        values["loss"].backward()
        assert all(t.grad is not None and t.grad.dtype == dtype for t in parameters.values())


# Documents and windows


@pytest.mark.parametrize(
    "model", [LLAMA, MODELS["qwen3-window"], GPT2], ids=["llama", "window", "gpt2"]
)
@given(cuts=st.sets(st.integers(1, 11), max_size=4), at=st.integers(0, 11))
def test_a_token_moves_no_logit_of_another_document(model: Model, cuts: set[int], at: int) -> None:
    documents = torch.tensor([[sum(cut <= t for cut in cuts) for t in range(12)]])
    parameters = random_parameters(model)
    tokens, targets = batch(model, rows=1)
    changed = tokens.clone()
    changed[0, at] = (changed[0, at] + 1) % model.vocab
    before, after = (
        run_all(model, parameters, t, targets, documents=documents)["kept"]
        for t in (tokens, changed)
    )
    others = documents[0] != documents[0, at]
    assert torch.equal(before[0, others], after[0, others])
    assert not torch.equal(before[0, at], after[0, at])


@pytest.mark.parametrize(
    "model", [LLAMA, MODELS["qwen3-window"], GPT2], ids=["llama", "window", "gpt2"]
)
def test_packed_documents_have_the_logits_that_each_has_alone(model: Model) -> None:
    parameters = random_parameters(model)
    tokens, targets = batch(model, rows=1)
    documents = torch.tensor([[7] * 5 + [3] * 7])
    positions = torch.tensor([[*range(5), *range(7)]])
    packed = run_all(model, parameters, tokens, targets, documents=documents, positions=positions)[
        "kept"
    ]
    alone = torch.cat(
        [
            run_all(model, parameters, tokens[:, part], targets[:, part])["kept"]
            for part in (slice(0, 5), slice(5, 12))
        ],
        dim=1,
    )
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-12)


def test_a_window_reaches_as_far_back_as_it_says() -> None:
    model = replace(LLAMA, layers=1, window=4, family="mistral")
    parameters = random_parameters(model)
    tokens, targets = batch(model, rows=1)
    changed = tokens.clone()
    changed[0, 3] = (changed[0, 3] + 1) % model.vocab
    before, after = (run_all(model, parameters, t, targets)["kept"] for t in (tokens, changed))
    moved = (before != after).any(-1)[0]
    assert moved.tolist() == [3 <= t < 3 + 4 for t in range(12)]


@pytest.mark.parametrize("window", [0, 5])
@pytest.mark.parametrize("packed", [True, False])
def test_the_block_mask_of_accelerators_allows_what_the_added_mask_does(
    window: int, packed: bool
) -> None:
    documents = torch.tensor([[0] * 5 + [1] * 7, [4] * 12]) if packed else None
    shared = {"window": window, "documents_BT": documents, "device": CPU, "dtype": torch.float32}
    added = nn._added(12, **shared)  # type: ignore[arg-type]
    blocks = nn._blocks(12, **shared)  # type: ignore[arg-type]
    assert isinstance(blocks, BlockMask)
    allowed = create_mask(blocks.mask_mod, added.shape[0], 1, 12, 12, device="cpu")
    assert torch.equal(allowed, added == 0)
    assert set(added.unique().tolist()) == {-math.inf, 0.0}


# Splitting


def shard(tensor: Tensor, dim: int, *, ranks: int, rank: int) -> Tensor:
    """Give a rank's block of a tensor that is padded with zeros to a multiple of the ranks."""
    size = math.ceil(tensor.shape[dim] / ranks)
    padding = [0, 0] * (tensor.dim() - dim - 1) + [0, size * ranks - tensor.shape[dim]]
    return F.pad(tensor.detach(), padding).narrow(dim, size * rank, size).clone().requires_grad_()


def compute(
    model: Model,
    segment: Segment,
    parameters: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    local: nn.Local,
) -> dict[str, Tensor]:
    length = next(iter(inputs.values())).shape[1]
    mask = nn.attention_input(
        model, positions=length, documents_BT=None, device=CPU, dtype=torch.float64
    )
    values: dict[str, Tensor | nn.AttentionInput] = {**inputs, "mask": mask}
    return nn.run(segment, model=model, layer=0, parameters=parameters, values=values, local=local)


def find(model: Model, name: str) -> tuple[Block, Segment]:
    return next((b, s) for b in model.blocks for s in b.segments if s.name == name)


@pytest.mark.parametrize(
    ("model", "name", "dim"),
    [
        (replace(LLAMA, heads=6, kv_heads=3), "attend", "kv_heads"),
        (replace(LLAMA, heads=6, kv_heads=3), "attend", "group"),
        (replace(LLAMA, heads=5, kv_heads=1, qkv_bias=True, out_bias=True), "attend", "group"),
        (replace(MODELS["qwen3-window"], heads=5, kv_heads=5), "attend", "kv_heads"),
        (GPT2, "attend", "kv_heads"),
        (replace(LLAMA, ff=7), "transform", "ff"),
        (replace(GPT2, ff=7), "transform", "ff"),
        (GPT2, "lookup", "vocab"),
        (replace(LLAMA, vocab=5), "lookup", "vocab"),
    ],
    ids=(
        "heads",
        "group",
        "one-key-head",
        "qk-norm",
        "gpt2-heads",
        "ff",
        "gpt2-ff",
        "gpt2-vocab",
        "vocab",
    ),
)
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_parts_over_ranks_add_up_to_the_whole_and_padding_gets_no_gradient(
    model: Model, name: str, dim: str, ranks: int
) -> None:
    _, segment = find(model, name)
    parameters = random_parameters(model)
    tokens, _ = batch(model)
    n = torch.randn(2, 12, model.embed, dtype=torch.float64)
    upstream = torch.randn(2, 12, model.embed, dtype=torch.float64)
    positions = torch.arange(12).expand_as(tokens)

    def step(p: Mapping[str, Tensor], local: nn.Local) -> tuple[Tensor, Tensor | None]:
        given = n.clone().requires_grad_()
        inputs = {"n": given, "tokens": tokens, "positions": positions}
        (out,) = compute(model, segment, p, inputs, local).values()
        out.backward(upstream)
        return out.detach(), given.grad

    expected, expected_grad = step(parameters, whole(model))
    total, total_grad = torch.zeros_like(expected), torch.zeros_like(n)
    grads: dict[str, list[Tensor]] = {p.name: [] for p in segment.parameters}
    size = math.ceil(model.sizes[dim] / ranks)
    for rank in range(ranks):
        own = {
            p.name: shard(parameters[p.name], p.dims.index(dim), ranks=ranks, rank=rank)
            if dim in p.dims
            else parameters[p.name].detach().clone().requires_grad_()
            for p in segment.parameters
        }
        start, stop = size * rank, min(size * (rank + 1), model.sizes[dim])
        local = nn.Local(
            leads=rank == 1,
            vocab_start=start if dim == "vocab" else 0,
            vocab_stop=stop if dim == "vocab" else model.vocab,
            groups=max(stop - start, 0) if dim == "group" else None,
        )
        out, grad = step(own, local)
        total += out
        total_grad += 0 if grad is None else grad
        for name_, tensor in own.items():
            grads[name_].append(torch.zeros_like(tensor) if tensor.grad is None else tensor.grad)
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-12)
    if expected_grad is not None:
        torch.testing.assert_close(total_grad, expected_grad, rtol=0, atol=1e-11)
    for p in segment.parameters:
        at = p.dims.index(dim) if dim in p.dims else None
        joined = torch.cat(grads[p.name], at) if at is not None else sum(grads[p.name])
        assert isinstance(joined, Tensor)
        wanted = parameters[p.name].grad
        assert wanted is not None
        if at is not None:
            real = wanted.shape[at]
            assert not joined.narrow(at, real, joined.shape[at] - real).any(), p.name
            joined = joined.narrow(at, 0, real)
        torch.testing.assert_close(joined, wanted, rtol=0, atol=1e-11)


def split_loss(
    model: Model, weight: Tensor, n: Tensor, targets: Tensor, *, ranks: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Give loss, gradient of the weight and of n from the head split over ranks."""
    segments = {s.name: s for s in model.blocks[-1].segments}
    size = math.ceil(model.vocab / ranks)
    shards = [shard(weight, 0, ranks=ranks, rank=r) for r in range(ranks)]
    inputs = [n.clone().requires_grad_() for _ in range(ranks)]
    locals_ = [
        nn.Local(leads=r == 0, vocab_start=size * r, vocab_stop=min(size * (r + 1), model.vocab))
        for r in range(ranks)
    ]
    values = [
        compute(model, segments["logits"], {"head.weight": w}, {"n": x}, local)
        for w, x, local in zip(shards, inputs, locals_, strict=True)
    ]
    peak = torch.stack([v["peak"] for v in values]).amax(0)
    parts = [
        compute(
            model,
            segments["sums"],
            {},
            {"logits": v["logits"], "peak": peak, "targets": targets},
            local,
        )
        for v, local in zip(values, locals_, strict=True)
    ]
    given = {
        "total": torch.stack([p["total"] for p in parts]).sum(0),
        "hit": torch.stack([p["hit"] for p in parts]).sum(0),
        "peak": peak,
        "targets": targets,
    }
    loss = compute(model, segments["loss"], {}, given, locals_[0])["loss"]
    loss.backward()
    grads = torch.cat([w.grad for w in shards if w.grad is not None])
    assert not grads[model.vocab :].any()
    grad_n = torch.stack([x.grad for x in inputs if x.grad is not None]).sum(0)
    return loss.detach(), grads[: model.vocab], grad_n


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("vocab", [5, 50])
def test_cross_entropy_over_a_split_vocabulary_is_that_of_pytorch(ranks: int, vocab: int) -> None:
    model = replace(LLAMA, vocab=vocab)
    _, targets = batch(model)
    weight = torch.randn(vocab, model.embed, dtype=torch.float64, requires_grad=True)
    n = torch.randn(2, 12, model.embed, dtype=torch.float64, requires_grad=True)
    expected = F.cross_entropy(
        F.linear(n, weight).flatten(0, 1), targets.flatten(), reduction="sum"
    )
    expected.backward()
    loss, grad_weight, grad_n = split_loss(model, weight, n.detach(), targets, ranks=ranks)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-13, atol=0)
    torch.testing.assert_close(grad_weight, weight.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(grad_n, n.grad, rtol=0, atol=1e-12)


# Cross entropy


def head_loss(logits: Tensor, targets: Tensor) -> Tensor:
    local = nn.Local(leads=True, vocab_start=0, vocab_stop=logits.shape[-1])
    peak = logits.detach().amax(-1).to(nn.accumulation(logits.dtype))
    total, hit = nn.sums(logits, peak, targets, local=local)
    return nn.loss(total, hit, peak, targets)


def test_cross_entropy_in_many_pieces_is_that_of_pytorch() -> None:
    shape = 2, 20, 2**14  # 40 rows, of which 16 are one piece
    logits = torch.randn(shape, dtype=torch.float64) * 5
    targets = torch.randint(0, shape[-1], shape[:2])
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = head_loss(ours.view_as(ours), targets)
    expected = F.cross_entropy(theirs.flatten(0, 1), targets.flatten(), reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
    (grad,) = torch.autograd.grad(loss, ours)
    (wanted,) = torch.autograd.grad(expected, theirs)
    torch.testing.assert_close(grad, wanted, rtol=0, atol=1e-13)


def test_the_gradient_of_the_logits_takes_the_memory_of_the_logits() -> None:
    logits = torch.randn(2, 12, 50, requires_grad=True)
    own = logits.detach().requires_grad_()
    (grad,) = torch.autograd.grad(head_loss(own, torch.zeros(2, 12, dtype=torch.long)), own)
    assert grad.data_ptr() == own.data_ptr()


def test_cross_entropy_of_huge_logits_neither_overflows_nor_vanishes() -> None:
    logits = torch.tensor([[[1e30, -1e30, 0.0], [-1e30, -1e30, -1e30]]])
    loss = head_loss(logits.clone(), torch.tensor([[0, 2]]))
    torch.testing.assert_close(loss, torch.tensor(math.log(3)))


def test_a_likely_target_keeps_its_gradient_in_bfloat16() -> None:
    # p = 1 / (1 + exp(-8)): in bfloat16 it is 1, and p - 1 would be 0.
    logits = torch.tensor([[[8.0, 0.0]]], dtype=torch.bfloat16, requires_grad=True)
    own = logits.detach().requires_grad_()
    (grad,) = torch.autograd.grad(head_loss(own, torch.tensor([[0]])), own)
    expected = 1 / (1 + math.exp(8))
    torch.testing.assert_close(
        grad.float(), torch.tensor([[[-expected, expected]]]), rtol=2**-7, atol=0
    )


def test_ignored_targets_add_nothing_and_get_no_gradient() -> None:
    logits = torch.randn(1, 4, 9, dtype=torch.float64)
    own = logits.clone().requires_grad_()
    loss = head_loss(own.view_as(own), torch.tensor([[nn.IGNORE, 3, -1, 5]]))
    expected = F.cross_entropy(logits[0, [1, 3]], torch.tensor([3, 5]), reduction="sum")
    torch.testing.assert_close(loss, expected)
    (grad,) = torch.autograd.grad(loss, own)
    assert not grad[0, [0, 2]].any()
    assert grad[0, [1, 3]].all()


# Norms


@given(
    shape=st.sampled_from([(3,), (2, 5), (2, 3, 7)]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 99),
)
def test_rms_norm_and_its_gradients_are_those_of_pytorch(
    shape: tuple[int, ...], scale: float, seed: int
) -> None:
    torch.manual_seed(seed)
    x = (torch.randn(shape, dtype=torch.float64) * scale).requires_grad_()
    weight = torch.randn(shape[-1], dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(shape, dtype=torch.float64)
    ours = nn.rms_norm(x, weight, eps=1e-5)
    theirs = F.rms_norm(x, shape[-1:], weight, 1e-5)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    for a, b in zip(
        torch.autograd.grad(ours, (x, weight), upstream),
        torch.autograd.grad(theirs, (x, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_rms_norm_of_bfloat16_sums_in_float32() -> None:
    x = torch.ones(1, 4096, dtype=torch.bfloat16)  # a sum in bfloat16 would stop at 256
    x[0, 0] = 64.0
    weight = torch.ones(4096, dtype=torch.bfloat16)
    expected = x.float() / math.sqrt((64**2 + 4095) / 4096 + 1e-5)
    torch.testing.assert_close(
        nn.rms_norm(x, weight, eps=1e-5).float(), expected, rtol=2**-8, atol=0
    )


# Counts


def attention_flops(q: torch.Size, k: torch.Size, *_: object, **__: object) -> int:
    """PyTorch counts attention on accelerators; this is its formula, for the kernel of CPUs."""
    return 4 * math.prod(q) * k[2]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_forward_flops_are_those_that_pytorch_counts(model: Model) -> None:
    tokens, targets = batch(model, length=16)
    parameters = random_parameters(model)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    formulas = {kernel: attention_flops}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        run_all(model, parameters, tokens, targets)
    # PyTorch counts the square of all pairs, masked or not.
    unmasked = sum(
        4 * model.heads * model.head_dim * (16 - model.attends_to(b.layer, positions=16))
        for b in model.blocks
        if b.kind is BlockKind.ATTENTION
    )
    stated = sum(model.block_flops(b, positions=16) for b in model.blocks)
    assert counter.get_total_flops() == tokens.numel() * (stated + unmasked)


# Compilation


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_a_compiled_model_has_the_same_loss_and_gradients() -> None:
    model = replace(LLAMA, layers=1)
    eager, traced = random_parameters(model), random_parameters(model)
    tokens, targets = batch(model)
    expected = run_all(model, eager, tokens, targets)["loss"]
    expected.backward()
    mask = nn.attention_input(
        model, positions=12, documents_BT=None, device=CPU, dtype=torch.float64
    )

    def forward(parameters: dict[str, Tensor], tokens: Tensor, targets: Tensor) -> Tensor:
        values: dict[str, Tensor | nn.AttentionInput] = {
            "tokens": tokens, "targets": targets, "mask": mask
        }  # fmt: skip
        for block in model.blocks:
            for segment in block.segments:
                values |= nn.run(
                    segment,
                    model=model,
                    layer=block.layer,
                    parameters=parameters,
                    values=values,
                    local=whole(model),
                )
        loss = values["loss"]
        assert isinstance(loss, Tensor)
        return loss

    loss = torch.compile(forward, backend="aot_eager")(traced, tokens, targets)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for name, parameter in traced.items():
        torch.testing.assert_close(parameter.grad, eager[name].grad, rtol=1e-9, atol=1e-11)


def test_what_is_planned_only_is_refused_where_it_would_be_computed() -> None:
    mixed = replace(LLAMA, experts=4, top_k=2, expert_ff=8)
    (route,) = (s for s in mixed.blocks[2].segments if s.name == "route")
    whole = nn.Local(leads=True, vocab_start=0, vocab_stop=mixed.vocab)
    with pytest.raises(ModelError, match="a mixture of 4 experts, which can be planned"):
        nn.run(
            route, model=mixed, layer=0, values={}, local=whole,
            parameters={p.name: torch.zeros(mixed.shape(p)) for p in route.parameters},
        )  # fmt: skip
