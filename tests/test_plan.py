"""The plan: a value that reads and prints as TOML, and knows what is wrong with it."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.cluster import Cluster, Device
from stretto.errors import PlanError
from stretto.mesh import Mesh
from stretto.model import BlockKind, Model
from stretto.plan import (
    Batch,
    Communication,
    DType,
    Memory,
    Numerics,
    Pipeline,
    Plan,
    Recompute,
    ScheduleName,
    override,
    read,
    resting_bytes,
)
from stretto.program.draw import draw
from stretto.program.lower import lower
from stretto.rules import COMPUTE_DIMS, STORAGE_DIMS, Rules

MODEL = Model(
    "small", layers=2, embed=16, heads=4, kv_heads=2, head_dim=4, ff=32, vocab=50, positions=64
)


def problems(text: str) -> list[str]:
    """What is wrong with a plan's TOML."""
    with pytest.raises(PlanError) as error:
        Plan.from_toml(text)
    return [str(p) for p in error.value.problems]


def wrongs(plan: Plan, model: Model = MODEL, cluster: Cluster | None = None) -> list[str]:
    """What is wrong with running a plan."""
    return [str(p) for p in plan.check(model, cluster)]


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────

AXES = ("pp", "dp", "cp", "tp", "x-1")


@st.composite
def tables(draw: st.DrawFn, dims: tuple[str, ...], names: tuple[str, ...]) -> Any:
    lines = draw(st.lists(st.sampled_from(dims), unique=True))
    axes = st.lists(st.sampled_from(names), max_size=2).map(tuple)
    return tuple((dim, draw(axes)) for dim in lines)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan that can be written, legal or not."""
    names = draw(st.permutations(draw(st.lists(st.sampled_from(AXES), min_size=1, unique=True))))
    view = tuple(draw(st.lists(st.sampled_from(names), min_size=1, unique=True)))
    mesh = Mesh(
        tuple((name, draw(st.integers(1, 3))) for name in names),
        ((draw(st.sampled_from(("ep", "v"))), view),) if draw(st.booleans()) else (),
    )
    rules = Rules(
        draw(tables(COMPUTE_DIMS, mesh.names)),
        *(draw(tables(STORAGE_DIMS, mesh.names)) for _ in range(3)),
    )
    return Plan(
        mesh,
        rules,
        Pipeline(
            draw(st.sampled_from(get_args(ScheduleName))),
            tuple(draw(st.lists(st.integers(0, 6), max_size=3))),
        ),
        Memory(draw(st.sampled_from(get_args(Recompute)))),
        Communication(draw(st.integers(1, 2**40))),
        Numerics(draw(st.sampled_from(get_args(DType))), compile=draw(st.booleans())),
        Batch(*(draw(st.integers(1, 24)) for _ in range(3))),
    )


@given(plans())
def test_a_plan_reads_back_as_it_was_written(plan: Plan) -> None:
    assert Plan.from_toml(plan.to_toml()) == plan


@given(plans())
def test_a_plan_is_refused_with_problems_or_can_be_lowered(plan: Plan) -> None:
    found = plan.check(MODEL)
    if found:
        with pytest.raises(PlanError) as error:
            lower(MODEL, plan)
        assert error.value.problems == found
    else:
        lower(MODEL, plan)


@given(st.integers(0, 2**32), st.data())
def test_a_misspelt_key_is_found_wherever_it_stands(seed: int, data: st.DataObject) -> None:
    model, plan = draw(seed)
    tree = tomllib.loads(plan.to_toml())
    sections = {name: tree[name] for name in tree if name != "mesh"}  # an axis has any name
    sections |= {f"rules.{name}": table for name, table in tree["rules"].items()} | {"": tree}
    section = data.draw(st.sampled_from(sorted(sections)))
    key = data.draw(st.sampled_from(sorted(sections[section])))
    sections[section]["z" + key] = sections[section].pop(key)
    try:
        found = read(tree).check(model)
    except PlanError as error:
        found = error.problems
    assert f"{section}.z{key}".removeprefix(".") in {p.field for p in found}


# ── short forms ──────────────────────────────────────────────────────────────────────────────────


def test_the_short_form_writes_the_usual_rules() -> None:
    plan = Plan.of(pp=2, dp=4, tp=2, zero=2)
    assert plan.mesh == Mesh((("pp", 2), ("dp", 4), ("tp", 2)))
    assert plan.rules.compute == (
        ("batch", ("dp",)), ("heads", ("tp",)), ("ff", ("tp",)), ("vocab", ("tp",)),
        ("seq", ("tp",)),
    )  # fmt: skip
    assert plan.rules.parameter == ()
    assert dict(plan.rules.gradient)["embed"] == ("dp",)
    assert plan.rules.gradient == plan.rules.optimizer
    assert (plan.stages, plan.replicas) == (2, 4)


def test_without_sequence_sharding_activations_are_replicated_over_tp() -> None:
    assert "seq" not in dict(Plan.of(tp=2, sequence=False).rules.compute)


def test_micro_batches_are_what_each_replica_runs_in_a_step() -> None:
    plan = Plan.of(dp=2, batch=Batch(sequences=24, micro_batch=3, seq=8))
    assert plan.micro_batches == 4


def test_the_short_form_lists_all_numbers_that_cannot_be() -> None:
    with pytest.raises(PlanError) as error:
        Plan.of(pp=0, tp=-1, dp=6, zero=4, shard=4)
    assert [str(p) for p in error.value.problems] == [
        "pp: is 0, below 1; use 1 or more",
        "tp: is -1, below 1; use 1 or more",
        "zero: is 4; choose 0, 1, 2 or 3",
        "shard: must divide dp, but 6 % 4 is not 0; choose a divisor",
    ]


def test_recomputation_names_the_blocks_that_run_again() -> None:
    assert Memory("none").kinds == set()
    assert Memory("selective").kinds == {BlockKind.ATTENTION}
    assert Memory("full").kinds == {BlockKind.ATTENTION, BlockKind.FEED_FORWARD, BlockKind.HEAD}


def test_master_weights_are_in_float32_or_better() -> None:
    assert [Numerics(d).master for d in get_args(DType)] == ["float64", "float32", "float32"]


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def test_an_empty_file_is_the_default_plan() -> None:
    assert Plan.from_toml("") == Plan()


def test_axes_may_be_written_as_one_word_and_sizes_with_a_unit() -> None:
    plan = Plan.from_toml(
        '[mesh]\ndp = 2\n[rules.compute]\nbatch = "dp"\n[communication]\nbucket = "1MiB"\n'
        '[pipeline]\ncut = "balanced"\n'
    )
    assert plan.rules.compute == (("batch", ("dp",)),)
    assert plan.communication.bucket_bytes == 2**20
    assert plan.pipeline.cut == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "[mesh",
            "plan: is not TOML: Expected ']' at the end of a table declaration (at end of "
            "document); mend that line",
        ),
        ("[batsch]", "batsch: there is no such key; did you mean 'batch'?"),
        ("batch = 3", "batch: is 3, not a table; write [batch]"),
        (
            "[batch]\nsequence = 1",
            "batch.sequence: there is no such key; did you mean 'sequences'?",
        ),
        (
            "[batch]\nqqq = 1",
            "batch.qqq: there is no such key; choose from ['micro_batch', 'seq', 'sequences']",
        ),
        ("[batch]\nseq = 0", "batch.seq: is 0; write a whole number of 1 or more"),
        ("[batch]\nseq = true", "batch.seq: is True; write a whole number of 1 or more"),
        (
            "[pipeline]\nschedule = '1F1B'",
            "pipeline.schedule: is '1F1B'; choose from gpipe, 1f1b",
        ),
        (
            "[pipeline]\ncut = [0, 'a']",
            "pipeline.cut: is [0, 'a']; write \"balanced\", or the first block of each stage: "
            "[0, 9]",
        ),
        (
            "[memory]\nrecompute = []",
            "memory.recompute: is []; choose from none, selective, full",
        ),
        ("[numerics]\ncompile = 1", "numerics.compile: is 1; write true or false"),
        (
            "[communication]\nbucket = 25",
            "communication.bucket: '25' is not a number with a unit of bytes; write 25MiB",
        ),
        ("[mesh]\ndp = 1.5", "mesh.dp: is 1.5, not a whole number; write its extent"),
        ("[mesh]\nviews = 1", "mesh.views: is 1, not a table; write [mesh.views]"),
        ("[mesh]\ndp = 0", "mesh.dp: extent 0 is below 1; use 1 or more"),
        ("[rules]\ncompute = 1", "rules.compute: is 1, not a table; write [rules.compute]"),
        (
            "[rules.optimiser]",
            "rules.optimiser: there is no such key; did you mean 'optimizer'?",
        ),
        (
            "[rules.compute]\nbatch = 1",
            'rules.compute.batch: is 1; write axes: "dp" or ["dp", "tp"]',
        ),
    ],
)
def test_what_cannot_be_read_is_named_with_a_remedy(text: str, found: str) -> None:
    assert problems(text) == [found]


def test_all_problems_of_a_file_are_listed_together() -> None:
    text = """
        [mesh]
        dp = "two"
        views = { v = 3 }
        [rules.compute]
        batch = 1
        [rules.parametr]
        [pipeline]
        schedule = "2f2b"
        cut = "even"
        [bach]
        [numerics]
        dtype = "float16"
    """
    fields = [line.split(": ")[0] for line in problems(text)]
    assert sorted(fields) == sorted(
        ["bach", "mesh.dp", "mesh.views.v", "numerics.dtype", "pipeline.schedule", "pipeline.cut",
         "rules.parametr", "rules.compute.batch"]
    )  # fmt: skip


def test_dotted_keys_change_a_plan() -> None:
    plan = override(Plan(), [("mesh.dp", 4), ("batch.seq", 512), ("rules.compute.batch", "dp")])
    assert plan.mesh.extent("dp") == 4
    assert plan.batch.seq == 512
    assert plan.rules.compute == (("batch", ("dp",)),)


def test_dotted_keys_that_lead_nowhere_are_listed() -> None:
    with pytest.raises(PlanError, match=r"batch\.seq\.x: there is no such table; see the plan"):
        override(Plan(), [("batch.seq.x", 1)])
    with pytest.raises(PlanError, match=r"batch\.sec: there is no such key; did you mean 'seq'\?"):
        override(Plan(), [("batch.sec", 1)])


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
         "rules.compute.embed: compute rules cannot split 'embed'; choose from batch, seq, heads, "
         "ff, vocab"),
        (ruled(DP, optimizer={"embd": ("dp",)}),
         "rules.optimizer.embd: optimizer rules cannot split 'embd'; did you mean 'embed'?"),
        (ruled(DP, compute={"ff": ("pp",)}),
         "rules.compute.ff: pp cuts the chain of blocks, not a tensor; use another axis"),
        (ruled(DP, compute={"ff": ("tq",)}),
         "rules.compute.ff: the mesh has no axis 'tq'; choose from ['dp', 'tp']"),
        (ruled(DP, parameter={"ff": ("dp", "dp")}),
         "rules.parameter.ff: dp splits it twice; name dp once"),
        (replace(DP, rules=Rules((("batch", ("dp",)), ("batch", ("dp",))))),
         "rules.compute.batch: two lines split it; write one"),
        (ruled(DP, compute={"batch": ()}),
         "mesh.dp: no compute rule for batch, heads, ff or vocab uses it, so 2 ranks would do the "
         'same work; add one, such as rules.compute.batch = ["dp"], or set dp = 1'),
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
    assert found.startswith("mesh.tp: no compute rule for batch, heads, ff or vocab uses it")


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
    cluster = Cluster("here", Device("cpu", 1e9), 4)
    assert wrongs(DP, cluster=cluster) == [
        "mesh: pp 1 × dp 2 × tp 1 = 2 ranks, but there are 4; change the mesh, or run on 2 ranks"
    ]


def test_a_model_that_does_not_fit_is_refused_with_what_it_needs() -> None:
    cluster = Cluster("here", Device("tiny", 2**14), 2)
    (found,) = wrongs(DP, cluster=cluster)
    needs = 16 * MODEL.parameter_count / 1024  # float32: weight, gradient and two moments
    assert found == (
        f"mesh: weights, gradients and optimizer state need {needs:.2f} KiB on a rank, but a "
        "device has 16.00 KiB; shard more (rules.parameter.embed), or use more ranks"
    )


def test_sharding_everything_halves_what_rests_on_each_of_two_ranks() -> None:
    whole, half = resting_bytes(DP, MODEL), resting_bytes(Plan.of(dp=2, zero=3), MODEL)
    assert half == pytest.approx(whole / 2)


def test_bfloat16_adds_a_master_weight() -> None:
    plan = replace(DP, numerics=Numerics("bfloat16"))
    assert resting_bytes(plan, MODEL) == (2 + 4 + 12) * MODEL.parameter_count


def test_all_problems_of_a_plan_are_listed_together() -> None:
    plan = Plan(
        Mesh((("pp", 9), ("dp", 2), ("tp", 2))),
        Rules((("bach", ("dp",)), ("ff", ("tq",)))),
        batch=Batch(0, 1, 8),
    )
    fields = {line.split(": ")[0] for line in wrongs(plan, cluster=Cluster("x", Device("x", 1), 1))}
    assert fields == {"rules.compute.bach", "rules.compute.ff", "mesh.dp", "mesh.tp",
                      "batch.sequences", "mesh.pp", "mesh"}  # fmt: skip


def test_plans_are_values() -> None:
    assert len({Plan.of(dp=2), Plan.of(dp=2), Plan.of(dp=4)}) == 2


def test_the_text_of_a_plan_reads_like_one_written_by_hand() -> None:
    text = Plan.of(dp=2, zero=1, batch=Batch(8, 2, 16)).to_toml()
    assert "[mesh]\npp = 1\ndp = 2\ntp = 1\n" in text
    assert '[pipeline]\nschedule = "1f1b"\ncut = []\n' in text
    assert "[batch]\nsequences = 8\nmicro_batch = 2\nseq = 16\n" in text


def test_what_is_wrong_with_rules_and_batch_is_listed_beside_what_could_not_be_read() -> None:
    text = """
        [mesh]
        dp = 2
        [rules.compute]
        batch = ["dp"]
        hedas = ["dp"]
        [pipeline]
        schedule = "zb"
        [batch]
        sequences = 5
        micro_batch = 3
    """
    with pytest.raises(PlanError) as error:
        Plan.from_toml(text)
    assert {p.field for p in error.value.problems} == {
        "pipeline.schedule", "rules.compute.hedas", "batch.sequences",
    }  # fmt: skip


def test_rules_are_not_held_against_a_mesh_that_could_not_be_read() -> None:
    with pytest.raises(PlanError) as error:
        Plan.from_toml('[mesh]\ndp = "two"\n[rules.compute]\nbatch = ["dp"]')
    assert {p.field for p in error.value.problems} == {"mesh.dp"}
