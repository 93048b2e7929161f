"""A plan as TOML: what is read, what is written, and what is said of what cannot be read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stretto.errors import PlanError
from stretto.plan import (
    Batch,
    Communication,
    Group,
    Memory,
    Numerics,
    Pipeline,
    Plan,
    override,
)
from stretto.rules import Rules


def problems(text: str) -> list[str]:
    """What is wrong with a plan's TOML."""
    with pytest.raises(PlanError) as error:
        Plan.from_toml(text)
    return [str(p) for p in error.value.problems]


# ── what is read ─────────────────────────────────────────────────────────────────────────────────


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
        ("[batsch]", "batsch: there is no such key; did you mean batch?"),
        ("batch = 3", "batch: is 3, not a table; write [batch]"),
        (
            "[batch]\nsequence = 1",
            "batch.sequence: there is no such key; did you mean batch.sequences?",
        ),
        (
            "[batch]\nqqq = 1",
            "batch.qqq: there is no such key; choose from ['micro_batch', 'seq', 'sequences']",
        ),
        ("[batch]\nseq = 0", "batch.seq: is 0; write a whole number of 1 or more"),
        ("[batch]\nseq = true", "batch.seq: is True; write a whole number of 1 or more"),
        (
            "[pipeline]\nschedule = '1F1B'",
            "pipeline.schedule: is '1F1B'; choose from gpipe, 1f1b, interleaved, breadth-first, "
            "zb-1p, zb-2p, zb-v, vocabulary",
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
            "rules.optimiser: there is no such key; did you mean rules.optimizer?",
        ),
        (
            "[rules.compute]\nbatch = 1",
            'rules.compute.batch: is 1; write axes: "dp" or ["dp", "tp"]',
        ),
        (
            "[pipeline]\ninterleave = 0",
            "pipeline.interleave: is 0; write a whole number of 1 or more",
        ),
        (
            "[memory]\nrecompute_layers = 0",
            'memory.recompute_layers: is 0; write "all", or a whole number of 1 or more',
        ),
        ("[memory]\noffload = 1.5", "memory.offload: is 1.5; write a share from 0 to 1"),
        ("[memory]\noffload = nan", "memory.offload: is nan; write a share from 0 to 1"),
        (
            "[communication]\ncodec = 'zip'",
            "communication.codec: is 'zip'; choose from none, bfloat16, int8, powersgd",
        ),
        (
            "[numerics]\nmatrix = 'float16'",
            "numerics.matrix: is 'float16'; choose from same, float8, float4",
        ),
        ("groups = 3", "groups: is 3, not a list; write [[groups]]"),
        ("groups = [3]", "groups.0: is 3, not a table; write [[groups]]"),
        (
            "[[groups]]\nrecompute = 'full'",
            "groups.0.layers: is None; write the first layer and the one after the last: [0, 8]",
        ),
        (
            "[[groups]]\nlayers = [0, 1]\n[groups.rules.optimizer]\nembed = 1",
            'groups.0.rules.optimizer.embed: is 1; write axes: "dp" or ["dp", "tp"]',
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
    with pytest.raises(PlanError, match=r"batch\.sec: there is no such .*you mean batch\.seq\?"):
        override(Plan(), [("batch.sec", 1)])


def test_what_is_wrong_with_rules_and_batch_is_listed_beside_what_could_not_be_read() -> None:
    text = """
        [mesh]
        dp = 2
        [rules.compute]
        batch = ["dp"]
        hedas = ["dp"]
        [pipeline]
        schedule = "2f2b"
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


def test_every_key_of_the_plan_space_is_read() -> None:
    plan = Plan.from_toml(
        """
        [pipeline]
        schedule = "interleaved"
        interleave = 2
        [memory]
        recompute = "full"
        recompute_layers = 3
        offload = 0.5
        optimizer_offload = 1
        regather = false
        [communication]
        codec = "int8"
        hierarchy = "two-level"
        tensor_overlap = true
        [numerics]
        dtype = "bfloat16"
        matrix = "float8"
        [[groups]]
        layers = [0, 4]
        recompute = "none"
        [[groups]]
        layers = [4, 8]
        [groups.rules.compute]
        batch = "dp"
        """
    )
    assert plan == Plan(
        pipeline=Pipeline("interleaved", interleave=2),
        memory=Memory("full", 3, 0.5, 1.0, regather=False),
        communication=Communication(codec="int8", hierarchy="two-level", tensor_overlap=True),
        numerics=Numerics("bfloat16", matrix="float8"),
        groups=(Group((0, 4), "none"), Group((4, 8), rules=Rules((("batch", ("dp",)),)))),
    )


# ── what is written ──────────────────────────────────────────────────────────────────────────────


def test_the_text_of_a_plan_reads_like_one_written_by_hand() -> None:
    text = Plan.of(dp=2, zero=1, batch=Batch(8, 2, 16)).to_toml()
    assert "[mesh]\npp = 1\ndp = 2\ntp = 1\n" in text
    assert '[rules.compute]\nbatch = "dp"\n' in text
    assert '[pipeline]\nschedule = "1f1b"\ncut = []\ninterleave = 1\n' in text
    assert '[memory]\nrecompute = "none"\nrecompute_layers = "all"\n' in text
    assert "[batch]\nsequences = 8\nmicro_batch = 2\nseq = 16\n" in text
    assert "groups" not in text


def test_groups_are_written_as_an_array_of_tables() -> None:
    plan = replace(Plan.of(dp=2), groups=(Group((0, 4), "full", Plan.of(dp=2, zero=3).rules),))
    text = plan.to_toml()
    assert '[[groups]]\nlayers = [0, 4]\nrecompute = "full"\n' in text
    assert '[groups.rules.compute]\nbatch = "dp"\n' in text
