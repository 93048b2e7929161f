from __future__ import annotations

import json
import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.checkpoint.manifest import (
    VERSION,
    Manifest,
    StoredBox,
    StoredFile,
    StoredTensor,
    check,
    merge,
    model_from_dict,
    model_to_dict,
    tensor_shapes,
)
from stretto.errors import CheckpointError
from stretto.layout import Box
from stretto.model import Model, Rope

MODEL = Model(
    "tiny", layers=1, embed=4, heads=2, kv_heads=1, head_dim=2, ff=4, vocab=6, positions=8
)
FILE = "rank-00000.safetensors"


def whole(shape: tuple[int, ...]) -> Box:
    return tuple((0, size) for size in shape)


def stored(shape: tuple[int, ...], boxes: tuple[Box, ...], *, key: str) -> StoredTensor:
    parts = (StoredBox(box, FILE, f"{key}@{i}") for i, box in enumerate(boxes))
    return StoredTensor("float32", shape, tuple(parts))


def manifest(model: Model = MODEL) -> Manifest:
    tensors = {
        name: stored(shape, (whole(shape),), key=name)
        for name, shape in tensor_shapes(model).items()
    }
    extra = {"seed": 1, "plan": "[mesh]\ndp = 2\n", "none": None}
    return Manifest(VERSION, 42, 3, model, extra, tensors, {FILE: StoredFile(9, "0" * 64)})


def cut(shape: tuple[int, ...], random: Random, *, pieces: int) -> list[Box]:
    """Cut a shape at random places, one box at a time: tilings that are no grids too."""
    boxes = [whole(shape)]
    for _ in range(pieces):
        box = boxes.pop(random.randrange(len(boxes)))
        dims = [d for d, (start, stop) in enumerate(box) if stop - start > 1]
        if not dims:
            boxes.append(box)
            continue
        d = random.choice(dims)
        at = random.randint(box[d][0] + 1, box[d][1] - 1)
        boxes += [(*box[:d], part, *box[d + 1 :]) for part in ((box[d][0], at), (at, box[d][1]))]
    random.shuffle(boxes)
    return boxes


def spoil(boxes: list[Box], shape: tuple[int, ...], random: Random) -> list[Box]:
    """Remove, double, or move an edge of a random box."""
    at = random.randrange(len(boxes))
    change = random.choice(("remove", "double", "edge"))
    if change == "remove":
        return boxes[:at] + boxes[at + 1 :]
    if change == "double" or not shape:
        return [*boxes, boxes[at]]
    d = random.randrange(len(shape))
    start = random.randint(0, shape[d] - 1)
    edge = (start, random.randint(start + 1, shape[d]))
    return [*boxes[:at], (*boxes[at][:d], edge, *boxes[at][d + 1 :]), *boxes[at + 1 :]]


shapes = st.lists(st.integers(1, 5), max_size=4).map(tuple)


@given(shapes, st.randoms(use_true_random=False), st.integers(0, 8), st.booleans())
def test_boxes_tile_if_and_only_if_they_hold_each_element_once(
    shape: tuple[int, ...], random: Random, pieces: int, spoilt: bool
) -> None:
    boxes = cut(shape, random, pieces=pieces)
    boxes = spoil(boxes, shape, random) if spoilt else boxes
    held = np.zeros(shape, int)
    for box in boxes:
        held[tuple(slice(*edge) for edge in box)] += 1
    case = manifest()
    case = replace(case, tensors={**case.tensors, "t": stored(shape, tuple(boxes), key="t")})
    rules = [p.rule for p in check(case) if p.field == "t"]
    assert "is not a tensor of the model" in rules
    assert (len(rules) == 1) == bool((held == 1).all())


