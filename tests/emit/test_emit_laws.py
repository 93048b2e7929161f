from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.emit.cases import EXPERTS, LLAMA, attempt, plan_of, plans, written
from tests.emit.reading import assigned, command, options, parser, strangers
from torch.distributed.pipelining.schedules import get_schedule_class

from stretto.emit import TRAINERS, Trainer
from stretto.emit.nanotron import yaml as yaml_text
from stretto.emit.torchtitan import SCHEDULES
from stretto.model import Rope
from stretto.plan import Communication, Group, Memory, Numerics, Pipeline, Plan
from stretto.recipe import Recipe

PER_NODE = st.sampled_from((1, 2, 4, 8))


@given(plans(), PER_NODE)
def test_megatron_knows_every_argument_and_the_degrees_multiply_to_the_world(
    plan: Plan, per_node: int
) -> None:
    emitted = attempt("megatron", plan, per_node=per_node)
    if emitted is None:
        return
    started = command(dict(emitted.files)["megatron.sh"])
    given = parser("megatron").parse_args(started.arguments)
    model_parallel = (
        given.tensor_model_parallel_size
        * given.pipeline_model_parallel_size
        * given.context_parallel_size
    )
    assert started.world == plan.mesh.size == model_parallel * plan.replicas
    per_step = given.micro_batch_size * plan.replicas * plan.micro_batches
    assert given.global_batch_size == plan.batch.sequences == per_step


@given(st.sampled_from((1, 2, 4, 8)), st.sampled_from((0, 1)), st.sampled_from((1, 2)))
def test_megatron_is_given_expert_ranks_that_fill_the_ranks_of_a_stage(
    ep: int, zero: int, etp: int
) -> None:
    plan = plan_of(pp=2, dp=8, tp=2, ep=ep, etp=etp, zero=zero)
    started = command(written("megatron", plan, model=EXPERTS)["megatron.sh"])
    given = parser("megatron").parse_args(started.arguments)
    ranks = given.expert_model_parallel_size * given.expert_tensor_parallel_size
    assert (given.expert_model_parallel_size, given.expert_tensor_parallel_size) == (ep, etp)
    assert started.world % (ranks * given.pipeline_model_parallel_size) == 0


@given(plans(), PER_NODE)
def test_deepspeed_knows_every_key_and_argument_and_the_degrees_multiply_to_the_world(
    plan: Plan, per_node: int
) -> None:
    emitted = attempt("deepspeed", plan, per_node=per_node)
    if emitted is None:
        return
    config = json.loads(dict(emitted.files)["ds_config.json"])
    assert strangers(config, "deepspeed") == []
    started = command(dict(emitted.files)["deepspeed.sh"])
    given = parser("megatron-deepspeed").parse_args(started.arguments)
    degrees = (
        given.tensor_model_parallel_size
        * given.pipeline_model_parallel_size
        * given.ds_sequence_parallel_size
    )
    replicas, rest = divmod(started.world, degrees)
    assert (started.world, rest) == (plan.mesh.size, 0)
    # DeepSpeed asserts this of its three numbers.
    assert config["train_batch_size"] == (
        config["train_micro_batch_size_per_gpu"] * config["gradient_accumulation_steps"] * replicas
    )
    assert config["train_batch_size"] == given.global_batch_size == plan.batch.sequences
    assert config["zero_optimization"]["stage"] == given.zero_stage


@given(plans(), PER_NODE)
def test_torchtitan_knows_every_option_and_the_degrees_multiply_to_the_world(
    plan: Plan, per_node: int
) -> None:
    emitted = attempt("torchtitan", plan, per_node=per_node)
    if emitted is None:
        return
    files = dict(emitted.files)
    found, known = assigned(files["stretto_plan.py"]), options("torchtitan-0.3")
    for name, value in found.items():
        expected = known[name].kinds
        if expected == ("import",):
            assert value == "import"
        else:
            assert expected == ("object",) or known[name].takes(value), name
    newer: dict[str, dict[str, Any]] = {"training": {}, "parallelism": {}}
    for name, value in found.items():
        section, _, key = name.partition(".")
        if section in newer:
            newer[section][key] = value
    forms = [newer]
    if "torchtitan-0.2.toml" in files:
        older = tomllib.loads(files["torchtitan-0.2.toml"])
        assert strangers(older, "torchtitan-0.2") == []
        forms.append(older)
    world = command(files["torchtitan.sh"]).world
    for form in forms:
        assert world == plan.mesh.size == _torchtitan_degrees(form["parallelism"])
        _batch_adds_up(form, plan)


