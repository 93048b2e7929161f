"""What a run of a block writes for a micro-batch is what it writes for any, under other names."""

from __future__ import annotations

from stretto.layout import Kind, Layout, Step
from stretto.program.instruction import Buffer, Compute, Instruction, Leg, Move, Phase, Role, Spec
from stretto.program.repeat import Run

WIDE = Spec(Role.ACTIVATION, (4, 8), Layout(((), ("tp",))), "float32")
SUM = Spec(Role.GRADIENT, (8,), Layout(((),)), "float32")
STEPS = (Step(Kind.ALL_GATHER, ("tp",), dim=1),)


def _written(m: int, weight: Buffer) -> list[Instruction]:
    """Give a run that reads a gathered and a resting weight, and adds to a sum."""
    return [
        Compute(
            Phase.FORWARD,
            3,
            (0, 2),
            m,
            values=(("x", f"x3.m{m}"),),
            parameters=(("query", weight), ("norm", "w:norm")),
            writes=(("d", f"d3.m{m}"),),
            adds=(("g:norm", "g:norm"),),
            graph=f"graph3.0.m{m}",
        ),
        Move((Leg(f"d3.m{m}", f"d3.m{m}>2", STEPS),), ((f"d3.m{m}>2", f"x3.m{m}"),)),
    ]


def _made(m: int) -> dict[Buffer, Spec]:
    return {f"x3.m{m}": WIDE, f"d3.m{m}": WIDE, "g:norm": SUM, f"d3.m{m}>2": WIDE}


def test_a_run_is_filled_with_the_names_of_its_micro_batch_and_of_its_gathered_weights() -> None:
    run = Run.of(_written(-1, "u:query"), _made(-1), parameters=("query", "unread"))
    out: list[Instruction] = []
    buffers: dict[Buffer, Spec] = {}
    for m, weight in ((7, "u12:query"), (31, "u40:query")):
        run.fill(m, {"query": weight, "norm": "w:norm"}, out=out, buffers=buffers)
    assert out == [*_written(7, "u12:query"), *_written(31, "u40:query")]
    assert buffers == _made(7) | _made(31)
    assert list(buffers) == list(_made(7) | _made(31))


def test_a_run_tells_which_instruction_of_the_list_names_each_of_its_buffers_last() -> None:
    run = Run.of(_written(-1, "u:query"), _made(-1), parameters=("query",))
    out: list[Instruction] = [*_written(1, "u0:query")]
    last = run.fill(2, {"query": "u2:query"}, out=out, buffers={})
    assert last == {"x3.m2": 3, "d3.m2": 3, "graph3.0.m2": 2, "d3.m2>2": 3, "u2:query": 2}