models = st.builds(
    lambda heads, kv, **rest: Model("m", heads=heads * kv, kv_heads=kv, head_dim=4, **rest),
    st.integers(1, 3),
    st.integers(1, 3),
    layers=st.integers(1, 2),
    embed=st.integers(1, 8),
    ff=st.integers(1, 8),
    vocab=st.integers(2, 9),
    positions=st.integers(1, 9),
    norm=st.sampled_from(["layer", "rms"]),
    norm_eps=st.floats(1e-8, 1e-3),
    rope=st.none()
    | st.builds(
        Rope,
        theta=st.floats(1.0, 1e6),
        scaling=st.sampled_from(["none", "yarn", "longrope"]),
        attention_factor=st.none() | st.floats(0.1, 2.0),
        long_factor=st.lists(st.floats(1.0, 9.0), max_size=2).map(tuple),
    ),
    window=st.integers(0, 3),
    full_layers=st.sampled_from([(), (0,), (0, 1)]),
    tied=st.booleans(),
)


@given(models)
def test_a_model_is_its_dictionary_and_the_reverse(model: Model) -> None:
    tree = model_to_dict(model)
    assert json.loads(json.dumps(tree)) == tree
    assert model_from_dict(tree) == model


@given(models)
def test_a_manifest_is_its_json_and_the_reverse(model: Model) -> None:
    case = manifest(model)
    assert Manifest.from_json(case.to_json()) == case
    assert check(case, model) == ()


def test_a_checkpoint_holds_each_parameter_and_both_moments() -> None:
    model = Model(
        "m", layers=1, embed=4, heads=2, kv_heads=1, head_dim=2, ff=3, vocab=6, positions=8
    )
    shapes = tensor_shapes(model)
    assert len(shapes) == 3 * len(model.parameters)
    assert shapes["embedding.token"] == shapes["embedding.token#first"] == (6, 4)
    assert shapes["layers.0.feed_forward.down#second"] == (4, 3)
    assert sum(map(math.prod, shapes.values())) == 3 * model.parameter_count


def problems(text: str) -> list[str]:
    with pytest.raises(CheckpointError) as caught:
        Manifest.from_json(text)
    return [f"{p.field}: {p.rule}" for p in caught.value.problems]


def test_a_model_that_cannot_be_is_refused_in_a_manifest() -> None:
    tree = json.loads(manifest().to_json())
    tree["model"]["layers"] = 0
    tree["model"]["rope"]["scaling"] = "magic"
    tree["step"] = "42"
    found = problems(json.dumps(tree))
    assert "manifest.step: is '42', not of type int" in found
    assert any(p.startswith("manifest.model.rope.scaling: is 'magic', not one of") for p in found)
    tree["model"]["rope"]["scaling"], tree["step"] = "none", 42
    assert problems(json.dumps(tree)) == ["layers: is 0, below 1"]


def test_another_version_is_named_before_its_unknown_keys() -> None:
    assert problems('{"version": 2, "new": 1}') == [
        "manifest.version: is 2, but this Stretto reads 1"
    ]
    assert any("version" in p for p in problems('{"version": "1"}'))


def test_values_that_do_not_fit_together_are_all_listed() -> None:
    tree = json.loads(manifest().to_json())
    tensor = tree["tensors"]["embedding.token"]
    tensor["dtype"] = "float16"
    tensor["boxes"] = [
        {"box": [[0, 7], [0, 4]], "file": FILE, "key": "a"},
        {"box": [[0, 6]], "file": "rank-00001.safetensors", "key": "a"},
        {"box": [[2, 2], [0, 4]], "file": FILE, "key": "a"},
    ]
    tree["files"]["../../etc/passwd"] = {"bytes": -1, "sha256": "0" * 63}
    tree["step"] = -1
    assert problems(json.dumps(tree)) == [
        "manifest.step: is -1, below 0",
        "embedding.token: is of dtype 'float16', not one of "
        "['bfloat16', 'float32', 'float64', 'int64']",
        "embedding.token: box ((0, 7), (0, 4)) is not inside its shape (6, 4)",
        "embedding.token: box ((0, 6),) is not inside its shape (6, 4)",
        "embedding.token: a box is in 'rank-00001.safetensors', which is not listed",
        "embedding.token: box ((2, 2), (0, 4)) is not inside its shape (6, 4)",
        "../../etc/passwd: is not the name of a file of a checkpoint",
        f"../../etc/passwd: -1 bytes with SHA-256 '{'0' * 63}' cannot be",
        f"{FILE}: 2 boxes have the key 'a'",
    ]


