"""A program as text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stretto.model import Model
from stretto.plan import Batch, Pipeline, Plan
from stretto.program.draw import draw
from stretto.program.lower import lower
from stretto.program.render import label, lines, render, summary

MODEL = Model(
    "small", layers=1, embed=6, heads=2, kv_heads=2, head_dim=2, ff=8, vocab=12, positions=8,
    tied=True,
)  # fmt: skip
PROGRAM = lower(
    MODEL,
    Plan.of(pp=2, dp=2, tp=2, zero=3, pipeline=Pipeline("gpipe", (0, 2)), batch=Batch(4, 1, 4)),
)


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_every_instruction_is_a_line_and_columns_are_aligned(seed: int) -> None:
    program = lower(*draw(seed))
    for stage in program.stages:
        text = lines(program, stage.stage)
        assert len(text) == len(stage.instructions)
        for i, (line, instruction) in enumerate(zip(text, stage.instructions, strict=True)):
            at, done = line.split()[:2]
            assert at == str(i)
            assert label(program, stage, instruction).startswith(done)
        starts = {line.index(line.split()[1], len(str(len(text) - 1))) for line in text}
        assert len(starts) == 1


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_a_program_is_the_summary_and_the_lines_of_each_stage(seed: int) -> None:
    program = lower(*draw(seed))
    text = render(program)
    for stage in range(len(program.stages)):
        assert "\n".join((*summary(program, stage), *lines(program, stage))) in text


def shown(stage: int, word: str) -> list[str]:
    """The lines of a stage that do something, with single spaces."""
    split = [line.split() for line in lines(PROGRAM, stage)]
    return [" ".join(words[1:]) for words in split if words[1] == word]


def test_a_compute_names_block_segments_micro_batch_and_what_it_reads_and_writes() -> None:
    assert shown(0, "forward")[:4] == [
        "forward embedding[lookup] m0 tokens.m0 → x0.m0",
        "forward layers.0.attention[norm] m0 x1.m0 → n1.m0",
        "forward layers.0.attention[attend] m0 n1.m0>1, mask.m0 → d1.m0",
        "forward layers.0.attention[add] m0 x1.m0, d1.m0>2 → x2.m0",
    ]


def test_a_backward_shows_what_is_added_and_counts_its_gradients() -> None:
    assert shown(0, "backward")[:3] == [
        "backward layers.0.attention[attend] m0 dd1.1<.m0 → dn1.1.m0, 3 gradients",
        "backward layers.0.attention[norm] m0 dn1.0<.m0 → dx1.m0 + dx2.m0, 1 gradient",
        "backward embedding[lookup] m0 dx0.0<.m0 → 1 gradient",
    ]


def test_a_sum_that_grows_is_marked() -> None:
    losses = [line for line in shown(1, "forward") if "head[loss]" in line]
    assert losses[0].endswith("→ loss")
    assert losses[1].endswith("→+ loss")


def test_a_move_names_its_steps_and_the_bytes_that_a_rank_sends() -> None:
    moves = shown(0, "move")
    # 12 tokens over two tp ranks, 3 of 6 columns of float32 to the other dp rank
    assert moves[0] == "move all-gather dp dim 1 72 B w:embedding.token → u0:embedding.token"
    assert moves[1] == (
        "move all-gather dp 108 B w:layers.0.attention.norm.weight and 3 more → "
        "u1:layers.0.attention.norm.weight and 3 more"
    )
    assert moves[2] == "move reduce-scatter tp dim 1 48 B x0.m0 → x1.m0"


def test_messages_name_the_other_stage() -> None:
    assert shown(0, "send")[0] == "send x.m0 to stage 1 48 B x2.m0"
    assert shown(1, "receive")[0] == "receive x.m0 from stage 0 → x2.m0"
    assert shown(0, "receive")[-1] == (
        "receive tie:embedding.token from stage 1 → t:embedding.token + g:embedding.token"
    )


def test_votes_and_updates_say_what_on() -> None:
    assert shown(0, "vote") == ["vote gradient norm t:embedding.token and 4 more → verdict"]
    assert shown(1, "vote") == [
        "vote loss and gradient norm loss, count.m0, count.m1 and 4 more → verdict"
    ]
    assert shown(0, "update") == [
        "update 5 parameters t:embedding.token and 4 more → w:embedding.token and 4 more"
    ]


def test_a_summary_says_what_runs_what_is_sent_and_what_is_held() -> None:
    title, runs, sends, holds = summary(PROGRAM, 0)
    assert title == "stage 0 of 2: embedding to layers.0.attention, 2 blocks"
    assert "8 forward" in runs
    assert "1 vote" in runs
    # over pp: two micro-batches of 2 × 6 float32, and half of the tied embedding's quarter
    assert "pp 168 B" in sends
    assert sends.endswith(", a rank and step")
    assert holds.startswith("  holds  668 B at rest, ")


def test_a_stage_of_one_block_alone_says_which() -> None:
    program = lower(MODEL, Plan.of(pp=4, batch=Batch(1, 1, 4)))
    assert summary(program, 1)[0] == "stage 1 of 4: layers.0.attention"
    assert summary(program, 1)[2].startswith("  sends  pp ")


def test_one_rank_sends_nothing() -> None:
    program = lower(MODEL, Plan.of(batch=Batch(1, 1, 4)))
    assert summary(program, 0)[2] == "  sends  nothing, a rank and step"
