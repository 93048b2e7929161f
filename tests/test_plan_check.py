"""What makes a plan impossible: all of it, with the numbers and a remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stretto.cluster import Cluster, Part, local
from stretto.mesh import Mesh
from stretto.model import Model
from stretto.plan import Batch, Communication, Group, Memory, Numerics, Pipeline, Plan
from stretto.rules import Rules

MODEL = Model(
    "small", layers=2, embed=16, heads=4, kv_heads=2, head_dim=4, ff=32, vocab=50, positions=64
)
SPARSE = replace(MODEL, experts=6, top_k=2, expert_ff=8)


def wrongs(plan: Plan, model: Model = MODEL, cluster: Cluster | None = None) -> list[str]:
    """What is wrong with a plan for a model."""
    return [str(p) for p in plan.check(model, cluster)]


def machine(devices: int, *, memory_bytes: float = 1e9) -> Cluster:
    """Devices like this machine's, with as much memory as is said."""
    usual = local(devices=devices)
    device = replace(usual.device, name="tiny", memory_bytes=memory_bytes)
    return replace(usual, parts=(Part(device, devices),))


# ── checking ─────────────────────────────────────────────────────────────────────────────────────


def ruled(plan: Plan, **tables: Any) -> Plan:
    """Give `plan` with lines of its tables replaced."""
    return replace(
        plan,
        rules=Rules(
            *(
                tuple((dict(getattr(plan.rules, name)) | tables.get(name, {})).items())
                for name in ("compute", "parameter", "gradient", "optimizer")
            )
        ),
    )


def test_the_plans_of_the_short_form_are_legal() -> None:
    for zero in range(4):
        assert wrongs(Plan.of(pp=2, dp=2, tp=2, zero=zero)) == []


DP = Plan.of(dp=2)


@pytest.mark.parametrize(
    ("plan", "found"),
    [
        (ruled(DP, compute={"embed": ("dp",)}),
         "rules.compute.embed: compute rules cannot split 'embed'; choose from batch, seq, time, "
         "heads, ff, vocab, expert, expert_ff"),
        (ruled(DP, optimizer={"embd": ("dp",)}),
         "rules.optimizer.embd: optimizer rules cannot split 'embd'; did you mean embed?"),
        (ruled(DP, compute={"ff": ("pp",)}),
         "rules.compute.ff: pp cuts the chain of blocks, not a tensor; use another axis"),
        (ruled(DP, compute={"ff": ("tq",)}),
         "rules.compute.ff: the mesh has no axis 'tq'; choose from ['dp', 'tp']"),
        (ruled(DP, parameter={"ff": ("dp", "dp")}),
         "rules.parameter.ff: dp splits it twice; name dp once"),
        (replace(DP, rules=Rules((("batch", ("dp",)), ("batch", ("dp",))))),
         "rules.compute.batch: two lines split it; write one"),
        (ruled(DP, compute={"batch": ()}),
         "mesh.dp: no compute rule for batch, time, heads, ff or vocab uses it, so 2 ranks would "
         'do the same work; add one, such as rules.compute.batch = ["dp"], or set dp = 1'),
        (ruled(DP, compute={"vocab": ("dp",)}),
         "rules.compute.vocab: ['dp'] split batch already, and one tensor has both; use other "
         "axes"),
        (replace(DP, batch=Batch(16, 0, 8)), "batch.micro_batch: is 0, below 1; use 1 or more"),
        (replace(DP, batch=Batch(-2, 1, 8)), "batch.sequences: is -2, below 1; use 1 or more"),
        (replace(DP, communication=Communication(0)),
         "communication.bucket: is 0 B, below 1 B; write 25MiB"),
        (replace(DP, batch=Batch(15, 4, 8)),
         "batch.sequences: must be divisible by replicas × micro_batch, but 15 % (2 × 4) = 7; use "
         "8, or another micro_batch"),
        (replace(DP, batch=Batch(2, 4, 8)),
         "batch.sequences: must be divisible by replicas × micro_batch, but 2 % (2 × 4) = 2; use "
         "8, or another micro_batch"),
        (Plan.of(tp=4, batch=Batch(8, 8, 18)),
         "batch.seq: must be divisible by the ranks that split it, but 18 % 4 = 2; use 16, or no "
         "rule for seq"),
        (Plan.of(pp=7), "mesh.pp: 7 stages, but the model has 6 blocks; use at most 6"),
        (Plan.of(pp=2, pipeline=Pipeline(cut=(0,))),
         "pipeline.cut: [0] is not 2 ascending block numbers from 0 below 6; use \"balanced\""),
        (Plan.of(pp=2, pipeline=Pipeline(cut=(1, 2))),
         "pipeline.cut: [1, 2] is not 2 ascending block numbers from 0 below 6; use \"balanced\""),
        (Plan.of(pp=2, pipeline=Pipeline(cut=(0, 6))),
         "pipeline.cut: [0, 6] is not 2 ascending block numbers from 0 below 6; use \"balanced\""),
        (Plan.of(pp=3, pipeline=Pipeline(cut=(0, 4, 4))),
         "pipeline.cut: [0, 4, 4] is not 3 ascending block numbers from 0 below 6; use "
         '"balanced"'),
    ],
)  # fmt: skip
def test_what_cannot_run_is_named_with_the_numbers_and_a_remedy(plan: Plan, found: str) -> None:
    assert wrongs(plan) == [found]


