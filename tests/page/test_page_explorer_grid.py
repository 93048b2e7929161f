"""The explorer's answers that are made beforehand: the same as those of a live page."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from stretto.cluster import find
from stretto.cost import cost, stack
from stretto.page.explorer import answer, still
from stretto.page.explorer import grid as grid_module
from stretto.page.explorer.explore import explore, searched
from stretto.page.explorer.grid import SHAPES, Axes, grid, largest
from stretto.page.explorer.start import Start
from stretto.page.subject import Subject
from stretto.plan import Batch, Numerics, Plan
from stretto.presets import preset


def subject(model: str = "gpt2", cluster: str = "h100x8", *, seq: int = 512) -> Subject:
    own, where, software = preset(model), find(cluster), stack()
    batch = Batch(64, 1, seq)
    plan = Plan.of(dp=where.devices, zero=1, batch=batch, numerics=Numerics("bfloat16"))
    return Subject(
        model, own, plan, where, software, cost(own, plan, cluster=where, stack=software)
    )


def unpacked(cell: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(cell)))
    return found


SAID: list[str] = []


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """What a file of a small model holds; `SAID` is what was said meanwhile."""
    return still(subject(), SAID.append)


def test_every_answer_of_a_file_is_that_of_a_live_page(made: dict[str, Any]) -> None:
    cells = [unpacked(cell) for cell in made["grid"]["cells"] if cell is not None]
    for cell in cells[::5]:
        live = answer(subject(), {name: str(value) for name, value in cell["asked"].items()})
        assert cell["asked"] == live["asked"]
        assert cell["problems"] == live["problems"]
        assert cell["tried"] == live["tried"]
        if not cell["problems"]:
            assert cell["plans"][cell["best"]] == live["plans"][live["best"]] | {
                "gives": cell["plans"][cell["best"]]["gives"]  # the front is thinner
            }


def test_the_file_has_an_answer_for_every_place_of_its_sliders(made: dict[str, Any]) -> None:
    axes, cells = made["grid"]["axes"], made["grid"]["cells"]
    place = 0
    for devices in axes["devices"]:
        for tokens in axes["tokens"]:
            for seq in axes["seq"]:
                for network in axes["network"]:
                    asked = unpacked(cells[place])["asked"]
                    assert (asked["devices"], asked["seq"]) == (devices, seq)
                    assert asked["sequences"] * seq == tokens
                    assert asked["network"] == network
                    place += 1
    assert place == len(cells)
    start = made["start"]
    assert start["devices"] in axes["devices"]
    assert start["sequences"] * start["seq"] in axes["tokens"]
    assert start["seq"] in axes["seq"]


def test_a_file_takes_no_more_than_a_megabyte(made: dict[str, Any]) -> None:
    assert len(json.dumps(made)) <= 1e6


def test_there_is_word_of_how_far_it_is(made: dict[str, Any]) -> None:
    assert len(made["grid"]["cells"]) == 81
    assert SAID[0] == "the explorer's answer 15 of 81"


def test_the_longer_a_search_the_fewer_answers_are_made() -> None:
    start = Start.of(subject())
    cells = [
        largest([Axes.of(start, shape) for shape in SHAPES], tried, 6.5).cells
        for tried in (1e3, 3e5, 1e6, 5e6, 1e9)
    ]
    assert cells == sorted(cells, reverse=True)
    assert cells[0] == 81
    assert cells[-1] == 1


def test_where_few_answers_could_be_made_they_try_what_won_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grid_module, "MOST_S", 0.2)
    start = Start.of(subject())
    made = grid(start)
    assert made["narrowed"]
    first = unpacked(made["cells"][len(made["cells"]) // 2])
    assert first["asked"]["network"] == 1
    live = answer(subject(), {})
    assert first["tried"] == live["tried"]
    others = [unpacked(cell) for cell in made["cells"]]
    assert min(other["tried"] for other in others) < live["tried"]


def test_positions_that_a_model_has_not_learned_have_no_answer() -> None:
    axes = Axes.of(Start.of(subject(seq=1024)), SHAPES[0])
    assert max(axes.seq) == preset("gpt2").positions == 1024


def test_an_answer_for_a_file_is_a_thinner_one_of_the_same() -> None:
    start = Start.of(subject("llama-3-8b", "h100x16", seq=4096))
    asked = grid_module.Asked.of(start)
    whole = searched(start, asked)
    live = explore(start, asked, whole=whole)
    thin = explore(start, asked, whole=whole, most=grid_module.STILL)
    assert len(thin["front"]) <= 8 < len(live["front"])
    assert len(thin["cloud"]["time_s"]) <= 80
    known = {plan["toml"] for plan in live["plans"]}
    assert all(plan["toml"] in known for plan in (thin["plans"][thin["best"]], thin["plans"][0]))
