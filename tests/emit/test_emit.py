from __future__ import annotations

from dataclasses import replace

import pytest
from tests.emit.cases import EXPERTS, LLAMA, fields_refused, plan_of, written
from tests.emit.reading import command

from stretto.emit import TRAINERS, Trainer, emit
from stretto.errors import PlanError
from stretto.mesh import Mesh
from stretto.plan import Batch, Communication, Group, Memory, Numerics, Pipeline, Plan
from stretto.rules import Rules

# What every trainer takes but torchtitan, which knows no ZeRO-1.
PLAIN: dict[Trainer, Plan] = dict.fromkeys(TRAINERS, plan_of(dp=4, tp=2, zero=1)) | {
    "torchtitan": plan_of(dp=4, tp=2, zero=3)
}
each_trainer = pytest.mark.parametrize("trainer", TRAINERS)


@each_trainer
def test_all_that_is_wrong_is_listed_at_once(trainer: Trainer) -> None:
    plan = replace(
        plan_of(pp=2, dp=2, zero=1),
        pipeline=Pipeline("vocabulary", cut=(0, 4)),
        communication=Communication(codec="powersgd"),
        numerics=Numerics("float64"),
        groups=(Group((0, 1), "none"),),
    )
    expected = {
        "pipeline.schedule", "pipeline.cut", "communication.codec", "numerics.dtype", "groups",
    }  # fmt: skip
    assert expected <= fields_refused(trainer, plan)


@each_trainer
def test_an_impossible_plan_is_refused_for_that_first(trainer: Trainer) -> None:
    plan = replace(plan_of(dp=2), batch=Batch(3, 2, 64))
    assert fields_refused(trainer, plan) == {"batch.sequences"}


@each_trainer
def test_ranks_in_an_order_of_their_own_are_refused(trainer: Trainer) -> None:
    plan = plan_of(pp=2, dp=2, tp=2, order=("tp", "pp", "cp", "dp"), numerics=Numerics("float32"))
    assert "mesh" in fields_refused(trainer, plan)


@each_trainer
def test_rules_of_their_own_are_refused(trainer: Trainer) -> None:
    plan = PLAIN[trainer]
    compute = tuple(line for line in plan.rules.compute if line[0] != "vocab")
    odd = replace(plan, rules=replace(plan.rules, compute=compute))
    assert fields_refused(trainer, odd) == {"mesh"}


@each_trainer
def test_what_axes_are_called_does_not_matter(trainer: Trainer) -> None:
    plan = PLAIN[trainer]
    called = {"dp": "data", "tp": "heads"}

    def renamed(
        table: tuple[tuple[str, tuple[str, ...]], ...],
    ) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return tuple((dim, tuple(called.get(a, a) for a in axes)) for dim, axes in table)

    mesh = Mesh(tuple((called.get(name, name), extent) for name, extent in plan.mesh.axes))
    rules = Rules(
        *(
            renamed(getattr(plan.rules, name))
            for name in ("compute", "parameter", "gradient", "optimizer")
        )
    )
    other = replace(plan, mesh=mesh, rules=rules)
    assert emit(trainer, model=LLAMA, plan=other) == emit(trainer, model=LLAMA, plan=plan)


@each_trainer
def test_an_axis_in_two_parts_is_the_axis(trainer: Trainer) -> None:
    plan = PLAIN[trainer]
    mesh = plan.mesh.split("dp", (("outer", 2), ("inner", 2)))
    other = replace(plan, mesh=mesh)
    assert emit(trainer, model=LLAMA, plan=other) == emit(trainer, model=LLAMA, plan=plan)


@each_trainer
def test_more_stages_than_layers_are_refused(trainer: Trainer) -> None:
    # Eight layers, an embedding and a head: ten places to cut at most.
    plan = plan_of(pp=16, numerics=Numerics("float32"))
    assert fields_refused(trainer, plan) == {"mesh.pp"}


@each_trainer
def test_attention_in_chunks_is_refused(trainer: Trainer) -> None:
    model = replace(LLAMA, chunk=16)
    assert fields_refused(trainer, PLAIN[trainer], model=model) == {"model.chunk"}


@each_trainer
def test_nodes_that_are_not_filled_are_refused(trainer: Trainer) -> None:
    with pytest.raises(PlanError, match="mesh: 8 ranks do not fill nodes of 3"):
        emit(trainer, model=LLAMA, plan=PLAIN[trainer], per_node=3)


@each_trainer
@pytest.mark.parametrize(("per_node", "start"), [(8, "--standalone"), (4, "--node-rank")])
def test_one_node_starts_alone_and_several_by_their_number(
    trainer: Trainer, per_node: int, start: str
) -> None:
    files = written(trainer, PLAIN[trainer], per_node=per_node)
    (text,) = (text for name, text in files.items() if name.endswith(".sh"))
    assert command(text).world == 8
    assert start in text


@each_trainer
def test_notes_stand_in_the_script_too(trainer: Trainer) -> None:
    plan = replace(PLAIN[trainer], memory=Memory("full"))
    emitted = emit(trainer, model=LLAMA, plan=plan)
    text = " ".join(dict(emitted.files)[f"{trainer}.sh"].replace("\n# ", " ").split())
    assert "memory.recompute" in {note.field for note in emitted.notes}
    assert all(f"note: {note}" in text for note in emitted.notes)


@each_trainer
def test_how_a_reduction_crosses_nodes_is_noted(trainer: Trainer) -> None:
    plan = replace(PLAIN[trainer], communication=Communication(hierarchy="two-level"))
    notes = emit(trainer, model=LLAMA, plan=plan).notes
    assert "communication.hierarchy" in {note.field for note in notes}


def test_experts_that_ranks_share_out_are_for_megatron_and_torchtitan() -> None:
    plan = plan_of(dp=4, ep=2, zero=3)
    assert {t for t in TRAINERS if not fields_refused(t, plan, model=EXPERTS)} == {
        "megatron",
        "torchtitan",
    }