def test_a_model_that_differs_is_named_field_by_field_with_both_values() -> None:
    other = replace(MODEL, embed=8, norm="layer", name="another")
    found = check(manifest(), other, limit=100)
    assert [f"{p.field}: {p.rule}" for p in found[:2]] == [
        "model.embed: is 4 in the checkpoint, but 8 here",
        "model.norm: is 'rms' in the checkpoint, but 'layer' here",
    ]
    assert "head.norm.bias: a tensor of shape (8,) is missing" in [
        f"{p.field}: {p.rule}" for p in found
    ]
    assert "embedding.token#first: has shape (6, 4), but the model's is (6, 8)" in [
        f"{p.field}: {p.rule}" for p in found
    ]


def test_a_model_of_another_name_is_the_same_model() -> None:
    assert check(manifest(), replace(MODEL, name="another")) == ()


def test_only_the_first_mismatches_are_listed_and_the_rest_counted() -> None:
    found = check(manifest(), replace(MODEL, embed=8), limit=3)
    everything = check(manifest(), replace(MODEL, embed=8), limit=1000)
    assert found[:3] == everything[:3]
    assert found[3].rule == f"{len(everything) - 3} more mismatches"
    assert len(found) == 4


def test_a_model_of_a_trillion_layers_is_refused_at_once() -> None:
    found = check(replace(manifest(), model=replace(MODEL, layers=10**12)))
    assert [p.rule for p in found] == ["30 tensors are too few for 1000000000000 layers"]


def test_overlap_and_gap_are_named() -> None:
    case = manifest()
    token = {"embedding.token": stored((6, 4), (((0, 3), (0, 4)), ((2, 6), (0, 4))), key="t")}
    head = {"head.weight": stored((6, 4), (((0, 3), (0, 4)), ((4, 6), (0, 4))), key="h")}
    found = check(replace(case, tensors={**case.tensors, **token, **head}))
    assert [f"{p.field}: {p.rule}" for p in found] == [
        "embedding.token: its boxes ((0, 3), (0, 4)) and ((2, 6), (0, 4)) overlap",
        "head.weight: its boxes leave a gap: 20 of 24 elements",
    ]


def part(rank: int, **changes: object) -> Manifest:
    """The rows of the embedding that one of two ranks holds."""
    file = f"rank-{rank:05d}.safetensors"
    box = ((3 * rank, 3 * rank + 3), (0, 4))
    tensors = {"embedding.token": StoredTensor("float32", (6, 4), (StoredBox(box, file, "t"),))}
    files = {file: StoredFile(9, "0" * 64)}
    return replace(Manifest(VERSION, 42, 0, MODEL, {}, tensors, files), **changes)  # type: ignore[arg-type]


def test_parts_of_two_ranks_make_one_manifest() -> None:
    merged = merge([part(0, extra={"seed": 1}), part(1)], serial=7)
    assert (merged.step, merged.serial, merged.extra) == (42, 7, {"seed": 1})
    assert [s.box[0] for s in merged.tensors["embedding.token"].boxes] == [(0, 3), (3, 6)]
    assert list(merged.files) == ["rank-00000.safetensors", "rank-00001.safetensors"]


def test_ranks_that_disagree_are_all_named() -> None:
    other = {"embedding.token": replace(part(1).tensors["embedding.token"], dtype="float64")}
    with pytest.raises(CheckpointError) as caught:
        merge([part(0), part(1, step=43), part(1, tensors=other)], serial=1)
    assert [f"{p.field}: {p.rule}" for p in caught.value.problems] == [
        "rank 1: saves another step or model than rank 0",
        "rank 2: wrote rank-00001.safetensors, and so did another rank",
        "embedding.token: float64 (6, 4) on rank 2, but float32 (6, 4) on a lower one",
    ]