def test_a_rule_for_seq_alone_leaves_ranks_idle() -> None:
    plan = Plan(Mesh((("tp", 2),)), Rules((("seq", ("tp",)),), parameter=(("embed", ("tp",)),)))
    (found,) = wrongs(plan)
    assert found.startswith("mesh.tp: no compute rule for batch, time, heads, ff or vocab uses it")


def test_a_view_of_pp_splits_no_tensor_and_no_view_is_called_pp() -> None:
    mesh = Mesh((("pp", 2), ("cp", 1), ("dp", 2)), (("all", ("pp", "cp")),))
    rules = Rules((("batch", ("dp",)), ("ff", ("all",))))
    assert wrongs(Plan(mesh, rules)) == [
        "rules.compute.ff: pp cuts the chain of blocks, not a tensor, and is in all; use another "
        "axis"
    ]
    mesh = Mesh((("a", 2),), (("pp", ("a",)),))
    (found,) = wrongs(Plan(mesh, Rules((("batch", ("a",)),))))
    assert found == "mesh.views.pp: pp cuts the chain of blocks and is no view; rename it"


def test_learned_positions_bound_the_sequence() -> None:
    learned = replace(MODEL, rope=None)
    plan = Plan(batch=Batch(8, 8, 65))
    assert wrongs(plan) == []
    assert wrongs(plan, learned) == [
        "batch.seq: 65 positions, but the model has learned 64; use at most 64"
    ]


def test_a_mesh_of_another_size_than_the_cluster_is_refused() -> None:
    cluster = machine(4)
    assert wrongs(DP, cluster=cluster) == [
        "mesh: pp 1 × dp 2 × tp 1 = 2 ranks, but there are 4; change the mesh, or run on 2 ranks"
    ]


def test_a_model_that_does_not_fit_is_refused_with_what_it_needs() -> None:
    cluster = machine(2, memory_bytes=2**14)
    (found,) = wrongs(DP, cluster=cluster)
    needs = 16 * MODEL.parameter_count / 1024  # float32: weight, gradient and two moments
    assert found == (
        f"mesh: weights, gradients and optimizer state need {needs:.2f} KiB on a rank, but a "
        "device has 16.00 KiB; shard more (rules.parameter.embed), or use more ranks"
    )


def test_all_problems_of_a_plan_are_listed_together() -> None:
    plan = Plan(
        Mesh((("pp", 9), ("dp", 2), ("tp", 2))),
        Rules((("bach", ("dp",)), ("ff", ("tq",)))),
        batch=Batch(0, 1, 8),
    )
    fields = {line.split(": ")[0] for line in wrongs(plan, cluster=machine(1, memory_bytes=1))}
    assert fields == {"rules.compute.bach", "rules.compute.ff", "mesh.dp", "mesh.tp",
                      "batch.sequences", "mesh.pp", "mesh"}  # fmt: skip


