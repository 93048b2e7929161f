"""The picture of a step shows what was under way when."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from tests.simulate.toy import cluster, model, modern, plan, silent, software

from stretto.program.lower import lower
from stretto.report.simulate_svg import MOST, picture
from stretto.simulate import Halt, SlowRank, simulate
from stretto.timeline import KINDS, Timeline

SVG = "{http://www.w3.org/2000/svg}"


def drawn(line: Timeline, program: object) -> ElementTree.Element:
    return ElementTree.fromstring(picture(line, program, title="a <step>"))  # type: ignore[arg-type]


def widths(root: ElementTree.Element, kind: str) -> float:
    """Give how wide all rectangles of a kind are, but for the one in the legend."""
    found = [float(r.attrib["width"]) for r in root.iter(f"{SVG}rect") if r.get("class") == kind]
    return sum(found[1:])


def test_a_rank_alone_is_drawn_as_it_works() -> None:
    program = lower(model(layers=8), plan(micro_batches=3))
    line = simulate(program, cluster(1), stack=software())
    root = drawn(line, program)
    room = next(
        float(r.attrib["width"]) for r in root.iter(f"{SVG}rect") if r.get("class") == "rest"
    )
    names = {"forward": 0.0, "backward": 0.0, "update": 0.0}
    for row in range(len(line.kind)):
        if KINDS[line.kind[row]] == "device":
            x = program.stages[0].instructions[line.instruction[row]]
            names[str(getattr(x, "phase", "update"))] += line.stop_s[row] - line.start_s[row]
    for name, seconds in names.items():
        # Each change from one name to another is drawn at the next of 900 pieces.
        assert widths(root, name) == pytest.approx(room * seconds / line.step_s, abs=room * 0.05)
    assert sum(widths(root, name) for name in names) == pytest.approx(room, rel=0.01)


def test_the_title_is_text_and_ranks_are_named_with_how_many_are_alike() -> None:
    program = lower(model(), plan(pp=2, dp=2))
    root = drawn(simulate(program, cluster(4), stack=modern()), program)
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert texts[0] == "a <step>" and {"rank 0 +1", "rank 2 +1"} <= set(texts)
    assert "0 ms" in texts


def test_of_many_ranks_some_are_drawn_the_first_and_the_last_among_them() -> None:
    program = lower(model(), plan(dp=32))
    faults = [SlowRank(r, 1 + r / 100) for r in range(1, 32)]
    line = simulate(program, silent(32), stack=software(), faults=faults)
    names = [t.text for t in drawn(line, program).iter(f"{SVG}text") if "rank" in (t.text or "")]
    assert len(names) == MOST and (names[0], names[-1]) == ("rank 0", "rank 31")


def test_a_step_that_does_not_end_is_drawn_as_far_as_it_came() -> None:
    program = lower(model(), plan(dp=2))
    whole = simulate(program, cluster(2), stack=software())
    line = simulate(program, cluster(2), stack=software(), faults=[Halt(1, 10)])
    root, all_of_it = drawn(line, program), drawn(whole, program)
    assert widths(all_of_it, "vote") > 0
    assert not [r for r in root.iter(f"{SVG}rect") if r.get("class") == "vote"]


def test_nothing_is_fetched_and_both_colour_schemes_are_there() -> None:
    program = lower(model(), plan())
    text = picture(simulate(program, cluster(1), stack=software()), program, title="x")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "prefers-color-scheme: dark" in text
