from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import pytest
from tests.emit.cases import EXPERTS, LLAMA, fields_refused, plan_of, written
from tests.emit.reading import OPTIONS, assigned

from stretto.emit import emit
from stretto.emit.flavor import flavor_of
from stretto.model import Model, Rope
from stretto.plan import Communication, Memory, Numerics, Pipeline, Plan
from stretto.recipe import Recipe


def configured(plan: Plan, **more: Any) -> dict[str, Any]:
    """Give what the configuration for 0.3 sets."""
    return assigned(written("torchtitan", plan, **more)["stretto_plan.py"])


def older(plan: Plan, **more: Any) -> dict[str, Any]:
    """Give the TOML for 0.2."""
    return tomllib.loads(written("torchtitan", plan, **more)["torchtitan-0.2.toml"])


def sizes() -> list[tuple[str, str, Model]]:
    """Give the sizes that torchtitan has, each as a model."""
    found = []
    for line in (OPTIONS / "torchtitan-flavors.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        module, name, *numbers = line.split()
        layers, dim, heads, kv, head_dim, hidden, vocab, experts, top_k, tied, theta = map(
            int, numbers
        )
        model = replace(
            LLAMA, layers=layers, embed=dim, heads=heads, kv_heads=kv, head_dim=head_dim,
            ff=hidden, vocab=vocab, experts=experts, top_k=top_k, tied=bool(tied),
            expert_ff=hidden if experts else 0, rope=Rope(float(theta)), qk_norm=module == "qwen3",
        )  # fmt: skip
        found.append((module, name, model))
    return found


@pytest.mark.parametrize(("module", "name", "model"), sizes())
def test_a_size_that_torchtitan_has_is_called_by_its_name(
    module: str, name: str, model: Model
) -> None:
    flavor = flavor_of(model)
    assert (flavor.module, flavor.name, flavor.known) == (module, name, True)


def test_a_size_that_torchtitan_lacks_is_noted_with_its_numbers() -> None:
    (note,) = [
        n for n in emit("torchtitan", model=LLAMA, plan=plan_of()).notes if n.field == "model"
    ]
    assert "layers 8, dim 64" in note.rule and "theta 10000" in note.rule
    assert note.remedy == "add it as 'little' to torchtitan/models/llama3/__init__.py"


def test_the_same_widths_with_other_positions_are_another_size() -> None:
    _, _, model = sizes()[0]
    assert not flavor_of(replace(model, rope=Rope(1e4))).known
    assert not flavor_of(replace(model, tied=True)).known
    assert not flavor_of(replace(model, qk_norm=True)).known


def test_hybrid_sharding_replicates_outside() -> None:
    found = configured(plan_of(dp=8, zero=3, shard=2))
    assert found["parallelism.data_parallel_replicate_degree"] == 4
    assert found["parallelism.data_parallel_shard_degree"] == 2


def test_context_ranks_are_among_those_that_shard() -> None:
    found = configured(plan_of(dp=4, cp=2, zero=3, shard=4))
    assert found["parallelism.data_parallel_shard_degree"] == 2
    assert found["parallelism.context_parallel_degree"] == 2


def test_without_zero_all_replicate() -> None:
    found = configured(plan_of(dp=4))
    assert found["parallelism.data_parallel_replicate_degree"] == 4
    assert found["parallelism.data_parallel_shard_degree"] == 1


@pytest.mark.parametrize(("regather", "policy"), [(True, "always"), (False, "never")])
def test_parameters_are_gathered_again_or_stay(regather: bool, policy: str) -> None:
    found = configured(plan_of(dp=2, zero=3, memory=Memory(regather=regather)))
    assert found["parallelism.fsdp_reshard_after_forward"] == policy


def test_a_pipeline_runs_all_micro_batches_of_a_step_at_once() -> None:
    piped = configured(plan_of(pp=2, micro_batches=8, micro_batch=2))
    assert piped["training.local_batch_size"] == 16
    assert piped["parallelism.pipeline_parallel_microbatch_size"] == 2
    assert configured(plan_of(micro_batches=8, micro_batch=2))["training.local_batch_size"] == 2


def test_stages_are_named_module_by_module() -> None:
    plan = plan_of(pp=2, pipeline=Pipeline(cut=(0, 13)))
    first = ["tok_embeddings", *(f"layers.{i}" for i in range(6))]
    assert configured(plan)["parallelism.module_fqns_per_model_part"] == [
        first,
        ["layers.6", "layers.7", "norm", "lm_head"],
    ]
    assert older(plan)["parallelism"]["module_fqns_per_model_part"] == [
        first,
        ["layers.6", "layers.7", "norm", "output"],
    ]


@pytest.mark.parametrize(
    ("recompute", "new", "old"),
    [("none", None, "none"), ("selective", "SelectiveAC.Config()", "selective"),
     ("full", "FullAC.Config()", "full")],
)  # fmt: skip
def test_recomputation_is_a_policy(recompute: Any, new: str | None, old: str) -> None:
    plan = plan_of(memory=Memory(recompute))
    assert configured(plan)["activation_checkpoint"] == new
    assert older(plan)["activation_checkpoint"]["mode"] == old


def test_float8_is_for_layers_and_not_for_the_head() -> None:
    plan = plan_of(numerics=Numerics("bfloat16", compile=True, matrix="float8"))
    spec = configured(plan)["model_spec"]
    assert (
        "Float8LinearConverter.Config(filter_fqns=['lm_head'], model_compile_enabled=True)" in spec
    )
    tree = older(plan)
    assert tree["model"]["converters"] == ["quantize.linear.float8"]
    assert tree["quantize"]["linear"]["float8"]["filter_fqns"] == ["output"]


def test_zero_bubble_runs_without_flex_attention_which_is_compiled() -> None:
    found = configured(plan_of(pp=2, pipeline=Pipeline("zb-v")))
    assert "attn_backend='varlen'" in found["model_spec"]
    assert found["training.disable_cuda_graphs"] is True


def test_the_learning_rate_of_wsd_falls_in_its_last_part() -> None:
    recipe = Recipe(schedule="wsd", decay=0.25, final_lr=0.0)
    found = configured(plan_of(), recipe=recipe)
    assert (found["lr_scheduler.decay_ratio"], found["lr_scheduler.decay_type"]) == (0.25, "linear")
    assert found["lr_scheduler.min_lr_factor"] == 0.0


@pytest.mark.parametrize(
    ("plan", "model", "field"),
    [
        (plan_of(dp=2, tp=2), LLAMA, "zero"),
        (plan_of(tp=2, sequence=False), LLAMA, "sequence"),
        (plan_of(pp=2), replace(LLAMA, qk_norm=True), "mesh.pp"),
        (plan_of(numerics=Numerics("bfloat16", matrix="float4")), LLAMA, "numerics.matrix"),
    ],
)
def test_what_only_the_newer_torchtitan_does_comes_without_toml(
    plan: Plan, model: Model, field: str
) -> None:
    emitted = emit("torchtitan", model=model, plan=plan)
    assert [name for name, _ in emitted.files] == ["torchtitan.sh", "stretto_plan.py"]
    assert field in {n.field for n in emitted.notes if n.remedy == "use torchtitan 0.3"}


OVERLAP = Communication(tensor_overlap=True)


@pytest.mark.parametrize(
    ("plan", "model", "field"),
    [
        (plan_of(dp=2, zero=1), LLAMA, "zero"),
        (plan_of(dp=2, zero=2), LLAMA, "zero"),
        (plan_of(dp=2, cp=2), LLAMA, "zero"),
        (plan_of(dp=2, cp=4, zero=3, shard=2), LLAMA, "shard"),
        (plan_of(dp=4, tp=2, ep=2, etp=2, zero=3), EXPERTS, "etp"),
        (plan_of(pp=2), replace(LLAMA, tied=True), "mesh.pp"),
        (plan_of(pp=2, pipeline=Pipeline("zb-1p")), LLAMA, "pipeline.schedule"),
        (plan_of(pp=2, pipeline=Pipeline("vocabulary")), LLAMA, "pipeline.schedule"),
        (plan_of(pp=2, pipeline=Pipeline("zb-v"), numerics=Numerics("bfloat16", compile=True)),
         LLAMA, "numerics.compile"),
        (plan_of(pp=2, dp=2, cp=2, zero=3, pipeline=Pipeline("zb-v")), LLAMA, "mesh.cp"),
        (plan_of(memory=Memory("full", recompute_layers=1)), LLAMA, "memory.recompute_layers"),
        (plan_of(memory=Memory(offload=0.5)), LLAMA, "memory.offload"),
        (plan_of(dp=2, zero=3, memory=Memory(optimizer_offload=0.5)), LLAMA,
         "memory.optimizer_offload"),
        (plan_of(communication=Communication(codec="bfloat16")), LLAMA, "communication.codec"),
        (plan_of(tp=2, communication=OVERLAP), LLAMA, "communication.tensor_overlap"),
        (plan_of(), replace(LLAMA, norm="layer"), "model"),
        (plan_of(), replace(LLAMA, window=8), "model"),
        (plan_of(), replace(EXPERTS, qk_norm=False), "model.experts"),
        (plan_of(), replace(LLAMA, activation="relu2", gated=False), "model.activation"),
    ],
)  # fmt: skip
def test_what_torchtitan_cannot_do_is_refused(plan: Plan, model: Model, field: str) -> None:
    assert fields_refused("torchtitan", plan, model=model) == {field}