def _torchtitan_degrees(parallelism: dict[str, Any]) -> int:
    """Multiply what torchtitan asserts to be the world."""
    product = 1
    for name in (
        "data_parallel_replicate", "data_parallel_shard", "context_parallel", "tensor_parallel",
        "pipeline_parallel",
    ):  # fmt: skip
        product *= parallelism[f"{name}_degree"]
    return product


def _batch_adds_up(form: dict[str, Any], plan: Plan) -> None:
    training, parallelism = form["training"], form["parallelism"]
    local, total = training["local_batch_size"], training["global_batch_size"]
    accumulated, rest = divmod(total, local * plan.replicas)
    micro = parallelism.get("pipeline_parallel_microbatch_size", local)
    assert (total, rest) == (plan.batch.sequences, 0)
    assert micro == plan.batch.micro_batch
    assert accumulated * (local // micro) == plan.micro_batches


@given(plans(), PER_NODE)
def test_nanotron_knows_every_key_and_the_degrees_multiply_to_the_world(
    plan: Plan, per_node: int
) -> None:
    emitted = attempt("nanotron", plan, per_node=per_node)
    if emitted is None:
        return
    config = yaml.safe_load(dict(emitted.files)["nanotron.yaml"])
    assert strangers(config, "nanotron") == []
    parallelism, tokens = config["parallelism"], config["tokens"]
    product = 1
    for name in ("dp", "pp", "tp", "context_parallel_size", "expert_parallel_size"):
        product *= parallelism[name]
    assert command(dict(emitted.files)["nanotron.sh"]).world == plan.mesh.size == product
    assert parallelism["dp"] * tokens["micro_batch_size"] * tokens[
        "batch_accumulation_per_replica"
    ] == (plan.batch.sequences)


@given(plans(odd=0).filter(lambda plan: plan.words.zero == 1 and plan.mesh.extent("pp") == 1))
def test_a_plain_plan_is_refused_by_no_trainer_but_torchtitan(plan: Plan) -> None:
    for trainer in TRAINERS:
        assert (attempt(trainer, plan) is None) == (trainer == "torchtitan"), trainer


# A plan with and one without pipeline, in words, that each trainer takes.
BASES: dict[Trainer, tuple[dict[str, Any], dict[str, Any]]] = {
    "megatron": ({"pp": 2, "dp": 4, "tp": 2, "zero": 1}, {"dp": 4, "tp": 2, "zero": 3}),
    "torchtitan": ({"pp": 2, "dp": 4, "tp": 2, "zero": 3}, {"dp": 4, "tp": 2, "zero": 3}),
    "deepspeed": ({"pp": 2, "dp": 4, "tp": 2, "zero": 1}, {"dp": 4, "tp": 2, "zero": 3}),
    "nanotron": ({"pp": 2, "dp": 4, "tp": 2, "zero": 1}, {"dp": 4, "tp": 2, "zero": 1}),
}
PIPELINES: tuple[Pipeline, ...] = (
    Pipeline("gpipe"), Pipeline("zb-1p"), Pipeline("zb-2p"), Pipeline("zb-v"),
    Pipeline("vocabulary"), Pipeline("interleaved", interleave=2),
    Pipeline("breadth-first", interleave=2), Pipeline(cut=(0, 7)),
)  # fmt: skip
SECTIONS: tuple[tuple[str, Any], ...] = (
    ("memory", Memory("selective")),
    ("memory", Memory("full")),
    ("memory", Memory("full", recompute_layers=2)),
    ("memory", Memory(offload=0.5)),
    ("memory", Memory(optimizer_offload=0.5)),
    ("memory", Memory(optimizer_offload=1.0)),
    ("communication", Communication(bucket_bytes=2**20)),
    ("communication", Communication(codec="bfloat16")),
    ("communication", Communication(codec="int8")),
    ("communication", Communication(codec="powersgd")),
    ("communication", Communication(hierarchy="two-level")),
    ("communication", Communication(tensor_overlap=True)),
    ("numerics", Numerics("float32")),
    ("numerics", Numerics("float64")),
    ("numerics", Numerics("bfloat16", compile=True)),
    ("numerics", Numerics("bfloat16", matrix="float8")),
    ("numerics", Numerics("bfloat16", matrix="float4")),
    ("groups", (Group((0, 2), "full"),)),
)
WORDS: tuple[dict[str, Any], ...] = (
    {"pp": 4}, {"dp": 2}, {"tp": 4}, {"cp": 2}, {"zero": 0}, {"zero": 2}, {"shard": 2},
    {"sequence": False}, {"order": ("pp", "tp", "cp", "dp")},
    {"micro_batch": 1}, {"micro_batches": 8},
)  # fmt: skip


def silent(trainer: Trainer, base: Plan, others: Iterable[Plan]) -> list[Plan]:
    """List the plans that a trainer would be told the same of as of another, which it takes."""
    told = attempt(trainer, base)
    assert told is not None
    return [other for other in others if attempt(trainer, other) == told]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_no_section_of_a_plan_is_left_out_in_silence(trainer: Trainer) -> None:
    for words in BASES[trainer]:
        base = plan_of(**words)
        changed = [replace(base, **{name: value}) for name, value in SECTIONS]
        assert silent(trainer, base, changed) == []
        if words["zero"] == 3:
            assert silent(trainer, base, [replace(base, memory=Memory(regather=False))]) == []


@pytest.mark.parametrize("trainer", TRAINERS)
def test_no_pipeline_is_left_out_in_silence(trainer: Trainer) -> None:
    base = plan_of(**BASES[trainer][0])
    assert silent(trainer, base, [replace(base, pipeline=p) for p in PIPELINES]) == []


@pytest.mark.parametrize("trainer", TRAINERS)
def test_no_degree_of_a_plan_is_left_out_in_silence(trainer: Trainer) -> None:
    for words in BASES[trainer]:
        others = [plan_of(**(words | other)) for other in WORDS]
        if "pp" in words:
            others.append(plan_of(**words, order=("dp", "pp", "cp", "tp")))
        base = plan_of(**words)
        assert silent(trainer, base, [plan for plan in others if plan != base]) == []


@pytest.mark.parametrize("trainer", TRAINERS)
def test_no_number_of_a_recipe_is_left_out_in_silence(trainer: Trainer) -> None:
    plan, base = plan_of(**BASES[trainer][0]), Recipe(schedule="cosine", seed=3)
    changed = {
        "steps": 800, "lr": 1e-4, "schedule": "constant", "warmup": 0.1, "final_lr": 0.2,
        "beta1": 0.8, "beta2": 0.99, "eps": 1e-6, "weight_decay": 0.01, "clip": 0.5, "seed": 7,
    }  # fmt: skip
    assert {f.name for f in fields(Recipe)} == {*changed, "decay"}
    told = attempt(trainer, plan, recipe=base)
    assert told is not None
    for name, value in changed.items():
        assert attempt(trainer, plan, recipe=replace(base, **{name: value})) != told, name
    one, two = (attempt(trainer, plan, recipe=Recipe(schedule="wsd", decay=d)) for d in (0.2, 0.4))
    assert (one is None) == (trainer == "deepspeed")
    assert one is None or one != two


@pytest.mark.parametrize("trainer", TRAINERS)
def test_no_width_of_a_model_is_left_out_in_silence(trainer: Trainer) -> None:
    plan = plan_of(**BASES[trainer][0])
    told = attempt(trainer, plan)
    assert told is not None
    for name, value in {
        "layers": 16, "embed": 128, "heads": 16, "kv_heads": 4, "head_dim": 16, "ff": 256,
        "vocab": 512, "tied": True, "qkv_bias": True, "qk_norm": True, "window": 16,
        "norm": "layer", "activation": "gelu", "rope": None, "rope.theta": Rope(5e5),
        "rope.scaling": Rope(scaling="llama3", factor=8.0),
    }.items():  # fmt: skip
        model = replace(LLAMA, **{name.partition(".")[0]: value})
        assert attempt(trainer, plan, model=model) != told, name


_KEYS = st.from_regex(r"[a-z_]{1,9}", fullmatch=True).filter(
    lambda key: key not in ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
)
_PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(min_codepoint=32, max_codepoint=126)),
)  # fmt: skip
_TREES: st.SearchStrategy[Any] = st.recursive(
    _PLAIN,
    lambda inner: st.one_of(
        st.dictionaries(_KEYS, inner, min_size=1),
        st.lists(st.dictionaries(_KEYS, _PLAIN, min_size=1), min_size=1, max_size=3),
    ),
    max_leaves=12,
)


@settings(max_examples=30)
@given(st.dictionaries(_KEYS, _TREES, min_size=1))
def test_yaml_reads_back_as_what_was_written(tree: dict[str, Any]) -> None:
    assert yaml.safe_load(yaml_text(tree)) == tree


def test_a_small_number_is_a_number_in_yaml() -> None:
    assert yaml.safe_load(yaml_text({"eps": 1e-05, "big": 1e22})) == {"eps": 1e-05, "big": 1e22}


@pytest.mark.parametrize("name", SCHEDULES.values())
def test_torch_has_a_schedule_of_every_name_that_torchtitan_is_given(name: str) -> None:
    assert get_schedule_class(name).__name__ == {
        "GPipe": "ScheduleGPipe", "1F1B": "Schedule1F1B",
        "Interleaved1F1B": "ScheduleInterleaved1F1B", "LoopedBFS": "ScheduleLoopedBFS",
        "ZBVZeroBubble": "ScheduleZBVZeroBubble",
    }[name]  # fmt: skip
