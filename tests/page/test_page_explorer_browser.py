"""The plan explorer as people meet it: sliders, points, keys, from a server and from a file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from runs import append, record

from conftest import Look, Serve
from stretto.cli import main
from stretto.cli.keys import Settings
from stretto.cli.rundir import RunDirectory, Start
from stretto.cli.shown import of_run
from stretto.cluster import dumps, find
from stretto.page.explorer import answer
from stretto.plan import Batch, Numerics, Plan
from stretto.presets import preset
from stretto.recipe import Recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a large model on a node of accelerators, one step old."""
    path = tmp_path_factory.mktemp("runs") / "large"
    plan = Plan.of(dp=8, zero=3, batch=Batch(32, 1, 2048), numerics=Numerics("bfloat16"))
    start = Start(preset("llama-3-8b"), plan, Recipe(steps=9), Settings(), (path,))
    RunDirectory(path).write(start, command=["stretto", "train"])
    (path / "cluster.toml").write_text(dumps(find("h100x8")), encoding="utf-8")
    append(path, record(1, steps=9))
    return path


@pytest.fixture(scope="module")
def address(serve_all: Serve, run: Path) -> str:
    return serve_all(run.parent).run_url(run.name)


@pytest.fixture
def live(look: Look, address: str) -> Page:
    page = look(address)
    settled(page)
    return page


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A plan with its explorer in a file: its address."""
    out = tmp_path_factory.mktemp("file") / "plan.html"
    words = "gpt2 dp=8 zero=1 batch.sequences=64 batch.micro_batch=4 numerics.dtype=bfloat16"
    assert main(["report", *words.split(), "--cluster", "h100x8", "--out", str(out)]) == 0
    return out.as_uri()


def settled(page: Page) -> None:
    """Wait until what is shown answers what is asked."""
    page.wait_for_selector("#explorer .explorer-body:not(.stale) .front circle")


def plan_words(page: Page) -> str:
    return page.locator(".explorer-words").inner_text()


def slider(page: Page, name: str) -> Locator:
    return page.get_by_role("slider", name=name, exact=True)


def expected(run: Path, **query: object) -> dict[str, Any]:
    """Give what Python answers."""
    return dict(answer(of_run(run), {name: str(value) for name, value in query.items()}))


def quantity(text: str) -> float:
    """Give the number at the end of a text, with its unit, in seconds or bytes."""
    units = {"s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
    units |= {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}
    number, unit = text.replace("\n", " ").split()[-2:]
    return float(number.replace(",", "")) * units[unit]


def best(answered: dict[str, Any]) -> dict[str, Any]:
    return dict(answered["plans"][answered["best"]])


def test_moving_a_slider_shows_the_plan_that_python_gives(live: Page, run: Path) -> None:
    assert plan_words(live) == best(expected(run))["words"]
    slider(live, "Devices").press("ArrowRight")
    settled(live)
    twice = best(expected(run, devices=16))
    expect(live.locator(".explorer-words")).to_have_text(twice["words"])
    expect(live.locator(".explorer-command pre")).to_have_text(twice["command"])
    expect(live.locator(".explorer-verdict")).to_contain_text("against where this began")


def test_a_number_may_be_typed_that_no_slider_has(live: Page, run: Path) -> None:
    field = live.get_by_label("Devices, as a number")
    field.fill("6")
    field.press("Enter")
    settled(live)
    assert plan_words(live) == best(expected(run, devices=6))["words"]
    field.fill("999999999")
    field.press("Enter")
    expect(field).to_have_value("65536")
    field.fill("")
    field.press("Enter")
    expect(field).to_have_value("65536")


def test_another_length_of_sequences_keeps_the_tokens_of_a_step(live: Page) -> None:
    slider(live, "Positions a sequence").press("ArrowRight")
    settled(live)
    expect(live.get_by_label("Sequences a step, as a number")).to_have_value("16")
    slider(live, "Sequences a step").press("ArrowRight")
    settled(live)
    expect(live.locator("#explorer-Sequences-a-step ~ output")).to_have_text("131 k tokens")


def test_the_old_answer_is_pale_at_once_and_the_new_one_comes(live: Page) -> None:
    pale = live.evaluate("""() => {
      const slider = document.getElementById("explorer-Network-speed");
      slider.value = Number(slider.value) + 1;
      slider.dispatchEvent(new Event("input"));
      return document.querySelector(".explorer-body").matches(".stale[aria-busy=true]");
    }""")
    assert pale
    settled(live)
    expect(live.locator(".explorer-body")).not_to_have_attribute("aria-busy", "true")


def test_of_many_questions_in_a_row_only_the_last_is_answered(live: Page, run: Path) -> None:
    asked: list[str] = []
    live.on("request", lambda r: asked.append(r.url) if "/api/explorer" in r.url else None)
    live.evaluate("""() => {
      const slider = document.getElementById("explorer-Devices");
      for (let place = 0; place <= Number(slider.max); place++) {
        slider.value = place;
        slider.dispatchEvent(new Event("input"));
      }
      slider.value = 5;
      slider.dispatchEvent(new Event("input"));
    }""")
    settled(live)
    devices = int(live.get_by_label("Devices, as a number").input_value())
    assert len(asked) <= 2
    assert plan_words(live) == best(expected(run, devices=devices))["words"]


def test_a_click_on_a_point_of_the_front_shows_its_plan(live: Page, run: Path) -> None:
    answered = expected(run)
    last = live.locator(".front circle").last
    last.click()
    expect(live.locator(".explorer-words")).to_have_text(
        answered["plans"][answered["front"][-1]]["words"]
    )
    count = len(answered["front"])
    expect(live.locator(".explorer-plan h3")).to_have_text(f"Plan {count} of {count} on the front")
    expect(live.locator(".explorer-why").first.locator("li").first).to_contain_text("at most")


def test_a_click_on_a_point_of_the_cloud_shows_its_plan_in_full(live: Page) -> None:
    place = live.evaluate("""() => {
      const { plot } = document.querySelector("#explorer .section-body").explorer;
      const { cloud, plans } = plot.answer;
      const free = (i) => plans.every((_, plan) => {
        const [a, b] = [plot.at({ plan }), plot.at({ cloud: i })];
        return Math.hypot(a[0] - b[0], a[1] - b[1]) > 20;
      });
      const [x, y] = plot.at({ cloud: cloud.time_s.findIndex((_, i) => free(i)) });
      return { x, y };
    }""")
    live.locator(".explorer-plot").scroll_into_view_if_needed()
    # What is said of a point goes when the page is scrolled, which it hears of a frame later.
    live.evaluate("() => new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))")
    live.locator(".explorer-plot").hover(position=place)
    expect(live.locator(".tooltip[data-open]")).to_be_visible()
    live.locator(".explorer-plot").click(position=place)
    expect(live.locator(".explorer-plan h3")).to_have_text("A plan off the front")
    expect(live.locator(".explorer-command pre")).to_contain_text("micro_batch=")
    expect(live.locator(".explorer-plan .parts")).to_have_count(4)  # its own, and the best plan's


def test_the_keyboard_goes_along_the_front_and_to_the_plans_with_a_name(
    live: Page, run: Path
) -> None:
    title, picture = live.locator(".explorer-plan h3"), live.locator(".explorer-plot")
    count = len(expected(run)["front"])
    picture.focus()
    picture.press("ArrowRight")
    expect(title).to_have_text(f"Plan 2 of {count} on the front")
    expect(live.locator("#say")).to_contain_text(f"Plan 2 of {count}")
    picture.press("End")
    expect(title).to_have_text(f"Plan {count} of {count} on the front")
    picture.press("ArrowRight")
    expect(title).to_have_text(f"Plan {count} of {count} on the front")
    picture.press("Home")
    expect(title).to_have_text("The best plan")
    picture.press("h")
    expect(title).to_have_text("The plan of this page")
    picture.press("b")
    expect(title).to_have_text("The best plan")


def test_the_plan_of_the_run_is_marked_where_it_is(live: Page, run: Path) -> None:
    answered = expected(run)
    here = answered["plans"][answered["here"]]
    expect(live.locator(".mark text").filter(has_text="you are here")).to_have_count(1)
    live.get_by_role("button", name="you are here").click()
    expect(live.locator(".explorer-why li")).to_have_text(here["wins"])


def test_the_objective_changes_what_time_is_drawn_against(live: Page) -> None:
    live.get_by_label("Best is the").select_option("energy")
    settled(live)
    expect(live.locator(".explorer-plot .axes")).to_contain_text("energy of a step")
    live.get_by_role("button", name="Back to this page's plan").click()
    settled(live)
    expect(live.locator(".explorer-plot .axes")).to_contain_text("memory of the fullest rank")


def test_what_no_plan_can_do_says_why_and_the_way_back_works(live: Page, run: Path) -> None:
    for name, value in (("Devices", 1), ("Sequences a step", 1), ("Positions a sequence", 1048576)):
        field = live.get_by_label(f"{name}, as a number")
        field.fill(str(value))
        field.press("Enter")
    expect(live.locator("#explorer .explorer-problems")).to_be_visible()
    assert not live.locator(".explorer-body").is_visible()
    live.get_by_role("button", name="Back to this page's plan").click()
    settled(live)
    assert plan_words(live) == best(expected(run))["words"]


def test_a_server_that_is_gone_is_said_to_be_gone(live: Page) -> None:
    live.evaluate("() => { window.fetch = () => Promise.reject(new TypeError('gone')); }")
    slider(live, "Devices").press("ArrowRight")
    expect(live.locator("#explorer .explorer-problems")).to_have_text(
        "the server is gone: start stretto ui again"
    )


def test_plan_and_command_can_be_copied(live: Page) -> None:
    live.context.grant_permissions(["clipboard-read", "clipboard-write"])
    live.locator(".explorer-command button").click()
    copied = live.evaluate("navigator.clipboard.readText()")
    assert copied == live.locator(".explorer-command pre").inner_text()
    live.get_by_text("The plan as TOML").click()
    expect(live.locator(".explorer-file pre")).to_contain_text("[mesh]")


def test_what_is_listed_of_a_step_and_of_memory_makes_the_whole(live: Page) -> None:
    rests = 0
    for figure, whole in (("Where a step goes", "step_s"), ("fullest rank", "memory_bytes")):
        listed = live.locator(".explorer-bar", has_text=figure).locator(".legend li")
        parts = [p for p in listed.all_inner_texts() if not p.startswith("free")]
        rests += parts[-1].startswith("the rest")
        told = live.evaluate(f"""() => {{
          const {{ answer }} = document.querySelector("#explorer .section-body").explorer;
          return answer.plans[answer.best].{whole};
        }}""")
        assert sum(map(quantity, parts)) == pytest.approx(told, rel=0.01)
    assert rests


def test_the_slider_and_the_words_beside_it_begin_alike(live: Page) -> None:
    positions = live.locator(".explorer-control").nth(2)
    expect(positions).to_contain_text("slider 128 to 262,144, typed 1 to 1,048,576")
    slider(live, "Positions a sequence").press("Home")
    expect(live.get_by_label("Positions a sequence, as a number")).to_have_value("128")


def test_kinds_of_plan_can_be_hidden(live: Page) -> None:
    before = live.locator(".cloud path").count()
    live.locator(".explorer-legend button").first.click()
    expect(live.locator(".cloud path")).to_have_count(before - 1)
    live.keyboard.press("Enter")  # the button is still the one in focus
    expect(live.locator(".cloud path")).to_have_count(before)


def test_the_front_can_be_read_as_a_table(live: Page, run: Path) -> None:
    live.get_by_text("The front as a table").click()
    rows = live.locator("#explorer .as-table tbody tr")
    expect(rows).to_have_count(len(expected(run)["front"]))


# ── a file ───────────────────────────────────────────────────────────────────────────────────────


def test_a_file_answers_between_the_values_that_it_holds(look: Look, file: str) -> None:
    page = look(file)
    settled(page)
    expect(page.locator(".explorer-note").first).to_contain_text("This file holds 81 answers")
    before = page.locator(".explorer-verdict").inner_text()
    slider(page, "Devices").press("ArrowRight")
    settled(page)
    expect(page.locator(".explorer-verdict")).to_contain_text("on 16 devices")
    assert page.locator(".explorer-verdict").inner_text() != before
    field = page.get_by_label("Network speed, as a number")
    field.fill("3")
    field.press("Enter")
    expect(field).to_have_value("4")  # the nearest that there is
    settled(page)
    expect(page.locator(".explorer-command small").last).to_contain_text("cluster.toml")


def test_a_point_of_the_cloud_of_a_file_says_what_is_known(look: Look, file: str) -> None:
    page = look(file)
    settled(page)
    page.evaluate("""() => {
      const { explorer } = document.querySelector("#explorer .section-body");
      explorer.choose({ cloud: explorer.answer.cloud.time_s.length - 1 });
    }""")
    expect(page.locator(".explorer-plan h3")).to_have_text("A plan off the front")
    said = page.locator(".explorer-why li")
    expect(said.nth(0)).to_contain_text(
        re.compile(r"^Plan \d+ of \d+ on the front .* beats it: .* less")
    )
    expect(said.nth(1)).to_contain_text(re.compile(r"^Of the step this one has [+−].*s "))
    expect(page.locator(".explorer-bar figcaption").first).to_have_text("Where a step goes")
    parts = page.evaluate("""() => {
      const { explorer } = document.querySelector("#explorer .section-body");
      const { cloud } = explorer.answer, plan = explorer.brief(cloud.time_s.length - 1);
      const sum = (values) => values.reduce((a, b) => a + b, 0);
      return [sum(plan.time) / plan.step_s, sum(plan.memory) / plan.memory_bytes];
    }""")
    assert parts == [pytest.approx(1, abs=0.01)] * 2


def test_the_command_of_a_point_of_a_file_gives_that_plan(
    look: Look, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = look(file)
    settled(page)
    step_s = page.evaluate("""() => {
      const { explorer } = document.querySelector("#explorer .section-body");
      explorer.choose({ cloud: 7 });
      return explorer.answer.cloud.time_s[7];
    }""")
    command = page.locator(".explorer-command pre").inner_text()
    capsys.readouterr()
    assert main([*command.split()[1:], "--json"]) == 0
    answered = json.loads(capsys.readouterr().out)
    assert answered["best"]["step_s"] == pytest.approx(step_s, rel=1e-4)


def test_a_number_that_a_file_has_not_says_what_is_taken_instead(look: Look, file: str) -> None:
    page = look(file)
    settled(page)
    field = page.get_by_label("Devices, as a number")
    control = page.locator(".explorer-control").first
    expect(control).to_contain_text("in this file: 4, 8, 16")
    field.fill("12.6")
    field.press("Enter")
    expect(field).to_have_value("16")
    expect(control).to_contain_text("no answer for 12.6: 16 is the nearest")
    slider(page, "Devices").press("ArrowLeft")
    expect(control).not_to_contain_text("no answer")


def test_a_point_of_the_front_of_which_a_file_tells_little_is_on_the_front(
    look: Look, file: str
) -> None:
    page = look(file)
    settled(page)
    front, brief = page.evaluate("""() => {
      const { answer } = document.querySelector("#explorer .section-body").explorer;
      return [answer.front.length, answer.front.findIndex((i) => "cloud" in answer.plans[i])];
    }""")
    assert brief > 0
    expect(page.locator(".front circle")).to_have_count(front)
    picture = page.locator(".explorer-plot")
    picture.focus()
    for _ in range(brief):
        picture.press("ArrowRight")
    title = page.locator(".explorer-plan h3")
    expect(title).to_have_text(f"Plan {brief + 1} of {front} on the front")
    said = page.locator(".explorer-why li")
    expect(said.nth(0)).to_have_text("No plan that fits beats it in both.")
    expect(said.nth(1)).to_contain_text(
        re.compile(rf"^Beside plan {brief} .* slower and takes .* less memory")
    )


def test_no_point_of_a_file_is_unbeaten_by_the_front_but_for_a_hundredth(
    look: Look, file: str
) -> None:
    page = look(file)
    settled(page)
    said = page.evaluate("""() => {
      const { explorer } = document.querySelector("#explorer .section-body");
      return explorer.answer.cloud.time_s.map((_, i) => explorer.off(i).wins[0]);
    }""")
    assert len(said) > 20
    for text in said:
        assert " beats it: " in text or text.endswith("which is too little to be on the front.")


def test_whole_numbers_are_said_to_the_last_digit(live: Page) -> None:
    control = live.locator(".explorer-control").nth(1)
    expect(control).to_contain_text("1 to 1,048,576")
    field = live.get_by_label("Sequences a step, as a number")
    field.fill("1048577")
    field.press("Enter")
    expect(control).to_contain_text("1,048,577 is above the most, 1,048,576.")
    expect(field).to_have_value("1048576")


def test_a_number_out_of_bounds_becomes_the_bound_and_says_so(live: Page) -> None:
    control = live.locator(".explorer-control").last
    expect(control).to_contain_text("0.015625 to 64")
    field = live.get_by_label("Network speed, as a number")
    field.fill("0.001")
    field.press("Enter")
    expect(field).to_have_value("0.015625")
    expect(control).to_contain_text("0.001 is below the least, 0.015625")
    settled(live)
    expect(live.locator("#explorer .explorer-problems")).to_have_count(0)


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_is_wider_than_the_screen(look: Look, file: str, width: int) -> None:
    page = look(file, width=width)
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
