"""Failures by name and from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from stretto.errors import InputError
from stretto.forecast import Component, Failures, Needs, Per, Shows
from stretto.forecast.toml import DEFAULT, find, names

GOOD = """\
about = "ours"
source = "our logbook"
devices = 64
per_node = 8
days = 10
component = [
    { name = "GPU", events = 4, per = "device", shows = "crash", needs = "repair" },
    { name = "host", events = 2, per = "node", shows = "hang", needs = "reset" },
    { name = "people", events = 5, per = "run", shows = "planned", needs = "restart" },
]

[recovery]
hang = "30min"
repair = "48h"
"""


@pytest.mark.parametrize("name", names())
def test_every_preset_can_be_read_and_says_where_it_is_from(name: str) -> None:
    failures, recovery = find(name)
    assert failures.about and failures.source
    assert recovery.crash_s == 30 and recovery.reset_s == 900


def test_llama_3_has_the_interruptions_of_its_table() -> None:
    # Grattafiori et al., 2024: 466 interruptions, 47 of them planned, in 54 days on 16,384 GPUs.
    failures, _ = find("llama3")
    seconds = 54 * 86400
    whole = failures.rate_per_s(devices=16384, nodes=2048) * seconds
    unplanned = failures.unplanned.rate_per_s(devices=16384, nodes=2048) * seconds
    assert (whole, unplanned) == (pytest.approx(466), pytest.approx(419))
    gpu = failures.components[0].rate_per_s(devices=16384, nodes=2048) * seconds
    assert gpu == pytest.approx(148)


def test_the_default_is_a_preset() -> None:
    assert DEFAULT in names()


def test_a_file_states_events_and_the_time_in_which_they_were_counted(tmp_path: Path) -> None:
    path = tmp_path / "ours.toml"
    path.write_text(GOOD)
    failures, recovery = find(str(path))
    day = 86400.0
    assert failures == Failures(
        "ours",
        "ours",
        "our logbook",
        (
            Component("GPU", 64 * 10 * day / 4, Per.DEVICE, Shows.CRASH, Needs.REPAIR),
            Component("host", 8 * 10 * day / 2, Per.NODE, Shows.HANG, Needs.RESET),
            Component("people", 2 * day, Per.RUN, Shows.PLANNED, Needs.RESTART),
        ),
    )
    assert (recovery.hang_s, recovery.repair_s, recovery.crash_s) == (1800, 172800, 30)


def test_a_run_twice_as_large_fails_twice_as_often_but_for_what_people_do(tmp_path: Path) -> None:
    path = tmp_path / "ours.toml"
    path.write_text(GOOD)
    failures, _ = find(str(path))
    once = [c.rate_per_s(devices=64, nodes=8) for c in failures.components]
    twice = [c.rate_per_s(devices=128, nodes=16) for c in failures.components]
    assert twice == pytest.approx([2 * once[0], 2 * once[1], once[2]])


def test_all_that_is_wrong_with_a_file_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    text = GOOD.replace('"device"', '"gpu"').replace("events = 2", "events = -2")
    path.write_text(text.replace('"30min"', '"30"').replace("days = 10", "days = 0"))
    with pytest.raises(InputError) as caught:
        find(str(path))
    fields = {p.field for p in caught.value.problems}
    assert fields == {
        "bad.toml: component.0.per", "bad.toml: component.1.events", "bad.toml: days",
        "bad.toml: recovery.hang",
    }  # fmt: skip
    assert any("choose from device, node, run" in p.remedy for p in caught.value.problems)


def test_a_missing_file_and_one_that_is_no_toml_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        find(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(InputError, match=r"bad\.toml: is not TOML"):
        find(str(tmp_path / "bad.toml"))


def test_an_unknown_name_is_answered_with_a_near_one() -> None:
    with pytest.raises(InputError, match=r"did you mean llama3\?"):
        find("lama3")


def test_a_component_that_stands_twice_and_one_that_always_fails_are_refused() -> None:
    one = Component("a", 1.0, Per.RUN, Shows.CRASH, Needs.RESTART)
    with pytest.raises(InputError) as caught:
        Failures("x", components=(one, one, Component("b", 0.0, *one_of(one))))
    assert [p.field for p in caught.value.problems] == ["component a", "component b"]


def one_of(component: Component) -> tuple[Per, Shows, Needs]:
    return component.per, component.shows, component.needs