# ── the rest of the plan space ───────────────────────────────────────────────────────────────────

CP = Plan.of(cp=2, tp=2, batch=Batch(2, 1, 16))
EP = Plan.of(dp=2, tp=2, ep=2, batch=Batch(2, 1, 16))


def grouped(*groups: Group) -> Plan:
    """A plan on two ranks whose layers differ."""
    return Plan.of(dp=2, batch=Batch(4, 1, 16), groups=groups)


@pytest.mark.parametrize(
    "plan",
    [
        CP,
        EP,
        Plan.of(dp=2, cp=2, tp=2, ep=2, etp=1, zero=3, shard=2, batch=Batch(2, 1, 16)),
        Plan.of(pp=2, batch=Batch(4, 1, 16), pipeline=Pipeline("interleaved", (0, 1, 2, 3), 2)),
        Plan.of(pp=2, batch=Batch(3, 1, 16), pipeline=Pipeline("breadth-first", interleave=2)),
        Plan.of(pp=2, batch=Batch(3, 1, 16), pipeline=Pipeline("zb-v", (0, 1, 2, 3))),
        Plan.of(pp=2, batch=Batch(3, 1, 16), pipeline=Pipeline("vocabulary")),
        Plan.of(memory=Memory("full", 1, 0.5, 1.0, regather=False)),
        Plan.of(dp=2, zero=1, communication=Communication(codec="powersgd")),
        Plan.of(dp=2, zero=3, communication=Communication(codec="int8", hierarchy="two-level")),
        Plan.of(tp=2, communication=Communication(tensor_overlap=True)),
        Plan.of(numerics=Numerics("bfloat16", matrix="float4")),
        grouped(Group((0, 1), "full"), Group((1, 2), rules=Plan.of(dp=2, zero=3).rules)),
    ],
)
def test_what_is_planned_but_not_run_is_legal(plan: Plan) -> None:
    assert wrongs(plan, SPARSE) == []


