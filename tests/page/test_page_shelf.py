"""Runs by name."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from runs import a_run, append, record, restart, silent

from stretto.cli.shown import of_run
from stretto.page.metrics import Metrics
from stretto.page.sections import SECTIONS, Section
from stretto.page.shelf import Shelf
from stretto.page.subject import Subject


def made(path: Path, metrics: Metrics, others: Sequence[tuple[str, Metrics]]) -> Subject:
    return of_run(path, metrics=metrics, others=others)


def test_a_place_is_a_run_or_holds_runs(tmp_path: Path) -> None:
    a_run(tmp_path / "runs" / "a", steps=1)
    a_run(tmp_path / "b", steps=1)
    (tmp_path / "runs" / "data").mkdir()
    shelf = Shelf([tmp_path / "runs", tmp_path / "b", tmp_path / "nothing"], make=made)
    assert set(shelf.runs()) == {"a", "b"}
    a_run(tmp_path / "runs" / "c", steps=1)
    assert set(shelf.runs()) == {"a", "b", "c"}


def test_the_run_that_wrote_last_is_first(tmp_path: Path) -> None:
    for i, name in enumerate(("old", "new", "middle")):
        silent(a_run(tmp_path / name, steps=1), since=[1000, 3000, 2000][i])
    assert list(Shelf([tmp_path], make=made).runs()) == ["new", "middle", "old"]


def test_names_tell_runs_apart_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    for place in ("x", "y"):
        a_run(tmp_path / place / "same", steps=1)
    shelf = Shelf([tmp_path / "x", tmp_path / "y"], make=made)
    for newest in ("x", "y"):
        os.utime(tmp_path / newest / "same" / "metrics.jsonl")
        assert {name: path.parent.name for name, path in shelf.runs().items()} == {
            "x/same": "x",
            "y/same": "y",
        }


def test_a_place_that_is_named_twice_holds_its_runs_once(tmp_path: Path) -> None:
    a_run(tmp_path / "a", steps=1)
    assert list(Shelf([tmp_path, tmp_path / "a", tmp_path], make=made).runs()) == ["a"]


def test_a_run_is_foretold_once_until_its_plan_changes(tmp_path: Path) -> None:
    run = a_run(tmp_path / "a", steps=1)
    times = []

    def counted(path: Path, metrics: Metrics, others: Sequence[tuple[str, Metrics]]) -> Subject:
        times.append(path)
        return made(path, metrics, others)

    shelf = Shelf([tmp_path], make=counted)
    first = shelf.subject("a")
    assert shelf.subject("a") is first
    os.utime(run / "plan.toml", (1, 1))
    assert shelf.subject("a") is not first
    assert times == [run.resolve()] * 2


def test_a_run_may_be_compared_with_the_others(tmp_path: Path) -> None:
    for name in "abc":
        a_run(tmp_path / name, steps=1)
    shelf = Shelf([tmp_path], make=made)
    assert {name for name, _ in shelf.subject("b").others} == {"a", "c"}


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/../b", "metrics.jsonl"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    a_run(tmp_path / "a", steps=1)
    shelf = Shelf([tmp_path], make=made)
    with pytest.raises(KeyError):
        shelf.subject(name)
    with pytest.raises(KeyError):
        shelf.metrics(name)


def test_a_line_of_the_list_is_the_last_record_even_if_a_crash_cut_one_short(
    tmp_path: Path,
) -> None:
    run = a_run(tmp_path / "a", steps=1000)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1001, "lo')
    (line,) = Shelf([tmp_path], make=made).listed()
    assert (line["name"], line["step"], line["steps"], line["loss"]) == ("a", 1000, 1000, 6.0)


def test_the_list_tells_speed_as_the_page_of_the_run_does(tmp_path: Path) -> None:
    run = a_run(tmp_path / "a", steps=0, planned=500)
    speeds = [float(s if s % 7 else 10 * s) for s in range(1, 451)]  # the last but one is 10 × 448
    append(run, *(record(s, tokens_per_s=v, mfu=v / 1e4) for s, v in enumerate(speeds, 1)))
    (line,) = Shelf([tmp_path], make=made).listed()
    middle = sorted(speeds[-200:])[99:101]  # the head's figures are of the last 200 steps
    assert line["tokens_per_s"] == pytest.approx(sum(middle) / 2)
    assert line["mfu"] == pytest.approx(sum(middle) / 2e4)
    assert (line["step"], line["step_s"]) == (450, 0.02)


def test_the_list_tells_speed_of_the_steps_since_the_last_start(tmp_path: Path) -> None:
    run = a_run(tmp_path / "a", steps=20, planned=500)
    restart(run, step=20)
    (line,) = Shelf([tmp_path], make=made).listed()
    assert "tokens_per_s" not in line
    append(run, record(21, tokens_per_s=3.0), record(22, tokens_per_s=5.0))
    (line,) = Shelf([tmp_path], make=made).listed()
    assert line["tokens_per_s"] == 4.0


def test_a_run_that_has_not_begun_is_listed_without_numbers(tmp_path: Path) -> None:
    a_run(tmp_path / "a", steps=0, planned=60)
    (line,) = Shelf([tmp_path], make=made).listed()
    assert "step" not in line
    assert (line["state"], line["steps"], line["model"]) == ("starting", 60, "tiny")


def test_a_run_that_has_just_begun_is_first_and_starting(tmp_path: Path) -> None:
    silent(a_run(tmp_path / "old", steps=5), since=time.time() - 60)
    silent(a_run(tmp_path / "killed", steps=5, planned=9))
    a_run(tmp_path / "new", steps=0, planned=9)
    lines = Shelf([tmp_path], make=made).listed()
    assert [(r["name"], r["state"]) for r in lines] == [
        ("new", "starting"), ("old", "finished"), ("killed", "stopped"),
    ]  # fmt: skip
    assert {r["plan"] for r in lines} == {"dp 2; 8 sequences × 64 tokens"}
    assert {r["model"] for r in lines} == {"tiny"}


def test_a_run_that_goes_on_for_longer_is_not_said_to_be_finished(tmp_path: Path) -> None:
    run = a_run(tmp_path / "a", steps=5)
    a_run(run, steps=0, planned=9)  # train --resume a steps=9
    (line,) = Shelf([tmp_path], make=made).listed()
    assert (line["state"], line["steps"]) == ("running", 9)


def test_a_run_of_which_files_are_broken_is_listed_all_the_same(tmp_path: Path) -> None:
    run = a_run(tmp_path / "a", steps=5)
    for name, text in (("plan.toml", "mesh = 3"), ("recipe.toml", "["), ("config.json", "3")):
        (run / name).write_text(text, encoding="utf-8")
    (line,) = Shelf([tmp_path], make=made).listed()
    assert (line["model"], line["plan"], line["state"]) == ("", "", "finished")


def test_a_run_that_began_later_may_be_compared_without_foretelling_again(tmp_path: Path) -> None:
    a_run(tmp_path / "a", steps=1)
    shelf = Shelf([tmp_path], make=made)
    before = shelf.subject("a")
    before.held  # noqa: B018 (what is made of it stays)
    a_run(tmp_path / "b", steps=1)
    after = shelf.subject("a")
    assert {name for name, _ in after.others} == {"b"} and before.others == ()
    assert after.held is before.held and after.predicted is before.predicted


def test_what_a_section_draws_is_made_again_only_when_the_run_has_gone_on(tmp_path: Path) -> None:
    run = a_run(tmp_path / "a", steps=3)
    times = []

    def counted(subject: Subject) -> dict[str, int]:
        times.append(subject)
        return {"count": len(times)}

    follows = Section("follows", counted, None, scripts=(), follows=("metrics",))
    stays = Section("stays", counted, None, scripts=())
    shelf = Shelf([tmp_path], make=made)
    assert [shelf.data("a", follows), shelf.data("a", follows)] == [{"count": 1}, {"count": 1}]
    assert shelf.data("a", stays) == {"count": 2}
    append(run, record(4))
    assert shelf.data("a", follows) == {"count": 3}
    assert shelf.data("a", stays) == {"count": 2}
    os.utime(run / "plan.toml", (1, 1))
    assert shelf.data("a", stays) == {"count": 4}


def test_a_page_that_was_prepared_is_not_made_again_when_it_is_asked_for(tmp_path: Path) -> None:
    a_run(tmp_path / "a", steps=3)
    times: list[str] = []

    def counted(name: str) -> Section:
        return Section(name, lambda _: {name: times.append(name)}, None, scripts=())

    sections = [counted("x"), counted("y")]
    shelf = Shelf([tmp_path], make=made)
    shelf.prepare("a", sections)
    assert times == ["x", "y"] and shelf.metrics("a").table().rows == 3
    for section in sections:
        shelf.data("a", section)
    assert times == ["x", "y"]


def test_a_section_that_is_asked_for_while_it_is_being_made_is_made_once(tmp_path: Path) -> None:
    a_run(tmp_path / "a", steps=1)
    begun, going_on = threading.Event(), threading.Event()
    times: list[int] = []

    def slow(subject: Subject) -> dict[str, int]:
        times.append(1)
        begun.set()
        assert going_on.wait(60)
        return {"count": len(times)}

    section = Section("slow", slow, None, scripts=())
    shelf = Shelf([tmp_path], make=made)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shelf.data, "a", section)
        assert begun.wait(60)
        second = pool.submit(shelf.data, "a", section)
        quick = Section("quick", lambda _: {"count": 7}, None, scripts=())
        assert shelf.data("a", quick) == {"count": 7}  # others do not wait for it
        going_on.set()
        assert first.result(60) == second.result(60) == {"count": 1}


def test_a_run_that_has_stopped_is_not_said_to_go_on(tmp_path: Path) -> None:
    run = a_run(tmp_path / "a", steps=3, planned=9)
    shelf = Shelf([tmp_path], make=made)
    (head,) = (section for section in SECTIONS if section.name == "head")
    assert shelf.data("a", head)["state"] == "running"
    silent(run)
    assert shelf.data("a", head)["state"] == "stopped"