@pytest.mark.parametrize(
    ("plan", "found"),
    [
        (ruled(CP, compute={"seq": ("tp", "cp")}),
         "rules.compute.seq: must begin with the axes of time, ['cp'], but is ['tp', 'cp']; write "
         "['cp'], and more after it if you like"),
        (ruled(CP, compute={"heads": ("cp",)}),
         "rules.compute.heads: ['cp'] split time already, and one tensor has both; use other axes"),
        (ruled(EP, compute={"expert_ff": ("ep",)}),
         "rules.compute.expert_ff: ['dp'] split expert already, and one tensor has both; use other "
         "axes"),
        (replace(CP, batch=Batch(2, 1, 6)),
         "batch.seq: must be divisible by the ranks that split it, but 6 % 4 = 2; use 4, or no "
         "rule for seq"),
        (Plan.of(cp=3, batch=Batch(2, 1, 15)),
         "batch.seq: each of the ranks that split positions in use takes one part from the front "
         "and one from the back, but 15 % (2 × 3) = 3; use 12, or no rule for time"),
        (Plan.of(dp=4, ep=4, batch=Batch(4, 1, 16)),
         "rules.compute.expert: must split experts evenly, but 6 % 4 = 2; use a divisor of 6"),
        (Plan.of(pp=2, pipeline=Pipeline("1f1b", interleave=2)),
         "pipeline.interleave: is 2, but 1f1b has 1 stage on a rank; use 1, or the schedule "
         "interleaved or breadth-first"),
        (Plan.of(pipeline=Pipeline("zb-v", interleave=3)),
         "pipeline.interleave: is 3, but zb-v has 2 stages on a rank; use 2"),
        (Plan.of(pipeline=Pipeline("interleaved", interleave=0)),
         "pipeline.interleave: is 0, below 1; use 1 or more"),
        (Plan.of(pp=2, batch=Batch(10, 2, 16), pipeline=Pipeline("interleaved", interleave=2)),
         "batch.sequences: interleaved takes micro-batches in rounds of pp, but 5 % 2 = 1; use 8, "
         "or another schedule"),
        (Plan.of(pp=4, pipeline=Pipeline("zb-v"), batch=Batch(4, 1, 16)),
         "mesh.pp: 8 stages (2 on a rank), but the model has 6 blocks; use at most 3"),
        (Plan.of(pp=2, pipeline=Pipeline("zb-v", (0, 3))),
         "pipeline.cut: [0, 3] is not 4 ascending block numbers from 0 below 6; use \"balanced\""),
        (Plan.of(memory=Memory("selective", 2)),
         "memory.recompute_layers: is 2, but recompute is selective; use \"all\", or recompute = "
         '"full"'),
        (Plan.of(memory=Memory("full", 0)),
         "memory.recompute_layers: is 0, below 1; use 1 or more"),
        (Plan.of(memory=Memory(offload=1.5)), "memory.offload: is 1.5, no share; use 0 to 1"),
        (Plan.of(memory=Memory(optimizer_offload=-1.0)),
         "memory.optimizer_offload: is -1.0, no share; use 0 to 1"),
        (Plan.of(dp=2, zero=2, communication=Communication(codec="powersgd")),
         "communication.codec: powersgd reduces whole matrices, but gradients rest in shards; "
         "leave out rules.gradient, or choose bfloat16 or int8"),
        (Plan.of(tp=2, sequence=False, communication=Communication(tensor_overlap=True)),
         "communication.tensor_overlap: needs activations that tensor-parallel ranks split between "
         "blocks; add a rule for seq, or set it to false"),
        (Plan.of(numerics=Numerics("float64", matrix="float8")),
         'numerics.matrix: is float8, but dtype is float64; use "same", or dtype = "bfloat16"'),
        (grouped(Group((1, 1), "full")),
         "groups.0.layers: [1, 1] holds no layer; write the first layer and the one after the "
         "last: [0, 8]"),
        (grouped(Group((0, 3), "full")),
         "groups.0.layers: [0, 3] ends after the last of 2 layers; end at 2 or before"),
        (grouped(Group((0, 2), "full"), Group((1, 2), "none")),
         "groups.1.layers: begins at 1, before the end of another at 2; order groups by layer, "
         "without overlap"),
        (grouped(Group((0, 1))), "groups.0: changes nothing; state recompute or rules"),
        (grouped(Group((0, 1), rules=Rules((("batch", ("dq",)), ("ff", ("dp",)))))),
         "groups.0.rules.compute.batch: the mesh has no axis 'dq'; choose from ['dp', 'tp']"),
    ],
)  # fmt: skip
def test_what_could_not_even_be_planned_is_named_too(plan: Plan, found: str) -> None:
    assert wrongs(plan, SPARSE) == [found]


def test_a_group_divides_the_sequences_and_positions_that_run_at_once() -> None:
    mesh = Mesh((("a", 2), ("b", 3)))
    rules = Rules((("batch", ("a",)), ("heads", ("b",))))
    whole = Group((0, 1), rules=Rules((("batch", ("a", "b")),)))
    assert wrongs(Plan(mesh, rules, batch=Batch(4, 2, 16), groups=(whole,))) == [
        "groups.0.rules.compute.batch: must divide the 4 sequences that run at once, but 4 % 6 = "
        "4; use another micro_batch, or other axes"
    ]
    assert wrongs(Plan(mesh, rules, batch=Batch(6, 3, 16), groups=(whole,))) == []
    split = Group((0, 1), rules=replace(rules, compute=(*rules.compute, ("seq", ("b",)))))
    assert wrongs(Plan(mesh, rules, batch=Batch(4, 2, 16), groups=(split,))) == [
        "batch.seq: must be divisible by the ranks that split it, but 16 % 3 = 1; use 15, or no "
        "rule for seq in groups.0"
    ]


def test_a_dense_model_has_no_experts_to_split_so_a_rule_for_them_says_nothing() -> None:
    assert wrongs(EP, MODEL) == []


def test_a_device_that_cannot_multiply_in_a_precision_is_named() -> None:
    plan = Plan.of(dp=2, numerics=Numerics("bfloat16", matrix="float4"))
    assert wrongs(plan, cluster=machine(2)) == [
        'numerics.matrix: tiny has no matrix products in float4; use "same"'
    ]
